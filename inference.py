#!/usr/bin/env python3
"""Classifies pictures of digits, or the test images, with a trained net or a packed one.

./inference.py result/mlp.model               # accuracy on the test images
./inference.py result/mlp.packed seven.png    # which digit the picture shows
./inference.py result/mlp.packed pictures/    # the same for all pictures in a folder
./inference.py result/mlp.packed pictures/ --show seen.png   # and draws what the net saw
"""

import support.begin  # before what takes a second  # noqa: F401

import os
import sys
import time
from types import SimpleNamespace

import numpy

import fast
from data import MNIST
from deploy.packed import PackedMLP, read
from pictures.folders import needing_packages, read_test_data
from support import models
from support.files import check_output, replacing
from support.program import Parser, errors_as_one_line, get_device, number, path, report_problem

# The program's name in a picture that it draws, and what that makes of the picture's first bytes.
SOFTWARE = 'inference.py of BinaryNet on Chainer'
MARK = b'Software\0' + SOFTWARE.encode()


def load(file, gpu):
    """Loads a trained or packed net.

    Returns:
        tuple: What computes it, with the ``logits`` and ``kernels`` of
        :class:`~deploy.packed.PackedMLP`, and what :func:`deploy.packed.read` read.

    Raises:
        ValueError: If it is not such a file; the message names it.
        OSError: If it cannot be opened.
    """
    device = get_device(gpu)
    saved = read(file)
    if isinstance(saved, models.SavedNet):
        net, T = models.load(file, saved), numpy.float32(saved.temperature or 1)
        device.use()
        net.to_device(device)
        return SimpleNamespace(kernels=None, logits=lambda x: models.logits(net, x) / T), saved
    if gpu >= 0:
        raise ValueError(f'{file}: a packed model runs on the CPU, without --gpu {gpu}')
    if fast.missing:
        print(f'# Numba is unavailable, so NumPy computes, many times slower: {fast.missing}')
        return PackedMLP(saved), saved
    from deploy.xnor import XnorMLP

    return XnorMLP(saved), saved


def save(picture, out):
    from PIL.PngImagePlugin import PngInfo  # once the picture is drawn, there is Pillow

    info = PngInfo()
    info.add_text('Software', SOFTWARE)
    with replacing(out, MARK) as f:
        picture.save(f, format='PNG', pnginfo=info)


def evaluate(model, n_in, folder, mistakes):
    images, labels = read_test_data(folder)
    size = images[0].size
    if size != n_in:
        raise ValueError(f'{folder}: its images have {size} pixels, but the net takes {n_in}')
    model.logits(images[:300])  # Numba compiles at the first call
    start = time.perf_counter()
    predicted = model.logits(images).argmax(axis=1)
    seconds = time.perf_counter() - start
    errors = int((predicted != labels).sum())
    print(f'accuracy: {1 - errors / len(labels):.4f}')
    print(f'errors: {errors} of {len(labels)} images')
    print(f'images per second: {len(labels) / seconds:,.0f}')
    if mistakes:
        with needing_packages():
            from pictures.drawings import draw_mistakes
        save(draw_mistakes(images, labels, predicted), mistakes)


def classify(model, net, paths, show):
    """Prints what each picture shows. A bad picture is reported, and the others are read."""
    with needing_packages():
        from pictures.digits import find_pictures, read_digits
        from pictures.drawings import draw_answers
    if not net.layout:
        raise ValueError(f'the net takes {net.n_in} pixels, which do not make up a square')
    if net.temperature is None:
        print('# this model has no temperature: its probabilities are not calibrated')
    shown, failed = [], False
    for picture in find_pictures(paths):
        try:
            images = read_digits(picture, net.layout)
        except (OSError, ValueError) as e:
            report_problem(e)
            failed = True
            continue
        answer = ' '.join(describe_answers(model.logits(images), net.temperature))
        print(f'{picture}: {answer}', flush=True)
        shown.append((picture, images, answer))
    if show and shown:
        save(draw_answers(shown), show)
    if failed:
        sys.exit(2)


def softmax(logits):
    powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def unsure(probabilities):
    """Where another class is more than a tenth as probable as the first, of shape (n,)."""
    p = numpy.sort(probabilities, axis=1)
    return p[:, :-1].max(axis=1, initial=0) > p[:, -1] / 10  # also of a net of one class


def describe_answers(logits, calibrated):
    """The classes, their probabilities, and which are unsure.

    Args:
        logits (array): Float array of shape (n, n_out) for the digits of a picture.
        calibrated: Nothing is called unsure unless this is true.

    Yields:
        str: For example ``37``, `` 0.991 0.720`` and ``(unsure, 7 or 1)``.
    """
    classes, p = numpy.argsort(-logits, axis=1)[:, :2], softmax(logits)
    yield ('' if logits.shape[1] <= 10 else '-').join(map(str, classes[:, 0]))
    yield ' ' + ' '.join(f'{p:.3f}' for p in p.max(axis=1))
    for first, second in classes[unsure(p)] if calibrated else ():
        yield f'(unsure, {first} or {second})'


def main(argv=None):
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('model', metavar='MODEL', type=path, help='mlp.model of a training, or a packed model')
    image = 'PNG or JPEG file of digits in a row, or folder of such files; without it, test images'
    add('images', metavar='IMAGE', nargs='*', default=[], type=path, help=image)
    data = 'folder with a data set, or pictures by class: its test images (default: MNIST)'
    add('--data', metavar='DIR', default=MNIST, type=path, help=data)
    gpu = 'CUDA device for a model that is not packed (default: -1, the CPU)'
    add('--gpu', '-g', type=number(-1, 999), metavar='ID', default=-1, help=gpu)
    mistakes = 'draw the test images that the net gets wrong'
    add('--mistakes', metavar='FILE.png', type=path, help=mistakes)
    show = 'draw each IMAGE, what the net saw of it, and the answer'
    add('--show', metavar='FILE.png', type=path, help=show)
    args = parser.parse_intermixed_args(argv)
    if args.images and args.mistakes:
        parser.error('argument --mistakes: applies to the test images; omit IMAGE')
    if args.show and not args.images:
        parser.error('argument --show: draws pictures; give an IMAGE')

    out = args.show or args.mistakes
    with errors_as_one_line():
        if out and os.path.splitext(out)[1].lower() not in ('.png', ''):
            raise ValueError(f'{out}: a picture is drawn as PNG; give it a name that ends in .png')
        if out:
            check_output(out, MARK)  # now, not after the work
        model, net = load(args.model, args.gpu)
        print(f'# {net.title}')
        if model.kernels:
            print(f'# kernels: {model.kernels}', flush=True)
        if args.images:
            classify(model, net, args.images, args.show)
        else:
            evaluate(model, net.n_in, args.data, args.mistakes)


if __name__ == '__main__':
    main()
