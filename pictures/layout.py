"""Where the drawing lies in a data set's images."""

import typing

import numpy


class Layout(typing.NamedTuple):
    """Where the drawing lies in a data set's images; by default as in MNIST.

    Attributes:
        rows, columns (int): Size of an image.
        height, width (int): Size of the box that the drawing fills in one direction or in both.
        dark (int): 1 if it is dark on a light ground.
        transposed (int): 1 if rows and columns are exchanged, as in EMNIST.
    """

    rows: int = 28
    columns: int = 28
    height: int = 20
    width: int = 20
    dark: int = 0
    transposed: int = 0


def measure_layout(images):
    """Measures where the drawings lie in uint8 images of shape (n, rows, columns).

    Returns:
        Layout: The box is that of all but one in twenty images, and the border shows the ground.
    """
    images = images[:5000]
    border = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    dark = int(numpy.median(numpy.concatenate([b.ravel() for b in border])) > 127)
    ink = (255 - images if dark else images) > 31
    box = []
    for axis in 2, 1:
        on = ink.any(axis=axis)
        extents = on.shape[1] - on.argmax(axis=1) - on[:, ::-1].argmax(axis=1)
        box.append(int(numpy.percentile(numpy.where(on.any(axis=1), extents, 1), 95)))
    return Layout(*images.shape[1:], *box, dark)
