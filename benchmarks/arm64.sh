#!/usr/bin/env bash
# Runs the tests of the kernels for 64-bit ARM under an emulator: right answers, not times.
#
#     benchmarks/arm64.sh FOLDER
#
# Debian with qemu-user-static and debootstrap, as root. FOLDER takes 1 GB: Debian's Python for ARM
# and the packages of requirements.txt. The emulated CPU has NEON and the dot product.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && cd "$1"

if [ ! -e done ]; then
    debootstrap --foreign --variant=minbase --arch=arm64 --include=python3-minimal,libpython3-stdlib \
        bookworm system >/dev/null
    for package in system/var/cache/apt/archives/*.deb; do dpkg -x "$package" system; done
    python3 -m venv venv
    venv/bin/pip install --quiet 'setuptools<81' wheel
    venv/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels chainer==7.8.1
    venv/bin/pip download --quiet --dest wheels --only-binary=:all: --python-version 3.11 \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any \
        numpy numba pillow six protobuf filelock typing_extensions pytest hypothesis
    mkdir packages
    for wheel in wheels/*.whl; do unzip -q -o "$wheel" -d packages; done
    touch done
fi

# The emulator does not tell LLVM what its CPU can do.
for features in +neon +neon,+dotprod; do
    PYTHONPATH=$PWD/packages NUMBA_CACHE_DIR=$PWD/cache$features OPENBLAS_NUM_THREADS=1 \
        NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES=$features \
        qemu-aarch64-static -cpu max -L "$PWD/system" "$PWD/system/usr/bin/python3.11" \
        "$root/tests/fast/check_kernels.py"
done
