"""Functions about shapes: making tensors, moving, joining and taking elements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from graphc.frontends.ops.dispatch import axes_of, counted_axis, creating, function, kind, tensor
from graphc.frontends.symbolic import SymbolicTensor, size_of
from graphc.ir import ops as ir
from graphc.ir.dims import Dim, exact_div
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, GraphcError, ShapeError, UnsupportedError
from graphc.ir.inference import broadcast_shapes


def shape(x: Any) -> tuple[Any, ...]:
    """The sizes of `x`; where they are open, symbolic ones that calculate, and may stand in shapes."""
    if isinstance(x, SymbolicTensor):
        return x.tensor_type.shape
    return tuple(tensor(x).shape)


def ndim(x: Any) -> int:
    """How many axes `x` has."""
    return len(shape(x))


def size(x: Any) -> Any:
    """How many elements `x` has."""
    total: Any = 1
    for each in shape(x):
        total = total * each
    return total


def _sizes(given: Any) -> tuple[Any, ...]:
    """A shape as callers write it: a size or a sequence of them; -1 is kept."""
    if isinstance(given, (int, np.integer, Dim, str)):
        given = (given,)
    entries = given.tolist() if isinstance(given, np.ndarray) else list(given)
    return tuple(-1 if _is_rest(entry) else size_of(entry, _no_fresh) for entry in entries)


def _is_rest(entry: Any) -> bool:
    return entry is None or (isinstance(entry, (int, np.integer)) and entry == -1)


def _no_fresh() -> Dim:
    raise ShapeError("a shape to make cannot hold None; use `graphc.ops.shape(x)` for sizes that are open")


def _whole(given: Any) -> tuple[Any, ...]:
    sizes = _sizes(given)
    if any(isinstance(each, int) and each < 0 for each in sizes):
        _no_fresh()
    return sizes


# --- making -------------------------------------------------------------------------------------------------------


@creating
def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """A tensor of this shape, `fill_value` everywhere."""
    value = tensor(fill_value)
    if dtype is not None:
        value = ir.convert(value, dtype=dtype_of(dtype))
    return ir.broadcast(value, shape=_whole(shape))


@creating
def zeros(shape: Any, dtype: Any = None) -> Any:
    """All 0."""
    return full(shape, 0.0, dtype or "float32")


@creating
def ones(shape: Any, dtype: Any = None) -> Any:
    """All 1."""
    return full(shape, 1.0, dtype or "float32")


@function
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """`fill_value` in the shape of `x`, and in its dtype by default."""
    x = tensor(x)
    return full(x.shape, fill_value, dtype or kind(x))


@function
def zeros_like(x: Any, dtype: Any = None) -> Any:
    """All 0, in the shape of `x`."""
    return full_like(x, 0, dtype)


@function
def ones_like(x: Any, dtype: Any = None) -> Any:
    """All 1, in the shape of `x`."""
    return full_like(x, 1, dtype)


@creating
def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    """Numbers from `start` (0 if there is but one argument) up to `stop`, without it; symbolic sizes with step 1."""
    start, stop, step = (0, start, step) if stop is None else (start, stop, step)
    step = 1 if step is None else step
    if isinstance(start, Dim) or isinstance(stop, Dim):
        if step != 1 or isinstance(start, float) or isinstance(stop, float):
            raise UnsupportedError("arange between symbolic sizes takes steps of 1")
        of = dtype_of(dtype or "int32")
        counted = ir.iota(shape=(stop - start,), dtype=of)
        if start == 0:
            return counted
        return counted + (start if isinstance(start, int) else ir.convert(ir.dim_size(size=start), dtype=of))
    numbers = (start, stop, step)
    default = "float32" if any(isinstance(n, (float, np.floating)) for n in numbers) else "int32"
    found = np.arange(*numbers).astype(dtype_of(dtype or default).numpy)
    if start == 0 and step == 1 and len(found):
        return ir.iota(shape=(len(found),), dtype=dtype_of(dtype or default))
    return tensor(found)


def linspace(start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = None) -> Any:
    """`num` numbers at equal distances from `start` to `stop`."""
    return tensor(np.linspace(start, stop, num, endpoint).astype(dtype_of(dtype or "float32").numpy))


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Ones on a diagonal, zeros elsewhere."""
    return tensor(np.eye(N, M, k, dtype_of(dtype or "float32").numpy))


def identity(n: int, dtype: Any = None) -> Any:
    """The identity matrix."""
    return eye(n, dtype=dtype)


# --- moving -------------------------------------------------------------------------------------------------------


@function
def reshape(x: Any, newshape: Any) -> Any:
    """The elements of `x` under another shape; one size may be -1."""
    return ir.reshape(tensor(x), shape=_sizes(newshape))


@function
def ravel(x: Any) -> Any:
    """The elements of `x` along one axis."""
    return ir.reshape(tensor(x), shape=(-1,))


@function
def transpose(x: Any, axes: Any = None) -> Any:
    """`x` with its axes in another order (reversed, by default)."""
    x = tensor(x)
    order = tuple(reversed(range(len(x.shape)))) if axes is None else axes_of(x, axes)
    return ir.transpose(x, permutation=tuple(order))


@function
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """`x` with two axes exchanged."""
    x = tensor(x)
    order = list(range(len(x.shape)))
    a, b = counted_axis(axis1, len(order)), counted_axis(axis2, len(order))
    order[a], order[b] = order[b], order[a]
    return ir.transpose(x, permutation=tuple(order))


@function
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """`x` with axes moved to other places."""
    x = tensor(x)
    sources, places = axes_of(x, source), axes_of(x, destination)
    order = [axis for axis in range(len(x.shape)) if axis not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return ir.transpose(x, permutation=tuple(order))


@function
def squeeze(x: Any, axis: Any = None) -> Any:
    """`x` without axes of size 1 (all of them, or `axis`)."""
    x = tensor(x)
    if axis is None:
        return ir.squeeze(x, [i for i, each in enumerate(x.shape) if isinstance(each, int) and each == 1])
    axes = axes_of(x, axis)
    for each in axes:
        if not (isinstance(x.shape[each], int) and x.shape[each] == 1):
            raise ShapeError(f"squeeze: axis {each} of shape {tuple(x.shape)} has size {x.shape[each]}, not 1")
    return ir.squeeze(x, axes)


@function
def expand_dims(x: Any, axis: Any) -> Any:
    """`x` with axes of size 1 at these places."""
    x = tensor(x)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    return ir.expand_dims(x, tuple(counted_axis(each, len(x.shape) + len(axes)) for each in axes))


@function
def broadcast_to(x: Any, shape: Any) -> Any:
    """`x` repeated along axes of size 1 to this shape."""
    return ir.broadcast(tensor(x), shape=_whole(shape))


@function
def flip(x: Any, axis: Any = None) -> Any:
    """`x` read from the end along `axis`."""
    x = tensor(x)
    return ir.reverse(x, axes=axes_of(x, axis))


@function
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Any:
    """`x` with so many elements before and after each axis."""
    if mode != "constant":
        raise UnsupportedError(f"pad with mode={mode!r} is not supported yet; mode='constant' is")
    x = tensor(x)
    width = np.asarray(pad_width, dtype=object)
    pairs = np.broadcast_to(width, (len(x.shape), 2)).tolist()
    return ir.pad(x, padding=pairs, value=0.0 if constant_values is None else constant_values)


@function
def tile(x: Any, repeats: Any) -> Any:
    """`x` repeated so many times along each axis."""
    x = tensor(x)
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    counts = [1] * (len(x.shape) - len(counts)) + counts
    sizes = [1] * (len(counts) - len(x.shape)) + list(x.shape)
    parted = ir.reshape(x, shape=[part for each in sizes for part in (1, each)])
    spread = ir.broadcast(parted, shape=[part for pair in zip(counts, sizes, strict=True) for part in pair])
    return ir.reshape(spread, shape=[count * each for count, each in zip(counts, sizes, strict=True)])


@function
def repeat(x: Any, repeats: int, axis: int | None = None) -> Any:
    """Each element of `x` so many times along `axis` (of the flattened tensor, by default)."""
    x = tensor(x)
    if not isinstance(repeats, (int, np.integer)):
        raise UnsupportedError("repeat takes one number of repeats for all elements")
    if axis is None:
        x, axis = ir.reshape(x, shape=(-1,)), 0
    at = counted_axis(axis, len(x.shape))
    sizes = list(x.shape)
    spread = ir.broadcast(ir.expand_dims(x, (at + 1,)), shape=[*sizes[: at + 1], int(repeats), *sizes[at + 1 :]])
    return ir.reshape(spread, shape=[*sizes[:at], sizes[at] * int(repeats), *sizes[at + 1 :]])


# --- joining and parting ------------------------------------------------------------------------------------------


@function
def concatenate(xs: Sequence[Any], axis: int = 0) -> Any:
    """The tensors one after another along `axis`."""
    if not len(xs):
        raise ShapeError("concatenate needs at least one tensor")
    return ir.concat(*[tensor(x) for x in xs], axis=axis)


@function
def stack(x: Sequence[Any], axis: int = 0) -> Any:
    """The tensors side by side along a new axis."""
    if not len(x):
        raise ShapeError("stack needs at least one tensor")
    parts = [tensor(each) for each in x]
    at = counted_axis(axis, len(parts[0].shape) + 1)
    return ir.concat(*[ir.expand_dims(part, (at,)) for part in parts], axis=at)


@function
def hstack(xs: Sequence[Any]) -> Any:
    """Side by side along the second axis (the first, for vectors)."""
    return ir.concat(*[tensor(x) for x in xs], axis=0 if len(tensor(xs[0]).shape) == 1 else 1)


@function
def vstack(xs: Sequence[Any]) -> Any:
    """One below the other, vectors as rows."""
    parts = [tensor(x) for x in xs]
    return ir.concat(*[ir.expand_dims(x, (0,)) if len(x.shape) == 1 else x for x in parts], axis=0)


@function
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """`x` parted along `axis`, into so many equal parts or at these indices."""
    x = tensor(x)
    at = counted_axis(axis, len(x.shape))
    whole = x.shape[at]
    if isinstance(indices_or_sections, (int, np.integer)):
        count = int(indices_or_sections)
        part = exact_div(whole, count)
        if part is None:
            raise ShapeError(f"split: size {whole} of axis {axis} does not divide into {count} equal parts")
        sizes: list[Any] = [part] * count
    else:
        ends = [0, *indices_or_sections, whole]
        sizes = [end - start for start, end in pairwise(ends)]
    found = ir.split(x, sizes=sizes, axis=at)
    return list(found) if isinstance(found, tuple) else [found]


@function
def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Any]:
    """The slices along `axis`, whose size must be known."""
    x = tensor(x)
    at = counted_axis(axis, len(x.shape))
    count = x.shape[at] if num is None else num
    if not isinstance(count, int):
        raise ShapeError(f"unstack: the size of axis {axis} is not known")
    return (
        [ir.squeeze(part, (at,)) for part in ir.split(x, sizes=(1,) * count, axis=at)]
        if count > 1
        else [ir.squeeze(x, (at,))]
    )


@function
def slice(inputs: Any, start_indices: Any, shape: Any) -> Any:
    """The part of this shape that starts there."""
    x = tensor(inputs)
    starts, sizes = list(start_indices), list(shape)
    if any(hasattr(start, "dtype") and not isinstance(start, np.generic) for start in starts):
        return ir.dynamic_slice(x, *starts, sizes=sizes)
    return ir.slice(x, starts=starts, limits=[a + n for a, n in zip(starts, sizes, strict=True)])


@function
def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Any:
    """`inputs` with `updates` in place of the part that starts there."""
    return ir.dynamic_update_slice(tensor(inputs), tensor(updates), *list(start_indices))


@function
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """The slices of `x` at `indices` along `axis` (of all elements, by default); negative ones count from the end."""
    x = tensor(x)
    if axis is None:
        x, axis = ir.reshape(x, shape=(-1,)), 0
    at = counted_axis(axis, len(x.shape))
    places = tensor(indices)
    if not kind(places).is_integer:
        raise DTypeError(f"indices are integers, not {places.dtype}")
    if kind(places).kind == "i":
        count = x.shape[at]
        count = count if isinstance(count, int) else ir.convert(ir.dim_size(size=count), dtype=kind(places))
        places = ir.select(ir.lt(places, 0), ir.add(places, count), places)
    return ir.gather(x, places, axis=at)


@function
def get_item(x: Any, key: Any) -> Any:
    """`x[key]`, as NumPy indexes with integers, slices, None and `...`; one array of integers takes slices."""
    x = tensor(x)
    if not isinstance(key, tuple) and hasattr(key, "dtype") and len(key.shape):
        return take(x, key, axis=0)
    if isinstance(x, np.ndarray):
        return x[key]
    return x[key]


@function
def tril(x: Any, k: int = 0) -> Any:
    """The part of the matrices in the last two axes on and below a diagonal, zeros above."""
    return _triangle(x, lambda row, column: ir.ge(row + k, column))


@function
def triu(x: Any, k: int = 0) -> Any:
    """The part of the matrices in the last two axes on and above a diagonal, zeros below."""
    return _triangle(x, lambda row, column: ir.le(row + k, column))


def _triangle(x: Any, kept: Any) -> Any:
    x = tensor(x)
    if len(x.shape) < 2:
        raise GraphcError("tril and triu take matrices")
    shape = tuple(x.shape[-2:])
    return ir.select(kept(ir.iota(shape=shape, axis=0), ir.iota(shape=shape, axis=1)), x, full(x.shape, 0, kind(x)))


def broadcast_shape(*shapes: Any) -> tuple[Any, ...]:
    """The shape that tensors of these shapes have together."""
    return broadcast_shapes(*[tuple(each) for each in shapes])


__all__ = [
    "arange",
    "broadcast_shape",
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "eye",
    "flip",
    "full",
    "full_like",
    "get_item",
    "hstack",
    "identity",
    "linspace",
    "moveaxis",
    "ndim",
    "ones",
    "ones_like",
    "pad",
    "ravel",
    "repeat",
    "reshape",
    "shape",
    "size",
    "slice",
    "slice_update",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "take",
    "tile",
    "transpose",
    "tril",
    "triu",
    "unstack",
    "vstack",
    "zeros",
    "zeros_like",
]
