"""Faults while the program trains: it is killed, the disk is full, files are untrusted."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

import numpy
import pytest

import helpers
import train_mnist
from helpers import PROGRAM, ROOT, log_of, same, small
from support.files import read_npz, save_npz

EPOCHS = 3

posix = pytest.mark.skipif(os.name == 'nt', reason='Windows has no such limits and signals')


def slow(cases):
    """All cases with --slow; a tenth of them, and at least three, without."""
    cases = list(cases)
    few = set(random.Random(0).sample(range(len(cases)), max(3, len(cases) // 10)))
    return [
        case if i in few else pytest.param(case, marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]


def start(code, *arguments):
    """Starts Python code with arguments for the program; the code is what makes the fault."""
    return helpers.start('-c', code, *arguments, cwd=ROOT)


def wait_for(prefix, folder, process):
    """Waits until the process has a file of that name in its folder, or has ended."""
    while process.poll() is None and not (
        folder.exists() and any(name.startswith(prefix) for name in os.listdir(folder))
    ):
        time.sleep(0.01)


def arguments_for(folder, data):
    return ['--data', data, '--unit', 50, '--batchsize', 50, '--epoch', EPOCHS, '--out', folder]


@pytest.fixture(scope='session')
def uninterrupted(small_mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp('uninterrupted')
    assert small(folder, small_mnist, '--epoch', EPOCHS).stderr == ''
    return folder


def assert_resumes_to(expected, folder, data, *options):
    """Whatever the folder holds, --resume ends as the uninterrupted training did."""
    result = small(folder, data, '--epoch', EPOCHS, '--resume', *options)
    assert (result.returncode, result.stderr) == (0, '')
    assert log_of(folder) == log_of(expected)
    assert same(folder / 'mlp.model', expected / 'mlp.model')
    assert same(folder / 'mlp.state', expected / 'mlp.state')
    left = {name for name in os.listdir(folder) if not name.endswith('.new')}
    assert left == set(os.listdir(expected))


# The program kills itself at its k-th operation on a file in --out: open, rename or delete.
KILL_AT_STEP = (
    """
import os, sys
k, out = int(sys.argv.pop(1)), sys.argv[sys.argv.index('--out') + 1]
def count(event, args):
    global k
    events = 'open', 'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir'
    if event in events and str(args[0]).startswith(out):
        k -= 1
        if k == 0:
            os.kill(os.getpid(), 9)  # on Windows this is TerminateProcess
sys.addaudithook(count)
"""
    + PROGRAM
)


@pytest.mark.parametrize('k', slow(range(1, 40)))
def test_killed_at_any_step_on_a_file(k, uninterrupted, small_mnist, tmp_path):
    process = start(KILL_AT_STEP, k, *arguments_for(tmp_path, small_mnist))
    process.communicate()
    assert abs(process.returncode) == 9
    assert_resumes_to(uninterrupted, tmp_path, small_mnist)


@pytest.mark.parametrize('k', slow(range(1, 45)))
def test_killed_while_it_replaces_a_run(k, uninterrupted, small_mnist, tmp_path):
    """The old run stays until there is a snapshot of the new one, which it is never taken for."""
    small(tmp_path, small_mnist, '--epoch', 1)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != '.lock'}
    process = start(KILL_AT_STEP, k, *arguments_for(tmp_path, small_mnist), '--overwrite')
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    places = [tmp_path, *tmp_path.glob('.overwritten*')]
    snapshots = [path.read_bytes() for path in tmp_path.glob('snapshot_epoch_*')]
    if set(snapshots) <= {old['snapshot_epoch_1']}:
        for name, content in old.items():
            found = [place / name for place in places if (place / name).exists()]
            assert content in [path.read_bytes() for path in found]
        if not snapshots:
            result = small(tmp_path, small_mnist, '--epoch', EPOCHS, '--resume')
            assert result.returncode == 2 and 'move its files back' in result.stderr
        assert small(tmp_path, small_mnist, '--epoch', EPOCHS, '--overwrite').stderr == ''
    assert_resumes_to(uninterrupted, tmp_path, small_mnist, '--overwrite')


# The kernel kills the program when a file reaches a size: the file is half-written.
KILL_AT_SIZE = (
    """
import resource, signal, sys
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
"""
    + PROGRAM
)


@posix
@pytest.mark.parametrize(
    'size', slow([100, 4000, 6000, 60_000, 100_000, 150_000, 200_000, 300_000, 400_000, 500_000])
)
def test_killed_while_it_writes_a_file(size, uninterrupted, small_mnist, tmp_path):
    small(tmp_path, small_mnist, '--epoch', 1)
    process = start(KILL_AT_SIZE, size, *arguments_for(tmp_path, small_mnist), '--resume')
    process.communicate()
    assert process.returncode == -signal.SIGXFSZ
    assert (
        os.path.getsize(*[path for path in tmp_path.iterdir() if path.name.endswith('.new')])
        <= size
    )
    assert_resumes_to(uninterrupted, tmp_path, small_mnist)


@pytest.mark.parametrize('seed', slow(range(30)))
def test_killed_at_a_random_moment(seed, uninterrupted, small_mnist, tmp_path):
    """Twice, if the first resumed training lasts long enough to be killed too."""
    moment = random.Random(seed)
    for _ in range(2):
        process = start(PROGRAM, *arguments_for(tmp_path, small_mnist), '--resume')
        wait_for('.lock', tmp_path, process)
        time.sleep(moment.uniform(0, 0.3))  # in which a training ends
        process.kill()
        process.communicate()
    assert_resumes_to(uninterrupted, tmp_path, small_mnist)


def test_the_newest_snapshot_is_damaged(uninterrupted, small_mnist, tmp_path):
    small(tmp_path, small_mnist, '--epoch', 1)
    (tmp_path / 'snapshot_epoch_2').write_bytes(
        (tmp_path / 'snapshot_epoch_1').read_bytes()[:-1000]
    )
    result = small(tmp_path, small_mnist, '--epoch', EPOCHS, '--resume')
    assert 'snapshot_epoch_2: damaged' in result.stdout
    assert f'resume from {tmp_path / "snapshot_epoch_1"}\n' in result.stdout
    assert same(tmp_path / 'mlp.model', uninterrupted / 'mlp.model')


def test_killed_when_all_was_trained(uninterrupted, small_mnist, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / 'out')
    for name in 'mlp.model', 'mlp.state':
        (tmp_path / 'out' / name).unlink()
    assert_resumes_to(uninterrupted, tmp_path / 'out', small_mnist)


def test_no_snapshot_to_resume_from(uninterrupted, small_mnist, tmp_path):
    result = small(tmp_path, small_mnist, '--epoch', EPOCHS, '--resume', 'auto')
    assert f'no snapshot in {tmp_path} to resume from: starting afresh\n' in result.stdout
    assert same(tmp_path / 'mlp.model', uninterrupted / 'mlp.model')


def one_line(process, status=1):
    out, err = process.communicate(timeout=100)
    assert process.returncode == status, err
    (line,) = err.splitlines()
    assert line.startswith('train_mnist.py: ')
    return line


@posix
def test_a_file_size_limit(uninterrupted, small_mnist, tmp_path):
    small(tmp_path, small_mnist, '--epoch', 1)
    before = (tmp_path / 'snapshot_epoch_1').read_bytes()
    code = (
        'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n'
        + PROGRAM
    )
    line = one_line(start(code, *arguments_for(tmp_path, small_mnist), '--resume'))
    assert line == f'train_mnist.py: {tmp_path}/snapshot_epoch_2: File too large'
    assert (tmp_path / 'snapshot_epoch_1').read_bytes() == before
    assert_resumes_to(uninterrupted, tmp_path, small_mnist)


@posix
def test_a_full_disk(uninterrupted, small_mnist, tmp_path):
    folder = tmp_path / 'disk'
    folder.mkdir()
    size = 1_100_000  # room for one snapshot (0.6 MB) and the rest, not for two
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f'no file system can be mounted: {mounted.stderr.strip()}')
    try:
        line = one_line(start(PROGRAM, *arguments_for(folder, small_mnist)))
        assert line == f'train_mnist.py: {folder}/snapshot_epoch_2: No space left on device'
        shutil.copytree(folder, tmp_path / 'larger')
    finally:
        subprocess.run(['umount', folder], check=True)
    assert_resumes_to(uninterrupted, tmp_path / 'larger', small_mnist)


@posix
def test_the_folder_vanishes(small_mnist, tmp_path):
    folder = tmp_path / 'out'
    process = start(PROGRAM, '--data', small_mnist, '--unit', 10, '--epoch', 1000, '--out', folder)
    wait_for('snapshot_epoch_', folder, process)
    while folder.exists():  # again, if a file was made meanwhile
        shutil.rmtree(folder, ignore_errors=True)
    line = one_line(process)
    assert line.startswith(f'train_mnist.py: {folder}') and line.endswith(
        'No such file or directory'
    )


def test_two_trainings_into_one_folder(small_mnist, tmp_path):
    arguments = ['--data', small_mnist, '--unit', 10, '--epoch', 1000, '--out', tmp_path]
    first = start(PROGRAM, *arguments)
    wait_for('.lock', tmp_path, first)
    line = one_line(start(PROGRAM, *arguments), status=2)
    assert line == f'train_mnist.py: {tmp_path}: another training is writing to this folder'
    first.kill()
    first.communicate()
    # The lock is gone.
    assert small(tmp_path, small_mnist, '--unit', 10, '--epoch', 1, '--overwrite').returncode == 0


def test_a_loss_that_is_not_a_number(small_mnist, uninterrupted, tmp_path):
    arrays = read_npz(str(uninterrupted / 'mlp.model'))
    arrays['bn3/beta'] = numpy.linspace(-3e38, 3e38, 10, dtype=numpy.float32)
    with open(tmp_path / 'model', 'wb') as f:
        numpy.savez(f, **arrays)
    out = tmp_path / 'out'
    small(out, small_mnist, '--epoch', 1)
    before = (out / 'snapshot_epoch_1').read_bytes()
    result = small(out, small_mnist, '--overwrite', '--initmodel', tmp_path / 'model')
    assert result.returncode == 1
    assert result.stderr == 'train_mnist.py: the loss became inf in epoch 1, at iteration 1\n'
    assert (out / '.overwritten' / 'snapshot_epoch_1').read_bytes() == before


@posix
def test_interrupted(small_mnist, tmp_path, uninterrupted):
    # Tests that run in the background, and the programs they start, ignore this signal.
    code = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n' + PROGRAM
    process = start(
        code, *arguments_for(tmp_path, small_mnist)[:-4], '--epoch', 1000, '--out', tmp_path
    )
    wait_for('snapshot_epoch_', tmp_path, process)
    process.send_signal(signal.SIGINT)
    line = one_line(process, status=130)
    assert 'interrupted in epoch ' in line
    snapshot = line.split('add --resume ')[1].split()[0]
    assert os.path.exists(snapshot)


@posix
def test_nobody_reads_the_output(small_mnist, tmp_path):
    process = start(PROGRAM, *arguments_for(tmp_path, small_mnist))
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() != 0
    assert err == 'train_mnist.py: Broken pipe\n'


# Untrusted files: mutated bytes, and mutated arrays in a valid npz file.


def mutate_bytes(content, random_):
    content = bytearray(content)
    for _ in range(random_.choice([1, 1, 2, 10])):
        kind, at = random_.randrange(4), random_.randrange(len(content))
        if random_.random() < 0.5:  # where the headers are
            at = random_.choice([at % 200, len(content) - 1 - at % 2000 % len(content)])
        if kind == 0:
            content[at] = random_.randrange(256)
        elif kind == 1:
            content[at] ^= 1 << random_.randrange(8)
        elif kind == 2:
            del content[at : at + random_.choice([1, 10, 1000])]
        else:
            content[at:at] = bytes(
                random_.randrange(256) for _ in range(random_.choice([1, 4, 100]))
            )
        content = content or bytearray(1)
    return bytes(content)


def mutate_arrays(content, random_):
    with numpy.load(io.BytesIO(content)) as npz:
        arrays = dict(npz)
    name = random_.choice(sorted(arrays))
    array = arrays[name]
    replacement = random_.choice(
        [
            lambda: None,
            lambda: array.astype('U'),
            lambda: array.reshape(-1)[:-1],
            lambda: array[None],
            lambda: numpy.array([array.item() if array.ndim == 0 else 0], object),
            lambda: numpy.array('[' * 100_000),
            lambda: numpy.array('[{"epoch": 1}]'),
            lambda: numpy.array('{}'),
            lambda: numpy.array(-1),
            lambda: numpy.array(2**62),
            lambda: numpy.array(numpy.nan),
            lambda: numpy.zeros_like(array),
            lambda: array.astype(complex) if array.dtype.kind != 'U' else None,
        ]
    )()
    del arrays[name]
    if replacement is not None:
        arrays[name] = replacement
    file = io.BytesIO()
    numpy.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture(scope='session')
def signed(small_mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp('signed')
    assert small(folder, small_mnist, '--epoch', 1, '--signed-pixels').stderr == ''
    return folder


@pytest.mark.parametrize('name', ['l2/bits', 'activation_bits', 'signed_pixels'])
@pytest.mark.parametrize(
    'file, prefix, option',
    [
        ('mlp.model', '', '--initmodel'),
        ('snapshot_epoch_1', 'updater/model:main/predictor/', '--resume'),
    ],
)
def test_file_of_another_net(file, prefix, option, name, signed, small_mnist, tmp_path):
    """With the same arrays, but other bits or pixels: it is refused."""
    with numpy.load(signed / file) as npz:
        arrays = dict(npz)
    arrays[prefix + name] -= 1
    path = tmp_path / 'other.npz'
    numpy.savez(path, **arrays)
    words = *arguments_for(tmp_path / 'out', small_mnist), '--signed-pixels', option, path
    args = train_mnist.parse_arguments([*map(str, words)])
    with pytest.raises(ValueError, match=f'^{re.escape(str(path))}: '):
        train_mnist.prepare(args)


@pytest.mark.parametrize('kind', ['model', 'snapshot', 'data'])
@pytest.mark.parametrize('n', [30, pytest.param(700, marks=pytest.mark.slow)])
def test_untrusted_files(kind, n, uninterrupted, small_mnist, tmp_path):
    """Each is loaded and trains, or is refused in one line."""
    arguments = ['--data', small_mnist, '--unit', 50, '--batchsize', 50, '--epoch', EPOCHS + 1]
    if kind == 'data':
        shutil.copytree(small_mnist, tmp_path / 'data')
        arguments[1] = tmp_path / 'data'
        paths = sorted((tmp_path / 'data').iterdir())
    else:
        paths = [tmp_path / kind]
        shutil.copy(
            uninterrupted / {'model': 'mlp.model', 'snapshot': f'snapshot_epoch_{EPOCHS}'}[kind],
            paths[0],
        )
        arguments += [{'model': '--initmodel', 'snapshot': '--resume'}[kind], paths[0]]
    random_ = random.Random(n)
    originals = {path: path.read_bytes() for path in paths}
    refused = 0
    for i in range(n):
        path = random_.choice(paths)
        mutate = mutate_arrays if kind != 'data' and i % 2 else mutate_bytes
        path.write_bytes(mutate(originals[path], random_))
        args = train_mnist.parse_arguments(
            [*map(str, arguments), '--out', str(tmp_path / f'out{i}')]
        )
        try:
            trainer, held = train_mnist.prepare(args)
        except (OSError, ValueError, MemoryError) as e:
            assert '\n' not in str(e)
            refused += 1
        else:
            trainer.stop_trigger = lambda trainer, last=trainer.updater.iteration + 12: (
                trainer.updater.iteration >= last
            )
            try:
                train_mnist.train(args, trainer, held)
            except FloatingPointError as e:  # the numbers may be any
                assert 'the loss became' in str(e)
        path.write_bytes(originals[path])
    assert refused > n / 4  # else the mutations are too mild to show anything


@pytest.mark.parametrize('name', ['Report/counts', 'LogReport/_log'])
@pytest.mark.parametrize('instead', ['1', 10**400, None, [1], {}], ids=lambda x: str(x)[:4])
def test_a_snapshot_whose_log_is_not_numbers(name, instead, uninterrupted, small_mnist, tmp_path):
    """It is refused at once: Matplotlib would raise after the training."""
    arrays = read_npz(str(uninterrupted / f'snapshot_epoch_{EPOCHS}'))
    (name,) = (full for full in arrays if full.endswith(name))
    table = json.loads(arrays[name].item())
    row = table[0] if isinstance(table[0], dict) else table[0][0]
    row['main/loss' if isinstance(row, dict) else 0] = instead
    arrays[name] = numpy.array(json.dumps(table))
    path = tmp_path / 'snapshot'
    save_npz(str(path), arrays)
    args = train_mnist.parse_arguments(
        [*map(str, arguments_for(tmp_path / 'out', small_mnist)), '--resume', str(path)]
    )
    with pytest.raises(ValueError, match='its parts do not fit together'):
        train_mnist.prepare(args)


@pytest.mark.parametrize(
    'name',
    [
        'extension_triggers/LogReport/previous_iteration',
        'extensions/LogReport/_trigger/previous_epoch_detail',
        'stop_trigger/previous_epoch_detail',
        'updater/iterator:main/previous_epoch_detail',
    ],
)
def test_a_snapshot_that_would_trigger_at_another_time(name, uninterrupted, small_mnist, tmp_path):
    """It is refused at once: the log would get a row that lacks what a picture is drawn of."""
    arrays, path = read_npz(str(uninterrupted / f'snapshot_epoch_{EPOCHS}')), tmp_path / 'snapshot'
    save_npz(str(path), {**arrays, name: arrays[name] - 1})
    args = train_mnist.parse_arguments(
        [*map(str, arguments_for(tmp_path / 'out', small_mnist)), '--resume', str(path)]
    )
    with pytest.raises(ValueError, match=f'its parts do not fit together: {name}$'):
        train_mnist.prepare(args)
