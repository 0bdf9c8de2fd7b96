"""Which ops are elementwise: every element of the result depends on the elements at its place in the operands."""

from __future__ import annotations

from graphc.ir.graph import Op
from graphc.ir.opdef import OPS, Composite, OpDef

_FILES = ("graphc.ir.ops.elementwise", "graphc.ir.ops.arithmetic", "graphc.ir.ops.casting")
"""Where elementwise primitives are declared: nothing else may be in these files."""

_TAGS = ("name", "stop_gradient")

_composites: dict[OpDef[..., object], bool] = {}


def is_elementwise(op: Op) -> bool:
    """Whether `op` is elementwise, its operands broadcasting. A composite is when its decomposition is."""
    definition = op.definition
    if not isinstance(definition, Composite):
        return definition.__module__ in _FILES or definition.name in _TAGS
    found = _composites.get(definition)
    if found is None:
        types = tuple([None if v is None else v.type for v in op.operands])
        body = definition.decomposition(types, op.attributes).block
        found = _composites[definition] = all(
            inner.next is None or inner.definition is OPS["constant"] or is_elementwise(inner) for inner in body
        )
    return found
