"""Data sets as folders of pictures: train/3/x.png, test/3/y.png, and so on."""

import os

import numpy

from data import check_sets, read_mnist, read_test_set

AS_THEY_ARE = 64  # pixels of a side up to which pictures of one size are not prepared


def read_data(folder):
    """Reads a data set in MNIST's format (see :func:`data.read_mnist`) or as folders of pictures.

    In ``train`` and ``test``, the folder of a class has its number, from 0 on, as its name. Small
    pictures of one and the same size are taken as they are; otherwise each must show one digit,
    which is placed as those of MNIST are.

    Args:
        folder (str): The folder.

    Returns:
        tuple: Training images, training labels, test images, test labels, as by
        :func:`data.read_mnist`.

    Raises:
        ValueError: If a file or folder is not as it must be; the message names it.
        OSError: If a file cannot be opened.
    """
    if not _holds_pictures(folder, 'train'):
        return read_mnist(folder)
    sets = *_read(folder, 'train'), *_read(folder, 'test')
    check_sets(folder, *sets)
    return sets


def read_test_data(folder):
    """Reads the test images and labels alone: see :func:`read_data`."""
    return _read(folder, 'test') if _holds_pictures(folder, 'test') else read_test_set(folder)


def _holds_pictures(folder, name):
    return os.path.isdir(os.path.join(folder, name))


def _read(folder, name):
    try:
        from pictures.digits import find_pictures, read_digits, read_small
    except ImportError as e:
        raise ValueError(f'pictures need Pillow and SciPy (pip install pillow scipy): {e}') from e
    folder = os.path.join(folder, name)
    if not os.path.isdir(folder):
        raise ValueError(f'{folder}: there is no such folder')
    paths, labels = [], []
    for label in sorted(os.listdir(folder)):
        inside = os.path.join(folder, label)
        if label.startswith('.') or not os.path.isdir(inside):
            continue
        if not (label.isdecimal() and label.isascii() and int(label) < 10**4):
            raise ValueError(f'{inside}: name the folders of the classes 0, 1, 2 and so on')
        found = find_pictures([inside])
        paths += found
        labels += [int(label)] * len(found)
    if not paths:
        raise ValueError(f'{folder}: holds no folders of pictures, named 0, 1, 2 and so on')
    images = read_small(paths, AS_THEY_ARE)
    if images is None:
        images = []
        for path in paths:
            digits = read_digits(path)
            if len(digits) > 1:
                raise ValueError(f'{path}: shows {len(digits)} digits; a picture must show one')
            images.append(digits[0])
    return numpy.stack(images), numpy.array(labels, numpy.int32)
