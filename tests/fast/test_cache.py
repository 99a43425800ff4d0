"""A cache that is damaged, full or nowhere costs time, but stops no program."""

import errno
import pickle
import shutil
import subprocess
import sys
import warnings

import pytest

numba = pytest.importorskip('numba', reason='Numba is not installed')
from numba.core import caching, serialize

from fast import cache
from fast.cache import njit
from fast.layer import Layer
from fast.loops import Update


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A function that compiles one afresh, as a new process does, calls it, and returns it."""
    monkeypatch.setattr(numba.config, 'CACHE_DIR', str(tmp_path))

    def compile():
        @njit
        def double(a):
            return 2 * a

        assert double(21) == 42
        return double

    return compile


def is_loaded(function):
    return sum(function.stats.cache_hits.values()) == 1


def test_compiled_once(compiled, tmp_path):
    assert not is_loaded(compiled())
    assert is_loaded(compiled())
    assert list(tmp_path.rglob('*double*.nbi'))


@pytest.mark.parametrize('ending', ['nbi', 'nbc'])
def test_an_empty_file_is_replaced(compiled, tmp_path, ending):
    compiled()
    (path,) = tmp_path.rglob(f'*.{ending}')
    path.write_bytes(b'')
    assert not is_loaded(compiled())
    assert is_loaded(compiled())


@pytest.mark.parametrize('step', ['_save_index', '_save_data'])
def test_a_full_disk(compiled, monkeypatch, step):
    def save(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(caching.IndexDataCacheFile, step, save)
        compiled()
    assert not is_loaded(compiled())
    assert is_loaded(compiled())


def test_no_folder_for_a_cache(compiled, monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, '_locator_classes', [])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not is_loaded(compiled())


WHOLE = """
from fast.cache import njit
from fast.part import part

@njit
def whole(a):
    return part(a)

print(whole(1), sum(whole.stats.cache_hits.values()))
"""
PART = """
from fast.cache import compiled

@compiled
def part(a):
    return {} * a
"""


def test_a_change_in_another_file(tmp_path):
    (tmp_path / 'fast').mkdir()
    shutil.copy(cache.__file__, tmp_path / 'fast')
    (tmp_path / 'fast' / 'whole.py').write_text(WHOLE)
    for number, printed in (1, '1 0'), (1, '1 1'), (22, '22 0'):
        (tmp_path / 'fast' / 'part.py').write_text(PART.format(number))
        command = [sys.executable, '-c', 'import fast.whole']
        assert subprocess.check_output(command, cwd=tmp_path, text=True) == f'{printed}\n'


@pytest.mark.parametrize('kind', [Layer, Update])
def test_the_cache_can_store_the_arguments_of_regions(kind):
    assert pickle.loads(serialize.dumps(kind.type)) is kind.type
