#!/usr/bin/env python3
"""Times products with +1 and -1 by look-up (fast/lookup.py) beside NumPy's, on one thread.

    OPENBLAS_NUM_THREADS=1 .venv/bin/python benchmarks/lookup_times.py

``NUMBA_CPU_NAME=haswell`` stands for AVX2, ``generic`` for no extensions. ``OPENBLAS_CORETYPE``
chooses NumPy's kernels: on AMD's CPUs, those with AVX-512 are ``SkylakeX``.

A number is milliseconds for a minibatch of 100 and a layer of so many inputs and units: the
minimum and the median of 40, in turns, of the thread's own time. The signs were packed before.
"""

import os
import statistics
import sys
from time import sleep, thread_time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numba
import numpy

from fast import cpu
from fast.kernels import UNITS, aligned
from fast.lookup import ROWS, WORD, product, write_signs, write_tables

SPAN = 256  # inputs whose tables fit the first cache


@numba.njit
def floats(rows, columns):
    return aligned(rows * columns, numpy.float32).reshape((rows, columns))


@numba.njit
def pack(S):
    words, columns = -(-len(S) // WORD), -(-S.shape[1] // UNITS) * UNITS
    I = aligned(words * columns, numpy.uint32).reshape((words, columns))
    for i in range(len(S)):
        write_signs(S[i], i, I[i // WORD])
    return I


@numba.njit
def multiply(A, n, stride, row_stride, I, Y):
    T = aligned(32 * SPAN, numpy.float32)
    for row in range(0, len(Y), ROWS):
        for i in range(0, n, SPAN):
            inputs = min(SPAN, n - i)
            start = row * row_stride + i * stride
            write_tables(A, start, stride, row_stride, inputs, T)
            for k in range(0, Y.shape[1], UNITS):
                start = row * Y.shape[1] + k
                product(T, inputs, I[i // WORD :], k, i > 0, Y, start, Y.shape[1])


compiled_for, blas = (
    os.environ.get(name) or 'this CPU' for name in ('NUMBA_CPU_NAME', 'OPENBLAS_CORETYPE')
)
print(f'{cpu.FLOAT_KERNELS[cpu.FLOATS]} of {compiled_for}; NumPy for {blas}')
print('| units | gy W | NumPy | gy^T x | NumPy |\n|---|---|---|---|---|')
random = numpy.random.RandomState(0)
for units in 1000, 4096:
    gy = random.normal(size=(104, units)).astype('f')  # whole chunks of rows
    W, x = (numpy.where(random.uniform(size=(n, units)) < 0.5, 1, -1) for n in (units, 100))
    W, x = W.astype('f'), x.astype('f')
    W_words, x_words = pack(W), pack(x)
    wide = W_words.shape[1]
    gx, gW = floats(104, wide), floats(units, wide)
    ways = [
        lambda: multiply(gy, units, 1, units, W_words, gx),
        lambda: numpy.dot(gy[:100], W),
        lambda: multiply(gy, 100, units, 1, x_words, gW),
        lambda: numpy.dot(gy[:100].T, x),
    ]
    times = [[] for _ in ways]
    for i in range(41):
        for way, spent in zip(ways, times):
            sleep(0.01)
            start = thread_time()
            way()
            spent.append(1000 * (thread_time() - start))
    cells = [f'{min(spent[1:]):.2f}, {statistics.median(spent[1:]):.2f}' for spent in times]
    print('| ' + ' | '.join([str(units), *cells]) + ' |', flush=True)
