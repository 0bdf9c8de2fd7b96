"""Targets: one folder each. `target(name)` finds one, `targets()` all, `compiler.write_artifact` uses one.

Start at `target.py` (what a target is). The source targets (numpy, torch, jax) share the writer in `source/`.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from graphc.codegen.target import Target
from graphc.ir.errors import TargetError
from graphc.ir.suggestions import nearest

__all__ = ["Target", "target", "targets"]


@cache
def _found() -> dict[str, Target]:
    """Targets by name, of the folders here that define `TARGET`."""
    found: dict[str, Target] = {}
    for folder in pkgutil.iter_modules(__path__):
        if folder.ispkg:
            instance = getattr(import_module(f"{__name__}.{folder.name}"), "TARGET", None)
            if instance is not None:
                found[instance.name] = instance
    return found


def targets() -> dict[str, Target]:
    """Every target there is by name, installed or not (`Target.available` tells)."""
    return dict(_found())


def target(name: str) -> Target:
    """The target of this name. Raises `TargetError` when there is none, or when what it needs is not installed."""
    found = _found().get(name)
    if found is None:
        raise TargetError(f"there is no target {name!r}{nearest(name, _found())}")
    if not found.available():
        raise TargetError(f"the target {name!r} is not installed: pip install 'graphc[{found.extra}]'")
    return found
