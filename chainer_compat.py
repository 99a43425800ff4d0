"""Chainer 7.8.1 on current Python, NumPy and CuPy.

Chainer's last release is from 2022. Importing this module imports Chainer and puts right what has gone
missing under it since; a name that is still there stays as it is. Every module here that uses Chainer
begins with ``import chainer_compat``, so the order of imports never matters.
"""
import importlib
import sys
import types
import warnings

import numpy

_stand_ins = {}


def _stand_in(name, **attributes):
    """Puts a module of that name in place for Chainer's import, unless there is a real one."""
    try:
        importlib.import_module(name)
    except ImportError:
        module = types.ModuleType(name)
        vars(module).update(attributes)
        _stand_ins[name] = sys.modules[name] = module


def _require(requirement):
    raise LookupError(requirement)


with warnings.catch_warnings():
    # What these imports warn of (deprecations, versions newer than Chainer) no user can mend.
    warnings.simplefilter('ignore')

    # Gone in NumPy 2.0; chainer.functions.as_strided asks it for the integer and float types.
    if not hasattr(numpy, 'sctypes'):
        numpy.sctypes = {
            'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
            'float': [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble]}
    # Gone in NumPy 1.24; chainer.functions.resize_images gives it as a dtype.
    if not hasattr(numpy, 'float'):
        numpy.float = float
    # Gone with Python 3.12; Chainer's version check imports it, and uses it on macOS alone.
    _stand_in('numpy.distutils')
    _stand_in('numpy.distutils.system_info', get_info=lambda name: {})
    if 'numpy.distutils' in _stand_ins:
        numpy.distutils = _stand_ins['numpy.distutils']
        numpy.distutils.system_info = _stand_ins['numpy.distutils.system_info']
    # Gone with setuptools 81; Chainer's version check looks for old CuPy packages with it.
    _stand_in('pkg_resources', require=_require,
              DistributionNotFound=LookupError, VersionConflict=LookupError)

    import chainer
    if 'pkg_resources' in _stand_ins:
        import chainer.testing  # noqa: F401  (wants it too, while it is imported)

# The stand-ins were for Chainer alone: whoever looks for the real modules must not find them.
for _name in _stand_ins:
    del sys.modules[_name]
if 'numpy.distutils' in _stand_ins:
    del numpy.distutils

# CuPy 14 has no cuDNN any more, so Chainer's advice to install CuPy with it leads nowhere.
chainer.backends.cuda.check_cuda_available._already_warned = True
