"""What holds for the whole process: the target that is compiled for when none is named."""

from __future__ import annotations

import os

from graphc.frontends.dtype_policy import dtype_policy, set_dtype_policy

DEFAULT_TARGET = "numpy"
VARIABLE = "GRAPHC_TARGET"

_chosen: str | None = None


def target() -> str:
    """The target that is used when none is named: what `set_target` chose, else `GRAPHC_TARGET`, else `numpy`."""
    return _chosen or os.environ.get(VARIABLE) or DEFAULT_TARGET


def set_target(name: str | None) -> None:
    """Choose the target for when none is named; None goes back to `GRAPHC_TARGET` or `numpy`.

    Raises `TargetError` when there is no such target, or it is not installed.
    """
    from graphc import codegen

    global _chosen
    _chosen = None if name is None else codegen.target(name).name


__all__ = ["dtype_policy", "set_dtype_policy", "set_target", "target"]
