"""The CUDA source of our kernels is compiled, which needs NVRTC but no device."""

import glob
import os

from chainer.backends import cuda
import numpy
import pytest

from bst import binarize
from qst import quantize

CTYPES = {'float16': 'float16', 'float32': 'float', 'float64': 'double', 'int32': 'int'}
ARCHITECTURES = 70, 75, 80, 86, 89, 90


@pytest.fixture(scope='module')
def nvrtc():
    """CuPy's binding of NVRTC, and the options with which CuPy's headers are found."""
    cupy = pytest.importorskip('cupy', reason='CuPy is not installed')
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except Exception as e:
        pytest.skip(f'NVRTC is not installed: {e}')
    site = os.path.dirname(os.path.dirname(cupy.__file__))
    folders = [
        os.path.join(site, 'cupy', '_core', 'include'),
        *glob.glob(os.path.join(site, 'nvidia', '*', 'include')),
        os.path.join(os.environ.get('CUDA_PATH', '/usr/local/cuda'), 'include'),
    ]

    def there(header):
        return any(os.path.exists(os.path.join(folder, header)) for folder in folders)

    if not there('cuda_fp16.h'):
        pytest.skip("CUDA's headers are not installed")
    options = ['-std=c++17', *(f'-I{folder}' for folder in folders)]
    # CuPy 14 has taken float16 out of the first of these.
    options += [
        f'-include={header}' for header in ('cupy/carray.cuh', 'cupy/float16.cuh') if there(header)
    ]
    return nvrtc, options


@pytest.fixture
def kernels(monkeypatch):
    """What our functions pass to chainer.backends.cuda.elementwise for each dtype."""
    recorded = []
    for dtype in 'float16', 'float32', 'float64':

        def record(in_params, out_params, operation, name, dtype=dtype):
            return lambda *arguments: recorded.append(
                (dtype, in_params, out_params, operation, name)
            )

        with monkeypatch.context() as m:
            m.setattr(cuda, 'ndarray', numpy.ndarray)
            m.setattr(cuda, 'elementwise', record)
            binarize(numpy.zeros(1, dtype))
            quantize(numpy.zeros(1, dtype), 4)
    return recorded


def source(dtype, in_params, out_params, operation):
    """A kernel around the operation, as CuPy puts it: a loop in which the names are elements."""

    def declare(params, const):
        for param in params.split(','):
            ctype, name = param.split()
            ctype = CTYPES[dtype] if ctype == 'T' else CTYPES[ctype]
            yield f'{const}{ctype}* {name}_', f'{const}{ctype}& {name} = {name}_[i];'

    parameters = [*declare(in_params, 'const '), *declare(out_params, '')]
    return f"""
typedef {CTYPES[dtype]} T;
extern "C" __global__ void kernel({', '.join(p for p, _ in parameters)}, int n) {{
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {{
    {' '.join(element for _, element in parameters)}
    {operation};
  }}
}}
"""


def compiled(nvrtc, options, code, architecture):
    program = nvrtc.createProgram(code, 'kernel.cu', (), ())
    try:
        nvrtc.compileProgram(program, [*options, f'--gpu-architecture=compute_{architecture}'])
        return nvrtc.getPTX(program)
    except nvrtc.NVRTCError as e:
        raise AssertionError(f'{e}: {nvrtc.getProgramLog(program)}') from e
    finally:
        nvrtc.destroyProgram(program)


def test_there_are_two_kernels_for_each_dtype(kernels):
    assert sorted({(dtype, name) for dtype, _, _, _, name in kernels}) == [
        ('float16', 'binarize'),
        ('float16', 'quantize_float'),
        ('float32', 'binarize'),
        ('float32', 'quantize_float'),
        ('float64', 'binarize'),
        ('float64', 'quantize_double'),
    ]


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_every_kernel_compiles(architecture, kernels, nvrtc):
    nvrtc, options = nvrtc
    if architecture not in nvrtc.getSupportedArchs():
        pytest.skip(f'this NVRTC does not compile for compute capability {architecture / 10}')
    for dtype, in_params, out_params, operation, name in kernels:
        ptx = compiled(
            nvrtc, options, source(dtype, in_params, out_params, operation), architecture
        )
        assert f'.target sm_{architecture}' in (ptx.decode() if isinstance(ptx, bytes) else ptx), (
            name
        )


def test_a_broken_kernel_does_not_compile(nvrtc):
    nvrtc, options = nvrtc
    with pytest.raises(AssertionError, match='nonsense'):
        compiled(nvrtc, options, source('float32', 'T a', 'T y', 'y = nonsense(a)'), 80)
