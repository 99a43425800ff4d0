"""The inference program, run as its users run it."""

import os
import shutil
import subprocess
import sys

from PIL import Image
import numpy
import pytest

from deploy.fold import fold
from helpers import ROOT, logits_of, run, small, trained, write_dataset
from inference import describe_answers, unsure
from net import BinaryMLP
from pictures.digits import read_digits
from pictures.drawings import draw_mistakes
from support.files import read_npz, save_npz
from training.saved import remember_numbers


def inference(*arguments, **environment):
    return run(f'{ROOT}/inference.py', *arguments, **environment)


@pytest.fixture(scope='module')
def folder(tmp_path_factory, mnist):
    """A float model, a packed one, and one without a square picture."""
    folder = tmp_path_factory.mktemp('models')
    net = trained(*mnist[:2], 0, 200, 2, 1, 1, steps=300)
    save_npz(str(folder / 'mlp.model'), net)
    save_npz(str(folder / 'mlp.packed'), fold(net).arrays)
    save_npz(str(folder / 'oblong.packed'), fold(BinaryMLP(12, 5, 3)).arrays)
    errors = int((logits_of(net, mnist[2]).argmax(axis=1) != mnist[3]).sum())
    return folder, net, errors


@pytest.mark.parametrize(
    'name, words', [('mlp.model', 'a binary net'), ('mlp.packed', 'a packed binary net')]
)
def test_accuracy(folder, name, words, tmp_path):
    folder, _, errors = folder
    threads = '2' if 'packed' in name else '1'
    options = '--mistakes', tmp_path / 'wrong.png'
    result = inference(folder / name, *options, NUMBA_NUM_THREADS=threads)
    assert result.stderr == ''
    lines = result.stdout.splitlines()
    assert lines[0] == f'# {words} 784-200-200-10' or lines[0].startswith('# Numba is unavailable')
    assert lines[-3:-1] == [
        f'accuracy: {1 - errors / 10000:.4f}',
        f'errors: {errors} of 10000 images',
    ]
    assert (
        lines[-1].startswith('images per second: ')
        and float(lines[-1].split()[-1].replace(',', '')) > 0
    )
    with Image.open(tmp_path / 'wrong.png') as picture:
        assert picture.format == 'PNG' and min(picture.size) > 300


def test_no_mistakes(mnist):
    assert min(draw_mistakes(mnist[2], mnist[3], mnist[3]).size) > 0


def test_probabilities_and_what_is_unsure(folder, mnist, tmp_path):
    """Of a model with a temperature; a model without one says so and calls nothing unsure."""
    models, net, _ = folder
    image = mnist[2][0].repeat(5, axis=0).repeat(5, axis=1)
    Image.fromarray(image).save(tmp_path / 'a.png')
    answers = []
    for T in None, 0.5, 8:
        calibrated = net.copy('copy')
        if T:
            remember_numbers(calibrated, temperature=T)
        save_npz(str(tmp_path / 'mlp.model'), calibrated)
        save_npz(str(tmp_path / 'mlp.packed'), fold(calibrated).arrays)
        y = logits_of(net, read_digits(str(tmp_path / 'a.png'))) / (T or 1)
        p = numpy.exp(y - y.max())
        p = numpy.sort(p / p.sum())[0]
        for name in 'mlp.model', 'mlp.packed':
            result = inference(tmp_path / name, tmp_path / 'a.png')
            *notes, answer = result.stdout.splitlines()
            digit, probability, *others = answer.split(': ')[1].split()
            assert (digit, probability) == ('7', f'{p[-1]:.3f}')
            assert (others[:1] == ['(unsure,']) == bool(T and p[-2] > p[-1] / 10)
            assert any('its probabilities are not calibrated' in note for note in notes) == (not T)
        answers.append(' '.join(others))
    assert answers[:2] == ['', ''] and answers[2].startswith('(unsure, 7 or ')


def test_what_is_unsure():
    p = numpy.array([[0.9, 0.01, 0.089], [0.9, 0.091, 0.009], [0.05, 0.05, 0.9]])
    assert unsure(p).tolist() == [False, True, False]
    words = ['002', ' 0.901 0.900 0.900', '(unsure, 0 or 1)']
    assert list(describe_answers(numpy.log(p), True)) == words
    assert list(describe_answers(numpy.log(p), False)) == words[:2]


def test_a_net_of_one_class_is_sure(tmp_path, mnist):
    net = BinaryMLP(784, 5, 1)
    remember_numbers(net, temperature=2)
    Image.fromarray(mnist[2][0]).save(tmp_path / 'a.png')
    save_npz(str(tmp_path / 'mlp.model'), net)
    save_npz(str(tmp_path / 'mlp.packed'), fold(net).arrays)
    for name in 'mlp.model', 'mlp.packed':
        result = inference(tmp_path / name, tmp_path / 'a.png')
        assert (result.returncode, result.stderr) == (0, '')
        assert result.stdout.endswith('a.png: 0  1.000\n')


def test_without_numba(folder, tmp_path):
    (tmp_path / 'numba.py').write_text('raise ImportError("there is no Numba")')
    result = inference(folder[0] / 'mlp.packed', PYTHONPATH=str(tmp_path))
    assert result.stderr == ''
    lines = result.stdout.splitlines()
    assert lines[0] == (
        '# Numba is unavailable, so NumPy computes, many times slower: there is no Numba'
    )
    assert lines[3] == f'errors: {folder[2]} of 10000 images'


@pytest.mark.parametrize('name', ['mlp.model', 'mlp.packed'])
def test_pictures(folder, mnist, tmp_path, name):
    """Large, off-centre, dark-on-light pictures are classified about as well as the images."""
    models, net, _ = folder
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    images, labels = mnist[2][:80], mnist[3][:80]
    random = numpy.random.RandomState(0)
    for i, image in enumerate(images):
        large = Image.fromarray(255 - image).resize((140, 140), Image.Resampling.BICUBIC)
        page = Image.new('L', (300, 250), 255)
        page.paste(large, (random.randint(160), random.randint(110)))
        page.save(pictures / f'{i:03}.png')
    result = inference(models / name, pictures, '--show', tmp_path / 'seen.png')
    assert result.stderr == ''
    lines = [line for line in result.stdout.splitlines() if line[0] != '#']
    assert len(lines) == 80
    predicted = []
    for i, line in enumerate(lines):
        path, answer = line.split(': ')
        digit, probability = answer.split()[:2]
        assert path == str(pictures / f'{i:03}.png') and 0.1 <= float(probability) <= 1
        predicted.append(int(digit))
    with Image.open(tmp_path / 'seen.png') as sheet:
        assert sheet.format == 'PNG' and sheet.width == 4 * 240
    right = (numpy.array(predicted) == labels).mean()
    assert right >= (logits_of(net, images).argmax(axis=1) == labels).mean() - 0.05


def test_bad_input(folder, small_mnist, tmp_path):
    models = folder[0]
    none, text, blank = (tmp_path / name for name in ('none', 'text', 'blank.png'))
    Image.new('L', (9, 9)).save(blank)
    text.write_text('nonsense')
    for arguments, message in [
        ([], 'inference.py: the following arguments are required: MODEL\n'),
        ([none], f'{none}: No such file or directory'),
        ([text], f'{text}: damaged, or not a file that this program saved'),
        ([models / 'mlp.packed', blank], f'{blank}: shows nothing'),
        ([models / 'oblong.packed', blank], 'the net takes 12 pixels'),
        ([models / 'oblong.packed'], 'its images have 784 pixels, but the net takes 12'),
        (
            [models / 'mlp.packed', '--data', tmp_path],
            f'{tmp_path}: holds neither the IDX files of MNIST nor a folder test',
        ),
        (
            [models / 'mlp.packed', 'x.png', '--mistakes', 'y.png'],
            'argument --mistakes: applies to the test images',
        ),
        (
            [models / 'mlp.packed', '--mistakes', none / 'y.png'],
            f'{none / "y.png"}: No such file or directory',
        ),
        ([models / 'mlp.packed', '--show', 'x.png'], 'argument --show: draws pictures'),
        ([models / 'mlp.model', '--gpu', 'x'], 'argument --gpu/-g: must be a whole number'),
    ]:
        result = inference(*arguments)
        assert result.returncode == 2
        assert message in result.stderr and result.stderr.startswith('inference.py: ')
        assert result.stderr.count('\n') == 1


def test_no_picture_or_model_is_replaced(folder, tmp_path, mnist):
    """As when the shell expands ``--show *.png``, or a name is given in the wrong place."""
    for name in 'a.png', 'b.png':
        Image.fromarray(mnist[2][0]).resize((99, 99)).save(tmp_path / name)
    shutil.copy(folder[0] / 'mlp.packed', tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    net = tmp_path / 'mlp.packed'
    for arguments, message in (
        (
            ['--show', tmp_path / 'a.png', tmp_path / 'b.png'],
            'a.png: exists and is no earlier output',
        ),
        (['--show', net, tmp_path / 'b.png'], 'mlp.packed: a picture is drawn as PNG'),
        (['--mistakes', tmp_path / 'a.png'], 'a.png: exists and is no earlier output'),
        (['--mistakes', tmp_path / 'x.pgf'], 'x.pgf: a picture is drawn as PNG'),
        (['--mistakes', tmp_path], f'{tmp_path}: Is a directory'),
        (['--mistakes', ''], "argument --mistakes: must be a path, not ''"),
    ):
        result = inference(net, *arguments)
        assert (result.returncode, result.stdout) == (2, '')
        assert message in result.stderr and result.stderr.count('\n') == 1
        assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments in (
        ['--show', tmp_path / 'c.png', tmp_path / 'a.png'],
        ['--mistakes', tmp_path / 'c.png'],
    ):
        for _ in range(2):
            result = inference(net, *arguments)
            assert (result.returncode, result.stderr) == (0, '')


def test_names_that_standard_output_cannot_hold(folder, tmp_path, mnist):
    names = ['a.png', '数字.png'] + [os.fsdecode(b'caf\xe9.png')] * (sys.platform == 'linux')
    for name in names:
        Image.fromarray(mnist[2][0]).resize((99, 99)).save(tmp_path / name)
    code = 'import sys, inference as i; sys.stdout.reconfigure(encoding=sys.argv.pop(1)); i.main()'
    for encoding in 'utf-8', 'cp1252':
        result = run('-c', code, encoding, folder[0] / 'mlp.packed', tmp_path, cwd=ROOT)
        assert (result.returncode, result.stderr) == (0, '')
        assert sum('.png: ' in line for line in result.stdout.splitlines()) == len(names)


def test_a_net_with_extreme_numbers_prints_no_warning(folder, tmp_path):
    arrays = read_npz(str(folder[0] / 'mlp.model'))
    for name in 'bn1/gamma', 'bn1/beta', 'bn3/gamma', 'bn3/beta':
        arrays[name] = numpy.full_like(arrays[name], 3e38)
    save_npz(str(tmp_path / 'extreme'), arrays)
    result = inference(tmp_path / 'extreme')
    assert (result.returncode, result.stderr) == (0, '')


def test_interrupted_while_it_imports():
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(self, name, *_):
        if name == 'chainer':
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.path.insert(0, {ROOT!r})
sys.argv[0] = 'inference.py'
import inference
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stderr == 'inference.py: interrupted\n' and result.returncode != 0


def test_a_folder_with_a_bad_picture(folder, tmp_path, mnist):
    """It is named, the rest is read, and hidden files are passed over."""
    for name in 'a.png', 'c.png':
        Image.fromarray(mnist[2][0]).save(tmp_path / name)
    for name in 'b.png', '._a.png':
        (tmp_path / name).write_text('nonsense')
    result = inference(folder[0] / 'mlp.packed', tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f'inference.py: {tmp_path / "b.png"}: not a PNG or JPEG file')
    answers = [line.split(': ')[0] for line in result.stdout.splitlines() if line[0] != '#']
    assert answers == [str(tmp_path / 'a.png'), str(tmp_path / 'c.png')]


def test_a_name_with_a_line_break_and_nothing_to_show(folder, tmp_path):
    name = 'a b.png' if os.name == 'nt' else 'a\nb.png'
    (tmp_path / name).write_text('nonsense')
    result = inference(folder[0] / 'mlp.packed', tmp_path, '--show', tmp_path / 'seen.png')
    assert result.returncode == 2 and os.listdir(tmp_path) == [name]
    path = str(tmp_path / name).replace('\n', '\\n')
    assert result.stderr == f'inference.py: {path}: not a PNG or JPEG file\n'


def test_only_the_test_files(folder, small_mnist, tmp_path):
    for path in small_mnist.glob('t10k*'):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    result = inference(folder[0] / 'mlp.packed', '--data', tmp_path)
    assert (result.returncode, result.stderr) == (0, '')
    assert 'of 200 images' in result.stdout


def test_options_between_the_arguments(folder, tmp_path, mnist):
    Image.fromarray(mnist[2][0]).save(tmp_path / 'a.png')
    result = inference(folder[0] / 'mlp.model', '--gpu', -1, tmp_path / 'a.png')
    assert (result.returncode, result.stderr) == (0, '')


@pytest.mark.parametrize(
    'package, arguments',
    [('PIL', ['x.png']), ('scipy', ['x.png']), ('PIL', ['--mistakes', 'x.png'])],
)
def test_without_an_optional_package(package, arguments, folder, tmp_path):
    (tmp_path / f'{package}.py').write_text('raise ImportError("not there")')
    result = inference(folder[0] / 'mlp.packed', *arguments, PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.count('\n') == 1 and '(pip install' in result.stderr


@pytest.mark.parametrize('kind', ['transposed', 'dark on light', 'cropped to the digit'])
def test_a_net_of_other_images_reads_the_same_pictures(kind, mnist, tmp_path):
    """Pictures are prepared as the images of the data set were."""

    def change(images):
        if kind == 'transposed':
            return images.transpose(0, 2, 1)
        return 255 - images if kind == 'dark on light' else images[:, 4:24, 4:24]

    write_dataset(
        tmp_path / 'data',
        *(change(mnist[0][:3000]), mnist[1][:3000], change(mnist[2][:300]), mnist[3][:300]),
        prefix='emnist-' if kind == 'transposed' else '',
    )
    options = ['--transposed'] if kind == 'transposed' else []
    result = small(tmp_path / 'out', tmp_path / 'data', '--epoch', 4, *options)
    assert (result.returncode, result.stderr) == (0, '')
    assert 'give --transposed' not in result.stdout
    (tmp_path / 'pictures').mkdir()
    for i, image in enumerate(mnist[2][:40]):
        large = Image.fromarray(255 - image).resize((200, 200), Image.Resampling.BICUBIC)
        large.save(tmp_path / f'pictures/{i:02}.png')
    result = inference(tmp_path / 'out/mlp.model', tmp_path / 'pictures')
    answers = [line.split()[1] for line in result.stdout.splitlines() if line[0] != '#']
    assert sum(a == str(label) for a, label in zip(answers, mnist[3])) >= 24


def test_the_images_of_emnist_are_recognised_by_their_name(small_mnist, mnist, tmp_path):
    write_dataset(tmp_path / 'data', *(a[:200] for a in mnist), prefix='emnist-digits-')
    result = small(tmp_path / 'out', tmp_path / 'data', '--epoch', 1)
    assert 'the images of EMNIST are transposed: give --transposed' in result.stdout
