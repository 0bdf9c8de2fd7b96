"""A model's entries compiled for a target, which holds the values of the model's variables from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from graphc.frontends.variable import adapter_changes, changes
from graphc.ir.errors import GraphcError
from graphc.ir.recipes import Cast
from graphc.runtime.compilation import compile as compile_source
from graphc.runtime.executable import Executable
from graphc.runtime.training.step import Entry, Feed, TrainingModule

Array = np.ndarray[Any, Any]
Logs = dict[str, Array]
Compiling = Callable[[str], AbstractContextManager[None]]
"""Says that the target of this name compiles, for as long as it is entered."""


class Program:
    """The executable of a recorded module. Variables are read from it and written to it; see `Variable.hold`."""

    def __init__(
        self, recorded: TrainingModule, settings: dict[str, Any], sizes: Mapping[str, int] | None = None
    ) -> None:
        self.recorded = recorded
        self.graph = recorded.graph
        self.sizes: Mapping[str, int] | None = None if settings.get("memory_budget") is None else sizes or {}
        """The sizes that a memory budget was planned for, None without one."""
        self.executable: Executable = compile_source(recorded.module, **settings, sizes=self.sizes)
        self._started: set[str] = set()
        self.warned = False
        """Whether the weights that the loss does not reach were named."""
        self._adapters = {name: v.adapter for name, v in recorded.variables.items() if v.adapter is not None}
        self._adapters_at = adapter_changes()
        self._held_at = -1
        self._rounded = _rounded(self.executable)
        for name, variable in recorded.variables.items():
            if name in self.executable.weights and name not in self._rounded:
                variable.hold(self.executable.weights, name)

    def is_planned_for(self, sizes: Mapping[str, int]) -> bool:
        """Whether batches of these sizes keep the memory budget."""
        return self.sizes is None or all(size <= self.sizes.get(name, size) for name, size in sizes.items())

    def has_adapters(self) -> bool:
        """Whether it was recorded with the adapters that the variables have now."""
        if self._adapters_at != adapter_changes():
            if any(v.adapter is not self._adapters.get(name) for name, v in self.recorded.variables.items()):
                return False
            self._adapters_at = adapter_changes()
        return True

    def take_over(self) -> None:
        """Let this program hold the variables, with the values they have, wherever these are now."""
        if self._held_at == changes():
            return
        weights = self.executable.weights
        elsewhere = {
            name: variable
            for name, variable in self.recorded.variables.items()
            if name in weights and not variable.is_held_by(weights)
        }
        if elsewhere:
            weights.update({name: variable.numpy() for name, variable in elsewhere.items()})
            for name, variable in elsewhere.items():
                if name not in self._rounded:
                    variable.hold(weights, name)
        self._held_at = changes()

    def starting(self, name: str, compiling: Compiling) -> AbstractContextManager[None]:
        """What an entry runs in: where it is its first time, when JAX compiles it, that is said."""
        if name in self._started:
            return nullcontext()
        self._started.add(name)
        return compiling(self.executable.target)

    def runner(self, name: str) -> Callable[..., Logs]:
        """A function `(x, y, sample_weight, key)` that runs a step on a batch and gives its logs."""
        entry: Entry = self.recorded.entries[name]
        call, feed = self.executable.entry(name), Feed(entry.batch)

        def run(x: Any, y: Any = None, sample_weight: Any = None, key: Any = None) -> Logs:
            self.take_over()
            arrays = feed((x, y, sample_weight))
            for labels in entry.labels:
                labels.check(arrays[labels.index])
            for compute in entry.host:
                arrays.append(key if compute is None else compute())
            found = call(*arrays)
            results = found if isinstance(found, tuple) else (found,)
            if entry.observed:
                *results, finite = results
                if not finite.all():
                    raise GraphcError(f"{entry.observed[int(finite.argmin())]} is not finite")
            return dict(zip(entry.logs, results, strict=True))

        return run


def _rounded(executable: Executable) -> frozenset[str]:
    """The weights that are stored in a narrower dtype, as what only reads them in it wants them: the target does not
    hold their values."""
    return frozenset(
        source
        for recipe in executable.manifest.weights.values()
        if any(isinstance(step, Cast) and step.after.bits <= step.before.bits for step in recipe.steps)
        for source in recipe.sources
    )


__all__ = ["Compiling", "Logs", "Program"]
