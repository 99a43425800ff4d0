"""chainer_compat: any module of ours, imported first, gives a working Chainer and no more."""

import ast
import glob
import importlib.util
import os
import subprocess
import sys

import chainer
import chainer.functions as F
import numpy

import fast
from helpers import ROOT


def modules():
    """The modules of the project, by the names with which they are imported."""
    folders = '', 'deploy', 'fast', 'support'
    for path in sorted(path for folder in folders for path in glob.glob(f'{ROOT}/{folder}/*.py')):
        yield os.path.relpath(path, ROOT)[: -len('.py')].replace(os.sep, '.')


WITHOUT_CHAINER = 'deploy.__init__', 'deploy.onnx_graph', 'support.__init__', 'support.begin'
WITH_NUMBA = (
    *('deploy.xnor', 'fast.cache', 'fast.cpu', 'fast.fused_net', 'fast.kernels', 'fast.layer'),
    *('fast.llvm', 'fast.lookup', 'fast.loops', 'fast.threads', 'fast.xnor'),
)
MODULES = [
    name
    for name in modules()
    if not (fast.missing and name in WITH_NUMBA)
    and (name != 'deploy.onnx_graph' or importlib.util.find_spec('onnx'))
]


def run(code, *arguments, **kwargs):
    """Runs code in a fresh interpreter, where a warning is an error."""
    return subprocess.run(
        [sys.executable, '-W', 'error', '-c', code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': ROOT},
        **kwargs,
    )


# Each module is the first of ours that is imported, and finds Chainer in chainer_compat alone. The
# packages stay imported: a fresh interpreter for each module would take half a minute.
EACH_FIRST = """
import chainer_compat, importlib, sys, types
OURS = {name.split('.')[0] for name in sys.argv[1:]}

def forget(*packages):
    names = [name for name in sys.modules if name.split('.')[0] in packages]
    return {name: sys.modules.pop(name) for name in names}

class Compat(types.ModuleType):
    def __getattr__(self, name):
        if name != 'chainer':
            raise AttributeError(name)
        sys.modules.update(chainer)
        return sys.modules['chainer']

chainer = forget('chainer')
for name in sys.argv[1:]:
    forget(*OURS, 'chainer')
    sys.modules['chainer'] = None  # which cannot be imported
    if name != 'chainer_compat':
        sys.modules['chainer_compat'] = Compat('chainer_compat')
        importlib.import_module(name)
        if not sys.modules['chainer']:
            print(name)
"""


def test_any_module_first_from_any_directory(tmp_path):
    """Chainer works in whatever uses it."""
    result = run(EACH_FIRST, *MODULES, cwd=tmp_path)
    assert result.stderr == ''
    assert result.stdout.split() == [name for name in MODULES if name in WITHOUT_CHAINER]


def test_all_modules_backwards():
    assert run('import ' + ', '.join(reversed(MODULES))).stderr == ''


def test_no_stand_in_remains():
    """A module that is missing before the import is missing after it."""
    code = """
import importlib, sys, warnings
def there(name):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            importlib.import_module(name)
        except ImportError:
            return False
        return True
{}
print([there(name) for name in ('numpy.distutils.system_info', 'pkg_resources')])
"""
    before, after = run(code.format('')), run(code.format('import chainer_compat'))
    assert before.stdout == after.stdout != ''


def test_modules_can_be_members_of_a_set():
    """As Hypothesis, for one, needs them."""
    assert run('import chainer_compat, sys; set(sys.modules.values())').stderr == ''


def test_every_numpy_name_that_chainer_uses_is_there():
    missing = set()
    for path in glob.glob(f'{os.path.dirname(chainer.__file__)}/**/*.py', recursive=True):
        with open(path, encoding='utf-8') as f:
            for node in ast.walk(ast.parse(f.read())):
                if (
                    isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and node.value.id in ('np', 'numpy')
                    and not hasattr(numpy, node.attr)
                ):
                    missing.add(node.attr)
    assert missing <= {'distutils'}  # for a check at import, on macOS


def test_functions_that_needed_help():
    assert F.resize_images(numpy.ones((1, 1, 4, 4), 'f'), (2, 2)).shape == (1, 1, 2, 2)
    x = chainer.Variable(numpy.arange(4, dtype='f'))
    F.sum(F.as_strided(x, (3, 2), (1, 1), 0)).backward()  # the windows of two
    assert x.grad.tolist() == [1, 2, 2, 1]


def test_numpy_names_that_are_there_are_left_alone():
    code = """
import warnings
warnings.simplefilter('ignore')
import numpy
before = dict(vars(numpy))
import chainer_compat
assert all(vars(numpy)[name] is value for name, value in before.items())
print(sorted(set(vars(numpy)) - set(before) & {'float', 'sctypes'}) != [])
"""
    assert run(code).stderr == ''
