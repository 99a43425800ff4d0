"""README.md and docs/ show what the programs print."""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from helpers import ROOT, train

PAGES = [f'{ROOT}/README.md', *sorted(glob.glob(f'{ROOT}/docs/*.md'))]
ANSWER = re.compile(r'\S+\.(png|jpe?g): \d')


def transcripts(path):
    """Our commands behind a ``$``, with the lines below them; and answers without a command."""
    shown, lost = [], []
    below = None
    with open(path, encoding='utf-8') as f:
        for line in f:
            if line.startswith('    $ '):
                below, command = [], line[len('    $ ') :].strip()
                if re.match(r'\./\w+\.py ', command):
                    shown.append((command, below))
            elif not line.startswith('    '):
                below = None
            elif below is not None:
                below.append(line.strip())
            elif ANSWER.match(line.strip()):
                lost.append(line)
    return shown, lost


SHOWN = [transcript for path in PAGES for transcript in transcripts(path)[0]]


@pytest.fixture(scope='module')
def folder(small_mnist, tmp_path_factory):
    """Where the commands are typed: it has the results, and a trained net of the usual size."""
    folder = tmp_path_factory.mktemp('typed')
    shutil.copytree(f'{ROOT}/results', folder / 'results')
    result = train('--data', small_mnist, '--epoch', 1, '--out', folder / 'result')
    assert (result.returncode, result.stderr) == (0, '')
    return folder


def alike(shown, printed):
    """The same words, with probabilities as near as another version of Pillow leaves them."""
    words = [line.split() for line in (shown, printed)]
    return len(words[0]) == len(words[1]) and all(
        a == b or '.' in a and abs(float(a) - float(b)) < 0.02 for a, b in zip(*words)
    )


@pytest.mark.parametrize('command, shown', SHOWN, ids=[command for command, _ in SHOWN])
def test_a_command_prints_what_is_shown(command, shown, folder):
    program, *words = shlex.split(command)
    if 'net.onnx' in words:
        pytest.importorskip('onnx', reason='onnx is not installed')
    result = subprocess.run(
        [sys.executable, os.path.join(ROOT, os.path.basename(program)), *words],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if 'NUM_THREADS' not in name},
            'PATH': os.path.dirname(sys.executable) + os.pathsep + os.environ['PATH'],
        },
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, '')
    if shown:
        # Lines with a number sign tell of this computer.
        shown, printed = (
            [line for line in lines if line[0] != '#']
            for lines in (shown, result.stdout.replace(ROOT, '.').splitlines())
        )
        assert len(shown) == len(printed)
        for pair in zip(shown, printed):
            assert alike(*pair), pair


def test_every_page_shows_commands_with_their_answers():
    assert {command.split()[0] for command, _ in SHOWN} >= {'./pack.py', './inference.py'}
    for path in PAGES:
        assert transcripts(path)[1] == [], path
