"""Tensor types: an element type and a shape whose sizes may be symbolic. Interned: equal types are one object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from graphc.ir.dims import Dim, Size, as_size, substitute, symbols
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import ShapeError

Shape = tuple[Size, ...]


class TensorType:
    """`f32[B, 784]`. Build one with `TensorType.of(dtype, shape)`; compare with `is`."""

    __slots__ = ("_text", "dtype", "shape")

    dtype: DType
    shape: Shape
    _text: str | None

    _interned: dict[tuple[DType, Shape], TensorType] = {}

    @staticmethod
    def of(dtype: DType | str, shape: Iterable[Size] = ()) -> TensorType:
        """The type with this dtype and shape. Raises `ShapeError` for a size that is negative or no int or `Dim`."""
        sizes = tuple(shape)
        found = TensorType._interned.get((cast(DType, dtype), sizes))
        # Only exact ints get in below, so a hit under `True` or `1.0` is still a type of exact ints.
        if found is not None:
            return found
        sizes = tuple([_checked(size) for size in sizes])
        self = TensorType.__new__(TensorType)
        self.dtype, self.shape, self._text = dtype_of(dtype), sizes, None
        return TensorType._interned.setdefault((self.dtype, sizes), self)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def symbols(self) -> tuple[Dim, ...]:
        """Symbols that occur in the shape, each once, in order of occurrence."""
        return tuple(dict.fromkeys(s for size in self.shape for s in symbols(size)))

    def substitute(self, bindings: Mapping[Dim, Size]) -> TensorType:
        if not bindings or all(type(size) is int for size in self.shape):
            return self
        return TensorType.of(self.dtype, tuple(substitute(size, bindings) for size in self.shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return self if dtype is self.dtype else TensorType.of(dtype, self.shape)

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType.of(self.dtype, shape)

    def __reduce__(self) -> Any:
        return TensorType.of, (self.dtype, self.shape)  # a copy is the same object

    def __str__(self) -> str:
        if self._text is None:
            self._text = f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"
        return self._text

    __repr__ = __str__


def _checked(size: Any) -> Size:
    try:
        checked = as_size(size)
    except TypeError:
        raise ShapeError(f"a size is an integer or a symbolic dim, not {size!r}") from None
    if isinstance(checked, int) and checked < 0:
        raise ShapeError(f"a size cannot be negative: {checked}")
    return checked
