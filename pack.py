#!/usr/bin/env python3
"""Packs a trained net: one bit per weight (k bits for a k-bit net), integers instead of floats.

    ./pack.py result/mlp.model result/mlp.packed
    ./inference.py result/mlp.packed

Batch normalization and activation of a hidden layer become integer thresholds, found with the
float net's own functions, so the packed net gives the same answers. README.md has its size and
speed.
"""

import os

from deploy.fold import fold
from deploy.packed import summary
from support import models
from support.program import Parser, errors_as_one_line
from support.storage import read_npz, save_arrays


def pack(model, packed):
    if os.path.exists(packed) and os.path.samefile(model, packed):
        raise ValueError(f'{packed}: this is the model itself; give another name')
    arrays = read_npz(model)
    if 'packed_version' in arrays:
        raise ValueError(f'{model}: this model is packed already')
    net = models.load(model, arrays)
    try:
        folded = fold(net)
    except ValueError as e:
        raise ValueError(f'{model}: {e}') from e
    save_arrays(packed, folded)
    before, after = os.path.getsize(model), os.path.getsize(packed)
    print(models.describe(arrays))
    print(summary(folded))
    print(f'{model}: {before:,} bytes')
    print(f'{packed}: {after:,} bytes, {before / after:.1f} times smaller')


def main(argv=None):
    parser = Parser(
        description='Packs a trained net: one bit per weight, integers instead of floats.'
    )
    parser.add_argument('model', metavar='MODEL', help='mlp.model of a training')
    parser.add_argument('packed', metavar='PACKED', help='packed model to write')
    args = parser.parse_args(argv)
    with errors_as_one_line():
        pack(args.model, args.packed)


if __name__ == '__main__':
    main()
