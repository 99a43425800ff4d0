"""Atomic file replacement, and safe loading of untrusted npz files."""

import contextlib
import errno
import io
import math
import os
import stat
import time
import zipfile

from chainer_compat import chainer
import numpy

from data import check_regular

WINDOWS = os.name == 'nt'
PATIENCE = 2.0  # seconds for which a file may be busy, on Windows, before that is an error


def change(action, *paths, optional=False):
    """Renames or removes a file, and tries again while another program has it open.

    Windows refuses such a change for as long as, say, a viewer or a virus scanner reads the file.
    Other systems never do.

    Args:
        action (callable): ``os.rename``, ``os.replace`` or ``os.remove``.
        paths (str): Its arguments.
        optional (bool): Whether the file may stay as it was, which is then said.

    Returns:
        bool: Whether it is done.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            action(*paths)
            return True
        except PermissionError:
            late = time.monotonic() > deadline
            if not WINDOWS or late and not optional:
                raise
            if late:
                print(f'# {paths[-1]} is open in another program and stays as it was', flush=True)
                return False
            time.sleep(0.05)


def check_output(path, mark):
    """Raises an OSError or a ValueError if a path is no name for a new output.

    It must not name a folder, or be in one that is missing; and if it names a regular file, that
    must be an earlier output of the same kind, with the bytes of its mark among its first 256.
    """
    if not os.path.basename(path).strip('.') or os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    target = os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(target)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if os.path.isfile(target):
        with open(target, 'rb') as f:
            if mark not in f.read(256):
                raise ValueError(f'{path}: exists and is no earlier output; give another name')


@contextlib.contextmanager
def replacing(path, mark=None, optional=False):
    """Opens a new file that replaces ``path`` once it is complete and on disk.

    A reader, also after a crash, finds either the old file or the new one, each complete. Until
    then the new file is called ``.name.new``; a crash leaves it there, and the next run removes
    it. The mode of an old file is kept, a link is followed, and a device or FIFO is written to.

    Args:
        path (str): The file to write.
        mark (bytes): See :func:`check_output`; None if the caller knows what it replaces.
        optional (bool): See :func:`change`; for what a training can do without.

    Yields:
        file: Binary file to write to. If the block raises, ``path`` stays as it was.

    Raises:
        ValueError: If a file without the mark is there.
        OSError: If the file cannot be written.
    """
    if mark:
        check_output(path, mark)
    new = None
    try:
        # From here on, the path is not asked again: behind a missing folder, "../x" is nothing to
        # the system, and yet realpath makes it the file that would be replaced.
        target, mode = os.path.realpath(path), None
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(target).st_mode
        if mode and not stat.S_ISREG(mode):
            with open(target, 'wb') as f:
                yield f
            return
        folder, name = os.path.split(target)
        new = os.path.join(folder, f'.{name}.new')
        with contextlib.suppress(FileNotFoundError):
            change(os.remove, new)  # not emptied: it may be a link
        with open(new, 'xb') as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
            if not WINDOWS and not os.path.samestat(os.fstat(f.fileno()), os.stat(new)):
                new = None  # it is the other's; Windows would not have let it remove ours
                raise OSError(errno.EBUSY, 'another program is writing to it', path)
        if mode:
            os.chmod(new, stat.S_IMODE(mode))
        if change(os.replace, new, target, optional=optional):
            new = None
            sync_folder(folder)
    except OSError as e:
        raise OSError(e.errno, e.strerror, path) from e
    finally:
        if new:
            with contextlib.suppress(OSError):
                os.remove(new)


def sync_folder(folder):
    """Waits until a rename is on disk, which must be so before anything older is deleted."""
    if WINDOWS:
        return  # Windows cannot open a folder, and keeps its renames in a journal.
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some mounted drives cannot do this.
            raise
    finally:
        os.close(directory)


# A dict of the arrays that Chainer's ``save_npz`` would save of a link, an optimizer or a trainer.
arrays_of = chainer.serializers.npz.serialize


def save_npz(path, target):
    """Saves a link, an optimizer or a trainer as Chainer's ``save_npz`` does, but uncompressed.

    The members are sorted by name, as Chainer gives them in the order of a set: so equal arrays
    make equal files.

    Args:
        path (str): The file, replaced once the new one is complete.
        target: Object with Chainer's ``serialize`` method, or a dict of arrays by name.

    Raises:
        OSError: If the file cannot be written.
    """
    arrays = target if isinstance(target, dict) else arrays_of(target)
    content = npz(dict(sorted(arrays.items())))
    with replacing(path) as f:
        f.write(content)


def npz(arrays):
    """The content of an npz file of a dict of arrays."""
    content = io.BytesIO()  # NumPy writes to memory first: a full disk must not interrupt it.
    numpy.savez(content, **arrays)
    return content.getbuffer()


class BadFile(ValueError):
    """A file that is damaged, hostile, or of an unexpected kind; the message names it."""


@contextlib.contextmanager
def naming(path, errors=ValueError, problem=''):
    """Makes an error a :class:`BadFile`, whose message begins with the file's name.

    An error of the system, and a lack of memory, say nothing about the content: the former gets
    the name, the latter is raised as it is.

    Args:
        path (str): The file.
        errors (type): Which errors; ``Exception`` where others parse what is untrusted, and may
            raise anything.
        problem (str): What stands before the message of the error.
    """
    try:
        yield
    except (BadFile, MemoryError):
        raise
    except errors as e:
        if isinstance(e, OSError) and e.errno:
            raise OSError(e.errno, e.strerror, path) from e
        reason = ' '.join(str(e).split())[:200]  # it may quote the whole file
        raise BadFile(f'{path}: {problem}{reason}') from e


def read_npz(path):
    """Reads an untrusted npz file: it loads no pickle, and allocates no size that is only stated.

    Args:
        path (str): The file.

    Returns:
        dict: Arrays (of numbers or strings) by name.

    Raises:
        BadFile: If the file is damaged or not an npz file.
        OSError: If it cannot be read.
    """
    check_regular(path)
    with naming(path, Exception, 'damaged, or not a file that this program saved: '):
        with open(path, 'rb') as f:
            content = f.read()
        with zipfile.ZipFile(io.BytesIO(content)) as z:
            members = z.infolist()
            # Weights hardly compress at all; a zip bomb compresses a thousand to one.
            if sum(m.file_size for m in members) > 10 * len(content) + 2**20:
                raise ValueError('it unpacks to more than ten times its size')
            if len({m.filename for m in members}) < len(members):
                raise ValueError('it has two members of one name')
            return {m.filename[: -len('.npy')]: _read_array(z, m) for m in members}


def _read_array(z, member):
    """Reads an array whose stated shape, type and size agree. (NumPy allocates what is stated.)"""
    if not member.filename.endswith('.npy') or '..' in member.filename:
        raise ValueError(f'it has a member named {member.filename!r}')
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError('it is compressed in a way that is not read')  # bzip2 has no limit
    with z.open(member) as f:
        if numpy.lib.format.read_magic(f) != (1, 0):
            raise ValueError('an array in a format that is not read')
        shape, fortran, dtype = numpy.lib.format.read_array_header_1_0(f)
        if dtype.kind not in 'biufU':
            raise ValueError(f'an array of type {dtype}, which is not loaded')
        size = member.file_size - f.tell()
        if math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f'an array of shape {shape} in {size} bytes')
        # Without the size, zipfile would unpack as much as there is.
        array = numpy.frombuffer(f.read(size), dtype).reshape(shape, order='F' if fortran else 'C')
        return array.astype(dtype.newbyteorder('='))  # a copy, which can be written to


class _Deserializer(chainer.serializers.NpzDeserializer):
    """Chainer's, but an array replaces only one of the same shape and kind, and a number None."""

    def __getitem__(self, key):
        return _Deserializer(self.npz, f'{self.path}{key.strip("/")}/')

    def __call__(self, key, value):
        name = self.path + key.lstrip('/')
        if name not in self.npz:
            raise ValueError(f'{name} is missing')
        array = self.npz[name]
        if isinstance(value, chainer.get_array_types()):
            if array.shape != value.shape or array.dtype.kind != value.dtype.kind:
                words = f'{array.dtype}{array.shape}, not {value.dtype}{value.shape}'
                raise ValueError(f'{name} is {words}')
        return super().__call__(key, 0.0 if value is None else value)


def restore(path, arrays, target):
    """Gives a link, an optimizer or a trainer what :func:`read_npz` read.

    Args:
        path (str): The file that was read, for the message.
        arrays (dict): What was read.
        target: Object with Chainer's ``serialize`` method.

    Raises:
        BadFile: If something is missing, or has another shape or type.
    """
    with naming(path, Exception, 'does not fit: '):
        _Deserializer(arrays).load(target)
