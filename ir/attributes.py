"""Attribute values: what may stand in an op's `{name = value}`, how they are made canonical, interned and written.

An attribute is a bool, int, float, complex, str, `DType`, `Dim`, `FunctionRef`, None, or a tuple of these. An op's
attributes are one tuple in the order of its signature, interned by `OpDef.intern`: equal tuples of one op are one
object, where equal means the same Python types and the same bits (1, 1.0 and True differ, so do 0.0 and -0.0).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from graphc.ir.dims import Dim, Size
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError

Attributes = tuple[Any, ...]

# Words for signatures; `converter` knows them by name.
Axis: TypeAlias = int
Axes: TypeAlias = Sequence[int]
Shape: TypeAlias = Sequence[Size]
Pairs: TypeAlias = Sequence[tuple[Size, Size]]
Padding: TypeAlias = str | Pairs
Scalars: TypeAlias = Any


class FunctionRef(str):
    """The name of a function of the same module, as an attribute (`callee = @block`)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "@" + str(self)


# --- from what a caller passes to the canonical value ------------------------------------------------------------


def as_int(value: Any) -> int:
    if isinstance(value, (bool, float)):
        raise TypeError
    return operator.index(value)


def as_bool(value: Any) -> bool:
    if isinstance(value, (bool, int)) or type(value).__name__ == "bool":
        return bool(value)
    raise TypeError


def as_float(value: Any) -> float:
    if isinstance(value, (str, bytes, complex)):
        raise TypeError
    return float(value)


def as_str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return str(value)


def as_size(value: Any) -> Any:
    return value if isinstance(value, Dim) else as_int(value)


def as_scalars(value: Any) -> Any:
    """A number or nested sequences of numbers, as Python numbers."""
    if isinstance(value, (bool, int, float, complex)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(as_scalars(item) for item in cast("Sequence[Any]", value))
    if hasattr(value, "tolist"):
        return as_scalars(value.tolist())
    raise TypeError


def as_function(value: Any) -> FunctionRef:
    return value if isinstance(value, FunctionRef) else FunctionRef(as_str(getattr(value, "name", value)))


def tuple_of(item: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def convert(value: Any) -> tuple[Any, ...]:
        if hasattr(value, "tolist"):  # a NumPy array of sizes
            value = value.tolist()
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError
        return tuple(item(entry) for entry in cast("Sequence[Any]", value))

    return convert


def as_pair(value: Any) -> tuple[Any, ...]:
    pair = tuple_of(as_size)(value)
    if len(pair) != 2:
        raise TypeError
    return pair


def optional(item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else item(value)


def either(*items: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        for item in items:
            try:
                return item(value)
            except (TypeError, ValueError, GraphcError):
                continue
        raise TypeError

    return convert


def one_of(*choices: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in choices:
            raise TypeError
        return str(value)

    return convert


# What an annotation in an op's signature means. Annotations are text (`from __future__ import annotations`), so an
# op file needs no more than the words below; `Literal["a", "b"]` is read by `converter`.
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int": as_int,
    "float": as_float,
    "bool": as_bool,
    "str": as_str,
    "Size": as_size,
    "DType": dtype_of,
    "Axis": as_int,
    "Axes": either(tuple_of(as_int), lambda value: (as_int(value),)),
    "Shape": tuple_of(as_size),
    "Scalars": as_scalars,
    "FunctionRef": as_function,
    "tuple[int, ...]": tuple_of(as_int),
    "tuple[float, ...]": tuple_of(as_float),
    "tuple[bool, ...]": tuple_of(as_bool),
    "tuple[str, ...]": tuple_of(as_str),
    "Pairs": tuple_of(as_pair),
    "Padding": either(one_of("same", "valid"), tuple_of(as_pair)),
}

BY_BITS = frozenset({"float", "tuple[float, ...]", "Scalars"})
"""Annotations under which values of unlike types or signed zeros can meet."""


def converter(annotation: str) -> Callable[[Any], Any]:
    """The function that makes a value of this annotation canonical, or raises TypeError if it does not fit."""
    annotation = annotation.strip()
    if annotation in _CONVERTERS:
        return _CONVERTERS[annotation]
    if annotation.startswith("Literal["):
        return one_of(*(choice.strip().strip("\"'") for choice in annotation[8:-1].split(",")))
    if annotation.endswith("| None"):
        return optional(converter(annotation[: -len("| None")]))
    raise TypeError(f"no such kind of attribute: {annotation!r}; add it to ir/attributes.py")


# --- text -------------------------------------------------------------------------------------------------------


def attribute_text(value: Any) -> str:
    """The value as IR text writes it; `Cursor.attribute` reads it back."""
    kind: object = value.__class__
    if kind is tuple:
        return f"[{', '.join(map(attribute_text, value))}]"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        return repr(value)
    if kind is complex:
        return f"complex({value.real!r}, {value.imag!r})"
    if kind is DType:
        return value.short
    if kind is FunctionRef:
        return f"@{value}"
    if kind is str:
        return quoted(value)
    if value is None:
        return "none"
    return str(value)  # a Dim


def quoted(text: str) -> str:
    """A string literal of IR text: double quotes, backslash escapes for quotes, backslashes and control characters."""
    if text.isprintable() and "\\" not in text and '"' not in text:
        return f'"{text}"'
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):06x}" for c in escaped) + '"'
