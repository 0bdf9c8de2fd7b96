"""What a format of quantized weights is: integer arrays that stand for a tensor of floats.

A format is a frozen dataclass with one text, `int8{axis=0}`: the class's name, then the options that are not at their
defaults. It says which arrays it needs for a tensor (`parts`), makes them (`quantize`), and gives the tensor back
twice: in NumPy (`dequantize`, the reference) and written with ops (`decompose`, what every target can run).

Most formats give every channel its own scales. A channel is an index along `axis`: of a linear or convolution kernel
the last axis, of an embedding table the first. Seen by channels, a tensor is a matrix of a row for each channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, ClassVar, TypeVar

import numpy as np

from graphc.ir.dtypes import DType, f16, f32, f64
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.suggestions import nearest
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]
Tensor = Any
"""What `decompose` computes with: values, or arrays when called with none being recorded."""

SCALE_BITS = 16
"""Significant bits of a scale that is found here: its product with an integer of 8 bits is exact in float32, so every
target computes the same, and quantizing what was dequantized finds the scale again."""

Self = TypeVar("Self", bound="Format")


@dataclass(frozen=True, slots=True)
class Part:
    """One array of a format: what it is called, and its type."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Format(ABC):
    """See the module's docstring. Subclasses name themselves by `name` and are found by `parse_format`."""

    name: ClassVar[str]
    axis: int | None = None
    """The axis of channels; None: the last one, which is an output channel of kernels."""

    # --- what a format answers --------------------------------------------------------------------------------

    @abstractmethod
    def parts(self, shape: Sequence[Any]) -> tuple[Part, ...]:
        """The arrays for a tensor of this shape, the integers first. Raises `ShapeError` for one that does not fit."""

    @abstractmethod
    def quantize(self, array: Array) -> tuple[Array, ...]:
        """The arrays for a tensor of finite floats, rounded to nearest. Raises `GraphcError` for others."""

    @abstractmethod
    def dequantize(self, *arrays: Array, shape: Sequence[int]) -> Array:
        """The tensor in float64 or float32, not yet rounded to the dtype that is wanted."""

    @abstractmethod
    def decompose(self, *parts: Tensor, shape: Sequence[Any], dtype: DType) -> Tensor:
        """`dequantize` written with ops."""

    @abstractmethod
    def cotangents(self, dy: Tensor, *parts: Tensor, shape: Sequence[Any]) -> tuple[Tensor | None, ...]:
        """The cotangent of each part from that of the tensor, None for integers."""

    @property
    def has_rows(self) -> bool:
        """Whether the first axis is that of channels, and each array has its part of them along its own first axis."""
        return self.axis == 0

    def joined_axes(self, shapes: Sequence[Sequence[Any]], axis: int) -> tuple[int, ...] | None:
        """Along which axis each array of tensors that are joined along `axis` is those of the tensors joined, in order;
        None where it is not so, as where they would share a scale."""
        return None

    # --- what all formats share -------------------------------------------------------------------------------

    def of_channels(self: Self, axis: int) -> Self:
        """The format with its channels along `axis`, unless it says which already."""
        return self if self.axis is not None else replace(self, axis=axis)

    def channel_axis(self, rank: int) -> int:
        """The axis of channels of a tensor of so many axes, counted from the front."""
        axis = rank - 1 if self.axis is None else self.axis
        if not -rank <= axis < rank:
            raise ShapeError(f"{self} has its channels along axis {axis}, which a tensor of {rank} axes has not")
        return axis % rank

    def storage_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of all arrays for a tensor of this shape, scales and zero points counted."""
        sizes = [(size for size in part.type.shape if isinstance(size, int)) for part in self.parts(shape)]
        return sum(prod(s) * part.type.dtype.bits // 8 for s, part in zip(sizes, self.parts(shape), strict=True))

    def check(self, types: Sequence[TensorType], shape: Sequence[Any]) -> None:
        """Raise `ShapeError` unless these are the types of the arrays for a tensor of this shape."""
        wanted = self.parts(shape)
        if len(types) != len(wanted):
            names = ", ".join(part.name for part in wanted)
            raise ShapeError(f"{self} takes {len(wanted)} arrays ({names}), not {len(types)}")
        for part, found in zip(wanted, types, strict=True):
            same = found.dtype is part.type.dtype or (part.type.dtype.is_float and found.dtype is f64)
            if not same or found.shape != part.type.shape:
                raise ShapeError(f"{self} of shape {list(shape)}: {part.name} is {part.type}, not {found}")

    def __str__(self) -> str:
        options = [
            each.name if getattr(self, each.name) is True else f"{each.name}={_shown(getattr(self, each.name))}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        ]
        return self.name + (f"{{{','.join(options)}}}" if options else "")


def _shown(value: object) -> str:
    return value.short if isinstance(value, DType) else str(value).lower()


# --- by name --------------------------------------------------------------------------------------------------------

FORMATS: dict[str, type[Format]] = {}
"""Every format by the name that its text begins with."""

F = TypeVar("F", bound=type[Format])


def register_format(cls: F) -> F:
    """Decorator: make a class of formats known by its name."""
    FORMATS[cls.name] = cls
    return cls


def parse_format(text: object) -> Format:
    """The format that a text stands for: `int8`, `int4{block=64,asymmetric}`. Raises `GraphcError` for no such text."""
    if isinstance(text, Format):
        return text
    if not isinstance(text, str):
        raise GraphcError(f"a format is a text such as 'int8' or 'int4{{block=32}}', not {text!r}")
    name, brace, rest = text.strip().partition("{")
    found = FORMATS.get(name.strip())
    if found is None:
        raise GraphcError(f"there is no format {name.strip()!r}{nearest(name.strip(), FORMATS)}")
    if brace and not rest.endswith("}"):
        raise GraphcError(f"the format {text!r} lacks its closing brace")
    options = {each.name: each for each in fields(found)}
    values: dict[str, Any] = {}
    for option in filter(None, map(str.strip, rest.removesuffix("}").split(","))):
        key, equals, value = (part.strip() for part in option.partition("="))
        if key not in options:
            raise GraphcError(f"the format {name} has no option {key!r}{nearest(key, options)}")
        if key in values:
            raise GraphcError(f"the format {text!r} says {key} twice")
        try:
            values[key] = _option(options[key].default, value if equals else None)
        except (ValueError, GraphcError):
            raise GraphcError(f"the format {text!r}: {option!r} is not what {key} takes") from None
    return found(**values)


def _option(default: Any, value: str | None) -> Any:
    """The value of an option, which is a flag, a dtype or a number as its default is."""
    if isinstance(default, bool):
        if value not in (None, "true", "false"):
            raise ValueError(value)
        return value != "false"
    if value is None:
        raise ValueError(value)
    if isinstance(default, DType):
        return dtype_of(value)
    return None if value == "none" else int(value)


# --- numbers --------------------------------------------------------------------------------------------------------

_LEAST = {f16: 2.0**-24, f32: 2.0**-126}
"""The least scale of a dtype: of float32 the least that processors do not flush to zero."""
_MOST = {f16: 65504.0, f32: float(np.finfo(np.float32).max)}


def finite(array: Array, what: object) -> Array:
    """The array in float64. Raises `GraphcError` for NaN and infinities, and for what is not of floats."""
    if dtype_of(array.dtype).kind != "f":
        raise GraphcError(f"{what} takes floats, not {array.dtype}")
    wide = array.astype(np.float64)
    if not np.isfinite(wide).all():
        number = int(np.count_nonzero(~np.isfinite(wide)))
        raise GraphcError(f"{what} cannot hold NaN or infinities: {number} of {wide.size} elements are not finite")
    return wide


def held_in(dtype: DType, array: Array, what: object) -> Array:
    """The array in a dtype, f32 or f16. Raises `GraphcError` as `finite` does, and for numbers that are too large."""
    wide = finite(array, what)
    most = float(np.abs(wide).max(initial=0))
    with np.errstate(over="ignore"):
        found = wide.astype(dtype.numpy)
    if not np.isfinite(found).all():
        raise GraphcError(f"{what} keeps numbers in {dtype}, which does not hold {most:.3g}")
    return found


def rounded_scales(largest: Array, steps: int, dtype: DType, what: object) -> Array:
    """Scales as they are stored, which divide largest magnitudes (float64) into `steps`; 1 where all rounds to zero.
    Those of float32 have `SCALE_BITS` significant bits. Raises `GraphcError` for one that the dtype does not hold."""
    scales = largest / steps
    if scales.size and scales.max() > _MOST[dtype]:
        raise GraphcError(f"{what}: a scale of {scales.max():.3g} is more than {dtype} holds; write scales=f32")
    kept = np.maximum(scales, _LEAST[dtype])
    if dtype is f32:
        fraction, exponent = np.frexp(kept)
        kept = np.minimum(np.ldexp(np.rint(np.ldexp(fraction, SCALE_BITS)), exponent - SCALE_BITS), _MOST[f32])
    return np.where(largest <= kept / 2, 1, kept).astype(dtype.numpy)


__all__ = ["FORMATS", "SCALE_BITS", "Array", "Format", "Part", "finite", "held_in", "parse_format", "register_format"]
