#!/usr/bin/env python3
"""Packs a trained net: one bit per weight (k bits for a k-bit net), integers instead of floats.

    ./pack.py result/mlp.model result/mlp.packed     # for inference.py
    ./pack.py result/mlp.model net.onnx              # for ONNX Runtime
    ./pack.py result/mlp.model net.c                 # for a C compiler; net.h is the header
    ./pack.py result/mlp.model net.html              # for a browser

Batch normalization and activation of a hidden layer become integer thresholds, found with the
float net's own functions, so the packed net gives the same answers. The other formats hold the
same integers; they can also be made from a packed net. docs/deploy.md has sizes and speeds.
"""

import support.begin  # before what takes a second  # noqa: F401

import os

from data import MNIST, read_test_set
from deploy.fold import fold
from deploy.packed import PackedNet, read, summary
from support.files import naming, npz, replacing
from support.models import load
from support.program import Parser, command, errors_as_one_line, path, quote


# Each writer returns the content of a file, and how to use it.


def as_packed(net, out):
    return npz(net.arrays), f'{command("inference.py")} {quote(out)} [PICTURE ...]'


def as_onnx(net, out):
    try:
        from deploy.onnx_graph import to_onnx
    except ImportError as e:
        raise ValueError(f'{out}: needs the package onnx (pip install onnx): {e}') from e
    rows, columns = net.image_shape
    return to_onnx(net), (
        f"onnxruntime.InferenceSession({out!r}).run(None, {{'pixels': images}}) gives logits, "
        f'classes and probabilities of uint8 images of shape (n, {rows}, {columns})'
    )


def as_c(net, out):
    from deploy.c_source import prefix, to_c

    stem, ending = os.path.splitext(out)
    names = {'.c': f'{stem}.c', '.h': f'{stem}.h', ending.lower(): out}
    source, header = map(quote, names.values())
    return to_c(net, out).encode(), (
        f'cc -std=c99 -O2 -c {source}, and call {prefix(out)}_classify(pixels); its header is '
        f'{header}, packed likewise'
    )


def as_html(net, out):
    from deploy.html_page import to_html

    images, labels = read_test_set(MNIST)
    digits = range(10) if images.shape[1:] == net.image_shape else ()
    examples = [images[(labels == k).argmax()] for k in digits]
    return to_html(net, examples).encode(), f'open {out} in a browser'


# File extension -> the writer, and the mark in the first bytes of every file that it wrote.
FORMATS = {
    **dict.fromkeys(('', '.packed', '.npz'), (as_packed, b'packed_version.npy')),
    '.onnx': (as_onnx, b'\x06pixels\n\x02c0\x12\tReshape_0'),
    **dict.fromkeys(('.c', '.h'), (as_c, b'/* Made by pack.py of BinaryNet on Chainer.')),
    '.html': (as_html, b'<title>Draw a digit</title>\n<style>\n  :root {'),
}


def pack(model, out):
    ending = os.path.splitext(out)[1].lower()
    if ending not in FORMATS:
        endings = ', '.join(filter(None, FORMATS))
        raise ValueError(
            f'{out}: no format has the ending {ending}; use one of {endings}, or none'
        )
    write, mark = FORMATS[ending]
    saved = read(model)
    is_packed = isinstance(saved, PackedNet)
    if is_packed and write is as_packed:
        raise ValueError(f'{model}: this model is packed already')
    with naming(model):
        net = saved if is_packed else fold(load(model, saved))
    content, use = write(net, out)
    with replacing(out, mark) as f:
        f.write(content)
    print(saved.title)
    print(summary(net))
    before, after = os.path.getsize(model), len(content)
    factor, how = (before / after, 'smaller') if before >= after else (after / before, 'larger')
    print(f'{model}: {before:,} bytes')
    print(f'{out}: {after:,} bytes, {factor:.1f} times {how}')
    print(f'to use it: {use}')


def main(argv=None):
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('model', metavar='MODEL', type=path, help='mlp.model of a training, or a packed model')
    out = 'file to write: ONNX, C, its header or a web page if the name ends in .onnx, .c, .h or '
    out += '.html; a packed model if it ends in .packed or .npz, or has no ending'
    add('out', metavar='OUT', type=path, help=out)
    args = parser.parse_args(argv)
    with errors_as_one_line():
        pack(args.model, args.out)


if __name__ == '__main__':
    main()
