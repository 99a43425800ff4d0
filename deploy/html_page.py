"""The packed net as one page to draw on, for any browser."""

import base64
import json
import os

import numpy

from deploy.packed import AFFINE, describe, xnor_layers

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


def _text(array):
    return base64.b64encode(numpy.ascontiguousarray(array).tobytes()).decode()


def to_html(arrays, layout, examples=()):
    """Writes a packed net as a page that needs nothing else.

    Args:
        arrays (dict): The arrays of a packed model, by name.
        layout (~pictures.layout.Layout): How digits lie in the images that the net takes.
        examples (sequence): uint8 images to click on, of the size of the layout.

    Returns:
        str: The page: deploy/page.html with the net in it.
    """
    words, stages, size = describe(arrays), [], 0
    for layer in xnor_layers(arrays):
        fields = layer._asdict()
        fields['words'] = 2 * layer.words  # of 32 bits
        fields['W'] = _text(layer.W.astype('<u8'))
        size += layer.W.nbytes
        if layer.T is not None:
            fields['T'] = _text(layer.T.astype('<i4'))
            size += layer.T.nbytes
        stages.append(fields)
    net = {
        'words': words[0].upper() + words[1:],
        'bytes': size,
        'accuracy': float(arrays['accuracy']) if 'accuracy' in arrays else None,
        'layout': layout._asdict(),
        'layers': stages,
        'affine': [_text(arrays[f'l{len(stages)}/{name}'].astype('<f4')) for name in AFFINE],
        'examples': [_text(image) for image in examples],
    }
    with open(PAGE, encoding='utf-8') as f:
        return f.read().replace('/*NET*/null', json.dumps(net))
