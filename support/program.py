"""What the programs share: arguments, the device, and how a program ends with an error."""

import argparse
import contextlib
import io
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
import warnings

from chainer_compat import chainer
from chainer.backends import cuda


class Parser(argparse.ArgumentParser):
    """Argument parser that reports a mistake in one line, without the usage."""

    def error(self, message):
        report_problem(message)
        self.exit(2)


def number(low, high, kind=int):
    """Argument type: a whole number, or a float, from low to high."""
    words = 'a whole number' if kind is int else 'a number'

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f'must be {words} from {low} to {high}, not {text!r}')
        return value

    return convert


def path(text):
    """Argument type: a path; ``~`` is the user's folder, also in ``--out=~/x``.

    What begins like an option gets ``./`` in front, so that it can be part of another command.
    """
    if not text:
        raise argparse.ArgumentTypeError("must be a path, not ''")
    return os.path.join('.' if text[0] == '-' else '', os.path.expanduser(text))


def quote(text):
    """A word of a command that the user may type."""
    return subprocess.list2cmdline([text]) if os.name == 'nt' else shlex.quote(text)


def command(name):
    """How the user may run another program of this folder: as this one, if that works here.

    ``./`` takes the first ``python3``, which is ours if the environment is active; Windows lacks
    it.
    """
    script = os.path.join(os.path.dirname(sys.argv[0]), name)

    def is_ours(python):
        return os.path.dirname(shutil.which(python) or '') == os.path.dirname(sys.executable)

    if os.name != 'nt' and script != name and is_ours('python3'):
        return quote(script)
    return f'{"python" if is_ours("python") else quote(sys.executable)} {quote(script)}'


def get_device(gpu):
    """The CPU (-1), or the CUDA device with this number.

    Raises:
        ValueError: If there is no such device; the message says what is missing.
    """
    if gpu < 0:
        return chainer.get_device('@numpy')
    try:
        import cupy

        devices = range(cupy.cuda.runtime.getDeviceCount())
        if gpu in devices:
            cuda.check_cuda_available()
            return chainer.get_device(f'@cupy:{gpu}')
        there = ', '.join(map(str, devices)) or 'none'
        reason = f'there is no such CUDA device; there are: {there}'
    except ModuleNotFoundError:
        reason = 'CuPy is not installed; docs/usage.md says how to install it'
    except Exception as e:  # A broken installation or driver can raise anything.
        reason = f'CuPy finds no usable CUDA device ({" ".join(str(e).split())})'
    raise ValueError(f'--gpu {gpu}: {reason}')


def report_problem(problem):
    """Prints one line on standard error; of several processes, the first comes first.

    Args:
        problem (str or Exception): What to say. For an ``OSError``, this is the file and the
            message of the system.
    """
    if {os.environ.get(name, '0') for name in ('OMPI_COMM_WORLD_RANK', 'PMI_RANK')} != {'0'}:
        time.sleep(2)  # in which mpiexec ends this process, if the first has said the same
    if isinstance(problem, OSError) and problem.strerror:
        problem = ': '.join(map(str, filter(None, (problem.filename, problem.strerror))))
    # A name may have a line break, and a MemoryError no words.
    problem = '\\n'.join(str(problem).splitlines()) or 'there is not enough memory'
    print(f'{os.path.basename(sys.argv[0])}: {problem}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def errors_as_one_line(
    errors=(OSError, ValueError, MemoryError), status=2, interrupted=lambda: 'interrupted'
):
    """Ends the program with one line on standard error if the block raises one of the errors.

    All that a program does is in such a block. Warnings of libraries are not shown. Standard
    output takes every character, and whatever is printed if it is closed.

    Args:
        errors (tuple): Exceptions that mean bad input or a failing system, not a mistake of ours.
        status (int): Exit status for them.
        interrupted (callable): Returns the line for Ctrl-C, whose exit status is 130.
    """
    for name in 'stdout', 'stderr':
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'w'))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook has another kind
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter('ignore')
            yield
        sys.stdout.flush()
        return
    except (Exception, KeyboardInterrupt) as e:
        cause = e
        while cause and not isinstance(cause, KeyboardInterrupt):  # zipfile, say, may hide it
            cause = cause.__context__
        if cause:
            problem, status = interrupted(), 130
            sys.unraisablehook = lambda _: None  # what is half done may complain as it is deleted
        elif isinstance(e, errors):
            problem = e
        else:
            raise
    try:
        sys.stdout.flush()
    except OSError:  # The reader of our output is gone; without this, Python would also complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    report_problem(problem)
    sys.exit(status)
