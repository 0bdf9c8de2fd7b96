"""How rotary positions are spelled where the target has a helper for them."""

from __future__ import annotations

from graphc.codegen.source.dialect import Spelled
from graphc.ir.graph import Op


def rope(op: Op) -> Spelled | None:
    """By `rope(x, cos, sin)`, where the pairs are the halves of all features and no dtype is widened."""
    x, cos, sin = op.operands
    assert x is not None and cos is not None and sin is not None
    whole = x.type.shape[3] == 2 * cos.type.shape[-1]
    if op.attribute_dict["interleaved"] or not whole or x.dtype.bits < 32 or not x.dtype is cos.dtype is sin.dtype:
        return None
    return "rope({0}, {1}, {2})"
