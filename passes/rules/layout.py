"""How ops take operands whose axes stand in another order: the rules of the pass `layout`.

A rule builds the op again on twins and says in which order the axes of each result then stand; None leaves the op as it
is, outside the region.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from graphc.ir.formats import Int8, parse_format
from graphc.ir.graph import Op, Value
from graphc.ir.rewriter import Rewriter
from graphc.passes import permutations
from graphc.passes.elementwise import is_elementwise
from graphc.passes.permutations import Permutation, compose, inverse, is_identity, without


@dataclass(frozen=True, slots=True)
class Twin:
    """`value` is `transpose(original, permutation=permutation)`."""

    value: Value
    permutation: Permutation


class Region(Protocol):
    """What a rule asks the pass for."""

    rewriter: Rewriter
    channels_first: bool

    def twin(self, value: Value) -> Twin | None: ...
    def is_free(self, value: Value) -> bool: ...
    def has_stored_order(self, value: Value) -> bool: ...
    def permuted(self, value: Value, permutation: Permutation, op: Op) -> Value: ...
    def aligned(self, value: Value, permutation: Permutation, op: Op) -> Value: ...


Followed = list[Twin] | None
Rule = Callable[[Op, Region], Followed]


def follow(op: Op, region: Region) -> Followed:
    """Build `op` on twins, if it asks for the layout or follows it; the order of the axes of each result."""
    names = op.definition.attribute_names
    if "channels_last" in names:
        return seek(op, region)
    rule = RULES.get(op.name)
    if rule is None and any(v is not None and region.twin(v) is not None for v in op.operands) and is_elementwise(op):
        rule = elementwise
    return None if rule is None else rule(op, region)


def rebuilt(op: Op, region: Region, operands: Sequence[Value | None], **changed: Any) -> tuple[Value, ...]:
    """The op on other operands, with some attributes changed."""
    attributes = op.definition.make_attributes(**(op.attribute_dict | changed))
    return op.definition.build(region.rewriter.before(op), operands, attributes).results


def present(value: Value | None) -> Value:
    assert value is not None
    return value


def first_twin(op: Op, region: Region) -> Twin | None:
    """The twin of the first operand."""
    return region.twin(present(op.operands[0])) if op.operands else None


# --- ops that ask for a layout --------------------------------------------------------------------------------------

IMAGES: Mapping[str, int] = {"convolution_kernel_gradient": 2}
"""How many of the operands, from the first, are images; one where nothing is said."""

NO_IMAGE = frozenset({"convolution_kernel_gradient"})
"""Ops whose result is no image."""


def seek(op: Op, region: Region) -> Followed:
    """An op with the attribute `channels_last`, and perhaps a kernel that is stored filters first."""
    attributes = op.attribute_dict
    ndim = present(op.operands[0]).ndim
    operands, changed = list(op.operands), dict[str, Any]()
    order = permutations.identity(op.results[0].ndim)
    if attributes["channels_last"] is region.channels_first:
        wanted = permutations.channels_first(ndim) if region.channels_first else permutations.channels_last(ndim)
        images = IMAGES.get(op.name, 1)
        operands[:images] = [region.permuted(present(value), wanted, op) for value in operands[:images]]
        changed["channels_last"] = not region.channels_first
        if op.name not in NO_IMAGE:
            order = wanted
            if "shape" in attributes:
                changed["shape"] = _reordered(attributes["shape"], wanted)
    if attributes.get("filters_first") is False:
        filters = permutations.filters_first(ndim)
        if op.name in NO_IMAGE:
            if region.has_stored_order(op.results[0]):
                order = filters
                changed |= {"filters_first": True, "shape": _reordered(attributes["shape"], filters)}
        elif (twin := region.twin(present(operands[1]))) is not None and twin.permutation == filters:
            operands[1] = twin.value
            changed["filters_first"] = True
    return [Twin(value, order) for value in rebuilt(op, region, operands, **changed)] if changed else None


# --- ops that follow ------------------------------------------------------------------------------------------------


def _reordered(entries: Any, permutation: Permutation) -> Any:
    """One entry for each axis, in the new order; text and None stay."""
    if not isinstance(entries, tuple):
        return entries
    return tuple(cast("tuple[Any, ...]", entries)[axis] for axis in permutation)


def _order(op: Op, region: Region, ndim: int) -> Permutation | None:
    """The order that most of the operands are in, if following it takes no more transposes than leaving it."""
    twins = [region.twin(v) for v in op.operands if v is not None and v.ndim == ndim]
    found = [twin.permutation for twin in twins if twin is not None]
    if not found:
        return None
    order = max(found, key=found.count)
    others = [
        v
        for v in op.operands
        if v is not None
        and v.ndim == ndim
        and not region.is_free(v)
        and not permutations.moves_only_ones(v.shape, order)
        and region.twin(v) is None
    ]
    return order if len(found) >= len(others) else None


def elementwise(op: Op, region: Region) -> Followed:
    """Operands that broadcast."""
    order = _order(op, region, op.results[0].ndim)
    if order is None:
        return None
    operands = [None if v is None else region.aligned(v, order, op) for v in op.operands]
    return [Twin(value, order) for value in rebuilt(op, region, operands)]


def along_axis(op: Op, region: Region) -> Followed:
    """The shape of the first operand stays; `axis` or `axes` are of it, further operands are vectors or scalars."""
    twin = first_twin(op, region)
    if twin is None:
        return None
    changed: dict[str, Any] = {}
    if "axis" in op.definition.attribute_names:
        changed["axis"] = _place(op.attribute_dict["axis"], twin.permutation)
    if "axes" in op.definition.attribute_names:
        changed["axes"] = _places(op.attribute_dict["axes"], twin.permutation)
    values = rebuilt(op, region, [twin.value, *op.operands[1:]], **changed)
    return [Twin(value, twin.permutation) for value in values]


def _place(axis: int, permutation: Permutation) -> int:
    return permutation.index(axis % len(permutation))


def _places(axes: Sequence[int], permutation: Permutation) -> tuple[int, ...]:
    return tuple(sorted(_place(axis, permutation) for axis in axes))


def reduction(op: Op, region: Region) -> Followed:
    """`axes` or `axis` are gone from the result, or of size 1 with `keepdims`."""
    twin = first_twin(op, region)
    if twin is None:
        return None
    attributes, order = op.attribute_dict, twin.permutation
    if "axes" in attributes:
        axes = tuple(axis % len(order) for axis in attributes["axes"])
        values = rebuilt(op, region, [twin.value], axes=_places(axes, order))
    else:
        axes = (attributes["axis"] % len(order),)
        values = rebuilt(op, region, [twin.value], axis=_place(axes[0], order))
    left = order if attributes["keepdims"] else without(order, axes)
    return [Twin(value, left) for value in values]


def concat(op: Op, region: Region) -> Followed:
    order = _order(op, region, op.results[0].ndim)
    if order is None:
        return None
    operands = [region.permuted(present(v), order, op) for v in op.operands]
    values = rebuilt(op, region, operands, axis=_place(op.attribute_dict["axis"], order))
    return [Twin(value, order) for value in values]


def entry_an_axis(op: Op, region: Region) -> Followed:
    """All attributes that are tuples have an entry for each axis; all operands have the same order."""
    twin = first_twin(op, region)
    if twin is None:
        return None
    order = twin.permutation
    changed = {name: _reordered(entries, order) for name, entries in op.attribute_dict.items()}
    operands = [region.permuted(present(v), order, op) for v in op.operands]
    return [Twin(value, order) for value in rebuilt(op, region, operands, **changed)]


def broadcast(op: Op, region: Region) -> Followed:
    twin = first_twin(op, region)
    if twin is None or len(twin.permutation) != op.results[0].ndim:
        return None
    return entry_an_axis(op, region)


def transpose(op: Op, region: Region) -> Followed:
    """A transpose of a value with a twin is one of the twin; often of none of its axes."""
    twin = first_twin(op, region)
    if twin is None:
        return None
    left = compose(inverse(twin.permutation), op.attribute_dict["permutation"])
    if is_identity(left):
        return [Twin(twin.value, left)]
    (value,) = rebuilt(op, region, [twin.value], permutation=left)
    return [Twin(value, permutations.identity(len(left)))]


def with_statistics(op: Op, region: Region) -> Followed:
    """Operands as long as the first are images, as is the first result; the other results are vectors along `axis`."""
    twin = first_twin(op, region)
    if twin is None:
        return None
    order = twin.permutation
    operands = [
        v if v is None or v.ndim != len(order) or v.ndim == 1 else region.permuted(v, order, op) for v in op.operands
    ]
    values = rebuilt(op, region, operands, axis=_place(op.attribute_dict["axis"], order))
    return [Twin(values[0], order), *(Twin(value, permutations.identity(1)) for value in values[1:])]


def barrier(op: Op, region: Region) -> Followed:
    twins = [region.twin(present(v)) for v in op.operands]
    if not any(twins):
        return None
    operands = [v if twin is None else twin.value for v, twin in zip(op.operands, twins, strict=True)]
    orders = [
        permutations.identity(present(v).ndim) if twin is None else twin.permutation
        for v, twin in zip(op.operands, twins, strict=True)
    ]
    values = rebuilt(op, region, operands)
    return [Twin(value, order) for value, order in zip(values, orders, strict=True)]


def dequantize(op: Op, region: Region) -> Followed:
    """Integers in the shape of the tensor, with a scale for all of it or for each index along an axis."""
    twin, form = first_twin(op, region), parse_format(op.attribute_dict["format"])
    if twin is None or not isinstance(form, Int8):
        return None
    order = twin.permutation
    axis = order.index(form.channel_axis(len(order)))
    moved = form if form.tensor else replace(form, axis=axis)
    shape = _reordered(op.attribute_dict["shape"], order)
    values = rebuilt(op, region, [twin.value, *op.operands[1:]], format=str(moved), shape=shape)
    return [Twin(values[0], order)]


RULES: dict[str, Rule] = {
    "dequantize": dequantize,
    **dict.fromkeys(("quantize", "fake_quantize"), along_axis),
    **dict.fromkeys(("softmax", "log_softmax", "batch_norm", "group_norm", "reverse", "split"), along_axis),
    "cumulative_sum": along_axis,
    **dict.fromkeys(("batch_norm_training", "batch_norm_gradient"), with_statistics),
    **dict.fromkeys(("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_all", "reduce_any"), reduction),
    **dict.fromkeys(("reduce_mean", "variance", "argmax", "argmin"), reduction),
    **dict.fromkeys(("pad", "slice", "reduce_window", "select_and_scatter", "select_and_gather"), entry_an_axis),
    "broadcast": broadcast,
    "concat": concat,
    "transpose": transpose,
    "barrier": barrier,
}
