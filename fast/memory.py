"""Memory for the arrays of a step, which the next step uses again.

The system gives large arrays as new pages, and clearing these takes longer than some of the
products.
"""

import sys

import numpy


class Memory:
    """Makes arrays, of memory that no other array uses any more."""

    def __init__(self):
        self.blocks = {}  # number of bytes -> arrays of so many

    def empty(self, shape, dtype=numpy.float32):
        """An array that starts at a cache line."""
        size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
        blocks = self.blocks.setdefault(size, [])
        for block in blocks:
            # An array refers to the block that it is part of. The list, the loop and the call do.
            if sys.getrefcount(block) == 3:
                break
        else:
            block = numpy.empty(size + 64, numpy.uint8)
            blocks.append(block)
        start = -block.ctypes.data % 64
        return block[start : start + size].view(dtype).reshape(shape)
