"""The random keys of a run: one root, from which the order of the examples and all that steps draw follow.

Epoch e orders its examples by `fold_in(root, 2e)`, and its steps draw by the rows of `split(fold_in(root, 2e + 1))`,
which are the same however many there are. So a run is the same on every target, and goes on anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.runtime.training.data.order import fold_in, threefry

Array = np.ndarray[Any, Any]

ROWS = 256
"""So many keys are made at a time."""

VALIDATION = 2**31
"""The first row that validation after an epoch takes."""


class StepKeys:
    """The keys of the steps of an epoch, by number."""

    def __init__(self, root: Array, epoch: int, first: int = 0) -> None:
        self._key = fold_in(root, 2 * epoch + 1)
        self._first = first
        self._start = -1
        self._rows: Array = np.empty((0, 2), np.uint32)

    def __getitem__(self, step: int) -> Array:
        at = step - self._start
        if self._start < 0 or not 0 <= at < len(self._rows):
            self._start, at = step, 0
            self._rows = np.stack(threefry(self._key, ROWS, self._first + step), -1)
        return self._rows[at]


__all__ = ["VALIDATION", "StepKeys"]
