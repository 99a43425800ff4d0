"""The packing program: one command, a format by the ending of the name."""

import ast
import os
import re
import shlex
import subprocess
import sys

import chainer
import numpy
import pytest

from deploy.fold import fold
from deploy.packed import PackedNet
from helpers import ROOT, run
from link_binary_linear import BinaryLinear
from net import BinaryMLP, FloatMLP
from support.files import npz, read_npz, save_npz


def pack(*arguments, **environment):
    return run(f'{ROOT}/pack.py', *arguments, **environment)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    net = BinaryMLP(784, 20, 10)
    save_npz(str(folder / 'mlp.model'), net)
    save_npz(str(folder / 'mlp.packed'), fold(net).arrays)
    save_npz(str(folder / 'float.model'), FloatMLP(784, 20, 10))
    return folder


@pytest.mark.parametrize('model', ['mlp.model', 'mlp.packed'])
@pytest.mark.parametrize(
    'name, beginning, words',
    [
        (
            'net.c',
            b'/* Made by pack.py of BinaryNet on Chainer.\n *\n * A packed binary net 784',
            'cc -std=c99',
        ),
        (
            'my-net.h',
            b'/* Made by pack.py of BinaryNet on Chainer.',
            'call my_net_classify(pixels)',
        ),
        ('net.HTML', b'<!DOCTYPE html>', 'in a browser'),
        ('net.onnx', b'', 'onnxruntime.InferenceSession'),
    ],
)
def test_the_ending_chooses_the_format(models, tmp_path, model, name, beginning, words):
    if name == 'net.onnx':
        pytest.importorskip('onnx', reason='onnx is not installed')
    result = pack(models / model, tmp_path / name)
    assert (result.returncode, result.stderr) == (0, '')
    assert (tmp_path / name).read_bytes().startswith(beginning)
    assert words in result.stdout.splitlines()[-1]
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize('name, source, header', [('n.C', 'n.C', 'n.h'), ('n.H', 'n.c', 'n.H')])
def test_the_hint_names_the_file_as_it_was_written(models, tmp_path, name, source, header):
    words = pack(models / 'mlp.model', tmp_path / name).stdout.splitlines()[-1]
    assert f'-c {tmp_path / source}, and' in words and f' {tmp_path / header}, packed' in words


def test_the_command_to_use_it(models, tmp_path):
    for name in 'my net.packed', '-net.packed':
        result = run(f'{ROOT}/pack.py', models / 'mlp.model', '--', name, cwd=tmp_path)
        command = result.stdout.split('to use it: ')[1].split(' [PICTURE')[0]
        *_, script, path = shlex.split(command)
        result = run(script, path, '--data', tmp_path, cwd=tmp_path)
        assert 'net 784-20-20-10' in result.stdout  # it was read


def test_the_line_for_onnx_is_python(models, tmp_path):
    """Also where the path has backslashes, as all have on Windows."""
    pytest.importorskip('onnx', reason='onnx is not installed')
    path = tmp_path / ('new.onnx' if os.name == 'nt' else 'a\\new.onnx')
    line = pack(models / 'mlp.model', path).stdout.splitlines()[-1]
    call = re.search(r'InferenceSession\((.*?)\)', line)
    assert ast.literal_eval(call[1]) == str(path)


def test_bad_input(models, tmp_path):
    (tmp_path / 'text').write_text('nonsense')
    save_npz(str(tmp_path / 'own'), chainer.Sequential(BinaryLinear(784, 9), BinaryLinear(9, 3)))
    hostile = {**read_npz(str(models / 'mlp.packed')), 'n_in': numpy.int32(785)}
    save_npz(str(tmp_path / 'hostile'), hostile)
    for arguments, message in (
        ([tmp_path / 'none', tmp_path / 'net.c'], f'{tmp_path / "none"}: '),
        ([tmp_path / 'text', tmp_path / 'net.c'], 'text: damaged, or not a file'),
        (
            [tmp_path / 'own', tmp_path / 'net.c'],
            'own: not a saved net such as mlp.model, which has links l1, bn1, l2, bn2 and so on, '
            'and persistents activation_bits and pixel_scale: the weight of a layer is missing',
        ),
        ([tmp_path / 'hostile', tmp_path / 'net.c'], 'hostile: not a valid packed model: l1/W'),
        ([models / 'float.model', tmp_path / 'net.c'], 'float.model: a float net has no bits'),
        ([models / 'mlp.packed', tmp_path / 'net'], 'mlp.packed: this model is packed already'),
        (
            [models / 'mlp.model', tmp_path / 'no/net.html'],
            f'{tmp_path / "no/net.html"}: No such file',
        ),
    ):
        result = pack(*arguments)
        assert result.returncode == 2 and result.stderr.count('\n') == 1
        assert message in result.stderr
    assert sorted(os.listdir(tmp_path)) == ['hostile', 'own', 'text']


@pytest.mark.parametrize('name', ['net', 'net.c', 'net.h', 'net.html', 'net.onnx'])
def test_only_its_own_outputs_are_replaced(models, tmp_path, name):
    if name == 'net.onnx':
        pytest.importorskip('onnx', reason='onnx is not installed')
    path = tmp_path / name
    for _ in range(2):
        result = pack(models / 'mlp.model', path)
        assert (result.returncode, result.stderr) == (0, '')
    output = path.read_bytes()
    mine = b'<!DOCTYPE html>\n/* mine */', b'/* A packed array of bits, mine. */'
    for content in (models / 'mlp.model').read_bytes(), *mine:
        path.write_bytes(content)
        result = pack(models / 'mlp.model', path)
        assert result.returncode == 2 and path.read_bytes() == content
        assert result.stderr == (
            f'pack.py: {path}: exists and is no earlier output; give another name\n'
        )
    path.write_bytes(output[:300])  # what is left of an output of this kind
    assert pack(models / 'mlp.model', path).returncode == 0


@pytest.mark.parametrize('name', ['net.htm', 'net.hpp', 'net.cpp', 'mlp.model', 'snapshot.1'])
def test_unknown_endings(models, tmp_path, name):
    result = pack(models / 'mlp.model', tmp_path / name)
    ending = os.path.splitext(name)[1]
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr == (
        f'pack.py: {tmp_path}/{name}: no format has the ending {ending}; use one of .packed, '
        '.npz, .onnx, .c, .h, .html, or none\n'
    )
    assert os.listdir(tmp_path) == []


def test_the_supplied_net_is_what_is_read(tmp_path):
    """A packed file that is read and written again has the same bytes."""
    net = PackedNet(read_npz(f'{ROOT}/results/binary.packed'))
    with open(f'{ROOT}/results/binary.packed', 'rb') as f:
        assert bytes(npz(net.arrays)) == f.read()


def test_a_net_of_ones_own(tmp_path):
    """With the names and numbers that docs/layers.md names."""
    net = chainer.Chain()
    with net.init_scope():
        for i, (n_in, n_out) in enumerate([(784, 9), (9, 9), (9, 3)], 1):
            setattr(net, f'l{i}', BinaryLinear(n_in, n_out))
            setattr(net, f'bn{i}', chainer.links.BatchNormalization(n_out))
    net.add_persistent('activation_bits', 1)
    net.add_persistent('pixel_scale', 256)
    save_npz(str(tmp_path / 'own'), net)
    result = pack(tmp_path / 'own', tmp_path / 'own.c')
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.startswith('a binary net 784-9-9-3\n')


@pytest.mark.parametrize('arguments', [['', 'net.c'], ['mlp.model', '']])
def test_an_empty_name(models, arguments):
    result = pack(*arguments)
    assert result.returncode == 2 and result.stderr.endswith("must be a path, not ''\n")


def test_a_hostile_net_is_refused(models, tmp_path):
    """What would be packed must be what the float net computes."""
    for name, value in ('bn1/avg_var', -1), ('bn3/avg_var', -1), ('bn2/avg_mean', numpy.nan):
        arrays = read_npz(str(models / 'mlp.model'))
        arrays[name] = numpy.full_like(arrays[name], value)
        save_npz(str(tmp_path / 'hostile'), arrays)
        result = pack(tmp_path / 'hostile', tmp_path / 'net.c')
        assert result.returncode == 2 and result.stderr.count('\n') == 1
        assert f'pack.py: {tmp_path}/hostile: ' in result.stderr and name in result.stderr
    assert os.listdir(tmp_path) == ['hostile']


def test_standard_output_is_closed(models, tmp_path):
    command = f'exec {sys.executable} {ROOT}/pack.py {models}/mlp.model {tmp_path}/net.c >&-'
    result = subprocess.run(command, shell=True, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (0, b'')
    assert (tmp_path / 'net.c').exists()


def test_a_name_that_standard_output_cannot_hold(models, tmp_path):
    result = pack(models / 'mlp.model', tmp_path / '数字.c', PYTHONIOENCODING='cp1252')
    assert (result.returncode, result.stderr) == (0, '')
    assert '\\u6570\\u5b57.c: ' in result.stdout and (tmp_path / '数字.c').exists()


def test_without_onnx(models, tmp_path):
    (tmp_path / 'onnx.py').write_text('raise ImportError("not there")')
    result = pack(models / 'mlp.model', tmp_path / 'net.onnx', PYTHONPATH=str(tmp_path))
    assert result.returncode == 2 and result.stderr.count('\n') == 1
    assert 'pip install onnx' in result.stderr and not (tmp_path / 'net.onnx').exists()
