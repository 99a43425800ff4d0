"""The inner loops for XNOR, products of bytes and sparse sums, as LLVM code for vector registers.

All of them compute the sums of a block of 64 units in vector registers. Units are consecutive in
the weights, so that one vector holds the same inputs of several units:

- Products of bits, with AVX-512 VPOPCNTDQ or plain vectors: XOR and a population count of 64-bit
  words, which LLVM translates to the best the CPU has.
- Products of bits, with AVX2 or NEON: the bits that a unit's weights have for four inputs are
  looked up in a table of 16 counts. The table depends on the four inputs. One shuffle instruction
  looks up 32 (or 16) units, and four images share each load of the weights. The counts are added
  as bytes, and widened before they can overflow.
- Products of bytes: VPDPBUSD multiplies four unsigned bytes by four signed ones per 32-bit sum and
  adds them; UDOT does so for unsigned weights. AVX2 has VPMADDUBSW, which adds pairs to 16 bits;
  these are widened before they can overflow.
- Products of floats with +1 and -1: a table has the sums of four numbers with all signs, and a
  column finds its own. With AVX-512, a permutation does so for 16 columns of a row; any other CPU
  loads the sums of eight rows for a column.
- Sparse sums: rows of floats, times one number for each row; LLVM knows the instructions.

Numba caches compiled functions by the file that defines them: after a change here, delete
``fast/__pycache__``.
"""

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
import numpy

from fast import cpu

UNITS = 64  # units of a block
SEGMENT = 31  # bytes of inputs whose counts of disagreements fit into a byte
LOOKUP = cpu.BITS in ('avx2', 'neon')  # how bits are multiplied

binding.initialize_native_asmparser()

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def _int(value):
    return ir.Constant(INT64, value)


def _vector(element, count):
    return ir.VectorType(element, count)


def _splat(builder, value, vector):
    """The value in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    zeros = ir.Constant(_vector(INT32, vector.count), [0] * vector.count)
    first = builder.insert_element(undefined, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, undefined, zeros)


def _constant(vector, value):
    return ir.Constant(vector, [value] * vector.count)


def _call(builder, name, result, *values):
    function = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), values)


def _array(context, builder, array_type, array, offset=None):
    data = context.make_array(array_type)(context, builder, array).data
    return data if offset is None else builder.gep(data, [offset])


def _at(builder, data, vector, index=0, offset=None):
    """Pointer to the vector of that index at an address, plus an offset in bytes."""
    data = builder.bitcast(data, ir.PointerType(INT8))
    if offset is not None:
        data = builder.gep(data, [offset])
    return builder.gep(builder.bitcast(data, ir.PointerType(vector)), [_int(index)])


def _load(builder, pointer):
    return builder.load(pointer, align=1)


def _registers(builder, vector, count):
    return [cgutils.alloca_once(builder, vector) for _ in range(count)]


def _clear(builder, registers):
    for register in registers:
        builder.store(_constant(register.type.pointee, 0), register)


def _update(builder, register, function, *values):
    builder.store(function(builder.load(register), *values), register)


def _zero_sums(builder, sums, images):
    vector = _vector(INT32, 16)
    for k in range(images * UNITS // vector.count):
        builder.store(_constant(vector, 0), _at(builder, sums, vector, k), align=1)


def _add_to(builder, pointer, value):
    builder.store(builder.add(_load(builder, pointer), value), pointer, align=1)


# Products of bytes: how to add four products per unit, and how to widen the sums to 32 bits.


class _Vnni:
    """VPDPBUSD. LLVM does not find it by itself, and its intrinsic differs between versions."""

    def __init__(self, bits, assembly):
        self.sums = self.weights = _vector(INT32, bits // 32)
        function = ir.FunctionType(self.sums, [self.sums] * 3)
        self.assembly = ir.InlineAsm(function, assembly, '=v,v,v,0')

    def step(self, builder, sums, weights, inputs):
        return builder.call(self.assembly, [inputs, weights, sums])

    def widen(self, builder, sums):
        return sums


class _Maddubs:
    """VPMADDUBSW and additions of 16 bits."""

    sums, weights = _vector(INT16, 16), _vector(INT32, 8)

    def step(self, builder, sums, weights, inputs):
        operands = (builder.bitcast(value, _vector(INT8, 32)) for value in (inputs, weights))
        pairs = _call(builder, 'llvm.x86.avx2.pmadd.ub.sw', self.sums, *operands)
        return builder.add(sums, pairs)

    def widen(self, builder, sums):
        ones = _constant(self.sums, 1)
        return _call(builder, 'llvm.x86.avx2.pmadd.wd', self.weights, sums, ones)


class _Udot:
    """UDOT, whose weights are also unsigned."""

    sums = weights = _vector(INT32, 4)

    def step(self, builder, sums, weights, inputs):
        operands = (builder.bitcast(value, _vector(INT8, 16)) for value in (inputs, weights))
        return _call(builder, 'llvm.aarch64.neon.udot.v4i32.v16i8', self.sums, sums, *operands)

    def widen(self, builder, sums):
        return sums


class _Plain:
    """Vectors of 32 bits, for any CPU."""

    sums = weights = _vector(INT32, 16)

    def step(self, builder, sums, weights, inputs):
        for byte in range(4):
            up, down, mask = (_constant(self.sums, value) for value in (24 - 8 * byte, 24, 255))
            weight = builder.ashr(builder.shl(weights, up), down)
            value = builder.and_(builder.lshr(inputs, builder.sub(down, up)), mask)
            sums = builder.add(sums, builder.mul(weight, value))
        return sums

    def widen(self, builder, sums):
        return sums


def _byte_product(images, way):
    """Makes the intrinsic that multiplies bytes for so many images at a time."""
    registers = UNITS // way.weights.count
    parts = max(1, images * registers // 8)  # of a block, so that all its sums fit into registers
    registers //= parts

    @intrinsic
    def multiply(typingctx, sums, C, c_start, places, X, x_start, x_stride, n_groups, every):
        def codegen(context, builder, signature, args):
            kinds = signature.args
            out = _array(context, builder, kinds[0], args[0])
            weights = _array(context, builder, kinds[1], args[1], args[2])
            rows = _array(context, builder, kinds[3], args[3], args[5])
            inputs = [_array(context, builder, kinds[4], args[4], args[5])]
            for _ in range(images - 1):
                inputs.append(builder.gep(inputs[-1], [args[6]]))
            n_groups, every = args[7:]
            # An addition waits for the one before it in the same register, so it takes eight
            # registers to keep the CPU busy: if necessary, of two groups at a time.
            unroll = max(1, 8 // (images * registers))
            sets = [
                [_registers(builder, way.sums, registers) for _ in inputs] for _ in range(unroll)
            ]

            def group(i, part, accumulators):
                row = builder.zext(_load(builder, builder.gep(rows, [i])), INT64) if sparse else i
                offset = builder.mul(row, _int(4 * UNITS))
                values = [
                    _splat(builder, _load(builder, builder.gep(x, [i])), way.weights)
                    for x in inputs
                ]
                for k in range(registers):
                    at = _at(builder, weights, way.weights, part * registers + k, offset)
                    loaded = _load(builder, at)
                    for value, registers_of_image in zip(values, accumulators):
                        _update(
                            builder,
                            registers_of_image[k],
                            lambda s, c=loaded, x=value: way.step(builder, s, c, x),
                        )

            def chunk(start, stop, part):
                for accumulators in sets:
                    for registers_of_image in accumulators:
                        _clear(builder, registers_of_image)
                with cgutils.for_range_slice(builder, start, stop, _int(unroll)) as (i, _):
                    for k, accumulators in enumerate(sets):
                        group(builder.add(i, _int(k)), part, accumulators)
                for image in range(images):
                    for k in range(registers):
                        total = builder.load(sets[0][image][k])
                        for other in sets[1:]:
                            total = builder.add(total, builder.load(other[image][k]))
                        total = way.widen(builder, total)
                        index = image * registers * parts + part * registers + k
                        _add_to(builder, _at(builder, out, total.type, index), total)

            _zero_sums(builder, out, images)
            for part in range(parts):
                with cgutils.for_range_slice(builder, _int(0), n_groups, every) as (start, _):
                    stop = builder.add(start, every)
                    stop = builder.select(builder.icmp_signed('<', stop, n_groups), stop, n_groups)
                    chunk(start, stop, part)
            return context.get_dummy_value()

        sparse = images == 1
        i64 = types.int64
        return types.void(sums, C, i64, places, X, i64, i64, i64, i64), codegen

    return multiply


_WAYS = {
    'avx512vnni': lambda: _Vnni(512, 'vpdpbusd $2, $1, $0'),
    'avxvnni': lambda: _Vnni(256, '{vex} vpdpbusd $2, $1, $0'),
    'avx2': _Maddubs,
    'dotprod': _Udot,
    'plain': _Plain,
}
_way = _WAYS[cpu.BYTES]()

# sums[u] = dot(x[i], C[places[i], u]), of 4 inputs and 4 weights each, added up over the groups i
# of an image; C[i, u] for two images. After ``every`` groups, the sums are widened to 32 bits.
multiply_one = _byte_product(1, _way)
multiply_two = _byte_product(2, _way)
plain_multiply_one = _byte_product(1, _Plain())
plain_multiply_two = _byte_product(2, _Plain())


def groups_between_widenings(greatest_input, greatest_weight):
    """How many groups of 4 products a sum can take, or 0 if not even one."""
    if cpu.BYTES != 'avx2':
        return 2**30
    return (2**15 - 1) // (2 * greatest_input * greatest_weight)


# Products of bits.


@intrinsic
def count_words(typingctx, sums, W, w_start, X, x_start, words):
    """sums[u] = -popcount(W[w, u] ^ X[w]), added up over the given number of words w."""

    def codegen(context, builder, signature, args):
        kinds = signature.args
        out = _array(context, builder, kinds[0], args[0])
        w = _array(context, builder, kinds[1], args[1], args[2])
        x = _array(context, builder, kinds[3], args[3], args[4])
        lanes = _vector(INT64, 8)
        accumulators = _registers(builder, lanes, UNITS // lanes.count)
        _clear(builder, accumulators)
        with cgutils.for_range(builder, args[5]) as loop:
            word = _splat(builder, _load(builder, builder.gep(x, [loop.index])), lanes)
            offset = builder.mul(loop.index, _int(8 * UNITS))
            for k, register in enumerate(accumulators):
                weights = _load(builder, _at(builder, w, lanes, k, offset))
                count = _call(builder, 'llvm.ctpop.v8i64', lanes, builder.xor(weights, word))
                _update(builder, register, builder.sub, count)
        both = ir.Constant(_vector(INT32, 16), list(range(16)))
        for k in range(0, len(accumulators), 2):
            # Sums are stored as activate loads them: a load of two stores would wait for both.
            halves = [
                builder.trunc(builder.load(register), _vector(INT32, 8))
                for register in accumulators[k : k + 2]
            ]
            total = builder.shuffle_vector(*halves, both)
            builder.store(total, _at(builder, out, both.type, k // 2), align=1)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(sums, W, i64, X, i64, i64), codegen


def _lookup(images):
    """Makes the intrinsic that looks counts up for so many images at a time."""
    lanes = _vector(INT8, 32 if cpu.BITS == 'avx2' else 16)
    registers = 2  # of each image at a time

    def shuffle(builder, table, index):
        if lanes.count == 32:
            return _call(builder, 'llvm.x86.avx2.pshuf.b', lanes, table, index)
        return _call(builder, 'llvm.aarch64.neon.tbl1.v16i8', lanes, table, index)

    @intrinsic
    def count(typingctx, sums, W, w_start, tables, stride, size):
        def codegen(context, builder, signature, args):
            kinds = signature.args
            out = _array(context, builder, kinds[0], args[0])
            w = _array(context, builder, kinds[1], args[1], args[2])
            table = _array(context, builder, kinds[3], args[3])
            stride, size = args[4:]
            accumulators = [_registers(builder, lanes, registers) for _ in range(images)]
            small, wide = _vector(INT8, 16), _vector(INT32, lanes.count)
            repeat = ir.Constant(_vector(INT32, lanes.count), [i % 16 for i in range(lanes.count)])

            def load_table(image, offset):
                at = builder.gep(table, [builder.mul(_int(image), stride)])
                value = _load(builder, _at(builder, at, small, 0, offset))
                return builder.shuffle_vector(value, ir.Constant(small, ir.Undefined), repeat)

            def byte(i, part):
                row = builder.mul(i, _int(UNITS))
                low, high = [], []
                for k in range(registers):
                    loaded = _load(builder, _at(builder, w, lanes, part * registers + k, row))
                    low.append(builder.and_(loaded, _constant(lanes, 15)))
                    high.append(builder.lshr(loaded, _constant(lanes, 4)))
                for image in range(images):
                    for half, indices in enumerate((low, high)):
                        offset = builder.add(builder.mul(i, _int(32)), _int(16 * half))
                        found = load_table(image, offset)
                        for register, index in zip(accumulators[image], indices):
                            counts = shuffle(builder, found, index)
                            _update(builder, register, builder.add, counts)

            _zero_sums(builder, out, images)
            for part in range(UNITS // (registers * lanes.count)):
                with cgutils.for_range_slice(builder, _int(0), size, _int(SEGMENT)) as (start, _):
                    stop = builder.add(start, _int(SEGMENT))
                    stop = builder.select(builder.icmp_signed('<', stop, size), stop, size)
                    for of_image in accumulators:
                        _clear(builder, of_image)
                    with cgutils.for_range_slice(builder, start, stop, _int(1)) as (i, _):
                        byte(i, part)
                    for image, of_image in enumerate(accumulators):
                        for k, register in enumerate(of_image):
                            counts = builder.zext(builder.load(register), wide)
                            index = image * UNITS // lanes.count + part * registers + k
                            _add_to(builder, _at(builder, out, wide, index), builder.neg(counts))
            return context.get_dummy_value()

        i64 = types.int64
        return types.void(sums, W, i64, tables, i64, i64), codegen

    return count


# sums[u] = minus the number of inputs that disagree with unit u. tables has the counts for each
# half of each byte of inputs.
count_one = _lookup(1)
count_four = _lookup(4)


@intrinsic
def copy_table(typingctx, tables, start, source, source_start):
    """Copies 16 bytes."""

    def codegen(context, builder, signature, args):
        kinds, small = signature.args, _vector(INT8, 16)
        to = _array(context, builder, kinds[0], args[0], args[1])
        table = _load(builder, _at(builder, _array(context, builder, kinds[2], *args[2:]), small))
        builder.store(table, _at(builder, to, small), align=1)
        return context.get_dummy_value()

    return types.void(tables, types.int64, source, types.int64), codegen


@intrinsic
def finish(
    typingctx, sums, start, offset, T, t_start, n_thresholds, Y, y_start, as_bits, S, s_start
):
    """Writes the levels of a block, or its sums 2 sums[u] + offset if there are no thresholds.

    The level of unit u is the number of thresholds that its sum reaches. It is written as a byte,
    or as a bit if there is one threshold and the next layer multiplies bits.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        lanes = _vector(INT32, 16)
        data = _array(context, builder, kinds[0], args[0], args[1])
        offset = _splat(builder, builder.trunc(args[2], INT32), lanes)
        t = _array(context, builder, kinds[3], args[3], args[4])
        y = _array(context, builder, kinds[6], args[6], args[7])
        values = []
        for k in range(UNITS // lanes.count):
            value = _load(builder, _at(builder, data, lanes, k))
            values.append(builder.add(builder.add(value, value), offset))

        def reached(j):
            """Which units reach threshold j, as vectors of truth values."""
            row = builder.mul(j, _int(4 * UNITS))
            return [
                builder.icmp_signed('>=', value, _load(builder, _at(builder, t, lanes, k, row)))
                for k, value in enumerate(values)
            ]

        last = builder.icmp_signed('==', args[5], _int(0))
        with builder.if_else(last) as (then, otherwise):
            with then:
                s = _array(context, builder, kinds[9], args[9], args[10])
                for k, value in enumerate(values):
                    builder.store(value, _at(builder, s, lanes, k), align=1)
            with otherwise:
                with builder.if_else(args[8]) as (bits, levels):
                    with bits:
                        for k, truth in enumerate(reached(_int(0))):
                            word = builder.bitcast(truth, ir.IntType(lanes.count))
                            builder.store(word, _at(builder, y, word.type, k), align=1)
                    with levels:
                        counts = _registers(builder, lanes, len(values))
                        _clear(builder, counts)
                        with cgutils.for_range(builder, args[5]) as loop:
                            for register, truth in zip(counts, reached(loop.index)):
                                _update(builder, register, builder.add, builder.zext(truth, lanes))
                        for k, register in enumerate(counts):
                            level = builder.trunc(
                                builder.load(register), _vector(INT8, lanes.count)
                            )
                            builder.store(level, _at(builder, y, level.type, k), align=1)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(sums, i64, i64, T, i64, i64, Y, i64, types.boolean, S, i64), codegen


@intrinsic
def signs(typingctx, A, start):
    """The word whose bit i is set if A[start + i] >= 0."""

    def codegen(context, builder, signature, args):
        vector = _vector(context.get_data_type(signature.args[0].dtype), 64)
        data = _array(context, builder, signature.args[0], *args)
        numbers = _load(builder, _at(builder, data, vector))
        positive = builder.fcmp_ordered('>=', numbers, ir.Constant(vector, [0.0] * 64))
        return builder.bitcast(positive, INT64)

    return types.uint64(A, types.int64), codegen


def _prefetch(write):
    @intrinsic
    def prefetch(typingctx, array, index):
        def codegen(context, builder, signature, args):
            at = _array(context, builder, signature.args[0], args[0], args[1])
            at = builder.bitcast(at, ir.PointerType(INT8))
            kind = ir.FunctionType(ir.VoidType(), [at.type, INT32, INT32, INT32])
            function = builder.module.declare_intrinsic('llvm.prefetch', (at.type,), kind)
            nearest, data = ir.Constant(INT32, 3), ir.Constant(INT32, 1)
            builder.call(function, [at, ir.Constant(INT32, write), nearest, data])
            return context.get_dummy_value()

        return types.void(array, types.int64), codegen

    return prefetch


# They ask for the cache line of an element, which may lie beyond the end of the array.
prefetch_to_read = _prefetch(0)
prefetch_to_write = _prefetch(1)


def _transposed(builder, rows):
    """The transpose of eight vectors of eight numbers."""
    rows = list(rows)
    for size in 4, 2, 1:  # exchanges the quarters of this size that are off the diagonal
        upper = [j + 8 - size if j & size else j for j in range(8)]
        lower = [j + 8 if j & size else j + size for j in range(8)]
        for i in range(8):
            if not i & size:
                both = rows[i], rows[i + size]
                for k, lane in (i, upper), (i + size, lower):
                    order = ir.Constant(_vector(INT32, 8), lane)
                    rows[k] = builder.shuffle_vector(*both, order)
    return rows


# Products of floats with signs: four numbers of a row have 16 sums with signs, and the signs of a
# column at these inputs, four bits, are the index of its sum. A word has the signs of 32 inputs.

GROUP = 4  # inputs of a table
ROWS = 8  # of a product at a time
TABLE = 16 * ROWS  # sums of four inputs, for all rows


class _Permute:
    """VPERMPS of AVX-512: a register has the sums of a row, and 16 columns find theirs at once."""

    columns, lanes = 32, _vector(ir.FloatType(), 16)  # columns at a time
    words = [_vector(INT32, 16)] * 2
    shift = _constant(words[0], GROUP)

    def tables(self, builder, rows):
        """The vectors of a table: number j is added if bit j of the index is set."""
        for numbers in rows:
            terms = []
            for j, number in enumerate(numbers):
                signs = ir.Constant(self.lanes, [1.0 if i >> j & 1 else -1.0 for i in range(16)])
                terms.append(builder.fmul(_splat(builder, number, self.lanes), signs))
            yield builder.fadd(builder.fadd(*terms[:2]), builder.fadd(*terms[2:]))

    def load_words(self, builder, row, k):
        return _load(builder, _at(builder, row, self.words[0], k))

    def add(self, builder, totals, table, words):
        """Adds the sums of a table to the totals, a register for each row and vector of words."""
        totals = iter(totals)
        for r in range(ROWS):
            sums = _load(builder, _at(builder, table, self.lanes, r))
            for index in words:
                name = 'llvm.x86.avx512.permvar.sf.512'
                found = _call(builder, name, self.lanes, sums, index)
                _update(builder, next(totals), builder.fadd, found)

    def rows(self, builder, totals):
        return totals


class _LoadSums:
    """For any CPU: the sums of all rows are a vector in memory, and a column loads it."""

    columns, lanes = 8, _vector(ir.FloatType(), ROWS)
    words = [INT64] * 8
    shift = _int(GROUP)

    def tables(self, builder, rows):
        numbers = []
        for column in zip(*rows):
            vector = ir.Constant(self.lanes, ir.Undefined)
            for r, number in enumerate(column):
                vector = builder.insert_element(vector, number, ir.Constant(INT32, r))
            numbers.append((builder.fneg(vector), vector))
        first, last = (
            [builder.fadd(a[i & 1], b[i >> 1]) for i in range(4)]
            for a, b in (numbers[:2], numbers[2:])
        )
        for i in range(16):
            yield builder.fadd(first[i & 3], last[i >> 2])

    def load_words(self, builder, row, k):
        """The word of a column, such that the index is an offset in bytes."""
        word = builder.zext(_load(builder, builder.gep(row, [_int(k)])), INT64)
        return builder.mul(word, _int(4 * ROWS))

    def add(self, builder, totals, table, words):
        for total, word in zip(totals, words):
            offset = builder.and_(word, _int(15 * 4 * ROWS))
            found = builder.load(_at(builder, table, self.lanes, 0, offset), align=16)
            _update(builder, total, builder.fadd, found)

    def rows(self, builder, totals):
        return _transposed(builder, totals)


_look_up = {'avx512f': _Permute, 'plain': _LoadSums}[cpu.FLOATS]()


@intrinsic
def write_table(typingctx, T, t_start, A, a_start, stride, row_stride, rows, count):
    """Writes the table of ``count`` inputs, at most GROUP, and ``rows`` rows, at most ROWS.

    What is missing is filled with zeros and the last row.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        out = _array(context, builder, kinds[0], args[0], args[1])
        a = _array(context, builder, kinds[2], args[2], args[3])
        stride, row_stride, rows, count = args[4:]
        last = builder.sub(rows, _int(1))
        numbers = []
        for r in range(ROWS):
            there = builder.icmp_signed('<', _int(r), last)
            row = builder.gep(a, [builder.mul(row_stride, builder.select(there, _int(r), last))])
            numbers.append([])
            for j in range(GROUP):
                there = builder.icmp_signed('<', _int(j), count)
                at = builder.select(there, builder.mul(stride, _int(j)), _int(0))
                number = _load(builder, builder.gep(row, [at]))
                zero = ir.Constant(number.type, 0.0)
                numbers[r].append(builder.select(there, number, zero))
        for k, sums in enumerate(_look_up.tables(builder, numbers)):
            builder.store(sums, _at(builder, out, sums.type, k), align=16)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(T, i64, A, i64, i64, i64, i64, i64), codegen


@intrinsic
def add_sums(typingctx, T, groups, I, i_start, i_stride, carry, Y, y_start, y_stride, rows):
    """Y[r, u] = carry * Y[r, u] + the sums that the words I[:, u] find, for a block of columns.

    T has so many tables. Y is not read if carry is 0.
    """

    def codegen(context, builder, signature, args):
        kinds, way = signature.args, _look_up
        tables = _array(context, builder, kinds[0], args[0])
        signs = _array(context, builder, kinds[2], args[2], args[3])
        out = _array(context, builder, kinds[6], args[6], args[7])
        groups, i_stride, carry, y_stride, rows = args[1], args[4], args[5], args[8], args[9]
        carried = builder.fcmp_unordered('!=', carry, ir.Constant(carry.type, 0.0))
        totals = _registers(builder, way.lanes, ROWS * way.columns // way.lanes.count)
        words = [cgutils.alloca_once(builder, word) for word in way.words]
        a_word = _int(32 // GROUP)
        with cgutils.for_range_slice(builder, _int(0), _int(UNITS), _int(way.columns)) as (u, _):
            for total in totals:
                builder.store(_constant(way.lanes, 0.0), total)
            with cgutils.for_range_slice(builder, _int(0), groups, a_word) as (start, _):
                row = builder.mul(builder.udiv(start, a_word), i_stride)
                row = builder.gep(signs, [builder.add(row, u)])
                for k, word in enumerate(words):
                    builder.store(way.load_words(builder, row, k), word)
                stop = builder.add(start, a_word)
                stop = builder.select(builder.icmp_signed('<', stop, groups), stop, groups)
                with cgutils.for_range_slice(builder, start, stop, _int(1)) as (g, _):
                    table = builder.gep(tables, [builder.mul(g, _int(TABLE))])
                    way.add(builder, totals, table, [builder.load(word) for word in words])
                    for word in words:
                        _update(builder, word, builder.lshr, way.shift)
            vectors = iter(way.rows(builder, [builder.load(total) for total in totals]))
            for r in range(ROWS):
                of_row = [next(vectors) for _ in range(way.columns // way.lanes.count)]
                with builder.if_then(builder.icmp_signed('<', _int(r), rows)):
                    row = builder.gep(out, [builder.add(builder.mul(y_stride, _int(r)), u)])
                    pointers = [_at(builder, row, way.lanes, k) for k in range(len(of_row))]
                    with builder.if_else(carried) as (then, otherwise):
                        with then:
                            factor = _splat(builder, carry, way.lanes)
                            for vector, pointer in zip(of_row, pointers):
                                before = builder.fmul(factor, _load(builder, pointer))
                                builder.store(builder.fadd(before, vector), pointer, align=1)
                        with otherwise:
                            for vector, pointer in zip(of_row, pointers):
                                builder.store(vector, pointer, align=1)
        return context.get_dummy_value()

    i64, f32 = types.int64, types.float32
    return types.void(T, i64, I, i64, i64, f32, Y, i64, i64, i64), codegen


# Sparse sums, and what they need.


@intrinsic
def sum_rows(typingctx, sums, s_start, rows, places, factors, start, count):
    """sums[u] = sum of factors[i] * rows[places[i], u] over the given number of i, of float32."""

    def codegen(context, builder, signature, args):
        kinds, lanes = signature.args, _vector(ir.FloatType(), 16)
        out = _array(context, builder, kinds[0], args[0], args[1])
        rows = _array(context, builder, kinds[2], args[2])
        places = _array(context, builder, kinds[3], args[3], args[5])
        factors = _array(context, builder, kinds[4], args[4], args[5])
        registers = _registers(builder, lanes, UNITS // lanes.count)
        for register in registers:
            builder.store(_constant(lanes, 0.0), register)
        with cgutils.for_range(builder, args[6]) as loop:
            place = builder.zext(_load(builder, builder.gep(places, [loop.index])), INT64)
            factor = _splat(builder, _load(builder, builder.gep(factors, [loop.index])), lanes)
            offset = builder.mul(place, _int(4 * UNITS))
            for k, register in enumerate(registers):
                row = _load(builder, _at(builder, rows, lanes, k, offset))
                total = builder.load(register)
                total = _call(builder, 'llvm.fmuladd.v16f32', lanes, factor, row, total)
                builder.store(total, register)
        for k, register in enumerate(registers):
            builder.store(builder.load(register), _at(builder, out, lanes, k), align=1)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(sums, i64, rows, places, factors, i64, i64), codegen


@intrinsic
def transpose(typingctx, A, a_start, a_stride, B, b_start, b_stride):
    """Transposes 8 x 8 numbers of float32; the strides are those of the rows."""

    def codegen(context, builder, signature, args):
        kinds, lanes = signature.args, _vector(ir.FloatType(), 8)

        def pointers(kind, array, start, stride):
            data = _array(context, builder, kind, array, start)
            for i in range(8):
                row = builder.gep(data, [builder.mul(stride, _int(i))])
                yield builder.bitcast(row, ir.PointerType(lanes))

        rows = [_load(builder, row) for row in pointers(kinds[0], *args[:3])]
        rows = _transposed(builder, rows)
        for row, pointer in zip(rows, pointers(kinds[3], *args[3:])):
            builder.store(row, pointer, align=1)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(A, i64, i64, B, i64, i64), codegen


@numba.njit
def aligned(n_bytes):
    """An array of bytes that starts at a cache line: a vector that straddles two takes longer."""
    memory = numpy.empty(n_bytes + 64, numpy.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n_bytes]
