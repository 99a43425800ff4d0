"""Contender: PyTorch, eager or compiled, with the fused Adam."""

import itertools
import math
import sys

import torch
from torch import nn

from worker import initial_weights, orders, read_mnist, serve

how, threads, net = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sizes, batch, device = list(map(int, sys.argv[4].split('-'))), int(sys.argv[5]), sys.argv[6]
recipe = sys.argv[7]
torch.set_num_threads(threads)
torch.set_float32_matmul_precision('highest')
BITS = 1 if net == 'binary' else 4


def quantize(a):
    sign = (a >= 0).to(a.dtype) * 2 - 1
    if BITS == 1:
        return sign
    n = 2**BITS - 1
    return sign * torch.clamp(2 * torch.floor(a.abs() * (n / 2)) + 1, max=n) / n


class Weight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, W):
        return quantize(W)

    @staticmethod
    def backward(ctx, g):
        return g


class Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.abs() <= 1)
        return quantize(x)

    @staticmethod
    def backward(ctx, g):
        (inside,) = ctx.saved_tensors
        return g * inside


class Linear(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, Weight.apply(self.weight), self.bias)


class Act(nn.Module):
    def forward(self, x):
        return Activation.apply(x)


class Dropout(nn.Dropout):
    def forward(self, x):  # nn.Dropout draws its numbers more slowly on a CPU
        return x * (torch.rand_like(x) >= self.p) * (1 / (1 - self.p))


def squared_hinge(y, t):
    signs = torch.where(t[:, None] == torch.arange(sizes[-1], device=device), 1.0, -1.0)
    return torch.clamp(1 - signs * y, min=0).square().mean()


layers = []
for i, W in enumerate(initial_weights(sizes, recipe)):
    linear = Linear(W.shape[1], W.shape[0])
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(W))
        linear.bias.zero_()
    if recipe == 'paper':
        layers.append(Dropout(0.5 if i else 0.2))
    layers += [linear, nn.BatchNorm1d(W.shape[0], eps=2e-5), Act()]
model = nn.Sequential(*layers[:-1]).to(device)
parameters = list(model.parameters())
clipped, loss_function, groups = parameters, nn.CrossEntropyLoss(), [{'params': parameters}]
if recipe:
    clipped, loss_function = [p for p in parameters if p.ndim == 2], squared_hinge
    groups = [{'params': [p for p in parameters if p.ndim == 1]}]
    groups += [{'params': [W], 'lr': 0.003 / math.sqrt(1.5 / sum(W.shape))} for W in clipped]
optimizer = torch.optim.Adam(groups, lr=0.003 if recipe else 0.001, fused=True)


def forward_backward(x, t):
    loss = loss_function(model(x), t)
    loss.backward()
    return loss.detach()


if how == 'compiled':
    # On a CPU, eager PyTorch draws numbers faster than compiled code.
    options = {'fallback_random': device == 'cpu'}
    forward_backward = torch.compile(forward_backward, options=options)


def step(x, t):
    loss = forward_backward(x, t)
    # Chainer adds 1e-8 before it corrects the second moment, PyTorch afterwards.
    eps = 1e-8 / math.sqrt(1 - 0.999 ** next(numbers))
    for group in optimizer.param_groups:
        group['eps'] = eps
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        torch._foreach_clamp_min_(clipped, -1.0)
        torch._foreach_clamp_max_(clipped, 1.0)
    return loss


numbers = itertools.count(1)
images, labels = (torch.from_numpy(a).to(device) for a in read_mnist())
if recipe:
    images = 2 * images - 1
minibatches = (
    torch.from_numpy(order[i : i + batch].copy()).to(device)
    for order in orders(len(labels))
    for i in range(0, len(labels), batch)
)


def train(steps):
    losses = [step(images[index], labels[index]) for index in itertools.islice(minibatches, steps)]
    return torch.stack(losses[-100:]).mean().item()


serve(train)
