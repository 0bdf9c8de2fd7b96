"""Attention in training keeps what its gradient needs, so that this does not run attention again."""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir import ops
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter


def keep_logsumexp(module: Module, supports: Callable[[Op], bool]) -> None:
    """Give an attention whose gradient is taken a second result, the logarithm of each softmax's sum, for the gradient.

    Both must be of the same operands, and have neither bias nor mask nor softcap nor window. What the target would
    decompose stays as it is.
    """
    rewriter = Rewriter()
    gradient = OPS["attention_gradient"].op_class
    found: dict[Op, list[Op]] = {}
    for op in module.walk():
        if op.__class__ is gradient and (forward := _forward(op)) is not None:
            found.setdefault(forward, []).append(op)
    for forward, gradients in found.items():
        options = {name: forward.attribute_dict[name] for name in ("causal", "scale")}
        query, key, value = forward.operands[:3]
        with rewriter.before(forward):
            y, logsumexp = ops.attention_with_logsumexp(query, key, value, **options)  # type: ignore[arg-type]
        made = y.op
        assert made is not None
        if not supports(made):
            rewriter.erase(made)
            continue
        for op in gradients:
            with rewriter.before(op):
                cotangents = ops.attention_gradient_with_logsumexp(
                    op.operands[0],
                    y,
                    logsumexp,
                    query,
                    key,
                    value,
                    **options,  # type: ignore[arg-type]
                )
            rewriter.replace(op, *cotangents)
        rewriter.replace(forward, y)
    rewriter.flush()


def _forward(gradient: Op) -> Op | None:
    """The attention whose result a gradient is given, if it is of the same operands and plain."""
    y = gradient.operands[1]
    forward = None if y is None else y.op
    if forward is None or forward.__class__ is not OPS["attention"].op_class or forward.block is not gradient.block:
        return None
    same = forward.operands == gradient.operands[2:] and forward.attributes == gradient.attributes
    attributes = forward.attribute_dict
    plain = attributes["softcap"] is None and attributes["window"] is None and not any(forward.operands[3:])
    return forward if same and plain else None
