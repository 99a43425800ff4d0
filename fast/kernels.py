"""The inner loops of products, sums and levels, written for vector registers.

Most of them compute a block of 64 units. Units are consecutive in the weights, so that one vector
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
"""

from llvmlite import ir
from numba import types
import numpy

from fast import cpu
from fast.cache import compiled
from fast.llvm import FLOAT, INT8, INT16, INT32, INT64, constant, kernel, vector

UNITS = 64  # units of a block
LOOKUP = cpu.BITS in ('avx2', 'neon')  # how bits are multiplied
UNSIGNED = cpu.BYTES == 'dotprod'  # whether the weights of products of bytes are


# What an instruction set makes of the weights of some units and an input: how to read the input,
# add to the sums, and make 32-bit sums of them.


class _Way:
    """The vectors of sums and weights, and how many elements of its type an input has."""

    size = 1
    small = False  # whether the sums must be added up in 32 bits before they overflow
    in_order = False  # whether the order of the additions matters

    def read_input(self, b, pointer):
        return b.splat(b.read(pointer), self.weights)

    def result(self, b, sums):
        return sums


class _Vnni(_Way):
    """VPDPBUSD. LLVM does not find it by itself, and its intrinsic differs between versions."""

    def __init__(self, bits, assembly):
        self.sums = self.weights = vector(INT32, bits // 32)
        function = ir.FunctionType(self.sums, [self.sums] * 3)
        self.assembly = ir.InlineAsm(function, assembly, '=v,v,v,0')

    def step(self, b, sums, weights, value):
        return b.call(self.assembly, [value, weights, sums])


class _Maddubs(_Way):
    """VPMADDUBSW and additions of 16 bits."""

    sums, weights, small = vector(INT16, 16), vector(INT32, 8), True

    def step(self, b, sums, weights, value):
        operands = (b.bitcast(a, vector(INT8, 32)) for a in (value, weights))
        return b.add(sums, b.named('llvm.x86.avx2.pmadd.ub.sw', self.sums, *operands))

    def result(self, b, sums):
        ones = constant(self.sums, 1)
        return b.named('llvm.x86.avx2.pmadd.wd', self.weights, sums, ones)


class _Udot(_Way):
    """UDOT, whose weights are also unsigned."""

    sums = weights = vector(INT32, 4)

    def step(self, b, sums, weights, value):
        operands = (b.bitcast(a, vector(INT8, 16)) for a in (value, weights))
        return b.named('llvm.aarch64.neon.udot.v4i32.v16i8', self.sums, sums, *operands)


class _PlainBytes(_Way):
    """Vectors of 32 bits, for any CPU."""

    sums = weights = vector(INT32, 16)

    def step(self, b, sums, weights, value):
        for byte in range(4):
            up, down, mask = (constant(self.sums, a) for a in (24 - 8 * byte, 24, 255))
            weight = b.ashr(b.shl(weights, up), down)
            number = b.and_(b.lshr(value, b.sub(down, up)), mask)
            sums = b.add(sums, b.mul(weight, number))
        return sums


class _Popcount(_Way):
    """Minus the bits in which words differ."""

    sums = weights = vector(INT64, 8)

    def step(self, b, sums, weights, value):
        return b.sub(sums, b.named('llvm.ctpop.v8i64', self.sums, b.xor(weights, value)))

    def result(self, b, sums):
        return b.trunc(sums, vector(INT32, 8))


class _Counts(_Way):
    """Minus the bits in which bytes differ; an input is two tables, for the halves of a byte."""

    sums = weights = vector(INT8, 32 if cpu.BITS == 'avx2' else 16)
    name = 'llvm.x86.avx2.pshuf.b' if cpu.BITS == 'avx2' else 'llvm.aarch64.neon.tbl1.v16i8'
    size, small = 32, True

    def read_input(self, b, pointer):
        table = vector(INT8, 16)
        repeat = [i % 16 for i in range(self.sums.count)]
        repeat = ir.Constant(vector(INT32, self.sums.count), repeat)
        return [
            b.shuffle_vector(
                b.read(pointer, half, table), ir.Constant(table, ir.Undefined), repeat
            )
            for half in (0, 1)
        ]

    def step(self, b, sums, weights, value):
        low = b.and_(weights, constant(weights.type, 15))
        high = b.lshr(weights, constant(weights.type, 4))
        for table, index in zip(value, (low, high)):
            sums = b.add(sums, b.named(self.name, self.sums, table, index))
        return sums

    def result(self, b, sums):
        return b.neg(b.zext(sums, vector(INT32, sums.type.count)))


class _Floats(_Way):
    """Numbers times rows of floats."""

    sums = weights = vector(FLOAT, 16 if cpu.FLOATS == 'avx512f' else 8)

    in_order = True

    def __init__(self, size=1):
        self.size = size

    def step(self, b, sums, weights, value):
        name = f'llvm.fmuladd.v{self.sums.count}f32'
        return b.named(name, self.sums, value, weights, sums)


def _product(way, images=1, sparse=False):
    """Makes a kernel that multiplies a block by one image or more.

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
    unroll = 1 if way.in_order else max(1, 8 // (images * registers))

    def multiply(
        b, sums, s_start, weights, w_start, places, inputs, x_start, stride, count, every
    ):
        out, block, rows = (
            b.at(sums, s_start),
            b.at(weights, w_start, element),
            b.at(places, x_start),
        )
        x = [b.at(inputs, x_start, element)]
        for _ in range(images - 1):
            x.append(b.at(x[-1], stride))
        sets = [[b.registers(*[way.sums] * registers) for _ in x] for _ in range(unroll)]

        def add_input(i, part, accumulators):
            row = b.zext(b.read(rows, i), INT64) if sparse else i
            row = b.at(block, b.times(row, UNITS))
            values = [way.read_input(b, b.at(image, b.times(i, way.size))) for image in x]
            for k in range(registers):
                loaded = b.read(row, part * registers + k, way.weights)
                for value, of_image in zip(values, accumulators):
                    b.store(way.step(b, b.load(of_image[k]), loaded, value), of_image[k])

        def add_inputs(first, stop, part):
            for accumulators in sets:
                for of_image in accumulators:
                    b.clear(of_image)
            with b.steps(first, stop, unroll) as (i, _):
                for k, accumulators in enumerate(sets):
                    add_input(b.add(i, constant(INT64, k)), part, accumulators)
            for image in range(images):
                for k in range(registers):
                    total = b.load(sets[0][image][k])
                    for other in sets[1:]:
                        total = b.add(total, b.load(other[image][k]))
                    total = way.result(b, total)
                    index = (image * parts + part) * registers + k
                    if way.small:
                        total = b.add(b.read(out, index, total.type), total)
                    b.write(total, out, index)

        for k in range(images * UNITS // 16 if way.small else 0):
            b.write(constant(vector(INT32, 16), 0), out, k)
        for part in range(parts):
            if not way.small:
                add_inputs(0, count, part)
                continue
            with b.steps(0, count, every) as (first, _):
                add_inputs(first, b.least(b.add(first, every), count), part)

    return kernel(multiply)


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

count_one, count_four, count_words = (
    _product(_Counts()),
    _product(_Counts(), 4),
    _product(_Popcount()),
)

# The numbers of four images, or of four units, whose images lie 64 numbers apart.
sum_rows = _product(_Floats(), sparse=True)
multiply_images = _product(_Floats(), 4)
multiply_units = _product(_Floats(UNITS), 4)


@kernel
def finish(b, sums, start, offset, T, t_start, thresholds, Y, y_start, as_bits, S, s_start):
    """Writes the levels of a block, or its sums 2 sums[u] + offset if there are no thresholds.

    The level of unit u is the number of thresholds that its sum reaches. It is written as a byte,
    or as a bit if there is one threshold and the next layer multiplies bits.
    """
    lanes = vector(INT32, 16)
    parts, rows = range(UNITS // lanes.count), b.at(T, t_start)
    sums, offset = b.at(sums, start), b.splat(b.trunc(offset, INT32), lanes)
    values = [b.add(b.shl(b.read(sums, k, lanes), constant(lanes, 1)), offset) for k in parts]

    def reached(t):
        """Which units reach threshold t, as vectors of truth values."""
        row = b.at(rows, b.times(t, UNITS))
        return [b.icmp_signed('>=', values[k], b.read(row, k, lanes)) for k in parts]

    with b.if_else(b.icmp_signed('==', thresholds, constant(INT64, 0))) as (none, some):
        with none:
            for k in parts:
                b.write(values[k], b.at(S, s_start), k)
        with some, b.if_else(as_bits) as (bits, levels):
            with bits:
                for k, truth in enumerate(reached(constant(INT64, 0))):
                    b.write(b.bitcast(truth, ir.IntType(lanes.count)), b.at(Y, y_start), k)
            with levels:
                counts = b.registers(*[lanes] * len(parts))
                b.clear(counts)
                with b.steps(0, thresholds, 1) as (t, _):
                    for count, truth in zip(counts, reached(t)):
                        b.update(count, b.add, b.zext(truth, lanes))
                for k in parts:
                    level = b.trunc(b.load(counts[k]), vector(INT8, lanes.count))
                    b.write(level, b.at(Y, y_start), k)


def _signs(b, A, start):
    numbers = b.read(b.at(A, start), 0, vector(FLOAT, 64))
    return b.bitcast(b.fcmp_ordered('>=', numbers, constant(numbers.type, 0)), INT64)


signs = kernel(_signs, types.uint64)  # the word whose bit i is set if A[start + i] >= 0


@kernel
def prefetch(b, A, index):
    """Asks for the cache line of an element, which may lie beyond the end of the array."""
    at = b.bitcast(b.at(A, index), ir.PointerType(INT8))
    kind = ir.FunctionType(ir.VoidType(), [at.type, INT32, INT32, INT32])
    function = b.module.declare_intrinsic('llvm.prefetch', (at.type,), kind)
    to_write, nearest, data = (constant(INT32, value) for value in (1, 3, 1))
    b.call(function, [at, to_write, nearest, data])


def transposed(b, rows):
    """The transpose of eight vectors of eight numbers."""
    rows = list(rows)
    for size in 4, 2, 1:  # exchanges the quarters of this size that are off the diagonal
        upper = [j + 8 - size if j & size else j for j in range(8)]
        lower = [j + 8 if j & size else j + size for j in range(8)]
        for i in range(8):
            if not i & size:
                both = rows[i], rows[i + size]
                for k, lanes in (i, upper), (i + size, lower):
                    order = ir.Constant(vector(INT32, 8), lanes)
                    rows[k] = b.shuffle_vector(*both, order)
    return rows


@kernel
def transpose(b, A, a_start, a_stride, B, b_start, b_stride):
    """Transposes 8 x 8 elements of four bytes; a stride is the distance of two rows."""
    A, B, row = b.at(A, a_start, INT32), b.at(B, b_start, INT32), vector(INT32, 8)
    rows = [b.read(b.at(A, b.times(a_stride, k)), 0, row) for k in range(8)]
    for k, column in enumerate(transposed(b, rows)):
        b.write(column, b.at(B, b.times(b_stride, k)))


@compiled
def aligned(size, dtype):
    """An array that starts at a cache line: loading a vector that straddles two takes longer."""
    memory = numpy.empty(size + 64, dtype)
    start = -memory.ctypes.data % 64 // memory.itemsize
    return memory[start : start + size]
