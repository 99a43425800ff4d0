"""The options of train_mnist.py: table, defaults, the paper's values, and checks."""

import argparse
import glob
import os

import fast
from support import memory
from support.program import MNIST, Parser, is_first, number, real
from training.report import why_no_pictures

DEFAULTS = {
    'net': 'binary',
    'gpu': -1,
    'batchsize': 100,
    'epoch': 20,
    'unit': 1000,
    'layer': 2,
    'seed': 0,
    'data': MNIST,
    'transposed': False,
    'out': 'result',
    'initmodel': None,
    'resume': None,
    'overwrite': False,
    'quiet': False,
    'communicator': None,
}

RECIPE_DEFAULTS = {
    'dropout_input': 0.0,
    'dropout_hidden': 0.0,
    'loss': 'softmax',
    'alpha': 0.001,
    'final_alpha': None,
    'glorot': False,
    'init': 'normal',
    'signed_pixels': False,
    'clip': 'all',
    'hold_out': 0,
}

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


class _HelpFormatter(argparse.HelpFormatter):
    """Shows the defaults, which are not the parser's own: it must know what was given."""

    def _get_help_string(self, action):
        default = {**DEFAULTS, **RECIPE_DEFAULTS}.get(action.dest)
        return f'{action.help} (default: {default})' if default else action.help


def _parser():
    parser = Parser(
        description='Trains a binary, quantized or float multilayer perceptron on MNIST.',
        argument_default=argparse.SUPPRESS,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--net', choices=('binary', 'quantized', 'float'), help='kind of net')
    add(
        '--weight-bits',
        type=number(1, 8),
        metavar='K',
        help='bits of the weights of a quantized net (default: 4)',
    )
    add(
        '--activation-bits',
        type=number(1, 8),
        metavar='K',
        help='bits of the activations of a quantized net (default: 4)',
    )
    add('--gpu', '-g', type=number(-1, 999), metavar='ID', help='CUDA device, -1 for the CPU')
    add('--batchsize', '-b', type=number(1, 10**6), metavar='N', help='images in a minibatch')
    add(
        '--epoch', '-e', type=number(1, 10**6), metavar='N', help='sweeps over the training images'
    )
    add('--unit', '-u', type=number(1, 10**6), metavar='N', help='units of a hidden layer')
    add('--layer', '-l', type=number(1, 1000), metavar='N', help='hidden layers')
    add(
        '--seed',
        type=number(0, 2**32 - 1),
        metavar='N',
        help='seed of the initial weights and of the order of the images (default: 0)',
    )
    add(
        '--data',
        metavar='DIR',
        help='folder with the four files of MNIST, or of a data set in its format',
    )
    add(
        '--transposed',
        action='store_true',
        help='the images are transposed, as those of EMNIST are; inference.py will heed it',
    )
    add('--out', '-o', metavar='DIR', help='folder for the results')
    add('--initmodel', '-m', metavar='FILE', help='saved model whose parameters to start from')
    add(
        '--resume',
        '-r',
        metavar='FILE',
        nargs='?',
        const='auto',
        help='snapshot to resume from; without FILE (or with "auto"), the newest in --out',
    )
    add(
        '--overwrite',
        action='store_true',
        help='replace an earlier training in --out, which is refused otherwise',
    )
    add('--quiet', action='store_true', help='no progress bar')
    add(
        '--communicator',
        choices=('naive', 'flat', 'non_cuda_aware', 'pure_nccl'),
        help='train on all processes that mpiexec starts, connected by this of ChainerMN',
    )

    recipe = parser.add_argument_group("the paper's recipe")
    add = recipe.add_argument
    add(
        '--recipe',
        choices=('paper',),
        help='use the options of the paper; options that are given, too, take precedence',
    )
    add(
        '--dropout-input',
        type=real(0, 0.99),
        metavar='R',
        help='dropout ratio of the pixels (default: 0)',
    )
    add(
        '--dropout-hidden',
        type=real(0, 0.99),
        metavar='R',
        help='dropout ratio of the hidden activations (default: 0)',
    )
    add(
        '--loss',
        choices=('softmax', 'hinge'),
        help='softmax cross entropy or squared hinge loss',
    )
    add('--alpha', type=real(1e-12, 10), metavar='A', help='learning rate of Adam')
    add(
        '--final-alpha',
        type=real(1e-12, 10),
        metavar='A',
        help='decay the learning rate exponentially to this in the last epoch',
    )
    add(
        '--glorot',
        action='store_true',
        help='scale the updates of W by 1 / sqrt(1.5 / (inputs + outputs))',
    )
    add(
        '--init',
        choices=('normal', 'uniform'),
        help='initial W: normal with standard deviation sqrt(1 / inputs), or uniform in [-1, 1]',
    )
    add('--signed-pixels', action='store_true', help='pixels in [-1, 1) instead of [0, 1)')
    add(
        '--clip',
        choices=('all', 'weights'),
        help='what is clipped to [-1, 1]: all parameters, or W alone',
    )
    add(
        '--hold-out',
        type=number(0, 10**9),
        metavar='N',
        help='hold out the last N training images to choose the best epoch; the test images are '
        'used once, at the end',
    )
    return parser


def parse_arguments(argv=None):
    """Parses the options of train_mnist.py.

    Args:
        argv (list of str or None): The options; by default those of the command line.

    Returns:
        argparse.Namespace: All options, with ``weight_bits`` and ``activation_bits`` for every
        net.
    """
    parser = _parser()
    given = vars(parser.parse_args(argv))
    recipe = PAPER if given.pop('recipe', None) else {}
    args = argparse.Namespace(**{**DEFAULTS, **RECIPE_DEFAULTS, **recipe, **given})

    bits = {'binary': 1, 'quantized': 4, 'float': 32}[args.net]
    for name in 'weight_bits', 'activation_bits':
        if name in given and args.net != 'quantized':
            parser.error(
                f'argument {option(name)}: only for --net quantized; a {args.net} net '
                f'has {bits} bit{"s" if bits > 1 else ""}'
            )
        setattr(args, name, given.get(name, bits))
    if args.initmodel and args.resume not in (None, 'auto'):
        parser.error(
            'argument --initmodel: a resumed training takes its parameters from the snapshot; '
            'give --initmodel or --resume'
        )
    return args


def option(name):
    """The option with that name in the arguments: ``--final-alpha`` for ``final_alpha``."""
    return '--' + name.replace('_', '-')


def recipe_options(args):
    """The options of the recipe that differ from their defaults, by name."""
    return {
        name: vars(args)[name]
        for name, default in RECIPE_DEFAULTS.items()
        if vars(args)[name] != default
    }


def print_arguments(args):
    """Prints the head of a training's output."""
    if args.communicator and not is_first():
        return
    print(f'GPU: {args.gpu}')
    bits = f', W {args.weight_bits} bits, activations {args.activation_bits} bits'
    print(f'# net: {args.net}{bits if args.net == "quantized" else ""}')
    print(f'# unit: {args.unit}')
    print(f'# Minibatch-size: {args.batchsize}')
    print(f'# epoch: {args.epoch}')
    for name, value in recipe_options(args).items():
        print(f'# {option(name)[2:]}: {value}')
    if args.gpu < 0 and fast.missing:
        print(f'# computed by NumPy, slower than by Numba, which cannot be used: {fast.missing}')
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


def check_arguments(args, n_images, n_in, n_out):
    """Refuses options that do not suit the data or the machine.

    Args:
        args (argparse.Namespace): The options.
        n_images (int): Number of training images, including those to hold out.
        n_in (int): Number of pixels.
        n_out (int): Number of classes.

    Raises:
        ValueError: If too few images remain for training, or the weights, their gradients and
            Adam's two moments would not fit into the memory.
    """
    if args.hold_out >= n_images:
        raise ValueError(f'--hold-out {args.hold_out}: there are {n_images} training images')
    if args.batchsize > n_images - args.hold_out:
        raise ValueError(
            f'--batchsize {args.batchsize}: there are {n_images - args.hold_out} training images'
        )
    sizes = [n_in] + [args.unit] * args.layer + [n_out]
    need = 4 * 4 * sum(a * b for a, b in zip(sizes, sizes[1:]))
    have = memory.available()
    if need > have:
        raise ValueError(
            f'--unit {args.unit} --layer {args.layer}: training would take {need / 1e9:.1f} GB, '
            f'and there are {have / 1e9:.1f}'
        )
