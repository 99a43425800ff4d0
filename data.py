"""MNIST: IDX files to arrays, and arrays to minibatches."""

import errno
import gzip
import math
import os
import re
import zlib

from chainer_compat import chainer
from chainer import backend
import numpy

MNIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'mnist')

LARGEST = 2**31  # bytes of one IDX file; the largest known, EMNIST's, has 547 million


def check_regular(path):
    """Raises an OSError if a path leads to a FIFO or a device, which may never end.

    (A folder passes: the system refuses to open it, in words of its own.)
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OSError(errno.EINVAL, 'not a regular file', path)


def read_idx(path, ndim):
    """Reads an IDX file of unsigned bytes.

    Args:
        path (str): The file. If its name ends in ``.gz`` it is gzip-compressed.
        ndim (int): Number of axes it must have: 3 for images, 1 for labels.

    Returns:
        numpy.ndarray: uint8 array of the shape that the file states.

    Raises:
        ValueError: If the file is damaged or not such a file; the message names it.
        OSError: If it cannot be opened.

    Source: the format is described with MNIST itself, http://yann.lecun.com/exdb/mnist/.
    """
    check_regular(path)
    packed = path.endswith('.gz')
    try:
        with (gzip.open if packed else open)(path, 'rb') as f:
            header = f.read(4 + 4 * ndim)
            if len(header) < 4 + 4 * ndim:
                raise ValueError(f'{path}: truncated, there is not even a whole header')
            magic, *shape = numpy.frombuffer(header, '>u4').tolist()
            if magic == 0x804 and ndim == 3:
                raise ValueError(f'{path}: holds colour images; the net takes grey ones')
            if magic != 0x800 + ndim:
                kind = {1: 'labels', 3: 'images'}[ndim]
                raise ValueError(
                    f'{path}: not an IDX file of {kind}: it begins with {magic:#010x}, '
                    f'not with {0x800 + ndim:#010x}'
                )
            # gzip compresses 1032 to 1 at most, so a larger size is a lie and need not be read.
            size, limit = math.prod(shape), os.path.getsize(path) * (1032 if packed else 1)
            content = f.read(size + 1) if size <= min(LARGEST, limit) else b''
    except (gzip.BadGzipFile, zlib.error, EOFError) as e:
        raise ValueError(f'{path}: truncated, or not a valid gzip file: {e}') from e
    if len(content) != size:
        few = 'truncated, or its header is damaged: it'
        problem = few if len(content) < size else 'longer than its header'
        raise ValueError(f'{path}: {problem} states {" x ".join(map(str, shape))} bytes')
    return numpy.frombuffer(content, numpy.uint8).reshape(shape)


def _find(folder, sets, kind):
    """The only file of its kind in the folder; an uncompressed one precedes one with .gz."""
    for ending in '-ubyte', '-ubyte.gz':
        # Some copies have a dot before "idx".
        pattern = f'(|[^.].*)({"|".join(sets)})-{kind.replace("-", "[-.]")}{ending}'
        found = [name for name in os.listdir(folder) if re.fullmatch(pattern, name)]
        if len(found) > 1:
            raise ValueError(
                f'{folder}: holds more than one data set ({", ".join(sorted(found))}); give each '
                'a folder of its own'
            )
        if found:
            path = os.path.join(folder, found[0])
            inside = os.path.join(path, found[0])  # some archives have a folder around each file
            return inside if os.path.isfile(inside) else path
    name = f'{sets[0]}-{kind}-ubyte'
    raise ValueError(f'{folder}: there is no file {name} or {name}.gz')


def _read_set(folder, *sets):
    images_path, labels_path = (_find(folder, sets, k) for k in ('images-idx3', 'labels-idx1'))
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise ValueError(
            f'{images_path}: {len(images)} images, but {len(labels)} labels in {labels_path}'
        )
    if images.size == 0:
        raise ValueError(f'{images_path}: holds no images')
    return images, labels.astype(numpy.int32)


def read_mnist(folder):
    """Reads MNIST, or a data set in the same format, from a folder.

    The folder holds four IDX files, gzip-compressed or not: ``train-images-idx3-ubyte``,
    ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``. The
    names may have a prefix, and ``test`` instead of ``t10k``, as in EMNIST.

    Args:
        folder (str): The folder.

    Returns:
        tuple: Training images, training labels, test images, test labels: images are uint8 arrays
        of shape (n, rows, columns), labels int32 arrays of shape (n,). Every label is less than
        the largest training label plus one, which is the number of classes.

    Raises:
        ValueError: If a file is missing or damaged, or two do not match; the message names it.
        OSError: If a file cannot be opened.
    """
    return check_sets(folder, *_read_set(folder, 'train'), *read_test_set(folder))


def check_sets(folder, train_images, train_labels, test_images, test_labels):
    """Returns the two sets, or raises a ValueError that names the folder if they do not match."""
    if train_images.shape[1:] != test_images.shape[1:]:
        test, train = (' x '.join(map(str, a.shape[1:])) for a in (test_images, train_images))
        raise ValueError(
            f'{folder}: the test images have {test} pixels, the training images {train}'
        )
    if train_images.min() == train_images.max():
        raise ValueError(f'{folder}: all pixels of the training images are {train_images.max()}')
    if test_labels.max() > train_labels.max():
        raise ValueError(
            f'{folder}: there is a test label {test_labels.max()}, but the training labels '
            f'end at {train_labels.max()}'
        )
    if (train_labels == train_labels[0]).all():
        raise ValueError(f'{folder}: all training images are of one class, {train_labels[0]}')
    return train_images, train_labels, test_images, test_labels


def read_test_set(folder):
    """Reads the test images and labels alone: see :func:`read_mnist`."""
    return _read_set(folder, 't10k', 'test')


class Minibatches(chainer.dataset.Iterator):
    """Iterator over minibatches (x, t), assembled from whole arrays on the device they are on.

    The order of an epoch depends only on the seed and the number of the epoch. So a resumed
    training continues with the minibatches it would have had, and no generator's state is saved.

    Args:
        images (array): uint8 images of shape (n, rows, columns).
        labels (array): int32 labels of shape (n,).
        size (int): Minibatch size. The last minibatch of an epoch holds the remaining images.
        seed (int or None): Seed of the order. If None, the images come in the order of the arrays,
            and the iteration ends after one epoch.
    """

    def __init__(self, images, labels, size, seed=None):
        self.images, self.labels = images.reshape(len(images), -1), labels
        self.size, self.seed = size, seed
        self.reset()

    def reset(self):
        self.epoch, self.position = 0, 0
        self.is_new_epoch, self.previous_epoch_detail = False, -1.0
        self._shuffle()

    def _shuffle(self):
        order = numpy.arange(len(self.labels))
        if self.seed is not None:
            order = numpy.random.RandomState((self.seed, self.epoch)).permutation(order)
        self.order = backend.get_device_from_array(self.labels).send(order)

    @property
    def epoch_detail(self):
        return self.epoch + self.position / len(self.labels)

    def __next__(self):
        if self.seed is None and self.epoch > 0:
            raise StopIteration
        self.previous_epoch_detail = self.epoch_detail
        index = self.order[self.position : self.position + self.size]
        x, t = self.images[index], self.labels[index]
        self.position += len(t)
        self.is_new_epoch = self.position == len(self.labels)
        if self.is_new_epoch:
            self.epoch += 1
            self.position = 0
            self._shuffle()
        return x, t

    def serialize(self, serializer):
        for name in 'epoch', 'position', 'is_new_epoch', 'previous_epoch_detail':
            setattr(self, name, serializer(name, getattr(self, name)))
        self._shuffle()
