"""The op reference, from the declarations: a table of all ops, and a page for one."""

from __future__ import annotations

import inspect
from typing import Any

from graphc import codegen
from graphc.codegen.target import Target
from graphc.ir.dtypes import DTYPES, DType
from graphc.ir.errors import GraphcError
from graphc.ir.opdef import REQUIRED, Composite, OpDef
from graphc.ir.suggestions import nearest
from graphc.runtime.support import all_ops, sample_ops, support


def find_op(name: str) -> OpDef[..., Any]:
    """The op of this name. Raises `GraphcError` that suggests the nearest."""
    ops = all_ops()
    if name not in ops:
        raise GraphcError(f"there is no op {name!r}{nearest(name, ops)}")
    return ops[name]


def tier(definition: OpDef[..., Any]) -> str:
    """`primitive` or `composite`."""
    return "composite" if isinstance(definition, Composite) else "primitive"


def signature_text(definition: OpDef[..., Any]) -> str:
    """`softmax(x, *, axis: Axis = -1)`: operands by position, attributes by name."""
    operands = [
        f"*{operand.name}" if operand.variadic else f"{operand.name}=None" if operand.optional else operand.name
        for operand in definition.operands
    ]
    attributes = [
        f"{a.name}: {a.annotation}" + ("" if a.default is REQUIRED else f" = {_default_text(a.default)}")
        for a in definition.attributes
    ]
    star = [] if not attributes or definition.variadic else ["*"]
    return f"{definition.name}({', '.join([*operands, *star, *attributes])})"


def _default_text(value: Any) -> str:
    return value.short if isinstance(value, DType) else repr(value)


def summary_line(definition: OpDef[..., Any]) -> str:
    """The first sentence of the docstring, on one line."""
    first = inspect.cleandoc(definition.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    head, stop, _ = first.partition(". ")
    return head + stop.rstrip()


def describe_op(definition: OpDef[..., Any]) -> dict[str, Any]:
    """What the declaration says and which targets take the op, as JSON takes it."""
    return {
        "name": definition.name,
        "tier": tier(definition),
        "signature": signature_text(definition),
        "doc": inspect.cleandoc(definition.__doc__ or ""),
        "dtypes": [str(dtype) for dtype in sample_ops(definition)],
        "gradient": definition.vjp_rule is not None,
        "targets": {
            name: {str(dtype): level for dtype, level in support(target, definition).items()}
            if target.available()
            else None
            for name, target in sorted(codegen.targets().items())
        },
    }


def page(definition: OpDef[..., Any], heading: str = "#") -> str:
    """The reference page of an op, in Markdown."""
    dtypes = sorted(sample_ops(definition), key=DTYPES.index)
    lines = [
        f"{heading} {definition.name}",
        "",
        f"`{signature_text(definition)}`",
        "",
        inspect.cleandoc(definition.__doc__ or ""),
        "",
        f"- {tier(definition)}, {_gradient(definition)}",
        f"- dtypes: {', '.join(dtype.short for dtype in dtypes)}",
    ]
    for name, target in sorted(codegen.targets().items()):
        lines.append(f"- {name}: {_support_text(target, definition, dtypes)}")
    return "\n".join(lines)


def _gradient(definition: OpDef[..., Any]) -> str:
    if definition.vjp_rule is not None:
        return "with a gradient of its own"
    return "differentiated through" if isinstance(definition, Composite) else "without a gradient"


def _support_text(target: Target, definition: OpDef[..., Any], dtypes: list[DType]) -> str:
    if not target.available():
        return f"not installed (pip install 'graphc[{target.extra}]')"
    found = support(target, definition)
    parts: list[str] = []
    for level, words in (("native", "native"), ("decomposed", "decomposed")):
        having = [dtype for dtype in dtypes if found.get(dtype) == level]
        if having:
            listed = "" if len(having) == len(dtypes) else f" ({', '.join(dtype.short for dtype in having)})"
            parts.append(words + listed)
    return ", ".join(parts) or "not supported"


# --- the op × target matrix -------------------------------------------------------------------------------------

LEGEND = """\
`●` the target has the op, `○` it is decomposed into ops that the target has, `–` neither. A fraction says in how many
of the op's dtypes, where it is not all."""


def cell(target: Target, definition: OpDef[..., Any]) -> str:
    """How the target takes the op, over all dtypes of the op."""
    found, count = support(target, definition), len(sample_ops(definition))
    if not found:
        return "–"
    mark = "●" if "native" in found.values() else "○"
    return mark if len(found) == count else f"{mark} {len(found)}/{count}"


def matrix() -> str:
    """The op × target table in Markdown."""
    targets = sorted(codegen.targets().items())
    lines = ["| op | " + " | ".join(name for name, _ in targets) + " |", "| --- |" + " :-: |" * len(targets)]
    for name, definition in all_ops().items():
        lines.append(f"| {name} | " + " | ".join(cell(target, definition) for _, target in targets) + " |")
    return "\n".join(lines)
