"""What the paper's recipe adds to the training: each part is an option of its own.

Source: Courbariaux et al., BinaryNet, arXiv:1602.02830, and the authors' code for MNIST.
"""

import math
import os

from chainer_compat import chainer
import chainer.functions as F
import chainer.links as L
from chainer.training import extensions, triggers
import numpy

from support.files import save_npz
from training.report import Evaluator


def squared_hinge(y, t):
    """Squared hinge loss.

    With :math:`t_{nc}` = +1 for the class of example n and -1 for the others,

    .. math:: L = \\frac{1}{N C} \\sum_{n, c} \\max(0, 1 - t_{nc} y_{nc})^2

    Args:
        y (:class:`~chainer.Variable` or array): Outputs, a float array of shape (N, C).
        t (:class:`~chainer.Variable` or array): Classes, an int array of shape (N,).

    Returns:
        ~chainer.Variable: The loss, of shape ().
    """
    return F.hinge(y, t, norm='L2') / y.shape[1]


def weights(chain):
    """The weights W of all linear layers."""
    return [link.W for link in chain.links() if isinstance(link, L.Linear)]


def prepare_net(args, net):
    """Sets initial weights, dropout and the range of the pixels as the options say."""
    net.dropout_input, net.dropout_hidden = args.dropout_input, args.dropout_hidden
    if args.signed_pixels:
        net.use_signed_pixels()
    if args.init == 'uniform':
        for W in weights(net):
            W.array[...] = numpy.random.uniform(-1, 1, W.shape)


def extend(args, trainer, test_iter):
    """Adds the learning rates, the dropout seeds and the choice of the best epoch."""
    model = trainer.updater.get_optimizer('main').target
    if args.glorot:
        for W in weights(model):
            W.update_rule.hyperparam.eta = 1 / math.sqrt(1.5 / sum(W.shape))
    if args.final_alpha is not None:
        rate = (args.final_alpha / args.alpha) ** (1 / max(1, args.epoch - 1))
        shift = extensions.ExponentialShift('alpha', rate, init=args.alpha)
        trainer.extend(shift, trigger=(1, 'epoch'))
    if args.dropout_input or args.dropout_hidden:
        trainer.extend(Seed(args.seed))
    if args.hold_out:
        best = triggers.MaxValueTrigger('validation/main/accuracy')
        trainer.extend(ChooseEpoch(test_iter, model), trigger=best)


class Seed(chainer.training.Extension):
    """Trainer extension that seeds dropout by the seed of the training and the epoch.

    So a resumed training drops what it would have dropped without the interruption.

    Args:
        seed (int): The seed of the training.
    """

    trigger = 1, 'epoch'

    def __init__(self, seed):
        self.seed = seed

    def initialize(self, trainer):
        xp = trainer.updater.get_optimizer('main').target.xp
        epoch = trainer.updater.epoch
        if xp is numpy:
            numpy.random.seed((self.seed % 2**32, epoch))
        else:
            xp.random.seed((self.seed * 1000003 + epoch) % 2**32)

    __call__ = initialize


class ChooseEpoch(chainer.training.Extension):
    """Trainer extension that keeps the net of the epoch with the best accuracy on held-out images.

    Snapshots contain that net. The file ``best.model`` is written for the user alone.

    Args:
        test_iter: Iterator over the test images.
        model (~chainer.links.Classifier): The net and its loss.
    """

    written = False

    def __init__(self, test_iter, model):
        self.test_iter, self.model = test_iter, model
        self.epoch, self.accuracy = 0, 0.0
        self.best = model.predictor.copy(mode='copy')

    def __call__(self, trainer):
        self.epoch = trainer.updater.epoch
        self.accuracy = float(trainer.observation['validation/main/accuracy'])
        self.best.copyparams(self.model.predictor)

    def write(self, trainer):
        if self.epoch == trainer.updater.epoch or not self.written:  # it has changed, or may have
            save_npz(os.path.join(trainer.out, 'best.model'), self.best)
            self.written = True

    def restore(self):
        """Gives the net the parameters of the best epoch, and evaluates it on the test images.

        Returns:
            float: The accuracy on the test images.
        """
        self.model.predictor.copyparams(self.best)
        accuracy = Evaluator(self.test_iter, self.model)()['main/accuracy']
        print(
            f'epoch {self.epoch}, chosen by the accuracy on the held-out images, '
            f'{self.accuracy:.4f}: test accuracy {accuracy:.4f}'
        )
        return accuracy

    def serialize(self, serializer):
        self.epoch = serializer('epoch', self.epoch)
        self.accuracy = serializer('accuracy', self.accuracy)
        self.best.serialize(serializer['best'])
