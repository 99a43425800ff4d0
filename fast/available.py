"""Whether Numba can be used: ``missing`` says why not, or is None."""

missing = None
try:
    from fast import layer, loops  # noqa: F401
# OSError: llvmlite's library cannot be loaded; ValueError: a variable NUMBA_... is wrong.
except (ImportError, OSError, ValueError) as e:
    missing = e


def describe():
    """Says in words what computes: for example ``AVX-512 VNNI, AVX-512 VPOPCNTDQ; 2 threads
    (TBB)``.
    """
    from fast import cpu, threads

    return f'{cpu.describe()}; {threads.describe()}'
