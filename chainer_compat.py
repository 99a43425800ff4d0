"""Chainer 7.8.1 on current Python, NumPy and CuPy.

Chainer's last release is from 2022. This module imports Chainer and restores what newer Python and
NumPy lack; names that still exist are left alone. Every module of this project that uses Chainer
gets it by ``from chainer_compat import chainer``, so the order of imports never matters.
"""

import importlib
import sys
import types
import warnings

import numpy

_stand_ins = {}


def _stand_in(name, **attributes):
    """Provides an empty module for Chainer's import, unless there is a real one."""
    try:
        importlib.import_module(name)
    except ImportError:
        module = types.ModuleType(name)
        vars(module).update(attributes)
        _stand_ins[name] = sys.modules[name] = module


def _require(requirement):
    raise LookupError(requirement)


with warnings.catch_warnings():
    # No user can fix what these imports warn about: deprecations, versions newer than Chainer.
    warnings.simplefilter('ignore')

    # Removed in NumPy 2.0; chainer.functions.as_strided looks up integer and float types in it.
    if not hasattr(numpy, 'sctypes'):
        numpy.sctypes = {
            'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
            'float': [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
        }
    # Removed in NumPy 1.24; chainer.functions.resize_images uses it as a dtype.
    if not hasattr(numpy, 'float'):
        numpy.float = float
    # Removed with Python 3.12; Chainer's version check imports it, and uses it only on macOS.
    _stand_in('numpy.distutils')
    _stand_in('numpy.distutils.system_info', get_info=lambda name: {})
    if 'numpy.distutils' in _stand_ins:
        numpy.distutils = _stand_ins['numpy.distutils']
        numpy.distutils.system_info = _stand_ins['numpy.distutils.system_info']
    # Removed in setuptools 81; Chainer's version check looks for old CuPy packages with it.
    _stand_in(
        'pkg_resources',
        require=_require,
        DistributionNotFound=LookupError,
        VersionConflict=LookupError,
    )

    import chainer

    if 'pkg_resources' in _stand_ins:
        import chainer.testing

# The stand-ins were for Chainer alone: nobody who looks for the real modules must find them.
for _name in _stand_ins:
    del sys.modules[_name]
if 'numpy.distutils' in _stand_ins:
    del numpy.distutils

# CuPy 14 no longer has cuDNN, so Chainer's advice to install CuPy with it leads nowhere.
chainer.backends.cuda.check_cuda_available._already_warned = True

__all__ = ['chainer']
