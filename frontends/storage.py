"""How a quantized variable is stored: integers in a format, of which the variable's array is what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.formats import Format, parse_format

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Storage:
    """The arrays of a format, and the `values` that they stand for, in the variable's dtype. With `rows`, products read
    integers beside it, each row by its own scale."""

    format: Format
    arrays: tuple[Array, ...]
    values: Array
    rows: bool = False

    @staticmethod
    def of(format: Format, array: Array, rows: bool = False, arrays: Sequence[Array] | None = None) -> Storage:
        """`array` rounded to nearest; or given `arrays`, which stand for something like it."""
        found = format.quantize(array) if arrays is None else tuple(arrays)
        values = format.dequantize(*found, shape=array.shape).astype(array.dtype)
        return Storage(format, found, values, rows)

    def holds(self, array: Array) -> bool:
        """Whether it stands for this array."""
        return np.array_equal(array, self.values)

    def rounded(self, array: Array) -> Storage:
        """What stands for another array: this one if it does, else that rounded to nearest."""
        return self if self.holds(array) else Storage.of(self.format, array, self.rows)

    def named(self, name: str) -> dict[str, Array]:
        """The arrays by names as weight tables have them: `dense/kernel_values`, `dense/kernel_scales`."""
        parts = self.format.parts(self.values.shape)
        return {f"{name}_{part.name}": array for part, array in zip(parts, self.arrays, strict=True)}


def storage_of(form: Any, rows: Any, names: Sequence[str], like: Any, arrays: dict[str, Array]) -> Storage:
    """The storage of the variable `like` in a format, given as text, from arrays of these names, which are taken out.

    Raises `FormatError` for arrays that are missing or not of the format.
    """
    try:
        format = parse_format(str(form))
        parts = format.parts(like.shape)
        found = [arrays.pop(name) for name in names]
    except KeyError as error:
        raise FormatError(f"{error.args[0]!r} is missing, a part of what is stored as {form}") from error
    except GraphcError as error:
        raise FormatError(error.message) from error
    have = [(array.shape, array.dtype) for array in found]
    if have != [(part.type.shape, part.type.dtype.numpy) for part in parts]:
        wanted = ", ".join(str(part.type) for part in parts)
        raise FormatError(f"{', '.join(names)} are not {wanted}, as {format} has a weight of shape {tuple(like.shape)}")
    return Storage.of(format, np.empty(like.shape, like.dtype.numpy), bool(rows), found)


__all__ = ["Storage", "storage_of"]
