"""`graphc.gradients`: the gradient of a loss that is being recorded, as further ops of the same function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends.adapters import apply_adapters, end_of_forward
from graphc.frontends.recording import Differentiated, current_recording
from graphc.frontends.variable import Variable
from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Value
from graphc.passes.autodiff.joint import Differentiator
from graphc.passes.lora.fuse import fuse_adapters, source_of
from graphc.passes.outline import outline_gradient


def gradients(loss: Any, variables: Sequence[Variable | Value]) -> list[Value | None]:
    """The gradient of the scalar `loss` by each of `variables`, None for one that it does not depend on.

    To be called while a step of a model is recorded; the backward ops are appended to it. Raises `GraphcError` outside
    of a recording and where the loss depends on none of the variables, `ShapeError` for a loss that is no scalar.
    """
    builder, recording = Builder.current(), current_recording()
    if builder is None or recording is None or builder.block is not recording.function.block:
        raise GraphcError("graphc.gradients is for the `train_step` of a model; of a function there is graphc.grad")
    value = builder.value(loss)
    if value is None or value.shape != () or not value.dtype.is_float:
        described = "None" if value is None else str(value.type)
        raise ShapeError(f"a gradient is of a real scalar; the loss is {described}: reduce it, by a mean for one").at(
            builder.place()
        )
    wanted = [builder.value(each) for each in variables]
    apply_adapters(recording)
    values = [v for v in wanted if v is not None]
    if recording.adapted and all(v.op is None for v in values):  # or one may be inside a block
        trained = set(values)
        fuse_adapters(builder.block, lambda kernel: source_of(kernel) not in trained)
    if recording.gradients == "native":
        found = outline_gradient(recording.module, builder.block, value, values, recording.function)
    else:
        found = Differentiator(recording.module).gradients(builder.block, value, values, recording.function)
    end_of_forward(recording)
    missing = [each for each, gradient in zip(variables, found, strict=True) if gradient is None]
    if variables and len(missing) == len(found):
        raise GraphcError("the loss does not depend on any of the weights that are to be trained").at(builder.place())
    recording.observe("the loss", value)
    for each, gradient in zip(variables, found, strict=True):
        if isinstance(each, Variable):
            recording.observe(f"the gradient of {recording.name_of(each)!r}", gradient)
    recording.differentiated.append(Differentiated(value, variables, values, found))
    recording.unreached += [each for each in missing if isinstance(each, Variable)]
    return found


__all__ = ["gradients"]
