"""The folder of a run: what a run leaves in it, and how one run replaces another."""

import contextlib
import os
import re

from support.files import check_output, patiently, remove_if_free, sync_folder

# What a run leaves besides snapshots. All but the graph is written after the first snapshot.
GRAPH = 'cg.dot'
PICTURES = 'loss.png', 'accuracy.png', 'weights.png'
FILES = 'mlp.model', 'mlp.state', 'best.model', 'log', *PICTURES, GRAPH


def aside(folder):
    """Path of the subfolder for a replaced run, until there is a snapshot of the new one."""
    return os.path.join(folder, '.overwritten')


def snapshots(folder):
    """Names of the snapshots in a folder, the newest first."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
    return sorted(filter(epoch_of, names), key=epoch_of, reverse=True)


def epoch_of(name):
    """The epoch that the name of a snapshot states; None if it is not such a name."""
    match = re.fullmatch('snapshot_epoch_([0-9]+)', name)
    return int(match[1]) if match else None


def files_of_run(folder):
    """Names of all files that a run left in a folder, the newest snapshot first."""
    names = os.listdir(folder)
    return [*snapshots(folder), *(name for name in FILES if name in names)]


def files_of_worth(folder):
    """The same without the graph, which a run writes at once, unless it is somebody else's."""
    names = files_of_run(folder)
    with contextlib.suppress(ValueError):
        check_output(os.path.join(folder, GRAPH), b'digraph graphname{')
        names = [name for name in names if name != GRAPH]
    return names


def set_aside(folder):
    """Moves all files of a run into a subfolder, so that the folder holds no run.

    Until all are moved, the subfolder has a name of its own, by which
    :func:`complete_setting_aside` recognizes an interruption.
    """
    part = _part(folder)
    if not os.path.isdir(part) or os.path.islink(part):
        os.mkdir(part)
    for name in files_of_run(folder):
        patiently(os.replace, os.path.join(folder, name), os.path.join(part, name))
    sync_folder(part)
    remove_set_aside(folder)  # it was replaced by the run that takes its place now
    patiently(os.rename, part, aside(folder))
    sync_folder(folder)


def complete_setting_aside(folder):
    """Moves the rest of a run if :func:`set_aside` was interrupted."""
    if os.path.lexists(_part(folder)):
        set_aside(folder)


def _part(folder):
    return aside(folder) + '.part'


def files_set_aside(folder):
    """Paths of the files of the run that was set aside in a folder."""
    path = aside(folder)
    return [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else []


def remove_set_aside(folder):
    """Removes the run that was set aside, once it is replaced."""
    if os.path.isdir(aside(folder)):
        remove_if_free(aside(folder))
