"""The C source compiles everywhere without a warning, and gives the logits of the packed net."""

import ctypes
import itertools
import shutil
import subprocess

import numpy
import pytest

from deploy.c_source import to_c
from deploy.packed import PackedMLP
from nets import SHAPES, packed, supplied

STRICT = '-Wall -Wextra -pedantic -Wconversion -Werror'.split()
COMPILERS = [name for name in ('gcc', 'clang') if shutil.which(name)]
pytestmark = pytest.mark.skipif(not COMPILERS, reason='there is no C compiler')


def compiled(net, folder, compiler, *flags):
    source, library = folder / 'net.c', folder / f'net{len(list(folder.iterdir()))}.so'
    source.write_text(to_c(net))
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
        itertools.product(COMPILERS, ['-x c++ -std=c++11', '-std=c11 -mpopcnt', '-std=c99 -m32'])
    ),
)
def test_as_another_language_or_for_another_machine(compiler, flags, tmp_path):
    (tmp_path / 'probe.c').write_text('#include <stdint.h>\n')
    probe = [compiler, *flags.split(), '-c', 'probe.c', '-o', 'probe.o']
    if subprocess.run(probe, capture_output=True, cwd=tmp_path).returncode:
        pytest.skip(f'this {compiler} cannot: {flags}')
    for name in SHAPES:
        (tmp_path / 'net.c').write_text(to_c(packed(name)[0]))
        command = [compiler, *flags.split(), *STRICT, '-c', 'net.c', '-o', 'net.o']
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, '')


def test_nothing_but_stdint_is_needed():
    source = to_c(packed('binary')[0])
    assert [line for line in source.splitlines() if line.startswith('#include')] == [
        '#include <stdint.h>'
    ]
