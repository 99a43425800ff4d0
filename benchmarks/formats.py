#!/usr/bin/env python3
"""Times single images in the formats of pack.py, and counts the classes that differ.

    .venv/bin/python benchmarks/formats.py results/binary.packed > benchmarks/formats.txt

ONNX Runtime and GCC are needed. The page shows its own time when it is opened.
"""

import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
from time import perf_counter

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import numpy
import onnxruntime

from benchmarks.train import cpu
from data import MNIST, read_test_set
from inference import load

FLAGS = '-O2', '-O3 -march=native'


def microseconds(classify, images):
    """Median of single images."""
    times = []
    for image in images:
        start = perf_counter()
        classify(image)
        times.append(perf_counter() - start)
    return 1e6 * statistics.median(times)


def main(path):
    images, _ = read_test_set(MNIST)
    model, about = load(path, -1)
    expected = model.logits(images).argmax(axis=1)
    print(f'{cpu(None)}; {about.title}; onnxruntime {onnxruntime.__version__}\n')
    print('| format | bytes | µs for a single image | classes that differ |\n|---|---|---|---|')
    time = microseconds(lambda image: model.logits(image[None]), images)
    print(f'| .packed | {os.path.getsize(path):,} | {time:.1f} | 0 |')
    with tempfile.TemporaryDirectory() as folder:
        net = os.path.join(folder, 'net')
        for ending in 'onnx', 'c', 'html':
            command = [sys.executable, f'{ROOT}/pack.py', path, f'{net}.{ending}']
            subprocess.run(command, check=True, capture_output=True)
        session = onnxruntime.InferenceSession(f'{net}.onnx')
        time = microseconds(lambda image: session.run(None, {'pixels': image[None]}), images)
        differ = (session.run(['class'], {'pixels': images})[0] != expected).sum()
        print(f'| .onnx | {os.path.getsize(f"{net}.onnx"):,} | {time:.1f} | {differ} |')
        for flags in FLAGS:
            library = f'{net}{FLAGS.index(flags)}.so'
            command = ['gcc', '-std=c99', *flags.split(), '-shared', '-fPIC', f'{net}.c']
            subprocess.run([*command, '-o', library], check=True)
            classify = ctypes.CDLL(library).net_classify
            pointers = [image.ctypes.data_as(ctypes.c_void_p) for image in images]
            time = microseconds(classify, pointers)
            differ = (numpy.array([classify(p) for p in pointers]) != expected).sum()
            print(f'| .c, {flags} | {os.path.getsize(f"{net}.c"):,} | {time:.1f} | {differ} |')
        print(f'| .html | {os.path.getsize(f"{net}.html"):,} | | |')


if __name__ == '__main__':
    main(*sys.argv[1:])
