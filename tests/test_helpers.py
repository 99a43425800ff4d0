"""A program in a forked child finds what it finds in a fresh interpreter."""

import json
import signal
import subprocess
import sys
import time

import pytest

from helpers import ROOT, Child, run, start

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='no children are forked here')

STATE = """
import json, locale, logging, os, signal, sys, threading, warnings
import inference, pack, train_mnist
import matplotlib
import numpy
print(json.dumps({
    'arguments': [sys.argv, __name__],
    'path': [sys.path, os.getcwd()],
    'environment': {
        name: value for name, value in os.environ.items() if name[:4] not in ('PYTE', 'REAL')
    },
    'files': [sys.stdin.read(), sorted(os.listdir('/proc/self/fd'))],
    'buffers': [
        (f.encoding, f.errors, f.line_buffering, f.isatty()) for f in (sys.stdout, sys.stderr)
    ],
    'signals': [str(signal.getsignal(number)) for number in range(1, signal.NSIG)],
    'blocked signals': [*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))],
    'threads': threading.active_count(),
    'warnings': [str(f) for f in warnings.filters],
    'log levels': [logging.root.level, logging.getLogger('matplotlib').level],
    'log handlers': str(logging.root.handlers),
    'errors of NumPy': numpy.geterr(),
    'backend': matplotlib.get_backend(),
    'locale': locale.setlocale(locale.LC_ALL),
}))
"""


def test_the_state_of_a_fresh_interpreter():
    command = ['-c', STATE, 'a', '--b=c d']
    forked, real = (run(*command, cwd=ROOT, **environment) for environment in ({}, {'REAL': '1'}))
    assert forked.stderr == real.stderr == ''
    forked, real = json.loads(forked.stdout), json.loads(real.stdout)
    different = [(name, forked[name], real[name]) for name in real if forked[name] != real[name]]
    assert different == []
    assert real['arguments'] == [['-c', 'a', '--b=c d'], '__main__']


def test_every_child_has_random_numbers_of_its_own():
    code = 'import numpy, random; print(numpy.random.rand(), random.random())'
    numbers = [number for _ in range(2) for number in run('-c', code).stdout.split()]
    assert len(set(numbers)) == 4


@pytest.mark.parametrize('environment', [{}, {'REAL': 'yes'}], ids=['forked', 'real'])
@pytest.mark.parametrize(
    'code, status, out, err',
    [
        ('print(1); print(2, file=sys.stderr)', 0, '1\n', '2\n'),
        ('print(1, end=""); sys.exit(3)', 3, '1', ''),
        ('sys.exit("what is wrong")', 1, '', 'what is wrong\n'),
        ('import atexit; atexit.register(print, "the end")', 0, 'the end\n', ''),
        ('os.write(1, b"1"); os._exit(4)', 4, '1', ''),
        ('os.kill(os.getpid(), 9)', -9, '', ''),
        (
            'print("x" * 1000000); sys.stderr.write("y" * 1000000)',
            0,
            'x' * 10**6 + '\n',
            'y' * 10**6,
        ),
    ],
)
def test_how_it_ends(code, status, out, err, environment):
    result = run('-c', 'import os, sys; ' + code, **environment)
    assert (result.returncode, result.stdout, result.stderr) == (status, out, err)


def test_an_error_of_its_own():
    result = run('-c', '1 / 0')
    assert result.returncode == 1 and result.stderr.endswith(
        'ZeroDivisionError: division by zero\n'
    )


def test_a_running_child():
    process = start('-c', 'import time; print(1, flush=True); time.sleep(100)')
    assert isinstance(process, Child)
    assert process.poll() is None
    assert process.stdout.readline() == '1\n'
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == process.poll() == -signal.SIGTERM
    assert process.communicate() == ('', '')


def test_a_changed_environment_takes_a_fresh_interpreter(monkeypatch):
    monkeypatch.setenv('PYTHONUTF8', '1')
    assert run('-c', 'import sys; print(sys.flags.utf8_mode)').stdout == '1\n'


def test_it_takes_too_long():
    begin = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run('-c', 'import time; time.sleep(100)', timeout=0.5)
    assert time.monotonic() - begin < 50


def test_parallel_loops():
    """GNU's OpenMP ends a child whose parent has run one."""
    pytest.importorskip('numba', reason='Numba is not installed')
    code = """
import numba
@numba.njit(parallel=True)
def count(n):
    total = 0
    for i in numba.prange(n):
        total += i
    return total
print(count(5))
"""
    for _ in range(2):
        assert run('-c', code).stdout == '10\n'
