"""Chainer 7.8.1 on current Python, NumPy and CuPy.

Chainer's last release is from 2022. This module imports Chainer and restores what newer Python and
NumPy lack; names that still exist are left alone. Every module of this project that uses Chainer
gets it by ``from chainer_compat import chainer``, so the order of imports never matters.
"""

import importlib.util
import sys
import types
import warnings

import numpy

# Removed in NumPy 2.0; chainer.functions.as_strided looks up integer and float types in it.
if not hasattr(numpy, 'sctypes'):
    numpy.sctypes = {
        'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
        'float': [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
    }

with warnings.catch_warnings():
    # No user can fix what these imports warn about: deprecations, versions newer than Chainer.
    warnings.simplefilter('ignore')

    # Removed in NumPy 1.24; chainer.functions.resize_images uses it as a dtype.
    if not hasattr(numpy, 'float'):
        numpy.float = float

    # Chainer's check of its environment only warns, and needs numpy.distutils and pkg_resources,
    # which newer versions of Python and setuptools lack.
    stand_in = sys.modules['chainer._environment_check'] = types.ModuleType('_environment_check')
    stand_in.check = lambda: None
    import chainer

    # chainer.testing also imports it. Whoever looks for the real one later must not find this one.
    if not importlib.util.find_spec('pkg_resources'):
        sys.modules['pkg_resources'] = types.ModuleType('pkg_resources')
        import chainer.testing

        del sys.modules['pkg_resources']

# CuPy 14 no longer has cuDNN, so Chainer's advice to install CuPy with it leads nowhere.
chainer.backends.cuda.check_cuda_available._already_warned = True

__all__ = ['chainer']
