"""Trainer snapshots: what a training is resumed from."""
import glob
import json
import os
import re

import chainer_compat  # noqa: F401  (before Chainer)
import chainer
import numpy

from report import COLUMNS
from storage import BadFile, read_npz, restore, save_npz


class Snapshot(chainer.training.Extension):
    """Trainer extension that saves the trainer after each epoch, and keeps the newest snapshot.

    An older one is deleted when the newer one is on disk.

    Args:
        run (dict): What makes the training the one it is, by option name. It is saved too, and only a
            training with the same is resumed from the snapshot.
    """
    trigger = 1, 'epoch'
    priority = -100  # after every other extension, whose state is saved

    def __init__(self, run):
        self.run = run

    def initialize(self, trainer):
        path = self.path(trainer)
        if os.path.exists(path):  # resumed from it: what was killed may have left the one before it
            for older in snapshots(trainer.out)[snapshots(trainer.out).index(path) + 1:]:
                os.remove(older)

    def __call__(self, trainer):
        path = self.path(trainer)
        save_npz(path, trainer)
        for other in snapshots(trainer.out):
            if other != path:
                os.remove(other)

    @staticmethod
    def path(trainer):
        return os.path.join(trainer.out, f'snapshot_epoch_{trainer.updater.epoch}')

    def serialize(self, serializer):
        serializer('run', json.dumps(self.run))


def snapshots(folder):
    """Paths of the snapshots in a folder, the newest first."""
    paths = glob.glob(os.path.join(glob.escape(folder), 'snapshot_epoch_*'))
    epochs = {path: re.fullmatch(r'snapshot_epoch_(\d+)', os.path.basename(path)) for path in paths}
    return sorted(filter(epochs.get, paths), key=lambda path: -int(epochs[path][1]))


def resume(path, trainer):
    """Brings a trainer to where a snapshot was taken.

    Args:
        path (str): The snapshot.
        trainer (~chainer.training.Trainer): A trainer with the same extensions.

    Raises:
        BadFile: If the file is damaged or no snapshot.
        ValueError: If it is a snapshot of another training, or past its end; the message says why.
        OSError: If it cannot be opened.
    """
    _restore(path, read_npz(path), trainer)


def resume_newest(trainer):
    """Resumes from the newest sound snapshot in the trainer's folder, and says which, or that there is none.

    Args:
        trainer (~chainer.training.Trainer): A trainer with the same extensions.

    Raises:
        ValueError: If that is a snapshot of another training, or past its end; the message says why.
    """
    for path in snapshots(trainer.out):
        try:
            arrays = read_npz(path)
        except (BadFile, OSError) as e:
            print(f'{e}; looking for an older one')
        else:
            _restore(path, arrays, trainer)
            print(f'resume from {path}')
            return
    print(f'no snapshot in {trainer.out} to resume from: start afresh')


def _restore(path, arrays, trainer):
    try:
        saved = dict(json.loads(arrays['extensions/Snapshot/run'].item()))
    except Exception as e:  # a stranger's file
        raise BadFile(f'{path}: not a snapshot of this program') from e
    for option, value in trainer.get_extension('Snapshot').run.items():
        if saved.get(option) != value:
            raise ValueError(f'{path}: a training with {option} {saved.get(option)}, not {value}')
    net = trainer.updater.get_optimizer('main').target.predictor
    before = net.describe()
    restore(path, arrays, trainer)
    try:
        sound = net.describe() == before and _is_sound(trainer, arrays)
    except Exception:  # a stranger's log can be anything that JSON can
        sound = False
    if not sound:
        raise BadFile(f'{path}: damaged, its parts do not fit together')
    if trainer.updater.epoch > trainer.stop_trigger.period:
        raise ValueError(f'{path}: has {trainer.updater.epoch} epochs already, more than --epoch '
                         f'{trainer.stop_trigger.period}')


def _is_sound(trainer, arrays):
    """Whether what Chainer restores without a look at it fits together, as at the end of an epoch."""
    iterator = trainer.updater.get_iterator('main')
    optimizer = trainer.updater.get_optimizer('main')
    rules = [(param, param.update_rule) for param in optimizer.target.params()]
    log = trainer.get_extension('LogReport').log
    report = trainer.get_extension('Report')
    n = len(iterator.labels)
    before = iterator.epoch - 1 + (n - (n % iterator.size or iterator.size)) / n

    def as_it_was(name):
        """Extensions were triggered by the last minibatch; the rest looked at what came before it."""
        last = not name.startswith(('updater', 'stop_trigger'))
        if name.endswith('previous_epoch_detail'):
            return arrays[name] == (iterator.epoch if last else before)
        if name.endswith('previous_iteration'):
            return arrays[name] == iterator.iteration - (not last)
        return True

    return (iterator.position == 0 and iterator.is_new_epoch
            and iterator.iteration == trainer.updater.iteration == optimizer.t
            and all(rule.t == optimizer.t for _, rule in rules)
            and all(state.shape == param.shape and state.dtype == param.dtype
                    for param, rule in rules for state in rule.state.values())
            and all(map(as_it_was, arrays))
            and [row['epoch'] for row in log] == list(range(1, iterator.epoch + 1))
            and all(isinstance(row[key], (int, float)) for row in log for key in COLUMNS)
            and numpy.shape(report.counts) == (iterator.epoch + 1, len(report.layers), report.bins))
