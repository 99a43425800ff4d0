"""Trainer snapshots, and how to resume from one."""

import glob
import json
import os
import re
import zlib

from chainer_compat import chainer
import numpy

from training.arguments import RECIPE_DEFAULTS, option, recipe_options
from support.models import describe_net
from training.report import COLUMNS
from support.files import BadFile, lock, read_npz, remove_if_free, restore, save_npz


def identity(args, train_images, train_labels):
    """What makes a training the one it is: only a training with the same identity may resume it.

    Args:
        args (argparse.Namespace): The options.
        train_images, train_labels (array): The training set.

    Returns:
        dict: Values by option.
    """
    names = 'net', 'weight_bits', 'activation_bits', 'batchsize', 'unit', 'layer', 'seed'
    run = {option(name): vars(args)[name] for name in names}
    run.update((option(name), value) for name, value in recipe_options(args).items())
    if args.final_alpha is not None:
        run['--epoch'] = args.epoch  # the decay depends on it
    run['--data with check sum'] = zlib.crc32(train_labels, zlib.crc32(train_images))
    return run


class Snapshot(chainer.training.Extension):
    """Trainer extension that saves the trainer after each epoch, and keeps the newest snapshot.

    An older snapshot is deleted once the newer one is on disk.

    Args:
        run (dict): The :func:`identity` of the training, which is saved, too.
    """

    trigger = 1, 'epoch'
    priority = -100  # after every other extension, whose state is saved

    def __init__(self, run):
        self.run = run

    def initialize(self, trainer):
        path = self.path(trainer)
        if os.path.exists(path):  # resumed from it; a killed run may have left an older one
            for older in snapshots(trainer.out)[snapshots(trainer.out).index(path) + 1 :]:
                remove_if_free(older)

    def __call__(self, trainer):
        path = self.path(trainer)
        save_npz(path, trainer)
        for other in snapshots(trainer.out):
            if other != path:
                remove_if_free(other)

    @staticmethod
    def path(trainer):
        return os.path.join(trainer.out, f'snapshot_epoch_{trainer.updater.epoch}')

    def serialize(self, serializer):
        serializer('run', json.dumps(self.run))


def snapshots(folder):
    """Paths of the snapshots in a folder, the newest first."""
    paths = glob.glob(os.path.join(glob.escape(folder), 'snapshot_epoch_*'))
    epochs = {
        path: re.fullmatch(r'snapshot_epoch_(\d+)', os.path.basename(path)) for path in paths
    }
    return sorted(filter(epochs.get, paths), key=lambda path: -int(epochs[path][1]))


def claim(args, trainer):
    """Resumes the trainer if asked to, and locks its folder, in which it may write from now on.

    Args:
        args (argparse.Namespace): The options.
        trainer (~chainer.training.Trainer): The trainer, with all its extensions.

    Returns:
        file: The lock. Closing it releases the folder.

    Raises:
        ValueError: If the folder holds a snapshot that this training would delete, or the snapshot
            to resume from is not valid or belongs to another training.
        OSError: If another training has locked the folder, or it is not writable.
    """
    from_file = args.resume not in (None, 'auto')
    continues = args.resume == 'auto' or (
        from_file and os.path.realpath(os.path.dirname(args.resume)) == os.path.realpath(args.out)
    )
    if from_file:
        resume(args.resume, trainer)
    claimed = lock(args.out)
    try:
        if snapshots(args.out) and not continues and not args.overwrite:
            raise ValueError(
                f'{args.out}: holds an earlier training, which this one would overwrite; continue '
                'it with --resume, choose another folder with --out, or give --overwrite'
            )
        if args.resume == 'auto':
            resume_newest(trainer)
    except BaseException:
        claimed.close()
        raise
    return claimed


def resume(path, trainer):
    """Restores a trainer from a snapshot.

    Args:
        path (str): The snapshot.
        trainer (~chainer.training.Trainer): A trainer with the same extensions.

    Raises:
        BadFile: If the file is damaged or not a snapshot.
        ValueError: If the snapshot belongs to another training, or is past its end.
        OSError: If it cannot be opened.
    """
    _restore(path, read_npz(path), trainer)


def resume_newest(trainer):
    """Restores a trainer from the newest valid snapshot in its folder, and prints which.

    Args:
        trainer (~chainer.training.Trainer): A trainer with the same extensions.

    Raises:
        ValueError: If that snapshot belongs to another training or is past its end; the message
            says why.
    """
    for path in snapshots(trainer.out):
        try:
            arrays = read_npz(path)
        except (BadFile, OSError) as e:
            print(f'{e}; trying an older one')
        else:
            _restore(path, arrays, trainer)
            print(f'resume from {path}')
            return
    print(f'no snapshot in {trainer.out} to resume from: starting afresh')


def _restore(path, arrays, trainer):
    try:
        saved = dict(json.loads(arrays['extensions/Snapshot/run'].item()))
    except Exception as e:  # An untrusted file can hold anything.
        raise BadFile(f'{path}: not a snapshot of this program') from e
    defaults = {option(name): value for name, value in RECIPE_DEFAULTS.items()}
    theirs = {**defaults, **saved}
    for name, value in {**defaults, **trainer.get_extension('Snapshot').run}.items():
        if theirs.get(name) != value:
            raise ValueError(
                f'{path}: belongs to a training {_words(name, theirs.get(name))}, '
                f'and this one is {_words(name, value)}'
            )
    net = trainer.updater.get_optimizer('main').target.predictor
    before = describe_net(net)
    restore(path, arrays, trainer)
    if hasattr(trainer, 'resumed'):
        trainer.resumed = path, arrays  # for the other processes
    try:
        consistent = describe_net(net) == before and _is_consistent(trainer, arrays)
    except Exception:  # An untrusted log can be anything that JSON can express.
        consistent = False
    if not consistent:
        raise BadFile(f'{path}: damaged, its parts do not fit together')
    if trainer.updater.epoch > trainer.stop_trigger.period:
        raise ValueError(
            f'{path}: has {trainer.updater.epoch} epochs already, more than --epoch '
            f'{trainer.stop_trigger.period}'
        )


def _words(name, value):
    return f'without {name}' if value is None or value is False else f'with {name} {value}'


def _is_consistent(trainer, arrays):
    """Whether all that Chainer restores without a check fits together, as at the end of an
    epoch.
    """
    iterator = trainer.updater.get_iterator('main')
    optimizer = trainer.updater.get_optimizer('main')
    rules = [(param, param.update_rule) for param in optimizer.target.params()]
    log = trainer.get_extension('LogReport').log
    report = trainer.get_extension('Report')
    n = len(iterator.labels)
    before = iterator.epoch - 1 + (n - (n % iterator.size or iterator.size)) / n

    def as_it_was(name):
        """Extensions were triggered by the last minibatch; all else saw the one before it."""
        last = not name.startswith(('updater', 'stop_trigger'))
        if name.endswith('previous_epoch_detail'):
            return arrays[name] == (iterator.epoch if last else before)
        if name.endswith('previous_iteration'):
            return arrays[name] == iterator.iteration - (not last)
        return True

    return (
        iterator.position == 0
        and iterator.is_new_epoch
        and iterator.iteration == trainer.updater.iteration == optimizer.t
        and all(rule.t == optimizer.t for _, rule in rules)
        and all(
            state.shape == param.shape and state.dtype == param.dtype
            for param, rule in rules
            for state in rule.state.values()
        )
        and all(map(as_it_was, arrays))
        and [row['epoch'] for row in log] == list(range(1, iterator.epoch + 1))
        and _are_numbers([[row[key] for key in COLUMNS] for row in log])
        and _are_numbers(report.counts)
        and numpy.shape(report.counts) == (iterator.epoch + 1, len(report.layers), report.bins)
    )


def _are_numbers(lists):
    """Whether what was read as JSON is numbers, each small enough for NumPy, and thus for all."""
    return numpy.asarray(lists).dtype.kind in 'if'


def how_to_resume(trainer):
    """The line for a training that was interrupted."""
    epoch = trainer.updater.epoch + 1
    newest = snapshots(trainer.out)[:1]
    if not newest:
        return f'interrupted in epoch {epoch}; there is no snapshot yet to resume from'
    return f'interrupted in epoch {epoch}; to resume, add --resume {newest[0]} to the same command'
