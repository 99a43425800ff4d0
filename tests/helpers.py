"""What several tests use: programs, logs, data sets, small trained nets."""

import functools
import gzip
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys

import chainer
import chainer.links as L
import numpy

import fast
from data import Minibatches
from support.files import read_npz
from weight_clip import WeightClip

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def write_idx(path, array):
    """Writes an IDX file, compressed if its name ends in .gz: the inverse of data.read_idx."""
    header = struct.pack(f'>{1 + array.ndim}I', 0x800 + array.ndim, *array.shape)
    with (gzip.open if str(path).endswith('.gz') else open)(path, 'wb') as f:
        f.write(header + array.astype(numpy.uint8).tobytes())


def write_dataset(
    folder, train_images, train_labels, test_images, test_labels, prefix='', test='t10k', ending=''
):
    folder.mkdir(exist_ok=True)
    for name, array in (
        (f'{prefix}train-images-idx3-ubyte', train_images),
        (f'{prefix}train-labels-idx1-ubyte', train_labels),
        (f'{prefix}{test}-images-idx3-ubyte', test_images),
        (f'{prefix}{test}-labels-idx1-ubyte', test_labels),
    ):
        write_idx(folder / (name + ending), array)
    return folder


# What a forked child finds imported: the programs, and what they import late.
IMPORTED = (
    *('train_mnist', 'inference', 'pack', 'pictures.digits', 'pictures.drawings', 'deploy.xnor'),
    *('deploy.c_source', 'deploy.html_page', 'deploy.onnx_graph', 'matplotlib.figure'),
    *('matplotlib.backends.backend_agg', 'PIL.PngImagePlugin', 'PIL.JpegImagePlugin'),
)


def environment():
    """The environment variables, without those of pytest, which change with each test."""
    return {name: value for name, value in os.environ.items() if name[:7] != 'PYTEST_'}


@functools.cache
def fork_server():
    """A socket to fork_server.py, which ends with this process, and the server's environment."""
    ours, its = socket.socketpair()
    command = [sys.executable, os.path.join(ROOT, 'tests', 'fork_server.py'), *IMPORTED]
    with its:
        server = subprocess.Popen(  # Without env it would also get what C code has set here.
            command, env=dict(os.environ), stdin=its, stdout=subprocess.PIPE
        )
    return ours, environment(), server


class Child:
    """A program in a forked child: what the tests use of :class:`subprocess.Popen`."""

    def __init__(self, command, cwd):
        self.args, self.returncode, self._read = command, None, {}
        self._connection, its = socket.socketpair()
        self._lines = self._connection.makefile('rw')
        pipes = [os.pipe() for _ in range(2)]
        self.stdout, self.stderr = (open(ours) for ours, _ in pipes)
        with its, open(os.devnull) as stdin:
            descriptors = [its.fileno(), stdin.fileno(), *(its for _, its in pipes)]
            socket.send_fds(fork_server()[0], [b'!'], descriptors)
        for _, its in pipes:
            os.close(its)
        print(json.dumps([command, str(cwd)]), file=self._lines, flush=True)
        self.pid = int(self._lines.readline())

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._connection.close()
        return self.returncode

    def poll(self):
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout=None):
        """The timeout is the longest silence."""
        parts = {self.stdout: b'', self.stderr: b''}
        unfinished = list(parts)
        while unfinished:
            ready, _, _ = select.select(unfinished, [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout)
            for pipe in ready:
                part = os.read(pipe.fileno(), 1 << 16)
                parts[pipe] += part
                if not part:
                    unfinished.remove(pipe)
                    pipe.close()
        self.wait(timeout)
        return tuple(part.decode() for part in parts.values())

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def start(*command, cwd='.', **variables):
    """Starts ``python`` with the words of a command: a script or ``-c``, and the arguments.

    It is a child of a process that has everything imported. It is a process of its own where that
    would not do: on other systems than Linux, with other environment variables, which may act at
    import, and with a CUDA device, which is lost in a fork.
    """
    command = [str(word) for word in command]
    if sys.platform == 'linux' and '--gpu' not in command:
        if fork_server()[1] == {**environment(), **variables}:
            return Child(command, cwd)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*command, timeout=600, **kwargs):
    """Runs ``python`` with the words of a command, as :func:`start` does, to its end."""
    process = start(*command, **kwargs)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


# For code that runs before it.
PROGRAM = "import sys, train_mnist; sys.argv[0] = 'train_mnist.py'; train_mnist.main()"


def train(*arguments, **environment):
    return run(os.path.join(ROOT, 'train_mnist.py'), *arguments, **environment)


def small(folder, data, *arguments, **environment):
    """A training that takes seconds: 600 images, a small net."""
    return train(
        '--data', data, '--unit', 50, '--batchsize', 50, '--out', folder, *arguments, **environment
    )


def log_of(folder):
    """The log without its times."""
    with open(os.path.join(folder, 'log')) as f:
        return [{k: v for k, v in row.items() if k != 'elapsed_time'} for row in json.load(f)]


def same(a, b):
    a, b = read_npz(str(a)), read_npz(str(b))
    return a.keys() == b.keys() and all(numpy.array_equal(a[name], b[name]) for name in a)


def trained(
    images, labels, seed, n_units, n_layers, weight_bits, activation_bits, steps=100, signed=False
):
    numpy.random.seed(seed)
    n_in = images[0].size
    if weight_bits == activation_bits == 1:
        net = fast.BinaryMLP(n_in, n_units, 10, n_layers)
    else:
        net = fast.QuantizedMLP(n_in, n_units, 10, n_layers, weight_bits, activation_bits)
    if signed:
        net.use_signed_pixels()
    model = L.Classifier(net)
    optimizer = fast.Adam(0.003).setup(model)
    optimizer.add_hook(WeightClip())
    net.bn1.gamma.array[::3] *= -1  # training alone hardly ever turns a gamma's sign
    net.bn1.gamma.array[1] = 0
    iterator = Minibatches(images, labels, 100, seed)
    for _ in range(steps):
        optimizer.update(model, *next(iterator))
    net.bn1.gamma.array[1] = 0
    net.add_persistent('pixel_scale', net.pixel_scale)
    return net


def logits_of(net, images):
    images = images.reshape(len(images), -1)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return numpy.concatenate(
            [net(images[i : i + 1000]).array for i in range(0, len(images), 1000)]
        )


def equal(a, b):
    """Same dtype, shape and bits; any NaN is like another."""
    return a.dtype == b.dtype and numpy.array_equal(a, b, equal_nan=True)
