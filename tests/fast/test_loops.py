"""The compiled loops against the NumPy code they replace, and a training without Numba."""

import numpy
import pytest

import fast
from fast.function import accept
from helpers import ROOT, equal, log_of, run, same, small
from qst import quantize

needs_numba = pytest.mark.skipif(
    fast.missing is not None, reason=f'Numba cannot be used: {fast.missing}'
)


@needs_numba
@pytest.mark.parametrize('bits', range(1, 9))
def test_quantizers(bits):
    import numba
    from fast import loops

    level_of = numba.njit(lambda a, n, half: loops.level_of(a, n, half))
    random = numpy.random.RandomState(bits)
    n = 2**bits - 1
    ties = numpy.arange(-n - 1, n + 2) / n
    special = [0.0, -0.0, numpy.inf, -numpy.inf, 1e-45, -1e-45, 1e38, -1e38]
    values = numpy.concatenate([random.uniform(-1.5, 1.5, 10001), ties, special]).astype('f')
    above, below = (numpy.nextafter(values, numpy.float32(end)) for end in (2, -2))
    values = numpy.concatenate([values, above, below])
    levels = numpy.array([level_of(a, numpy.int32(n), numpy.float32(n / 2)) for a in values])
    assert levels.min() == 0 and levels.max() == n
    assert equal((2 * levels - n).astype('f') / numpy.float32(n), quantize(values, bits))


@pytest.mark.parametrize(
    'array',
    [
        numpy.zeros(3, numpy.float16),
        numpy.zeros(3),
        numpy.zeros((3, 2), 'f').T,
        numpy.zeros(3, '>f4'),
        numpy.zeros(6, 'f')[::2],
        numpy.zeros(3, int),
        [0.0],
        None,
    ],
)
def test_what_compiled_code_does_not_accept(array):
    assert not accept(numpy.ndarray, array)
    assert not accept(numpy.ndarray, numpy.zeros(3, 'f'), array)


@needs_numba
@pytest.mark.parametrize('arguments', [[], ['--net', 'quantized']])
def test_a_training_is_nearly_the_same_without_numba(small_mnist, tmp_path, arguments):
    (tmp_path / 'numba.py').write_text('raise ImportError("there is no Numba")')
    arguments = [small_mnist, '--epoch', 3, *arguments]
    with_numba = small(tmp_path / 'a', *arguments)
    without = small(tmp_path / 'b', *arguments, PYTHONPATH=str(tmp_path))
    assert with_numba.stderr == without.stderr == ''
    notice = '# Numba is unavailable, so NumPy computes, slower: there is no Numba'
    assert notice in without.stdout.splitlines() and notice not in with_numba.stdout
    for ours, plain in zip(log_of(tmp_path / 'a'), log_of(tmp_path / 'b')):
        assert ours['main/loss'] == pytest.approx(plain['main/loss'], rel=0.02)
        accuracy = plain['validation/main/accuracy']
        assert ours['validation/main/accuracy'] == pytest.approx(accuracy, abs=0.05)


@needs_numba
@pytest.mark.parametrize(
    'name, value, reason',
    [
        ('NUMBA_DISABLE_JIT', '1', 'NUMBA_DISABLE_JIT is set'),
        ('NUMBA_NUM_THREADS', '0', 'Number of threads specified must be > 0.'),
    ],
)
def test_variables_that_keep_numba_from_computing(name, value, reason):
    done = run('-c', 'import fast; print(fast.missing)', cwd=ROOT, **{name: value})
    assert (done.stdout, done.stderr) == (f'{reason}\n', '')


@needs_numba
def test_a_training_is_the_same_for_any_number_of_threads(small_mnist, tmp_path):
    for threads in '123':
        numbers = dict.fromkeys(['NUMBA_NUM_THREADS', 'OPENBLAS_NUM_THREADS'], threads)
        run = small(tmp_path / threads, small_mnist, '--epoch', 2, **numbers)
        assert f'; {threads} thread' in run.stdout and run.stderr == ''
        assert same(tmp_path / threads / 'mlp.model', tmp_path / '1' / 'mlp.model')
        assert same(tmp_path / threads / 'mlp.state', tmp_path / '1' / 'mlp.state')
