"""The inner loops of products and sums, as LLVM code for vector registers.

All of them compute a block of 64 units. Units are consecutive in the weights, so that one vector
holds the same inputs of several units. :func:`_product` is the loop that all products share: for
each input, it loads the weights of all units and adds what an instruction set makes of them.

- Products of bits, with AVX-512 VPOPCNTDQ or plain vectors: XOR and a population count of 64-bit
  words, which LLVM translates to the best the CPU has.
- Products of bits, with AVX2 or NEON: the bits that a unit's weights have for four inputs are
  looked up in a table of 16 counts. The table depends on the four inputs. One shuffle instruction
  looks up 32 (or 16) units, and four images share each load of the weights. The counts are added
  as bytes, and widened before they can overflow.
- Products of bytes: VPDPBUSD multiplies four unsigned bytes by four signed ones per 32-bit sum and
  adds them; UDOT does so for unsigned weights. AVX2 has VPMADDUBSW, which adds pairs to 16 bits;
  these are widened before they can overflow.
- Sums of rows of floats, times one number for each row.
- Products of floats with +1 and -1: a table has the sums of four numbers with all signs, and a
  column finds its own. With AVX-512, a permutation does so for 16 columns of a row; any other CPU
  loads the sums of eight rows for a column.

Numba caches compiled functions by the file that defines them: after a change here, delete
``fast/__pycache__``.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
import numpy

from fast import cpu
from fast.cache import compiled

UNITS = 64  # units of a block
LOOKUP = cpu.BITS in ('avx2', 'neon')  # how bits are multiplied
UNSIGNED = cpu.BYTES == 'dotprod'  # whether the weights of products of bytes are

binding.initialize_native_asmparser()

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()


def _int(value):
    return ir.Constant(INT64, value)


def _vector(element, count):
    return ir.VectorType(element, count)


def _constant(vector, value):
    return ir.Constant(vector, [value] * vector.count)


def _splat(builder, value, vector):
    """The value in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, undefined, _constant(_vector(INT32, vector.count), 0))


def _call(builder, name, result, *values):
    function = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), values)


def _pointer(context, builder, array_type, array, offset=None, element=None):
    """Pointer to an element of an array; counted in elements of another type, if one is given."""
    data = context.make_array(array_type)(context, builder, array).data
    data = builder.bitcast(data, ir.PointerType(element)) if element else data
    return data if offset is None else builder.gep(data, [offset])


def _at(builder, data, vector, index=0):
    """Pointer to the vector of that index, counted from an address."""
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


# What an instruction set makes of the weights of some units and an input: how to load the input,
# add to the sums, and make 32-bit sums of them.


class _Way:
    """The vectors of sums and weights, and how many elements of its type an input has."""

    size = 1
    small = False  # whether the sums must be added up in 32 bits before they overflow

    def load_input(self, builder, pointer):
        return _splat(builder, _load(builder, pointer), self.weights)

    def result(self, builder, sums):
        return sums


class _Vnni(_Way):
    """VPDPBUSD. LLVM does not find it by itself, and its intrinsic differs between versions."""

    def __init__(self, bits, assembly):
        self.sums = self.weights = _vector(INT32, bits // 32)
        function = ir.FunctionType(self.sums, [self.sums] * 3)
        self.assembly = ir.InlineAsm(function, assembly, '=v,v,v,0')

    def step(self, builder, sums, weights, value):
        return builder.call(self.assembly, [value, weights, sums])


class _Maddubs(_Way):
    """VPMADDUBSW and additions of 16 bits."""

    sums, weights, small = _vector(INT16, 16), _vector(INT32, 8), True

    def step(self, builder, sums, weights, value):
        operands = (builder.bitcast(a, _vector(INT8, 32)) for a in (value, weights))
        pairs = _call(builder, 'llvm.x86.avx2.pmadd.ub.sw', self.sums, *operands)
        return builder.add(sums, pairs)

    def result(self, builder, sums):
        ones = _constant(self.sums, 1)
        return _call(builder, 'llvm.x86.avx2.pmadd.wd', self.weights, sums, ones)


class _Udot(_Way):
    """UDOT, whose weights are also unsigned."""

    sums = weights = _vector(INT32, 4)

    def step(self, builder, sums, weights, value):
        operands = (builder.bitcast(a, _vector(INT8, 16)) for a in (value, weights))
        return _call(builder, 'llvm.aarch64.neon.udot.v4i32.v16i8', self.sums, sums, *operands)


class _PlainBytes(_Way):
    """Vectors of 32 bits, for any CPU."""

    sums = weights = _vector(INT32, 16)

    def step(self, builder, sums, weights, value):
        for byte in range(4):
            up, down, mask = (_constant(self.sums, a) for a in (24 - 8 * byte, 24, 255))
            weight = builder.ashr(builder.shl(weights, up), down)
            number = builder.and_(builder.lshr(value, builder.sub(down, up)), mask)
            sums = builder.add(sums, builder.mul(weight, number))
        return sums


class _Popcount(_Way):
    """Minus the bits in which words differ."""

    sums = weights = _vector(INT64, 8)

    def step(self, builder, sums, weights, value):
        count = _call(builder, 'llvm.ctpop.v8i64', self.sums, builder.xor(weights, value))
        return builder.sub(sums, count)

    def result(self, builder, sums):
        return builder.trunc(sums, _vector(INT32, 8))


class _Counts(_Way):
    """Minus the bits in which bytes differ; an input is two tables, for the halves of a byte."""

    sums = weights = _vector(INT8, 32 if cpu.BITS == 'avx2' else 16)
    size, small = 32, True

    def load_input(self, builder, pointer):
        small = _vector(INT8, 16)
        repeat = [i % 16 for i in range(self.sums.count)]
        repeat = ir.Constant(_vector(INT32, self.sums.count), repeat)
        tables = (_load(builder, _at(builder, pointer, small, half)) for half in (0, 1))
        return [
            builder.shuffle_vector(a, ir.Constant(small, ir.Undefined), repeat) for a in tables
        ]

    def step(self, builder, sums, weights, value):
        halves = (
            builder.and_(weights, _constant(weights.type, 15)),
            builder.lshr(weights, _constant(weights.type, 4)),
        )
        for table, index in zip(value, halves):
            if self.sums.count == 32:
                count = _call(builder, 'llvm.x86.avx2.pshuf.b', self.sums, table, index)
            else:
                count = _call(builder, 'llvm.aarch64.neon.tbl1.v16i8', self.sums, table, index)
            sums = builder.add(sums, count)
        return sums

    def result(self, builder, sums):
        return builder.neg(builder.zext(sums, _vector(INT32, sums.type.count)))


class _Floats(_Way):
    """Numbers times rows of floats."""

    sums = weights = _vector(FLOAT, 16)

    def step(self, builder, sums, weights, value):
        return _call(builder, 'llvm.fmuladd.v16f32', self.sums, value, weights, sums)


def _product(way, images=1, sparse=False, in_order=False):
    """Makes an intrinsic that multiplies a block by one image or more.

    sums[n, u] is the sum of what ``way`` makes of weights[i, u] and inputs[n, i], over ``count``
    inputs i; of weights[places[i], u] if it is sparse. Starts and strides count elements of the
    way's type; places and inputs have the same start. Small sums are widened after ``every``
    inputs.
    """
    element = way.weights.element
    registers = UNITS // way.weights.count
    parts = max(1, images * registers // 8)  # of a block, so that all its sums fit into registers
    registers //= parts
    # An addition waits for the one before it in the same register, so it takes eight registers to
    # keep the CPU busy: if necessary, of several inputs at a time.
    unroll = 1 if in_order else max(1, 8 // (images * registers))

    @intrinsic
    def multiply(
        typingctx, sums, s_start, weights, w_start, places, inputs, x_start, stride, count, every
    ):
        def codegen(context, builder, signature, args):
            def pointer(i, *offset):
                return _pointer(context, builder, signature.args[i], args[i], *offset)

            x_start, stride, count, every = args[6:]
            out, block = pointer(0, args[1]), pointer(2, args[3], element)
            rows, x = pointer(4, x_start) if sparse else None, [pointer(5, x_start, element)]
            for _ in range(images - 1):
                x.append(builder.gep(x[-1], [stride]))
            sets = [[_registers(builder, way.sums, registers) for _ in x] for _ in range(unroll)]

            def add_input(i, part, accumulators):
                row = builder.zext(_load(builder, builder.gep(rows, [i])), INT64) if sparse else i
                row = builder.gep(block, [builder.mul(row, _int(UNITS))])
                at = builder.mul(i, _int(way.size))
                values = [way.load_input(builder, builder.gep(image, [at])) for image in x]
                for k in range(registers):
                    loaded = _load(builder, _at(builder, row, way.weights, part * registers + k))
                    for value, of_image in zip(values, accumulators):
                        total = builder.load(of_image[k])
                        builder.store(way.step(builder, total, loaded, value), of_image[k])

            def add_inputs(first, stop, part):
                for accumulators in sets:
                    for of_image in accumulators:
                        _clear(builder, of_image)
                with cgutils.for_range_slice(builder, first, stop, _int(unroll)) as (i, _):
                    for k, accumulators in enumerate(sets):
                        add_input(builder.add(i, _int(k)), part, accumulators)
                for image in range(images):
                    for k in range(registers):
                        total = builder.load(sets[0][image][k])
                        for other in sets[1:]:
                            total = builder.add(total, builder.load(other[image][k]))
                        total = way.result(builder, total)
                        index = (image * parts + part) * registers + k
                        at = _at(builder, out, total.type, index)
                        if way.small:
                            total = builder.add(_load(builder, at), total)
                        builder.store(total, at, align=1)

            for k in range(images * UNITS // 16 if way.small else 0):
                at = _at(builder, out, _vector(INT32, 16), k)
                builder.store(_constant(_vector(INT32, 16), 0), at, align=1)
            for part in range(parts):
                if not way.small:
                    add_inputs(_int(0), count, part)
                    continue
                with cgutils.for_range_slice(builder, _int(0), count, every) as (first, _):
                    stop = builder.add(first, every)
                    stop = builder.select(builder.icmp_signed('<', stop, count), stop, count)
                    add_inputs(first, stop, part)
            return context.get_dummy_value()

        i64 = types.int64
        starts = i64, weights, i64, places, inputs, i64
        return types.void(sums, *starts, i64, i64, i64), codegen

    return multiply


_BYTES = {
    'avx512vnni': lambda: _Vnni(512, 'vpdpbusd $2, $1, $0'),
    'avxvnni': lambda: _Vnni(256, '{vex} vpdpbusd $2, $1, $0'),
    'avx2': _Maddubs,
    'dotprod': _Udot,
    'plain': _PlainBytes,
}
_bytes = _BYTES[cpu.BYTES]()

# Of groups of four bytes, which are the elements. The plain ones are for weights and inputs so
# large that not even one group fits into the sums of AVX2.
multiply_one = _product(_bytes, sparse=True)
multiply_two = _product(_bytes, 2)
plain_multiply_one = _product(_PlainBytes(), sparse=True)
plain_multiply_two = _product(_PlainBytes(), 2)


def groups_between_widenings(greatest_input, greatest_weight):
    """How many groups of 4 products a sum can take, or 0 if not even one."""
    if cpu.BYTES != 'avx2':
        return 2**30
    return (2**15 - 1) // (2 * greatest_input * greatest_weight)


SEGMENT = 28  # bytes of inputs whose counts fit into a byte, a multiple of four

if LOOKUP:
    count_one, count_four = _product(_Counts()), _product(_Counts(), 4)
else:
    count_words = _product(_Popcount())

sum_rows = _product(_Floats(), sparse=True, in_order=True)


@intrinsic
def finish(
    typingctx, sums, start, offset, T, t_start, thresholds, Y, y_start, as_bits, S, s_start
):
    """Writes the levels of a block, or its sums 2 sums[u] + offset if there are no thresholds.

    The level of unit u is the number of thresholds that its sum reaches. It is written as a byte,
    or as a bit if there is one threshold and the next layer multiplies bits.
    """

    def codegen(context, builder, signature, args):
        lanes, (thresholds, as_bits) = _vector(INT32, 16), (args[5], args[8])

        def pointer(i):
            return _pointer(context, builder, signature.args[i], args[i], args[i + 1])

        def write(i, vectors):
            for k, vector in enumerate(vectors):
                builder.store(vector, _at(builder, pointer(i), vector.type, k), align=1)

        offset = _splat(builder, builder.trunc(args[2], INT32), lanes)
        values = []
        for k in range(UNITS // lanes.count):
            value = _load(builder, _at(builder, pointer(0), lanes, k))
            values.append(builder.add(builder.add(value, value), offset))

        def reached(t):
            """Which units reach threshold t, as vectors of truth values."""
            row = builder.gep(pointer(3), [builder.mul(t, _int(UNITS))])
            for k, value in enumerate(values):
                threshold = _load(builder, _at(builder, row, lanes, k))
                yield builder.icmp_signed('>=', value, threshold)

        none = builder.icmp_signed('==', thresholds, _int(0))
        with builder.if_else(none) as (sums_alone, otherwise):
            with sums_alone:
                write(9, values)
            with otherwise, builder.if_else(as_bits) as (bits, levels):
                with bits:
                    word = ir.IntType(lanes.count)
                    write(6, [builder.bitcast(truth, word) for truth in reached(_int(0))])
                with levels:
                    counts = _registers(builder, lanes, len(values))
                    _clear(builder, counts)
                    with cgutils.for_range(builder, thresholds) as loop:
                        for register, truth in zip(counts, reached(loop.index)):
                            _update(builder, register, builder.add, builder.zext(truth, lanes))
                    small = _vector(INT8, lanes.count)
                    write(6, [builder.trunc(builder.load(count), small) for count in counts])
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(sums, i64, i64, T, i64, i64, Y, i64, types.boolean, S, i64), codegen


@intrinsic
def signs(typingctx, A, start):
    """The word whose bit i is set if A[start + i] >= 0."""

    def codegen(context, builder, signature, args):
        vector = _vector(context.get_data_type(signature.args[0].dtype), 64)
        data = _pointer(context, builder, signature.args[0], *args)
        numbers, zeros = _load(builder, _at(builder, data, vector)), ir.Constant(vector, None)
        compare = builder.icmp_signed
        if isinstance(signature.args[0].dtype, types.Float):
            compare = builder.fcmp_ordered
        return builder.bitcast(compare('>=', numbers, zeros), INT64)

    return types.uint64(A, types.int64), codegen


@intrinsic
def prefetch(typingctx, array, index):
    """Asks for the cache line of an element, which may lie beyond the end of the array."""

    def codegen(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], *args)
        at = builder.bitcast(at, ir.PointerType(INT8))
        kind = ir.FunctionType(ir.VoidType(), [at.type, INT32, INT32, INT32])
        function = builder.module.declare_intrinsic('llvm.prefetch', (at.type,), kind)
        write, nearest, data = (ir.Constant(INT32, value) for value in (1, 3, 1))
        builder.call(function, [at, write, nearest, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


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


@intrinsic
def transpose(typingctx, A, a_start, a_stride, B, b_start, b_stride):
    """Transposes 8 x 8 elements of four bytes; a stride is the distance of two rows."""

    def codegen(context, builder, signature, args):
        def rows(i):
            start, stride = args[i + 1 : i + 3]
            data = _pointer(context, builder, signature.args[i], args[i], start, INT32)
            for k in range(8):
                row = builder.gep(data, [builder.mul(stride, _int(k))])
                yield _at(builder, row, _vector(INT32, 8))

        loaded = _transposed(builder, [_load(builder, row) for row in rows(0)])
        for vector, row in zip(loaded, rows(3)):
            builder.store(vector, row, align=1)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(A, i64, i64, B, i64, i64), codegen


# Products of floats with signs: four numbers of a row have 16 sums with signs, and the signs of a
# column at these inputs, four bits, are the index of its sum. A word has the signs of 32 inputs.

GROUP = 4  # inputs of a table
ROWS = 8  # of a product at a time
TABLE = 16 * ROWS  # sums of four inputs, for all rows


class _Permute:
    """VPERMPS of AVX-512: a register has the sums of a row, and 16 columns find theirs at once."""

    columns, lanes = 32, _vector(FLOAT, 16)  # columns at a time
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

    columns, lanes = 8, _vector(FLOAT, ROWS)
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
        table = builder.bitcast(table, ir.PointerType(INT8))
        for total, word in zip(totals, words):
            at = builder.gep(table, [builder.and_(word, _int(15 * 4 * ROWS))])
            found = builder.load(_at(builder, at, self.lanes), align=16)
            _update(builder, total, builder.fadd, found)

    def rows(self, builder, totals):
        return _transposed(builder, totals)


_look_up = {'avx512f': _Permute, 'plain': _LoadSums}[cpu.FLOATS]()


@intrinsic
def write_table(typingctx, T, t_start, A, a_start, stride, row_stride):
    """Writes a table; input j of row r is A[a_start + j stride + r row_stride]."""

    def codegen(context, builder, signature, args):
        out = _pointer(context, builder, signature.args[0], *args[:2])
        numbers = _pointer(context, builder, signature.args[2], *args[2:4])
        rows = []
        for r in range(ROWS):
            row = builder.gep(numbers, [builder.mul(args[5], _int(r))])
            offsets = [builder.mul(args[4], _int(j)) for j in range(GROUP)]
            rows.append([_load(builder, builder.gep(row, [offset])) for offset in offsets])
        for k, sums in enumerate(_look_up.tables(builder, rows)):
            builder.store(sums, _at(builder, out, sums.type, k), align=16)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(T, i64, A, i64, i64, i64), codegen


@intrinsic
def add_sums(typingctx, T, groups, I, i_start, i_stride, carry, Y, y_start, y_stride):
    """Y[r, u] = carry Y[r, u] + the sums that the words I[:, u] find, for a block of columns.

    T has so many tables. If carry is 0, what is in Y does not matter.
    """

    def codegen(context, builder, signature, args):
        kinds, way = signature.args, _look_up
        tables = _pointer(context, builder, kinds[0], args[0])
        signs = _pointer(context, builder, kinds[2], *args[2:4])
        out = _pointer(context, builder, kinds[6], *args[6:8])
        groups, i_stride, carry, y_stride = args[1], args[4], args[5], args[8]
        carried = builder.fcmp_unordered('!=', carry, ir.Constant(carry.type, 0.0))
        totals = _registers(builder, way.lanes, ROWS * way.columns // way.lanes.count)
        words = [cgutils.alloca_once(builder, word) for word in way.words]
        a_word = _int(32 // GROUP)
        with cgutils.for_range_slice(builder, _int(0), _int(UNITS), _int(way.columns)) as (u, _):
            _clear(builder, totals)
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
            factor = _splat(builder, carry, way.lanes)
            pointers = []
            for r in range(ROWS):
                row = builder.gep(out, [builder.add(builder.mul(y_stride, _int(r)), u)])
                for k in range(way.columns // way.lanes.count):
                    pointers.append(_at(builder, row, way.lanes, k))
            vectors = way.rows(builder, [builder.load(total) for total in totals])
            with builder.if_else(carried) as (add, write):
                with add:
                    for vector, at in zip(vectors, pointers):
                        before = builder.fmul(factor, _load(builder, at))
                        builder.store(builder.fadd(before, vector), at, align=1)
                with write:
                    for vector, at in zip(vectors, pointers):
                        builder.store(vector, at, align=1)
        return context.get_dummy_value()

    i64, f32 = types.int64, types.float32
    return types.void(T, i64, I, i64, i64, f32, Y, i64, i64), codegen


@compiled
def aligned(size, dtype):
    """An array that starts at a cache line: loading a vector that straddles two takes longer."""
    memory = numpy.empty(size + 64, dtype)
    start = -memory.ctypes.data % 64 // memory.itemsize
    return memory[start : start + size]
