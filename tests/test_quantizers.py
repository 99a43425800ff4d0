"""The array-level quantizers, against exact rational arithmetic."""

from fractions import Fraction

from chainer.backends import cuda
from hypothesis import example, given, strategies as st
from hypothesis.extra import numpy as hnp
import numpy
import pytest

from bst import binarize
from qst import quantize

ALL_BITS = range(1, 9)
DTYPES = [numpy.float16, numpy.float32, numpy.float64]


def on(xp, a):
    """The values that kernels see: CuPy has NVRTC flush float32 subnormals to 0."""
    if xp is numpy or a.dtype != numpy.float32:
        return a
    return numpy.where(abs(a) < numpy.finfo(a.dtype).tiny, a.dtype.type(0), a)


def edge_values(dtype):
    one, tiny = dtype(1), numpy.finfo(dtype).smallest_subnormal
    values = [
        0,
        tiny,
        0.5,
        numpy.nextafter(one, dtype(0)),
        1,
        numpy.nextafter(one, dtype(2)),
        2,
        numpy.finfo(dtype).max,
        numpy.inf,
    ]
    values += [j / n for n in (3, 7, 15, 31, 63, 127, 255) for j in range(n + 1)]
    return numpy.array([s * v for v in values for s in (1, -1)], dtype)


def nearest_levels(value, bits):
    """The level nearest to the value, and the other one where the two are nearly as near (float
    error).
    """
    n = 2**bits - 1
    value = Fraction(min(max(float(value), -1.0), 1.0))
    middle = int(value * n)
    levels = [Fraction(j, n) for j in range(middle - 2, middle + 3) if j % 2 and abs(j) <= n]
    least = min(abs(value - level) for level in levels)
    return [
        level for level in levels if abs(value - level) - least <= Fraction(1, 10**6) * abs(value)
    ]


def arrays(dtype, **kwargs):
    return hnp.arrays(
        dtype,
        st.integers(0, 20),
        elements=hnp.from_dtype(numpy.dtype(dtype), allow_nan=False, **kwargs),
    )


any_array = st.sampled_from(DTYPES).flatmap(arrays)
bits_of_any = st.sampled_from(ALL_BITS)


def test_binarize(xp, dtype):
    a = edge_values(dtype)
    y = binarize(xp.asarray(a))
    assert y.dtype == dtype
    expected = [-1.0 if value < 0 else 1.0 for value in on(xp, a).tolist()]
    assert cuda.to_cpu(y).tolist() == expected


def test_zeros_are_positive(xp, dtype):
    a = xp.array([0.0, -0.0], dtype)
    assert binarize(a).tolist() == [1, 1]
    for bits in ALL_BITS:
        y = quantize(a, bits).tolist()
        assert y[0] == y[1] > 0


def test_nan(xp, dtype):
    a = xp.array([float('nan')], dtype)
    assert binarize(a).tolist() == quantize(a, 1).tolist() == [-1]
    for bits in ALL_BITS[1:]:
        assert xp.isnan(quantize(a, bits)).all()


@pytest.mark.parametrize('bits', ALL_BITS)
def test_quantize(xp, dtype, bits):
    a = edge_values(dtype)
    y = quantize(xp.asarray(a), bits)
    assert y.dtype == dtype
    for value, level in zip(on(xp, a), cuda.to_cpu(y)):
        assert level in [dtype(float(x)) for x in nearest_levels(value, bits)]


@pytest.mark.parametrize('bits', ALL_BITS)
def test_ties_go_away_from_zero(xp, bits):
    # In float64, j * (1 / n) * n is j again for these j: the value lies exactly on the tie.
    n = 2**bits - 1
    ties = [j / n for j in range(2, n, 2) if j / n * n == j]
    y = quantize(xp.array(ties + [-t for t in ties]), bits)
    assert y.tolist() == [(round(t * n) + 1) / n for t in ties] + [
        -(round(t * n) + 1) / n for t in ties
    ]


@pytest.mark.parametrize('bits', ALL_BITS)
@pytest.mark.parametrize('shape', [(), (0,), (0, 3), (2, 3, 4)])
def test_shapes(xp, dtype, bits, shape):
    for y in binarize(xp.zeros(shape, dtype)), quantize(xp.zeros(shape, dtype), bits):
        assert isinstance(y, xp.ndarray)
        assert y.shape == shape
        assert y.dtype == dtype


def test_the_argument_is_not_changed(xp, dtype):
    a = xp.linspace(-2, 2, 7).astype(dtype)
    before = a.copy()
    binarize(a)
    quantize(a, 3)
    assert (a == before).all()


def test_any_strides(xp, dtype):
    a = xp.linspace(-1, 1, 24).astype(dtype).reshape(4, 6)
    for view in a.T, a[:, ::2], a[::-1]:
        assert (binarize(view) == binarize(view.copy())).all()
        assert (quantize(view, 3) == quantize(view.copy(), 3)).all()


@pytest.mark.parametrize('bits', [0, 9, -1, 2.5, '2', None])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match='bits must be a whole number from 1 to 8'):
        quantize(numpy.zeros(1), bits)


@given(any_array)
@example(numpy.array([-1e-8, -1e-38, -0.0], numpy.float32))
def test_one_bit_is_binarize(a):
    numpy.testing.assert_array_equal(quantize(a, 1), binarize(a))


@given(any_array, bits_of_any)
def test_idempotent(a, bits):
    y = quantize(a, bits)
    numpy.testing.assert_array_equal(quantize(y, bits), y)


@given(any_array, bits_of_any)
def test_odd_away_from_zero(a, bits):
    a = a[a != 0]
    numpy.testing.assert_array_equal(quantize(-a, bits), -quantize(a, bits))


@given(any_array, bits_of_any)
def test_monotone(a, bits):
    y = quantize(numpy.sort(a), bits)
    assert (numpy.diff(y) >= 0).all()


@given(
    st.sampled_from(DTYPES).flatmap(lambda d: arrays(d, min_value=-1, max_value=1)), bits_of_any
)
def test_never_further_than_half_a_step(a, bits):
    n = 2**bits - 1
    rounding = numpy.finfo(a.dtype).eps
    assert (abs(quantize(a, bits).astype(float) - a.astype(float)) <= 1 / n + rounding).all()


@pytest.mark.parametrize('bits', ALL_BITS)
def test_exactly_2_to_the_bits_levels(xp, dtype, bits):
    levels = set(quantize(xp.linspace(-1.5, 1.5, 3001).astype(dtype), bits).tolist())
    n = 2**bits - 1
    assert sorted(levels) == numpy.array([j / n for j in range(-n, n + 1, 2)], dtype).tolist()


@given(any_array, bits_of_any)
def test_sum_of_binary_planes(a, bits):
    """quantize(a) = sum_i 2^i s_i / n, with each s_i +1 or -1: a k-bit array is k binary ones."""
    n = 2**bits - 1
    y = quantize(a, bits).astype(numpy.float64)
    code = numpy.rint((y * n + n) / 2).astype(int)  # 0 .. n, whose binary digits are the planes
    planes = [binarize(((code >> i) & 1) - 0.5) for i in range(bits)]
    total = sum((2.0**i * s for i, s in enumerate(planes)), numpy.zeros(len(a)))
    numpy.testing.assert_array_equal((total / n).astype(a.dtype), quantize(a, bits))
