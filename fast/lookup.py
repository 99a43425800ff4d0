"""Products of floats with a matrix of +1 and -1, by look-up of sums.

Four numbers of a row have 16 sums with signs. They make up a table, and the signs of a column at
these four inputs are the index of its sum: a look-up and an addition replace four multiplications
and additions. fast/kernels.py does so for many columns or rows at once.

The functions are for compiled code, and work on a chunk: at most ``ROWS`` rows, and ``UNITS``
columns. Every kernel adds the same numbers in the same order, so results do not depend on chunks,
threads or the CPU.

A matrix of more values is a sum of planes of signs. Call :func:`write_signs` and :func:`product`
for each plane, from the greatest, with ``carry`` 0 for the first. Then ``carry`` 1 for the second
gives products with s1 + s2, which is -2, 0 or 2, and ``carry`` 2 those with 2 s1 + s2, which is
-3, -1, 1 or 3.
"""

import numba
import numpy

from fast.kernels import GROUP, TABLE, add_sums, write_table

WORD = 32  # inputs whose signs make up a word


@numba.njit
def table_size(n):
    """How many float32 the tables of n inputs take."""
    return -(-n // GROUP) * TABLE


@numba.njit(error_model='numpy')
def write_signs(a, i, I):
    """Writes row i of a matrix: bit i % WORD of I[i // WORD, k] is set if a[k] >= 0.

    Rows are written in order: the first of a word clears those that follow.

    Args:
        a (array): Float array of shape (K,).
        i (int): The row: input i of the product.
        I (array): uint32 array of shape (words, columns), whose columns are a multiple of UNITS
            and at least K.
    """
    words, bit = I[i // WORD], numpy.uint32(1 << i % WORD)
    if i % WORD == 0:
        words[:] = 0
    for k in range(len(a)):
        words[k] |= bit if a[k] >= 0 else numpy.uint32(0)


@numba.njit(error_model='numpy')
def write_tables(A, start, stride, row_stride, rows, n, T, t_start):
    """Writes the tables of n inputs.

    Take a product of many inputs by spans of 256, with ``carry`` 1 from the second on, to keep the
    tables in the first cache.

    Args:
        A (array): C-contiguous float32 array; input i of row r is element
            start + i stride + r row_stride.
        rows (int): How many rows there are, 1 to ROWS.
        n (int): How many inputs there are: a multiple of GROUP, except for the last of a product.
        T (array): float32 array of :func:`table_size` elements from t_start on, which starts at a
            cache line (:func:`fast.kernels.aligned`).
    """
    whole = n // GROUP * GROUP
    for i in range(0, whole, GROUP):
        t, at = t_start + i // GROUP * TABLE, start + i * stride
        write_table(T, t, A, at, stride, row_stride, rows, GROUP)
    if whole < n:
        t, at = t_start + whole // GROUP * TABLE, start + whole * stride
        write_table(T, t, A, at, stride, row_stride, rows, n - whole)


@numba.njit(error_model='numpy')
def product(T, n, I, column, carry, Y, start, stride, rows):
    """Products with UNITS columns.

    .. math:: Y_{ru} = carry\\, Y_{ru} + \\sum_{i < n} a_{ri} s_{i, column + u}

    Args:
        T (array): The tables of n inputs, from its first element on.
        n (int): Number of inputs.
        I (array): Their signs, as :func:`write_signs` writes them.
        column (int): The first column, a multiple of UNITS.
        carry (float): Factor of what is in Y; if it is 0, Y is not read.
        Y (array): C-contiguous float32 array; :math:`Y_{ru}` is element start + r stride + u.
        rows (int): How many rows to write, 1 to ROWS.
    """
    groups = -(-n // GROUP)
    add_sums(T, groups, I, column, I.shape[1], numpy.float32(carry), Y, start, stride, rows)
