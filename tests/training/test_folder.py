"""No command loses a run: what lies in the folder of a run, and who may replace it."""

import contextlib
import errno
import json
import os
import shlex
import shutil

import numpy
import pytest

import train_mnist
from helpers import ROOT, log_of, run, same, small, start
from support import files
from support.files import read_npz, save_npz
from training import folder

EPOCHS = 2
OPTIONS = '--epoch', EPOCHS, '--hold-out', 100


@pytest.fixture(scope='module')
def finished(small_mnist, tmp_path_factory):
    """A finished training."""
    out = tmp_path_factory.mktemp('finished')
    assert small(out, small_mnist, *OPTIONS).stderr == ''
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / 'out')


def contents(out):
    """All files of a folder, except the lock."""
    paths = [path for path in out.rglob('*') if path.is_file() and path.name != '.lock']
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def problem_of(out, data, *options):
    """The line that refuses a training; it must change nothing."""
    before = contents(out)
    words = '--data', data, '--unit', 50, '--batchsize', 50, '--out', out, *OPTIONS, *options
    args = train_mnist.parse_arguments([str(word) for word in words])
    with pytest.raises((ValueError, OSError)) as e:
        train_mnist.prepare(args)
    assert contents(out) == before
    assert '\n' not in str(e.value)
    return str(e.value)


def assert_ended_as(finished, out):
    assert log_of(out) == log_of(finished)
    for name in 'mlp.model', 'mlp.state', 'best.model':
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name
    assert set(os.listdir(out)) == set(os.listdir(finished))


@pytest.mark.parametrize('ending', ['/', '//', '/.', '/../out'])
def test_any_name_of_the_folder(ending, finished, small_mnist, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    assert small(f'{out}{ending}', small_mnist, *OPTIONS).stderr == ''
    assert_ended_as(finished, out)
    assert 'holds an earlier training' in problem_of(out, small_mnist)
    for option in ['--resume'], ['--resume', f'{out}{ending}/snapshot_epoch_{EPOCHS}']:
        assert small(f'{out}{ending}', small_mnist, *OPTIONS, *option).stderr == ''
        assert_ended_as(finished, out)


@pytest.mark.parametrize('error', [MemoryError, PermissionError, OSError], ids=repr)
def test_a_snapshot_that_cannot_be_read_now(error, out, small_mnist, monkeypatch):
    """An older one would do, but going on from it would delete this one."""
    os.link(out / 'snapshot_epoch_2', out / 'snapshot_epoch_1')

    def fail(*_, **__):
        raise error(errno.EIO, 'no luck')

    monkeypatch.setattr(files, 'open', fail, raising=False)
    if error is MemoryError:
        with pytest.raises(MemoryError):
            problem_of(out, small_mnist, '--resume')
    else:
        line = problem_of(out, small_mnist, '--resume')
        assert 'no luck' in line and f'{out}/snapshot_epoch_2' in line


def test_all_snapshots_are_damaged(out, small_mnist):
    for epoch in 1, 2:
        (out / f'snapshot_epoch_{epoch}').write_bytes(b'PK')
    line = problem_of(out, small_mnist, '--resume')
    assert line.startswith(f'{out}/snapshot_epoch_1: damaged, as are all snapshots in {out}; ')
    assert line.endswith('give --overwrite without --resume')


@pytest.mark.parametrize('name', folder.FILES)
def test_any_file_is_a_run(name, finished, small_mnist, tmp_path):
    shutil.copy(finished / name, tmp_path)
    for options in [], ['--resume'], ['--resume', finished / 'snapshot_epoch_2']:
        assert problem_of(tmp_path, small_mnist, *options) == (
            f'{tmp_path}: holds an earlier training ({name}), which this one would overwrite; '
            'choose another folder with --out, or give --overwrite'
        )


def test_a_list_of_all_that_a_run_leaves(finished):
    assert set(os.listdir(finished)) == {*folder.FILES, '.lock', 'snapshot_epoch_2'}


@pytest.mark.parametrize('name', ['snapshot_epoch_02', 'snapshot_epoch_7'])
def test_a_snapshot_under_another_name(name, out, small_mnist):
    """It would be deleted as an older one, and there would be none until the next epoch."""
    os.rename(out / 'snapshot_epoch_2', out / name)
    for options in ['--resume'], ['--resume', out / name]:
        line = problem_of(out, small_mnist, *options)
        assert line == f'{out / name}: is of epoch 2; rename it to snapshot_epoch_2'


def test_what_somebody_adds_is_not_replaced(out, small_mnist):
    """Neither a folder called like a snapshot, nor a snapshot added while the training runs."""
    (out / 'snapshot_epoch_1').mkdir()
    code = (
        'import sys, train_mnist\n'
        'from training.snapshot import Snapshot\n'
        'save = Snapshot.__call__\n'
        'def add(self, trainer):\n'
        "    open(trainer.out + '/snapshot_epoch_9', 'w').close()\n"
        '    save(self, trainer)\n'
        'Snapshot.__call__ = add\n'
        'train_mnist.main()'
    )
    words = '--data', small_mnist, '--unit', 50, '--batchsize', 50, '--out', out, *OPTIONS
    assert run('-c', code, *words, '--resume', '--epoch', 4, cwd=ROOT).stderr == ''
    names = {name for name in os.listdir(out) if name.startswith('snapshot')}
    assert names == {'snapshot_epoch_1', 'snapshot_epoch_4', 'snapshot_epoch_9'}


def test_a_folder_is_no_file_of_a_run(finished, out, small_mnist):
    """It is neither replaced nor set aside."""
    (out / 'log').unlink()
    (out / 'log').mkdir()
    (out / 'log' / 'mine').touch()
    result = small(out, small_mnist, *OPTIONS, '--overwrite')
    assert result.returncode == 1 and result.stderr.count('\n') == 1
    assert f'{out}/log: ' in result.stderr and (out / 'log' / 'mine').exists()
    (out / 'log' / 'mine').unlink()
    (out / 'log').rmdir()
    assert small(out, small_mnist, *OPTIONS, '--resume').stderr == ''
    assert_ended_as(finished, out)


def test_a_copy_of_an_old_snapshot(finished, small_mnist, tmp_path):
    out = tmp_path / 'out'
    assert small(out, small_mnist, '--epoch', 1, *OPTIONS[2:]).stderr == ''
    shutil.copy(out / 'snapshot_epoch_1', out / 'backup')
    assert small(out, small_mnist, *OPTIONS, '--resume').stderr == ''
    assert 'snapshot_epoch_2' in problem_of(out, small_mnist, '--resume', out / 'backup')
    options = '--resume', out / 'backup', '--overwrite'
    assert small(out, small_mnist, *OPTIONS, *options).stderr == ''
    (out / 'backup').unlink()
    assert_ended_as(finished, out)


def test_the_best_net_is_in_the_snapshot(finished, small_mnist, tmp_path):
    """Its file belongs to the user alone: a foreign one or none does not matter."""
    options = '--resume', finished / 'snapshot_epoch_2'
    assert small(tmp_path / 'b', small_mnist, *OPTIONS, *options).stderr == ''
    assert_ended_as(finished, tmp_path / 'b')
    for damage in os.remove, lambda path: os.truncate(path, 1000):
        damage(tmp_path / 'b' / 'best.model')
        assert small(tmp_path / 'b', small_mnist, *OPTIONS, '--resume').stderr == ''
        assert_ended_as(finished, tmp_path / 'b')


def test_a_snapshot_of_an_earlier_version(out, small_mnist):
    """It lacks an option."""
    arrays = read_npz(str(out / 'snapshot_epoch_2'))
    run = json.loads(arrays['extensions/Snapshot/run'].item())
    del run['--transposed']
    arrays['extensions/Snapshot/run'] = numpy.array(json.dumps(run))
    save_npz(str(out / 'snapshot_epoch_2'), arrays)
    line = problem_of(out, small_mnist, '--resume', '--transposed')
    assert 'belongs to a training without --transposed, and this one is with' in line


# An earlier training is replaced.


def interrupt_before_the_first_snapshot(out, data):
    code = (
        'import fast, sys, train_mnist\n'
        'def update(*_, **__): raise KeyboardInterrupt\n'
        'fast.Adam.update = update\n'
        "sys.argv[0] = 'train_mnist.py'\n"
        'train_mnist.main()'
    )
    words = '--data', data, '--unit', 50, '--batchsize', 50, '--out', out, *OPTIONS
    return run('-c', code, *words, '--overwrite', cwd=ROOT)


def test_interrupted_before_the_first_snapshot(finished, out, small_mnist):
    old = contents(out)
    for _ in range(2):
        result = interrupt_before_the_first_snapshot(out, small_mnist)
        assert result.returncode == 130
        assert {f'.overwritten/{name}' for name in old} == set(contents(out))
    for options in [], ['--resume']:
        assert f'move its files back from {out}/.overwritten' in problem_of(
            out, small_mnist, *options
        )
    assert small(out, small_mnist, *OPTIONS, '--overwrite', '--resume').stderr == ''
    assert_ended_as(finished, out)


def test_interrupted_while_it_sets_the_old_run_aside(finished, out, small_mnist, monkeypatch):
    old, moved = contents(out), []

    def rename(*paths):
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(os.replace(*paths))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'rename', rename)
        folder.set_aside(str(out))
    assert {os.path.basename(name) for name in contents(out)} == set(old)
    assert 'move its files back' in problem_of(out, small_mnist, '--resume')
    other = shutil.copytree(out, out.parent / 'other')
    for name in os.listdir(out / '.overwritten'):
        os.rename(out / '.overwritten' / name, out / name)
    (out / '.overwritten').rmdir()
    assert small(out, small_mnist, *OPTIONS, '--resume').stderr == ''
    assert_ended_as(finished, out)
    interrupt_before_the_first_snapshot(other, small_mnist)  # which also sets the rest aside
    assert {f'.overwritten/{name}' for name in old} == set(contents(other))


def test_a_run_set_aside_stays_until_its_own_replacement(out, small_mnist):
    """A snapshot from elsewhere is resumed in its place, and a run of its own overwritten."""
    snapshot = (out / 'snapshot_epoch_2').read_bytes()
    interrupt_before_the_first_snapshot(out, small_mnist)
    aside = contents(out / '.overwritten')
    (out / 'snapshot_epoch_2').write_bytes(snapshot)
    assert small(out, small_mnist, *OPTIONS, '--epoch', 3, '--resume').stderr == ''
    assert contents(out / '.overwritten') == aside
    # To move its files back would replace those of the other run.
    assert 'holds an earlier training (snapshot_epoch_3, ' in problem_of(out, small_mnist)
    line = problem_of(out, small_mnist, '--overwrite')
    assert line == f'{out}/.overwritten: holds another training; move it elsewhere, or delete it'


def test_what_somebody_has_in_the_place_of_a_run_set_aside(finished, out, small_mnist, tmp_path):
    """It stays there, also behind a link."""
    (tmp_path / 'theirs').mkdir()
    (tmp_path / 'theirs' / 'best.model').write_text('mine')
    (out / '.overwritten').symlink_to(tmp_path / 'theirs')
    assert problem_of(out, small_mnist, '--overwrite').startswith(f'{out}/.overwritten: holds')
    (out / '.overwritten').unlink()
    (out / '.overwritten').mkdir()
    (out / '.overwritten' / 'mine').write_text('mine')
    assert small(out, small_mnist, *OPTIONS, '--overwrite').stderr == ''
    assert os.listdir(out / '.overwritten') == ['mine']
    shutil.rmtree(out / '.overwritten')
    assert_ended_as(finished, out)


def test_the_initial_model_is_not_overwritten(out, small_mnist):
    line = problem_of(out, small_mnist, '--overwrite', '--initmodel', out / 'mlp.model')
    assert 'belongs to the training that --overwrite would replace' in line


# The lock.


@pytest.mark.skipif(files.WINDOWS, reason='an open file cannot be deleted there')
def test_a_lock_whose_file_is_deleted(tmp_path):
    with folder.lock(str(tmp_path)):
        (tmp_path / '.lock').unlink()
        with pytest.raises(OSError, match='another training is writing to this folder'):
            folder.lock(str(tmp_path))
    folder.lock(str(tmp_path)).close()


def test_a_lock_whose_file_is_replaced_meanwhile(tmp_path, monkeypatch):
    fcntl = pytest.importorskip('fcntl')

    def flock(*_):
        os.rename(tmp_path / '.lock', tmp_path / 'another')
        (tmp_path / '.lock').touch()

    monkeypatch.setattr(fcntl, 'flock', flock)
    with pytest.raises(OSError, match='another training is writing to this folder'):
        folder.lock(str(tmp_path))


@pytest.mark.skipif(files.WINDOWS, reason='symbolic links need rights there')
def test_planted_links(tmp_path, small_mnist):
    """Where a file will be written, a link to somebody else's file."""
    foreign = tmp_path / 'foreign'
    foreign.write_bytes(b'foreign')
    out = tmp_path / 'out'
    out.mkdir()
    for name in '.mlp.model.new', '.snapshot_epoch_1.new', '.log.new':
        (out / name).symlink_to(foreign)
    (out / 'loop').symlink_to('loop')
    assert small(out, small_mnist, '--epoch', 1).stderr == ''
    (out / '.lock').unlink()
    (out / '.lock').symlink_to(foreign)
    assert 'Too many levels of symbolic links' in problem_of(out, small_mnist, '--resume')
    assert foreign.read_bytes() == b'foreign'


@pytest.mark.skipif(files.WINDOWS, reason='a folder in use cannot be moved there')
def test_another_run_takes_the_place_of_the_folder(finished, small_mnist, tmp_path):
    """Somebody has removed the folder of a forgotten training, and started anew."""
    out = tmp_path / 'out'
    code = (
        'import os, shutil, sys, train_mnist\n'
        'from training.snapshot import Snapshot\n'
        'save = Snapshot.__call__\n'
        'def moved(self, trainer):\n'
        '    save(self, trainer)\n'
        '    if trainer.updater.epoch == 1:\n'
        "        os.rename(trainer.out, trainer.out + '.old')\n"
        f'        shutil.copytree({str(finished)!r}, trainer.out)\n'
        'Snapshot.__call__ = moved\n'
        'train_mnist.main()'
    )
    words = '--data', small_mnist, '--unit', 50, '--batchsize', 50, '--out', out, '--epoch', 2
    result = run('-c', code, *words, cwd=ROOT)
    assert result.returncode == 1 and f'{out}: is another folder now' in result.stderr
    assert contents(out) == contents(finished)


def test_nothing_is_read_before_the_lock(out, small_mnist):
    with contextlib.closing(folder.lock(str(out))):
        line = problem_of(out, small_mnist, '--resume', out / 'snapshot_epoch_2')
        assert 'another training is writing to this folder' in line
        (out / 'snapshot_epoch_2').write_bytes(b'half')
        line = problem_of(out, small_mnist, '--resume')
        assert 'another training is writing to this folder' in line


# The options that make a run.


def test_transposed(small_mnist, tmp_path):
    for folder_, options in ('a', ['--transposed']), ('b', []):
        assert small(tmp_path / folder_, small_mnist, *OPTIONS, *options).stderr == ''
    assert 'belongs to a training with --transposed, and this one is without' in problem_of(
        tmp_path / 'a', small_mnist, '--resume'
    )
    assert 'belongs to a training without --transposed, and this one is with' in problem_of(
        tmp_path / 'b', small_mnist, '--resume', '--transposed'
    )


def test_the_advice_holds_for_an_initial_model(finished, small_mnist, tmp_path):
    """The line of an interrupted training, followed to the letter; its folder has a space."""
    model = finished / 'mlp.model'
    options = '--epoch', 3, '--initmodel', model
    whole, out = tmp_path / 'whole', tmp_path / 'my run'
    assert small(whole, small_mnist, *options).stderr == ''
    code = (
        'import sys, train_mnist\n'
        'from training.snapshot import Snapshot\n'
        'save = Snapshot.__call__\n'
        'def interrupted(*args): save(*args); raise KeyboardInterrupt\n'
        'Snapshot.__call__ = interrupted\n'
        "sys.argv[0] = 'train_mnist.py'\n"
        'train_mnist.main()'
    )
    words = '--data', small_mnist, '--unit', 50, '--batchsize', 50, '--out', out
    process = start('-c', code, *words, *options, cwd=ROOT)
    _, line = process.communicate()
    advice = line.split('to resume, add ')[1].split(' to the same command')[0]
    assert shlex.split(advice) == ['--resume', str(out / 'snapshot_epoch_1')]
    for other, words_ in (
        ([], 'without --initmodel'),
        (['--initmodel', whole / 'mlp.model'], 'with --initmodel'),
    ):
        result = small(out, small_mnist, '--epoch', 3, *other, *shlex.split(advice))
        assert result.returncode == 2
        assert f'and this one is {words_}' in result.stderr
    assert small(out, small_mnist, *options, *shlex.split(advice)).stderr == ''
    assert same(out / 'mlp.model', whole / 'mlp.model')


def test_equal_runs_leave_equal_files(small_mnist, tmp_path):
    """Whatever the order of sets."""
    for name, seed in ('a', {}), ('b', {'PYTHONHASHSEED': '1'}):
        assert small(tmp_path / name, small_mnist, *OPTIONS, **seed).stderr == ''
    for name in 'mlp.model', 'mlp.state', 'best.model':
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()
