"""What Windows lacks or refuses, simulated on another system."""

import os
import subprocess
import sys

import pytest

from helpers import ROOT
from support import files

# One byte of an open file, locked: as the real one, it raises PermissionError if it is locked.
# Python's own modules, which look for it to know where they are, are imported before.
MSVCRT = """
import os, subprocess, sys, types
LK_NBLCK = 2

def locking(descriptor, mode, size):
    assert (mode, size) == (LK_NBLCK, 1)
    if os.environ.get('LOCKED'):
        raise PermissionError(13, 'Permission denied')

sys.modules['msvcrt'] = types.SimpleNamespace(LK_NBLCK=LK_NBLCK, locking=locking)
"""


@pytest.fixture
def without_posix(tmp_path):
    """Environment of a program that finds no fcntl and no resource."""
    for name in 'fcntl', 'resource':
        (tmp_path / f'{name}.py').write_text(f'raise ModuleNotFoundError("No module {name}")')
    (tmp_path / 'sitecustomize.py').write_text(MSVCRT)
    return {**os.environ, 'PYTHONPATH': str(tmp_path)}


PROGRAMS = """
import inference, os, pack, sys, train_mnist
data, out = sys.argv[1:]
train = ['--data', data, '--out', out, '--epoch', '1', '--unit', '8', '--quiet']
train_mnist.main(train)
pack.main([out + '/mlp.model', out + '/packed'])
inference.main([out + '/packed', '--data', data])
os.environ['LOCKED'] = 'yes'
train_mnist.main([*train, '--resume'])
"""


def test_the_programs_need_nothing_of_posix(without_posix, small_mnist, tmp_path):
    """At the end, another process seems to have locked the folder."""
    command = [sys.executable, '-c', PROGRAMS, small_mnist, tmp_path / 'out']
    result = subprocess.run(command, env=without_posix, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count('\n') == 1
    assert 'another training is writing to this folder' in result.stderr
    assert 'accuracy: ' in result.stdout


@pytest.fixture
def windows(monkeypatch):
    """A Windows on which a number of changes of a file fail because it is open somewhere."""
    monkeypatch.setattr(files, 'WINDOWS', True)
    monkeypatch.setattr(files, 'PATIENCE', 0.3)

    def refuse(name, times):
        calls, change = [], getattr(os, name)

        def busy(*paths):
            calls.append(paths)
            if len(calls) <= times:
                raise PermissionError(13, 'Access is denied')
            return change(*paths)

        monkeypatch.setattr(os, name, busy)

    return refuse


def test_a_file_that_is_open_for_a_moment(windows, tmp_path):
    windows('replace', 2)
    with files.replacing(str(tmp_path / 'log')) as f:
        f.write(b'new')
    assert (tmp_path / 'log').read_bytes() == b'new'


def test_a_file_that_stays_open(windows, tmp_path, capsys):
    path = tmp_path / 'log'
    path.write_bytes(b'old')
    windows('replace', 10**6)
    with pytest.raises(PermissionError):
        with files.replacing(str(path)) as f:
            f.write(b'new')
    with files.replacing(str(path), optional=True) as f:
        f.write(b'new')
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['log']
    assert capsys.readouterr().out == f'# {path} is open in another program and stays as it was\n'


def test_a_snapshot_that_stays_open(windows, tmp_path, capsys):
    path = tmp_path / 'snapshot_epoch_1'
    path.write_bytes(b'')
    windows('remove', 10**6)
    files.change(os.remove, path, optional=True)
    assert path.exists()
    assert 'stays as it was' in capsys.readouterr().out


def test_no_folder_is_opened(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'open', lambda *_: pytest.fail('opened a folder'))
    with files.replacing(str(tmp_path / 'log')) as f:
        f.write(b'new')


def test_elsewhere_a_refusal_is_an_error_at_once(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(files, 'WINDOWS', False)
    monkeypatch.setattr(os, 'replace', refuse)
    with pytest.raises(PermissionError):
        with files.replacing(str(tmp_path / 'log'), optional=True) as f:
            f.write(b'new')
