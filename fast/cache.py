"""Numba's cache of compiled functions, without which everything works, only later."""

import contextlib

import numba
from numba.core.caching import FunctionCache

OPTIONS = {'nogil': True, 'error_model': 'numpy'}
# For parts of other functions, which Python does not call.
compiled = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)


class _Cache(FunctionCache):
    """Numba's cache, which a damaged file or a full disk leaves empty instead of raising."""

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
