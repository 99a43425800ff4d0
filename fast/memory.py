"""Memory for the arrays of a step, which the next step uses again.

The system gives large arrays as new pages, and clearing these takes longer than some of the
products.
"""

import math
import weakref

import numpy


class Memory:
    """Makes arrays, of memory that no other array uses any more."""

    def __init__(self):
        self.unused = {}  # number of bytes -> pieces of memory

    def empty(self, shape, dtype=numpy.float32):
        """An array that starts at a cache line."""
        size = math.prod(shape) * numpy.dtype(dtype).itemsize
        unused = self.unused.setdefault(size, [])
        try:
            memory = unused.pop()
        except IndexError:
            memory = numpy.empty(size + 64, numpy.uint8)
            start = -memory.ctypes.data % 64
            memory = memoryview(memory[start : start + size])
        array = numpy.frombuffer(memory, dtype)  # which lives as long as any view of it
        weakref.finalize(array, unused.append, memory)
        return array.reshape(shape)
