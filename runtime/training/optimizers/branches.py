"""Updates that are made only in some steps, and the scopes and names of what optimizers record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from graphc.frontends.ops.dispatch import truth
from graphc.frontends.recording import current_recording
from graphc.ir import ops as ir
from graphc.ir.builder import Builder
from graphc.ir.graph import Value


def when(condition: Any, update: Callable[[], Any]) -> None:
    """Let what `update` assigns to variables hold where the scalar `condition` does; elsewhere they stay as they are.

    Recorded, it is one `cond` whose branches hand out the variables' new and old values.
    """
    builder, recording = Builder.current(), current_recording()
    if builder is None or recording is None:
        if bool(np.asarray(condition)):
            update()
        return
    changed: dict[int, Any] = {}

    def updated() -> tuple[Any, ...]:
        with recording.branch() as assigned:
            update()
        changed.update(assigned)
        return tuple(assigned.values())

    def unchanged() -> tuple[Any, ...]:
        return tuple(recording.values[key] for key in changed)

    results = ir.cond(truth(condition), updated, unchanged)
    recording.values.update(zip(changed, results, strict=True))


def scope(name: str) -> AbstractContextManager[Any]:
    """Record inside under this scope; nothing where ops are not recorded."""
    builder = Builder.current()
    return nullcontext() if builder is None else builder.scope(name)


def called(value: Any, name: str) -> Any:
    """The value, which IR and emitted code call `name` where it is recorded; an array as it is."""
    if isinstance(value, Value) and value.op is not None:
        value.name = name
    return value


__all__ = ["called", "scope", "when"]
