"""The program, run as its users run it."""

import contextlib
import os
import re
import subprocess
import sys

import numpy
import pytest

import fast
from helpers import PROGRAM, ROOT, log_of, run, same, small, train, write_dataset
from support.files import read_npz

HEADER = (
    'epoch       main/loss   validation/main/loss  main/accuracy  validation/main/accuracy  '
    'elapsed_time'
)
FILES = ['accuracy.png', 'cg.dot', 'log', 'loss.png', 'mlp.model', 'mlp.state', 'weights.png']


@pytest.mark.parametrize(
    'arguments, net',
    [([], 'binary'), (['--net', 'quantized'], 'quantized, W 4 bits, activations 4 bits')],
)
def test_one_epoch_of_mnist_reaches_95_percent(tmp_path, arguments, net):
    result = train('--epoch', 1, '--out', tmp_path, *arguments)
    assert result.stderr == ''
    lines = result.stdout.splitlines()
    assert lines.pop(5).startswith('# Numba is unavailable' if fast.missing else '# kernels: ')
    assert lines[:9] == [
        'GPU: -1',
        f'# net: {net}',
        '# unit: 1000',
        '# Minibatch-size: 100',
        '# epoch: 1',
        '',
        'load MNIST dataset',
        'graph generated',
        HEADER,
    ]
    assert lines[10:] == ['save the model', 'save the optimizer']
    assert '\033' not in result.stdout
    (row,) = log_of(tmp_path)
    assert row['epoch'] == 1 and row['iteration'] == 600
    assert row['validation/main/accuracy'] >= 0.95
    assert sorted(os.listdir(tmp_path)) == sorted(FILES + ['.lock', 'snapshot_epoch_1'])


@pytest.fixture(scope='session')
def trained(small_mnist, tmp_path_factory):
    """A finished training of three epochs, which other tests compare with."""
    folder = tmp_path_factory.mktemp('trained')
    result = small(folder, small_mnist, '--epoch', 3)
    assert result.stderr == ''
    return folder


def test_what_it_leaves(trained, small_mnist):
    # Only the newest snapshot.
    assert sorted(os.listdir(trained)) == sorted(FILES + ['.lock', 'snapshot_epoch_3'])
    assert len(log_of(trained)) == 3
    for name in 'loss.png', 'accuracy.png', 'weights.png':
        assert (trained / name).read_bytes().startswith(b'\x89PNG')
    graph = (trained / 'cg.dot').read_text()
    assert graph.startswith('digraph') and 'BinaryWeight' in graph and 'BST' in graph
    model = read_npz(str(trained / 'mlp.model'))
    assert model['l1/W'].shape == (50, 784) and model['l1/bits'] == 1 == model['activation_bits']
    assert all(
        abs(array).max() <= 1
        for name, array in model.items()
        if name[-2:] in ('/W', '/b', 'ta', 'ma')
    )
    assert read_npz(str(trained / 'mlp.state'))['t'] == 3 * 12


def test_same_seed_same_bits(trained, small_mnist, tmp_path):
    small(tmp_path, small_mnist, '--epoch', 3)
    assert log_of(tmp_path) == log_of(trained)
    assert same(tmp_path / 'mlp.model', trained / 'mlp.model')
    assert same(tmp_path / 'mlp.state', trained / 'mlp.state')


def test_another_seed_another_model(trained, small_mnist, tmp_path):
    small(tmp_path, small_mnist, '--epoch', 3, '--seed', 1)
    assert not same(tmp_path / 'mlp.model', trained / 'mlp.model')


def test_resumed_is_uninterrupted(trained, small_mnist, tmp_path):
    small(tmp_path, small_mnist, '--epoch', 1)
    result = small(tmp_path, small_mnist, '--epoch', 3, '--resume', tmp_path / 'snapshot_epoch_1')
    assert result.stderr == ''
    assert len(re.findall(r'^[123] ', result.stdout, re.MULTILINE)) == 3  # the table is whole
    assert log_of(tmp_path) == log_of(trained)
    assert same(tmp_path / 'mlp.model', trained / 'mlp.model')
    assert same(tmp_path / 'mlp.state', trained / 'mlp.state')


def test_resumed_with_more_bits(small_mnist, tmp_path):
    """The links, which draw the graph, round otherwise than the fused layers."""
    for folder, epochs in ('a', [2]), ('b', [1, 2]):
        for epoch in epochs:
            options = '--net', 'quantized', '--epoch', epoch, '--resume'
            assert small(tmp_path / folder, small_mnist, *options).stderr == ''
    assert log_of(tmp_path / 'a') == log_of(tmp_path / 'b')
    assert same(tmp_path / 'a/mlp.model', tmp_path / 'b/mlp.model')


def test_resumed_on_a_terminal(trained, small_mnist, tmp_path):
    """A terminal adds the progress bar, an extension that snapshots do not contain."""
    pty = pytest.importorskip('pty')
    small(tmp_path, small_mnist, '--epoch', 1)
    terminal, out = pty.openpty()
    command = [sys.executable, f'{ROOT}/train_mnist.py', '--data', small_mnist, '--out', tmp_path]
    command += '--unit 50 --batchsize 50 --epoch 3 --resume'.split()
    process = subprocess.Popen(command, stdout=out, stderr=out)
    os.close(out)
    shown = b''
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while True:
            shown += os.read(terminal, 10000)
    assert process.wait() == 0, shown
    assert b'this epoch [' in shown and b'Warning' not in shown
    assert same(tmp_path / 'mlp.model', trained / 'mlp.model')
    for picture in tmp_path.glob('*.png'):  # which are empty from a forked child
        assert picture.stat().st_size > 8000


def test_initmodel_starts_from_its_parameters(trained, small_mnist, tmp_path):
    result = small(tmp_path, small_mnist, '--epoch', 1, '--initmodel', trained / 'mlp.model')
    assert result.stderr == ''
    fresh, going_on = log_of(trained)[0], log_of(tmp_path)[0]
    assert going_on['main/loss'] < fresh['main/loss'] - 0.1


def test_number_of_classes_comes_from_the_labels(mnist, tmp_path):
    few = [
        (images[labels < 3][:200], labels[labels < 3][:200])
        for images, labels in (mnist[:2], mnist[2:])
    ]
    data = write_dataset(tmp_path / 'data', *few[0], *few[1])
    options = '--epoch 1 --net quantized --layer 1 --weight-bits 2 --activation-bits 3'.split()
    result = small(tmp_path / 'out', data, *options)
    assert result.stderr == ''
    assert f'load {data}' in result.stdout
    assert '# net: quantized, W 2 bits, activations 3 bits' in result.stdout
    model = read_npz(str(tmp_path / 'out' / 'mlp.model'))
    assert model['l2/W'].shape == (3, 50)
    assert (model['l1/bits'], model['activation_bits']) == (2, 3)


def test_from_any_directory(small_mnist, tmp_path):
    result = train('--data', small_mnist, '-u', 10, '-e', 1, cwd=tmp_path)
    assert result.stderr == ''
    assert sorted(os.listdir(tmp_path)) == ['result']


@pytest.mark.gpu
@pytest.mark.parametrize('net', ['binary', 'quantized'])
def test_gpu(tmp_path, net):
    result = train('--gpu', 0, '--net', net, '--epoch', 1, '--out', tmp_path)
    assert result.stderr == ''
    assert log_of(tmp_path)[0]['validation/main/accuracy'] >= 0.95
    options = '--out', tmp_path / 'cpu', '--initmodel', tmp_path / 'mlp.model'
    result = train('--net', net, '--epoch', 1, *options)
    assert result.stderr == ''


# What is wrong, the arguments (with {folder} for a folder with the files below), and what the line
# says.
BAD = {
    'unknown net': ('--net ternary', "argument --net: invalid choice: 'ternary'"),
    'unknown option': ('--nett binary', 'unrecognized arguments: --nett binary'),
    'batch size 0': ('--batchsize 0', 'argument --batchsize/-b: must be a whole number from 1 to'),
    'batch size 1': ('--batchsize 1', '--batchsize 1: batch normalization needs at least 2'),
    'batch size of more than there is': (
        '--batchsize 700',
        '--batchsize 700: there are only 600 training images',
    ),
    'epoch -1': ('--epoch -1', 'argument --epoch/-e: must be a whole number from 1 to'),
    'epoch of text': (
        '--epoch ten',
        "argument --epoch/-e: must be a whole number from 1 to 1000000, not 'ten'",
    ),
    'empty path': ('--out=', "argument --out/-o: must be a path, not ''"),
    'no units': ('--unit 0', 'argument --unit/-u: must be'),
    'too many units': ('--unit 10000000000', 'argument --unit/-u: must be'),
    'no layers': ('--layer 0', 'argument --layer/-l: must be'),
    'seed -1': ('--seed -1', 'argument --seed: must be a whole number from 0 to 4294967295'),
    'half a seed': ('--seed 0.5', 'argument --seed: must be'),
    'bits 0': (
        '--net quantized --weight-bits 0',
        'argument --weight-bits: must be a whole number from 1 to 8',
    ),
    'bits 9': ('--net quantized --activation-bits 9', 'argument --activation-bits: must be'),
    'bits of a binary net': (
        '--weight-bits 4',
        'argument --weight-bits: only for --net quantized',
    ),
    'bits of a binary net 2': (
        '--activation-bits 1',
        'argument --activation-bits: only for --net quantized',
    ),
    'smaller epoch than resumed': (
        '--epoch 1 --resume {folder}/snapshot',
        '/snapshot: has 3 epochs already, more than --epoch 1',
    ),
    'initmodel and resume': (
        '--initmodel {folder}/model --resume {folder}/snapshot',
        '/snapshot: belongs to a training without --initmodel, and this one is with --initmodel',
    ),
    'no data': ('--data {folder}/none', '/none: there is no such folder'),
    'data that is a file': ('--data {folder}/text', '/text: is a file; a data set is a folder'),
    'empty data folder': (
        '--data {folder}/empty',
        '/empty: holds neither the IDX files of MNIST nor a folder train of pictures',
    ),
    'damaged data': ('--data {folder}/damaged', 'train-images-idx3-ubyte: truncated'),
    'out is a file': ('--out {folder}/text', '/text: is not a folder'),
    'out below a file': ('--out {folder}/text/result', '/text/result: Not a directory'),
    'out is not writable': ('--out /proc/result', '/proc/result'),
    'no model': ('--initmodel {folder}/none', '/none: No such file or directory'),
    'a folder as model': ('--initmodel {folder}', ': Is a directory'),
    'a text as model': (
        '--initmodel {folder}/text',
        '/text: damaged, or not a file that this program saved',
    ),
    'half a model': (
        '--initmodel {folder}/half',
        '/half: damaged, or not a file that this program saved',
    ),
    "another program's model": (
        '--initmodel {folder}/foreign',
        '/foreign: not a saved net such as mlp.model',
    ),
    'optimizer as model': (
        '--initmodel {folder}/mlp.state',
        '/mlp.state: not a saved net such as mlp.model',
    ),
    'model of another size': (
        '--unit 40 --initmodel {folder}/model',
        '/model: holds a binary net 784-50-50-10, but this training is of '
        'a binary net 784-40-40-10',
    ),
    'model of another net': (
        '--net quantized --initmodel {folder}/model',
        'this training is of a quantized net 784-50-50-10, W 4 bits, activations 4 bits',
    ),
    'no snapshot': ('--resume {folder}/none', '/none: No such file or directory'),
    'a text as snapshot': (
        '--resume {folder}/text',
        '/text: damaged, or not a file that this program saved',
    ),
    'model as snapshot': (
        '--resume {folder}/model',
        '/model: not a snapshot such as snapshot_epoch_1',
    ),
    'half a snapshot': (
        '--resume {folder}/half',
        '/half: damaged, or not a file that this program saved',
    ),
    'snapshot of another size': (
        '--unit 40 --resume {folder}/snapshot',
        '/snapshot: belongs to a training with --unit 50, and this one is with --unit 40',
    ),
    'snapshot of another net': (
        '--net quantized --resume {folder}/snapshot',
        '/snapshot: belongs to a training with --net binary, and this one is with --net quantized',
    ),
    'snapshot of another seed': (
        '--seed 7 --resume {folder}/snapshot',
        '/snapshot: belongs to a training with --seed 0, and this one is with --seed 7',
    ),
    'no CuPy': ('--gpu 0', '--gpu 0: CuPy is not installed', {'without': True}),
    'no CUDA device': (
        '--gpu 0',
        '--gpu 0: CuPy finds no usable CUDA device (cudaErrorNoDevice: none)',
        {},
    ),
    'no such CUDA device': (
        '--gpu 5',
        '--gpu 5: there is no such CUDA device; there are: 0, 1',
        {'devices': 2},
    ),
    'gpu -2': ('--gpu -2', 'argument --gpu/-g: must be a whole number from -1'),
}
if os.name == 'nt':  # other words for these, and no /proc
    for name in 'out is a file', 'out below a file', 'out is not writable', 'a folder as model':
        del BAD[name]


@pytest.fixture(scope='module')
def bad(trained, small_mnist, tmp_path_factory):
    """The files that the arguments of BAD name."""
    folder = tmp_path_factory.mktemp('bad')
    (folder / 'empty').mkdir()
    (folder / 'text').write_text('text')
    (folder / 'model').write_bytes((trained / 'mlp.model').read_bytes())
    (folder / 'mlp.state').write_bytes((trained / 'mlp.state').read_bytes())
    snapshot = (trained / 'snapshot_epoch_3').read_bytes()
    (folder / 'snapshot').write_bytes(snapshot)
    (folder / 'half').write_bytes(snapshot[: len(snapshot) // 2])
    with open(folder / 'foreign', 'wb') as f:
        numpy.savez(f, W=numpy.zeros((2, 3)))
    (folder / 'damaged').mkdir()
    for path in small_mnist.iterdir():
        (folder / 'damaged' / path.name).write_bytes(path.read_bytes()[:500])
    return folder


def fake_cupy(folder, without=False, devices=None):
    """The environment of a program that finds a CuPy with just what is asked of it at first."""
    (folder / 'cupy').mkdir()
    (folder / 'cupy' / '__init__.py').write_text(
        'raise ModuleNotFoundError("cupy")'
        if without
        else 'class cuda:\n  class runtime:\n    def getDeviceCount():\n      '
        + (f'return {devices}' if devices else 'raise RuntimeError("cudaErrorNoDevice:\\n none")')
    )
    return {'PYTHONPATH': str(folder)}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(name, bad, small_mnist, tmp_path):
    arguments, message, *cupy = BAD[name]
    environment = fake_cupy(tmp_path, **cupy[0]) if cupy else {}
    out = tmp_path / 'out'
    result = small(out, small_mnist, *arguments.format(folder=bad).split(), **environment)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith('train_mnist.py: ')
    assert message in line
    assert not out.exists()


def test_what_another_program_left_in_the_environment_silences_nothing(small_mnist, tmp_path):
    """Only --communicator makes the program one of several."""
    result = small(tmp_path / 'out', small_mnist, '--epoch', 'x', OMPI_COMM_WORLD_RANK='1')
    assert result.returncode == 2 and result.stderr.count('\n') == 1


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no such limit')
def test_a_net_that_does_not_fit_into_the_memory(small_mnist, tmp_path):
    code = (
        'import resource; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30)); ' + PROGRAM
    )
    options = '--data', small_mnist, '--out', tmp_path / 'out', '--unit', 40000
    result = run('-c', code, *options, cwd=ROOT)
    assert result.returncode == 2 and result.stderr.count('\n') == 1
    assert 'Unable to allocate' in result.stderr and not (tmp_path / 'out').exists()


def test_a_name_of_two_lines_in_one_line(tmp_path):
    for options in ['--out', tmp_path, '--data', 'a\nb'], ['a\nb']:
        result = train(*options)
        assert result.returncode == 2
        assert 'a\\nb' in result.stderr and result.stderr.count('\n') == 1
