"""The pages say what the files and the programs say."""

import csv
import ctypes
import glob
import json
import os
import re
import shutil
import subprocess
import sys

import numpy
import pytest

import pack
from helpers import ROOT
from inference import load
from test_house import NINE

STRICT = '-O2 -Wall -Wextra -pedantic -Wconversion -Werror'


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8') as f:
        return f.read()


def rows(text):
    """The cells of each row of the tables in a page or a report."""
    lines = [line.strip() for line in text.splitlines() if line.startswith('| ')]
    return [[cell.strip() for cell in line[1:-1].split('|')] for line in lines]


def of_row(path):
    """First cell -> the other cells."""
    return {cells[0]: cells[1:] for cells in rows(read(path))}


def blocks(path, language):
    return re.findall(rf'^```{language}\n(.*?)^```$', read(path), re.MULTILINE | re.DOTALL)


def accuracy(pattern):
    """Of the last epoch: mean and deviation over the seeds, as the pages write them."""
    runs = [json.loads(read(path)) for path in sorted(glob.glob(f'{ROOT}/results/{pattern}'))]
    last = 100 * numpy.array([run[-1]['validation/main/accuracy'] for run in runs])
    return f'{last.mean():.2f} %' + (f' ± {last.std(ddof=1):.2f}' if len(last) > 1 else '')


def original(net):
    *_, last = csv.DictReader(read(f'results/original-{net}.csv').splitlines())
    return f'{100 * float(last["validation/main/accuracy"]):.2f} % (original script)'


def ratios(net):
    """Least and most time of a step of ours, divided by that of compiled PyTorch."""
    times = [
        cells[5]
        for isa in ('avx2', 'avx512')
        for cells in rows(read(f'benchmarks/train-{isa}.txt'))
        if cells[0] == f'ours, {net}'
    ]
    return f'{min(times)} to {max(times)}'


def test_the_numbers_of_the_readme():
    one, four = accuracy('binary-seed*.json'), accuracy('quantized-seed*.json')
    last = json.loads(read('results/quick-start.json'))[-1]
    columns = 'main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy'
    columns = 'epoch', *columns, 'elapsed_time'
    fast, formats = of_row('benchmarks/inference-avx512.txt'), of_row('benchmarks/formats.txt')
    nets = json.loads(read('results/calibration.json'))
    gpu = of_row('benchmarks/gpu.txt')['`./train_mnist.py --gpu 0`'][0].replace('-', 'to')
    scripts = sum(len(read(f'{name}.py').splitlines()) for name in NINE)
    printed = re.search('accuracy: (.*)', read('results/recipe/4096-seed0.txt'))
    cpu = accuracy('recipe/4096-cpu-seed*.json')
    readme = ' '.join(read('README.md').split())
    for words in (
        f'The nine scripts are {round(scripts / 50) * 50} lines',
        f'| 1 bit | {one} (5 seeds) | {os.path.getsize(f"{ROOT}/results/binary.packed"):,} |',
        f'| 2 bits | {accuracy("2-bit-seed*.json")} (1 seed) | {nets["2 bits"]["bytes"]:,} |',
        f'| 4 bits | {four} (2 seeds) | {nets["4 bits"]["bytes"]:,} |',
        f'| full precision | {accuracy("recipe/float-seed*.json")} (1 seed) '
        f'| {nets["full precision"]["bytes"]:,} |',
        ' '.join(f'{last[name]:.6g}' for name in columns),
        f'| 2 x 1000, 1 bit, defaults | {one} | {original("binary")} | 20 | 5 |',
        f'| 2 x 1000, 4 bits, defaults | {four} | {original("quantized")} | 20 | 2 |',
        f'| 3 x 1024, 1 bit | {accuracy("recipe/1024-seed*.json")} |',
        f'| 3 x 1024, W 1 bit, activations 2 | {accuracy("recipe/1024-1-2-bit-seed*.json")} |',
        f'| 3 x 4096, 1 bit, on a GPU | {100 * float(printed[1]):.2f} % |',
        f'| 3 x 4096, 1 bit, on a CPU in half an hour | {cpu} |',
        f'takes {ratios("binary")} of the time of compiled PyTorch',
        f'(4 bits: {ratios("quantized")})',
        f'an epoch takes {gpu} s',
        *(f'| `{name}` | {formats[name][0]} |' for name in ('.packed', '.onnx', '.html')),
        f'| `.c` | {formats[".c, -O2"][0]} |',
        f'classifies {fast["ours, packed"][0]} images per second, '
        f'compiled PyTorch {fast["PyTorch compiled, fp32"][0]}',
    ):
        assert words in readme


def test_the_tables_that_name_their_logs():
    found = [
        row for row in rows(read('results/README.md')) if re.fullmatch('`recipe/.*`', row[-1])
    ]
    found = [row for row in found if 'seed' not in row[-1]]
    assert len(found) == 46
    for *cells, log in found:
        pattern = f'{log.strip("`")}-seed*.json'
        runs = [json.loads(read(path)) for path in glob.glob(f'{ROOT}/results/{pattern}')]
        mean, seeds = accuracy(pattern).replace(' %', ''), str(len(runs))
        if len(cells) == 3:
            assert cells[1:] == [mean, seeds], log
        else:
            assert cells[2].strip('*') == mean and cells[3:5] == [str(len(runs[0])), seeds], log
            seconds = numpy.mean([run[-1]['elapsed_time'] for run in runs])
            assert float(cells[5]) == pytest.approx(seconds / 60, abs=0.5)


def test_the_tables_by_epoch(capsys):
    figures = pytest.importorskip('results.figures', reason='Matplotlib is not installed')
    figures.print_table('binary')
    figures.print_table('quantized')
    page = read('results/README.md')
    assert all(line in page for line in capsys.readouterr().out.splitlines())
    apart = abs(figures.logs('binary').mean(axis=0) - figures.original('binary'))[:, 0].max()
    assert f'is within {apart:.4f} of the original' in ' '.join(page.split())


def test_the_probabilities(monkeypatch, capsys):
    """Calibration error and unsure answers, on three pages; the goals are those of the README."""
    figures = pytest.importorskip('results.figures', reason='Matplotlib is not installed')
    monkeypatch.setattr(figures.Figure, 'savefig', lambda *_, **__: None)
    figures.draw_calibration()
    page = read('results/README.md')
    assert all(line in page for line in capsys.readouterr().out.splitlines())
    nets = json.loads(read('results/calibration.json'))
    before = min(net['before']['error'] for net in nets.values())
    after, held_out = (
        max(net['after']['error'] for name, net in nets.items() if ('held out' in name) == held)
        for held in (False, True)
    )
    assert after <= 0.015 and held_out <= 0.008
    words = f'from at least {before:.2f} to at most {after:.3f}, or {held_out:.3f} with `--hold'
    assert words in ' '.join(read('README.md').split())
    images, errors = (100 * share for share in nets['1 bit']['unsure']['second > first / 10'])
    words = (
        f'{images:.1f} % of the test images with the default binary net, and for {errors:.0f} % of'
    )
    assert words in ' '.join(read('docs/usage.md').split())


@pytest.mark.parametrize('section', read('benchmarks/README.md').split('\n## ')[1:])
def test_the_tables_of_the_benchmarks(section):
    """Each cell stands in a row of the same name in a report that the section names."""
    reports = [
        row
        for name in re.findall(r'\]\((\w\S*\.txt)\)', section)
        for row in rows(read(f'benchmarks/{name}'))
    ]
    for table in re.findall(r'(?:^\|.*\n)+', section, re.MULTILINE):
        for name, *cells in rows(table)[1:]:
            assert set(cells) <= {cell for row in reports if row[0] == name for cell in row}, name


def test_the_trainings_on_a_gpu():
    for net, name in ('binary', 'binary'), ('quantized', 'quantized, 4 bits'):
        last = json.loads(read(f'results/gpu-{net}.json'))[-1]
        words = f'| {name} | {last["main/loss"]:.4f} | {accuracy(f"gpu-{net}.json")} |'
        assert words in read('results/README.md')


def test_the_layers_in_another_program(tmp_path):
    """The program of docs/layers.md runs with the five files that it names, elsewhere."""
    page = read('docs/layers.md')
    for name in re.findall(r'`(\w+\.py)`', page.split('(With')[0]):
        shutil.copy(f'{ROOT}/{name}', tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    (folder / 'tones.py').write_text(*blocks('docs/layers.md', 'python'))
    result = subprocess.run(
        [sys.executable, 'tones.py'],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.stderr == ''
    accuracy, signs = (line.split(': ') for line in result.stdout.splitlines())
    assert f'    {accuracy[0]}: ' in page and f'    {signs[0]}: ' in page
    assert float(accuracy[1]) > 0.98
    assert set(signs[1].strip('[ ]').replace('.', '').split()) == {'1', '-1'}


@pytest.fixture(scope='module')
def c_program(tmp_path_factory):
    """A folder with the program of docs/deploy.md, compiled as C, as C++, and as a library."""
    if not (shutil.which('cc') and shutil.which('c++')):
        pytest.skip('there are no compilers of C and C++')
    folder = tmp_path_factory.mktemp('c')
    for name in 'net.c', 'net.h':
        pack.main([f'{ROOT}/results/binary.packed', str(folder / name)])
    for name, block in zip(('place.c', 'main.c'), blocks('docs/deploy.md', 'c')):
        (folder / name).write_text(block)
    for command in (
        f'cc -std=c99 {STRICT} net.c place.c main.c -o digit',
        f'cc -std=c99 {STRICT} -c net.c',
        f'c++ -std=c++11 {STRICT} -x c++ place.c main.c -x none net.o -o digit-of-c++',
        f'cc -std=c99 {STRICT} place.c -shared -fPIC -o place.so',
    ):
        done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, '')
    return folder


@pytest.mark.parametrize('program', ['digit', 'digit-of-c++'])
def test_the_c_program(c_program, program):
    """It gives the answers of inference.py for pictures of one dark digit on white paper."""
    Image = pytest.importorskip('PIL.Image', reason='Pillow is not installed')
    for name in 'large.png', 'blue-ink.png', 'photo.jpg':
        with Image.open(f'{ROOT}/results/digits/{name}') as picture:
            picture.convert('L').save(c_program / 'digit.pgm')
        with open(c_program / 'digit.pgm') as f:
            answer = subprocess.run([c_program / program], stdin=f, capture_output=True, text=True)
        assert f'    results/digits/{name}: {answer.stdout.strip()}  ' in read('docs/usage.md')


@pytest.mark.parametrize('side', [28, 40, 57, 100, 333])
def test_digits_are_placed_in_c_as_in_python(c_program, mnist, side):
    """Those of the data set exactly, larger ones within a grey level, on average."""
    Image = pytest.importorskip('PIL.Image', reason='Pillow is not installed')
    pytest.importorskip('scipy', reason='SciPy is not installed')
    from pictures.digits import place

    library = ctypes.CDLL(str(c_program / 'place.so'))
    images = numpy.where(mnist[2][:100] > 50, mnist[2][:100], 0)
    found, expected = numpy.empty_like(images), numpy.empty_like(images)
    for k, image in enumerate(images):
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        ink = numpy.ascontiguousarray(resized)
        rows, columns = (numpy.flatnonzero((ink > 50).any(axis=axis)) for axis in (1, 0))
        expected[k] = place(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 255)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (ink, found[k])]
        assert library.place(pointers[0], side, side, pointers[1]) == 1
    difference = abs(found.astype(int) - expected)
    assert difference.mean() <= (1 if side > 28 else 0)
    model, _ = load(f'{ROOT}/results/binary.packed', -1)
    classes = [model.logits(placed).argmax(axis=1) for placed in (found, expected)]
    assert (classes[0] == classes[1]).mean() >= 0.98


def test_what_the_deployment_page_says(c_program, mnist, capsys):
    page = read('docs/deploy.md')
    pack.main([f'{ROOT}/results/binary.packed', str(c_program / 'net.c')])
    assert all(f'    {line}\n' in page for line in capsys.readouterr().out.splitlines()[1:6])
    header = (c_program / 'net.h').read_text()
    stack, size, tables = re.search(
        'at most (.*) bytes of stack. The .* net.s (.*) bytes are tables of (.*) here', header
    ).groups()
    assert f'(tables of {tables} bytes)' in page
    words = ' '.join(page.split())
    assert f"net's {size} bytes (the total above" in words and f' tables of {tables} here' in words
    assert f'{int(stack.replace(",", "")) / 1000:.1f} kB of stack' in page
    pack.main([f'{ROOT}/results/binary.packed', str(c_program / 'net.html')])
    assert f'"bytes": {size.replace(",", "")}, ' in (c_program / 'net.html').read_text('utf-8')
    for line in re.findall('^.* net_.*;$', header, re.MULTILINE):
        assert f'    {line}' in page
    for _, size, time, differ in rows(read('benchmarks/formats.txt'))[1:]:
        assert f' {size} ' in page and f' {time} ' in page and differ in ('0', '')
    model, net = load(f'{ROOT}/results/binary.packed', -1)
    assert f'the net of `./train_mnist.py` with {100 * net.accuracy:.2f} %' in words
    for shift, words in (0, 'are read correctly'), (3, 'if they are moved by three pixels'):
        answers = model.logits(numpy.roll(mnist[2][:2000], shift, axis=2)).argmax(axis=1)
        right = 100 * (answers == mnist[3][:2000]).mean()
        assert f'{right:.1f} % {words}' in ' '.join(page.split())


def test_the_onnx_program(tmp_path, monkeypatch):
    pytest.importorskip('onnx', reason='onnx is not installed')
    pytest.importorskip('onnxruntime', reason='ONNX Runtime is not installed')
    monkeypatch.chdir(tmp_path)
    pack.main([f'{ROOT}/results/binary.packed', 'net.onnx'])
    names = {}
    exec(*blocks('docs/deploy.md', 'python'), names)
    assert names['logits'].shape == names['probabilities'].shape == (1, 10)
    assert names['classes'].shape == (1,) and names['probabilities'].sum() == pytest.approx(1)
