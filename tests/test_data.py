"""The reader of IDX files, on MNIST and on damaged files, and the minibatches."""

import errno
import gzip
import hashlib
import os
import struct

import chainer
import numpy
import pytest

from helpers import ROOT, write_dataset, write_idx
from data import Minibatches, read_idx, read_mnist


def test_mnist_is_mnist(mnist):
    train_images, train_labels, test_images, test_labels = mnist
    assert train_images.shape == (60000, 28, 28) and test_images.shape == (10000, 28, 28)
    assert train_images.dtype == test_images.dtype == numpy.uint8
    assert train_labels.dtype == test_labels.dtype == numpy.int32
    counts = '5923 6742 5958 6131 5842 5421 5918 6265 5851 5949'
    assert ' '.join(map(str, numpy.bincount(train_labels))) == counts
    assert test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_check_sums():
    with open(f'{ROOT}/mnist/SHA256SUMS') as f:
        sums = dict(reversed(line.split()) for line in f)
    assert len(sums) == 4
    for name, expected in sums.items():
        with gzip.open(f'{ROOT}/mnist/{name}.gz') as f:
            assert hashlib.sha256(f.read()).hexdigest() == expected


@pytest.fixture
def arrays():
    random = numpy.random.RandomState(0)
    return (
        random.randint(0, 256, (12, 3, 4)),
        numpy.arange(12) % 5,
        random.randint(0, 256, (7, 3, 4)),
        numpy.arange(7) % 5,
    )


@pytest.mark.parametrize(
    'naming',
    [{}, {'ending': '.gz'}, {'prefix': 'emnist-letters-', 'test': 'test', 'ending': '.gz'}],
)
def test_round_trip(tmp_path, arrays, naming):
    for read, written in zip(read_mnist(str(write_dataset(tmp_path, *arrays, **naming))), arrays):
        assert (read == written).all()


def test_a_plain_file_goes_before_a_packed_one(tmp_path, arrays):
    write_dataset(tmp_path, *arrays, ending='.gz')
    write_dataset(tmp_path, *[a[:5] for a in arrays])
    assert len(read_mnist(str(tmp_path))[0]) == 5


def test_folder_with_glob_characters(tmp_path, arrays):
    assert len(read_mnist(str(write_dataset(tmp_path / 'a[b]', *arrays)))[0]) == 12


def refused(tmp_path, message):
    with pytest.raises(ValueError, match=message) as e:
        read_mnist(str(tmp_path))
    assert '\n' not in str(e.value)
    assert str(tmp_path) in str(e.value)


@pytest.mark.parametrize(
    'name',
    [
        'train-images-idx3-ubyte',
        'train-labels-idx1-ubyte',
        't10k-images-idx3-ubyte',
        't10k-labels-idx1-ubyte',
    ],
)
@pytest.mark.parametrize('ending', ['', '.gz'])
class TestDamagedFile:
    @pytest.fixture(autouse=True)
    def path(self, tmp_path, arrays, name, ending):
        write_dataset(tmp_path, *arrays, ending=ending)
        self.path = tmp_path / (name + ending)
        self.ndim = 3 if 'images' in name else 1
        self.packed = ending == '.gz'

    def content(self):
        return gzip.decompress(self.path.read_bytes()) if self.packed else self.path.read_bytes()

    def write(self, content):
        self.path.write_bytes(gzip.compress(content) if self.packed else content)

    def test_missing(self, tmp_path, name):
        self.path.unlink()
        refused(tmp_path, f'there is no file {name} or {name}.gz')

    def test_truncated(self, tmp_path):
        self.write(self.content()[:-1])
        refused(tmp_path, f'{self.path.name}: truncated')

    def test_truncated_as_stored(self, tmp_path):
        self.path.write_bytes(self.path.read_bytes()[:-5])
        refused(tmp_path, f'{self.path.name}: truncated')

    def test_empty(self, tmp_path):
        self.path.write_bytes(b'')
        refused(tmp_path, f'{self.path.name}: truncated')

    def test_too_long(self, tmp_path):
        self.write(self.content() + b'x')
        refused(tmp_path, f'{self.path.name}: longer than its header states')

    def test_wrong_magic_number(self, tmp_path):
        self.write(b'\0\0\x0d' + self.content()[3:])
        refused(tmp_path, f'{self.path.name}: not an IDX file of ')

    def test_images_in_place_of_labels(self, tmp_path):
        write_idx(self.path, numpy.zeros((3, 2, 2) if self.ndim == 1 else 12))
        refused(tmp_path, f'{self.path.name}: ')

    def test_not_gzip(self, tmp_path):
        if not self.packed:
            pytest.skip('the file is not named .gz')
        self.path.write_bytes(self.content())
        refused(tmp_path, f'{self.path.name}: truncated, or not a valid gzip file')

    def test_a_bit_flipped_in_gzip(self, tmp_path):
        if not self.packed:
            pytest.skip('the file is not named .gz')
        content = bytearray(self.path.read_bytes())
        content[-6] ^= 1  # in the check sum
        self.path.write_bytes(content)
        refused(tmp_path, f'{self.path.name}: truncated, or not a valid gzip file')

    def test_terabytes_in_the_header(self, tmp_path):
        self.write(struct.pack('>I', 0x800 + self.ndim) + b'\xff' * 4 * self.ndim + b'x' * 1000)
        refused(tmp_path, f'{self.path.name}: truncated, or its header is damaged')


def test_more_images_than_labels(tmp_path, arrays):
    arrays[1].resize(11, refcheck=False)
    write_dataset(tmp_path, *arrays)
    refused(tmp_path, '12 images, but 11 labels')


def test_no_images(tmp_path, arrays):
    write_dataset(tmp_path, *[a[:0] for a in arrays])
    refused(tmp_path, 'holds no images')


def test_a_label_outside_the_classes(tmp_path, arrays):
    arrays[3][3] = 5
    write_dataset(tmp_path, *arrays)
    refused(tmp_path, 'there is a test label 5, but the training labels end at 4')


def test_images_of_different_size(tmp_path, arrays):
    write_dataset(tmp_path, arrays[0], arrays[1], arrays[2][:, :2], arrays[3])
    refused(tmp_path, 'the test images have 2 x 4 pixels, the training images 3 x 4')


def test_images_that_show_nothing(tmp_path, arrays):
    write_dataset(tmp_path, arrays[0] * 0 + 7, *arrays[1:])
    refused(tmp_path, 'all pixels of the training images are 7')


def test_two_data_sets(tmp_path, arrays):
    write_dataset(tmp_path, *arrays, prefix='a-')
    write_dataset(tmp_path, *arrays, prefix='b-')
    refused(tmp_path, 'holds more than one data set')


def test_a_folder_that_cannot_be_listed(tmp_path, arrays, monkeypatch):
    """With too many open files, say: that is not "there is no file"."""

    def fail(*_):
        raise OSError(errno.EMFILE, 'Too many open files', str(tmp_path))

    write_dataset(tmp_path, *arrays)
    monkeypatch.setattr(os, 'listdir', fail)
    monkeypatch.setattr(os, 'scandir', fail)
    with pytest.raises(OSError, match='Too many open files'):
        read_mnist(str(tmp_path))


def test_an_unreadable_file(tmp_path):
    with pytest.raises(OSError):
        read_idx(str(tmp_path), 3)


class TestMinibatches:
    n = 10
    images = numpy.arange(n, dtype=numpy.uint8).reshape(n, 1, 1)
    labels = numpy.arange(n, dtype=numpy.int32)

    def order(self, iterator, epochs=1):
        """The labels of so many epochs, and the sizes of their minibatches."""
        seen, sizes, until = [], [], iterator.epoch + epochs
        while iterator.epoch < until:
            x, t = next(iterator)
            assert x.ravel().tolist() == t.tolist()
            seen += t.tolist()
            sizes.append(len(t))
        return seen, sizes

    def test_an_epoch_has_every_example_once(self, xp):
        iterator = Minibatches(xp.asarray(self.images), xp.asarray(self.labels), 4, seed=0)
        for _ in range(3):
            seen, sizes = self.order(iterator)
            assert sorted(seen) == list(range(self.n))
            assert sizes == [4, 4, 2]
            assert iterator.is_new_epoch

    def test_the_order_is_a_function_of_seed_and_epoch(self):
        def orders(seed):
            iterator = Minibatches(self.images, self.labels, 4, seed)
            return [self.order(iterator)[0] for _ in range(2)]

        assert orders(0) == orders(0)
        assert orders(0) != orders(1)
        assert orders(0)[0] != orders(0)[1]

    def test_without_seed_one_epoch_in_order(self):
        iterator = Minibatches(self.images, self.labels, 4)
        assert [t for _, minibatch in iterator for t in minibatch] == list(range(self.n))
        iterator.reset()
        assert len(list(iterator)) == 3

    def test_epoch_detail(self):
        iterator = Minibatches(self.images, self.labels, 5, seed=0)
        next(iterator)
        assert (iterator.epoch, iterator.epoch_detail, iterator.is_new_epoch) == (0, 0.5, False)
        next(iterator)
        assert (iterator.epoch, iterator.epoch_detail, iterator.is_new_epoch) == (1, 1.0, True)
        assert iterator.previous_epoch_detail == 0.5

    @pytest.mark.parametrize('before', [0, 1, 2, 3, 4])
    def test_a_loaded_one_goes_on(self, before, tmp_path):
        original, path = (
            Minibatches(self.images, self.labels, 4, seed=3),
            str(tmp_path / 'iterator'),
        )
        for _ in range(before):
            next(original)
        chainer.serializers.save_npz(path, original)
        loaded = Minibatches(self.images, self.labels, 4, seed=3)
        chainer.serializers.load_npz(path, loaded)
        assert loaded.is_new_epoch == original.is_new_epoch
        assert self.order(loaded, 2) == self.order(original, 2)


@pytest.mark.parametrize('folders', [False, True])
def test_other_names_of_the_files(folders, tmp_path, arrays):
    """A dot before "idx", and a folder of the same name around each file."""
    write_dataset(tmp_path, *arrays)
    for path in list(tmp_path.iterdir()):
        name = path.name if folders else path.name.replace('-idx', '.idx')
        content = path.read_bytes()
        path.unlink()
        if folders:
            path.mkdir()
            path = path / name
        (path.parent / name).write_bytes(content)
    for expected, read in zip(arrays, read_mnist(str(tmp_path))):
        assert (expected == read).all()


def test_colour_images(tmp_path, arrays):
    write_dataset(tmp_path, *arrays)
    write_idx(tmp_path / 'train-images-idx3-ubyte', numpy.zeros((12, 3, 4, 3), numpy.uint8))
    refused(tmp_path, 'train-images-idx3-ubyte: holds colour images')


def test_one_class(tmp_path, arrays):
    train_images, train_labels, test_images, test_labels = arrays
    write_dataset(tmp_path, train_images, 0 * train_labels, test_images, 0 * test_labels)
    refused(tmp_path, 'all training images are of one class, 0')
