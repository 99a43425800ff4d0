"""Products of floats with a matrix of +1 and -1, by look-up of sums.

Four numbers of a row have 16 sums with signs. They make up a table, and the signs of a column at
these four inputs are the index of its sum: a look-up and an addition replace four multiplications
and additions. fast/kernels.py does so for many columns or rows at once.

The functions are for compiled code, and work on a chunk of ``ROWS`` rows and ``UNITS`` columns.
Every kernel adds the same numbers in the same order, so results do not depend on chunks, threads
or the CPU.

A matrix of more values is a sum of planes of signs. Call :func:`write_signs` and :func:`product`
for each plane, from the one of the highest bits, with ``carry`` 0 for the first. Then ``carry`` 1
for the second gives products with s1 + s2, which is -2, 0 or 2, and ``carry`` 2 gives products
with 2 s1 + s2, which is -3, -1, 1 or 3.
"""

import numpy

from fast.cache import compiled
from fast.kernels import GROUP, TABLE, add_sums, write_table

WORD = 32  # inputs whose signs make up a word


@compiled
def write_signs(a, i, words):
    """Writes row i of a matrix to I[i // WORD]: bit i % WORD of word k is set if a[k] >= 0.

    Rows are written in order: the first of a word clears those that follow.

    Args:
        a (array): Array of numbers, of shape (K,).
        i (int): The row: input i of the product.
        words (array): uint32 array, at least as long: I[i // WORD], or a part of it.
    """
    bit = numpy.uint32(1 << i % WORD)
    if i % WORD == 0:
        words[:] = 0
    for k in range(len(a)):
        words[k] |= bit if a[k] >= 0 else numpy.uint32(0)


@compiled
def write_tables(A, start, stride, row_stride, n, T):
    """Writes the tables of n inputs, and 0 to 3 more to make up groups of four, which must be 0.

    Take a product of many inputs by spans of 256, with ``carry`` 1 from the second on, to keep the
    tables in the first cache.

    Args:
        A (array): C-contiguous float32 array; input i of row r is element
            start + i stride + r row_stride.
        n (int): Number of inputs.
        T (array): float32 array of at least 32 (n + 3) elements, from :func:`~kernels.aligned`.
    """
    for i in range(0, n, GROUP):
        write_table(T, i // GROUP * TABLE, A, start + i * stride, stride, row_stride)


@compiled
def product(T, n, I, column, carry, Y, start, stride):
    """Products with UNITS columns.

    .. math:: Y_{ru} = carry\\, Y_{ru} + \\sum_{i < n} a_{ri} s_{i, column + u}

    Args:
        T (array): The tables of n inputs.
        n (int): Number of inputs.
        I (array): Their signs, as :func:`write_signs` writes them.
        column (int): The first column, a multiple of UNITS.
        carry (float): Factor of what is in Y, which does not matter if this is 0.
        Y (array): C-contiguous float32 array; :math:`Y_{ru}` is element start + r stride + u.
    """
    groups = -(-n // GROUP)
    add_sums(T, groups, I, column, I.shape[1], numpy.float32(carry), Y, start, stride)
