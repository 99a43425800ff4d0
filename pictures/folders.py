"""Data sets: the files of MNIST, or folders of pictures (train/3/x.png, test/3/y.png, ...)."""

import contextlib
import glob
import os

import numpy

from data import check_sets, read_mnist, read_test_set

TRAIN, TEST = ('train', 'training'), ('test', 'testing')
AS_THEY_ARE = 64  # pixels of a side up to which pictures of one size are not prepared


@contextlib.contextmanager
def needing_packages():
    """Makes an ImportError of the block a ValueError that says which packages pictures need."""
    try:
        yield
    except ImportError as e:
        raise ValueError(f'pictures need Pillow and SciPy (pip install pillow scipy): {e}') from e


def read_data(folder):
    """Reads a data set in MNIST's format (see :func:`data.read_mnist`) or as folders of pictures.

    In ``train`` and ``test`` (or ``training`` and ``testing``), the folders of the classes are
    named 0, 1 and so on. Small pictures of one size are taken as they are; otherwise each must
    show one digit, which is placed as in MNIST.

    Args:
        folder (str): The folder.

    Returns:
        tuple: Training images, training labels, test images and test labels, as from
        :func:`data.read_mnist`. If no pixel exceeds 127, all are scaled up to 255 or nearly so.

    Raises:
        ValueError: If a file or folder is invalid; the message names it.
        OSError: If a file cannot be opened.
    """
    if _is_mnist(folder):
        sets = read_mnist(folder)
    else:
        sets = check_sets(folder, *_read(folder, TRAIN), *_read(folder, TEST))
    train_white, test_white = int(sets[0].max()), int(sets[2].max())
    if max(train_white, test_white) > 2 * min(train_white, test_white):
        raise ValueError(
            f'{folder}: the pixels of the training images end at {train_white}, those of the test '
            f'images at {test_white}; give both the same range'
        )
    return _to_full_range(*sets)


def read_test_data(folder):
    """Reads the test images and labels alone: see :func:`read_data`."""
    return _to_full_range(*(read_test_set(folder) if _is_mnist(folder) else _read(folder, TEST)))


def _to_full_range(*sets):
    """Scales images whose white is, say, 1 or 16 to the full range of a byte."""
    factor = 255 // max(1, *(int(images.max()) for images in sets[::2]))
    if factor == 1:
        return sets
    return tuple(a if i % 2 else a * numpy.uint8(factor) for i, a in enumerate(sets))


def _is_mnist(folder):
    return bool(glob.glob(os.path.join(glob.escape(folder), '*[-.]idx[13]-ubyte*')))


def _find(folder, names):
    """Finds the subfolder with one of these names; the ValueError says what is there instead."""
    for name in names:
        inside = os.path.join(folder, name)
        if os.path.isdir(inside):
            return inside
    below = os.path.join(glob.escape(folder), '*', '')
    deeper = [*filter(_is_mnist, glob.glob(below) + glob.glob(os.path.join(below, '*', '')))][:3]
    if not os.path.exists(folder):
        problem = 'there is no such folder'
    elif not os.path.isdir(folder):
        problem = 'is a file; a data set is a folder (files such as .npz and .csv are not read)'
    elif glob.glob(os.path.join(glob.escape(folder), '[0-9]', '')):
        problem = (
            'holds folders of classes; split their pictures into those to train on, in train/0, '
            'train/1 and so on, and those to test on, in test/0, test/1 and so on'
        )
    else:
        problem = f'holds neither the IDX files of MNIST nor a folder {names[0]} of pictures'
        problem += ''.join(f'; {os.path.dirname(path)} holds such files' for path in deeper)
    raise ValueError(f'{folder}: {problem}')


def _read(folder, names):
    folder = _find(folder, names)
    with needing_packages():
        from pictures.digits import find_pictures, read_digits, read_small
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
    images = read_small(paths, AS_THEY_ARE) or []
    for path in paths[len(images) :]:  # all, or none
        digits = read_digits(path)
        if len(digits) > 1:
            raise ValueError(f'{path}: shows {len(digits)} digits; a picture must show one')
        images.append(digits[0])
    return numpy.stack(images), numpy.array(labels, numpy.int32)
