"""The packed net as one page to draw on, for any browser."""

import base64
import json
import os

import numpy

from deploy.packed import xnor_layers
from pictures.layout import Layout

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


def _text(array, dtype):
    """An array in base64, its numbers with their lowest byte first; None stays None."""
    if array is not None:
        return base64.b64encode(numpy.ascontiguousarray(array, dtype).tobytes()).decode()


def to_html(net, examples=()):
    """Writes a packed net as a page that needs nothing else.

    Args:
        net (~deploy.packed.PackedNet): The packed net.
        examples (sequence): uint8 images to click on, of the size that the net takes.

    Returns:
        str: deploy/page.html with the net in it.
    """
    layers = [
        {**x, 'words': 2 * x['words'], 'W': _text(x['W'], '<u8'), 'T': _text(x['T'], '<i4')}
        for x in xnor_layers(net)  # in words of 32 bits
    ]
    content = {
        'words': f'A{net.title[1:]}',
        'bytes': net.nbytes,
        'accuracy': net.accuracy,
        'calibrated': net.temperature is not None,
        'layout': (net.layout or Layout(*net.image_shape, *net.image_shape))._asdict(),
        'layers': layers,
        'affine': [_text(array, '<f4') for array in net.affine],
        'examples': [_text(image, 'u1') for image in examples],
    }
    with open(PAGE, encoding='utf-8') as f:
        return f.read().replace('/*NET*/null', json.dumps(content))
