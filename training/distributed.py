"""One training on several processes, by ChainerMN: each takes its share of every minibatch.

ChainerMN has the communicator: which processes there are, and the mean of an array over them.
What it lacks is here: shares of unequal size, which its multi-node optimizer and its batch
normalization weight equally; a moving variance that is that of the whole minibatch; and an end of
all processes, with one line, when one of them fails.
"""

import contextlib
import os
import signal
import socket
import threading

from chainer_compat import chainer
from chainer.backends import cuda
from chainer.functions.normalization import batch_normalization
import chainer.links as L
import numpy

from support.program import report_problem
from training.snapshot import claim, how_to_resume
from support.files import restore

# Trainer extensions that only the first process has.
WRITERS = 'Graph', 'LogReport', 'Report', 'PrintReport', 'ProgressBar', 'Snapshot', 'ChooseEpoch'


class Share:
    """The share of one process in every minibatch, and the means over all processes.

    Args:
        communicator (~chainermn.CommunicatorBase): Connects the processes.

    Attributes:
        rank (int): Number of this process, from 0.
        size (int): Number of processes.
        intra_rank (int): Number of this process on its machine, from 0.
        weight (float): Images in the share of the latest minibatch, over those in a mean share.
    """

    weight = 1.0

    def __init__(self, communicator):
        self.communicator = communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.intra_rank = communicator.intra_rank

    def of(self, index):
        """Returns the share of an array of images' numbers, and takes note of its weight."""
        mine = numpy.arange(len(index)) * self.size // len(index) == self.rank
        first, count = int(mine.argmax()), int(mine.sum())
        self.weight = count * self.size / len(index)
        return index[first : first + count]

    def mean(self, array):
        """The mean of an array over the images of all processes, given this process's mean.

        Args:
            array (array): Float array; it is overwritten.

        Returns:
            array: The mean.
        """
        array *= array.dtype.type(self.weight)
        if cuda.get_array_module(array) is not numpy:
            cuda.Stream.null.synchronize()  # MPI does not wait for CUDA
        self.communicator._multi_node_mean(None, array)
        return array

    def gather(self, value):
        """What each process gives, in a list, in order."""
        return self.communicator.mpi_comm.allgather(value)

    def from_first(self, value):
        """What the first process gives."""
        return self.communicator.mpi_comm.bcast(value)


def create_share(name):
    """Connects the processes that ``mpiexec`` started.

    Args:
        name (str): Name of a communicator of ChainerMN.

    Returns:
        Share: This process' share.

    Raises:
        ValueError: If mpi4py or MPI cannot be used; the message says why.
    """
    try:
        import chainermn
        import chainermn.global_except_hook

        chainermn.global_except_hook.add_hook()
        return Share(chainermn.create_communicator(name))
    except Exception as e:  # A broken installation of MPI or NCCL can raise anything.
        reason = ' '.join(str(e).split())
        raise ValueError(
            f'--communicator {name}: cannot be used (make setup MPI=1 installs MPI): {reason}'
        ) from e


class _Statistics(batch_normalization.GeneralBatchNormalizationImpl):
    """The statistics and sums of batch normalization over the minibatch of all processes."""

    def __init__(self, share):
        self.share = share

    def get_mean_and_var(self, axis, gamma, x, xp, interm_dtype):
        mean = self.share.mean(x.mean(axis=axis, dtype=interm_dtype))
        return mean, self.share.mean(xp.square(x - mean).mean(axis=axis, dtype=interm_dtype))

    def get_ggamma_and_gbeta(self, axis, gamma, gy, x_hat, xp):
        # gy is the gradient of this process' mean loss, so its weight is that of the share.
        sums = xp.stack([gy.sum(axis=axis), (gy * x_hat).sum(axis=axis)])
        gbeta, ggamma = self.share.mean(sums)
        return gbeta, ggamma


class MultiNodeBatchNormalization(L.BatchNormalization):
    """Batch normalization with the statistics of the minibatch of all processes.

    It is ChainerMN's link of this name, for shares of unequal size.

    Args:
        size (int): Number of units.
        share (Share): This process' share.
    """

    def __init__(self, size, share):
        super().__init__(size)
        self.share = share

    def forward(self, x):
        if not chainer.config.train:
            return super().forward(x)
        before = self.avg_var.copy()
        function = batch_normalization.BatchNormalization(
            self.eps,
            self.avg_mean,
            self.avg_var,
            self.decay,
            impl_selector=lambda *_: _Statistics(self.share),
        )
        (y,) = function.apply((x, self.gamma, self.beta))
        # Chainer has estimated the variance from the images of this process alone.
        n = len(x)
        total = n * self.share.size / self.share.weight
        unbiased = (total / (total - 1)) * ((n - 1) / n if n > 1 else 1)
        before *= self.decay
        self.avg_var -= before
        self.avg_var *= unbiased
        self.avg_var += before
        return y


class MeanGradients:
    """Optimizer hook that averages the gradients over the images of all processes."""

    name = 'MeanGradients'
    call_for_each_param = False
    timing = 'pre'

    def __init__(self, share):
        self.share = share

    def __call__(self, optimizer):
        for param in optimizer.target.params():
            param.grad *= param.dtype.type(self.share.weight)
        self.share.communicator.multi_node_mean_grad(optimizer.target)


class MeanObservation(chainer.training.Extension):
    """Trainer extension that makes the loss and accuracy those of the whole minibatch."""

    priority = chainer.training.PRIORITY_EDITOR + 2  # before FailOnNonFinite

    def __init__(self, share):
        self.share = share

    def __call__(self, trainer):
        names = 'main/loss', 'main/accuracy'
        values = [chainer.as_array(trainer.observation[name]) for name in names]
        means = self.share.mean(numpy.array([cuda.to_cpu(v) for v in values], numpy.float64))
        for value, mean in zip(values, means):
            value[...] = mean


def distribute(net, share):
    """Gives a net the batch normalization of all processes; before it has any other state."""
    for i in range(1, net.n_layers + 2):
        delattr(net, f'bn{i}')
        with net.init_scope():
            setattr(net, f'bn{i}', MultiNodeBatchNormalization(len(net[f'l{i}'].W), share))


def prepare(args, build):
    """Prepares a training on all processes. Only the first of them prints, draws and writes.

    Args:
        args (argparse.Namespace): The options of the training.
        build (callable): Makes the trainer of this process of the options and its share.

    Returns:
        ~chainer.training.Trainer: The trainer, ready to run, with ``share`` and ``lock``.

    Raises:
        ValueError: If this cannot be done in some process; the message says on which.
    """
    share = create_share(args.communicator)
    if not share.rank:
        print(f'# processes: {share.size}', flush=True)
    if args.gpu >= 0:
        args.gpu += share.intra_rank
    trainer = agree(share, lambda: build(args, share))
    trainer.share, trainer.resumed = share, (None, None)
    _check_minibatches(args, share, trainer.updater.get_iterator('main'))
    runs = share.gather(trainer.get_extension('Snapshot').run)
    if any(run != runs[0] for run in runs):
        raise ValueError(f'--data {args.data}: the processes have read different data sets')

    optimizer = trainer.updater.get_optimizer('main')
    optimizer.add_hook(MeanGradients(share))
    trainer.extend(MeanObservation(share))
    trainer.updater.get_iterator('main').share = share
    evaluated = trainer.get_extension('validation').get_iterator('main')
    evaluated.share = Share(share.communicator)  # another, which has other weights
    if share.rank:
        for name in list(trainer._extensions):
            if name.split('_')[0] in WRITERS:
                del trainer._extensions[name]

    trainer.lock = agree(
        share, lambda: contextlib.nullcontext() if share.rank else claim(args, trainer)
    )
    share.communicator.bcast_data(optimizer.target)
    path, arrays = share.from_first(trainer.resumed)
    if arrays and share.rank:
        restore(path, arrays, trainer)
    trainer.resumed = None
    _end_together(share, trainer)
    return trainer


def _check_minibatches(args, share, iterator):
    n, size = len(iterator.labels), iterator.size
    last = n % size or size
    if last < share.size:
        raise ValueError(
            f'--batchsize {args.batchsize}: the last minibatch of an epoch has {last} images, too '
            f'few for {share.size} processes'
        )


def agree(share, prepare):
    """Prepares on every process; if one fails, all raise its error.

    Args:
        share (Share): This process' share.
        prepare (callable): What to do. It must not communicate.

    Returns:
        What ``prepare`` returned.

    Raises:
        ValueError: If ``prepare`` failed in some process; the message says on which.
    """
    result = problem = None
    try:
        result = prepare()
    except (OSError, ValueError, MemoryError) as e:
        problem = f'{e.filename}: {e.strerror}' if getattr(e, 'filename', None) else str(e)
    problems = share.gather(problem)
    for rank, (problem, host) in enumerate(zip(problems, share.gather(socket.gethostname()))):
        if problem:
            everywhere = all(p == problem for p in problems)
            where = '' if everywhere else f' (process {rank}, on {host})'
            raise ValueError(problem + where)
    return result


def _end_together(share, trainer):
    """Says how to resume when ``mpiexec`` ends this process because another has died.

    The first process that is still there prints the line. The signal wakes a thread, since
    the main one may be waiting for the dead process inside MPI.
    """
    processes = share.gather((socket.gethostname(), os.getpid()))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(writer)

    def is_there(process):
        host, pid = process
        if host != processes[share.rank][0]:
            return True  # it cannot be seen from here
        try:
            with open(f'/proc/{pid}/stat') as f:
                return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
        except OSError:
            return False

    def wait():
        while os.read(reader, 1)[0] != signal.SIGTERM:
            pass
        if not any(map(is_there, processes[: share.rank])):
            report_problem(how_to_resume(trainer))
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
