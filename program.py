"""What the programs share: their arguments, the device, and how they end when something is wrong."""
import argparse
import math
import os
import sys

import chainer_compat  # noqa: F401  (before Chainer)
import chainer
from chainer.backends import cuda

MNIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'mnist')


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """One line, without the usage that argparse would print before it."""
        self.exit(2, f'{self.prog}: {message}\n')


def number(low, high):
    """Argument type: a whole number from low to high."""
    def convert(text):
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f'must be a whole number from {low} to {high}, not {text!r}')
        return value
    return convert


def real(low, high):
    """Argument type: a number from low to high."""
    def convert(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f'must be a number from {low} to {high}, not {text!r}')
        return value
    return convert


def get_device(gpu):
    """The CPU, or the CUDA device of that number.

    Raises:
        ValueError: If there is no such device; the message says what is missing.
    """
    if gpu < 0:
        return chainer.get_device('@numpy')
    try:
        import cupy
        n = cupy.cuda.runtime.getDeviceCount()
    except ModuleNotFoundError:
        raise ValueError(f'--gpu {gpu}: CuPy is not installed; README.md says how to') from None
    except Exception as e:  # a broken installation or driver can raise anything
        raise ValueError(f'--gpu {gpu}: CuPy finds no usable CUDA device '
                         f'({" ".join(str(e).split())})') from None
    if gpu >= n:
        raise ValueError(f'--gpu {gpu}: there is no such CUDA device; there are: '
                         f'{", ".join(map(str, range(n))) or "none"}')
    if not cuda.available:
        raise ValueError(f'--gpu {gpu}: Chainer cannot use the CuPy that is installed')
    return chainer.get_device(f'@cupy:{gpu}')


def stop(status, problem):
    """Ends the program with one line on standard error.

    Args:
        status (int): Exit status.
        problem (str or Exception): What to say; of an ``OSError``, the file and the system's words.
    """
    if isinstance(problem, OSError) and problem.strerror:
        problem = f'{problem.filename}: {problem.strerror}' if problem.filename else problem.strerror
    try:
        sys.stdout.flush()
    except OSError:  # whoever read our output is gone; without this, Python would say so once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f'{os.path.basename(sys.argv[0])}: {problem}', file=sys.stderr)
    sys.exit(status)


def run(function):
    """Calls a function; what it refuses ends the program with one line on standard error."""
    try:
        function()
        sys.stdout.flush()
    except (OSError, ValueError, MemoryError) as e:
        stop(2, e)
    except KeyboardInterrupt:
        stop(130, 'interrupted')
