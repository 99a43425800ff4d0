"""The packed net as one C99 file."""

import numpy

from deploy.packed import AFFINE, xnor_layers

HEAD = """\
/* Made by pack.py of BinaryNet on Chainer.
 *
 * {title}.{accuracy}
 *
 *     int net_classify(const uint8_t pixels[{n_in}]);
 *     void net_logits(const uint8_t pixels[{n_in}], float logits[{n_out}]);
 *
 * Pixels are 0 to 255, row by row, as those that the net was trained on; the class is 0 to {last}.
 * Nothing is allocated, no global state is written, and no library is needed. The tables are
 * {bytes:,} bytes, and the functions take about {stack:,} bytes of stack.
 */
#include <stdint.h>

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

"""

FUNCTIONS = """\
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

void net_logits(const uint8_t pixels[{n_in}], float logits[{n_out}])
{{
    uint64_t a[{buffer}], b[{buffer}];
    for (int j = 0; j < {buffer}; j++)
        a[j] = 0;
    for (int i = 0; i < {n_in}; i++)
        for (int q = 0; q < 8; q++)
            a[q * {words} + i / 64] |= (uint64_t)(pixels[i] >> q & 1) << i % 64;
"""

HIDDEN = """
    for (int j = 0; j < {buffer}; j++)
        {y}[j] = 0;
    for (int m = 0; m < {units}; m++) {{
        int32_t sum = net_sum(W{i} + m * {size}, {weight_bits}, {x}, {input_bits}, {words},
                              {greatest});
        unsigned level = 0;
        while (level < {n} && sum >= T{i}[m * {n} + (int)level])
            level++;
        for (int q = 0; q < {bits}; q++)
            {y}[q * {next_words} + m / 64] |= (uint64_t)(level >> q & 1) << m % 64;
    }}
"""

LAST = """
    for (int m = 0; m < {units}; m++) {{
        int32_t sum = net_sum(W{i} + m * {size}, {weight_bits}, {x}, {input_bits}, {words},
                              {greatest});
        float y = (float)sum / {scale} + B[m];
        logits[m] = (y - MEAN[m]) * INV_STD[m] * GAMMA[m] + BETA[m];
    }}
}}

int net_classify(const uint8_t pixels[{n_in}])
{{
    float logits[{units}];
    int best = 0;
    net_logits(pixels, logits);
    for (int m = 1; m < {units}; m++)
        if (logits[m] > logits[best])
            best = m;
    return best;
}}
"""


def _table(kind, name, values, per_line=4):
    values = list(values)
    lines = (
        '    ' + ', '.join(values[i : i + per_line]) + ',' for i in range(0, len(values), per_line)
    )
    return f'static const {kind} {name}[{len(values)}] = {{\n' + '\n'.join(lines) + '\n};\n'


def _float(value):
    text = f'{value:.9g}'  # enough digits for the same float32
    return text + ('f' if set('.e') & set(text) else '.0f')


def to_c(net):
    """Writes a packed net as C.

    Args:
        net (~deploy.packed.PackedNet): The packed net.

    Returns:
        str: C99 source that is also valid C++11.
    """
    stages = list(xnor_layers(net))
    buffer = max(layer['input_bits'] * layer['words'] for layer in stages)
    tables, code, bytes_ = [], [], 0
    for i, layer in enumerate(stages, 1):
        tables.append(_table('uint64_t', f'W{i}', (f'0x{w:016x}u' for w in layer['W'].ravel())))
        bytes_ += layer['W'].nbytes
        values = {
            **layer,
            'i': i,
            'buffer': buffer,
            'n_in': net.n_in,
            'size': layer['weight_bits'] * layer['words'],
            'x': 'ab'[(i - 1) % 2],
            'y': 'ab'[i % 2],
        }
        if layer['T'] is None:
            values['scale'] = _float(layer['scale'])
            code.append(LAST.format(**values))
            break
        small = abs(layer['T'].astype(numpy.int64)).max() < 2**15
        T = layer['T'].astype(numpy.int16 if small else numpy.int32)
        tables.append(_table(f'{T.dtype}_t', f'T{i}', map(str, T.ravel()), 12))
        bytes_ += T.nbytes
        after = stages[i]
        values.update(n=T.shape[1], bits=after['input_bits'], next_words=after['words'])
        code.append(HIDDEN.format(**values))
    for name, array in zip(AFFINE, net.affine):
        tables.append(_table('float', name.upper(), map(_float, array), 6))
        bytes_ += array.nbytes
    sizes, accuracy = {'n_in': net.n_in, 'n_out': net.n_out}, net.accuracy
    head = HEAD.format(
        **sizes,
        title=net.title.capitalize(),
        accuracy='' if accuracy is None else f' Accuracy on the test images: {accuracy:.4f}.',
        last=net.n_out - 1,
        bytes=bytes_,
        stack=16 * buffer + 4 * net.n_out + 200,
    )
    functions = FUNCTIONS.format(**sizes, buffer=buffer, words=stages[0]['words'])
    return head + '\n'.join(tables) + '\n' + functions + ''.join(code)
