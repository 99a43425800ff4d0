"""What a training takes from a saved net, and what it stores in its own besides the parameters."""

import numpy

from pictures.layout import measure_layout
from support.files import arrays_of, naming, read_npz, restore
from support.models import SavedNet


def describe_net(net):
    """The ``title`` of the :class:`SavedNet` that a net would be."""
    return SavedNet(arrays_of(net)).title


def initialize(path, net):
    """Gives a net the parameters of a saved model.

    Args:
        path (str): The file.
        net (~net.MLP): The net.

    Raises:
        ValueError: If the file is damaged or holds another net; the message says which.
        OSError: If the file cannot be opened.
    """
    arrays, ours = read_npz(path), arrays_of(net)
    with naming(path):
        theirs, words = SavedNet(arrays).title, describe_net(net)
        if theirs != words:
            raise ValueError(f'holds {theirs}, but this training is of {words}')
    # The parameters are taken over, but not what describes the data.
    arrays.update({name: ours[name] for name in ('layout', 'pixel_scale') if name in ours})
    restore(path, arrays, net)


def remember_layout(net, images, transposed):
    """Stores the layout and scale of the training images in the net."""
    net.add_persistent('pixel_scale', net.pixel_scale)
    layout = measure_layout(images)._replace(transposed=int(transposed))
    net.add_persistent('layout', numpy.array(layout, numpy.int32))


def remember_numbers(net, **numbers):
    """Stores numbers about the net, such as its accuracy on the test images, in the net."""
    for name, number in numbers.items():
        net.add_persistent(name, numpy.array(number, numpy.float32))
