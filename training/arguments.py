"""The options of train_mnist.py: their defaults, the paper's values, and checks."""

import argparse
import glob
import os

import fast
from data import MNIST
from support.program import Parser, number, path
from training.report import why_no_pictures

# What --recipe paper sets. Source: Courbariaux et al., BinaryNet, arXiv:1602.02830, section 2.1,
# and the authors' code for MNIST.
PAPER = {
    'layer': 3,
    'unit': 4096,
    'epoch': 1000,
    'dropout_input': 0.2,
    'dropout_hidden': 0.5,
    'loss': 'hinge',
    'alpha': 3e-3,
    'final_alpha': 3e-7,
    'glorot': True,
    'init': 'uniform',
    'signed_pixels': True,
    'clip': 'weights',
    'hold_out': 10000,
}


def make_parser():
    """Makes the parser, which alone knows the defaults."""
    parser = Parser(
        description='Trains a binary, quantized or float multilayer perceptron on MNIST.',
        allow_abbrev=False,
    )
    many = {'type': number(1, 10**6), 'metavar': 'N'}
    bits = {'type': number(1, 8), 'metavar': 'K', 'default': 4}
    device = {'type': number(-1, 999), 'metavar': 'ID', 'default': -1}
    seed = {'type': number(0, 2**32 - 1), 'metavar': 'N', 'default': 0}
    images = {'type': number(0, 10**9), 'metavar': 'N', 'default': 0}
    ratio = {'type': number(0, 0.99, float), 'metavar': 'R', 'default': 0.0}
    rate = {'type': number(1e-12, 10, float), 'metavar': 'A'}
    folder, file = {'type': path, 'metavar': 'DIR'}, {'type': path, 'metavar': 'FILE'}
    flag = {'action': 'store_true'}
    connections = 'naive', 'flat', 'non_cuda_aware', 'pure_nccl'

    add = parser.add_argument
    add('--net', choices=('binary', 'quantized', 'float'), default='binary', help='kind of net')
    add('--weight-bits', **bits, help='bits of the weights of a quantized net')
    add('--activation-bits', **bits, help='bits of the activations of a quantized net')
    add('--gpu', '-g', **device, help='CUDA device, -1 for the CPU')
    add('--batchsize', '-b', **many, default=100, help='images in a minibatch')
    add('--epoch', '-e', **many, default=20, help='sweeps over the training images')
    add('--unit', '-u', **many, default=1000, help='units of a hidden layer')
    add('--layer', '-l', type=number(1, 1000), metavar='N', default=2, help='hidden layers')
    add('--seed', **seed, help='seed of the initial weights, the order of the images and dropout')
    data = 'folder with a data set: IDX files, or pictures by class (default: MNIST)'
    add('--data', **folder, default=MNIST, help=data)
    add('--transposed', **flag, help="the images are transposed, as EMNIST's are")
    add('--out', '-o', **folder, default='result', help='folder for the results')
    add('--initmodel', '-m', **file, help='saved model whose parameters to start from')
    newest = 'snapshot to resume from; without FILE (or with "auto"), the newest in --out'
    add('--resume', '-r', **file, nargs='?', const='auto', help=newest)
    add('--overwrite', **flag, help='replace an earlier training in --out, else refused')
    add('--quiet', **flag, help='no progress bar')
    several = 'train on all processes that mpiexec starts, connected by this part of ChainerMN'
    add('--communicator', choices=connections, help=several)

    add = parser.add_argument_group("the paper's recipe").add_argument
    add('--recipe', choices=('paper',), help='the options of the paper, unless given explicitly')
    add('--dropout-input', **ratio, help='dropout ratio of the pixels')
    add('--dropout-hidden', **ratio, help='dropout ratio of the hidden activations')
    losses = 'softmax cross entropy or squared hinge loss'
    add('--loss', choices=('softmax', 'hinge'), default='softmax', help=losses)
    add('--alpha', **rate, default=0.001, help='learning rate of Adam')
    add('--final-alpha', **rate, help='decay the learning rate to this in the last epoch')
    add('--glorot', **flag, help='scale the updates of W by 1 / sqrt(1.5 / (inputs + outputs))')
    initial = 'initial W: normal with deviation sqrt(1 / inputs), or uniform in [-1, 1]'
    add('--init', choices=('normal', 'uniform'), default='normal', help=initial)
    add('--signed-pixels', **flag, help='pixels in [-1, 1) instead of [0, 1)')
    clipped = 'what is clipped to [-1, 1]: all parameters, or W alone'
    add('--clip', choices=('all', 'weights'), default='all', help=clipped)
    add('--hold-out', **images, help='hold out the last N training images to choose the epoch')

    for action in parser._actions:  # the default, unless the help has it in words
        if not (action.nargs == 0 or action.default is None or '(default' in action.help):
            action.help += ' (default: %(default)s)'
    return parser


def parse_arguments(argv=None):
    """Parses the options of train_mnist.py.

    Args:
        argv (list of str or None): The options; by default those of the command line.

    Returns:
        argparse.Namespace: All options, with ``weight_bits`` and ``activation_bits`` for every
        net.
    """
    parser = make_parser()
    if parser.parse_args(argv).recipe:
        parser.set_defaults(**PAPER)
    # The parser sets no default of what its namespace has.
    args = parser.parse_args(argv, argparse.Namespace(weight_bits=None, activation_bits=None))
    for name in 'weight_bits', 'activation_bits':
        bits = {'binary': 1, 'float': 32}.get(args.net, parser.get_default(name))
        if getattr(args, name) is None:
            setattr(args, name, bits)
        elif args.net != 'quantized':
            parser.error(
                f'argument {option(name)}: only for --net quantized; a {args.net} net '
                f'has {bits} bit{"s" if bits > 1 else ""}'
            )
    return args


def option(name):
    """The option with that name in the arguments: ``--final-alpha`` for ``final_alpha``."""
    return '--' + name.replace('_', '-')


def options(args):
    """All options with their values."""
    return {option(name): value for name, value in vars(args).items()}


def print_arguments(args):
    """Prints the head of a training's output."""
    print(f'GPU: {args.gpu}')
    bits = f', W {args.weight_bits} bits, activations {args.activation_bits} bits'
    print(f'# net: {args.net}{bits if args.net == "quantized" else ""}')
    print(f'# unit: {args.unit}')
    print(f'# Minibatch-size: {args.batchsize}')
    print(f'# epoch: {args.epoch}')
    default = make_parser().get_default
    for name in PAPER:
        value = getattr(args, name)
        if value != default(name) and name not in ('layer', 'unit', 'epoch'):
            print(f'# {option(name)[2:]}: {value}')
    if args.gpu < 0 and fast.missing:
        print(f'# Numba is unavailable, so NumPy computes, slower: {fast.missing}')
    elif args.gpu < 0:
        print(f'# kernels: {fast.describe()}')
    problem = why_no_pictures()
    if problem:
        print(f'# no pictures will be drawn: Matplotlib cannot be imported: {problem}')
    print()
    print(f'load {"MNIST dataset" if args.data == MNIST else args.data}', flush=True)
    if glob.glob(os.path.join(glob.escape(args.data), 'emnist*')) and not args.transposed:
        print(
            '# the images of EMNIST are transposed: give --transposed, or pictures will be misread'
        )


def check_arguments(args, n_images):
    """Refuses options that do not suit the data.

    Args:
        args (argparse.Namespace): The options.
        n_images (int): Number of training images, including those to hold out.

    Raises:
        ValueError: If too few images remain for training.
    """
    n_train = n_images - args.hold_out
    if n_train < 1:
        raise ValueError(f'--hold-out {args.hold_out}: there are only {n_images} training images')
    if args.batchsize == 1:
        raise ValueError('--batchsize 1: batch normalization needs at least 2 images')
    if args.batchsize > n_train:
        raise ValueError(f'--batchsize {args.batchsize}: there are only {n_train} training images')
