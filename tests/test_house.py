"""The rooms: which module may import which, and the style of them all."""

import ast
import glob
import os
import subprocess
import sys

import pytest

from helpers import ROOT

NINE = {
    'bst',
    'qst',
    'function_binary_linear',
    'function_quantized_linear',
    'link_binary_linear',
    'link_quantized_linear',
    'net',
    'weight_clip',
    'train_mnist',
}
PROGRAMS = {'train_mnist', 'inference', 'pack'}
ROOMS = {'fast', 'deploy', 'pictures', 'support', 'training'}
# What the modules of a room may import, besides each other and installed packages.
TOP = NINE - PROGRAMS | {'chainer_compat', 'data'}
ALLOWED = {
    'fast': TOP,
    'deploy': TOP | {'fast', 'pictures', 'support'},
    'pictures': TOP,
    'support': TOP | {'fast', 'pictures'},
    'training': TOP | {'fast', 'pictures', 'support'},
}


def imports(path):
    """The modules that a file imports: the first part of each name."""
    with open(path, encoding='utf-8') as f:
        for node in ast.walk(ast.parse(f.read())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split('.')[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.split('.')[0]


TOP_FILES = {os.path.basename(path)[:-3] for path in glob.glob(f'{ROOT}/*.py')}
OURS = TOP_FILES | ROOMS


def test_the_top_level():
    assert TOP_FILES == NINE | PROGRAMS | {'data', 'chainer_compat'}


@pytest.mark.parametrize('name', sorted(NINE - PROGRAMS))
def test_the_nine_import_each_other_and_chainer(name):
    allowed = NINE - PROGRAMS | {'chainer_compat', 'chainer', 'numpy'}
    assert set(imports(f'{ROOT}/{name}.py')) <= allowed


@pytest.mark.parametrize('room', sorted(ROOMS))
def test_a_room_imports_no_program(room):
    for path in glob.glob(f'{ROOT}/{room}/*.py'):
        assert set(imports(path)) & OURS <= ALLOWED[room] | {room}, path


def test_only_one_room_knows_numba():
    for path in glob.glob(f'{ROOT}/*.py') + glob.glob(f'{ROOT}/*/*.py'):
        if os.path.dirname(path) not in (f'{ROOT}/fast', f'{ROOT}/benchmarks'):
            assert not {'numba', 'llvmlite'} & set(imports(path)), path


def test_training_never_imports_the_packed_model():
    code = 'import sys, train_mnist; print([name for name in sys.modules if "deploy" in name])'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('[]\n', '')


def test_a_room_does_not_lose_to_an_installed_package_of_its_name(tmp_path):
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / '__init__.py').write_text('raise ImportError("another package")')
    code = 'import sys; sys.path.append(sys.argv[1]); import deploy.xnor, inference, train_mnist'
    code = code if 'numba' in sys.modules else code.replace('deploy.xnor, ', '')
    done = subprocess.run(
        [sys.executable, '-c', code, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == ''


@pytest.mark.parametrize('command', [['check'], ['format', '--check']])
def test_style(command):
    pytest.importorskip('ruff', reason='ruff is not installed')
    done = subprocess.run(
        [sys.executable, '-m', 'ruff', *command, '--no-cache', ROOT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
