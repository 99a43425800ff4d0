"""The nets of net.py, their loss and Chainer's Adam, computed faster.

``fast.BinaryMLP`` is :class:`net.BinaryMLP`, ``fast.QuantizedMLP`` is :class:`net.QuantizedMLP`,
``fast.Adam`` is :class:`chainer.optimizers.Adam`, and ``fast.softmax_cross_entropy`` is the
function of :mod:`chainer.functions`. Results agree up to rounding, on the CPU those of Adam and
the loss bit for bit. A GPU takes fewer kernel launches. On a CPU without Numba, the nets and Adam
are the originals.
``fast.missing`` says why Numba cannot be used, or is None.
"""

from fast.adam import Adam
from fast.available import describe, missing
from fast.loss import softmax_cross_entropy
from fast.net import BinaryMLP, QuantizedMLP

__all__ = [
    'Adam',
    'BinaryMLP',
    'QuantizedMLP',
    'describe',
    'missing',
    'softmax_cross_entropy',
]
