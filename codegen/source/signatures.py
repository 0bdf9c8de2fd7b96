"""The parameters of bodies: their names, the sizes that they bind, the guards that are checked at entry."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.expressions import PRODUCT, UNARY
from graphc.codegen.source.naming import identifier
from graphc.codegen.source.roles import role_of_op
from graphc.ir.dims import Guard, symbols
from graphc.ir.graph import Function, Op, Value

GENERIC = re.compile(r"(input|inputs|input_layer|keras_tensor|arg|x)(_?\d+)?")
"""Names of a model's only input that say nothing: it is called `x`."""


def unread(writer: BodyWriter, inputs: Sequence[Value]) -> str | None:
    """The owner of a body that needs a symbol which none of its parameters binds."""
    bound = {dim for value in inputs for dim in value.type.symbols}
    introduced = {op.attribute_dict["size"] for op in writer.items if isinstance(op, Op) and op.name == "assume_dim"}
    missing = [dim for dim in writer.sizes_read if dim not in bound and dim not in introduced]
    return writer.members.start if missing else None


def parameter_names(values: Sequence[Value], function: Function | None) -> list[str]:
    """Names for the parameters of a body: the model's, or `x` for the stream that runs through it."""
    if function is not None:
        names = [identifier(p.name) for p in function.inputs]
        return ["x"] if len(names) == 1 and GENERIC.fullmatch(names[0]) else names
    out: list[str] = []
    for i, value in enumerate(values):
        named = value.name is not None and not value.name.isdigit() and value.op is None
        out.append("x" if i == 0 else identifier(value.name or "y") if named else role_of_op(value) or "y")
    return out


def guard_lines(guard: Guard, writer: BodyWriter, function: Function) -> list[str]:
    """A check of a guard at entry."""
    left, right = writer.size(guard.left), writer.size(guard.right)
    if guard.kind == "==":
        broken = f"{left.text} != {right.text}"
    elif guard.kind == "<=":
        broken = f"{left.text} > {right.text}"
    else:
        broken = f"{right.within(PRODUCT)} % {left.within(UNARY)}"
    sizes = dict.fromkeys((*symbols(guard.left), *symbols(guard.right)))
    got = ", ".join(f"{dim} = {{{writer.sizes[dim]}}}" for dim in sizes)
    return [f"if {broken}:", f'    raise ValueError(f"{function.name} needs {guard}, not {got}")']


__all__ = ["guard_lines", "parameter_names", "unread"]
