#!/usr/bin/env python3
"""Trains a binary or quantized multilayer perceptron on MNIST: README.md has the results.

./train_mnist.py                       # binary, on the CPU
./train_mnist.py --net quantized       # weights and activations of 4 bits
./train_mnist.py --recipe paper        # as in the paper: 3 x 4096 units, 1000 epochs
./train_mnist.py --gpu 0               # on the first CUDA device
mpiexec -n 2 .venv/bin/python train_mnist.py --communicator naive
"""

import support.begin  # before what takes a second  # noqa: F401

import os
import sys

from chainer_compat import chainer
import chainer.links as L
from chainer.training import extensions
import numpy

import fast
from data import Minibatches
from net import FloatMLP
from pictures.folders import read_data
from support.files import BadFile, save_npz
from support.program import errors_as_one_line, get_device
from training import distributed, recipe, saved
from training.arguments import check_arguments, parse_arguments, print_arguments
from training.report import Evaluator, FailOnNonFinite, Report, print_report
from training.snapshot import Snapshot, claim, how_to_resume, identity
from training.temperature import fit_temperature
from weight_clip import WeightClip


def build(args):
    """Sets up the trainer, but for the state to resume from."""
    # Load the data
    device = get_device(args.gpu)
    train_images, train_labels, test_images, test_labels = read_data(args.data)
    n_in, n_out = train_images[0].size, int(train_labels.max()) + 1
    check_arguments(args, len(train_labels))

    # Set up the net: fast.BinaryMLP is the BinaryMLP of net.py, computed faster
    numpy.random.seed(args.seed)
    sizes = n_in, args.unit, n_out, args.layer
    if args.net == 'binary':
        net = fast.BinaryMLP(*sizes)
    elif args.net == 'quantized':
        net = fast.QuantizedMLP(*sizes, args.weight_bits, args.activation_bits)
    else:
        net = FloatMLP(*sizes)
    recipe.prepare_net(args, net)
    saved.remember_layout(net, train_images, args.transposed)
    if args.initmodel:
        saved.initialize(args.initmodel, net)
    loss = recipe.squared_hinge if args.loss == 'hinge' else fast.softmax_cross_entropy
    model = L.Classifier(net, loss)
    device.use()
    model.to_device(device)

    # Set up the optimizer, and the hook that clips the weights after each update
    optimizer = fast.Adam(alpha=args.alpha)
    optimizer.setup(model)
    if args.clip == 'all':
        optimizer.add_hook(WeightClip())
    else:
        for W in recipe.weights(model):
            W.update_rule.add_hook(WeightClip())

    # Set up the minibatches and the updater
    n_train = len(train_labels) - args.hold_out
    images, labels = device.send(train_images), device.send(train_labels)
    train_iter = Minibatches(images[:n_train], labels[:n_train], args.batchsize, args.seed)
    held_out = images[n_train:], labels[n_train:]
    test_iter = Minibatches(device.send(test_images), device.send(test_labels), 1000)
    updater = chainer.training.updaters.StandardUpdater(
        train_iter, optimizer, converter=lambda minibatch, device: minibatch, device=device
    )

    # Set up the trainer and its extensions
    trainer = chainer.training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(FailOnNonFinite())
    trainer.extend(Evaluator(Minibatches(*held_out, 1000) if args.hold_out else test_iter, model))
    recipe.extend(args, trainer, test_iter)
    trainer.extend(extensions.LogReport(log_name=None))  # Report writes the file
    trainer.extend(Report(net, 'held-out' if args.hold_out else 'test'))
    bar = sys.stdout.isatty() and not args.quiet
    trainer.extend(print_report(bar))
    if bar:
        # A plain function as trigger has no state, so snapshots are the same without the bar.
        trainer.extend(extensions.ProgressBar(update_interval=10), trigger=lambda trainer: True)
    trainer.extend(Snapshot(identity(args, train_images, train_labels), args.overwrite))
    return trainer


def prepare(args, communicator=None):
    """Builds the trainer, and the context manager to run it in, or refuses before it writes."""
    if communicator:
        return distributed.prepare(communicator, args, build)
    trainer = build(args)
    return trainer, claim(args, trainer)[0]


def train(args, trainer, held, communicator=None):
    """Runs the trainer, and saves the net and the optimizer."""
    with held:
        trainer.run(show_loop_exception_msg=False)
        if communicator and communicator.rank:
            return  # the first process saves
        optimizer = trainer.updater.get_optimizer('main')
        net = optimizer.target.predictor
        if args.hold_out:
            accuracy = trainer.get_extension('ChooseEpoch').restore()
            iterator = trainer.get_extension('validation').get_iterator('main')
        else:
            accuracy = trainer.get_extension('LogReport').log[-1]['validation/main/accuracy']
            iterator = trainer.updater.get_iterator('main')
        temperature = fit_temperature(net, iterator.images[:10000], iterator.labels[:10000])
        saved.remember_numbers(net, accuracy=accuracy, temperature=temperature)
        print('save the model')
        save_npz(os.path.join(trainer.out, 'mlp.model'), net)
        print('save the optimizer')
        save_npz(os.path.join(trainer.out, 'mlp.state'), optimizer)
        trainer.get_extension('Report').draw(trainer, accuracy)


def main(argv=None):
    args = parse_arguments(argv)
    with errors_as_one_line(interrupted=lambda: 'interrupted before the training'):
        communicator = distributed.connect(args)
        print_arguments(args)
        trainer, held = prepare(args, communicator)
    errors = OSError, BadFile, MemoryError, FloatingPointError
    with errors_as_one_line(errors, status=1, interrupted=lambda: how_to_resume(trainer)):
        train(args, trainer, held, communicator)


if __name__ == '__main__':
    main()
