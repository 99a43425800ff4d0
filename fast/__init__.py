"""The nets of net.py and Chainer's Adam, computed faster on the CPU.

``fast.BinaryMLP`` is :class:`net.BinaryMLP`, ``fast.QuantizedMLP`` is :class:`net.QuantizedMLP`
and ``fast.Adam`` is :class:`chainer.optimizers.Adam`, each with the same results to the bit. On a
GPU, and wherever Numba is missing, they are exactly those classes. ``fast.missing`` says why Numba
cannot be used, or is None.
"""

from fast.adam import Adam
from fast.loops import missing
from fast.net import BinaryMLP, QuantizedMLP

__all__ = ['Adam', 'BinaryMLP', 'QuantizedMLP', 'missing']
