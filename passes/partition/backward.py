"""Which ops of a function are its backward part."""

from __future__ import annotations

from graphc.ir.graph import Op
from graphc.passes.autodiff.joint import MARK


def is_backward(op: Op) -> bool:
    """Whether the op stands below the mark of what autodiff wrote."""
    scope = op.location.scope
    while scope.depth > 1 and scope.parent is not None:
        scope = scope.parent
    return scope.name == MARK
