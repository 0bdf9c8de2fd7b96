"""Layers and ops whose names say what their results are."""

from __future__ import annotations

from graphc.ir.graph import Value

_LAYER_ROLES = frozenset({"q", "k", "v", "query", "key", "value", "gate", "scores"})
"""Layers whose results are called as they are."""

_OP_ROLES = {"cos": "cos", "sin": "sin", "random_split": "keys"}
"""What the results of ops are called, where there is a word for it."""


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
    """A word for what the op that made the value gives."""
    return None if value.op is None else _OP_ROLES.get(value.op.name)


__all__ = ["layer_role", "role_of_op"]
