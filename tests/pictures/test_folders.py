"""Folders of pictures, by class, are a data set."""

import re

import numpy
from PIL import Image
import pytest

from helpers import write_dataset
from pictures.folders import read_data, read_test_data


@pytest.fixture
def folder(tmp_path, mnist):
    """A function that writes 20 training and 10 test images by class, each by a function."""

    def write(save):
        for name, images, labels in ('train', *mnist[:2]), ('test', *mnist[2:]):
            count = 20 if name == 'train' else 10
            for i in range(count):
                inside = tmp_path / name / str(labels[i])
                inside.mkdir(parents=True, exist_ok=True)
                save(images[i], inside / f'{i:02}.png')
            (tmp_path / name / '.hidden').mkdir()
            (tmp_path / name / 'notes.txt').write_text('not a class')
        return str(tmp_path)

    return write


def test_small_pictures_are_taken_as_they_are(folder, mnist):
    path = folder(lambda image, path: Image.fromarray(image).save(path))
    sets = read_data(path)
    for images, labels, expected, expected_labels in (
        (*sets[:2], mnist[0][:20], mnist[1][:20]),
        (*sets[2:], mnist[2][:10], mnist[3][:10]),
    ):
        order = numpy.argsort(expected_labels, kind='stable')
        assert labels.dtype == numpy.int32 and images.dtype == numpy.uint8
        numpy.testing.assert_array_equal(labels, expected_labels[order])
        numpy.testing.assert_array_equal(images, expected[order])
    numpy.testing.assert_array_equal(read_test_data(path)[0], sets[2])


def test_large_pictures_are_prepared(folder, mnist):
    path = folder(
        lambda image, path: (
            Image.fromarray(255 - image).resize((140 + len(path.name), 144)).save(path)
        )
    )
    images = read_data(path)[2]
    order = numpy.argsort(mnist[3][:10], kind='stable')
    assert images.shape == (10, 28, 28)
    likeness = [
        numpy.corrcoef(image.ravel(), expected.ravel())[0, 1]
        for image, expected in zip(images, mnist[2][:10][order])
    ]
    assert min(likeness) > 0.6 and numpy.mean(likeness) > 0.85


def test_other_names_of_the_folders(folder, tmp_path):
    path = folder(lambda image, path: Image.fromarray(image).save(path))
    expected = read_data(path)
    for name in 'train', 'test':
        (tmp_path / name).rename(tmp_path / f'{name}ing')
    for a, b in zip(expected, (*read_data(path)[:2], *read_test_data(path))):
        numpy.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda path: (path / 'train/cat').mkdir(), 'cat: name the folders of the classes'),
        (lambda path: (path / 'test/3').mkdir(exist_ok=False), '3: holds no picture'),
        (lambda path: (path / 'train/5/00.png').write_text('no'), '00.png: not a PNG'),
        (
            lambda path: (path / 'test').rename(path / 'other'),
            'holds neither the IDX files of MNIST nor a folder test of pictures',
        ),
    ],
)
def test_what_is_wrong_is_named(folder, spoil, message, tmp_path):
    folder(lambda image, path: Image.fromarray(image).save(path))
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_data(str(tmp_path))


@pytest.mark.parametrize('read', [read_data, read_test_data])
def test_what_is_there_instead_is_named(read, mnist, tmp_path):
    inside = tmp_path / 'MNIST/raw'
    inside.mkdir(parents=True)
    write_dataset(inside, *(a[:20] for a in mnist), ending='.gz')
    (tmp_path / 'classes/0').mkdir(parents=True)
    (tmp_path / 'mnist.npz').write_bytes(b'')
    for path, message in [
        (tmp_path, f'; {inside} holds such files'),
        (tmp_path / 'MNIST', f'; {inside} holds such files'),
        (tmp_path / 'classes', 'holds folders of classes; split their pictures into'),
        (tmp_path / 'mnist.npz', 'is a file; a data set is a folder (files such as .npz and'),
        (tmp_path / 'none', 'there is no such folder'),
    ]:
        with pytest.raises(ValueError, match=f'^{re.escape(str(path))}: .*{re.escape(message)}'):
            read(str(path))


@pytest.mark.parametrize(
    'white, factor', [(1, 255), (16, 15), (127, 2), (128, 1), (254, 1), (255, 1)]
)
def test_all_data_have_bright_pixels(white, factor, mnist, tmp_path):
    """Else pictures, whose pixels reach 255, would not look like the images the net knows."""
    sets = [(a[:20] > 127) * white if a.ndim == 3 else a[:20] for a in mnist]
    path = str(write_dataset(tmp_path / 'data', *sets))
    expected = [a * factor if a.ndim == 3 else a for a in sets]
    for a, b in zip(expected + expected[2:], (*read_data(path), *read_test_data(path))):
        assert b.dtype == (numpy.uint8 if a.ndim == 3 else numpy.int32)
        numpy.testing.assert_array_equal(a, b)


def test_both_sets_have_the_same_range(mnist, tmp_path):
    """Zeros and ones to train on, and bytes to test on: one of them was converted otherwise."""
    write_dataset(tmp_path, mnist[0][:20] // 128, mnist[1][:20], mnist[2][:20], mnist[3][:20])
    with pytest.raises(
        ValueError, match='training images end at 1, those of the test images at 2'
    ):
        read_data(str(tmp_path))
