"""The C source compiles everywhere without a warning, and gives the logits of the packed net."""

import ctypes
import itertools
import re
import shutil
import subprocess

import numpy
import pytest

from deploy.c_source import prefix, to_c
from deploy.packed import PackedMLP
from nets import SHAPES, packed, supplied

STRICT = '-Wall -Wextra -pedantic -Wconversion -Wmissing-declarations -Werror'.split()
COMPILERS = [name for name in ('gcc', 'clang') if shutil.which(name)]
pytestmark = pytest.mark.skipif(not COMPILERS, reason='there is no C compiler')


def compiled(net, folder, compiler, *flags):
    source, library = folder / 'net.c', folder / f'net{len(list(folder.iterdir()))}.so'
    source.write_text(to_c(net, 'net.c'))
    command = [compiler, *STRICT, *flags, '-shared', '-fPIC', str(source), '-o', str(library)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, '')
    return ctypes.CDLL(str(library))


def logits(library, images, n_out):
    y = numpy.empty((len(images), n_out), numpy.float32)
    for image, of_image in zip(numpy.ascontiguousarray(images), y):
        library.net_logits(*(a.ctypes.data_as(ctypes.c_void_p) for a in (image, of_image)))
    return y


@pytest.mark.parametrize('compiler', COMPILERS)
@pytest.mark.parametrize('name', SHAPES)
def test_random_nets(name, compiler, tmp_path):
    for signed, flags in (False, ['-O2']), (True, ['-O3', '-march=native']):
        net, images = packed(name, signed)
        expected = PackedMLP(net).logits(images)
        found = logits(compiled(net, tmp_path, compiler, '-std=c99', *flags), images, 12)
        found = found[:, : expected.shape[1]]
        numpy.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_head_has_the_title_as_it_is():
    net, _ = packed('W 4 bits, activations 4')
    assert f'/* Made by pack.py of BinaryNet on Chainer.\n *\n * A{net.title[1:]}.' in to_c(
        net, 'x.c'
    )


def test_all_test_images(mnist, tmp_path):
    net = supplied()
    library = compiled(net, tmp_path, COMPILERS[0], '-std=c99', '-O2')
    expected = PackedMLP(net).logits(mnist[2])
    numpy.testing.assert_allclose(logits(library, mnist[2], 10), expected, rtol=1e-5, atol=1e-5)
    classes = [library.net_classify(i.ctypes.data_as(ctypes.c_void_p)) for i in mnist[2]]
    assert classes == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    'compiler, flags',
    list(
        itertools.product(
            COMPILERS,
            ['-x c++ -std=c++11', '-std=c11 -mpopcnt -Wmissing-prototypes', '-std=c99 -m32'],
        )
    ),
)
def test_as_another_language_or_for_another_machine(compiler, flags, tmp_path):
    (tmp_path / 'probe.c').write_text('#include <stdint.h>\n')
    probe = [compiler, *flags.split(), '-c', 'probe.c', '-o', 'probe.o']
    if subprocess.run(probe, capture_output=True, cwd=tmp_path).returncode:
        pytest.skip(f'this {compiler} cannot: {flags}')
    for name in SHAPES:
        (tmp_path / 'net.c').write_text(to_c(packed(name)[0], 'net.c'))
        command = [compiler, *flags.split(), *STRICT, '-c', 'net.c', '-o', 'net.o']
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, '')


PROGRAM = """
#include <stdio.h>
#include "seven.h"
#include "eight-bits.h"

int main(void)
{
    static uint8_t pixels[784];
    float logits[12];
    for (int i = 0; i < 784; i++)
        pixels[i] = (uint8_t)(i * i);
    seven_logits(pixels, logits);
    printf("%.6g %d %d", (double)logits[11], seven_classify(pixels), eight_bits_classify(pixels));
    return 0;
}
"""


@pytest.mark.parametrize('compiler', COMPILERS)
@pytest.mark.parametrize('language', ['main.c', 'main.cpp'])
def test_two_nets_in_one_program(compiler, language, tmp_path):
    """A program in C or C++, of the headers and of objects from a C compiler."""
    images = (numpy.arange(784) ** 2).astype(numpy.uint8)[None]
    expected = []
    for name, shape in ('seven', 'binary'), ('eight-bits', 'W 8 bits, activations 8'):
        net = packed(shape)[0]
        for file in f'{name}.c', f'{name}.h':
            (tmp_path / file).write_text(to_c(net, file))
        expected.append(PackedMLP(net).logits(images[:, : net.n_in])[0])
    (tmp_path / language).write_text(PROGRAM)
    last = compiler if language == 'main.c' else {'gcc': 'g++', 'clang': 'clang++'}[compiler]
    if not shutil.which(last):
        pytest.skip(f'there is no {last}')
    for command in (
        [compiler, *STRICT, '-std=c99', '-Wmissing-prototypes', '-c', 'seven.c', 'eight-bits.c'],
        [last, *STRICT, language, 'seven.o', 'eight-bits.o', '-o', 'program'],
        ['nm', '-g', '--defined-only', 'seven.o'],
        ['./program'],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, '')
        if command[0] == 'nm':
            assert done.stdout.split()[2::3] == ['seven_classify', 'seven_logits']
    logit, *classes = done.stdout.split()
    assert float(logit) == pytest.approx(expected[0][11], rel=1e-4)
    assert classes == [str(logits.argmax()) for logits in expected]


@pytest.mark.parametrize(
    'path, name',
    {
        'seven.c': 'seven',
        'a/b-c/My net.2.c': 'My_net_2',
        '3x1024.h': 'net_3x1024',
        '__a__b__.c': 'a_b',
        '数字.c': 'net',
    }.items(),
)
def test_the_functions_have_the_name_of_the_file(path, name):
    assert prefix(path) == name
    assert f'int {name}_classify(const uint8_t pixels[35]);' in to_c(packed('binary')[0], path)


@pytest.mark.parametrize('compiler', COMPILERS)
@pytest.mark.parametrize('optimization', ['-O0', '-O2', '-O3 -march=native'])
def test_the_stack_is_no_larger_than_stated(compiler, optimization, tmp_path):
    source = to_c(supplied(), 'net.c')
    (tmp_path / 'net.c').write_text(source)
    command = [compiler, '-std=c99', *optimization.split(), '-fstack-usage', '-c', 'net.c']
    if subprocess.run(command, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip(f'this {compiler} does not tell')
    frames = [line.split('\t')[1] for line in (tmp_path / 'net.su').read_text().splitlines()]
    stated = re.search('at most ([0-9,]+) bytes of stack', source)[1].replace(',', '')
    assert 1700 < sum(map(int, frames)) + 8 * len(frames) <= int(stated) < 2300


def test_nothing_but_stdint_is_needed():
    source = to_c(packed('binary')[0], 'net.c')
    assert [line for line in source.splitlines() if line.startswith('#include')] == [
        '#include <stdint.h>'
    ]
