"""The weights of an artifact in ONNX Runtime's memory, where they stay between calls.

A weight that an entry updates has two buffers. An entry reads the current one and writes the other, then they change
roles: no buffer is an input and an output of one run, so a result that reads the old value is right whatever the
runtime's order. Weights that the same entries update change roles together, so that a training loop meets two
combinations of buffers, however many weights it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from onnxruntime import OrtValue

from graphc.codegen.onnx.values import ort_value
from graphc.ir.dtypes import dtype as dtype_of

Array = np.ndarray[Any, Any]


class Buffer:
    """A value of the runtime over the memory of an array."""

    def __init__(self, array: Array) -> None:
        self.array = np.array(array, order="C")
        self.value: OrtValue = ort_value(self.array, dtype_of(array.dtype))


class State:
    """Buffers of weights. `updaters`: for each weight the names of the entries that update it, none for a frozen one.

    `turns` counts, modulo 2, how often each group of weights changed roles; a frozen weight has no group.
    """

    def __init__(self, arrays: Mapping[str, Array], updaters: Mapping[str, Iterable[str]]) -> None:
        groups: dict[frozenset[str], int] = {}
        self.group_of: dict[str, int] = {}
        self._buffers: dict[str, tuple[Buffer, ...]] = {}
        for name, array in arrays.items():
            entries = frozenset(updaters.get(name, ()))
            if entries:
                self.group_of[name] = groups.setdefault(entries, len(groups))
            self._buffers[name] = (Buffer(array), Buffer(array)) if entries else (Buffer(array),)
        self.turns = [0] * len(groups)

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    def current(self, name: str) -> Buffer:
        """What the next call reads."""
        group = self.group_of.get(name)
        return self._buffers[name][0 if group is None else self.turns[group]]

    def spare(self, name: str) -> Buffer:
        """What the next call writes."""
        return self._buffers[name][1 - self.turns[self.group_of[name]]]
