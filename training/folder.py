"""The folder of a run: who may write there, what a run leaves, and how one replaces another."""

import contextlib
import errno
import os
import re

from support.files import change, sync_folder

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

# What a run leaves besides snapshots. All is written after the first snapshot.
PICTURES = 'loss.png', 'accuracy.png', 'weights.png'
FILES = 'mlp.model', 'mlp.state', 'best.model', 'log', *PICTURES, 'cg.dot'


def aside(folder):
    """Path of the subfolder for a replaced run, until there is a snapshot of the new one."""
    return os.path.join(folder, '.overwritten')


def _names(folder):
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]


def snapshots(folder):
    """Names of the snapshots in a folder, the newest first."""
    return sorted(filter(epoch_of, _names(folder)), key=epoch_of, reverse=True)


def epoch_of(name):
    """The epoch that the name of a snapshot states; None if it is not such a name."""
    match = re.fullmatch('snapshot_epoch_([0-9]+)', name)
    return int(match[1]) if match else None


def files_of_run(folder):
    """Names of all files that a run left in a folder, or [] if there is no such folder.

    The snapshots are first, and the oldest of them before the others: whoever moves or removes the
    files in this order, and is interrupted, leaves no older snapshot in the place of a newer one.
    """
    if not os.path.isdir(folder):
        return []
    names = _names(folder)
    return [*reversed(snapshots(folder)), *(name for name in FILES if name in names)]


def set_aside(folder):
    """Moves all files of a run into a subfolder, so that the folder holds no run."""
    os.makedirs(aside(folder), exist_ok=True)
    for name in files_of_run(folder):
        change(os.rename, os.path.join(folder, name), os.path.join(aside(folder), name))
    sync_folder(aside(folder))
    sync_folder(folder)


def remove_set_aside(folder):
    """Removes the run that was set aside, once it is replaced, but no file of somebody else."""
    place = aside(folder)
    for name in files_of_run(place):
        change(os.remove, os.path.join(place, name), optional=True)
    with contextlib.suppress(OSError):  # There is none, or something else is in it.
        os.rmdir(place)


def lock(folder):
    """Locks a folder for this process until it ends, however it ends.

    Two locks are taken: on the file ``.lock``, which works on any system and on network drives,
    and, where the system can, on the folder itself, in case somebody deletes the file.

    Args:
        folder (str): The folder; it is created if necessary.

    Returns:
        contextlib.ExitStack: Holds the lock until it is closed.

    Raises:
        OSError: If another process has locked the folder, or the folder is not writable.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as e:
        raise NotADirectoryError(errno.ENOTDIR, 'is not a folder', folder) from e
    # Neither emptied nor followed: whatever has this name may be somebody else's.
    file = os.path.join(folder, '.lock')
    places = {file: os.O_RDWR | os.O_CREAT | getattr(os, 'O_NOFOLLOW', 0)}
    if fcntl:
        places[folder] = os.O_RDONLY
    with contextlib.ExitStack() as held:
        for path, flags in places.items():
            descriptor = os.open(path, flags, 0o666)
            held.callback(os.close, descriptor)
            try:
                if not fcntl:
                    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                    continue
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    raise BlockingIOError(errno.EWOULDBLOCK, 'another has got its name meanwhile')
            except (BlockingIOError, PermissionError) as e:
                problem = 'another training is writing to this folder'
                raise BlockingIOError(e.errno, problem, folder) from e
            except OSError as e:
                if path == folder:
                    continue  # on a network drive, say
                if e.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
                print(f'# {folder} cannot be locked ({e.strerror}): start no other training there')
        return held.pop_all()
