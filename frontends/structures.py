"""Nested lists, tuples and dicts of tensors: flattening, mapping and packing.

A dict's entries are in the order of their sorted keys, as in Keras, so equal dicts flatten alike however they were
written. Anything that is not a list, tuple or dict is a leaf, None too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def leaves(structure: Any) -> Iterator[Any]:
    """The leaves of `structure`, in order."""
    if isinstance(structure, dict):
        for key in sorted(structure):
            yield from leaves(structure[key])
    elif isinstance(structure, (list, tuple)):
        for item in structure:
            yield from leaves(item)
    else:
        yield structure


def flatten(structure: Any) -> list[Any]:
    """The leaves of `structure`, as a list."""
    return list(leaves(structure))


def map_structure(function: Callable[[Any], Any], structure: Any) -> Any:
    """`structure` with `function` applied to each leaf."""
    if isinstance(structure, dict):
        return {key: map_structure(function, structure[key]) for key in sorted(structure)}
    if isinstance(structure, (list, tuple)):
        return _like(structure, [map_structure(function, item) for item in structure])
    return function(structure)


def pack(structure: Any, flat: Iterable[Any]) -> Any:
    """`structure` with its leaves replaced by those of `flat`, in order."""
    remaining = iter(flat)
    return map_structure(lambda _: next(remaining), structure)


def paths(structure: Any) -> list[str]:
    """Where each leaf stands: `"a.0"` for the first item under the key `a`; the empty path for a single leaf."""
    return [".".join(path) for path in _paths(structure, ())]


def _paths(structure: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(structure, dict):
        for key in sorted(structure):
            yield from _paths(structure[key], (*path, str(key)))
    elif isinstance(structure, (list, tuple)):
        for index, item in enumerate(structure):
            yield from _paths(item, (*path, str(index)))
    else:
        yield path


def _like(structure: Any, items: list[Any]) -> Any:
    if isinstance(structure, tuple):
        return type(structure)(*items) if hasattr(structure, "_fields") else tuple(items)
    return items
