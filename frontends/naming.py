"""Names that nobody gave: `dense`, `dense_1`, … counted per process, and the forms names take."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

_counts: dict[str, int] = {}


def snake_case(name: str) -> str:
    """`Conv2D` → `conv2d`, `BatchNormalization` → `batch_normalization`; Keras's rule."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def automatic_name(prefix: str) -> str:
    """`prefix`, or with the next number of this process when it was given out before."""
    count = _counts.get(prefix, 0)
    _counts[prefix] = count + 1
    return f"{prefix}_{count}" if count else prefix


def reset_names() -> None:
    """Count from the start again."""
    _counts.clear()


def unique(name: str, taken: Container[str]) -> str:
    """`name`, or the first of `name_1`, `name_2`, … that is not taken."""
    number, found = 0, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


class Names(set[str]):
    """The names that are taken among siblings."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        super().__init__(taken)
        self._last: dict[str, int] = {}

    def new(self, name: str) -> str:
        """Take `name`, or the first of `name_1`, `name_2`, … that is free; the search goes on where it last ended."""
        found, number = name, self._last.get(name, 0)
        while found in self:
            number += 1
            found = f"{name}_{number}"
        self._last[name] = number
        self.add(found)
        return found


def identifier(path: str) -> str:
    """The path as a Python identifier: `block/conv 1` → `block_conv_1`."""
    text = re.sub(r"\W+", "_", path, flags=re.ASCII).strip("_") or "value"
    return f"_{text}" if text[0].isdigit() else text
