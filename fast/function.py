"""What a net on the CPU, a layer on a GPU and the loss share, each a function of Chainer."""

from chainer_compat import chainer
import chainer.links as L
import numpy


class Function(chainer.FunctionNode):
    """A function of one output, whose method ``gradients`` computes with arrays."""

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise RuntimeError(
                'fast has no second derivatives: use the nets of net.py and the loss of Chainer'
            )
        gradients = self.gradients(indexes, grad_outputs[0].array)
        return [None if g is None else chainer.Variable(g, requires_grad=False) for g in gradients]


def has_statistics(x, *bns):
    """Whether batch normalization takes its statistics from this minibatch alone."""
    # A single row has none, and a derived link may have those of several processes.
    possible = chainer.config.train and not chainer.config.in_recomputing and len(x) > 1
    return possible and all(type(bn) is L.BatchNormalization for bn in bns)


def accept(kind, *arrays):
    """Whether compiled code can take these arrays: C-contiguous ones of this type, of float32."""
    return all(
        isinstance(a, kind) and a.flags.c_contiguous and a.dtype == numpy.float32 for a in arrays
    )


def accept_layer(kind, n_in, l, bn):
    """Whether it can take a linear layer of n_in inputs and its batch normalization."""
    arrays = l.W.array, l.b.array, bn.gamma.array, bn.beta.array, bn.avg_mean, bn.avg_var
    return l.bits <= 8 and accept(kind, *arrays) and l.W.shape[1] == n_in
