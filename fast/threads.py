"""The threads that compute: how many, and by which of Numba's threading layers.

A region is a compiled function that computes a chunk of some work, and the threads share the
chunks. No sum extends over chunks, so the results are the same bit for bit for any number of
threads.
"""

from collections import namedtuple
import contextlib
import ctypes
import functools
import importlib
from importlib import metadata
import os
import sys
from types import FunctionType

from llvmlite import ir
import numba
from numba import int64, prange, types
from numba.core import cgutils, config
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype
import numpy

from fast.cache import njit

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
    layer = config.THREADING_LAYER
    if layer != 'workqueue' and not (layer in LAYERS and _loads(layer)):
        raise ValueError(
            f'NUMBA_THREADING_LAYER={layer}: cannot be used here; try workqueue or omp'
        )
    if count < config.NUMBA_NUM_THREADS:
        numba.set_num_threads(count)
    return count, layer


def _after_fork():
    global _forked
    _forked = bool(_start.cache_info().currsize) and _start()[1] == 'omp'


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)


def describe():
    """Says in words which threads compute: for example ``2 threads (TBB)``."""
    count, layer = _start()
    return f'{count} threads ({LAYERS.get(layer, layer)})' if layer else '1 thread'


def _nothing(kind):
    """0, or an empty array, of a Numba type."""
    if isinstance(kind, types.Array):
        return numpy.empty((0,) * kind.ndim, as_dtype(kind.dtype))
    return as_dtype(kind).type(0)


def structure(name, **fields):
    """A named tuple for the arguments of regions, with the Numba type of each field.

    A field that is not given is 0 or an empty array.
    """
    # Numba's cache stores the name of a class, if that can be imported, or else the class.
    module = sys._getframe(1).f_globals['__name__']
    made = namedtuple(name, fields, defaults=map(_nothing, fields.values()), module=module)
    made.type = types.NamedTuple(tuple(fields.values()), made)
    return made


@intrinsic
def _store(typingctx, arguments):
    """Stores a tuple in memory, and returns where: threads take few arguments faster than many.

    Its arrays lose their counts of references, which the threads would otherwise wait for.
    """

    def codegen(context, builder, signature, args):
        content = args[0]
        for i, kind in enumerate(arguments):
            if isinstance(kind, types.Array):
                array = context.make_array(kind)(
                    context, builder, builder.extract_value(content, i)
                )
                array.meminfo = array.meminfo.type(None)
                content = builder.insert_value(content, array._getvalue(), i)
        memory = cgutils.alloca_once(builder, content.type)
        builder.store(content, memory)
        return builder.bitcast(memory, context.get_value_type(signature.return_type))

    return types.CPointer(arguments)(arguments), codegen


@intrinsic
def _call(typingctx, address, chunk, pointer):
    """Calls a compiled function by its address, with a chunk and the tuple at a pointer."""

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(signature.args[2].dtype)
        arguments = builder.load(builder.bitcast(args[2], ir.PointerType(kind)))
        function = ir.FunctionType(ir.VoidType(), [args[1].type, kind])
        function = builder.inttoptr(args[0], ir.PointerType(function))
        builder.call(function, [args[1], arguments])
        return context.get_dummy_value()

    return types.void(types.intp, types.int64, pointer), codegen


def _all_chunks(address, chunks, arguments):
    pointer = _store(arguments)
    for chunk in prange(chunks):
        _call(address, int64(chunk), pointer)


def region(kind):
    """Compiles a function ``f(chunk, arguments)``, for arguments of this :func:`structure`.

    It is then called as ``f(chunks, arguments)``, and the threads share the chunks. With one
    thread, and in a child that a process with OpenMP's threads forked, it is an ordinary loop.

    The function is called by its address: if Numba saw it, it would compile it again as part of
    the loop, and threads make that take several times as long.
    """

    def decorate(function):
        one_chunk = njit(function)

        @functools.lru_cache(None)
        def address():
            one = one_chunk.get_compile_result(types.void(int64, kind.type))
            return one.library.get_pointer_to_function(one.fndesc.llvm_cfunc_wrapper_name)

        @functools.wraps(function)
        def call(chunks, arguments):
            parallel = not _forked and _start()[1] is not None
            _loop(kind, parallel)(address(), chunks, arguments)

        return call

    return decorate


@functools.lru_cache(None)
def _loop(kind, parallel):
    copy = FunctionType(_all_chunks.__code__, _all_chunks.__globals__)
    copy.__qualname__ = 'in_parallel' if parallel else 'in_turn'  # by which Numba's cache knows it
    loop = njit(copy, parallel=parallel)
    loop.compile((types.intp, types.intp, kind.type))
    loop.disable_compile()
    return loop
