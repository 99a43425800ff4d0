"""What the paper's recipe for MNIST has beyond the defaults: each an option of its own, and all of them at once.

Source: Courbariaux et al., BinaryNet, arXiv:1602.02830, and its code for MNIST.
"""
import math
import os

import chainer_compat  # noqa: F401  (before Chainer)
import chainer
import chainer.functions as F
import chainer.links as L
from chainer.training import extensions, triggers
import numpy

from report import Evaluator
from storage import read_npz, restore, save_npz
from weight_clip import WeightClip

# What --recipe paper sets.
PAPER = {'layer': 3, 'unit': 4096, 'epoch': 1000, 'dropout_input': 0.2, 'dropout_hidden': 0.5, 'loss': 'hinge',
         'alpha': 3e-3, 'final_alpha': 3e-7, 'glorot': True, 'init': 'uniform', 'signed_pixels': True,
         'clip': 'weights', 'hold_out': 10000}

DEFAULTS = {'dropout_input': 0.0, 'dropout_hidden': 0.0, 'loss': 'softmax', 'alpha': 0.001, 'final_alpha': None,
            'glorot': False, 'init': 'normal', 'signed_pixels': False, 'clip': 'all', 'hold_out': 0}


def add_arguments(parser, real, number):
    """Adds the options; ``real`` and ``number`` make argument types of a range."""
    parser.add_argument('--dropout-input', type=real(0, 0.99), metavar='R',
                        help='share of the pixels that a training step leaves out')
    parser.add_argument('--dropout-hidden', type=real(0, 0.99), metavar='R',
                        help='share of the hidden activations that a training step leaves out')
    parser.add_argument('--loss', choices=('softmax', 'hinge'),
                        help='softmax cross entropy or squared hinge loss')
    parser.add_argument('--alpha', type=real(1e-12, 10), metavar='A', help='learning rate of Adam')
    parser.add_argument('--final-alpha', type=real(1e-12, 10), metavar='A',
                        help='learning rate of the last epoch; it decays exponentially to it')
    parser.add_argument('--glorot', action='store_true',
                        help='scale the updates of W by 1 / sqrt(1.5 / (inputs + outputs))')
    parser.add_argument('--init', choices=('normal', 'uniform'),
                        help='initial W: normal with deviation sqrt(1 / inputs), or uniform in [-1, 1]')
    parser.add_argument('--signed-pixels', action='store_true', help='pixels in [-1, 1] in place of [0, 1]')
    parser.add_argument('--clip', choices=('all', 'weights'),
                        help='what is clipped to [-1, 1]: all parameters, or W alone')
    parser.add_argument('--hold-out', type=number(0, 10 ** 9), metavar='N',
                        help='hold out the last N training images to choose the epoch by; the test images are '
                             'used once, at the end')
    parser.set_defaults(**DEFAULTS)


def used(args):
    """The options that are not as they are by default, by name."""
    return {name.replace('_', '-'): vars(args)[name] for name in DEFAULTS if vars(args)[name] != DEFAULTS[name]}


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


def glorot_scale(W):
    """What the updates of a weight of shape (M, K) are scaled by: :math:`1 / \\sqrt{1.5 / (K + M)}`."""
    return 1 / math.sqrt(1.5 / sum(W.shape))


def prepare_net(args, net):
    """Initial weights, dropout and range of the pixels, as the options say."""
    net.dropout_input, net.dropout_hidden = args.dropout_input, args.dropout_hidden
    if args.signed_pixels:
        net.use_signed_pixels()
    if args.init == 'uniform':
        for link in net.links():
            if isinstance(link, L.Linear):
                link.W.array[...] = numpy.random.uniform(-1, 1, link.W.shape)


def prepare_optimizer(args, optimizer):
    """Clip and scale, as the options say, of an optimizer that is set up."""
    weights = [link.W for link in optimizer.target.links() if isinstance(link, L.Linear)]
    for param in optimizer.target.params() if args.clip == 'all' else weights:
        param.update_rule.add_hook(WeightClip())  # to each rule, where Adam clips on the way
    if args.glorot:
        for W in weights:
            W.update_rule.hyperparam.eta = glorot_scale(W)


def extend(args, trainer, test_iter):
    """Decay, seeds and choice of the epoch, as the options say."""
    if args.final_alpha is not None:
        rate = (args.final_alpha / args.alpha) ** (1 / max(1, args.epoch - 1))
        trainer.extend(extensions.ExponentialShift('alpha', rate, init=args.alpha), trigger=(1, 'epoch'))
    if args.dropout_input or args.dropout_hidden:
        trainer.extend(Seed(args.seed))
    if args.hold_out:
        trainer.extend(ChooseEpoch(test_iter), trigger=triggers.MaxValueTrigger('validation/main/accuracy'))


def finish(trainer):
    """Goes back to the epoch that was chosen, if one was to be."""
    try:
        chosen = trainer.get_extension('ChooseEpoch')
    except ValueError:
        return
    chosen.finish(trainer)


class Seed(chainer.training.Extension):
    """Trainer extension that makes what dropout leaves out a function of the seed and the epoch's number.

    So a resumed training leaves out what it would have left out without the interruption.

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
            numpy.random.seed((self.seed, epoch))
        else:
            xp.random.seed((self.seed * 1000003 + epoch) % 2 ** 32)

    __call__ = initialize


class ChooseEpoch(chainer.training.Extension):
    """Trainer extension that keeps the net of the epoch with the best accuracy on the images held out.

    ``finish`` gives the net back the parameters of that epoch, and evaluates it on the test images: once.

    Args:
        test_iter: Iterator over the test images.
    """
    name = 'ChooseEpoch'
    priority = chainer.training.PRIORITY_READER

    def __init__(self, test_iter):
        self.test_iter = test_iter
        self.epoch, self.accuracy = 0, 0.0

    def __call__(self, trainer):
        self.epoch = trainer.updater.epoch
        self.accuracy = float(trainer.observation['validation/main/accuracy'])
        save_npz(self.path(trainer), trainer.updater.get_optimizer('main').target.predictor)

    @staticmethod
    def path(trainer):
        return os.path.join(trainer.out, 'best.model')

    def finish(self, trainer):
        path = self.path(trainer)
        model = trainer.updater.get_optimizer('main').target
        restore(path, read_npz(path), model.predictor)
        accuracy = Evaluator(self.test_iter, model)()['main/accuracy']
        print(f'epoch {self.epoch}, chosen by the accuracy on the images held out, {self.accuracy:.4f}: '
              f'test accuracy {accuracy:.4f}')

    def serialize(self, serializer):
        self.epoch = serializer('epoch', self.epoch)
        self.accuracy = serializer('accuracy', self.accuracy)
