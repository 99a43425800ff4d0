"""Files that are either complete or absent, and untrusted npz files."""

import io
import os
import pickle
import zipfile

import chainer
import chainer.links as L
import numpy
import pytest

from support.files import read_npz, replacing, restore, save_npz


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
    assert read.dtype == array.dtype
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
}


@pytest.mark.parametrize('members', HOSTILE.values(), ids=HOSTILE)
def test_hostile(tmp_path, members):
    path = str(tmp_path / 'a.npz')
    write_zip(path, members)
    with pytest.raises(ValueError, match='a.npz: damaged, or not a file that this program saved'):
        read_npz(path)


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
