"""The packed net as one C99 file, or its header alone."""

import os
import re

import numpy

from deploy.packed import AFFINE, xnor_layers

HEAD = """\
/* Made by pack.py of BinaryNet on Chainer.
 *
 * {title}.{accuracy}
 *
 * Pixels are 0 to 255, row by row, as those that the net was trained on. The class, 0 to {last},
 * is that of the largest logit. The probability of class k is exp(logits[k]) divided by the sum
 * of these numbers for all classes{calibrated}.
 *
 * Nothing is allocated, no global state is written, and no library is needed. The functions take
 * at most {stack:,} bytes of stack. The packed net's {size:,} bytes are tables of {tables:,} here,
 * with rows of whole words of 64 bits, and thresholds of 16 bits where these are enough.
 */
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif
int {name}_classify(const uint8_t pixels[{n_in}]);
void {name}_logits(const uint8_t pixels[{n_in}], float logits[{n_out}]);
#ifdef __cplusplus
}}
#endif
"""

FUNCTIONS = """\
/* Without a popcount instruction, GCC's builtin calls a function that is slower than this. */
#if defined __POPCNT__ || defined __aarch64__ || defined __riscv_zbb
#define POPCOUNT(x) __builtin_popcountll(x)
#else
static int POPCOUNT(uint64_t x)
{{
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (int)(x * 0x0101010101010101u >> 56);
}}
#endif

/* The sum of the products of the weights of a unit and its inputs. Planes p and q count 2^p and
 * 2^q times, and their bits stand for +1 and -1. */
static int32_t net_sum(const uint64_t *weights, int weight_bits, const uint64_t *inputs,
                       int input_bits, int words, int32_t greatest)
{{
    int32_t disagreements = 0;
    for (int p = 0; p < weight_bits; p++)
        for (int q = 0; q < input_bits; q++) {{
            int32_t count = 0;
            for (int j = 0; j < words; j++)
                count += (int32_t)POPCOUNT(weights[p * words + j] ^ inputs[q * words + j]);
            disagreements += count * ((int32_t)1 << (p + q));
        }}
    return greatest - 2 * disagreements;
}}

void {name}_logits(const uint8_t pixels[{n_in}], float logits[{n_out}])
{{
    uint64_t a[{buffer}], b[{buffer}];
    for (int j = 0; j < {buffer}; j++)
        a[j] = 0;
    for (int i = 0; i < {n_in}; i++)
        for (int q = 0; q < 8; q++)
            a[q * {first_words} + i / 64] |= (uint64_t)(pixels[i] >> q & 1) << i % 64;
"""

HIDDEN = """\
    for (int j = 0; j < {buffer}; j++)
        {y}[j] = 0;
    for (int m = 0; m < {units}; m++) {{
        int32_t sum = net_sum(W{i} + m * {size}, {weight_bits}, {x}, {input_bits}, {words},
                              {greatest});
        unsigned level = 0;
        while (level < {n} && sum >= T{i}[m * {n} + (int)level])
            level++;
        for (int q = 0; q < {after[input_bits]}; q++)
            {y}[q * {after[words]} + m / 64] |= (uint64_t)(level >> q & 1) << m % 64;
    }}
"""

LAST = """\
    for (int m = 0; m < {units}; m++) {{
        int32_t sum = net_sum(W{i} + m * {size}, {weight_bits}, {x}, {input_bits}, {words},
                              {greatest});
        float y = (float)sum / {scale} + B[m];
        logits[m] = (y - MEAN[m]) * INV_STD[m] * GAMMA[m] + BETA[m];
    }}
}}

int {name}_classify(const uint8_t pixels[{n_in}])
{{
    float logits[{units}];
    int best = 0;
    {name}_logits(pixels, logits);
    for (int m = 1; m < {units}; m++)
        if (logits[m] > logits[best])
            best = m;
    return best;
}}
"""


def _float(value):
    text = f'{value:.9g}'  # enough digits for the same float32
    return text + ('f' if set('.e') & set(text) else '.0f')


# By the kind of an array: how a number is written, and how many stand in a line.
NUMBERS = {'u': ('0x{:016x}u'.format, 4), 'i': (str, 12), 'f': (_float, 6)}


def _table(name, array):
    write, n = NUMBERS[array.dtype.kind]
    values = [write(value) for value in array.ravel()]
    lines = (f'    {", ".join(values[i : i + n])},\n' for i in range(0, len(values), n))
    kind = 'float' if array.dtype.kind == 'f' else f'{array.dtype}_t'
    return f'static const {kind} {name}[{len(values)}] = {{\n{"".join(lines)}}};\n'


def prefix(path):
    """What the names of the functions begin with: the name of the file, as far as C allows."""
    stem = os.path.splitext(os.path.basename(path))[0]
    name = re.sub('[^0-9A-Za-z]+', '_', stem).strip('_')
    return name if name[:1].isalpha() else f'net_{name}'.rstrip('_')


def to_c(net, path):
    """Writes a packed net as C.

    Args:
        net (~deploy.packed.PackedNet): The packed net.
        path (str): The file. If its name ends in ``.h``, it is the header alone.

    Returns:
        str: C99 source that is also valid C++11.
    """
    stages = list(xnor_layers(net))
    common = {
        'name': prefix(path),
        'n_in': net.n_in,
        'n_out': net.n_out,
        'buffer': max(layer['input_bits'] * layer['words'] for layer in stages),
    }
    arrays, code = {}, [FUNCTIONS.format(**common, first_words=stages[0]['words'])]
    for i, layer in enumerate(stages, 1):
        arrays[f'W{i}'], T = layer['W'], layer['T']
        values = {**layer, **common, 'i': i, 'size': layer['weight_bits'] * layer['words']}
        values.update(x='ba'[i % 2], y='ab'[i % 2], scale=_float(layer['scale']))
        if i == len(stages):
            code.append(LAST.format(**values))
            break
        small = abs(T.astype(numpy.int64)).max() < 2**15
        arrays[f'T{i}'] = T.astype(numpy.int16 if small else numpy.int32)
        code.append(HIDDEN.format(**values, n=T.shape[1], after=stages[i]))
    arrays.update(zip(map(str.upper, AFFINE), net.affine))
    head = HEAD.format(
        **common,
        title=f'A{net.title[1:]}',
        accuracy='' if net.accuracy is None else f' Test accuracy: {net.accuracy:.4f}.',
        calibrated='; it is not calibrated' if net.temperature is None else '',
        last=net.n_out - 1,
        size=net.nbytes,
        tables=sum(array.nbytes for array in arrays.values()),
        stack=16 * common['buffer'] + 8 * net.n_out + 500,
    )
    if path.lower().endswith('.h'):
        return head
    return '\n'.join([head, *map(_table, arrays, arrays.values()), *code])
