"""Passes: functions that change a module in place, by name and from text.

Start at `registry.py` (what a pass is, `run_passes`) and `driver.py` (rules and how they are driven); `canonicalize.py`
is the pass that most of `rules/` belongs to. One pass a file; `graphc.passes()` lists them.
"""

from __future__ import annotations

import sys
from types import ModuleType

from graphc.passes.registry import Pass, find_pass, passes, register_pass, run_passes

__all__ = ["Pass", "find_pass", "passes", "register_pass", "run_passes"]


class _Callable(ModuleType):
    """This module can be called: `graphc.passes()` lists the passes."""

    def __call__(self) -> list[Pass]:
        return passes()


sys.modules[__name__].__class__ = _Callable
