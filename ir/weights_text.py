"""Reading a `weight` line of IR text into a weight table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.ir.cursor import NAME, Cursor
from graphc.ir.dtypes import dtype
from graphc.ir.errors import GraphcError
from graphc.ir.module import Weight, WeightTable
from graphc.ir.recipes import Cast, Permute, Recipe, Reshape, Step

Array = np.ndarray[Any, Any]


def parse_weight(table: WeightTable, cursor: Cursor, arrays: Mapping[str, Array] | None) -> None:
    """Declare the weight of the line under `cursor`; its array is in the line, or in `arrays` under its name."""
    cursor.expect("weight ")
    name = cursor.string()
    cursor.expect(":")
    type = cursor.type()
    if any(not isinstance(size, int) for size in type.shape):
        raise cursor.error("a weight of sizes known beforehand")
    trainable = cursor.try_take("trainable")
    recipe = _recipe(cursor) if cursor.try_take("from ") else None
    weight = Weight(name, type, trainable, recipe=recipe)
    if cursor.try_take("tied "):
        weight.alias = cursor.string()
        if weight.alias not in table:
            raise cursor.error(f"the name of a weight declared above, not {weight.alias!r},")
    elif cursor.try_take("="):
        values = np.asarray(cursor.attribute())
        if values.shape != type.shape:
            raise cursor.error(f"values of shape {list(type.shape)}, not {list(values.shape)},")
        weight.array = values.astype(type.dtype.numpy)
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
        cursor.at = 0
        raise cursor.error(f"a weight that fits ({error})") from error


def _recipe(cursor: Cursor) -> Recipe:
    cursor.expect("(")
    sources = [cursor.string()]
    while cursor.try_take(","):
        sources.append(cursor.string())
    cursor.expect(")")
    axis, splits = 0, ()
    if cursor.try_take("axis "):
        axis = int(cursor.take(r"\d+", "an axis"))
        cursor.expect("splits ")
        splits = cursor.attribute()
    steps: list[Step] = []
    while cursor.looking_at(r"permute|reshape|cast"):
        kind = cursor.take(NAME, "a step")
        first = cursor.attribute()
        if kind == "permute":
            steps.append(Permute(first))
        elif kind == "reshape":
            steps.append(Reshape(first, cursor.attribute()))
        else:
            steps.append(Cast(dtype(first[0]), dtype(first[1])))
    return Recipe(tuple(sources), tuple(steps), axis, splits)
