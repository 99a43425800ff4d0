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

OPTIONS = {'cache': True, 'nogil': True, 'error_model': 'numpy'}
compiled = numba.njit(**OPTIONS)

# The layers, the best first. A fork, and a second Python thread, are safe with TBB alone; Numba's
# own layer, workqueue, takes so long to start a region that nothing is gained.
LAYERS = {'tbb': 'TBB', 'omp': 'OpenMP'}

_forked = False


def _environment(*names):
    """The first of these variables that is a number greater than 0."""
    values = (os.environ.get(name, '') for name in names)
    return next((int(value) for value in values if value.isdigit() and int(value)), None)


def _available():
    """How many threads there should be: a core each."""
    cores = config.NUMBA_DEFAULT_NUM_THREADS  # that this process may use
    processes = _environment('OMPI_COMM_WORLD_LOCAL_SIZE', 'MPI_LOCALNRANKS')  # on this machine
    cores = -(-cores // processes) if processes else cores
    asked = _environment('NUMBA_NUM_THREADS', 'OMP_NUM_THREADS')
    return min(asked or cores, config.NUMBA_NUM_THREADS)


def _loads(layer):
    with contextlib.suppress(metadata.PackageNotFoundError, OSError):
        if layer == 'tbb':  # Numba does not look into the folder where pip puts it
            for file in metadata.files('tbb') or ():
                if file.name in ('libtbb.so.12', 'tbb12.dll'):
                    ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
    try:
        importlib.import_module(f'numba.np.ufunc.{layer}pool')
    except ImportError:
        return False
    return True


@functools.lru_cache(None)
def _start():
    """Chooses the layer and the number of threads.

    Returns:
        tuple: Both; the layer is None if there is but one thread.
    """
    count, layer = _available(), None
    if count > 1:
        if config.THREADING_LAYER == 'default':  # NUMBA_THREADING_LAYER is not set
            layer = next(filter(_loads, LAYERS), None)
            if layer:
                config.THREADING_LAYER = layer
        else:
            layer = config.THREADING_LAYER
    if not layer:
        return 1, None
    if count < config.NUMBA_NUM_THREADS:
        numba.set_num_threads(count)
    return count, layer


def _after_fork():
    global _forked
    _forked = _start.cache_info().currsize and _start()[1] == 'omp'


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)


def describe():
    """Says in words which threads compute: for example ``2 threads (TBB)``."""
    count, layer = _start()
    return f'{count} threads ({LAYERS.get(layer, layer)})' if layer else '1 thread'


def region(function):
    """Compiles a function whose prange is shared by the threads.

    With one thread, and in a process that was forked from one with OpenMP's threads, which the
    fork does not copy, the loop is an ordinary one.
    """
    shared = numba.njit(parallel=True, **OPTIONS)(function)
    copy = types.FunctionType(function.__code__, function.__globals__)
    copy.__qualname__ = f'{function.__qualname__}_alone'  # by which Numba's cache knows it
    alone = numba.njit(**OPTIONS)(copy)

    @functools.wraps(function)
    def call(*args):
        return (alone if _forked or _start()[1] is None else shared)(*args)

    return call
