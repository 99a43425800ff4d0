"""Contender: Brevitas on PyTorch, with its one-bit (or few-bit) weights and activations."""

import itertools
import sys

import brevitas.nn as qnn
import torch
from brevitas.core.quant import QuantType
from brevitas.core.scaling import ScalingImplType
from torch import nn

from worker import initial_weights, orders, read_mnist, serve

threads, sizes, batch = int(sys.argv[1]), list(map(int, sys.argv[2].split('-'))), int(sys.argv[3])
torch.set_num_threads(threads)
ONE_BIT = {
    'bit_width': 1,
    'quant_type': QuantType.BINARY,
    'scaling_impl_type': ScalingImplType.CONST,
    'scaling_const': 1.0,
    'scaling_init': 1.0,
}

layers = []
for W in initial_weights(sizes):
    linear = qnn.QuantLinear(
        W.shape[1], W.shape[0], bias=True, **{f'weight_{k}': v for k, v in ONE_BIT.items()}
    )
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(W))
        linear.bias.zero_()
    layers += [
        linear,
        nn.BatchNorm1d(W.shape[0], eps=2e-5),
        qnn.QuantIdentity(min_val=-1.0, max_val=1.0, **ONE_BIT),
    ]
model = nn.Sequential(*layers[:-1])
parameters = list(model.parameters())
optimizer = torch.optim.Adam(parameters, lr=0.001, fused=True)
loss_function = nn.CrossEntropyLoss()
images, labels = map(torch.from_numpy, read_mnist())
minibatches = (
    torch.from_numpy(order[i : i + batch].copy())
    for order in orders(len(labels))
    for i in range(0, len(labels), batch)
)


def step(x, t):
    loss = loss_function(model(x), t)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        torch._foreach_clamp_min_(parameters, -1.0)
        torch._foreach_clamp_max_(parameters, 1.0)
    return loss.detach()


def train(steps):
    losses = [step(images[index], labels[index]) for index in itertools.islice(minibatches, steps)]
    return torch.stack(losses[-100:]).mean().item()


serve(train)
