"""Contender: PyTorch, eager or compiled, with the fused Adam."""

import itertools
import sys

import torch
from torch import nn

from worker import initial_weights, orders, read_mnist, serve

how, threads, net = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sizes, batch, device = list(map(int, sys.argv[4].split('-'))), int(sys.argv[5]), sys.argv[6]
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


layers = []
for i, W in enumerate(initial_weights(sizes)):
    linear = Linear(W.shape[1], W.shape[0])
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(W))
        linear.bias.zero_()
    layers += [linear, nn.BatchNorm1d(W.shape[0], eps=2e-5), Act()]
model = nn.Sequential(*layers[:-1]).to(device)
parameters = list(model.parameters())
optimizer = torch.optim.Adam(parameters, lr=0.001, fused=True)
loss_function = nn.CrossEntropyLoss()


def forward_backward(x, t):
    loss = loss_function(model(x), t)
    loss.backward()
    return loss.detach()


if how == 'compiled':
    forward_backward = torch.compile(forward_backward)


def step(x, t):
    loss = forward_backward(x, t)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        torch._foreach_clamp_min_(parameters, -1.0)
        torch._foreach_clamp_max_(parameters, 1.0)
    return loss


images, labels = (torch.from_numpy(a).to(device) for a in read_mnist())
minibatches = (
    torch.from_numpy(order[i : i + batch].copy()).to(device)
    for order in orders(len(labels))
    for i in range(0, len(labels), batch)
)


def train(steps):
    losses = [step(images[index], labels[index]) for index in itertools.islice(minibatches, steps)]
    return torch.stack(losses[-100:]).mean().item()


serve(train)
