"""Products of floats with a matrix of +1 and -1, by look-up of sums.

Four numbers of a row have 16 sums with signs. They make up a table, and the signs of a column at
these four inputs are the index of its sum: a look-up and an addition replace four multiplications
and additions. With AVX-512, a permutation looks up 16 columns of a row at once; any other CPU
loads the sums of eight rows for a column.

The functions are for compiled code, and work on a chunk of ``ROWS`` rows and ``UNITS`` columns.
Every CPU adds the same numbers in the same order, so results do not depend on chunks, threads or
the CPU.
"""

from llvmlite import ir
import numpy

from fast import cpu
from fast.cache import compiled
from fast.kernels import UNITS, transposed
from fast.llvm import FLOAT, INT8, INT32, INT64, constant, kernel, vector

GROUP = 4  # inputs of a table
ROWS = 8  # of a product
TABLE = 16 * ROWS  # sums of four inputs, for all rows
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


class _Permute:
    """VPERMPS of AVX-512: a register has the sums of a row, and 16 columns find theirs at once."""

    columns, lanes = 32, vector(FLOAT, 16)  # columns at a time
    words = [vector(INT32, 16)] * 2
    shift = constant(words[0], GROUP)

    def tables(self, b, rows):
        """The vectors of a table: number j is added if bit j of the index is set."""
        for numbers in rows:
            terms = []
            for j, number in enumerate(numbers):
                signs = ir.Constant(self.lanes, [1.0 if i >> j & 1 else -1.0 for i in range(16)])
                terms.append(b.fmul(b.splat(number, self.lanes), signs))
            yield b.fadd(b.fadd(*terms[:2]), b.fadd(*terms[2:]))

    def read_words(self, b, row, k):
        return b.read(row, k, self.words[0])

    def add(self, b, totals, table, words):
        """Adds the sums of a table to the totals, a register for each row and vector of words."""
        totals = iter(totals)
        for r in range(ROWS):
            sums = b.read(table, r, self.lanes)
            for index in words:
                found = b.named('llvm.x86.avx512.permvar.sf.512', self.lanes, sums, index)
                b.update(next(totals), b.fadd, found)

    def rows(self, b, totals):
        return totals


class _LoadSums:
    """For any CPU: the sums of all rows are a vector in memory, and a column loads it."""

    columns, lanes = 8, vector(FLOAT, ROWS)
    words = [INT64] * 8
    shift = constant(INT64, GROUP)

    def tables(self, b, rows):
        numbers = []
        for column in zip(*rows):
            lanes = ir.Constant(self.lanes, ir.Undefined)
            for r, number in enumerate(column):
                lanes = b.insert_element(lanes, number, constant(INT32, r))
            numbers.append((b.fneg(lanes), lanes))
        first, last = (
            [b.fadd(x[i & 1], y[i >> 1]) for i in range(4)] for x, y in (numbers[:2], numbers[2:])
        )
        for i in range(16):
            yield b.fadd(first[i & 3], last[i >> 2])

    def read_words(self, b, row, k):
        """The word of a column, such that the index is an offset in bytes."""
        return b.times(b.zext(b.read(row, k), INT64), 4 * ROWS)

    def add(self, b, totals, table, words):
        table = b.bitcast(table, ir.PointerType(INT8))
        for total, word in zip(totals, words):
            at = b.at(table, b.and_(word, constant(INT64, 15 * 4 * ROWS)))
            found = b.load(b.at(at, 0, self.lanes), align=16)
            b.update(total, b.fadd, found)

    def rows(self, b, totals):
        return transposed(b, totals)


_way = {'avx512f': _Permute, 'plain': _LoadSums}[cpu.FLOATS]()


@kernel
def _write_table(b, T, t_start, A, a_start, stride, row_stride):
    out, numbers, rows = b.at(T, t_start), b.at(A, a_start), []
    for r in range(ROWS):
        row = b.at(numbers, b.times(row_stride, r))
        rows.append([b.read(row, b.times(stride, j)) for j in range(GROUP)])
    for k, sums in enumerate(_way.tables(b, rows)):
        b.store(sums, b.at(out, k, sums.type), align=16)


@compiled
def write_tables(A, start, stride, row_stride, n, T):
    """Writes the tables of n inputs, and 0 to 3 more to make up groups of four, which must be 0.

    Take a product of many inputs by spans of 256, of which all but the first add to Y, to keep the
    tables in the first cache.

    Args:
        A (array): C-contiguous float32 array; input i of row r is element
            start + i stride + r row_stride.
        n (int): Number of inputs.
        T (array): float32 array of at least 32 (n + 3) elements, from :func:`~kernels.aligned`.
    """
    for i in range(0, n, GROUP):
        _write_table(T, i // GROUP * TABLE, A, start + i * stride, stride, row_stride)


@kernel
def _product(b, T, groups, I, i_start, i_stride, more, Y, y_start, y_stride):
    """See :func:`product`, for so many tables, and the words from I[i_start] on."""
    out, signs, way, a_word = b.at(Y, y_start), b.at(I, i_start), _way, WORD // GROUP
    vectors = way.columns // way.lanes.count  # of a row
    totals = b.registers(*[way.lanes] * (ROWS * vectors))
    words = b.registers(*way.words)
    with b.steps(0, UNITS, way.columns) as (u, _):
        b.clear(totals)
        with b.steps(0, groups, a_word) as (start, _):
            row = b.mul(b.udiv(start, constant(INT64, a_word)), i_stride)
            row = b.at(signs, b.add(row, u))
            for k, word in enumerate(words):
                b.store(way.read_words(b, row, k), word)
            stop = b.least(b.add(start, constant(INT64, a_word)), groups)
            with b.steps(start, stop, 1) as (g, _):
                way.add(b, totals, b.at(T, b.times(g, TABLE)), [b.load(word) for word in words])
                for word in words:
                    b.update(word, b.lshr, way.shift)
        sums = iter(way.rows(b, [b.load(total) for total in totals]))
        places = []
        for r in range(ROWS):
            row = b.at(out, b.add(b.times(y_stride, r), u))
            places += [(next(sums), row, k) for k in range(vectors)]
        with b.if_else(more) as (add, write):
            with add:
                for total, row, k in places:
                    b.write(b.fadd(b.read(row, k, way.lanes), total), row, k)
            with write:
                for total, row, k in places:
                    b.write(total, row, k)


@compiled
def product(T, n, I, column, more, Y, start, stride):
    """Products with UNITS columns.

    .. math:: Y_{ru} = \\sum_{i < n} a_{ri} s_{i, column + u}

    Args:
        T (array): The tables of n inputs.
        n (int): Number of inputs.
        I (array): Their signs, as :func:`write_signs` writes them.
        column (int): The first column, a multiple of UNITS.
        more (bool): Whether to add the sums to Y, or else to replace it.
        Y (array): C-contiguous float32 array; :math:`Y_{ru}` is element start + r stride + u.
    """
    groups = -(-n // GROUP)
    _product(T, groups, I, column, I.shape[1], more, Y, start, stride)
