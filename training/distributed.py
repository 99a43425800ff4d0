"""One training on several processes: each takes an equal share of every minibatch.

ChainerMN connects the processes and averages the gradients. Its batch normalization is not used,
because it would train another net: its moving variance is a share's, and it takes the
variance as a difference of two means, which rounding makes negative where a unit is constant. All
of this hangs on the trainer by extensions and hooks, and the trainer's parts know nothing of it.
"""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time

from chainer_compat import chainer
from chainer.backends import cuda
from chainer.functions.normalization import batch_normalization
import chainer.links as L
import numpy

from support.files import arrays_of, restore
from support.program import report_problem
from training.arguments import option
from training.snapshot import claim, how_to_resume

# The extensions that all processes need. The first alone evaluates, prints, draws and writes.
EVERYWHERE = 'ExponentialShift', 'Seed'


def connect(args):
    """Connects the processes that ``mpiexec`` started; from then on, only the first prints.

    Returns:
        ~chainermn.CommunicatorBase: The connection; None without ``--communicator``.

    Raises:
        ValueError: If MPI cannot be used.
    """
    if not args.communicator:
        n = os.environ.get('OMPI_COMM_WORLD_SIZE') or os.environ.get('PMI_SIZE') or '1'
        if n != '1':
            raise ValueError(
                f'mpiexec has started {n} processes, of which each would train alone; add '
                '--communicator naive to train one net on all of them'
            )
        return None
    try:
        import mpi4py

        mpi4py.rc.finalize = False  # a process that fails must end without the others
        import chainermn

        communicator = chainermn.create_communicator(args.communicator)
    except Exception as e:  # A broken installation of MPI or NCCL can raise anything.
        how = f'--communicator {args.communicator}: cannot be used (make setup MPI=1 installs MPI)'
        raise ValueError(f'{how}: {" ".join(str(e).split())}') from e
    if communicator.rank:
        sys.stdout = open(os.devnull, 'w')
    return communicator


def prepare(communicator, args, build):
    """Prepares a training on all processes.

    Args:
        communicator (~chainermn.CommunicatorBase): What :func:`connect` returned.
        args (argparse.Namespace): The options of the training.
        build (callable): Makes the trainer of a single process of the options.

    Returns:
        tuple: The trainer, and the context manager to run it in.

    Raises:
        ValueError: If they differ in options or data, or cannot share every minibatch equally.
    """
    rank, mpi = communicator.rank, communicator.mpi_comm
    print(f'# processes: {communicator.size}', flush=True)
    identity = {option(name): value for name, value in vars(args).items()}
    if args.gpu >= 0:
        args.gpu += communicator.intra_rank
    try:
        trainer = build(args)
    except (OSError, ValueError, MemoryError) as e:
        if not rank:
            raise
        raise ValueError(f'process {rank}, on {socket.gethostname()}: {e}') from e
    _compare(mpi.allgather({**identity, **trainer.get_extension('Snapshot').run}))
    n, images = communicator.size, len(trainer.updater.get_iterator('main').labels)
    if args.batchsize % n or images % n:
        raise ValueError(
            f'--batchsize {args.batchsize}: {n} processes cannot share every minibatch equally; '
            f'their number must divide --batchsize and the {images} training images'
        )
    lock = contextlib.nullcontext() if rank else claim(args, trainer)
    if rank:
        for name in set(trainer._extensions) - set(EVERYWHERE):
            del trainer._extensions[name]
        if 'Seed' in trainer._extensions:  # each process drops something else
            trainer.get_extension('Seed').seed = (args.seed + rank) % 2**32
    _share(communicator, trainer)
    return trainer, _together(mpi, lock, trainer)


def _compare(everyone):
    """Refuses values, by option, that are not the same in all processes."""
    for name, value in everyone[0].items():
        for rank, theirs in enumerate(everyone):
            if theirs[name] != value:
                raise ValueError(
                    f'{name}: must be the same for all processes, but it is {value} for process 0 '
                    f'and {theirs[name]} for process {rank}'
                )


def _share(communicator, trainer):
    """Makes a trainer take its share of each minibatch, and the means over all shares."""
    rank, n = communicator.rank, communicator.size
    optimizer = trainer.updater.get_optimizer('main')

    def share(minibatch, device):
        size = len(minibatch[0]) // n
        return tuple(array[rank * size : (rank + 1) * size] for array in minibatch)

    def begin_like_the_first(trainer):
        communicator.bcast_data(optimizer.target)
        resumed = trainer.updater.epoch and not rank
        state = communicator.mpi_comm.bcast(arrays_of(trainer) if resumed else None)
        if state and rank:
            restore('the state of the first process', state, trainer)

    @chainer.training.make_extension(
        trigger=lambda trainer: False,
        priority=chainer.training.PRIORITY_EDITOR + 2,  # before the others
        initializer=begin_like_the_first,
    )
    def begin(trainer):
        pass

    def average(optimizer):
        communicator.multi_node_mean_grad(optimizer.target)
        for reported in optimizer.target.loss, optimizer.target.accuracy:
            array = chainer.as_array(reported)
            array[...] = _mean(communicator, array)

    trainer.updater.converter = share
    optimizer.add_hook(average)
    trainer.extend(begin)
    for link in optimizer.target.links():
        if isinstance(link, L.BatchNormalization):
            link.__class__ = MultiNodeBatchNormalization
            link.communicator = communicator


def _mean(communicator, array):
    """The mean of an array over all processes."""
    if cuda.get_array_module(array) is not numpy:
        cuda.Stream.null.synchronize()  # MPI does not wait for CUDA
    return communicator.allreduce(array) / communicator.size


class _WholeMinibatch(batch_normalization.GeneralBatchNormalizationImpl):
    """The statistics and sums of batch normalization over the minibatch of all processes."""

    def __init__(self, communicator):
        self.communicator = communicator

    def get_mean_and_var(self, axis, gamma, x, xp, interm_dtype):
        mean, var = super().get_mean_and_var(axis, gamma, x, xp, interm_dtype)
        whole = _mean(self.communicator, mean)
        return whole, _mean(self.communicator, var + xp.square(mean - whole))

    def get_ggamma_and_gbeta(self, axis, gamma, gy, x_hat, xp):
        sums = super().get_ggamma_and_gbeta(axis, gamma, gy, x_hat, xp)
        return tuple(_mean(self.communicator, xp.stack(sums)))


class MultiNodeBatchNormalization(L.BatchNormalization):
    """Batch normalization with the statistics of the minibatch of all processes."""

    def forward(self, x):
        if not chainer.config.train or chainer.config.keep_graph_on_report:
            return super().forward(x)  # the first process alone evaluates and draws the graph
        function = batch_normalization.BatchNormalization(
            self.eps, impl_selector=lambda *_: _WholeMinibatch(self.communicator)
        )
        (y,) = function.apply((x, self.gamma, self.beta))
        n = len(x) * self.communicator.size
        unbiased = function.var * (n / max(n - 1, 1))
        for average, latest in (self.avg_mean, function.mean), (self.avg_var, unbiased):
            average *= self.decay
            average += (1 - self.decay) * latest
        return y


@contextlib.contextmanager
def _together(mpi, lock, trainer):
    """Runs a block in all processes. If one fails or is killed, all end, and one line says why.

    ``mpiexec`` sends the others a signal. It wakes a thread, since the main one may be waiting for
    the dead process inside MPI. The process that removes the empty folder ``word`` has the word.
    """
    word = mpi.bcast(None if mpi.rank else tempfile.mkdtemp())
    pids = mpi.allgather(os.getpid())

    def wait():
        while os.read(reader, 1)[0] != signal.SIGTERM:
            pass
        with contextlib.suppress(OSError):
            os.rmdir(word)
            report_problem(how_to_resume(trainer))
            for pid in pids:
                os.kill(pid, 0)  # OSError if it has ended
            # mpiexec itself was interrupted, and passes on nothing more
            with open('/dev/tty', 'w') as terminal, contextlib.redirect_stderr(terminal):
                report_problem(how_to_resume(trainer))
        time.sleep(1)
        os._exit(1)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(writer)
    threading.Thread(target=wait, daemon=True).start()
    try:
        with lock:
            yield
        import mpi4py.MPI

        mpi4py.MPI.Finalize()  # once all processes are here
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(word)
