"""Layers and ops whose names say what their results are."""

from __future__ import annotations

from graphc.ir.graph import Value

_LAYER_ROLES = frozenset({"q", "k", "v", "query", "key", "value", "gate", "scores"})
"""Layers whose results are called as they are."""

_OP_ROLES = frozenset({"cos", "sin"})
"""Ops whose results are called as they are."""


def layer_role(value: Value) -> str | None:
    """The name of the layer that made the value, up to shape and rotation, where it is a word for what that is."""
    for _ in range(4):
        op = value.op
        if op is None:
            return None
        name = op.location.scope.name
        if name in _LAYER_ROLES:
            return name
        if op.name not in ("reshape", "rope", "transpose") or op.operands[0] is None:
            return None
        value = op.operands[0]
    return None


def role_of_op(value: Value) -> str | None:
    """The name of the op that made the value, where it is a word for what that is."""
    return value.op.name if value.op is not None and value.op.name in _OP_ROLES else None


__all__ = ["layer_role", "role_of_op"]
