"""Norms in the functional targets: calls of small functions that take statistics, scale and offset."""

from __future__ import annotations

from graphc.codegen.source.dialect import Spelled
from graphc.codegen.source.geometry import tuple_text
from graphc.ir.graph import Op


def _is_wide(op: Op) -> bool:
    """Narrower floats are decomposed, so that each step rounds as the reference says."""
    dtype = op.results[0].dtype
    return dtype.is_float and dtype.bits >= 32


def _given(op: Op, first: int, names: tuple[str, ...]) -> list[str]:
    """Optional operands from `first` on: by position as long as none is missing before, then by name."""
    out: list[str] = []
    missing = False
    for i, name in enumerate(names, first):
        if op.operands[i] is None:
            missing = True
        else:
            out.append(f"{name}={{{i}}}" if missing else f"{{{i}}}")
    return out


def batch_norm(op: Op) -> Spelled | None:
    x = op.operands[0]
    assert x is not None
    if not _is_wide(op) or op.attribute_dict["axis"] % x.ndim != x.ndim - 1:
        return None
    arguments = ["{0}", "{1}", "{2}", *_given(op, 3, ("scale", "offset")), *_epsilon(op, 1e-3)]
    return f"batch_norm({', '.join(arguments)})"


def _axes(op: Op) -> list[str] | None:
    """The axes of a norm, when they are the last ones."""
    x, axes = op.operands[0], op.attribute_dict["axes"]
    assert x is not None
    found = sorted(axis % x.ndim for axis in axes)
    if not found or found != list(range(x.ndim - len(found), x.ndim)):
        return None
    return [] if len(found) == 1 else [f"axes={tuple_text(tuple(axis - x.ndim for axis in found))}"]


def _epsilon(op: Op, default: float) -> list[str]:
    return [] if op.attribute_dict["epsilon"] == default else ["epsilon={epsilon}"]


def layer_norm(op: Op) -> Spelled | None:
    axes = _axes(op)
    if axes is None or not _is_wide(op):
        return None
    return f"layer_norm({', '.join(['{0}', *_given(op, 1, ('scale', 'offset')), *axes, *_epsilon(op, 1e-3)])})"


def rms_norm(op: Op) -> Spelled | None:
    axes = _axes(op)
    if axes is None or not _is_wide(op):
        return None
    return f"rms_norm({', '.join(['{0}', *_given(op, 1, ('scale',)), *axes, *_epsilon(op, 1e-6)])})"
