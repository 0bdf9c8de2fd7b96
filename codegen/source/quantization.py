"""How source targets spell weights that are stored as integers: by functions that give a matrix of the channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from graphc.codegen.source.dialect import Spelled
from graphc.ir.dtypes import f32, i8, u8
from graphc.ir.formats import NF4, Q4_0, Q8_0, Format, Int4, Int8, parse_format
from graphc.ir.formats.shapes import rows_first
from graphc.ir.graph import Op


def is_product_of_bytes(op: Op) -> bool:
    """Whether an `integer_linear` is a product in int8 on both sides: of int8, or of uint8 with one zero point."""
    x, _, values, _, zero_point, _ = op.operands
    assert x is not None and values is not None
    signed = x.dtype is i8 and zero_point is None
    unsigned = x.dtype is u8 and zero_point is not None and zero_point.dtype is u8 and not zero_point.ndim
    return (signed or unsigned) and values.dtype is i8 and op.results[0].dtype is f32 and x.ndim > 1


def dequantize(permuted: Callable[[str, tuple[int, ...]], str]) -> Callable[[Op], Spelled | None]:
    """The spelling of `dequantize`; `permuted` gives the text of an array with its axes in another order. What is as
    short spelled out has none."""

    def spell(op: Op) -> Spelled | None:
        attributes = op.attribute_dict
        form, shape = parse_format(attributes["format"]), attributes["shape"]
        if attributes["dtype"] is not f32 or isinstance(form, Int8) or not all(isinstance(size, int) for size in shape):
            return None
        rows = rows_text(form, [f"{{{i}}}" for i in range(len(op.operands))], shape)
        return None if rows is None else _from_rows(rows, form, shape, permuted)

    return spell


def rows_text(form: Format, parts: Sequence[str], shape: tuple[int, ...]) -> str | None:
    """The text of the weight as a matrix with a row for each channel, None where the format is not spelled so."""
    found = rows_function(form, shape)
    if found is None:
        return None
    function, options = found
    text = f"{function}({', '.join([*parts, *filter(None, [options])])})"
    columns = prod(shape) // shape[form.channel_axis(len(shape))]
    return f"{text}[:, :{columns}]" if isinstance(form, Int4) and columns % 2 else text


def rows_function(form: Format, shape: tuple[int, ...]) -> tuple[str, str] | None:
    """The function that makes this matrix of the arrays, and the text of its options; None where there is none. What
    has an odd number of four bits in a row has one more column."""
    rows = shape[form.channel_axis(len(shape))]
    if not prod(shape):
        return None
    sizes = f"rows={rows}, columns={prod(shape) // rows}"
    match form:
        case Int8(tensor=False):
            return "int8_rows", ""
        case Int4():
            size = form.size(shape)
            size += size % 2
            return "int4_rows", "" if size == 32 else f"block={size}"
        case NF4(double=0):
            return "nf4_rows", f"{sizes}, block={form.block}"
        case NF4():
            return "nf4_double_rows", f"{sizes}, block={form.block}, double={form.double}"
        case Q4_0() | Q8_0():
            return f"{form.name}_rows", ""
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


# --- with the functions of NumPy's interface --------------------------------------------------------------------------

numpy_dequantize = dequantize(lambda text, axes: f"{text}.transpose({', '.join(map(str, axes))})")


def numpy_helpers(module: str) -> dict[str, str]:
    """The functions that are mentioned, for arrays of a module with NumPy's interface; tables are NumPy's."""
    return {name: source.replace("xp.", f"{module}.") for name, source in _HELPERS.items()}


_HELPERS = {
    "int4_rows": '''
def int4_rows(values, scales, zero_points=None, block=32):
    """A matrix from integers of 4 bits, two a byte, in blocks of a row: less their zero point, times their scale."""
    whole = xp.stack([values & 15, values >> 4], -1).reshape(len(values), -1).astype(xp.float32)
    if zero_points is None:
        whole -= 8
    else:
        zero_points = xp.stack([zero_points & 15, zero_points >> 4], -1).reshape(len(values), -1)
        whole -= xp.repeat(zero_points[:, : scales.shape[1]], block, 1)[:, : whole.shape[1]]
    return whole * xp.repeat(scales, block, 1)[:, : whole.shape[1]]
''',
    "q4_0_rows": '''
def q4_0_rows(values, scales):
    """A matrix from GGUF's Q4_0: half a block in the low four bits of its bytes, half in the high ones."""
    whole = xp.concatenate([values & 15, values >> 4], -1).astype(xp.float32) - 8
    whole *= scales[..., None]
    return whole.reshape(len(scales), -1)
''',
    "q8_0_rows": '''
def q8_0_rows(values, scales):
    """A matrix from GGUF's Q8_0: integers of 8 bits in blocks that have a scale."""
    whole = values.astype(xp.float32) * scales[..., None]
    return whole.reshape(len(scales), -1)
''',
    "nf4_table": '''
def nf4_table():
    """What bitsandbytes' 4-bit normal floats stand for: quantiles of the normal distribution, 0 and both ends."""
    table = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
    table += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
    table += [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
    return np.array([*table, 0.7229568362236023, 1.0], np.float32)
''',
    "NF4_TABLE": "NF4_TABLE = nf4_table()",
    "dynamic_map": '''
def dynamic_map():
    """bitsandbytes' 8-bit map: seven decades below 1, each with twice as many values as the one below."""
    steps = 2.0 ** np.repeat(range(7), 2 ** np.arange(7))
    i = np.arange(1, 128) - steps + [[0], [1]]
    first, step = np.float64(np.float32(0.1)), (np.float32(0.9) / steps.astype(np.float32)).astype(np.float64)
    bounds = np.where(i <= (steps - 1) / 2, first + step * i, 1 - step * (steps - i)).astype(np.float32)
    means = (10.0 ** (np.log2(steps) - 6)).astype(np.float32) * (bounds.sum(0) / 2)
    return np.concatenate([-means[::-1], np.float32([0]), means, np.float32([1])])
''',
    "DYNAMIC_MAP": "DYNAMIC_MAP = dynamic_map()",
    "nf4_rows": '''
def nf4_rows(values, scales, rows, columns, block):
    """A matrix from 4-bit normal floats, two a byte: places in a table, in blocks that have a scale."""
    places = xp.stack([values >> 4, values & 15], -1).ravel()[: rows * columns]
    flat = xp.take(NF4_TABLE, places, mode="clip") * xp.repeat(scales, block)[: rows * columns]
    return flat.reshape(rows, columns)
''',
    "nf4_double_rows": '''
def nf4_double_rows(values, scales, scales_of_scales, mean_scale, rows, columns, block, double):
    """As `nf4_rows`; scales are places in a map, in blocks that have a scale, and less their mean."""
    found = xp.take(DYNAMIC_MAP, scales, mode="clip") * xp.repeat(scales_of_scales, double)[: len(scales)]
    return nf4_rows(values, found + mean_scale, rows, columns, block)
''',
}
