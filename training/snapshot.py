"""Trainer snapshots, and how to resume from one."""

import errno
import json
import math
import os
import zlib

from chainer_compat import chainer
import numpy

from support.files import BadFile, change, naming, read_npz, restore, save_npz
from support.program import quote
from training import folder
from training.arguments import options
from training.report import COLUMNS
from training.saved import describe_net

# With other values of these options, a training is the same one, though elsewhere or longer.
# Data and initial model are compared by check sum.
NOT_COMPARED = '--gpu --communicator --quiet --epoch --recipe'.split()
NOT_COMPARED += '--data --initmodel --out --resume --overwrite'.split()


def identity(args, train_images, train_labels):
    """The options and data that identify a training: only the same one may resume it.

    Args:
        args (argparse.Namespace): The options.
        train_images, train_labels (array): The training set.

    Returns:
        dict: Values by option.
    """
    run = {'--net': args.net, **options(args)}  # which is named first if it differs
    run = {name: value for name, value in run.items() if name not in NOT_COMPARED}
    if args.final_alpha is not None:
        run['--epoch'] = args.epoch  # the decay depends on it
    if args.initmodel:
        with open(args.initmodel, 'rb') as f:
            run['--initmodel with check sum'] = zlib.crc32(f.read())
    run['--data with check sum'] = zlib.crc32(train_labels, zlib.crc32(train_images))
    return run


def compare(whose, theirs, ours):
    """Raises a ValueError that names the first option in which two trainings differ."""

    def words(name, value):
        if value is None or isinstance(value, bool):
            return f'{"with" if value else "without"} {name.split()[0]}'
        return f'with {name} {" ".join(str(value).split())}'

    for name in {**ours, **theirs}:
        if theirs.get(name) != ours.get(name):
            raise ValueError(
                f'{whose}: belongs to a training {words(name, theirs.get(name))}, '
                f'and this one is {words(name, ours.get(name))}'
            )


class Snapshot(chainer.training.Extension):
    """Trainer extension that saves the trainer after each epoch, and keeps the newest snapshot.

    Once it is on disk, what it replaces is deleted: older snapshots, but none that somebody has
    put there meanwhile, and the run that ``--overwrite`` set aside. Then every extension with a
    method ``write`` writes its files. So these never belong to a later epoch than the snapshot,
    and a resumed training starts by writing those of its snapshot.

    Args:
        run (dict): The :func:`identity` of the training, which is also saved.
        overwrite (bool): Whether this training replaces the one that was set aside.
    """

    trigger = 1, 'epoch'
    priority = -100  # after every other extension, whose state is saved

    def __init__(self, run, overwrite):
        self.run, self.overwrite = run, overwrite

    def initialize(self, trainer):
        self.place = os.stat(trainer.out)
        self.names = set(folder.snapshots(trainer.out))
        if trainer.updater.epoch:  # resumed
            self.follow(trainer)

    def __call__(self, trainer):
        if not os.path.samestat(self.place, os.stat(trainer.out)):
            problem = 'is another folder now than the one that this training has locked'
            raise OSError(errno.ESTALE, problem, trainer.out)
        save_npz(os.path.join(trainer.out, self.file_name(trainer)), trainer)
        self.follow(trainer)

    def follow(self, trainer):
        """Does what follows once the snapshot is on disk."""
        newest = self.file_name(trainer)
        for name in self.names.intersection(folder.snapshots(trainer.out)) - {newest}:
            change(os.remove, os.path.join(trainer.out, name), optional=True)
        self.names.add(newest)
        if self.overwrite:
            folder.remove_set_aside(trainer.out)
        for entry in trainer._extensions.values():
            if hasattr(entry.extension, 'write'):
                entry.extension.write(trainer)

    @staticmethod
    def file_name(trainer):
        return f'snapshot_epoch_{trainer.updater.epoch}'

    def serialize(self, serializer):
        serializer('run', json.dumps(self.run))


def claim(args, trainer):
    """Locks the folder of a training, which may write there from now on, and resumes if asked to.

    An earlier training in the folder is continued, set aside with ``--overwrite``, or refused.

    Args:
        args (argparse.Namespace): The options.
        trainer (~chainer.training.Trainer): The trainer, with all its extensions.

    Returns:
        tuple: The lock, a context manager, and the arrays of the snapshot that was resumed from,
        or None.

    Raises:
        ValueError: If this training would replace another without ``--overwrite``, or the snapshot
            to resume from is not valid or belongs to another training.
        OSError: If another training has locked the folder, or something cannot be read or written.
    """
    out, file = args.out, args.resume if args.resume != 'auto' else None
    # A file is read before the folder is made, and never while it is half-written.
    arrays = resume(file, trainer) if file else None
    with folder.lock(out) as held:
        newest = folder.snapshots(out)[:1]
        if newest and args.resume == 'auto':
            arrays = _resume_newest(trainer)
        elif not (newest and file and os.path.samefile(file, os.path.join(out, newest[0]))):
            _make_room(args)
            if file:
                save_npz(os.path.join(out, Snapshot.file_name(trainer)), arrays)
            elif args.resume:
                print(f'no snapshot in {out} to resume from: starting afresh')
        return held.pop_all(), arrays


def _make_room(args):
    """Refuses to replace an earlier training, or sets it aside with ``--overwrite``."""
    out, aside = args.out, folder.aside(args.out)
    names, names_aside = folder.files_of_run(out), folder.files_of_run(aside)
    if names_aside and not args.overwrite and not folder.snapshots(out):
        raise ValueError(
            f'{out}: --overwrite was interrupted before the first snapshot; to keep the earlier '
            f'training, move its files back from {aside}, or give --overwrite again'
        )
    if names and not args.overwrite:
        continuing = 'continue it with --resume, ' if folder.snapshots(out) else ''
        raise ValueError(
            f'{out}: holds an earlier training ({", ".join(names)}), which this one would '
            f'overwrite; {continuing}choose another folder with --out, or give --overwrite'
        )
    replaced = [f'{out}/{name}' for name in names] + [f'{aside}/{name}' for name in names_aside]
    if args.initmodel and any(os.path.samefile(args.initmodel, path) for path in replaced):
        raise ValueError(
            f'--initmodel {args.initmodel}: belongs to the training that --overwrite would '
            'replace; choose another folder with --out'
        )
    if os.path.islink(aside) or set(names).intersection(names_aside):
        raise ValueError(f'{aside}: holds another training; move it elsewhere, or delete it')
    if names:
        folder.set_aside(out)
        print(f'# until the first snapshot, the earlier training is in {aside}')


def resume(path, trainer):
    """Restores a trainer from a snapshot.

    Args:
        path (str): The snapshot.
        trainer (~chainer.training.Trainer): A trainer with the same extensions.

    Returns:
        dict: The arrays of the snapshot.

    Raises:
        BadFile: If the file is damaged or not a snapshot.
        ValueError: If the snapshot belongs to another training, or is past its end.
        OSError: If it cannot be read.
    """
    arrays = read_npz(path)
    with naming(path, Exception, 'not a snapshot such as snapshot_epoch_1: '):
        run = dict(json.loads(arrays['extensions/Snapshot/run'].item()))
    compare(path, run, trainer.get_extension('Snapshot').run)
    optimizer = trainer.updater.get_optimizer('main')
    net = describe_net(optimizer.target.predictor)
    take(path, arrays, trainer)
    with naming(path, Exception, 'damaged, its parts do not fit together: '):
        _check(trainer, arrays)
        if net != describe_net(optimizer.target.predictor):
            raise ValueError('another net')
    epoch, last = trainer.updater.epoch, trainer.stop_trigger.period
    if epoch > last:
        raise ValueError(f'{path}: has {epoch} epochs already, more than --epoch {last}')
    name, newest = os.path.basename(path), Snapshot.file_name(trainer)
    if folder.epoch_of(name) and name != newest:  # it would be taken for an older one
        raise ValueError(f'{path}: is of epoch {epoch}; rename it to {newest}')
    return arrays


def take(path, arrays, trainer):
    """Gives a trainer the arrays of a snapshot: see :func:`support.files.restore`."""
    for param in trainer.updater.get_optimizer('main').target.params():
        param.update_rule._init_states(param)  # Chainer would take states of any shape
    restore(path, arrays, trainer)


def _check(trainer, arrays):
    """Raises an error unless what Chainer restores without a check is as after an epoch."""
    iterator, report = trainer.updater.get_iterator('main'), trainer.get_extension('Report')
    epoch = iterator.epoch
    n = epoch * math.ceil(len(iterator.labels) / iterator.size)
    for name, array in arrays.items():
        before = not name.startswith('extension')  # extensions have seen the last minibatch
        state = {'previous_epoch_detail': epoch - before, 'previous_iteration': n - before}
        expected = {'t': n, 'iteration': n, **state}.get(name.rpartition('/')[2])
        if iterator.position or expected is not None and array // 1 != expected:
            raise ValueError(name)
    rows = trainer.get_extension('LogReport').log
    # Of objects if a number is too large for NumPy, and thus for all
    table, counts = numpy.array([[row[key] for key in COLUMNS] for row in rows]), report.counts
    if table.dtype.kind != 'f' or table[:, 0].tolist() != list(range(1, epoch + 1)):
        raise ValueError('log')
    shape = epoch + 1, len(report.layers), report.bins
    if numpy.array(counts).dtype.kind != 'f' or numpy.shape(counts) != shape:
        raise ValueError('counts')


def _resume_newest(trainer):
    """Restores a trainer from the newest valid snapshot in its folder, and prints which.

    A damaged snapshot is passed over. One that cannot be read is not, as it may be sound.
    """
    for name in folder.snapshots(trainer.out):
        path = os.path.join(trainer.out, name)
        try:
            arrays = resume(path, trainer)
        except BadFile as e:
            print(f'{e}; it is passed over')
        else:
            print(f'resume from {path}')
            return arrays
    raise ValueError(
        f'{path}: damaged, as are all snapshots in {trainer.out}; to give up this training and '
        'start anew, give --overwrite without --resume'
    )


def how_to_resume(trainer):
    """The line for a training that was interrupted."""
    try:
        newest = folder.snapshots(trainer.out)[0]
    except (OSError, IndexError):  # Somebody may have removed the folder.
        return 'interrupted in epoch 1; there is no snapshot yet to resume from'
    path = quote(os.path.join(trainer.out, newest))
    epoch = folder.epoch_of(newest) + 1
    return f'interrupted in epoch {epoch}; to resume, add --resume {path} to the same command'
