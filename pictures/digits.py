"""Picture files to images like MNIST: bright digits on black, scaled and centred."""

import contextlib
import glob
import os
import typing
import warnings

import numpy
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from scipy import ndimage

from data import check_regular
from pictures.layout import Layout

ENDINGS = '.png', '.jpg', '.jpeg'
WORK = 512  # pixels of the longer side at which a picture is searched for digits
LEAST = 12  # grey levels by which ink differs from paper


def find_pictures(paths):
    """The given pictures, and those in the given folders by name, except hidden files.

    Wildcards are expanded here because the shells of Windows leave them to the programs.

    Raises:
        ValueError: If a folder holds no picture.
    """
    found = []
    for given in paths:
        for path in [given] if os.path.exists(given) else sorted(glob.glob(given)) or [given]:
            found += _pictures_in(path) if os.path.isdir(path) else [path]
    return found


def _pictures_in(folder):
    names = sorted(n for n in os.listdir(folder) if n.lower().endswith(ENDINGS) and n[0] != '.')
    if not names:
        raise ValueError(f'{folder}: holds no picture ({", ".join(ENDINGS)})')
    return [os.path.join(folder, name) for name in names]


@contextlib.contextmanager
def _opened(path, mode='L'):
    check_regular(path)
    with open(path, 'rb') as f:  # may raise its own error
        is_jpeg = f.read(2) == b'\xff\xd8'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            if is_jpeg:
                picture = JpegImageFile(path)
                # The decoder itself reduces a huge photo, so that it takes little memory.
                picture.draft(mode, (2 * WORK, 2 * WORK))
                if picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
                    raise Image.DecompressionBombError
            else:
                picture = Image.open(path, formats=('PNG',))
            with picture:
                yield picture
    except UnidentifiedImageError as e:
        raise ValueError(f'{path}: not a PNG or JPEG file') from e
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as e:
        raise ValueError(f'{path}: has too many pixels') from e
    except Exception as e:  # An untrusted file can make Pillow raise anything.
        raise ValueError(f'{path}: not a valid PNG or JPEG file: {e}') from e


def read_grey(path):
    """Reads a PNG or JPEG file as it is meant to be seen, reduced if it is large.

    Args:
        path (str): The file.

    Returns:
        array: float32 array of shape (rows, columns), each at most 512, from 0 (black) to 255.

    Raises:
        ValueError: If it is not a PNG or JPEG file; the message names it.
        OSError: If the file cannot be opened.
    """
    with _opened(path) as picture:
        return _reduce(_grey(ImageOps.exif_transpose(picture)), WORK)


def read_colours(path):
    """Reads a PNG or JPEG file as :func:`read_grey` does, in colour where it has 8 bits.

    Returns:
        ~PIL.Image.Image: The picture, of mode RGBA without transparency, or L.
    """
    with _opened(path, 'RGB') as picture:
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith('I') or picture.mode == 'F':
            return Image.fromarray(_reduce(_grey(picture), WORK).clip(0, 255).astype(numpy.uint8))
        picture = picture.convert('RGBA')
        picture.thumbnail((WORK, WORK))
        ground = Image.new('RGBA', picture.size, (_layers(picture)[2],) * 3)
        return Image.alpha_composite(ground, picture)


def read_small(paths, largest):
    """Reads small pictures of one size as they are.

    Args:
        paths (list of str): PNG or JPEG files.
        largest (int): Pixels of the longer side up to which pictures are small.

    Returns:
        list of array: uint8 arrays; None if the pictures are larger, or of several sizes.

    Raises:
        ValueError: If a file is not a PNG or JPEG file; the message names it.
        OSError: If a file cannot be opened.
    """
    images, sizes = [], set()
    for path in paths:
        with _opened(path) as picture:
            sizes.add(picture.size)
            if len(sizes) > 1 or max(picture.size) > largest:
                return None
            grey = _grey(picture)
        images.append(numpy.rint(grey).clip(0, 255).astype(numpy.uint8))
    return images


def _grey(picture):
    if picture.mode.startswith('I') or picture.mode == 'F':
        # Pixels have 16 bits, but some programs use only the lower 8 or 12.
        grey = numpy.asarray(picture, numpy.float32)
        white = next((w for w in (2**8, 2**12) if grey.max() < w), 2**16) - 1
        return grey * (255 / white)
    if 'A' in picture.mode or 'transparency' in picture.info:
        ink, alpha, ground = _layers(picture.convert('RGBA'))
        return alpha * ink + (1 - alpha) * numpy.float32(ground)
    return numpy.asarray(picture.convert('L'), numpy.float32)


def _layers(picture):
    """The ink of an RGBA picture, its opacity, and a ground with contrast: black or white."""
    alpha = numpy.asarray(picture)[..., 3] / numpy.float32(255)
    ink = numpy.asarray(picture.convert('L'), numpy.float32)
    dark = (alpha * (255 - ink)).sum() >= (alpha * ink).sum()
    return ink, alpha, 255 if dark else 0


def _resize(a, shape):
    """Resizes a float array, by averaging where it becomes smaller."""
    smaller = a.shape[0] > shape[0]
    how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    return numpy.asarray(Image.fromarray(a.astype(numpy.float32)).resize(shape[::-1], how))


def _reduce(a, side):
    """Reduces an array, if it is larger, to this number of pixels in its longer side."""
    factor = max(1, max(a.shape) / side)
    return _resize(a, [max(1, round(n / factor)) for n in a.shape])


def find_ink(grey):
    """Separates ink from paper, whatever the light.

    Ink is what differs from its surroundings and is narrower than a third of the picture (the
    top-hat transform). The edge of a shadow or of a table is not, as all beyond it is dark.

    Args:
        grey (array): float32 array of shape (rows, columns).

    Returns:
        array: float32 array of that shape, or less where there is no paper at the border: how much
        ink differs from the paper, 0 or more.
    """
    grey = ndimage.gaussian_filter(grey, 0.003 * max(grey.shape))
    light_on_dark = _is_light_on_dark(grey)
    if light_on_dark:
        grey = 255 - grey
    size = max(3, round(max(grey.shape) / 3))
    padded = numpy.pad(grey, size, 'edge')  # what reaches the border goes on beyond it
    paper = ndimage.grey_closing(padded, size=size)[size:-size, size:-size]
    ink = paper - grey
    if not light_on_dark:
        # Ink takes away a share of the light, so the difference is smaller in a shadow.
        light = paper / max(1, numpy.median(paper))
        ink /= numpy.clip(light, 0.4, None)
        for axis in 0, 1:  # The table is not paper.
            on_paper = numpy.flatnonzero(numpy.median(light, axis=1 - axis) > 0.5)
            if on_paper.size:
                ink = ink.take(numpy.arange(on_paper[0], on_paper[-1] + 1), axis)
    ink = numpy.maximum(ink - numpy.median(ink), 0)
    ink = numpy.maximum(ink - _lines(ink), 0)
    return numpy.maximum(ink - _lines(ink.T).T, 0)


def _is_light_on_dark(grey):
    """Whether what stands out is lighter than the mean of its surroundings.

    Half of what surrounds a straight edge of a shadow is lighter and half is darker, so only
    strokes count.
    """
    small = _reduce(grey, 64)
    surroundings = ndimage.gaussian_filter(small, max(small.shape) / 8, mode='reflect')
    return ((small - surroundings).astype(numpy.float64) ** 3).sum() > 0


def _lines(ink):
    """The lines printed on the paper: ink that runs straight from the left edge to the right."""
    rows, columns = ink.shape
    if min(rows, columns) < 40:
        return numpy.zeros_like(ink)
    best, lines = 0, numpy.zeros_like(ink)
    # A few columns are enough to see a line: some across the page, and those at its borders.
    some = numpy.r_[0:3, 3 : columns - 3 : 4, columns - 3 : columns]
    for slope in numpy.linspace(-0.06, 0.06, 25):
        shift = numpy.rint(slope * numpy.arange(columns)).astype(int)
        level = ink[(numpy.arange(rows)[:, None] + shift[some]) % rows, some]
        parts = [numpy.median(part, axis=1) for part in (level, level[:, :3], level[:, -3:])]
        profile = numpy.minimum.reduce([part - numpy.median(part) for part in parts]).clip(0)
        energy = (profile**2).sum()
        if energy > best:
            best = energy
            profile = ndimage.maximum_filter1d(profile, 3, mode='nearest')
            lines = profile[(numpy.arange(rows)[:, None] - shift) % rows]
    return lines


def find_digits(ink):
    """Finds digits that stand in a row.

    Connected strokes make up a digit if they overlap from left to right and lie close together.
    Specks, frames, and what the border cuts off are left out.

    Args:
        ink (array): Float array of shape (rows, columns), as :func:`find_ink` returns it.

    Returns:
        list of array: The ink of each digit from left to right, cut out, from 0 to 1.

    Raises:
        ValueError: If there is no ink, or it is not digits in a row.
    """
    strokes = _strokes(ink)
    labels, count = ndimage.label(strokes, numpy.ones((3, 3)))
    if not count:
        raise ValueError('shows nothing that stands out from its background')
    areas = numpy.bincount(labels.ravel())
    parts = []
    for i, box in enumerate(ndimage.find_objects(labels), 1):
        low, high = numpy.transpose([(side.start, side.stop) for side in box])
        parts.append(_Part(low, high, [i], areas[i]))
    if count > 1:
        parts = _choose(parts, strokes.shape)
    digits = _group(parts)
    tallest = max(digit.height for digit in digits)
    digits = sorted((d for d in digits if d.height >= 0.4 * tallest), key=lambda d: d.low[1])
    for a, b in zip(digits, digits[1:]):
        if a.high[1] > b.low[1]:
            raise ValueError('shows digits, or something else, in more than one row')
    if any(digit.width > 1.8 * digit.height for digit in digits):
        raise ValueError('shows something wider than a digit: digits that touch, or no digit')
    return [_cut(ink, strokes, labels, digit) for digit in digits]


class _Part(typing.NamedTuple):
    """A part of a digit, or a digit: connected strokes with these labels, and the box around."""

    low: numpy.ndarray  # row and column
    high: numpy.ndarray
    labels: list
    area: int

    @property
    def height(self):
        return self.high[0] - self.low[0]

    @property
    def width(self):
        return self.high[1] - self.low[1]


def _strokes(ink):
    """Which pixels are ink: those above Otsu's threshold, if it separates more than noise."""
    nothing = numpy.zeros(ink.shape, bool)
    if ink.max() < LEAST:
        return nothing
    counts, edges = numpy.histogram(ink, 256)
    values = (edges[1:] + edges[:-1]) / 2
    below = numpy.cumsum(counts)[:-1]
    above = ink.size - below
    sums = numpy.cumsum(counts * values)
    difference = (sums[-1] - sums[:-1]) / numpy.maximum(above, 1) - sums[:-1] / below
    best = (below * above * difference**2).argmax()
    noise = 1.4826 * numpy.median(abs(ink - numpy.median(ink)))
    if difference[best] < max(LEAST, 5 * noise):
        return nothing
    return ink > edges[best + 1]


def _choose(parts, shape):
    """Leaves out frames around the rest, specks, and what the border cuts off."""

    def frames(a, b):
        around = (a.low < b.low).all() and (b.high < a.high).all()
        thin = a.area < 0.3 * a.height * a.width
        return around and thin and b.height > 0.08 * a.height and b.area > 0.05 * a.area

    parts = [p for p in parts if not any(frames(p, other) for other in parts)]
    largest = max(p.area for p in parts)
    parts = [p for p in parts if p.area > 0.04 * largest]
    whole = [p for p in parts if p.low.all() and (p.high < shape).all()]
    return whole if any(p.area > 0.1 * largest for p in whole) else parts


def _group(parts):
    """Joins parts that lie close together and overlap, or nearly, from left to right."""
    tallest = max(part.height for part in parts)
    digits = []
    for part in sorted(parts, key=lambda p: p.low[1]):
        apart = []
        for other in digits:
            low, high = numpy.maximum(part.low, other.low), numpy.minimum(part.high, other.high)
            if low[0] - high[0] < 0.25 * tallest and low[1] - high[1] < 0.04 * tallest:
                part = _Part(
                    numpy.minimum(part.low, other.low),
                    numpy.maximum(part.high, other.high),
                    part.labels + other.labels,
                    part.area + other.area,
                )
            else:
                apart.append(other)
        digits = [*apart, part]
    return digits


def _cut(ink, strokes, labels, digit):
    """The ink of one digit, from 0 to 1, cut out with the soft edges of its strokes."""
    own = numpy.isin(labels, digit.labels)
    near = ndimage.binary_dilation(own, numpy.ones((3, 3)), max(1, max(ink.shape) // 150))
    ink = numpy.where(near & (own | ~strokes), ink, 0)
    ink = numpy.clip(ink / numpy.percentile(ink[own], 75), 0, 1)
    ink[ink < 0.2] = 0
    rows, columns = (numpy.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def place(ink, layout=Layout()):
    """Scales and centres a digit as MNIST's were.

    It fills the box (20 of 28 pixels) in height or width, its proportions are kept, and
    its centre of mass is placed in the middle of the image.

    Args:
        ink (array): Float array of shape (rows, columns), from 0 to 1: the digit cut out.
        layout (Layout): How the digit is to lie in the image.

    Returns:
        array: uint8 array of shape (layout.rows, layout.columns).

    Source: the steps are described with MNIST itself, http://yann.lecun.com/exdb/mnist/.
    """
    if layout.transposed:
        ink = ink.T
    scale = min(layout.height / ink.shape[0], layout.width / ink.shape[1])
    size = [max(1, round(n * scale)) for n in ink.shape]
    small = _resize(ink, size)
    small = numpy.clip(small / small.max(), 0, 1)
    image = numpy.zeros((layout.rows, layout.columns), numpy.uint8)
    start = []
    for axis, (n, side) in enumerate(zip(size, image.shape)):
        # The middle of MNIST's images is the pixel in row and column 14, counted from 0.
        centre = small.sum(axis=1 - axis) @ numpy.arange(n) / small.sum()
        start.append(int(numpy.clip(round(side / 2 - centre), 0, side - n)))
    image[start[0] : start[0] + size[0], start[1] : start[1] + size[1]] = numpy.rint(255 * small)
    return 255 - image if layout.dark else image


def read_digits(path, layout=Layout()):
    """Reads a picture of one digit, or of several that stand clearly apart in a row.

    Args:
        path (str): PNG or JPEG file: dark on light or light on dark, of any size.
        layout (Layout): How the digits are to lie in the images.

    Returns:
        array: uint8 array of shape (n, layout.rows, layout.columns), the digits from left to
        right.

    Raises:
        ValueError: If it is not a PNG or JPEG file, or does not show digits in a row; the message
            names it.
        OSError: If the file cannot be opened.
    """
    grey = read_grey(path)
    try:
        digits = find_digits(find_ink(grey))
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    return numpy.stack([place(digit, layout) for digit in digits])
