"""What must not be lost, stay locked or stay changed."""

import contextlib
import errno
import logging
import os
import stat

import chainer
import numpy
import pytest

import train_mnist
from helpers import log_of, same, small
from support import files
from training import folder


def arguments(data, out, *more):
    options = {'--data': data, '--unit': 10, '--batchsize': 50, '--epoch': 1, '--out': out}
    return [str(part) for pair in options.items() for part in pair] + [*map(str, more)]


def test_an_earlier_training_is_not_overwritten(small_mnist, tmp_path):
    assert small(tmp_path, small_mnist, '--epoch', 2).returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = small(tmp_path, small_mnist, '--epoch', 1)
    assert result.returncode == 2
    assert result.stderr == (
        f'train_mnist.py: {tmp_path}: holds an earlier training (snapshot_epoch_2, mlp.model, '
        'mlp.state, log, loss.png, accuracy.png, weights.png, cg.dot), which this one would '
        'overwrite; continue it with --resume, choose another folder with --out, or give '
        '--overwrite\n'
    )
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert small(tmp_path, small_mnist, '--epoch', 1, '--overwrite').stderr == ''
    assert len(log_of(tmp_path)) == 1


def test_two_trainings_in_one_process(small_mnist, tmp_path):
    for _ in range(2):
        train_mnist.main(arguments(small_mnist, tmp_path, '--overwrite'))


def test_interrupted_in_a_notebook(small_mnist, tmp_path, monkeypatch):
    """The lock is released although the traceback is kept; nothing global stays changed."""

    def state():
        config = {
            name: getattr(chainer.config, name) for name in ('train', 'keep_graph_on_report')
        }
        return config, numpy.geterr(), logging.getLogger('matplotlib').level

    before = state()
    train_mnist.main(arguments(small_mnist, tmp_path))
    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(
            train_mnist.fast.Adam, 'update', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(SystemExit) as e:
            train_mnist.main(arguments(small_mnist, tmp_path, '--epoch', 2, '--resume'))
        kept.append(e)
    assert state() == before
    train_mnist.main(arguments(small_mnist, tmp_path, '--epoch', 2, '--resume'))
    assert len(log_of(tmp_path)) == 2


def test_a_refused_resume_releases_the_lock(small_mnist, tmp_path):
    train_mnist.main(arguments(small_mnist, tmp_path))
    args = train_mnist.parse_arguments(arguments(small_mnist, tmp_path, '--seed', 1, '--resume'))
    kept = []
    with pytest.raises(ValueError) as e:
        train_mnist.prepare(args)
    kept.append(e)
    train_mnist.main(arguments(small_mnist, tmp_path, '--epoch', 2, '--resume'))


def test_a_drive_without_locks(tmp_path, monkeypatch, capsys):
    fcntl = pytest.importorskip('fcntl')

    def flock(f, operation):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', flock)
    with contextlib.closing(folder.lock(str(tmp_path))):
        assert f'{tmp_path} cannot be locked (No locks available)' in capsys.readouterr().out


def test_a_drive_that_cannot_sync_folders(tmp_path, monkeypatch):
    fsync = os.fsync

    def fsync_files(f):
        if stat.S_ISDIR(os.fstat(f).st_mode):
            raise OSError(errno.EINVAL, 'Invalid argument')
        fsync(f)

    monkeypatch.setattr(os, 'fsync', fsync_files)
    files.save_npz(str(tmp_path / 'file'), {'a': numpy.zeros(3)})
    assert (tmp_path / 'file').exists()


def test_without_matplotlib(small_mnist, tmp_path):
    (tmp_path / 'matplotlib.py').write_text('raise ImportError("no font")')
    result = small(tmp_path / 'out', small_mnist, '--epoch', 1, PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, '')
    notice = '# no pictures will be drawn: Matplotlib cannot be imported: no font'
    assert notice in result.stdout.splitlines()[:7]
    assert small(tmp_path / 'drawn', small_mnist, '--epoch', 1).stderr == ''
    assert same(tmp_path / 'out' / 'mlp.model', tmp_path / 'drawn' / 'mlp.model')
    assert not (tmp_path / 'out' / 'loss.png').exists()
    assert (tmp_path / 'drawn' / 'loss.png').exists()
