"""What the programs say works where it is said."""

import os
import shutil
import sys

import pytest

import inference
import train_mnist
from helpers import ROOT, run
from support.program import command

ACTIVE = {name: f'/env/bin/{name}' for name in ('python', 'python3')}


@pytest.mark.parametrize(
    'system, path, typed, expected',
    [
        ('posix', ACTIVE, './pack.py', './inference.py'),
        ('posix', ACTIVE, '../my nets/pack.py', "'../my nets/inference.py'"),
        ('posix', ACTIVE, 'pack.py', 'python inference.py'),
        ('posix', {}, './pack.py', '/env/bin/python3.12 ./inference.py'),
        ('posix', {'python3': '/usr/bin/python3'}, 'pack.py', '/env/bin/python3.12 inference.py'),
        ('nt', ACTIVE, './pack.py', 'python ./inference.py'),
        ('nt', {}, 'pack.py', '/env/bin/python3.12 inference.py'),
    ],
)
def test_a_command_that_runs_here(system, path, typed, expected, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [typed])
    monkeypatch.setattr(sys, 'executable', '/env/bin/python3.12')
    monkeypatch.setattr(shutil, 'which', path.get)
    monkeypatch.setattr(os, 'name', system)
    found = command('inference.py')
    monkeypatch.undo()
    assert found == expected


@pytest.mark.parametrize('program', [train_mnist, inference])
def test_help_says_what_a_data_set_may_be(program, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '1000')
    with pytest.raises(SystemExit):
        program.main(['--help'])
    assert 'pictures by class' in capsys.readouterr().out


def test_ctrl_c_that_a_library_hides():
    """As zipfile does, which then complains once more when its file is deleted."""
    code = (
        'import io, zipfile\n'
        'from support.program import errors_as_one_line\n'
        'def write():\n'
        "    z = zipfile.ZipFile(io.BytesIO(), 'w')\n"
        "    f = z.open('x', 'w')\n"
        '    try:\n'
        '        raise KeyboardInterrupt\n'
        '    finally:\n'
        '        z.close()\n'
        'with errors_as_one_line():\n'
        '    write()'
    )
    result = run('-c', code, cwd=ROOT)
    assert (result.returncode, result.stderr) == (130, '-c: interrupted\n')
