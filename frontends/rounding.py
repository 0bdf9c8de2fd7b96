"""Training that knows of quantization: where a function reads a variable as a kernel, it reads it rounded.

A variable keeps how in `rounding`. As adapters are, roundings are put into what was recorded before gradients are
taken, and when the recording ends (`apply_rounding`); updates of the variable see its floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir import ops
from graphc.ir.adapting import Use, uses_of
from graphc.ir.dtypes import f32, u8
from graphc.ir.errors import UnsupportedError
from graphc.ir.formats import Format
from graphc.ir.formats.trained import F32_LEAST
from graphc.ir.graph import Op, Value
from graphc.ir.rewriter import Rewriter

if TYPE_CHECKING:
    from graphc.frontends.recording import Recording
    from graphc.frontends.variable import Variable


RANGES = "input_range"
"""Where the weight table has the ends of ranges: `input_range/dense/kernel/least`."""


@dataclass(frozen=True)
class InputRange:
    """Scale and zero point (f32[], u8[]) of what is multiplied with a kernel, and the greatest of its integers."""

    scale: Any
    zero_point: Any
    high: int = 255

    def frozen(self) -> InputRange:
        """A range that stays."""
        return self


@dataclass(frozen=True, eq=False)
class RunningRange:
    """The least and the greatest of what is multiplied with a kernel (f32[]), averaged over the batches of training: of
    each batch's least and greatest value a share of 1 − `momentum` is taken in. Jacob et al. (2018), section 3.1."""

    least: Variable
    most: Variable
    high: int = 255
    momentum: float = 0.99

    @staticmethod
    def of(kernel: Variable, least: float, most: float, high: int, momentum: float) -> RunningRange:
        """The range of what this kernel is multiplied with, and what it is at first."""
        return RunningRange(_state(kernel, "least", least), _state(kernel, "most", most), high, momentum)

    def frozen(self) -> InputRange:
        """The range as it is now, which stays."""
        return InputRange(*scale_and_zero_point(self.least.numpy(), self.most.numpy(), self.high), self.high)

    def copied(self, kernel: Variable) -> RunningRange:
        """The range for a kernel of another model, as it is now."""
        return RunningRange.of(kernel, float(self.least.numpy()), float(self.most.numpy()), self.high, self.momentum)


def _state(kernel: Variable, name: str, value: float) -> Variable:
    from graphc.frontends.variable import Variable

    found = Variable(np.float32(value), dtype="float32", trainable=False, name=name)
    found.path, found.slot_of = f"{RANGES}/{name}", kernel
    return found


def scale_and_zero_point(least: Any, most: Any, high: int) -> tuple[Any, Any]:
    """Scale and zero point (f32[], u8[]) for a range (f32[]), which is widened to have 0; of arrays what a recorded
    function computes of the same values."""
    low, top = ops.minimum(least, 0), ops.maximum(most, 0)
    spread = top - low
    scale = ops.select(ops.eq(spread, 0), 1, ops.maximum(spread / high, F32_LEAST))
    return scale, ops.convert(ops.clip(ops.round_even(-low / scale), low=0, high=high), dtype=u8)


@dataclass(frozen=True)
class VariableRounding:
    """The format that a kernel is rounded to, None if it is not, and how what is multiplied with it is. `shape` is that
    in which the kernel is read and rounded, None where it is its own."""

    format: Format | None
    inputs: InputRange | RunningRange | None = None
    shape: tuple[int, ...] | None = None


def apply_rounding(recording: Recording, variable: Variable) -> list[Value]:
    """Let the uses of a variable so far as a kernel read it rounded, and their other operand, where that is asked.

    Returns the values that stand for the variable now, in whose place adapters are to be put.
    """
    rounding, kernel = variable.rounding, recording.values[id(variable)]
    values = [kernel]
    if rounding is None or kernel.op is not None:  # it was assigned: what reads it now is past training
        return values
    if recording.training and recording.gradients == "native":
        raise UnsupportedError(
            f"{recording.name_of(variable)!r} is rounded in training, whose gradient goes straight through; a "
            "framework's own does not: compile the model with gradients='ir'"
        )
    if rounding.format is not None and kernel.dtype.bits < 32:
        raise UnsupportedError(
            f"{recording.name_of(variable)!r} is {kernel.dtype}, and rounded in training are kernels of float32 or "
            f"float64: the dtype policy 'mixed_{kernel.dtype}' keeps them in float32"
        )
    with Rewriter() as rewriter:
        for use in list(uses_of(kernel, recording.past_adapters)):
            if use.kind is None or _is_rounded(use.value):
                continue
            if rounding.format is not None:
                first = _direct(use, kernel)
                with rewriter.before(first):
                    matrix: Any = kernel if rounding.shape is None else ops.reshape(kernel, shape=rounding.shape)
                    found: Any = ops.fake_quantize_weight(matrix, format=str(rounding.format))
                    back: Any = found if rounding.shape is None else ops.reshape(found, shape=kernel.shape)
                recording.past_adapters.add(found.op)
                values.append(back)
                _exchange(rewriter, first, kernel, back)
            if rounding.inputs is not None and use.kind != "embedding":
                _round_input(recording, rewriter, use.op, rounding.inputs)
    return values


def _is_rounded(value: Value) -> bool:
    while value.op is not None and value.op.definition is ops.reshape:
        assert value.op.operands[0] is not None
        value = value.op.operands[0]
    return value.op is not None and value.op.definition is ops.fake_quantize_weight


def _direct(use: Use, kernel: Value) -> Op:
    """The op on the way to a use that reads the kernel itself."""
    op, value = use.op, use.value
    while value is not kernel:
        assert value.op is not None
        op = value.op
        operand = op.operands[0]
        assert operand is not None
        value = operand
    return op


def _round_input(recording: Recording, rewriter: Rewriter, op: Op, inputs: InputRange | RunningRange) -> None:
    x = op.operands[0]
    assert x is not None
    if x.dtype is not f32 or (x.op is not None and x.op.definition is ops.fake_quantize):
        return
    with rewriter.before(op):
        if isinstance(inputs, RunningRange):
            scale, zero = _running(recording, op, x, inputs)
        else:
            scale, zero = np.float32(inputs.scale), np.uint8(inputs.zero_point)
        found = ops.fake_quantize(x, scale, zero, dtype=u8, high=None if inputs.high == 255 else inputs.high)
    rewriter.set_operands(op, [found, *op.operands[1:]])  # type: ignore[list-item]


def _running(recording: Recording, op: Op, x: Value, inputs: RunningRange) -> tuple[Any, Any]:
    """Scale and zero point of a range that goes on with `x` in training; inside a branch or loop it stays."""
    ends: list[Any] = []
    for variable, reduce in ((inputs.least, ops.reduce_min), (inputs.most, ops.reduce_max)):
        value: Any = recording.variable_value(variable)
        if recording.training and op.block is recording.block:
            now: Any = reduce(ops.stop_gradient(x), axes=tuple(range(x.ndim)))
            value = value + (now - value) * (1 - inputs.momentum)
            recording.assign(variable, value)
        ends.append(value)
    low, high = ends
    return scale_and_zero_point(low, high, inputs.high)


def _exchange(rewriter: Rewriter, op: Op, old: Value, new: Any) -> None:
    rewriter.set_operands(op, [new if operand is old else operand for operand in op.operands])


__all__ = ["RANGES", "InputRange", "RunningRange", "VariableRounding", "apply_rounding", "scale_and_zero_point"]
