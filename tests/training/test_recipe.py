"""The paper's recipe: the arithmetic of each option, and that the defaults change nothing."""

import json
import os

import chainer
import chainer.functions as F
import chainer.links as L
from chainer import gradient_check
import numpy
import pytest

import fast
import train_mnist
from benchmarks.worker import initial_weights
from data import read_mnist
from helpers import log_of, same, small
from inference import load
from net import BinaryMLP, FloatMLP, QuantizedMLP
from training import recipe
from training.arguments import PAPER, make_parser
from support.files import read_npz
from weight_clip import WeightClip


def prepared(folder, data, *arguments):
    """The trainer, in a folder that is locked no longer."""
    words = '--data', data, '--out', folder, '--unit', 20, '--batchsize', 50, '--quiet', *arguments
    trainer, held = train_mnist.prepare(train_mnist.parse_arguments([*map(str, words)]))
    with held:
        return trainer


def test_a_run_without_options_is_the_plain_one_to_the_bit(small_mnist, tmp_path):
    """The training written out with Chainer's own optimizer and loss."""
    assert small(tmp_path, small_mnist, '--epoch', 2).stderr == ''
    images, labels, _, _ = read_mnist(str(small_mnist))
    images = images.reshape(len(images), -1)
    numpy.random.seed(0)
    model = L.Classifier(fast.BinaryMLP(784, 50, 10))
    optimizer = chainer.optimizers.Adam().setup(model)
    optimizer.add_hook(WeightClip())
    for epoch, row in enumerate(log_of(tmp_path)):
        losses = []
        for chosen in numpy.random.RandomState((0, epoch)).permutation(600).reshape(-1, 50):
            optimizer.update(model, images[chosen], labels[chosen])
            losses.append(float(model.loss.array))
        assert row['main/loss'] == pytest.approx(numpy.mean(losses), rel=1e-6)
    for name, array in read_npz(str(tmp_path / 'mlp.model')).items():
        if name.split('/')[0] in ('l1', 'bn1', 'l2', 'bn2', 'l3', 'bn3') and not name.endswith(
            ('bits', '/N')
        ):
            link, parameter = name.split('/')
            value = getattr(model.predictor[link], parameter)
            assert numpy.array_equal(chainer.as_array(value), array), name


def test_the_paper_sets_every_option():
    args = train_mnist.parse_arguments(['--recipe', 'paper'])
    assert all(getattr(args, name) != make_parser().get_default(name) for name in PAPER)
    assert (args.unit, args.layer, args.epoch) == (4096, 3, 1000)
    assert (args.alpha, args.final_alpha) == (3e-3, 3e-7)


def test_squared_hinge():
    random = numpy.random.RandomState(0)
    y, t = random.uniform(-2, 2, (7, 4)), random.randint(0, 4, 7)
    y[abs(abs(y) - 1) < 0.05] = 0  # away from the kink
    signs = numpy.where(numpy.arange(4) == t[:, None], 1, -1)
    margin = numpy.maximum(0, 1 - signs * y)
    numpy.testing.assert_allclose(recipe.squared_hinge(y, t).array, (margin**2).mean())
    variable = chainer.Variable(y)
    recipe.squared_hinge(variable, t).backward()
    numpy.testing.assert_allclose(variable.grad, -2 * signs * margin / y.size)
    gradient_check.check_backward(
        lambda y: recipe.squared_hinge(y, t), y, None, dtype=numpy.float64
    )


def test_glorot_scales_the_update_of_each_weight(small_mnist, tmp_path):
    moved = []
    for arguments in [], ['--glorot']:
        trainer = prepared(
            tmp_path / str(len(arguments)), small_mnist, '--clip', 'weights', *arguments
        )
        params = dict(trainer.updater.get_optimizer('main').target.namedparams())
        before = {name: p.array.astype(float) for name, p in params.items()}
        trainer.updater.update()
        moved.append({name: p.array - before[name] for name, p in params.items()})
    for name, plain in moved[0].items():
        # Batch normalization cancels the bias, which has no gradient to speak of.
        if name.endswith('/b'):
            continue
        scale = 1 / numpy.sqrt(1.5 / sum(plain.shape)) if name.endswith('/W') else 1
        inside = abs(plain) > 1e-5  # what moved at all
        # The first step of Adam has length alpha; the median leaves out what the clip cuts short.
        ratio = moved[1][name][inside] / plain[inside]
        assert numpy.median(ratio) == pytest.approx(scale, rel=1e-2), name


@pytest.mark.parametrize('init', ['normal', 'uniform'])
def test_initial_weights_are_those_of_the_peers_in_the_benchmarks(small_mnist, tmp_path, init):
    trainer = prepared(tmp_path, small_mnist, '--init', init)
    found = recipe.weights(trainer.updater.get_optimizer('main').target)
    peers = initial_weights([784, 20, 20, 10], init == 'uniform')
    assert [W.array.tolist() for W in found] == [W.tolist() for W in peers]


@pytest.mark.parametrize('epochs', [1, 4])
def test_decay_from_the_first_epoch_to_the_last(small_mnist, tmp_path, epochs):
    trainer = prepared(
        tmp_path, small_mnist, '--epoch', epochs, '--alpha', 0.01, '--final-alpha', 0.0001
    )
    optimizer = trainer.updater.get_optimizer('main')
    seen = []
    trainer.extend(
        lambda trainer: seen.append(optimizer.alpha),
        name='watch',
        trigger=(1, 'iteration'),
        priority=10**6,
    )
    trainer.run()
    assert len(seen) == 12 * epochs
    for epoch in range(epochs):
        expected = 0.01 * 0.01 ** (epoch / max(1, epochs - 1))
        assert seen[12 * epoch : 12 * epoch + 12] == pytest.approx([expected] * 12)


@pytest.mark.parametrize('Net', [BinaryMLP, QuantizedMLP, FloatMLP])
def test_dropout_is_of_training_only(Net):
    numpy.random.seed(0)
    net = Net(12, 200, 3)
    x = numpy.random.uniform(0, 1, (40, 12)).astype('f')
    with chainer.using_config('train', False):
        plain = net(x).array
        net.dropout_input, net.dropout_hidden = 0.2, 0.5
        assert numpy.array_equal(net(x).array, plain)
    seen = []
    l2 = net.l2.forward
    net.l2.forward = lambda h: seen.append(h.array) or l2(h)
    first, second = net(x).array, net(x).array
    assert not numpy.array_equal(first, second)
    assert (seen[0] == 0).mean() == pytest.approx(0.5, abs=0.03)  # and what stays is doubled
    if Net is BinaryMLP:
        assert set(numpy.unique(seen[0])) == {-2, 0, 2}


def test_initial_weights(small_mnist, tmp_path):
    for init, deviation in ('normal', 1 / numpy.sqrt(784)), ('uniform', 1 / numpy.sqrt(3)):
        trainer = prepared(tmp_path / init, small_mnist, '--init', init)
        W = trainer.updater.get_optimizer('main').target.predictor.l1.W.array
        assert W.std() == pytest.approx(deviation, rel=0.05)
        assert init == 'normal' or abs(W).max() <= 1


def test_signed_pixels():
    numpy.random.seed(0)
    net = BinaryMLP(12, 20, 3)
    x = numpy.random.uniform(0, 1, (40, 12)).astype('f')
    plain = net(2 * x - 1).array
    net.use_signed_pixels()
    assert numpy.array_equal(net(x).array, plain)


@pytest.mark.parametrize('clip', ['all', 'weights'])
def test_clip(small_mnist, tmp_path, clip):
    trainer = prepared(tmp_path, small_mnist, '--clip', clip, '--alpha', 0.1)
    for _ in range(12):
        trainer.updater.update()
    net = trainer.updater.get_optimizer('main').target.predictor
    assert max(abs(net[f'l{i}'].W.array).max() for i in (1, 2, 3)) == 1
    others = max(abs(p.array).max() for name, p in net.namedparams() if not name.endswith('/W'))
    assert others == 1 if clip == 'all' else others > 1


def test_the_epoch_is_chosen_by_images_that_training_never_sees(small_mnist, tmp_path):
    result = small(tmp_path, small_mnist, '--epoch', 4, '--hold-out', 200, '--alpha', 0.02)
    assert result.stderr == ''
    rows = log_of(tmp_path)
    assert rows[0]['iteration'] == 8  # 400 images in minibatches of 50
    # The first of several.
    best = max(rows, key=lambda row: row['validation/main/accuracy'])
    images, labels, test_images, test_labels = read_mnist(str(small_mnist))
    model, _ = load(str(tmp_path / 'mlp.model'), -1)
    held_out = (model.logits(images[400:]).argmax(axis=1) == labels[400:]).mean()
    test = (model.logits(test_images).argmax(axis=1) == test_labels).mean()
    assert held_out == pytest.approx(best['validation/main/accuracy'])
    assert result.stdout.splitlines()[-3] == (
        f'epoch {best["epoch"]}, chosen by the accuracy on the held-out images, {held_out:.4f}: '
        f'test accuracy {test:.4f}'
    )


EVERYTHING = (
    '--dropout-input 0.2 --dropout-hidden 0.3 --loss hinge --alpha 0.003 --final-alpha 1e-4 '
    '--glorot --init uniform --signed-pixels --clip weights --hold-out 100'
).split()


def test_a_resumed_training_is_the_same(small_mnist, tmp_path):
    arguments = ['--epoch', 4, *EVERYTHING]
    whole = small(tmp_path / 'whole', small_mnist, *arguments)
    assert whole.stderr == ''
    trainer = prepared(tmp_path / 'parts', small_mnist, '--unit', 50, *arguments)
    trainer.stop_trigger = chainer.training.triggers.IntervalTrigger(2, 'epoch')  # the power fails
    trainer.run()
    result = small(tmp_path / 'parts', small_mnist, '--resume', *arguments)
    assert result.stderr == ''
    assert result.stdout.splitlines()[-3:] == whole.stdout.splitlines()[-3:]
    assert log_of(tmp_path / 'parts') == log_of(tmp_path / 'whole')
    for name in 'mlp.model', 'mlp.state', 'best.model':
        assert same(tmp_path / 'parts' / name, tmp_path / 'whole' / name)

    for other in (['--alpha', 0.004], ['--epoch', 5]):  # the decay would be another
        result = small(tmp_path / 'parts', small_mnist, '--resume', *arguments, *other)
        assert result.returncode == 2 and result.stderr.count('\n') == 1


def test_the_options_are_printed(small_mnist, tmp_path):
    lines = small(
        tmp_path, small_mnist, '--epoch', 1, '--glorot', '--alpha', 0.002
    ).stdout.splitlines()
    assert lines[5:7] == ['# alpha: 0.002', '# glorot: True']


def test_the_float_net(small_mnist, tmp_path):
    assert small(tmp_path, small_mnist, '--epoch', 3, '--net', 'float').stderr == ''
    arrays = read_npz(str(tmp_path / 'mlp.model'))
    assert arrays['l1/bits'] == arrays['activation_bits'] == 32
    with open(os.path.join(tmp_path, 'log')) as f:
        assert json.load(f)[-1]['validation/main/accuracy'] > 0.7
    net = FloatMLP(12, 20, 3)
    x = numpy.random.uniform(0, 1, (40, 12)).astype('f')
    h = F.clip(net.bn1(F.linear(x, net.l1.W, net.l1.b)), -1.0, 1.0)
    h = F.clip(net.bn2(F.linear(h, net.l2.W, net.l2.b)), -1.0, 1.0)
    numpy.testing.assert_allclose(
        net(x).array, net.bn3(F.linear(h, net.l3.W, net.l3.b)).array, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--alpha', 0], 'argument --alpha: must be a number from 1e-12 to 10'),
        (
            ['--dropout-hidden', 'nan'],
            'argument --dropout-hidden: must be a number from 0 to 0.99',
        ),
        (['--hold-out', 600], '--hold-out 600: there are only 600 training images'),
        (['--hold-out', 580], '--batchsize 50: there are only 20 training images'),
        (['--recipe', 'mine'], 'argument --recipe: invalid choice'),
        (
            ['--net', 'float', '--weight-bits', 2],
            'argument --weight-bits: only for --net quantized; a float net has 32 bits',
        ),
    ],
)
def test_bad_options(small_mnist, tmp_path, arguments, message):
    result = small(tmp_path, small_mnist, *arguments)
    assert result.returncode == 2 and result.stderr.count('\n') == 1
    assert message in result.stderr
