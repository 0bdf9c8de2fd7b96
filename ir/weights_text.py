"""Reading a `weight` line of IR text into a weight table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from graphc.ir.cursor import Cursor, plain_type
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.literals import literal_array
from graphc.ir.module import Weight, WeightTable
from graphc.ir.recipes import Cast, Permute, Quantize, Recipe, Reshape, Step
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]


_PLAIN = re.compile(r'weight "([^"\\]+)" : ([a-z]\w*\[[0-9, ]*\])( trainable)?(?: sha256:([0-9a-f]{64}))?')


def parse_plain_weight(table: WeightTable, line: str, arrays: Mapping[str, Array] | None) -> bool:
    """Declare the weight of a line of the commonest form; whether it was. Everything else is for `parse_weight`."""
    plain = _PLAIN.fullmatch(line)
    if plain is None:
        return False
    name, text, trainable, digest = plain.groups()
    type = plain_type(text)
    if type is None or name in table or (arrays is not None and name in arrays):
        return False
    table.declare(Weight(name, type, trainable is not None, digest=digest))
    return True


def parse_weight(table: WeightTable, cursor: Cursor, arrays: Mapping[str, Array] | None) -> None:
    """Declare the weight of the line under `cursor`; its array is in the line, or in `arrays` under its name."""
    cursor.expect("weight ")
    place = cursor.at
    name = cursor.string()
    cursor.expect(":")
    type = cursor.type()
    if type.symbols:
        raise cursor.failure(f"the sizes of a weight are numbers, not {type}")
    trainable = cursor.try_take("trainable")
    recipe = _recipe(cursor) if cursor.try_take("from ") else None
    weight = Weight(name, type, trainable, recipe=recipe)
    if cursor.try_take("tied "):
        start = cursor.at
        weight.alias = cursor.string()
        if weight.alias not in table or table.source(weight.alias).type is not type:
            cursor.at = start
            raise cursor.failure(f"there is no weight {weight.alias!r} of type {type} above")
    elif cursor.try_take("="):
        weight.array = _values(cursor, type)
    elif cursor.try_take("sha256:"):
        weight.digest = cursor.take(r"[0-9a-f]{64}", "64 hexadecimal digits")
    if not cursor.at_end():
        raise cursor.error("the end of the line")
    try:
        table.declare(weight)
        if weight.array is None and weight.alias is None and arrays is not None and name in arrays:
            digest = weight.digest
            table.set(name, arrays[name])
            if digest is not None and table.digest(name) != digest:
                raise GraphcError(f"the array given for the weight {name!r} is not the one the text refers to")
    except GraphcError as error:
        cursor.at = place
        raise cursor.failure(str(error)) from error


def _recipe(cursor: Cursor) -> Recipe:
    cursor.expect("(")
    sources = [cursor.string()]
    while cursor.try_take(","):
        sources.append(cursor.string())
    cursor.expect(")")
    axis, splits = 0, ()
    if cursor.try_take("axis "):
        axis = cursor.integer("an axis")
        cursor.expect("splits ")
        splits = cursor.integers()
    steps: list[Step] = []
    while True:
        if cursor.try_take("permute"):
            steps.append(Permute(cursor.integers()))
        elif cursor.try_take("reshape"):
            steps.append(Reshape(cursor.integers(), cursor.integers()))
        elif cursor.try_take("cast"):
            cursor.expect("[")
            before = cursor.dtype()
            cursor.expect(",")
            steps.append(Cast(before, cursor.dtype()))
            cursor.expect("]")
        elif cursor.try_take("quantize"):
            steps.append(_quantize_step(cursor))
        else:
            return Recipe(tuple(sources), tuple(steps), axis, splits)


def _quantize_step(cursor: Cursor) -> Quantize:
    cursor.expect("[")
    form = cursor.string()
    cursor.expect(",")
    shape = cursor.integers()
    cursor.expect(",")
    before = cursor.dtype()
    cursor.expect(",")
    part = cursor.integer("the number of a part")
    cursor.expect("]")
    return Quantize(form, shape, before, part)


def _values(cursor: Cursor, type: TensorType) -> Array:
    """The array of nested lists; `[]` for any type without elements."""
    start = cursor.at
    value = cursor.attribute()
    try:
        if value == () and 0 in type.shape:
            return np.zeros(cast("tuple[int, ...]", type.shape), type.dtype.numpy)
        array = literal_array(value, type.dtype)
        if array.shape != type.shape:
            raise ShapeError(f"the values have shape {list(array.shape)}, not {list(type.shape)}")
    except GraphcError as error:
        cursor.at = start
        raise cursor.failure(error.message) from None
    with np.errstate(all="ignore"):
        return array.astype(type.dtype.numpy)
