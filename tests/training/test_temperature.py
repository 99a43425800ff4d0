"""The temperature: fitted in closed range, saved with the net, and used wherever it answers."""

import chainer
import numpy
import pytest

from data import read_mnist
from helpers import logits_of, small
from inference import load
from support import models
from support.files import read_npz
from training.temperature import fit_temperature


class Identity(chainer.Link):
    """A net whose images are its logits."""

    def __call__(self, x):
        return chainer.Variable(x)


def fit(y, t, xp=numpy):
    net = Identity()
    net.to_device(chainer.backend.get_device_from_array(xp.zeros(1)))
    return fit_temperature(net, xp.asarray(y, 'f'), xp.asarray(t, 'i'))


def loss(y, t, T):
    """The negative log likelihood, without a term of T = infinity."""
    p = numpy.exp(y / T - (y / T).max(axis=1, keepdims=True))
    return -numpy.log(p[numpy.arange(len(y)), t] / p.sum(axis=1)).mean()


@pytest.mark.parametrize('T', [0.3, 1, 5])
def test_it_is_found_where_the_classes_were_drawn_with_it(T, xp):
    random = numpy.random.RandomState(0)
    y = random.normal(0, 3 * T, (30000, 10))
    t = (y / T + random.gumbel(size=y.shape)).argmax(axis=1)  # of probability softmax(y / T)
    found = fit(y + random.normal(0, 100, (30000, 1)), t, xp)
    assert found == pytest.approx(T, rel=0.03)
    assert loss(y, t, found) < min(loss(y, t, found * 1.01), loss(y, t, found / 1.01))


def test_what_has_no_best_temperature_gets_one_within_the_limits():
    y, t = numpy.eye(4) * 9, numpy.arange(4)
    low, high = models.TEMPERATURES
    assert fit(y, t[::-1]) == pytest.approx(high, rel=1e-5)
    for y in y, numpy.zeros((3, 4)), numpy.full((3, 4), 3e38), numpy.eye(4) * 1e-3:
        for labels in t[: len(y)], t[::-1][: len(y)]:
            assert low <= numpy.float32(fit(y, labels)) <= high


@pytest.mark.parametrize('n', [1, 10, 1000])
def test_right_answers_alone_do_not_make_it_certain(n):
    T = fit(numpy.tile([9.0, 0, 0], (n, 1)), [0] * n)
    found = loss(numpy.array([[9.0, 0, 0]]), 0, T)
    assert found == pytest.approx(numpy.log((n + 2) / (n + 1)), rel=1e-4)


@pytest.mark.parametrize('options', [[], ['--hold-out', 200, '--loss', 'hinge']])
def test_a_training_fits_it(options, small_mnist, tmp_path):
    """To the held-out images where there are some, once the net of the best epoch is back."""
    result = small(tmp_path, small_mnist, '--epoch', 3, '--alpha', 0.02, *options)
    assert (result.returncode, result.stderr) == (0, '')
    path = str(tmp_path / 'mlp.model')
    saved = models.SavedNet(read_npz(path))
    images, labels, test_images, test_labels = read_mnist(str(small_mnist))
    chosen = slice(400, None) if options else slice(None)
    y, t = logits_of(models.load(path, saved), images[chosen]), labels[chosen]
    losses = [loss(y, t, saved.temperature * factor) for factor in (0.98, 1, 1.02)]
    assert losses[1] == min(losses)
    y = logits_of(models.load(path, saved), test_images)
    numpy.testing.assert_allclose(
        load(path, -1)[0].logits(test_images) * saved.temperature, y, 1e-5
    )
    assert saved.arrays['accuracy'] == numpy.float32((y.argmax(axis=1) == test_labels).mean())
