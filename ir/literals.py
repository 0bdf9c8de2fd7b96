"""Arrays spelled as nested tuples of numbers: the value of a `constant` and of a weight written into the text."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from graphc.ir.dtypes import DType
from graphc.ir.errors import DTypeError, ShapeError

Array = np.ndarray[Any, Any]

_WIDEST: dict[str, type[np.generic]] = {
    "b": np.bool_,
    "i": np.int64,
    "u": np.uint64,
    "f": np.float64,
    "c": np.complex128,
}


def literal_shape(value: Any) -> tuple[int, ...]:
    """The shape of nested tuples. Raises `ShapeError` where they are ragged."""
    if not isinstance(value, tuple):
        return ()
    items = cast(tuple[Any, ...], value)
    inner = literal_shape(items[0]) if items else ()
    if any(literal_shape(item) != inner for item in items):
        raise ShapeError("the rows of a nested list have different lengths")
    return (len(items), *inner)


def literal_array(value: Any, dtype: DType) -> Array:
    """The array in the widest dtype of its kind (float64 for floats: not rounded yet).

    Raises `ShapeError` where rows differ, `DTypeError` for an entry that is no number of `dtype`.
    """
    shape = literal_shape(value)
    leaves: list[Any] = []
    _flatten(value, leaves)
    for leaf in leaves:
        if not _fits(leaf, dtype):
            raise DTypeError(f"{leaf!r} is not a {dtype}")
    return np.array(leaves, _WIDEST[dtype.kind]).reshape(shape)


def _flatten(value: Any, leaves: list[Any]) -> None:
    if isinstance(value, tuple):
        for item in cast(tuple[Any, ...], value):
            _flatten(item, leaves)
    else:
        leaves.append(value)


def _fits(leaf: Any, dtype: DType) -> bool:
    if dtype.is_bool:
        return isinstance(leaf, bool)
    if isinstance(leaf, bool):
        return False
    if dtype.is_integer:
        low = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
        return isinstance(leaf, int) and low <= leaf < low + (1 << dtype.bits)
    if isinstance(leaf, int):
        return abs(leaf) < 1 << 1023  # what float64 can hold
    return isinstance(leaf, float) or (dtype.is_complex and isinstance(leaf, complex))
