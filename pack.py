#!/usr/bin/env python3
"""Packs a trained net: one bit per weight (k bits for a k-bit net), integers instead of floats.

    ./pack.py result/mlp.model result/mlp.packed     # for inference.py
    ./pack.py result/mlp.model net.onnx              # for ONNX Runtime
    ./pack.py result/mlp.model net.c                 # for a C compiler
    ./pack.py result/mlp.model net.html              # for a browser

Batch normalization and activation of a hidden layer become integer thresholds, found with the
float net's own functions, so the packed net gives the same answers. The other formats hold the
same integers; they can also be made from a packed net. docs/deploy.md has sizes and speeds.
"""

import os

from data import MNIST, read_test_set
from deploy import packed
from deploy.fold import fold
from pictures.layout import Layout
from support import models
from support.program import Parser, errors_as_one_line
from support.files import read_npz, replacing, save_arrays


def read(path, out):
    """Reads a packed net, or a trained one and folds it.

    Returns:
        tuple: The arrays of a packed model, by name, and in words which net was read.

    Raises:
        ValueError: If it is no such file, or cannot be packed; the message names it.
        OSError: If it cannot be opened.
    """
    if os.path.exists(out) and os.path.samefile(path, out):
        raise ValueError(f'{out}: this is the model itself; give another name')
    arrays = read_npz(path)
    try:
        if 'packed_version' in arrays:
            words = packed.describe(arrays)
            if writer(out) is write_packed:
                raise ValueError('this model is packed already')
        else:
            words = models.describe(arrays)
            arrays = fold(models.load(path, arrays))
    except ValueError as e:
        raise ValueError(e if str(e).startswith(path) else f'{path}: {e}') from e
    return arrays, words


def write_packed(arrays, out):
    save_arrays(out, arrays)
    return f'./inference.py {out} [PICTURE ...]'


def write_onnx(arrays, out):
    try:
        from deploy.onnx_graph import to_onnx
    except ImportError as e:
        raise ValueError(f'{out}: needs the package onnx (pip install onnx): {e}') from e
    layout = layout_of(arrays)
    with replacing(out) as f:
        f.write(to_onnx(arrays, layout.rows, layout.columns))
    return (
        f"onnxruntime.InferenceSession({out!r}).run(None, {{'pixels': images}}) gives logits and "
        f'classes of uint8 images of shape (n, {layout.rows}, {layout.columns})'
    )


def write_c(arrays, out):
    from deploy.c_source import to_c

    with replacing(out) as f:
        f.write(to_c(arrays).encode())
    return f'cc -std=c99 -O2 -c {out}, and call net_classify(pixels)'


def write_html(arrays, out):
    from deploy.html_page import to_html

    layout, examples = layout_of(arrays), []
    images, labels = read_test_set(MNIST)
    if images.shape[1:] == layout[:2]:
        examples = [images[(labels == k).argmax()] for k in range(10)]
    with replacing(out) as f:
        f.write(to_html(arrays, layout, examples).encode())
    return f'open {out} in a browser'


def layout_of(arrays):
    n_in = int(arrays['n_in'])
    return models.layout_of(arrays, n_in) or Layout(1, n_in, 1, n_in)


WRITERS = {'.onnx': write_onnx, '.c': write_c, '.html': write_html}


def writer(out):
    return WRITERS.get(os.path.splitext(out)[1].lower(), write_packed)


def pack(model, out):
    arrays, words = read(model, out)
    use = writer(out)(arrays, out)
    print(words)
    print(packed.summary(arrays))
    before, after = os.path.getsize(model), os.path.getsize(out)
    print(f'{model}: {before:,} bytes')
    factor = before / after
    print(
        f'{out}: {after:,} bytes, '
        + (f'{factor:.1f} times smaller' if factor >= 1 else f'{1 / factor:.1f} times larger')
    )
    print(f'to use it: {use}')


def main(argv=None):
    parser = Parser(
        description='Packs a trained net: one bit per weight, integers instead of floats.'
    )
    parser.add_argument(
        'model', metavar='MODEL', help='mlp.model of a training, or a packed model'
    )
    parser.add_argument(
        'out',
        metavar='OUT',
        help='file to write: ONNX, C or a web page if its name ends in .onnx, .c or .html; '
        'otherwise a packed model',
    )
    args = parser.parse_args(argv)
    with errors_as_one_line():
        pack(args.model, args.out)


if __name__ == '__main__':
    main()
