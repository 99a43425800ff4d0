"""Picture files to images like those of MNIST: one bright digit on black, scaled and centred."""

import os
import warnings

import numpy
from PIL import Image, ImageOps

ENDINGS = '.png', '.jpg', '.jpeg'


def find_pictures(paths):
    """The given pictures, and those in the given folders, sorted by name and without hidden files.

    Raises:
        ValueError: If there is no such file, or a folder holds no picture.
    """
    found = []
    for path in paths:
        if os.path.isdir(path):
            names = sorted(
                name
                for name in os.listdir(path)
                if name.lower().endswith(ENDINGS) and not name.startswith('.')
            )
            if not names:
                raise ValueError(f'{path}: holds no picture ({", ".join(ENDINGS)})')
            found += [os.path.join(path, name) for name in names]
        else:
            found.append(path)
    return found


def _grey(path):
    """The picture as a float array of shape (rows, columns), from 0 (black) to 255."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        with Image.open(path, formats=('PNG', 'JPEG')) as picture:
            picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith('I') or picture.mode == 'F':  # 16 bits
                grey = numpy.asarray(picture, numpy.float32) / 257
            else:
                if 'A' in picture.mode or 'transparency' in picture.info:
                    picture = picture.convert('RGBA')
                    alpha = numpy.asarray(picture)[..., 3] / 255.0
                    ink = numpy.asarray(picture.convert('L'), numpy.float32)
                    # A background with contrast: white behind dark ink, black behind light ink.
                    ground = 255.0 if (alpha * (255 - ink)).sum() >= (alpha * ink).sum() else 0.0
                    return alpha * ink + (1 - alpha) * ground
                grey = numpy.asarray(picture.convert('L'), numpy.float32)
    return grey


def read_digit(path, side=28):
    """Reads a picture of one digit, dark on light or light on dark, of any size.

    The digit is scaled and centred as those of MNIST were: its longer side becomes 20 of 28
    pixels, its proportions are kept, and its centre of mass is placed in the middle. The border
    shows the background; whatever differs from it by less than a fifth of the largest difference
    counts as background, too.

    Args:
        path (str): PNG or JPEG file.
        side (int): Rows and columns of the result.

    Returns:
        array: uint8 array of shape (side, side), the digit bright on black.

    Raises:
        ValueError: If it is not a PNG or JPEG file, or shows nothing; the message names it.
        OSError: If the file cannot be opened.

    Source: the steps are those described with MNIST itself, http://yann.lecun.com/exdb/mnist/.
    """
    with open(path, 'rb'):
        pass  # let open() raise its own error
    try:
        grey = _grey(path)
    except Exception as e:  # An untrusted file can make Pillow raise anything.
        raise ValueError(f'{path}: not a valid PNG or JPEG file: {e}') from e
    ground = numpy.median(numpy.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    ink = grey - ground
    if abs(ink.min()) > ink.max():
        ink = -ink
    if ink.max() < 16:
        raise ValueError(f'{path}: shows nothing that stands out from its background')
    ink = numpy.where(ink < ink.max() / 5, 0, ink / ink.max())
    rows, columns = numpy.flatnonzero(ink.any(axis=1)), numpy.flatnonzero(ink.any(axis=0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    box = round(side * 20 / 28)
    size = [max(1, round(n * box / max(ink.shape))) for n in ink.shape]
    small = numpy.asarray(
        Image.fromarray(ink.astype(numpy.float32)).resize(
            (size[1], size[0]),
            Image.Resampling.BOX if max(ink.shape) > box else Image.Resampling.BICUBIC,
        )
    )
    small = numpy.clip(small / small.max(), 0, 1)
    image = numpy.zeros((side, side), numpy.uint8)
    # The middle of MNIST's images is the pixel in row and column 14, counted from 0.
    start = [
        int(
            numpy.clip(
                round(side / 2 - small.sum(axis=1 - axis) @ numpy.arange(n) / small.sum()),
                0,
                side - n,
            )
        )
        for axis, n in enumerate(size)
    ]
    image[start[0] : start[0] + size[0], start[1] : start[1] + size[1]] = numpy.rint(255 * small)
    return image
