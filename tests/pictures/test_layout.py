"""The measured layout of the images of a data set."""

import numpy
import pytest

from pictures.layout import Layout, measure_layout


@pytest.mark.parametrize(
    'layout',
    [
        Layout(),
        Layout(dark=1),
        Layout(28, 28, 28, 28),
        Layout(49, 16, 40, 12),
        Layout(20, 30, 20, 10),
    ],
)
def test_the_layout_of_images_is_measured(layout):
    rs = numpy.random.RandomState(0)
    images = numpy.zeros((100, *layout[:2]), numpy.uint8)
    for image in images:
        height, width = (
            (layout.height, rs.randint(1, layout.width + 1))
            if rs.randint(2)
            else (rs.randint(1, layout.height + 1), layout.width)
        )
        top, left = rs.randint(layout.rows - height + 1), rs.randint(layout.columns - width + 1)
        image[top : top + height, left : left + width] = 200
    assert measure_layout(255 - images if layout.dark else images) == layout


def test_the_layout_of_mnist(mnist):
    assert measure_layout(mnist[0]) == Layout()
