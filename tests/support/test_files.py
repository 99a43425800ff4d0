"""Files that are either complete or absent, and untrusted npz files."""

import errno
import io
import os
import pickle
import stat
import tracemalloc
import zipfile

import chainer
import chainer.links as L
import numpy
import pytest

from data import read_idx
from pictures.digits import read_digits
from support import files
from support.files import read_npz, replacing, restore, save_npz

posix = pytest.mark.skipif(
    os.name == 'nt', reason='Windows has no FIFOs, links or modes like these'
)


def test_replacing(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    with replacing(str(path)) as f:
        f.write(b'new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new'
    assert os.listdir(tmp_path) == ['file']


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    with pytest.raises(KeyboardInterrupt):
        with replacing(str(path)) as f:
            f.write(b'half')
            raise KeyboardInterrupt
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file']


def test_a_vanished_folder_is_named(tmp_path):
    path = str(tmp_path / 'none' / 'file')
    with pytest.raises(OSError) as e:
        with replacing(path):
            pass
    assert e.value.filename == path


def test_permissions_are_those_of_a_new_file(tmp_path):
    (tmp_path / 'plain').write_text('')
    with replacing(str(tmp_path / 'file')):
        pass
    assert os.stat(tmp_path / 'file').st_mode == os.stat(tmp_path / 'plain').st_mode


def test_round_trip(tmp_path):
    path, saved, loaded = str(tmp_path / 'link'), L.Linear(3, 2), L.Linear(3, 2)
    save_npz(path, saved)
    restore(path, read_npz(path), loaded)
    assert (loaded.W.array == saved.W.array).all()


def test_what_chainer_saved_is_read_and_the_reverse(tmp_path):
    path, link = str(tmp_path / 'link'), L.BatchNormalization(3)
    chainer.serializers.save_npz(path, link)
    assert sorted(read_npz(path)) == ['N', 'avg_mean', 'avg_var', 'beta', 'gamma']
    save_npz(path, link)
    chainer.serializers.load_npz(path, L.BatchNormalization(3))


@pytest.mark.parametrize(
    'array',
    [
        numpy.array(3),
        numpy.array('text'),
        numpy.array(''),
        numpy.zeros((0, 3)),
        numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
        numpy.arange(6, dtype='>f4'),
    ],
)
def test_any_array_of_numbers_or_text(tmp_path, array):
    path = str(tmp_path / 'a.npz')
    numpy.savez(path, a=array)
    read = read_npz(path)['a']
    assert read.dtype == array.dtype.newbyteorder('=')
    assert (read == array).all() and read.shape == array.shape


def npy(header, content=b''):
    header = header.encode().ljust(118 - 1) + b'\n'
    return b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + content


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as z:
        for name, content in members.items():
            z.writestr(name, content)


class Evil:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled_array(path):
    f = io.BytesIO()
    numpy.save(f, numpy.array([Evil(path)], object), allow_pickle=True)
    return f.getvalue()


HOSTILE = {
    'huge shape': {
        'a.npy': npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000000)}")
    },
    'negative shape': {
        'a.npy': npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2)}", b'x' * 16)
    },
    'no item size': {
        'a.npy': npy("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}")
    },
    'records': {
        'a.npy': npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,)}", b'x' * 4)
    },
    'code in the header': {
        'a.npy': npy("{'descr': __import__('os').getcwd(), 'shape': (1,)}", b'x' * 4)
    },
    'not an array': {'a.npy': b'text'},
    'an empty member': {'a.npy': b''},
    'path upwards': {
        '../a.npy': npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", b'x' * 4)
    },
    'another kind of file': {'a.txt': b'text'},
    'a huge name': {'x' * 60000: b''},
    'a huge header': {'a.npy': npy(f"{{'descr': '|u1', 'shape': (0,)}}{' ' * 20000}")},
}


@pytest.mark.parametrize('members', HOSTILE.values(), ids=HOSTILE)
def test_hostile(tmp_path, members):
    path = str(tmp_path / 'a.npz')
    write_zip(path, members)
    with pytest.raises(ValueError) as e:
        read_npz(path)
    message = str(e.value)
    assert message.startswith(f'{path}: damaged, or not a file that this program saved: ')
    assert len(message) < len(path) + 300 and '\n' not in message


def test_a_pickle_is_not_loaded(tmp_path):
    path, trace = str(tmp_path / 'a.npz'), str(tmp_path / 'trace')
    write_zip(path, {'a.npy': pickled_array(trace)})
    with pytest.raises(ValueError, match='not loaded'):
        read_npz(path)
    assert not os.path.exists(trace)
    with open(path, 'wb') as f:
        pickle.dump(Evil(trace), f)
    with pytest.raises(ValueError):
        read_npz(path)
    assert not os.path.exists(trace)


def test_a_zip_bomb(tmp_path):
    path = str(tmp_path / 'a.npz')
    write_zip(
        path,
        {
            'a.npy': npy(
                "{'descr': '<f4', 'fortran_order': False, 'shape': (25000000,)}",
                bytes(100_000_000),
            )
        },
        zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(ValueError, match='more than ten times its size'):
        read_npz(path)


def test_truncated_anywhere(tmp_path):
    path = str(tmp_path / 'link')
    save_npz(path, L.Linear(3, 2))
    with open(path, 'rb') as f:
        content = f.read()
    for n in range(len(content)):
        with open(path, 'wb') as f:
            f.write(content[:n])
        with pytest.raises(ValueError, match='link: damaged'):
            read_npz(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_npz(str(tmp_path / 'none'))


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda arrays: arrays.pop('W'), 'W is missing'),
        (
            lambda arrays: arrays.update(W=arrays['W'][:1]),
            r'W is float32\(1, 3\), not float32\(2, 3\)',
        ),
        (
            lambda arrays: arrays.update(W=arrays['W'] > 0),
            r'W is bool\(2, 3\), not float32\(2, 3\)',
        ),
    ],
)
def test_restoring_what_does_not_fit(change, message):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(L.Linear(3, 2))
    change(serializer.target)
    with pytest.raises(ValueError, match='the file: does not fit: ' + message):
        restore('the file', serializer.target, L.Linear(3, 2))


@pytest.mark.parametrize('instead', [[], [1, 2], 'x'], ids=str)
def test_what_is_no_number_yet_becomes_one(instead):
    """Chainer's triggers and extensions would take any array, and fail in the training."""
    old, new, other = (chainer.training.triggers.MaxValueTrigger('accuracy') for _ in range(3))
    old._best_value = 0.5
    arrays = files.arrays_of(old)
    restore('the file', arrays, new)
    assert new._best_value == 0.5
    with pytest.raises(ValueError, match='the file: does not fit: '):
        restore('the file', {**arrays, 'best_value': numpy.array(instead)}, other)


def test_a_stream_that_is_longer_than_it_says(tmp_path):
    """The sizes in the zip file are those of 100,000 bytes, but 100 million come out."""
    path, content = str(tmp_path / 'a.npz'), io.BytesIO()
    header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000,)}")
    with zipfile.ZipFile(content, 'w', zipfile.ZIP_DEFLATED) as z:
        with z.open('a.npy', 'w') as f:
            f.write(header)
            for _ in range(10):
                f.write(bytes(10_000_000))
    stated = (len(header) + 10**8).to_bytes(4, 'little')
    assert content.getvalue().count(stated) == 2
    lie = (len(header) + 100_000).to_bytes(4, 'little')
    with open(path, 'wb') as f:
        f.write(content.getvalue().replace(stated, lie))
    tracemalloc.start()
    with pytest.raises(ValueError, match='a.npz: damaged'):
        read_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(tmp_path, method):
    path = str(tmp_path / 'a.npz')
    write_zip(path, {'a.npy': npy("{'descr': '|u1', 'shape': (0,)}")}, method)
    with pytest.raises(ValueError, match='compressed in a way that is not read'):
        read_npz(path)


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_two_members_of_one_name(tmp_path):
    path = str(tmp_path / 'a.npz')
    numpy.savez(path, a=numpy.zeros(1))
    with zipfile.ZipFile(path, 'a') as z:
        z.writestr('a.npy', z.read('a.npy'))
    with pytest.raises(ValueError, match='two members of one name'):
        read_npz(path)


@posix
def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / 'fifo')
    for path in '/dev/zero', str(tmp_path / 'fifo'):
        for read in read_npz, lambda path: read_idx(path, 3), read_digits:
            with pytest.raises(OSError, match=f"not a regular file: '{path}'$"):
                read(path)


@pytest.mark.parametrize('number', [errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_what_the_system_cannot_read_is_not_called_damaged(tmp_path, monkeypatch, number):
    path = str(tmp_path / 'a.npz')
    numpy.savez(path, a=numpy.zeros(1))

    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, 'open', lambda *_: Failing(), raising=False)
    with pytest.raises(OSError) as e:
        read_npz(path)
    assert (e.value.errno, e.value.filename) == (number, path)


# What replacing() does with what is there already.


def write(path, content=b'mark', mark=b'mark'):
    with replacing(str(path), mark) as f:
        f.write(content)


def test_only_outputs_of_the_same_kind_are_replaced(tmp_path):
    path = tmp_path / 'file'
    write(path)
    write(path, b'the mark of a second')
    for other in b'another', bytes(256) + b'mark', b'':
        path.write_bytes(other)
        with pytest.raises(ValueError, match=f'^{path}: exists and is no earlier output'):
            write(path)
        assert path.read_bytes() == other and os.listdir(tmp_path) == ['file']


@posix
def test_a_link_is_followed(tmp_path):
    (tmp_path / 'there').mkdir()
    (tmp_path / 'link').symlink_to('there/file')
    for content in b'mark 1', b'mark 2':
        write(tmp_path / 'link', content)
        assert (tmp_path / 'link').is_symlink()
        assert (tmp_path / 'there/file').read_bytes() == content
    assert os.listdir(tmp_path / 'there') == ['file']
    (tmp_path / 'there/file').write_bytes(b'another')
    with pytest.raises(ValueError, match=f'{tmp_path}/link: exists and is no earlier output'):
        write(tmp_path / 'link')
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(OSError, match='Too many levels of symbolic links') as e:
        write(tmp_path / 'loop')
    assert e.value.filename == f'{tmp_path}/loop' and (tmp_path / 'loop').is_symlink()


@posix
@pytest.mark.parametrize('name', ['missing/../file', 'link'])
def test_what_is_checked_is_what_would_be_replaced(tmp_path, name):
    """The system finds nothing behind a missing folder, but realpath does."""
    (tmp_path / 'file').write_bytes(b'another')
    (tmp_path / 'link').symlink_to('missing/../file')
    with pytest.raises(ValueError, match=f'{name}: exists and is no earlier output'):
        write(f'{tmp_path}/{name}')
    assert (tmp_path / 'file').read_bytes() == b'another'


@pytest.mark.parametrize('ending', ['/', '/.', '/missing/..'])
def test_a_name_of_a_folder(tmp_path, ending):
    path = f'{tmp_path}/missing{ending}'
    with pytest.raises(IsADirectoryError) as e:
        write(path)
    assert e.value.filename == path and os.listdir(tmp_path) == []


@posix
def test_two_programs_write_one_file(tmp_path):
    """The second has begun when the first is done: its half is not taken for the whole."""
    first, second = (replacing(str(tmp_path / 'file')) for _ in range(2))
    first.__enter__().write(b'first')
    f = second.__enter__()
    f.write(b'sec')
    with pytest.raises(OSError, match='another program is writing to it'):
        first.__exit__(None, None, None)
    assert not (tmp_path / 'file').exists()
    f.write(b'ond')
    second.__exit__(None, None, None)
    assert (tmp_path / 'file').read_bytes() == b'second' and os.listdir(tmp_path) == ['file']


@posix
def test_a_link_in_place_of_the_new_file_is_not_followed(tmp_path):
    (tmp_path / 'precious').write_bytes(b'old')
    (tmp_path / '.file.new').symlink_to('precious')
    write(tmp_path / 'file')
    assert (tmp_path / 'precious').read_bytes() == b'old'
    assert sorted(os.listdir(tmp_path)) == ['file', 'precious']


@posix
def test_a_fifo_is_written_to(tmp_path):
    path = tmp_path / 'fifo'
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write(path)
    assert os.read(reader, 100) == b'mark'
    os.close(reader)
    assert path.is_fifo() and os.listdir(tmp_path) == ['fifo']


@posix
def test_a_device_is_written_to(tmp_path):
    path = tmp_path / 'null'
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.write_bytes(b'')
    except OSError as e:
        pytest.skip(f'no device can be made here: {e}')
    write(path)
    assert path.is_char_device() and os.listdir(tmp_path) == ['null']


@posix
@pytest.mark.parametrize('mode', [0o600, 0o644, 0o755])
def test_the_mode_is_kept(tmp_path, mode):
    write(tmp_path / 'file')
    os.chmod(tmp_path / 'file', mode)
    write(tmp_path / 'file')
    assert stat.S_IMODE(os.stat(tmp_path / 'file').st_mode) == mode


def test_equal_arrays_make_equal_files(tmp_path):
    a, b = numpy.zeros(1), numpy.ones(1)
    save_npz(str(tmp_path / '1'), {'a': a, 'b': b})
    save_npz(str(tmp_path / '2'), {'b': b, 'a': a})
    assert (tmp_path / '1').read_bytes() == (tmp_path / '2').read_bytes()


def test_the_name_of_an_output_in_no_folder(tmp_path):
    path = str(tmp_path / 'none' / 'seen.png')
    with pytest.raises(FileNotFoundError) as e:
        files.check_output(path, b'mark')
    assert e.value.filename == path
