#!/usr/bin/env python3
"""Renders test images of MNIST as the pictures that people take, and counts how many are read.

    .venv/bin/python benchmarks/pictures.py results/binary.packed [--images 100]

The images are the first that the net classifies correctly from their own pixels, so every miss is
a miss of pictures/digits.py. Every rendering is a function of the seed.
"""

import argparse
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numpy
from PIL import Image, ImageFilter

from data import MNIST, read_test_set
from pictures.digits import read_digits
from inference import load

PAPER, INK = 232.0, 45.0


class Page:
    """A grey page, with a digit as coverage by ink from 0 to 1."""

    def __init__(self, image, rs, shape=None, size=None, place=None, angle=0.0):
        self.rs = rs
        if shape is None:
            shape = tuple(int(n) for n in rs.randint(260, 520, 2))
        if size is None:
            size = int(min(shape) * rs.uniform(0.45, 0.7))
        digit = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        if angle:
            digit = digit.rotate(angle, Image.Resampling.BICUBIC)
        # A pen leaves an even stroke with a narrow edge.
        coverage = numpy.clip(numpy.asarray(digit, numpy.float32) / 255 * 2.2 - 0.6, 0, 1)
        self.coverage = numpy.zeros(shape, numpy.float32)
        if place is None:
            place = [(n - size) // 2 for n in shape]
        self.coverage[place[0] : place[0] + size, place[1] : place[1] + size] = coverage
        self.rows, self.columns = numpy.mgrid[: shape[0], : shape[1]].astype(numpy.float32)
        self.grey = PAPER + (INK - PAPER) * self.coverage

    @property
    def shape(self):
        return self.coverage.shape

    def light(self, low):
        """Multiplies by a light that falls from 1 to ``low`` across the page."""
        angle = self.rs.uniform(0, 2 * numpy.pi)
        along = numpy.cos(angle) * self.columns + numpy.sin(angle) * self.rows
        along = (along - along.min()) / numpy.ptp(along)
        self.grey *= 1 - (1 - low) * along
        return self

    def noise(self, deviation):
        self.grey += self.rs.normal(0, deviation, self.shape)
        return self

    def save(self, path, quality=None):
        grey = numpy.clip(numpy.rint(self.grey), 0, 255).astype(numpy.uint8)
        Image.fromarray(grey).save(path, **({'quality': quality} if quality else {}))


def clean(image, rs):
    return Page(image, rs)


def off_centre(image, rs):
    size = rs.randint(90, 140)
    place = [int(rs.randint(0, n - size)) for n in (320, 420)]
    return Page(image, rs, (320, 420), size, place)


def tight_crop(image, rs):
    rows, columns = (numpy.flatnonzero(image.max(axis=axis) > 50) for axis in (1, 0))
    page = Page(image, rs, (280, 280), 280, (0, 0))
    top, bottom, left, right = (
        10 * n for n in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
    )
    page.grey = page.grey[max(0, top - 8) : bottom + 8, max(0, left - 8) : right + 8]
    return page


def rotated(image, rs):
    return Page(image, rs, angle=rs.choice([-1, 1]) * 10)


def uneven_light(image, rs):
    return Page(image, rs).light(rs.uniform(0.75, 0.85)).noise(2)


def strongly_uneven_light(image, rs):
    return Page(image, rs).light(rs.uniform(0.5, 0.6)).noise(2)


def hard_shadow(image, rs):
    page = Page(image, rs)
    angle = rs.uniform(0, 2 * numpy.pi)
    rows, columns = page.shape
    side = numpy.cos(angle) * (page.columns - columns / 2) + numpy.sin(angle) * (
        page.rows - rows / 2
    )
    edge = numpy.clip((side - rs.uniform(-0.2, 0.2) * min(page.shape)) / 2 + 0.5, 0, 1)
    page.grey *= 1 - rs.uniform(0.3, 0.45) * edge
    return page.noise(2)


def far_speck(image, rs):
    page = Page(image, rs)
    corners = [(r, c) for r in (0.05, 0.95) for c in (0.05, 0.95)]
    row, column = corners[rs.randint(4)]
    page.grey[int(row * page.shape[0]), int(column * page.shape[1])] = 0
    return page


def many_specks(image, rs):
    page = Page(image, rs)
    for _ in range(25):
        row, column = (rs.randint(3, n - 3) for n in page.shape)
        radius = rs.uniform(0.5, 2)
        spot = (page.rows - row) ** 2 + (page.columns - column) ** 2 <= radius**2
        page.grey[spot] = numpy.minimum(page.grey[spot], rs.uniform(20, 120))
    return page


def table_edge(image, rs):
    page = Page(image, rs)
    width = int(rs.uniform(0.04, 0.12) * min(page.shape))
    slope = rs.uniform(-0.03, 0.03)
    dark = rs.uniform(30, 90)
    turns = rs.randint(4)
    grey = numpy.rot90(page.grey, turns)
    rows = numpy.arange(len(grey))[:, None]
    columns = numpy.arange(grey.shape[1])
    grey = numpy.where(columns < width + slope * rows, dark, grey)
    page.grey = numpy.rot90(grey, -turns)
    return page.noise(3) if page.grey.shape == page.shape else page


def frame(image, rs):
    page = Page(image, rs)
    rows, columns = page.shape
    margin, width = int(rs.uniform(0.03, 0.1) * min(page.shape)), rs.randint(2, 6)
    inside = (
        (page.rows >= margin)
        & (page.rows < rows - margin)
        & (page.columns >= margin)
        & (page.columns < columns - margin)
    )
    core = (
        (page.rows >= margin + width)
        & (page.rows < rows - margin - width)
        & (page.columns >= margin + width)
        & (page.columns < columns - margin - width)
    )
    page.grey[inside & ~core] = rs.uniform(30, 110)
    return page


def noise(image, rs):
    return Page(image, rs).noise(15)


def lined_paper(image, rs):
    page = Page(image, rs)
    distance, width = rs.randint(28, 55), rs.randint(1, 4)
    slope = rs.uniform(-0.02, 0.02)
    at = (page.rows + slope * page.columns + rs.randint(0, distance)) % distance
    lines = numpy.where(at < width, rs.uniform(140, 190), PAPER)
    page.grey = numpy.minimum(page.grey, lines)
    return page.noise(2)


def squared_paper(image, rs):
    page = Page(image, rs)
    distance = rs.randint(20, 40)
    for at in page.rows, page.columns:
        lines = numpy.where((at + rs.randint(0, distance)) % distance < 2, 185, PAPER)
        page.grey = numpy.minimum(page.grey, lines)
    return page.noise(2)


def pencil(image, rs):
    page = Page(image, rs)
    paper = rs.uniform(170, 205)
    grain = numpy.clip(rs.normal(0.8, 0.25, page.shape), 0, 1)
    page.grey = paper - rs.uniform(45, 75) * page.coverage * grain
    return page.noise(3)


def chalk(image, rs):
    page = Page(image, rs)
    grain = numpy.clip(rs.normal(0.85, 0.2, page.shape), 0, 1)
    page.grey = 55 + 150 * page.coverage * grain
    return page.light(0.7).noise(5)


def blurred(image, rs):
    page = Page(image, rs).light(0.8)
    grey = Image.fromarray(numpy.clip(page.grey, 0, 255).astype(numpy.uint8))
    page.grey = numpy.asarray(grey.filter(ImageFilter.GaussianBlur(4)), numpy.float32)
    return page.noise(3)


def snapshot(image, rs):
    """All at once: turned, small on lined paper, a shadow, the edge of the table, noise."""
    shape = 700, 900
    size = rs.randint(170, 260)
    place = [int(rs.randint(120, n - size - 60)) for n in shape]
    page = Page(image, rs, shape, size, place, angle=rs.uniform(-7, 7))
    at = (page.rows + 0.01 * page.columns) % 60
    page.grey = numpy.minimum(page.grey, numpy.where(at < 2, 175, PAPER))
    edge = numpy.clip((page.columns + 0.4 * page.rows - rs.uniform(300, 700)) / 12, 0, 1)
    page.grey *= 1 - 0.35 * edge
    page.grey[:, : rs.randint(20, 60)] = 60
    return page.light(0.8).noise(6)


CONDITIONS = {
    'clean': clean,
    'off-centre': off_centre,
    'tight crop': tight_crop,
    'rotated by 10 degrees': rotated,
    'uneven light, to 75 - 85 %': uneven_light,
    'uneven light, to 50 - 60 %': strongly_uneven_light,
    'hard shadow over half of the page': hard_shadow,
    'one dark pixel far from the digit': far_speck,
    '25 specks': many_specks,
    'dark edge of the table': table_edge,
    'frame around the digit': frame,
    'noise of deviation 15': noise,
    'lined paper': lined_paper,
    'squared paper': squared_paper,
    'pencil on grey paper': pencil,
    'chalk on a blackboard': chalk,
    'out of focus': blurred,
    'lines, shadow, table edge and noise': snapshot,
}


def read_rightly(model, images, labels, count):
    """The first images that the net classifies correctly, and their labels."""
    right = numpy.flatnonzero(
        model.logits(images[: 2 * count]).argmax(axis=1) == labels[: 2 * count]
    )
    return images[right[:count]], labels[right[:count]]


def count_right(model, condition, images, labels, folder, ending='png'):
    """How many renderings the net classifies correctly, and how many are refused."""
    right = refused = 0
    for i, (image, label) in enumerate(zip(images, labels)):
        path = os.path.join(folder, f'{i}.{ending}')
        CONDITIONS[condition](image, numpy.random.RandomState(i)).save(path)
        try:
            digits = read_digits(path)
        except ValueError:
            refused += 1
            continue
        right += model.logits(digits).argmax(axis=1).tolist() == [label]
    return right, refused


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model')
    parser.add_argument('--images', type=int, default=100)
    args = parser.parse_args()
    model, words = load(args.model, -1)
    images, labels = read_rightly(model, *read_test_set(MNIST), args.images)
    print(f'{words}, {len(images)} images\n\n| picture | right, % | refused, % |\n|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        for condition in CONDITIONS:
            counts = count_right(model, condition, images, labels, folder)
            print(
                '| {} | {:.0f} | {:.0f} |'.format(
                    condition, *(100 * n / len(images) for n in counts)
                )
            )


if __name__ == '__main__':
    main()
