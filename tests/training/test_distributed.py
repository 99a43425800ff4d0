"""Several processes train the same net as one."""

import contextlib
import glob
import json
import os
import pty
import signal
import subprocess
import sys
import time

import numpy
import pytest

import helpers
from helpers import ROOT, write_dataset
from support.files import read_npz

pytest.importorskip('mpi4py', reason='mpi4py is not installed')
MPIEXEC = os.path.join(os.path.dirname(sys.executable), 'mpiexec')
pytestmark = pytest.mark.skipif(
    not os.path.exists(MPIEXEC), reason='there is no mpiexec beside the interpreter'
)
ENVIRONMENT = {
    **os.environ,
    'OPENBLAS_NUM_THREADS': '1',
    'OMPI_ALLOW_RUN_AS_ROOT': '1',
    'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
}


def command(processes, folder, data, *options):
    train = [sys.executable, f'{ROOT}/train_mnist.py', '--communicator', 'naive']
    options = ['--data', data, '--out', folder, '--unit', 40, '--batchsize', 60, *options]
    return [MPIEXEC, '--oversubscribe', '-n', str(processes), *train, *map(str, options)]


def run(processes, *arguments):
    words = command(processes, *arguments)
    if processes == 1:  # which needs no mpiexec
        return helpers.run(*words[5:])
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


def log(folder):
    with open(folder / 'log') as f:
        return json.load(f)


def losses(folder):
    names = 'main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy'
    return numpy.array([[row[name] for name in names] for row in log(folder)])


def assert_same_net(folder, other):
    """All of two models but the biases is equal up to rounding. A bias before batch normalization
    has a gradient of nothing but rounding, which Adam scales up.
    """
    models = [read_npz(str(path / 'mlp.model')) for path in (folder, other)]
    assert models[0].keys() == models[1].keys()
    for name in models[0]:
        if not name.endswith('/b'):
            a, b = (model[name] for model in models)
            numpy.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    'options',
    [
        [],
        ['--batchsize', 3],  # an image for each of three processes
        pytest.param(['--net', 'quantized', '--hold-out', 60], marks=pytest.mark.slow),
        pytest.param(['--loss', 'hinge'], marks=pytest.mark.slow),
    ],
)
def test_any_number_of_processes_trains_the_same_net(mnist, tmp_path, options, request):
    """And the first alone prints."""
    n_train = 60 if '--batchsize' in options else 600
    parts = zip(mnist, (n_train, n_train, 200, 200))
    data = write_dataset(tmp_path / 'data', *(array[:n] for array, n in parts))
    counts = (1, 2, 3) if request.config.getoption('--slow') and len(options) != 2 else (1, 3)
    for n in counts:
        result = run(n, tmp_path / str(n), data, '--epoch', 1, *options)
        assert result.returncode == 0, result.stderr
        assert '\033' not in result.stdout
        for words in (
            'Minibatch-size',
            f'processes: {n}',
            'graph generated',
            'main/loss',
            'save the model',
        ):
            assert sum(words in line for line in result.stdout.splitlines()) == 1
    expected = losses(tmp_path / '1')
    for n in counts[1:]:
        found = losses(tmp_path / str(n))
        numpy.testing.assert_allclose(found[:, [0, 2]], expected[:, [0, 2]], rtol=1e-5)
        # The biases move these, as the moving means follow them with a delay.
        numpy.testing.assert_allclose(found[:, [1, 3]], expected[:, [1, 3]], rtol=5e-3)
        if not options:
            assert_same_net(tmp_path / str(n), tmp_path / '1')


@pytest.mark.slow
def test_one_process_is_the_plain_training(small_mnist, tmp_path):
    assert (
        run(1, tmp_path / 'mpi', small_mnist, '--epoch', 2, '--dropout-hidden', 0.2).returncode
        == 0
    )
    plain = command(1, tmp_path / 'plain', small_mnist, '--epoch', 2, '--dropout-hidden', 0.2)[4:]
    plain = [word for word in plain if word not in ('--communicator', 'naive')]
    assert subprocess.run(plain, env=ENVIRONMENT, capture_output=True).returncode == 0
    numpy.testing.assert_allclose(losses(tmp_path / 'mpi'), losses(tmp_path / 'plain'), rtol=1e-4)


def test_all_of_a_saved_model_is_taken_over(small_mnist, tmp_path):
    """Also its batch normalization: without it the losses would start elsewhere."""
    assert run(1, tmp_path / 'a', small_mnist, '--epoch', 2).returncode == 0
    model = tmp_path / 'a/mlp.model'
    for n in 1, 2:
        options = ['--epoch', 1, '--initmodel', model, '--alpha', 1e-9]
        assert run(n, tmp_path / f'b{n}', small_mnist, *options).returncode == 0
        saved, loaded = (read_npz(str(path)) for path in (model, tmp_path / f'b{n}/mlp.model'))
        for name in 'bn1/gamma', 'bn2/beta', 'bn3/gamma':
            numpy.testing.assert_allclose(loaded[name], saved[name], atol=1e-6)
    numpy.testing.assert_allclose(losses(tmp_path / 'b2'), losses(tmp_path / 'b1'), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize('before, after', [(2, 1), (1, 3)])
def test_another_number_of_processes_resumes(small_mnist, tmp_path, before, after):
    assert run(before, tmp_path / 'a', small_mnist, '--epoch', 1).returncode == 0
    result = run(after, tmp_path / 'a', small_mnist, '--epoch', 2, '--resume')
    assert result.returncode == 0 and 'resume from' in result.stdout
    assert run(1, tmp_path / 'b', small_mnist, '--epoch', 2).returncode == 0
    numpy.testing.assert_allclose(losses(tmp_path / 'a'), losses(tmp_path / 'b'), rtol=5e-3)
    assert set(os.listdir(tmp_path / 'a')) == set(os.listdir(tmp_path / 'b'))


def ours(stderr):
    """The lines of standard error that are not mpiexec's."""
    return [line for line in stderr.splitlines() if line.startswith('train_mnist.py')]


def test_bad_input_is_one_line_and_ends_all(small_mnist, tmp_path):
    for options, message in (
        (['--epoch', 'x'], 'argument --epoch/-e: must be a whole number'),
        (['--batchsize', 99], '--batchsize 99: 2 processes cannot share every minibatch equally'),
        (
            ['--batchsize', 598, '--hold-out', 1],
            'must divide --batchsize and the 599 training images',
        ),
        (['--resume', tmp_path / 'none'], f'{tmp_path}/none: No such file'),
    ):
        result = run(2, tmp_path / 'out', small_mnist, *options)
        assert result.returncode == 2
        (line,) = ours(result.stderr)
        assert message in line
    assert not glob.glob(f'{tmp_path}/out/*')


def wrapped(tmp_path, commands):
    """Runs as many processes as there are commands, each of which is one in the shell."""
    cases = ''.join(f'{rank}) {words};;' for rank, words in enumerate(commands))
    wrapper = tmp_path / 'train.sh'
    wrapper.write_text(f'#!/bin/sh\ncase $OMPI_COMM_WORLD_RANK in {cases} esac\n')
    wrapper.chmod(0o755)
    return subprocess.run(
        [MPIEXEC, '--oversubscribe', '-n', str(len(commands)), str(wrapper)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
    )


def test_what_one_process_meets_ends_all(small_mnist, tmp_path):
    """The data are there for the first process alone."""
    train = ' '.join(command(1, tmp_path / 'out', 'small', '--epoch', 1)[4:])
    result = wrapped(tmp_path, [f'cd {small_mnist.parent}; {train}', train])
    assert result.returncode == 2
    (line,) = ours(result.stderr)
    assert 'process 1, on ' in line and line.endswith('small: there is no such folder')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['epoch', pytest.param('seed', marks=pytest.mark.slow)])
def test_different_options_are_named(name, small_mnist, tmp_path):
    commands = [
        ' '.join(command(1, tmp_path / 'out', small_mnist, f'--{name}', n)[4:]) for n in (2, 3)
    ]
    result = wrapped(tmp_path, commands)
    assert result.returncode == 2
    (line,) = ours(result.stderr)
    assert line.endswith(
        f'process 1: belongs to a training with --{name} 3, and this one is with --{name} 2'
    )
    assert not (tmp_path / 'out').exists()


def test_without_communicator_nothing_is_written(small_mnist, tmp_path):
    words = command(2, tmp_path / 'out', small_mnist)
    words = [word for word in words if word not in ('--communicator', 'naive')]
    result = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert result.returncode == 2
    (line,) = ours(result.stderr)
    assert 'mpiexec has started several processes' in line and 'add --communicator naive' in line
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('rank', [1, pytest.param(0, marks=pytest.mark.slow)])
def test_ctrl_c_to_one_process_before_the_training(small_mnist, tmp_path, rank):
    """It comes when that process opens the images; the others wait for it or go on."""
    (tmp_path / 'sitecustomize.py').write_text(
        'import os, signal, sys\n'
        'def hook(event, arguments):\n'
        f'    if event == "open" and "train-images" in str(arguments[0]) and RANK == "{rank}":\n'
        '        os.kill(os.getpid(), signal.SIGINT)\n'
        'RANK = os.environ.get("OMPI_COMM_WORLD_RANK")\n'
        'sys.addaudithook(hook)\n'
    )
    result = subprocess.run(
        command(2, tmp_path / 'out', small_mnist),
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, 'PYTHONPATH': str(tmp_path)},
        timeout=60,
    )
    assert result.returncode == 130
    assert ours(result.stderr) == ['train_mnist.py: interrupted before the training']


def test_ctrl_c_to_mpiexec_says_how_to_resume(small_mnist, tmp_path):
    """On a terminal, where it is typed."""
    pid, terminal = pty.fork()
    if not pid:
        words = command(2, tmp_path / 'out', small_mnist, '--epoch', 4000)
        os.execve(words[0], list(map(str, words)), ENVIRONMENT)
    shown = b''
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while b'\n2  ' not in shown:
            shown += os.read(terminal, 10000)
        os.write(terminal, b'\x03')
        while True:
            shown += os.read(terminal, 10000)
    os.waitpid(pid, 0)
    (line,) = [line for line in shown.decode().splitlines() if 'to resume, add' in line]
    assert f'--resume {tmp_path}/out/snapshot_epoch_' in line


@pytest.mark.parametrize('rank', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_run_and_it_resumes(small_mnist, tmp_path, rank):
    process = subprocess.Popen(
        command(2, tmp_path / 'out', small_mnist, '--epoch', 400),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,  # without a terminal, where the line would be shown
    )
    while not glob.glob(f'{tmp_path}/out/snapshot_epoch_?'):
        time.sleep(0.1)
        assert process.poll() is None
    pids = []
    for path in glob.glob('/proc/[0-9]*/environ'):
        try:
            with open(path, 'rb') as f:
                environment = f.read().split(b'\0')
            with open(os.path.join(os.path.dirname(path), 'cmdline'), 'rb') as f:
                mine = str(tmp_path).encode() in f.read()
        except OSError:
            continue
        if mine and b'OMPI_COMM_WORLD_RANK=%d' % rank in environment:
            pids.append(int(path.split('/')[2]))
    os.kill(min(pids), signal.SIGKILL)  # not a child of it
    start = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - start < 20 and process.returncode
    (line,) = ours(stderr)
    assert f'to resume, add --resume {tmp_path}/out/snapshot_epoch_' in line
    epoch = int(line.split('snapshot_epoch_')[1].split()[0]) + 1
    result = run(2, tmp_path / 'out', small_mnist, '--epoch', epoch, '--resume')
    assert result.returncode == 0
    assert len(log(tmp_path / 'out')) == epoch
    assert run(1, tmp_path / 'whole', small_mnist, '--epoch', epoch).returncode == 0
    numpy.testing.assert_allclose(
        losses(tmp_path / 'out')[:3], losses(tmp_path / 'whole')[:3], rtol=5e-3
    )
    assert read_npz(str(tmp_path / 'out/mlp.model'))['l1/W'].shape == (40, 784)
