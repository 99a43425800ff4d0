"""The packing program: one command, a format by the ending of the name."""

import os
import subprocess
import sys

import numpy
import pytest

from deploy.fold import fold
from helpers import ROOT
from net import BinaryMLP, FloatMLP
from support.files import read_npz, save_arrays, save_npz


def pack(*arguments, **environment):
    return subprocess.run(
        [sys.executable, f'{ROOT}/pack.py', *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    net = BinaryMLP(784, 20, 10)
    save_npz(str(folder / 'mlp.model'), net)
    save_arrays(str(folder / 'mlp.packed'), fold(net).arrays)
    save_npz(str(folder / 'float.model'), FloatMLP(784, 20, 10))
    return folder


@pytest.mark.parametrize('model', ['mlp.model', 'mlp.packed'])
@pytest.mark.parametrize(
    'name, beginning, words',
    [
        ('net.c', b'/* A packed binary net 784-20-20-10.', 'cc -std=c99'),
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


def test_bad_input(models, tmp_path):
    (tmp_path / 'text').write_text('nonsense')
    hostile = {**read_npz(str(models / 'mlp.packed')), 'n_in': numpy.int32(785)}
    save_arrays(str(tmp_path / 'hostile'), hostile)
    for arguments, message in (
        ([tmp_path / 'none', tmp_path / 'net.c'], 'none: No such file'),
        ([tmp_path / 'text', tmp_path / 'net.c'], 'text: damaged, or not a file'),
        ([tmp_path / 'hostile', tmp_path / 'net.c'], 'hostile: not a valid packed model: l1/W'),
        ([models / 'float.model', tmp_path / 'net.c'], 'float.model: a float net has no bits'),
        ([models / 'mlp.packed', tmp_path / 'net'], 'mlp.packed: this model is packed already'),
        ([models / 'mlp.model', tmp_path / 'no/net.html'], 'no/net.html: No such file'),
    ):
        result = pack(*arguments)
        assert result.returncode == 2 and result.stderr.count('\n') == 1
        assert message in result.stderr
    assert sorted(os.listdir(tmp_path)) == ['hostile', 'text']


def test_without_onnx(models, tmp_path):
    (tmp_path / 'onnx.py').write_text('raise ImportError("not there")')
    result = pack(models / 'mlp.model', tmp_path / 'net.onnx', PYTHONPATH=str(tmp_path))
    assert result.returncode == 2 and result.stderr.count('\n') == 1
    assert 'pip install onnx' in result.stderr and not (tmp_path / 'net.onnx').exists()
