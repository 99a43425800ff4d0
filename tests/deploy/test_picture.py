"""Pictures of all kinds become images like those of MNIST."""

import numpy
from PIL import Image
import pytest

from deploy.picture import find_pictures, read_digit


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


@pytest.mark.parametrize('side', [28, 14, 56, 9])
def test_the_digit_fills_its_box_about_its_centre_of_mass(tmp_path, side):
    picture = numpy.full((300, 200), 230, numpy.uint8)
    picture[50:250, 30:90] = 20
    Image.fromarray(picture).save(tmp_path / 'bar.png')
    image = read_digit(str(tmp_path / 'bar.png'), side)
    rows, columns = (numpy.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    assert len(rows) == round(side * 20 / 28) and abs(len(columns) - 0.3 * len(rows)) <= 1
    for used in rows, columns:
        assert abs(used.mean() - side / 2) <= 0.5


def test_mnist_stays_nearly_as_it_is(mnist, tmp_path):
    likeness = []
    for image in mnist[2][:50]:
        Image.fromarray(image).save(tmp_path / 'image.png')
        likeness.append(
            numpy.corrcoef(read_digit(str(tmp_path / 'image.png')).ravel(), image.ravel())[0, 1]
        )
    assert numpy.median(likeness) > 0.97 and numpy.mean(likeness) > 0.95


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
    assert str(e.value).startswith(f'{path}: ')


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
