"""Functions in the language of LLVM, for what Numba does not translate well enough."""

import inspect

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

binding.initialize_native_asmparser()

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()


def kernel(write, result=types.void):
    """Makes a function that compiled code can call with arrays and numbers.

    Args:
        write (callable): Given a :class:`Builder`, the pointer to the first element of each array
            and the value of each number (whole numbers have 64 bits), it writes the code of a
            call, and returns the result if there is one.
        result: Numba's type of the result.
    """

    def typed(typingctx, *arguments):
        kinds = [types.int64 if isinstance(a, types.Integer) else a for a in arguments]

        def codegen(context, numba_builder, signature, args):
            builder = Builder(numba_builder.block)
            values = [
                context.make_array(kind)(context, builder, value).data
                if isinstance(kind, types.Array)
                else value
                for kind, value in zip(kinds, args)
            ]
            value = write(builder, *values)
            numba_builder.position_at_end(builder.block)
            return context.get_dummy_value() if value is None else value

        return result(*kinds), codegen

    typed.__signature__ = inspect.signature(write)
    return intrinsic(typed)


def vector(element, count):
    return ir.VectorType(element, count)


def constant(kind, value):
    """A number, or a vector that has it in every lane."""
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


class Builder(ir.IRBuilder):
    """LLVM's builder, which writes instruction after instruction."""

    def splat(self, value, kind):
        """A vector of the type that has a value in every lane."""
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.insert_element(undefined, value, constant(INT32, 0))
        return self.shuffle_vector(first, undefined, constant(vector(INT32, kind.count), 0))

    def named(self, name, result, *values):
        """Calls an intrinsic function of LLVM."""
        function = ir.FunctionType(result, [value.type for value in values])
        return self.call(cgutils.get_or_insert_function(self.module, function, name), values)

    def at(self, pointer, index, kind=None):
        """Pointer to the element of that index; if a type is given, of an array of that type."""
        if kind:
            pointer = self.bitcast(pointer, ir.PointerType(kind))
        return self.gep(pointer, [constant(INT64, index) if isinstance(index, int) else index])

    def read(self, pointer, index=0, kind=None):
        return self.load(self.at(pointer, index, kind), align=1)

    def write(self, value, pointer, index=0):
        self.store(value, self.at(pointer, index, value.type), align=1)

    def times(self, value, factor):
        return self.mul(value, constant(value.type, factor))

    def least(self, a, b):
        return self.select(self.icmp_signed('<', a, b), a, b)

    def steps(self, start, stop, step):
        """The loop over start, start + step, ... that are less than stop: a context manager."""
        start, stop, step = (
            constant(INT64, i) if isinstance(i, int) else i for i in (start, stop, step)
        )
        return cgutils.for_range_slice(self, start, stop, step)

    # Sums that a loop adds up are kept in registers.

    def registers(self, *kinds):
        return [cgutils.alloca_once(self, kind) for kind in kinds]

    def clear(self, registers):
        for register in registers:
            self.store(ir.Constant(register.type.pointee, None), register)

    def update(self, register, function, *values):
        """Stores function(what is in the register, *values) there."""
        self.store(function(self.load(register), *values), register)
