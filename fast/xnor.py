"""Kernels for XNOR and popcount, compiled by Numba: for packed nets and for fused layers.

The product of weights and activations of ±1 counts the places where their bits disagree,

.. math:: \\sum_k w_k x_k = K - 2\\, popcount(w \\oplus x),

and with more bits it is a sum of such products of bit planes, each times its power of two. The
kernel of the first layer multiplies 8-bit pixels by weights of at most one byte, and skips black
pixels. Both kernels compute blocks of 64 units, which are the 64 bits of one output word, in
vector registers. LLVM translates them to the instructions of the CPU: with AVX-512 VPOPCNTDQ, to
those for 8 words at a time.
"""

import llvmlite.binding
from llvmlite import ir
import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
import numpy

UNITS = 64  # units of a block: the bits of one input word of the next layer

# With AVX-512 VNNI, one instruction multiplies and adds 64 bytes. LLVM does not find it by itself.
# The intrinsic's signature differs between versions of LLVM, the assembler's mnemonic does not.
VNNI = not numba.config.CPU_NAME and llvmlite.binding.get_host_cpu_features().get(
    'avx512vnni', False
)
llvmlite.binding.initialize_native_asmparser()

INT64 = ir.IntType(64)
LANES32 = ir.VectorType(ir.IntType(32), 16)
LANES64 = ir.VectorType(INT64, 8)


def _splat(builder, value, vector):
    """The value in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, zeros)


class _Block:
    """A number for each unit of a block, in vector registers."""

    def __init__(self, builder, vector):
        self.builder, self.vector = builder, vector
        zero = ir.Constant(vector, [0] * vector.count)
        self.registers = [
            cgutils.alloca_once_value(builder, zero) for _ in range(UNITS // vector.count)
        ]

    def pointers(self, data):
        data = self.builder.bitcast(data, ir.PointerType(self.vector))
        return [
            self.builder.gep(data, [ir.Constant(INT64, i)]) for i in range(len(self.registers))
        ]

    def load(self, data):
        for pointer, register in zip(self.pointers(data), self.registers):
            self.builder.store(self.read(pointer), register)
        return self

    def read(self, pointer):
        return self.builder.load(pointer, align=self.vector.element.width // 8)

    def combine(self, data, function):
        """Replaces each number by function(number, datum), with the data at an address."""
        for pointer, register in zip(self.pointers(data), self.registers):
            self.builder.store(function(self.builder.load(register), self.read(pointer)), register)

    def store(self, data):
        for pointer, register in zip(self.pointers(data), self.registers):
            self.builder.store(
                self.builder.load(register), pointer, align=self.vector.element.width // 8
            )


def _data(context, builder, array_type, array, offset=None):
    data = context.make_array(array_type)(context, builder, array).data
    return data if offset is None else builder.gep(data, [offset])


@intrinsic
def _subtract_disagreements(typingctx, sums, W, w_start, X, x_start, words):
    """sums[u] -= popcount(W[w, u] ^ X[w]) for the given number of words w."""

    def codegen(context, builder, signature, args):
        kinds = signature.args
        out = _data(context, builder, kinds[0], args[0])
        w = _data(context, builder, kinds[1], args[1], args[2])
        x = _data(context, builder, kinds[3], args[3], args[4])
        popcount = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(LANES64, [LANES64]), 'llvm.ctpop.v8i64'
        )
        total = _Block(builder, LANES64).load(out)

        def subtract(i):
            word = _splat(builder, builder.load(builder.gep(x, [i])), LANES64)
            total.combine(
                builder.gep(w, [builder.mul(i, ir.Constant(INT64, UNITS))]),
                lambda s, w: builder.sub(s, builder.call(popcount, [builder.xor(w, word)])),
            )

        with cgutils.for_range(builder, args[5]) as loop:
            subtract(loop.index)
        total.store(out)
        return context.get_dummy_value()

    return types.void(sums, W, types.int64, X, types.int64, types.int64), codegen


@intrinsic
def _add_products(typingctx, sums, C, c_start, places, pixels, start, n_groups):
    """Adds products of pixels and weights to the sums of a block.

    sums[u] += dot(pixels[i], C[places[i], u]), of 4 pixels and 4 weights each, for all groups i.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        out = _data(context, builder, kinds[0], args[0])
        c = _data(context, builder, kinds[1], args[1], args[2])
        places = _data(context, builder, kinds[3], args[3], args[5])
        pixels = _data(context, builder, kinds[4], args[4], args[5])
        vpdpbusd = ir.InlineAsm(
            ir.FunctionType(LANES32, [LANES32] * 3), 'vpdpbusd $2, $1, $0', '=v,v,v,0'
        )

        def dot(s, c, x):
            if VNNI:
                return builder.call(vpdpbusd, [x, c, s])
            for byte in range(4):
                up, down, mask = (
                    _splat(builder, ir.Constant(ir.IntType(32), value), LANES32)
                    for value in (24 - 8 * byte, 24, 255)
                )
                weight = builder.ashr(builder.shl(c, up), down)
                pixel = builder.and_(builder.lshr(x, builder.sub(down, up)), mask)
                s = builder.add(s, builder.mul(weight, pixel))
            return s

        def add(block, i):
            place = builder.zext(builder.load(builder.gep(places, [i])), INT64)
            x = _splat(builder, builder.load(builder.gep(pixels, [i])), LANES32)
            block.combine(
                builder.gep(c, [builder.mul(place, ir.Constant(INT64, 4 * UNITS))]),
                lambda s, c: dot(s, c, x),
            )

        # Two groups at a time, with separate sums: each addition waits for the one before it.
        one = ir.Constant(INT64, 1)
        total, other = _Block(builder, LANES32).load(out), _Block(builder, LANES32)
        with cgutils.for_range(builder, builder.lshr(args[6], one)) as loop:
            i = builder.shl(loop.index, one)
            add(total, i)
            add(other, builder.add(i, one))
        with cgutils.for_range(builder, builder.and_(args[6], one)):
            add(total, builder.sub(args[6], one))
        for register, more in zip(total.registers, other.registers):
            builder.store(builder.add(builder.load(register), builder.load(more)), register)
        total.store(out)
        return context.get_dummy_value()

    return types.void(sums, C, types.int64, places, pixels, types.int64, types.int64), codegen


@intrinsic
def _activate(typingctx, sums, offset, T, t_start, n_thresholds, Y, y_start, planes, words):
    """Writes the bit planes of the levels of a block.

    The level of unit u is the number of thresholds that 2 sums[u] + offset reaches.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        t = _data(context, builder, kinds[2], args[2], args[3])
        y = _data(context, builder, kinds[5], args[5], args[6])
        vector = LANES64 if kinds[0].dtype == types.int64 else LANES32
        one = _splat(builder, ir.Constant(vector.element, 1), vector)
        offset = _splat(
            builder,
            builder.trunc(args[1], vector.element) if vector is LANES32 else args[1],
            vector,
        )
        values = _Block(builder, vector).load(_data(context, builder, kinds[0], args[0]))
        for register in values.registers:
            builder.store(builder.add(builder.shl(builder.load(register), one), offset), register)
        bits = ir.IntType(vector.count)

        def reached(j):
            """Which units reach their threshold j, as vectors of truth values."""
            thresholds = values.pointers(
                builder.gep(t, [builder.mul(j, ir.Constant(INT64, UNITS))])
            )
            return [
                builder.icmp_signed('>=', builder.load(value), values.read(threshold))
                for value, threshold in zip(values.registers, thresholds)
            ]

        def write(p, truths):
            word = builder.bitcast(builder.gep(y, [builder.mul(p, args[8])]), ir.PointerType(bits))
            for i, truth in enumerate(truths):
                builder.store(
                    builder.bitcast(truth, bits),
                    builder.gep(word, [ir.Constant(INT64, i)]),
                    align=1,
                )

        # With one threshold, the comparison already is the plane.
        binary = builder.icmp_signed('==', args[4], ir.Constant(INT64, 1))
        with builder.if_else(binary) as (then, otherwise):
            with then:
                write(ir.Constant(INT64, 0), reached(ir.Constant(INT64, 0)))
            with otherwise:
                levels = _Block(builder, vector)
                with cgutils.for_range(builder, args[4]) as loop:
                    for level, truth in zip(levels.registers, reached(loop.index)):
                        builder.store(
                            builder.add(builder.load(level), builder.zext(truth, vector)), level
                        )
                with cgutils.for_range(builder, args[7]) as loop:
                    write(
                        loop.index,
                        [
                            builder.trunc(
                                builder.load(level), ir.VectorType(ir.IntType(1), vector.count)
                            )
                            for level in levels.registers
                        ],
                    )
                    for level in levels.registers:
                        builder.store(builder.lshr(builder.load(level), one), level)
        return context.get_dummy_value()

    return types.void(
        sums, types.int64, T, types.int64, types.int64, Y, types.int64, types.int64, types.int64
    ), codegen


@numba.njit(inline='always')
def _block_sums(dtype, size):
    """An array for the sums of a block, aligned to a cache line."""
    memory = numpy.empty(UNITS + 64 // size, dtype)
    start = -(memory.ctypes.data // size) % (64 // size)
    return memory[start : start + UNITS]


@numba.njit(inline='always')
def _xnor(X, n, W, b, sums):
    """Writes minus the disagreements of input n with the units of block b to the sums.

    Those of each pair of planes are weighted by its power of two.
    """
    k_x, words = X.shape[1:]
    k_w = W.shape[1]
    sums[:] = 0
    for power in range(k_x + k_w - 2, -1, -1):
        if power < k_x + k_w - 2:
            for u in range(UNITS):
                sums[u] *= 2
        for p in range(max(0, power - k_x + 1), min(k_w, power + 1)):
            _subtract_disagreements(
                sums, W, (b * k_w + p) * words * UNITS, X, (n * k_x + power - p) * words, words
            )


@intrinsic
def _signs(typingctx, A, start):
    """The word whose bit i is set if A[start + i] >= 0."""

    def codegen(context, builder, signature, args):
        dtype = signature.args[0].dtype
        vector = ir.VectorType(context.get_data_type(dtype), 64)
        data = builder.bitcast(
            _data(context, builder, signature.args[0], *args), ir.PointerType(vector)
        )
        numbers = builder.load(data, align=dtype.bitwidth // 8)
        return builder.bitcast(
            builder.fcmp_ordered('>=', numbers, ir.Constant(vector, [0.0] * 64)), INT64
        )

    return types.uint64(A, types.int64), codegen


@numba.njit(inline='always')
def _write_signs(a, words, start, step):
    """Writes the signs of numbers of shape (K,) to words[start], words[start + step], ..."""
    K = len(a)
    for i in range(K // 64):
        words[start + i * step] = _signs(a, 64 * i)
    if K % 64:
        rest = numpy.full(64, -1, a.dtype)
        rest[: K % 64] = a[K - K % 64 :]
        words[start + K // 64 * step] = _signs(rest, 0)


@numba.njit(cache=True)
def all_signs(x):
    """Whether all numbers in an array of shape (N, K) are +1 or -1."""
    for n in range(len(x)):
        others = 0
        for k in range(x.shape[1]):
            others += abs(x[n, k]) != 1
        if others:
            return False
    return True


@numba.njit(cache=True)
def binary_linear(x, W, b, Wb, y):
    """:func:`function_binary_linear.binary_linear` forward, for a minibatch of only +1 and -1.

    The sums are whole numbers that a float represents exactly, so they equal those of any other
    matrix product to the bit.

    Args:
        x, W, b (array): Float arrays of shapes (N, K), (M, K) and (M,).
        Wb (array): Float array of shape (M, K), to which binarize(W) is written.
        y (array): Float array of shape (N, M), which is written.
    """
    N, K = x.shape
    M = len(W)
    words, blocks = -(-K // 64), -(-M // UNITS)
    X = numpy.empty(N * words, numpy.uint64)
    for n in range(N):
        _write_signs(x[n], X, n * words, 1)
    # Aligned to a cache line, by the offset.
    V = numpy.empty(blocks * words * UNITS + 7, numpy.uint64)
    offset = -(V.ctypes.data // 8) % 8
    plus, minus = W.dtype.type(1), W.dtype.type(-1)
    for m in range(M):
        for k in range(K):
            Wb[m, k] = plus if W[m, k] >= 0 else minus
        _write_signs(W[m], V, offset + m // UNITS * words * UNITS + m % UNITS, UNITS)
    sums = _block_sums(numpy.int64, 8)
    for block in range(blocks):
        for n in range(N):
            sums[:] = 0
            _subtract_disagreements(sums, V, offset + block * words * UNITS, X, n * words, words)
            for u in range(min(UNITS, M - block * UNITS)):
                y[n, block * UNITS + u] = y.dtype.type(2 * sums[u] + K) + b[block * UNITS + u]


@numba.njit(nogil=True, cache=True)
def pixel_layer(X, C, T, Y):
    """First layer: uint8 pixels in, planes of activations out.

    Args:
        X (array): uint8 array of shape (N, 4 G).
        C (array): int8 array of shape (blocks, G, 64, 4): V - 2^(k - 1) for the weight 2 V - n.
        T (array): int32 array of shape (blocks, thresholds, 64).
        Y (array): uint64 array of shape (N, planes, blocks), which is written.
    """
    n_images, n_groups = X.shape[0], X.shape[1] // 4
    groups = X.view(numpy.uint32)
    n_thresholds = T.shape[1]
    planes, blocks = Y.shape[1:]
    # The groups of four pixels that are not all black: their number, places and pixels.
    counts = numpy.empty(n_images, numpy.int64)
    places = numpy.empty((n_images, n_groups), numpy.uint32)
    pixels = numpy.empty((n_images, n_groups), numpy.uint32)
    # A weight is 2 C + 1, so the sums are twice those with C plus the sum of the pixels.
    offsets = numpy.empty(n_images, numpy.int64)
    for n in range(n_images):
        count = 0
        for g in range(n_groups):
            places[n, count] = g
            pixels[n, count] = groups[n, g]
            count += groups[n, g] != 0
        counts[n] = count
        offset = 0
        for x in X[n]:
            offset += x
        offsets[n] = offset
    sums = _block_sums(numpy.int32, 4)
    for b in range(blocks):
        for n in range(n_images):
            sums[:] = 0
            _add_products(
                sums, C, b * n_groups * UNITS * 4, places, pixels, n * n_groups, counts[n]
            )
            _activate(
                sums,
                offsets[n],
                T,
                b * n_thresholds * UNITS,
                n_thresholds,
                Y,
                n * planes * blocks + b,
                planes,
                blocks,
            )


@numba.njit(nogil=True, cache=True)
def hidden_layer(X, W, T, greatest, Y):
    """Planes of activations in, planes of activations out.

    Args:
        X (array): uint64 array of shape (N, planes, words).
        W (array): uint64 array of shape (blocks, planes, words, 64).
        T (array): int64 array of shape (blocks, thresholds, 64).
        greatest (int): The sum of a unit that agrees with all its inputs.
        Y (array): uint64 array of shape (N, planes, blocks), which is written.
    """
    n_thresholds = T.shape[1]
    planes, blocks = Y.shape[1:]
    sums = _block_sums(numpy.int64, 8)
    for b in range(blocks):
        for n in range(len(X)):
            _xnor(X, n, W, b, sums)
            _activate(
                sums,
                greatest,
                T,
                b * n_thresholds * UNITS,
                n_thresholds,
                Y,
                n * planes * blocks + b,
                planes,
                blocks,
            )


@numba.njit(nogil=True, cache=True)
def last_layer(X, W, greatest, S):
    """Planes of activations in, sums out.

    Args:
        X (array): uint64 array of shape (N, planes, words).
        W (array): uint64 array of shape (blocks, planes, words, 64).
        greatest (int): The sum of a unit that agrees with all its inputs.
        S (array): int32 array of shape (units, N), which is written.
    """
    sums = _block_sums(numpy.int64, 8)
    for b in range(len(W)):
        for n in range(len(X)):
            _xnor(X, n, W, b, sums)
            for u in range(min(UNITS, len(S) - b * UNITS)):
                S[b * UNITS + u, n] = 2 * sums[u] + greatest
