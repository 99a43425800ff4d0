"""Whether Numba can be used: ``missing`` says why not, or is None."""

import numpy

missing = None
try:
    from fast import layer, loops  # noqa: F401
except (ImportError, OSError) as e:  # OSError: llvmlite's library cannot be loaded
    missing = e


def describe():
    """Says in words what computes: for example ``AVX-512 VNNI, AVX-512 VPOPCNTDQ; 2 threads
    (TBB)``.
    """
    from fast import cpu, threads

    return f'{cpu.describe()}; {threads.describe()}'


def accept(*arrays):
    """Whether compiled code can take these arrays: C-contiguous NumPy arrays of float32."""
    return missing is None and all(
        isinstance(a, numpy.ndarray) and a.flags.c_contiguous and a.dtype == numpy.float32
        for a in arrays
    )
