"""Pictures of all kinds become images like those of MNIST."""

import itertools
import os
import tracemalloc

import numpy
from PIL import Image, ImageDraw
import pytest

from benchmarks import pictures

from pictures.layout import Layout
from pictures.digits import find_pictures, read_colours, read_digits, read_small
from pictures.drawings import draw_answers
from deploy.packed import PackedMLP, PackedNet
from helpers import ROOT
from support.files import read_npz


def read_digit(path, *layout):
    """The only digit of a picture."""
    (image,) = read_digits(path, *layout)
    return image


@pytest.fixture(scope='module')
def digit(mnist):
    return mnist[2][0]  # a seven


def transparent(digit, ink):
    rgba = numpy.full((28, 28, 4), ink, numpy.uint8)
    rgba[..., 3] = digit
    return Image.fromarray(rgba)


def turned(digit, path):
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by a quarter when it is shown
    Image.fromarray(255 - numpy.rot90(digit)).save(path, exif=exif, quality=95)


KINDS = {
    'light on dark.png': lambda d, path: Image.fromarray(d).save(path),
    'dark on light.png': lambda d, path: Image.fromarray(255 - d).save(path),
    'low contrast.png': lambda d, path: Image.fromarray((90 + d // 4).astype(numpy.uint8)).save(
        path
    ),
    'large.png': lambda d, path: (
        Image.fromarray(d).resize((840, 840), Image.Resampling.BICUBIC).save(path)
    ),
    'small.png': lambda d, path: (
        Image.fromarray(d).resize((16, 16), Image.Resampling.BOX).save(path)
    ),
    'photo.jpg': lambda d, path: (
        Image.fromarray(255 - d).resize((280, 280)).convert('RGB').save(path)
    ),
    'print.jpeg': lambda d, path: Image.fromarray(255 - d).convert('CMYK').save(path),
    '16 bits.png': lambda d, path: Image.fromarray(d.astype(numpy.uint16) * 257).save(path),
    '1 bit.png': lambda d, path: Image.fromarray(d > 127).save(path),
    'palette.png': lambda d, path: Image.fromarray(d).convert('P').save(path),
    'black ink.png': lambda d, path: transparent(d, 0).save(path),
    'white ink.png': lambda d, path: transparent(d, 255).save(path),
    'turned.jpg': turned,
    'in a corner.png': lambda d, path: Image.fromarray(numpy.pad(d, ((0, 70), (50, 0)))).save(
        path
    ),
}


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_gives_the_digit(digit, tmp_path, kind):
    KINDS[kind](digit, str(tmp_path / kind))
    image = read_digit(str(tmp_path / kind))
    assert image.dtype == numpy.uint8 and image.shape == (28, 28) and image.max() == 255
    likeness = numpy.corrcoef(image.ravel(), digit.ravel())[0, 1]
    assert likeness > (0.75 if kind == 'small.png' else 0.9)


@pytest.mark.parametrize(
    'layout',
    [
        Layout(),
        Layout(14, 14, 10, 10),
        Layout(56, 56, 56, 56),
        Layout(49, 16, 40, 16),
        Layout(28, 28, 20, 20, dark=1),
        Layout(28, 20, 20, 20, transposed=1),
    ],
)
def test_the_digit_fills_its_box_about_its_centre_of_mass(tmp_path, layout):
    picture = numpy.full((300, 200), 230, numpy.uint8)
    picture[50:250, 30:90] = 20
    Image.fromarray(picture).save(tmp_path / 'bar.png')
    image = read_digit(str(tmp_path / 'bar.png'), layout)
    assert image.shape == layout[:2]
    if layout.dark:
        image = 255 - image
    rows, columns = (numpy.flatnonzero(image > 100) for image in (image.max(1), image.max(0)))
    across = min(layout.height / 200, layout.width / 60)
    if layout.transposed:
        assert len(columns) == layout.width and abs(len(rows) - 0.3 * layout.width) <= 1
    else:
        assert abs(len(rows) - 200 * across) <= 1 and abs(len(columns) - 60 * across) <= 1
    for used, side in (rows, layout.rows), (columns, layout.columns):
        assert abs(used.mean() - side / 2) <= 0.5


def test_mnist_stays_nearly_as_it_is(mnist, tmp_path):
    likeness = []
    for image in mnist[2][:50]:
        Image.fromarray(image).save(tmp_path / 'image.png')
        likeness.append(
            numpy.corrcoef(read_digit(str(tmp_path / 'image.png')).ravel(), image.ravel())[0, 1]
        )
    assert numpy.median(likeness) > 0.97 and numpy.mean(likeness) > 0.95


@pytest.mark.parametrize('bits', [8, 12, 16])
def test_pictures_of_16_bits_may_use_fewer(mnist, tmp_path, bits):
    """A microscope's camera gives 12 bits, and some programs write their 8 into 16."""
    pixels = mnist[2][0].astype(numpy.float64) * (2**bits - 1) / 255
    Image.fromarray(numpy.rint(pixels).astype(numpy.uint16)).save(tmp_path / '16.png')
    (read,) = read_small([str(tmp_path / '16.png')], 28)
    numpy.testing.assert_array_equal(read, mnist[2][0])


def bad(folder, name):
    path = folder / name
    if name == 'blank.png':
        Image.new('RGB', (30, 40), 'white').save(path)
    elif name == 'one pixel.png':
        Image.new('L', (1, 1)).save(path)
    elif name == 'bomb.png':
        Image.new('1', (20000, 20000)).save(path)
    elif name == 'truncated.png':
        Image.fromarray(numpy.arange(900, dtype=numpy.uint8).reshape(30, 30)).save(path)
        path.write_bytes(path.read_bytes()[:-300])
    elif name == 'another format.png':
        Image.new('L', (9, 9)).save(path, format='GIF')
    elif name == 'text.png':
        path.write_text('seven')
    elif name == 'empty.png':
        path.write_bytes(b'')
    return str(path)


@pytest.mark.parametrize(
    'name',
    [
        'blank.png',
        'one pixel.png',
        'bomb.png',
        'truncated.png',
        'another format.png',
        'text.png',
        'empty.png',
    ],
)
def test_bad_pictures_are_named(tmp_path, name):
    path = bad(tmp_path, name)
    with pytest.raises(ValueError) as e:
        read_digit(path)
    assert str(e.value).startswith(f'{path}: ') and str(e.value).count(path) == 1


def test_a_missing_picture_keeps_the_words_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_digit(str(tmp_path / 'none.png'))


def test_folders(tmp_path):
    for name in 'b.png', 'a.JPG', 'notes.txt', 'c.jpeg':
        (tmp_path / name).write_bytes(b'')
    assert find_pictures([str(tmp_path), 'x']) == [
        *(str(tmp_path / name) for name in ('a.JPG', 'b.png', 'c.jpeg')),
        'x',
    ]
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='holds no picture'):
        find_pictures([str(tmp_path / 'empty')])


def test_wildcards(tmp_path):
    """Some shells expand them, those of Windows do not."""
    for name in 'a.png', 'b.png', 'c.jpg', '[a].png':
        (tmp_path / name).write_bytes(b'')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder/d.png').write_bytes(b'')
    for given, expected in [
        ('?.png', ['a.png', 'b.png']),
        ('[a].png', ['[a].png']),  # there is a file of that name
        ('fold*', [os.path.join('folder', 'd.png')]),
        ('*.gif', ['*.gif']),
    ]:
        found = find_pictures([str(tmp_path / given)])
        assert found == [str(tmp_path / name) for name in expected]


def page(*digits, shape=(300, 500)):
    """A white page with images of digits at some places, ten times as large."""
    grey = numpy.full(shape, 240, numpy.uint8)
    for image, row, column in digits:
        large = numpy.asarray(Image.fromarray(image).resize((140, 140), Image.Resampling.BICUBIC))
        part = grey[row : row + 140, column : column + 140]
        part -= (large * (200 / 255)).astype(numpy.uint8)
    return grey


def test_digits_in_a_row_are_read_from_left_to_right(mnist, tmp_path):
    a, b, c = mnist[2][:3]
    Image.fromarray(page((b, 60, 180), (a, 80, 20), (c, 70, 340))).save(tmp_path / 'row.png')
    images = read_digits(str(tmp_path / 'row.png'))
    assert len(images) == 3
    for image, expected in zip(images, (a, b, c)):
        assert numpy.corrcoef(image.ravel(), expected.ravel())[0, 1] > 0.85


def not_digits(name, mnist):
    rs = numpy.random.RandomState(0)
    if name == 'two rows':
        return page((mnist[2][0], 0, 30), (mnist[2][1], 160, 40)), 'in more than one row'
    if name == 'a thick line':
        grey = page()
        grey[140:170, 50:430] = 30
        return grey, 'wider than a digit'
    # A blank sheet, photographed: an uneven light, and the noise of the camera.
    light = numpy.linspace(230, 150, 500) + rs.normal(0, 6, (300, 500))
    return light.clip(0, 255).astype(numpy.uint8), 'shows nothing that stands out'


@pytest.mark.parametrize('name', ['two rows', 'a thick line', 'a blank sheet'])
def test_what_is_wrong_with_a_picture_is_said(mnist, tmp_path, name):
    grey, message = not_digits(name, mnist)
    Image.fromarray(grey).save(tmp_path / 'page.png')
    with pytest.raises(ValueError, match=message):
        read_digits(str(tmp_path / 'page.png'))


@pytest.mark.parametrize('condition', pictures.CONDITIONS)
def test_pictures_as_people_take_them(packed, mnist, tmp_path, condition, request):
    """Few of each in the usual tests, a hundred in the slow ones."""
    count = 100 if request.config.getoption('--slow') else 3
    images, labels = pictures.read_rightly(packed, mnist[2], mnist[3], count)
    right, _ = pictures.count_right(packed, condition, images, labels, str(tmp_path))
    assert right >= 0.95 * count


@pytest.fixture(scope='module')
def packed():
    return PackedMLP(PackedNet(read_npz(f'{ROOT}/results/binary.packed')))


@pytest.mark.slow
def test_a_huge_photo(mnist, tmp_path):
    """108 megapixels, as large as phones make them, are reduced by the decoder."""
    small = Image.fromarray(255 - numpy.pad(mnist[2][0], ((16,), (26,))))
    small.resize((12000, 9000)).save(tmp_path / 'photo.jpg')
    tracemalloc.start()
    picture = read_colours(str(tmp_path / 'photo.jpg'))
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()
    assert max(picture.size) == 512
    image = read_digit(str(tmp_path / 'photo.jpg'))
    assert numpy.corrcoef(image.ravel(), mnist[2][0].ravel())[0, 1] > 0.8


def test_the_answers_are_drawn(mnist, tmp_path, monkeypatch):
    """The picture in its colours, and under each digit its probability, clear of the next."""
    written = []

    def text(draw, at, words, fill, font, anchor='la'):
        written.append((words, draw.textbbox(at, words, font, anchor)))
        write(draw, at, words, fill, font, anchor)

    write = ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, 'text', text)
    path, images = str(tmp_path / 'row.png'), mnist[2][:6]
    ink = numpy.concatenate([255 - images[i] // 2 for i in range(6)], axis=1)
    Image.merge('RGB', [Image.fromarray(a) for a in (ink, ink, 0 * ink + 255)]).save(path)
    probabilities = [f'0.{i}00' for i in range(6)]
    answer = f'720414  {" ".join(probabilities)} (unsure, 7 or 1)'
    sheet = draw_answers([(path, images, answer)] * 5)
    assert [words for words, _ in written] == 5 * [
        *('row.png', '720414', '(unsure, 7 or 1)', *probabilities)
    ]
    boxes = [box for _, box in written[:9]]
    assert all(0 <= left and right <= sheet.width / 4 for left, _, right, _ in boxes)
    for a, b in itertools.combinations(boxes, 2):
        assert min(a[3], b[3]) <= max(a[1], b[1]) or min(a[2], b[2]) + 4 <= max(a[0], b[0])
    assert (128, 128, 255) in [colour for _, colour in sheet.getcolors(10**6)]
