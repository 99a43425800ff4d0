"""Memory for the arrays of a step, which the next step uses again.

The system gives large arrays as new pages, and clearing these takes longer than some of the
products.
"""

import math
import sys

import numpy


class Memory:
    """Makes arrays, of memory that no other array uses any more."""

    def __init__(self):
        self.blocks = {}  # number of bytes -> pairs of memory and the part from a cache line on

    def empty(self, shape, dtype=numpy.float32):
        """An array that starts at a cache line."""
        size = math.prod(shape) * numpy.dtype(dtype).itemsize
        blocks = self.blocks.setdefault(size, [])
        for memory, part in blocks:
            # An array refers to its memory, as the pair, the part, the loop and the call do.
            if sys.getrefcount(memory) == 4:
                break
        else:
            memory = numpy.empty(size + 64, numpy.uint8)
            start = -memory.ctypes.data % 64
            part = memory[start : start + size]
            blocks.append((memory, part))
        return part.view(dtype).reshape(shape)
