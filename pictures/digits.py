"""Picture files to images like MNIST: bright digits on black, scaled and centred."""

import contextlib
import glob
import os

import numpy
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
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
            if not os.path.isdir(path):
                found.append(path)
                continue
            names = [n for n in sorted(os.listdir(path)) if n.lower().endswith(ENDINGS)]
            inside = [os.path.join(path, name) for name in names if name[0] != '.']
            if not inside:
                raise ValueError(f'{path}: holds no picture ({", ".join(ENDINGS)})')
            found += inside
    return found


@contextlib.contextmanager
def _opened(path):
    check_regular(path)
    with open(path, 'rb') as f:  # may raise its own error
        kind = {b'\x89P': PngImageFile, b'\xff\xd8': JpegImageFile}.get(f.read(2))
    if not kind:
        raise ValueError(f'{path}: not a PNG or JPEG file')
    try:
        with kind(path) as picture:
            # JPEG's decoder itself reduces a huge photo, so that it takes little memory.
            picture.draft(None, (2 * WORK, 2 * WORK))
            if picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            yield picture
    except Image.DecompressionBombError as e:
        raise ValueError(f'{path}: has too many pixels') from e
    except Exception as e:  # An untrusted file can make Pillow raise anything.
        raise ValueError(f'{path}: not a valid PNG or JPEG file: {e}') from e


def read_colours(path):
    """Reads a PNG or JPEG file as it is meant to be seen, reduced if it is large.

    Args:
        path (str): The file.

    Returns:
        ~PIL.Image.Image: The picture, of at most 512 rows and columns, without transparency.

    Raises:
        ValueError: If it is not a PNG or JPEG file; the message names it.
        OSError: If the file cannot be opened.
    """
    with _opened(path) as picture:
        return _flatten(ImageOps.exif_transpose(picture))


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
            images.append(numpy.asarray(_flatten(picture).convert('L')))
    return images


def _flatten(picture):
    """A picture in 8 bits, reduced if it is large, on a ground that its ink stands out from."""
    if picture.mode.startswith('I') or picture.mode == 'F':
        # Pixels have 16 bits, but some programs use only the lower 8 or 12.
        grey = numpy.asarray(picture, numpy.float32)
        white = next((w for w in (2**8, 2**12) if grey.max() < w), 2**16) - 1
        grey = numpy.rint(grey * (255 / white)).clip(0, 255)
        picture = Image.fromarray(grey.astype(numpy.uint8))
    picture = picture.convert('RGBA')
    picture.thumbnail((WORK, WORK), Image.Resampling.BOX)
    grey, alpha = (numpy.asarray(picture.convert('LA'), numpy.float32)[..., i] for i in (0, 1))
    ground = 255 if (alpha * (grey - 127.5)).sum() <= 0 else 0
    return Image.alpha_composite(Image.new('RGBA', picture.size, (ground,) * 3), picture)


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
    size = max(3, round(max(grey.shape) / 3))
    # Half of what surrounds a straight edge of a shadow is lighter and half is darker, so strokes
    # decide whether what stands out is lighter than the mean of its surroundings.
    apart = grey - ndimage.uniform_filter(ndimage.uniform_filter(grey, size), size)
    if (apart.astype(numpy.float64) ** 3).sum() > 0:
        grey = 255 - grey
    padded = numpy.pad(grey, size, 'edge')  # what reaches the border goes on beyond it
    paper = ndimage.grey_closing(padded, size=size)[size:-size, size:-size]
    light = numpy.median(paper)
    # Ink takes away a share of the light, so the difference is smaller in a shadow.
    ink = (paper - grey) / numpy.clip(paper / max(1, light), 0.4, None)
    for axis in 0, 1:  # The table is not paper.
        on_paper = numpy.flatnonzero(numpy.median(paper, axis=1 - axis) >= light / 2)
        ink = ink.take(numpy.arange(on_paper[0], on_paper[-1] + 1), axis)
    ink = numpy.maximum(ink - numpy.median(ink), 0)
    ink = numpy.maximum(ink - _lines(ink), 0)
    return numpy.maximum(ink - _lines(ink.T).T, 0)


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
    digits = _group(_choose(labels))
    boxes = ndimage.find_objects(digits)
    heights, widths = ([s.stop - s.start for s in sides] for sides in zip(*boxes))
    found = [k for k in range(len(boxes)) if heights[k] >= 0.4 * max(heights)]
    found.sort(key=lambda k: boxes[k][1].start)
    for a, b in zip(found, found[1:]):
        if boxes[a][1].stop > boxes[b][1].start:
            raise ValueError('shows digits, or something else, in more than one row')
    if any(widths[k] > 1.8 * heights[k] for k in found):
        raise ValueError('shows something wider than a digit: digits that touch, or no digit')
    return [_cut(ink, strokes, digits == k + 1) for k in found]


def _strokes(ink):
    """Which pixels are ink: those above Otsu's threshold, if it separates two levels."""
    counts, edges = numpy.histogram(ink, 256, (0, max(LEAST, ink.max())))
    values = (edges[1:] + edges[:-1]) / 2
    below = numpy.cumsum(counts)[:-1]
    above = ink.size - below
    sums = numpy.cumsum(counts * values)
    difference = (sums[-1] - sums[:-1]) / numpy.maximum(above, 1) - sums[:-1] / below
    best = (below * above * difference**2).argmax()
    return ink > (edges[best + 1] if difference[best] >= LEAST else numpy.inf)


def _choose(labels):
    """Leaves out frames around the rest, specks, and what the border cuts off."""
    boxes = [[(side.start, side.stop) for side in box] for box in ndimage.find_objects(labels)]
    low, high = numpy.transpose(boxes, (2, 0, 1))
    size, area = high - low, numpy.bincount(labels.ravel())[1:]
    kept = area > 0
    for i in numpy.flatnonzero(area < 0.3 * size.prod(axis=1)):
        within = ((low[i] < low) & (high < high[i])).all(axis=1)
        matter = (size[:, 0] > 0.08 * size[i, 0]) & (area > 0.05 * area[i])
        kept[i] = not (within & matter).any()
    largest = area[kept].max()
    kept &= area > 0.04 * largest
    whole = kept & (low > 0).all(axis=1) & (high < labels.shape).all(axis=1)
    if (area[whole] > 0.1 * largest).any():
        kept = whole
    return numpy.where(numpy.append(False, kept)[labels], labels, 0)


def _group(labels):
    """Joins parts whose boxes lie close together and overlap, or nearly, from left to right."""
    boxes = list(filter(None, ndimage.find_objects(labels)))
    tallest = max(rows.stop - rows.start for rows, _ in boxes)
    reach = int(0.125 * tallest), int(0.02 * tallest)  # half of the largest gap
    blocks = numpy.zeros(labels.shape, bool)
    for box in boxes:
        blocks[tuple(slice(max(0, s.start - r), s.stop + r) for s, r in zip(box, reach))] = True
    return numpy.where(labels, ndimage.label(blocks)[0], 0)


def _cut(ink, strokes, own):
    """The ink of one digit, from 0 to 1, cut out with the soft edges of its strokes."""
    near = ndimage.binary_dilation(own, numpy.ones((3, 3)), max(1, max(ink.shape) // 150))
    ink = numpy.where(near & (own | ~strokes), ink, 0)
    ink = numpy.clip(ink / numpy.percentile(ink[own], 75), 0, 1)
    ink[ink < 0.2] = 0
    return ink[ndimage.find_objects((ink > 0).astype(int))[0]]


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
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    small = numpy.asarray(Image.fromarray(ink.astype(numpy.float32)).resize(size[::-1], how))
    small = numpy.clip(small / small.max(), 0, 1)
    image = numpy.zeros((layout.rows, layout.columns), numpy.uint8)
    # The middle of MNIST's images is the pixel in row and column 14, counted from 0.
    top, left = (
        int(numpy.clip(round(side / 2 - centre), 0, side - n))
        for side, centre, n in zip(image.shape, ndimage.center_of_mass(small), size)
    )
    image[top : top + size[0], left : left + size[1]] = numpy.rint(255 * small)
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
    grey = numpy.asarray(read_colours(path).convert('L'), numpy.float32)
    try:
        digits = find_digits(find_ink(grey))
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    return numpy.stack([place(digit, layout) for digit in digits])
