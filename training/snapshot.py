"""Trainer snapshots, and how to resume from one."""

import contextlib
import errno
import json
import os
import zlib

from chainer_compat import chainer
import numpy

from support.files import (
    BadFile,
    arrays_of,
    lock,
    read_npz,
    remove_if_free,
    restore,
    save_arrays,
    save_npz,
)
from support.models import SavedNet, describe_net
from support.program import quote
from training import folder
from training.arguments import option, parse_arguments
from training.report import COLUMNS

# With other values of these options, a training is the same one, though elsewhere or longer.
# Data and initial model are compared by check sum.
NOT_COMPARED = {
    *('gpu', 'communicator', 'quiet', 'epoch', 'recipe'),
    *('data', 'initmodel', 'out', 'resume', 'overwrite'),
}
INITMODEL = '--initmodel with check sum'


def identity(args, train_images, train_labels, net):
    """The options and data that identify a training: only the same one may resume it.

    Args:
        args (argparse.Namespace): The options.
        train_images, train_labels (array): The training set.
        net (~net.MLP): The net before the training.

    Returns:
        dict: Values by option.
    """
    run = _compared(args)
    if args.final_alpha is not None:
        run['--epoch'] = args.epoch  # the decay depends on it
    if args.initmodel:
        arrays = sorted(arrays_of(net).items())
        run[INITMODEL] = zlib.crc32(b''.join(array.tobytes() for _, array in arrays))
    run['--data with check sum'] = zlib.crc32(train_labels, zlib.crc32(train_images))
    return run


def _compared(args):
    return {option(name): value for name, value in vars(args).items() if name not in NOT_COMPARED}


class Snapshot(chainer.training.Extension):
    """Trainer extension that saves the trainer after each epoch, and keeps the newest snapshot.

    Once it is on disk, what it replaces is deleted: older snapshots, but none that somebody has
    put there meanwhile, and a run that was set aside. Then every extension with a method ``write``
    writes its files. So these never belong to a later epoch than the snapshot, and a resumed
    training starts by writing those of its snapshot.

    Args:
        run (dict): The :func:`identity` of the training, which is also saved.
    """

    trigger = 1, 'epoch'
    priority = -100  # after every other extension, whose state is saved

    def __init__(self, run):
        self.run = run

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
            remove_if_free(os.path.join(trainer.out, name))
        self.names.add(newest)
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
        contextlib.ExitStack: The lock. Closing it releases the folder.

    Raises:
        ValueError: If this training would replace another without ``--overwrite``, or the snapshot
            to resume from is not valid or belongs to another training.
        OSError: If another training has locked the folder, or something cannot be read or written.
    """
    out, file = args.out, args.resume if args.resume != 'auto' else None
    elsewhere = file and not _same(os.path.dirname(file) or '.', out)
    if elsewhere:  # before the folder is made; no lock protects this file anyway
        arrays = resume(file, trainer)
    with contextlib.ExitStack() as held:
        held.enter_context(lock(out))
        folder.complete_setting_aside(out)
        if file and not elsewhere:
            arrays = resume(file, trainer)
        newest = folder.snapshots(out)[:1]
        if newest and args.resume == 'auto':
            resume_newest(trainer)
        elif not (newest and file and _same(file, os.path.join(out, newest[0]))):
            _make_room(args)
            if file:
                save_arrays(os.path.join(out, Snapshot.file_name(trainer)), arrays)
            elif args.resume:
                print(f'no snapshot in {out} to resume from: starting afresh')
        return held.pop_all()


def _same(a, b):
    """Whether two paths are of the same file or folder."""
    try:
        return os.path.samefile(a, b)
    except OSError:  # there is none
        return False


def _make_room(args):
    """Refuses to replace an earlier training, or sets it aside with ``--overwrite``."""
    out = args.out
    names, aside = folder.files_of_run(out), folder.files_set_aside(out)
    names_worth = folder.files_of_worth(out)
    for name in names:
        if os.path.isdir(os.path.join(out, name)):
            raise ValueError(
                f'{out}: {name} is a folder, not a file of a training; choose another folder with '
                '--out'
            )
    if args.overwrite:
        paths = [os.path.join(out, name) for name in names] + aside
        if args.initmodel and any(_same(args.initmodel, path) for path in paths):
            raise ValueError(
                f'--initmodel {args.initmodel}: belongs to the training that --overwrite would '
                'replace; choose another folder with --out'
            )
        if names_worth:
            folder.set_aside(out)
            print(f'# until the first snapshot, the earlier training is in {folder.aside(out)}')
    elif names_worth:
        continuing = 'continue it with --resume, ' if folder.snapshots(out) else ''
        raise ValueError(
            f'{out}: holds an earlier training ({", ".join(names_worth)}), which this one would '
            f'overwrite; {continuing}choose another folder with --out, or give --overwrite'
        )
    elif aside:
        raise ValueError(
            f'{out}: --overwrite was interrupted before the first snapshot; to keep the earlier '
            f'training, move its files back from {folder.aside(out)}, or give --overwrite again'
        )


NET = 'updater/model:main/predictor/'
BEST = 'extensions/ChooseEpoch/best/'


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
    try:
        saved = dict(json.loads(arrays['extensions/Snapshot/run'].item()))
        net = SavedNet({n[len(NET) :]: a for n, a in arrays.items() if n.startswith(NET)}).title
        transposed = bool(arrays[NET + 'layout'][5])
    except Exception as e:  # An untrusted file can hold anything.
        raise BadFile(f'{path}: not a snapshot such as snapshot_epoch_1') from e
    if 'extensions/ChooseEpoch/epoch' in arrays and not any(n.startswith(BEST) for n in arrays):
        # An earlier version kept the best net only in a file beside the snapshot.
        best = read_npz(os.path.join(os.path.dirname(path), 'best.model'))
        arrays.update((BEST + name, array) for name, array in best.items())

    ours = trainer.get_extension('Snapshot').run
    defaults = _compared(parse_arguments([]))
    theirs = {**defaults, **saved}
    if '--transposed' not in saved:  # by an earlier version
        theirs.update({'--transposed': transposed, INITMODEL: ours.get(INITMODEL)})
    for name in {'--net': None, **defaults, **ours, INITMODEL: None}:
        if theirs.get(name) != ours.get(name):
            raise ValueError(
                f'{path}: belongs to a training {_words(name, theirs.get(name))}, '
                f'and this one is {_words(name, ours.get(name))}'
            )
    if net != describe_net(trainer.updater.get_optimizer('main').target.predictor):
        raise BadFile(f'{path}: damaged, its parts do not fit together')

    restore(path, arrays, trainer)
    try:
        consistent = _is_consistent(trainer, arrays)
    except Exception:  # An untrusted log can be anything that JSON can express.
        consistent = False
    if not consistent:
        raise BadFile(f'{path}: damaged, its parts do not fit together')
    if trainer.updater.epoch > trainer.stop_trigger.period:
        raise ValueError(
            f'{path}: has {trainer.updater.epoch} epochs already, more than --epoch '
            f'{trainer.stop_trigger.period}'
        )
    name, newest = os.path.basename(path), Snapshot.file_name(trainer)
    if folder.epoch_of(name) and name != newest:  # it would be taken for an older one
        raise ValueError(f'{path}: is of epoch {trainer.updater.epoch}; rename it to {newest}')
    return arrays


def resume_newest(trainer):
    """Restores a trainer from the newest valid snapshot in its folder, and prints which.

    A damaged snapshot is passed over. One that cannot be read is not, as it may be sound.

    Args:
        trainer (~chainer.training.Trainer): A trainer with the same extensions.

    Raises:
        ValueError: If there is no valid snapshot, or it belongs to another training or is past its
            end; the message says why.
    """
    problems = []
    for name in folder.snapshots(trainer.out):
        path = os.path.join(trainer.out, name)
        try:
            resume(path, trainer)
        except BadFile as e:
            problems.append(str(e))
        except OSError as e:
            problems.append(f'{e.filename or path}: {e.strerror or e}')
            break
        except MemoryError:
            problems.append(f'{path}: not enough memory')
            break
        else:
            for problem in problems:
                print(f'{problem}; trying an older one')
            print(f'resume from {path}')
            return
    raise ValueError(
        f'{"; ".join(problems)}; to give up this training and start anew, give --overwrite '
        'without --resume'
    )


def _words(name, value):
    if value is None or isinstance(value, bool):
        return f'{"with" if value else "without"} {name.split()[0]}'
    return f'with {name} {" ".join(str(value).split())}'


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
    line = f'interrupted in epoch {trainer.updater.epoch + 1}'
    try:
        newest = folder.snapshots(trainer.out)[:1]
    except OSError:  # Somebody has removed the folder.
        newest = []
    if not newest:
        return f'{line}; there is no snapshot yet to resume from'
    path = quote(os.path.join(trainer.out, newest[0]))
    return f'{line}; to resume, add --resume {path} to the same command'
