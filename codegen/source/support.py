"""What a source target can write, told from its spelling table."""

from __future__ import annotations

from graphc.codegen.source.dialect import Dialect
from graphc.ir.dtypes import DType
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Block, Function, Op
from graphc.ir.module import Module

STRUCTURE = frozenset({"constant", "cond", "while", "scan", "return", "yield"})


def can_write(dialect: Dialect, op: Op, dtypes: frozenset[DType]) -> bool:
    """Whether the dialect spells the op, and all of its types are among `dtypes`."""
    for value in (*op.operands, *op.results):
        if value is not None and value.type.dtype not in dtypes:
            return False
    if op.name in STRUCTURE:
        return True
    if op.name == "call":
        return not _passes_weights(op)
    if op.name == "native_gradient":
        return dialect.has_native_gradient
    return dialect.spelled(op) is not None


def check_inputs(module: Module, dtypes: frozenset[DType], target: str) -> None:
    """Raise `UnsupportedError` for parameters of entries, read or not, whose dtype the target lacks."""
    lacking = [
        f"{parameter.name} ({parameter.type}) of @{function.name}"
        for function in module.entries.values()
        for parameter in function.parameters
        if parameter.type.dtype not in dtypes
    ]
    if lacking:
        raise UnsupportedError(f"the target {target!r} lacks the dtypes of {', '.join(lacking)}")


def _passes_weights(op: Op) -> bool:
    """Whether a call hands weights on: such a call is written out, so that its layers become modules."""
    owner = op.block.owner
    if not isinstance(owner, Function):
        return False
    weights = {p.value for p in owner.parameters if p.weight is not None}
    return any(value in weights for value in op.operands if value is not None and isinstance(value.owner, Block))
