"""What a source target can write, told from its spelling table."""

from __future__ import annotations

from graphc.codegen.source.dialect import Dialect
from graphc.ir.dtypes import DType
from graphc.ir.graph import Block, Function, Op

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
    return dialect.spelled(op) is not None


def _passes_weights(op: Op) -> bool:
    """Whether a call hands weights on: such a call is written out, so that its layers become modules."""
    owner = op.block.owner
    if not isinstance(owner, Function):
        return False
    weights = {p.value for p in owner.parameters if p.weight is not None}
    return any(value in weights for value in op.operands if value is not None and isinstance(value.owner, Block))
