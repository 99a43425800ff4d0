"""Several processes train the same net as one."""

import glob
import json
import os
import signal
import subprocess
import sys
import time

import numpy
import pytest

from helpers import ROOT
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
    train = [sys.executable, f'{ROOT}/train_mnist.py', '--communicator', 'naive', '--quiet']
    options = ['--data', data, '--out', folder, '--unit', 40, '--batchsize', 50, *options]
    return [MPIEXEC, '--oversubscribe', '-n', str(processes), *train, *map(str, options)]


def run(*arguments):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, timeout=120
    )


def log(folder):
    with open(folder / 'log') as f:
        return json.load(f)


def losses(folder):
    names = 'main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy'
    return numpy.array([[row[name] for name in names] for row in log(folder)])


@pytest.mark.parametrize(
    'options',
    [
        [],
        pytest.param(['--net', 'quantized', '--hold-out', 77], marks=pytest.mark.slow),
        pytest.param(['--loss', 'hinge'], marks=pytest.mark.slow),
    ],
)
def test_any_number_of_processes_trains_the_same_net(small_mnist, tmp_path, options, request):
    counts = (1, 2, 3) if request.config.getoption('--slow') else (1, 3)
    for n in counts:
        result = run(n, tmp_path / str(n), small_mnist, '--epoch', 1, *options)
        assert result.returncode == 0, result.stderr
    # A bias before batch normalization has a gradient of nothing but rounding, which Adam scales
    # up; that moves the losses in test mode, as batch normalization follows it with a delay.
    expected = losses(tmp_path / '1')
    for n in counts[1:]:
        found = losses(tmp_path / str(n))
        numpy.testing.assert_allclose(found[:, [0, 2]], expected[:, [0, 2]], rtol=1e-5)
        numpy.testing.assert_allclose(found[:, [1, 3]], expected[:, [1, 3]], rtol=2e-3)


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
    """Its batch normalization, too: without it the losses would start elsewhere."""
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


def test_only_the_first_process_prints(small_mnist, tmp_path):
    lines = run(2, tmp_path, small_mnist, '--epoch', 1).stdout.splitlines()
    for words in (
        'Minibatch-size',
        'processes: 2',
        'graph generated',
        'main/loss',
        'save the model',
    ):
        assert sum(words in line for line in lines) == 1


def ours(stderr):
    """The lines of standard error that are not mpiexec's."""
    return [line for line in stderr.splitlines() if line.startswith('train_mnist.py')]


def test_bad_input_is_one_line_and_ends_all(small_mnist, tmp_path):
    for options, message in (
        (['--epoch', 'x'], 'argument --epoch/-e: must be a whole number'),
        (['--batchsize', 599], 'the last minibatch of an epoch has 1 images, too few for 2'),
        (['--resume', tmp_path / 'none'], f'{tmp_path}/none: No such file'),
    ):
        result = run(2, tmp_path / 'out', small_mnist, *options)
        assert result.returncode == 2
        (line,) = ours(result.stderr)
        assert message in line
    assert not glob.glob(f'{tmp_path}/out/*')


def test_what_one_process_meets_ends_all(small_mnist, tmp_path):
    """The data are there for the first process alone."""
    wrapper = tmp_path / 'train.sh'
    first, second = (
        command(1, tmp_path / 'out', d, '--epoch', 1)[4:] for d in (small_mnist, '/none')
    )
    words = [' '.join(map(str, words)) for words in (first, second)]
    wrapper.write_text(
        f'#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 0 ] && exec {words[0]}\nexec {words[1]}\n'
    )
    wrapper.chmod(0o755)
    result = subprocess.run(
        [MPIEXEC, '--oversubscribe', '-n', '2', str(wrapper)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=60,
    )
    assert result.returncode == 2
    (line,) = ours(result.stderr)
    assert '/none: there is no such folder (process 1, on ' in line


@pytest.mark.parametrize('rank', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_run_and_it_resumes(small_mnist, tmp_path, rank):
    process = subprocess.Popen(
        command(2, tmp_path / 'out', small_mnist, '--epoch', 400),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    while not glob.glob(f'{tmp_path}/out/snapshot_epoch_?'):
        time.sleep(0.1)
        assert process.poll() is None
    for path in glob.glob('/proc/[0-9]*/environ'):
        try:
            with open(path, 'rb') as f:
                environment = f.read().split(b'\0')
            with open(os.path.join(os.path.dirname(path), 'cmdline'), 'rb') as f:
                mine = str(tmp_path).encode() in f.read()
        except OSError:
            continue
        if mine and b'OMPI_COMM_WORLD_RANK=%d' % rank in environment:
            os.kill(int(path.split('/')[2]), signal.SIGKILL)
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
