"""Which kernels the CPU gets, by its instruction sets.

``BYTES`` is the way to multiply bytes and add the products, ``BITS`` that to count bits, and
``FLOATS`` that to add floats with signs. Each is the first entry of its table whose instruction
set the CPU has. With ``NUMBA_CPU_NAME`` set, Numba compiles for that CPU, and the kernels follow:
``haswell`` stands for AVX2, any other name for plain vectors, and ``NUMBA_CPU_FEATURES`` adds to
either (for example ``+avxvnni``).
"""

import platform

import llvmlite.binding
import numba

# Instruction set as LLVM calls it -> name for people. The fastest comes first; LLVM's plain
# vectors serve every CPU.
BYTE_KERNELS = {
    'avx512vnni': 'AVX-512 VNNI',
    'avxvnni': 'AVX-VNNI',
    'avx2': 'AVX2',
    'dotprod': 'NEON dot product',
    'plain': 'plain vectors',
}
BIT_KERNELS = {
    'avx512vpopcntdq': 'AVX-512 VPOPCNTDQ',
    'avx2': 'AVX2',
    'neon': 'NEON',
    'plain': 'plain vectors',
}
FLOAT_KERNELS = {
    'avx512f': 'AVX-512',
    'plain': 'plain vectors',
}


def _instruction_sets():
    features = (numba.config.CPU_FEATURES or '').split(',')
    present = {'plain'} | {feature[1:] for feature in features if feature.startswith('+')}
    if platform.machine().lower() in ('aarch64', 'arm64'):  # ARM64 on Windows
        present.add('neon')  # every 64-bit ARM CPU has it
    name = numba.config.CPU_NAME
    if name == 'haswell':
        present.add('avx2')
    elif not name or name == 'host':
        host = llvmlite.binding.get_host_cpu_features()
        present |= {feature for feature, there in host.items() if there}
    return present


_present = _instruction_sets()
BYTES = next(name for name in BYTE_KERNELS if name in _present)
BITS = next(name for name in BIT_KERNELS if name in _present)
FLOATS = next(name for name in FLOAT_KERNELS if name in _present)


def describe():
    """Says in words which kernels were chosen: for example ``AVX-512 VNNI, AVX-512 VPOPCNTDQ``."""
    return ', '.join(dict.fromkeys([BYTE_KERNELS[BYTES], BIT_KERNELS[BITS]]))
