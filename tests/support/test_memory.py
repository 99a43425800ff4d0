"""The memory that a process may use."""

import subprocess
import sys

import pytest

from helpers import ROOT, small
from support import memory


@pytest.mark.parametrize('path', ['memory.max', 'memory/memory.limit_in_bytes'])
def test_the_limit_of_a_container(path, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, 'CGROUPS', str(tmp_path))
    assert memory.available() > 2**29
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text('536870912\n')
    assert memory.available() == 2**29
    (tmp_path / path).write_text('max\n')
    assert memory.available() > 2**29


def test_without_sysconf(tmp_path, monkeypatch):
    """Windows has none."""
    monkeypatch.setattr(memory, 'CGROUPS', str(tmp_path))
    monkeypatch.delattr('os.sysconf', raising=False)
    assert memory.available() == float('inf')


def test_ulimit():
    resource = pytest.importorskip('resource')
    code = 'from support import memory; print(memory.available())'
    limit = 2**32
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert int(float(done.stdout)) <= limit


@pytest.mark.skipif(memory.available() == float('inf'), reason='the system does not tell')
def test_a_net_that_does_not_fit(small_mnist, tmp_path):
    result = small(tmp_path / 'out', small_mnist, '--unit', 100000)
    assert result.returncode == 2 and result.stderr.count('\n') == 1
    assert '--unit 100000 --layer 2: training would take' in result.stderr
