"""Trainer snapshots: what a training is resumed from."""
import glob
import json
import os
import re

import chainer_compat  # noqa: F401  (before Chainer)
import chainer

from storage import read_npz, restore, save_npz


class Snapshot(chainer.training.Extension):
    """Trainer extension that saves the trainer after each epoch, and keeps the newest snapshot.

    Args:
        run (dict): What makes the training the one it is, by option name. It is saved too, and only a
            training with the same is resumed from the snapshot.
    """
    trigger = 1, 'epoch'
    priority = -100  # after every other extension, whose state is saved

    def __init__(self, run):
        self.run = run

    def __call__(self, trainer):
        older = snapshots(trainer.out)
        path = os.path.join(trainer.out, f'snapshot_epoch_{trainer.updater.epoch}')
        save_npz(path, trainer)
        for old in older:
            if old != path:
                os.remove(old)

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
        ValueError: If the file is damaged, or is a snapshot of another training; the message says in
            what it differs.
        OSError: If the file cannot be opened.
    """
    arrays = read_npz(path)
    name = 'extensions/Snapshot/run'
    if name not in arrays:
        raise ValueError(f'{path}: not a snapshot of this program')
    saved = json.loads(arrays[name].item())
    for option, value in trainer.get_extension('Snapshot').run.items():
        if saved.get(option) != value:
            raise ValueError(f'{path}: a training with {option} {saved.get(option)}, not {value}')
    restore(path, arrays, trainer)
    # The optimizer's state comes into being only while it is loaded, so it is checked afterwards.
    for param in trainer.updater.get_optimizer('main').target.params():
        for state in param.update_rule.state.values():
            if state.shape != param.shape or state.dtype != param.dtype:
                raise ValueError(f'{path}: the state of the optimizer does not fit the net')
