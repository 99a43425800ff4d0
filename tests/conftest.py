"""What the tests share: NumPy or CuPy, MNIST read once, and which tests are skipped."""

import os
import sys

# The tests and the programs they start run side by side, where threads would wait for each other.
# NumPy and Numba read this when they are imported.
for name in 'OPENBLAS_NUM_THREADS', 'NUMBA_NUM_THREADS':
    os.environ.setdefault(name, '1')
import numpy
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from chainer_compat import chainer
from helpers import write_dataset


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run all faults and untrusted files')


def pytest_configure(config):
    config.addinivalue_line('markers', 'gpu: needs CuPy and a CUDA device')
    config.addinivalue_line('markers', 'slow: runs only with --slow')


def why_no_gpu():
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except ModuleNotFoundError:
        return 'CuPy is not installed'
    except Exception as e:
        return f'no usable CUDA device: {e}'
    if not chainer.backends.cuda.available:
        return f'Chainer cannot use CuPy: {chainer.backends.cuda._resolution_error}'
    return None


NO_GPU = why_no_gpu()


def pytest_collection_modifyitems(config, items):
    if not config.getoption('--slow'):
        slow = [item for item in items if item.get_closest_marker('slow')]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    if NO_GPU:
        for item in items:
            if item.get_closest_marker('gpu'):
                item.add_marker(pytest.mark.skip(reason=NO_GPU))


@pytest.fixture(params=['numpy', pytest.param('cupy', marks=pytest.mark.gpu)])
def xp(request):
    """NumPy, and CuPy where there is a device."""
    if request.param == 'numpy':
        return numpy
    import cupy

    return cupy


@pytest.fixture(params=[numpy.float16, numpy.float32, numpy.float64])
def dtype(request):
    return request.param


@pytest.fixture(scope='session')
def mnist():
    import data

    return data.read_mnist(os.path.join(ROOT, 'mnist'))


@pytest.fixture(scope='session')
def small_mnist(mnist, tmp_path_factory):
    """A folder with the first 600 training images and the first 200 test images of MNIST."""
    train_images, train_labels, test_images, test_labels = mnist
    return write_dataset(
        tmp_path_factory.mktemp('data') / 'small',
        train_images[:600],
        train_labels[:600],
        test_images[:200],
        test_labels[:200],
    )
