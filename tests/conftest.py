"""What the tests share: where the modules are, the two kinds of array, and the MNIST that is read once."""
import gzip
import os
import struct
import sys

# Of the programs that tests start, as they run side by side; and of this one, which NumPy asks when it is imported.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
import numpy  # noqa: E402
import pytest  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import chainer_compat  # noqa: E402,F401  (before Chainer)


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run every fault and file of strangers')


def pytest_configure(config):
    config.addinivalue_line('markers', 'gpu: needs CuPy and a CUDA device')
    config.addinivalue_line('markers', 'slow: runs with --slow only')


def why_no_gpu():
    try:
        import cupy
        cupy.cuda.runtime.getDeviceCount()
    except ModuleNotFoundError:
        return 'CuPy is not installed'
    except Exception as e:
        return f'no usable CUDA device: {e}'
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


def write_idx(path, array):
    """Writes an IDX file, compressed if its name says so: the reverse of data.read_idx."""
    header = struct.pack(f'>{1 + array.ndim}I', 0x800 + array.ndim, *array.shape)
    with (gzip.open if str(path).endswith('.gz') else open)(path, 'wb') as f:
        f.write(header + array.astype(numpy.uint8).tobytes())


def write_dataset(folder, train_images, train_labels, test_images, test_labels, prefix='', test='t10k',
                  ending=''):
    folder.mkdir(exist_ok=True)
    for name, array in ((f'{prefix}train-images-idx3-ubyte', train_images),
                        (f'{prefix}train-labels-idx1-ubyte', train_labels),
                        (f'{prefix}{test}-images-idx3-ubyte', test_images),
                        (f'{prefix}{test}-labels-idx1-ubyte', test_labels)):
        write_idx(folder / (name + ending), array)
    return folder


@pytest.fixture(scope='session')
def small_mnist(mnist, tmp_path_factory):
    """A folder with the first 600 training images and the first 200 test images of MNIST."""
    train_images, train_labels, test_images, test_labels = mnist
    return write_dataset(tmp_path_factory.mktemp('data') / 'small', train_images[:600], train_labels[:600],
                         test_images[:200], test_labels[:200])
