"""The threads that compute: how many, and by which of Numba's threading layers.

A region is a compiled function whose loop over ``numba.prange`` is shared by the threads. Each
turn computes a chunk of its own, and no sum extends over chunks, so the results are the same bit
for bit for any number of threads.
"""

import contextlib
import ctypes
import functools
import importlib
from importlib import metadata
import os
import types

import numba
from numba.core import config

from fast.cache import njit

OPTIONS = {'nogil': True, 'error_model': 'numpy'}
compiled = njit(**OPTIONS)

# The layers, the best first: TBB alone survives a fork. With Numba's own, workqueue, nothing is
# gained over one thread, so long does it take to start a region.
LAYERS = {'tbb': 'TBB', 'omp': 'OpenMP'}

_forked = False  # from a process whose threads the fork did not copy


def _environment(*names):
    """The first of these variables that is a number greater than 0."""
    values = (os.environ.get(name, '') for name in names)
    return next((int(value) for value in values if value.isdigit() and int(value)), None)


def _loads(layer):
    """Whether the library of a threading layer can be loaded."""
    if layer == 'omp' and 'OMP_WAIT_POLICY' not in os.environ:
        # For microseconds, not milliseconds, a thread waits for work by spinning. Where other
        # programs also compute, it would keep the CPU from the very thread that it waits for.
        os.environ.setdefault('GOMP_SPINCOUNT', '10000')
    with contextlib.suppress(metadata.PackageNotFoundError, OSError):
        for file in metadata.files('tbb') or () if layer == 'tbb' else ():
            if file.name in ('libtbb.so.12', 'tbb12.dll'):  # Numba does not look where pip puts it
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
    try:
        importlib.import_module(f'numba.np.ufunc.{layer}pool')
    except ImportError:
        return False
    return True


@functools.lru_cache(None)
def _start():
    """Chooses the number of threads and the layer, which is None if there is but one thread."""
    cores = config.NUMBA_DEFAULT_NUM_THREADS  # that this process may use
    processes = _environment('OMPI_COMM_WORLD_LOCAL_SIZE', 'MPI_LOCALNRANKS')  # on this machine
    asked = _environment('NUMBA_NUM_THREADS', 'OMP_NUM_THREADS')
    count = min(asked or max(1, cores // (processes or 1)), config.NUMBA_NUM_THREADS)
    if count > 1 and config.THREADING_LAYER == 'default':  # not set by NUMBA_THREADING_LAYER
        config.THREADING_LAYER = next(filter(_loads, LAYERS), 'default')
    if count == 1 or config.THREADING_LAYER == 'default':
        return 1, None
    if count < config.NUMBA_NUM_THREADS:
        numba.set_num_threads(count)
    return count, config.THREADING_LAYER


def _after_fork():
    global _forked
    _forked = bool(_start.cache_info().currsize) and _start()[1] == 'omp'


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)


def describe():
    """Says in words which threads compute: for example ``2 threads (TBB)``."""
    count, layer = _start()
    return f'{count} threads ({LAYERS.get(layer, layer)})' if layer else '1 thread'


def region(function):
    """Compiles a function whose prange is shared by the threads.

    With one thread, and in a child that a process with OpenMP's threads forked, it is an ordinary
    loop.
    """
    shared = njit(parallel=True, **OPTIONS)(function)
    copy = types.FunctionType(function.__code__, function.__globals__)
    copy.__qualname__ = f'{function.__qualname__}_alone'  # by which Numba's cache knows it
    alone = njit(**OPTIONS)(copy)

    @functools.wraps(function)
    def call(*args):
        return (alone if _forked or _start()[1] is None else shared)(*args)

    return call
