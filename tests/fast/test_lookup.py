"""Products of floats with signs by look-up, on this CPU and with the kernels of others."""

import json
import os
import platform
import re

import numpy
import pytest

import fast

if fast.missing is not None:
    pytest.skip(f'Numba cannot be used: {fast.missing}', allow_module_level=True)
import llvmlite.binding
import numba

from fast.cache import njit
from fast.kernels import UNITS, aligned
from fast.lookup import ROWS, WORD, product, write_signs, write_tables
from test_kernels import ASSEMBLY, run

# What Numba is told of the CPU, the feature that running its kernel takes, the kernel's name and
# the instruction that adds a sum: from a table in registers, or in memory.
CPUS = {
    'plain': ('generic', '', None, 'plain vectors', r'addps\s+\(?\d*\(%r.*%xmm'),
    'AVX2': ('haswell', '', 'avx2', 'plain vectors', r'vaddps\s+\d*\(%r.*%ymm'),
    'AVX-512': ('icelake-server', '+avx2,+avx512f', 'avx512f', 'AVX-512', r'vpermps\s.*%zmm'),
}

COMPILE = (
    ASSEMBLY
    + """
import json
import numba
import sys
from numba import boolean, float32, int64, uint32
import pytest
from fast import cpu, lookup

floats, i = float32[::1], int64
types = floats, i, uint32[:, ::1], i, boolean, floats, i, i
product = numba.njit(lambda a, b, c, d, e, f, g, h: lookup.product(a, b, c, d, e, f, g, h))
print(json.dumps([cpu.FLOAT_KERNELS[cpu.FLOATS], assembly(product, types)]), flush=True)
if sys.argv[1:]:
    sys.exit(pytest.main(sys.argv[1:]))
"""
)


@njit
def pack(S):
    """The words of signs of a matrix."""
    words, columns = -(-len(S) // WORD), -(-S.shape[1] // UNITS) * UNITS
    I = numpy.full((words, columns), 0xFFFFFFFF, numpy.uint32)
    for i in range(len(S)):
        write_signs(S[i], i, I[i // WORD])
    return I


@njit
def multiply(A, stride, row_stride, n, I, more, Y):
    """Writes A S, or adds it to Y."""
    T = aligned(32 * (n + 3), numpy.float32)
    for row in range(0, len(Y), ROWS):
        write_tables(A, row * row_stride, stride, row_stride, n, T)
        for k in range(0, Y.shape[1], UNITS):
            product(T, n, I, k, more, Y, row * Y.shape[1] + k, Y.shape[1])


def in_order(A, S):
    """A S, in the order of every kernel's additions: within each four inputs, then from the first
    four to the last."""
    missing = -A.shape[1] % 4
    A, S = numpy.pad(A, ((0, 0), (0, missing))), numpy.pad(S, ((0, missing), (0, 0)))
    terms = A[:, :, None] * S
    fours = (terms[:, ::4] + terms[:, 1::4]) + (terms[:, 2::4] + terms[:, 3::4])
    total = numpy.zeros_like(fours[:, 0])
    for i in range(fours.shape[1]):
        total += fours[:, i]
    return total


def make(rows, n, columns, matrices=1):
    random = numpy.random.RandomState(rows + n + columns)
    A = random.normal(size=(rows, n)).astype('f')
    signs = [numpy.where(random.uniform(size=(n, columns)) < 0.5, 1, -1) for _ in range(matrices)]
    return A, *(S.astype('f') for S in signs)


def padded(A):
    """Whole chunks of rows, and groups of four inputs."""
    return numpy.pad(A, ((0, -len(A) % ROWS), (0, -A.shape[1] % 4)))


def empty(rows, columns):
    """Rows to write, which whoever reads them notices."""
    return numpy.full((-(-rows // ROWS) * ROWS, -(-columns // UNITS) * UNITS), numpy.nan, 'f')


SHAPES = [(1, 1, 1), (2, 3, 64), (8, 32, 65), (9, 33, 128), (13, 100, 7), (21, 270, 130)]


@pytest.mark.parametrize('shape', SHAPES)
def test_product(shape):
    """Equal for all kernels and orders of A's elements, to the last bit."""
    A, S = make(*shape)
    rows, n, columns = shape
    I, expected = pack(S), in_order(A, S)
    numpy.testing.assert_allclose(expected, A.astype('d') @ S, rtol=0, atol=1e-6 * n)
    A = padded(A)
    for a, strides in ((A, (1, A.shape[1])), (numpy.ascontiguousarray(A.T), (len(A), 1))):
        Y = empty(rows, columns)
        multiply(a, *strides, n, I, False, Y)
        numpy.testing.assert_array_equal(Y[:rows, :columns], expected)


def test_a_product_is_added():
    A, first, second = make(10, 77, 100, matrices=2)
    Y = empty(10, 100)
    multiply(padded(A), 1, 80, 77, pack(first), False, Y)
    multiply(padded(A), 1, 80, 77, pack(second), True, Y)
    expected = in_order(A, first) + in_order(A, second)
    numpy.testing.assert_array_equal(Y[:10, :100], expected)


def test_other_rows_and_columns_stay():
    A, S = make(ROWS, 5, UNITS)
    Y = empty(2 * ROWS, 2 * UNITS)

    @numba.njit
    def write(A, I, Y):
        T = aligned(32 * (5 + 3), numpy.float32)
        write_tables(A, 0, 1, 8, 5, T)
        product(T, 5, I, 0, False, Y, UNITS, 2 * UNITS)

    write(padded(A), pack(S), Y)
    numpy.testing.assert_array_equal(Y[:ROWS, UNITS:], in_order(A, S))
    assert numpy.isnan(Y[:ROWS, :UNITS]).all() and numpy.isnan(Y[ROWS:]).all()


def test_signs():
    """Of 0 and -0, it is +1, of NaN -1, as in bst.binarize."""
    S = numpy.array([[0.0, -0.0, numpy.nan, 1e-45, -1e-45]] * 33, 'f')
    I = pack(S)
    assert I.shape == (2, UNITS) and not I[:, 5:].any()
    all_rows = 2**32 - 1
    assert I[:, :5].tolist() == [[all_rows, all_rows, 0, all_rows, 0], [1, 1, 0, 1, 0]]


@pytest.mark.skipif(platform.machine() not in ('x86_64', 'AMD64'), reason='not an x86 CPU')
@pytest.mark.parametrize('cpu', CPUS)
def test_another_cpu(cpu):
    """Compiling its kernel takes no CPU that has the instruction; the tests above do."""
    name, features, needed, kernel, instruction = CPUS[cpu]
    lacking = needed and not llvmlite.binding.get_host_cpu_features().get(needed)
    options = '-q', '-p', 'no:cacheprovider', '-k', 'not another_cpu', os.path.abspath(__file__)
    result = run(['-c', COMPILE, *([] if lacking else options)], name, features)
    assert (result.returncode, result.stderr) == (0, ''), result.stdout
    description, code = json.loads(result.stdout.splitlines()[0])
    assert description == kernel
    assert re.search(instruction, code)
    if lacking:
        pytest.skip(f'compiled, but this CPU has no {needed}')
