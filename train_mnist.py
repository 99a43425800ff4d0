#!/usr/bin/env python3
"""Trains a binary or a quantized multilayer perceptron on MNIST.

    ./train_mnist.py                       # binary, on the CPU
    ./train_mnist.py --net quantized       # weights and activations of 4 bits
    ./train_mnist.py --recipe paper        # as in the paper: 3 x 4096 units, 1000 epochs
    ./train_mnist.py --gpu 0               # on the first CUDA device

The results of these commands, with the seeds and the logs behind them, are in README.md.
"""
import argparse
import os
import sys
import zlib

import chainer_compat  # noqa: F401  (before Chainer)
import chainer
import chainer.links as L
from chainer import training
from chainer.training import extensions
import numpy

import compiled
import recipe
from adam import Adam
from data import Minibatches, read_mnist
from net import BinaryMLP, FloatMLP, QuantizedMLP, describe
from program import MNIST, Parser, get_device, number, real, stop
from report import COLUMNS, Evaluator, FailOnNonFinite, Graph, Report
from snapshot import Snapshot, resume, resume_newest, snapshots
from storage import BadFile, lock, read_npz, restore, save_npz


def parse_arguments(argv):
    parser = Parser(description='Trains a binary, quantized or float multilayer perceptron on MNIST.',
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    parser.add_argument('--net', choices=('binary', 'quantized', 'float'), default='binary', help='kind of net')
    parser.add_argument('--weight-bits', type=number(1, 8), metavar='K', default=argparse.SUPPRESS,
                        help='bits of the weights of a quantized net (default: 4)')
    parser.add_argument('--activation-bits', type=number(1, 8), metavar='K', default=argparse.SUPPRESS,
                        help='bits of the activations of a quantized net (default: 4)')
    parser.add_argument('--gpu', '-g', type=number(-1, 999), metavar='ID', default=-1,
                        help='CUDA device, -1 for the CPU')
    parser.add_argument('--batchsize', '-b', type=number(1, 10 ** 6), metavar='N', default=100,
                        help='images in a minibatch')
    parser.add_argument('--epoch', '-e', type=number(1, 10 ** 6), metavar='N', default=20,
                        help='sweeps over the training images')
    parser.add_argument('--unit', '-u', type=number(1, 10 ** 6), metavar='N', default=1000,
                        help='units of a hidden layer')
    parser.add_argument('--layer', '-l', type=number(1, 1000), metavar='N', default=2,
                        help='hidden layers')
    parser.add_argument('--seed', type=number(0, 2 ** 32 - 1), metavar='N', default=0,
                        help='seed of the initial weights and of the order of the images')
    parser.add_argument('--data', metavar='DIR', default=MNIST,
                        help='folder with the four files of MNIST, or of a data set in its format')
    parser.add_argument('--out', '-o', metavar='DIR', default='result', help='folder for the results')
    parser.add_argument('--initmodel', '-m', metavar='FILE',
                        help='saved model whose parameters to start from')
    parser.add_argument('--resume', '-r', metavar='FILE', nargs='?', const='auto',
                        help='snapshot to go on from; without FILE (or with "auto"), the newest in --out')
    parser.add_argument('--recipe', choices=('paper',), default=argparse.SUPPRESS,
                        help='set the options as in the paper; those given as well stay as given')
    recipe.add_arguments(parser, real, number)
    parser.add_argument('--quiet', action='store_true', help='no progress bar')
    args = parser.parse_args(argv)
    if 'recipe' in args:
        parser.set_defaults(**recipe.PAPER)
        args = parser.parse_args(argv)

    bits = [name for name in ('weight_bits', 'activation_bits') if name in args]
    fixed = {'binary': 1, 'float': 32}.get(args.net)
    if fixed and bits:
        parser.error(f'argument --{bits[0].replace("_", "-")}: is for --net quantized; a {args.net} net has '
                     f'{"one bit" if fixed == 1 else "32 bits"}')
    for name in 'weight_bits', 'activation_bits':
        vars(args).setdefault(name, fixed or 4)
    if args.initmodel and args.resume not in (None, 'auto'):
        parser.error('argument --initmodel: a resumed training has its parameters from the snapshot; '
                     'give --initmodel or --resume')
    return args


def build_net(args, n_in, n_out):
    if args.net == 'binary':
        return BinaryMLP(n_in, args.unit, n_out, args.layer)
    if args.net == 'float':
        return FloatMLP(n_in, args.unit, n_out, args.layer)
    return QuantizedMLP(n_in, args.unit, n_out, args.layer, args.weight_bits, args.activation_bits)


def check_memory(args, n_in, n_out):
    """Refuses a net whose weights, gradients and two moments would not fit into the memory."""
    sizes = [n_in] + [args.unit] * args.layer + [n_out]
    need = 4 * 4 * sum(a * b for a, b in zip(sizes, sizes[1:]))
    have = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if need > have:
        raise ValueError(f'--unit {args.unit} --layer {args.layer}: training would take {need / 1e9:.0f} GB, '
                         f'and this machine has {have / 1e9:.0f}')


def load_model(path, net):
    """Gives the net the parameters of a saved model.

    Raises:
        ValueError: If the file is damaged or holds another net; the message says which.
        OSError: If the file cannot be opened.
    """
    arrays = read_npz(path)
    ours = net.describe()
    try:
        theirs = describe(arrays)
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    if theirs != ours:
        raise ValueError(f'{path}: holds {theirs}, and this training is of {ours}')
    restore(path, arrays, net)


class Plain:
    """Standard output without the terminal control that PrintReport writes."""

    def write(self, text):
        if text != '\033[J':
            sys.stdout.write(text)

    def flush(self):
        sys.stdout.flush()


def prepare(args):
    """Everything that can be refused, before anything is written: the trainer, ready to run."""
    device = get_device(args.gpu)
    train_images, train_labels, test_images, test_labels = read_mnist(args.data)
    n_train = len(train_labels) - args.hold_out
    if n_train < 1:
        raise ValueError(f'--hold-out {args.hold_out}: there are {len(train_labels)} training images')
    if args.batchsize > n_train:
        raise ValueError(f'--batchsize {args.batchsize}: there are {n_train} training images')
    n_in, n_out = train_images[0].size, int(train_labels.max()) + 1
    check_memory(args, n_in, n_out)
    run = {f'--{name.replace("_", "-")}': vars(args)[name] for name in (
        'net', 'weight_bits', 'activation_bits', 'batchsize', 'unit', 'layer', 'seed')}
    run.update((f'--{name}', value) for name, value in recipe.used(args).items())
    if args.final_alpha is not None:
        run['--epoch'] = args.epoch  # the decay depends on it
    run['--data with check sum'] = zlib.crc32(train_labels, zlib.crc32(train_images))

    numpy.random.seed(args.seed)
    net = build_net(args, n_in, n_out)
    recipe.prepare_net(args, net)
    if args.initmodel:
        load_model(args.initmodel, net)
    model = L.Classifier(net, *[recipe.squared_hinge] if args.loss == 'hinge' else [])
    device.use()
    model.to_device(device)
    optimizer = Adam(alpha=args.alpha)
    optimizer.setup(model)
    recipe.prepare_optimizer(args, optimizer)

    train_images, train_labels = device.send(train_images), device.send(train_labels)
    train_iter = Minibatches(train_images[:n_train], train_labels[:n_train], args.batchsize, args.seed)
    test_iter = Minibatches(device.send(test_images), device.send(test_labels), 1000)
    validation_iter = Minibatches(train_images[n_train:], train_labels[n_train:], 1000) if args.hold_out else test_iter
    updater = training.updaters.StandardUpdater(
        train_iter, optimizer, converter=lambda batch, device: batch, device=device)
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(FailOnNonFinite())
    trainer.extend(Evaluator(validation_iter, model))
    recipe.extend(args, trainer, test_iter)
    trainer.extend(Graph())
    trainer.extend(extensions.LogReport(log_name=None))  # Report writes the file
    trainer.extend(Report(net))
    trainer.extend(extensions.PrintReport(COLUMNS, out=sys.stdout if sys.stdout.isatty() else Plain()))
    if sys.stdout.isatty() and not args.quiet:
        # A plain function for a trigger has no state, so that a snapshot is the same without the bar.
        trainer.extend(extensions.ProgressBar(update_interval=10), trigger=lambda trainer: True)
    trainer.extend(Snapshot(run))

    if args.resume not in (None, 'auto'):
        resume(args.resume, trainer)
    trainer.lock = lock(args.out)  # from here on something is written
    if args.resume == 'auto':
        resume_newest(trainer)
    return trainer


def train(trainer):
    """Runs the trainer and saves what it trained."""
    trainer.run(show_loop_exception_msg=False)
    trainer.get_extension('Report').draw(trainer)
    optimizer = trainer.updater.get_optimizer('main')
    recipe.finish(trainer)
    print('save the model')
    save_npz(os.path.join(trainer.out, 'mlp.model'), optimizer.target.predictor)
    print('save the optimizer')
    save_npz(os.path.join(trainer.out, 'mlp.state'), optimizer)


def main(argv=None):
    args = parse_arguments(argv)
    try:
        print(f'GPU: {args.gpu}')
        print(f'# net: {args.net}' if args.net != 'quantized' else
              f'# net: quantized, W {args.weight_bits} bits, activations {args.activation_bits} bits')
        print(f'# unit: {args.unit}')
        print(f'# Minibatch-size: {args.batchsize}')
        print(f'# epoch: {args.epoch}')
        for name, value in recipe.used(args).items():
            print(f'# {name}: {value}')
        if args.gpu < 0 and compiled.missing:
            print(f'# computed by NumPy, slower than by Numba, which cannot be imported: {compiled.missing}')
        print()
        print(f'load {"MNIST dataset" if args.data == MNIST else args.data}', flush=True)
        trainer = prepare(args)
    except (OSError, ValueError, MemoryError) as e:
        stop(2, e)
    except KeyboardInterrupt:
        stop(130, 'interrupted before the training')

    try:
        with numpy.errstate(all='ignore'):  # a loss that is not finite is reported once, as an error
            train(trainer)
    except (OSError, BadFile, MemoryError, FloatingPointError) as e:
        stop(1, e)
    except KeyboardInterrupt:
        newest = snapshots(args.out)[:1]
        stop(130, f'interrupted in epoch {trainer.updater.epoch + 1}; ' + (
            f'to go on, give the same command with --resume {newest[0]}' if newest else
            'there is no snapshot yet to resume from'))


if __name__ == '__main__':
    main()
