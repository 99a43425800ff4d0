"""The pictures of a training say what they show."""

import errno
import types

from chainer_compat import chainer
import numpy
import pytest

pytest.importorskip('matplotlib', reason='Matplotlib is not installed')
import matplotlib.figure

import train_mnist
from helpers import log_of
from net import BinaryMLP
from support.files import read_npz
from training.report import FailOnNonFinite, Report, _ticks


def log(*accuracies):
    """The log of a training with these accuracies."""
    names = 'main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy'
    return [{'epoch': i, **dict.fromkeys(names, a)} for i, a in enumerate(accuracies, 1)]


def words_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize('held_out', [0, 100])
def test_the_pictures_of_a_training(held_out, small_mnist, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(matplotlib.figure.Figure, 'savefig', lambda *a, **k: figures.append(a[0]))
    options = {'--data': small_mnist, '--unit': 20, '--epoch': 4, '--hold-out': held_out}
    words = [str(word) for pair in options.items() for word in pair]
    train_mnist.main([*words, '--out', str(tmp_path)])
    evaluated = [row['validation/main/accuracy'] for row in log_of(tmp_path)]
    epoch = 1 + numpy.argmax(evaluated) if held_out else 4
    title = (
        'binary net 784-20-20-10\n'
        f'test accuracy {100 * read_npz(str(tmp_path / "mlp.model"))["accuracy"]:.2f} % '
        f'after epoch {epoch}'
    )
    for figure in figures[:2]:
        (axes,) = figure.axes
        assert axes.get_title(loc='left') == title
        assert words_of(axes) == ['training', 'held-out' if held_out else 'test']
        assert axes.get_xticks().tolist() == [1, 2, 3, 4]
        assert axes.get_xlim() == pytest.approx((1 - 0.06, 4 + 0.06))
    assert axes.lines[1].get_ydata().tolist() == evaluated
    weights = figures[2]
    assert weights.texts[0].get_text() == title
    assert [axes.get_title() for axes in weights.axes] == ['l1', 'l2', 'l3', '']
    assert '0.01 %' in [label.get_text() for label in weights.axes[-1].get_yticklabels()]
    for axes in weights.axes[:-1]:
        assert axes.get_xticks().tolist() == [0, 1, 2, 3, 4]
        assert axes.collections[0].get_array().shape == (Report.bins, 5)


def test_before_the_end_the_title_states_the_last_epoch():
    report = Report(BinaryMLP(8, 3, 2), 'held-out')
    assert report.title([0.5, 0.9, 0.7], None).endswith('held-out accuracy 70.00 % after epoch 3')
    assert report.title([0.5, 0.9, 0.7], 0.8).endswith('test accuracy 80.00 % after epoch 2')


@pytest.mark.parametrize(
    'first, last, most, expected',
    [
        (1, 1, 8, [1]),
        (1, 2, 8, [1, 2]),
        (1, 20, 8, [1, 5, 10, 15, 20]),
        (1, 77, 8, [1, 10, 20, 30, 40, 50, 60, 70, 77]),
        (1, 101, 8, [1, 20, 40, 60, 80, 101]),
        (0, 1, 4, [0, 1]),
        (0, 1000, 4, [0, 500, 1000]),
    ],
)
def test_the_ticks_of_the_epochs(first, last, most, expected):
    assert _ticks(first, last, most) == expected


@pytest.mark.parametrize('accuracy', [0.0, 0.1, 1.0])
def test_accuracies_that_are_all_equal(accuracy):
    axes = Report(BinaryMLP(8, 3, 2)).curves('', log(*[accuracy] * 3), 'accuracy').axes[0]
    low, high = axes.get_ylim()
    assert low <= accuracy <= high <= 1 and low < high


def test_many_layers():
    """Each is drawn, in order, and the title stays short."""
    report = Report(BinaryMLP(8, 3, 2, 12))
    assert report.net == 'binary net 8-3-…-3-2'
    report(None)
    report.layers['/l2'].array[...] = 0.995
    report(None)
    *layers, bar = report.weights('').axes
    assert [axes.get_title() for axes in layers] == [f'l{i}' for i in range(1, 14)]
    shares = layers[1].collections[0].get_array()
    assert shares[-1, 1] == 100 and numpy.ma.filled(shares, 0)[:-1, 1].max() == 0
    assert bar.get_ylabel() == "share of the layer's weights"


def test_no_picture_is_half_written(tmp_path, monkeypatch):
    def fail(figure, f, **_):
        f.write(b'half')
        raise OSError(errno.ENOSPC, 'the disk is full')

    (tmp_path / 'loss.png').write_bytes(b'earlier')
    monkeypatch.setattr(matplotlib.figure.Figure, 'savefig', fail)
    report = Report(BinaryMLP(8, 3, 2))
    report(None)
    trainer = types.SimpleNamespace(
        out=str(tmp_path), get_extension=lambda _: types.SimpleNamespace(log=log(0.5))
    )
    with pytest.raises(OSError, match='the disk is full'):
        report.draw(trainer)
    assert [path.name for path in tmp_path.iterdir()] == ['loss.png']
    assert (tmp_path / 'loss.png').read_bytes() == b'earlier'


@pytest.mark.gpu
def test_on_a_gpu_the_losses_are_looked_at_once_an_epoch():
    device, fail = chainer.get_device('@cupy:0'), FailOnNonFinite()
    losses = [(1, 1), (1, 2), (1, 6), (2, 3), (2, numpy.nan), (2, 4)]
    for iteration, (epoch, loss) in enumerate(losses, 1):
        end = iteration % 3 == 0
        updater = types.SimpleNamespace(
            device=device, is_new_epoch=end, epoch=epoch - (not end), iteration=iteration
        )
        values = (device.send(numpy.array(x, 'f')) for x in (loss, loss / 10))
        trainer = types.SimpleNamespace(
            updater=updater, observation=dict(zip(('main/loss', 'main/accuracy'), values))
        )
        if iteration == 6:
            with pytest.raises(FloatingPointError, match='became nan in epoch 2, by iteration 6'):
                fail(trainer)
        else:
            fail(trainer)
            means = {'main/loss': 3, 'main/accuracy': pytest.approx(0.3)}
            assert trainer.observation == (means if end else {})
