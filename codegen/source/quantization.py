"""How source targets spell weights that are stored as integers: by functions that give a matrix of the channels."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from graphc.codegen.source.dialect import Spelled
from graphc.ir.dtypes import f32
from graphc.ir.formats import NF4, Q4_0, Format, Int4, Int8, parse_format
from graphc.ir.formats.shapes import rows_first
from graphc.ir.graph import Op


def dequantize(permuted: Callable[[str, tuple[int, ...]], str]) -> Callable[[Op], Spelled | None]:
    """The spelling of `dequantize`; `permuted` gives the text of an array with its axes in another order. What is as
    short spelled out has none."""

    def spell(op: Op) -> Spelled | None:
        attributes = op.attribute_dict
        form, shape = parse_format(attributes["format"]), attributes["shape"]
        if attributes["dtype"] is not f32 or not all(isinstance(size, int) for size in shape):
            return None
        rows = rows_text(form, [f"{{{i}}}" for i in range(len(op.operands))], shape)
        return None if rows is None else _from_rows(rows, form, shape, permuted)

    return spell


def rows_text(form: Format, parts: list[str], shape: tuple[int, ...]) -> str | None:
    """The text of the weight as a matrix with a row for each channel, None where the format is not spelled so."""
    axis = form.channel_axis(len(shape))
    rows, columns = shape[axis], prod(shape) // shape[axis] if shape[axis] else 0
    if not rows or not columns:
        return None
    arguments = ", ".join(parts)
    match form:
        case Int4():
            text = f"int4_rows({arguments}{'' if form.block == 32 else f', block={form.block}'})"
            return f"{text}[:, :{columns}]" if columns % 2 else text
        case NF4():
            values, *scales = parts
            found = f"nf4_scales({', '.join(scales)}, {form.double})" if form.double else scales[0]
            return f"nf4_rows({values}, {found}, {rows}, {columns}, {form.block})"
        case Q4_0():
            return f"q4_0_rows({arguments})"
        case _:
            return None


def _from_rows(rows: str, form: Format, shape: tuple[int, ...], permuted: Callable[[str, tuple[int, ...]], str]) -> str:
    """The weight, from the text of its matrix."""
    order = rows_first(shape, form.channel_axis(len(shape)))
    moved = tuple(shape[axis] for axis in order)
    if len(moved) != 2:
        rows = f"{rows}.reshape({', '.join(map(str, moved))})"
    back = tuple(int(axis) for axis in np.argsort(order))
    if back == tuple(range(len(back))):
        return rows
    return f"{rows}.T" if back == (1, 0) else permuted(rows, back)


def linear_rows(op: Op) -> tuple[str, str] | None:
    """The function that gives the kernel of a `quantized_linear` as a matrix [out, in], and the text of its options;
    None where there is none."""
    form, shape = parse_format(op.attribute_dict["format"]), op.attribute_dict["shape"]
    if form.channel_axis(2) != 1 or not all(shape):
        return None
    match form:
        case Int8(tensor=False):
            return "int8_rows", ""
        case Int4():
            return "int4_rows", "" if form.block == 32 else f"block={form.block}"
        case NF4(double=0):
            return "nf4_rows", f"rows={shape[1]}, columns={shape[0]}, block={form.block}"
        case Q4_0():
            return "q4_0_rows", ""
        case _:
            return None
