"""One training on several processes: each takes an equal share of every minibatch.

ChainerMN connects the processes and averages the gradients. (Its batch normalization would train
another net: its moving variance belongs to a share, and rounding can make its variance negative.)
"""

import contextlib
import os
import socket
import sys

from chainer_compat import chainer
import chainer.functions as F
import chainer.links as L

from support.program import report_problem
from training.arguments import options
from training.snapshot import claim, compare, how_to_resume, take


def connect(args):
    """Connects the processes that ``mpiexec`` started; from then on, only the first prints.

    Returns:
        ~chainermn.CommunicatorBase: The connection; None without ``--communicator``.
    """
    if not args.communicator:
        if os.environ.get('OMPI_COMM_WORLD_SIZE', os.environ.get('PMI_SIZE', '1')) != '1':
            raise ValueError(
                'mpiexec has started several processes, of which each would train alone; add '
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
        raise ValueError(f'{how}: {e}') from e
    args.quiet = True  # mpiexec gives a terminal to each process, wherever the output goes
    if communicator.rank:
        sys.stdout = open(os.devnull, 'w')
    return communicator


def prepare(communicator, args, build):
    """Prepares a training on all processes: see :func:`train_mnist.prepare`.

    Raises:
        ValueError: In the first process, if another fails, if they differ in options or data, or
            cannot share every minibatch equally. The others wait for ``mpiexec`` to end them.
    """
    n, mpi, ours = communicator.size, communicator.mpi_comm, options(args)
    print(f'# processes: {n}', flush=True)
    if args.gpu >= 0:
        args.gpu += communicator.intra_rank
    try:
        trainer = build(args)
        ours.update(trainer.get_extension('Snapshot').run)
    except (OSError, ValueError, MemoryError) as e:
        if not mpi.rank:
            raise
        ours = f'process {mpi.rank}, on {socket.gethostname()}: {e}'
    everyone, held, snapshot = mpi.gather(ours), contextlib.nullcontext(), None
    if not mpi.rank:
        for rank, theirs in enumerate(everyone):
            if isinstance(theirs, str):
                raise ValueError(theirs)
            compare(f'process {rank}', theirs, ours)
        images = len(trainer.updater.get_iterator('main').labels)
        if args.batchsize % n or images % n:
            raise ValueError(
                f'--batchsize {args.batchsize}: {n} processes cannot share every minibatch '
                f'equally; their number must divide --batchsize and the {images} training images'
            )
        held, snapshot = claim(args, trainer)
    snapshot = mpi.bcast(snapshot)
    if mpi.rank and snapshot:
        take(args.resume, snapshot, trainer)
    _share(communicator, trainer)
    return trainer, _together(mpi, held, trainer)


def _share(communicator, trainer):
    """Makes a trainer take its share of each minibatch, and the means over all shares.

    The first process alone evaluates, prints, draws and writes.
    """
    model, rank = trainer.updater.get_optimizer('main').target, communicator.rank

    def share(minibatch, device):
        size = len(minibatch[0]) // communicator.size
        return tuple(array[rank * size : (rank + 1) * size] for array in minibatch)

    def average(optimizer):
        communicator.multi_node_mean_grad(model)
        for reported in model.loss, model.accuracy:
            (mean,) = Mean(communicator).apply((reported,))
            chainer.as_array(reported)[...] = mean.array

    trainer.updater.converter = share
    trainer.updater.get_optimizer('main').add_hook(average)
    for link in list(model.predictor.children()):
        if isinstance(link, L.BatchNormalization):
            setattr(model.predictor, link.name, SharedBatchNormalization(link, communicator))
    if rank:
        for name in set(trainer._extensions) - {'ExponentialShift', 'Seed'}:
            del trainer._extensions[name]
        if 'Seed' in trainer._extensions:  # each process drops something else
            trainer.get_extension('Seed').seed += rank


class Mean(chainer.FunctionNode):
    """The mean of an array over all processes. Its gradient is the mean of their gradients."""

    def __init__(self, communicator):
        self.communicator = communicator

    def forward(self, inputs):
        if isinstance(inputs[0], chainer.backends.cuda.ndarray):
            chainer.backends.cuda.Stream.null.synchronize()  # MPI does not wait for CUDA
        mean = self.communicator.allreduce(inputs[0])
        mean /= self.communicator.size
        return (mean,)

    def backward(self, indexes, grad_outputs):
        return Mean(self.communicator).apply(grad_outputs)


class SharedBatchNormalization(L.BatchNormalization):
    """The batch normalization of a link, with the statistics of the minibatch of all processes."""

    def __init__(self, link, communicator):
        # The parameters and moving averages are the link's own, not copies.
        vars(self).update(vars(link), communicator=communicator)

    def forward(self, x):
        if not chainer.config.train or chainer.config.keep_graph_on_report:
            return super().forward(x)  # the first process alone evaluates and draws the graph
        (mean,) = Mean(self.communicator).apply((F.average(x, axis=0),))
        (var,) = Mean(self.communicator).apply((F.average((x - mean) ** 2, axis=0),))
        n = len(x) * self.communicator.size
        self.avg_mean += (1 - self.decay) * (mean.array - self.avg_mean)
        self.avg_var += (1 - self.decay) * (var.array * (n / max(n - 1, 1)) - self.avg_var)
        return F.fixed_batch_normalization(x, self.gamma, self.beta, mean, var, self.eps)


@contextlib.contextmanager
def _together(mpi, held, trainer):
    """Runs a block in all processes. If one fails or is killed, ``mpiexec`` kills the others.

    If the first process is killed, a child of it says how to resume.
    """
    reader, writer = os.pipe()
    if not mpi.rank and hasattr(os, 'fork') and not os.fork():
        with contextlib.suppress(OSError):  # if there is no terminal
            sys.stderr = open('/dev/tty', 'w')  # after Ctrl-C, mpiexec passes on nothing
        os.setsid()  # out of the group that mpiexec kills
        os.close(writer)
        if not os.read(reader, 1):
            report_problem(how_to_resume(trainer))
        os._exit(0)
    try:
        with held:
            yield
        from mpi4py import MPI

        MPI.Finalize()  # once all processes are here
    finally:
        os.write(writer, b'.')
