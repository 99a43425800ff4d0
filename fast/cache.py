"""Numba's cache of compiled functions, without which everything works, only later."""

import contextlib
import hashlib
import pathlib

import numba
from numba.core.caching import FunctionCache

if numba.config.DISABLE_JIT:  # Python cannot call the functions of fast/llvm.py.
    raise ImportError('NUMBA_DISABLE_JIT is set')

OPTIONS = {'nogil': True, 'error_model': 'numpy'}
# For parts of other functions, which Python does not call.
compiled = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)

_sources = sorted(pathlib.Path(__file__).parent.glob('*.py'))
_digest = hashlib.sha256(b''.join(path.read_bytes() for path in _sources)).digest()


class _Cache(FunctionCache):
    """Numba's cache, which a damaged file or a full disk leaves empty instead of raising.

    A change in any file of this folder empties it, too: functions contain code from several.
    """

    def __init__(self, function):
        super().__init__(function)
        self._cache_file._source_stamp = self._cache_file._source_stamp, _digest

    def load_overload(self, *arguments):
        try:
            return super().load_overload(*arguments)
        except Exception:  # A power cut leaves empty files, and unpickling can raise anything.
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *arguments):
        with contextlib.suppress(OSError):
            super().save_overload(*arguments)


def njit(function, **options):
    """:func:`numba.njit`, and caches what it compiles on disk if it can."""
    dispatcher = numba.njit(**OPTIONS, **options)(function)
    with contextlib.suppress(RuntimeError):  # There is no folder that Numba could write to.
        dispatcher._cache = _Cache(function)
    return dispatcher
