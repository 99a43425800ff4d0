"""Memory is used again, but not while a view of an array lives."""

import numpy

from fast.memory import Memory


def test_memory_is_used_again():
    memory = Memory()
    view = memory.empty((3, 16))[1:].T.view(numpy.int32)
    address = view.ctypes.data - 64
    assert not numpy.shares_memory(view, memory.empty((48,)))
    del view
    arrays = [memory.empty((6, 8), numpy.int32) for _ in range(2)]
    assert address in [array.ctypes.data for array in arrays]
    assert all(array.ctypes.data % 64 == 0 for array in arrays)
