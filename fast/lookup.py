"""Products of floats with a matrix of +1 and -1, by look-up of the sums of four with signs.

Four numbers of a row have 16 sums with signs, a table that fits one register of AVX-512. The signs
of a column at these four inputs are the index of its sum: a permutation and an addition do for 16
columns what takes four multiplications and additions otherwise. See fast/kernels.py for this and
for what other CPUs do.

The functions are for compiled code, and work on a chunk: ``ROWS`` rows or fewer, and ``UNITS``
columns. A sum has the same terms in the same order whatever else is computed, so the results do
not depend on the chunks.

With values of more bits, a matrix is a sum of planes of signs: :func:`write_signs` for each plane,
and :func:`product` for each, the first with ``carry`` 0. With ``carry`` 1 for the second, this
gives products with s1 + s2, which is -2, 0 or 2; with ``carry`` 2 those with 2 s1 + s2.
"""

import numba
import numpy

from fast.kernels import GROUP, TABLE, add_sums, write_table

WORD = 32  # inputs whose signs make up a word


@numba.njit
def table_size(n):
    """How many float32 the tables of n inputs take. They should start at a cache line."""
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
    """Writes the tables of n inputs for ROWS rows.

    Args:
        A (array): C-contiguous float32 array, whose element start + r row_stride + i stride in
            memory is input i of row r.
        rows (int): How many rows there are, 1 to ROWS. The tables of the others are copies.
        n (int): How many inputs there are: a multiple of GROUP, except for the last of a product.
        T (array): float32 array; the tables start at t_start. They take :func:`table_size`.
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
        T (array): The tables of n inputs, from :func:`write_tables`.
        n (int): Number of inputs.
        I (array): Their signs, from :func:`write_signs`.
        column (int): The first column, a multiple of UNITS.
        carry (float): Factor of what is in Y, which is not read if it is 0.
        Y (array): C-contiguous float32 array, which is written: element start + r stride + u in
            memory.
        rows (int): How many rows are written, 1 to ROWS.
    """
    groups = -(-n // GROUP)
    add_sums(T, groups, I, column, I.shape[1], numpy.float32(carry), Y, start, stride, rows)
