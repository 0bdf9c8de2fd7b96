"""Products over shared axes, and convolutions.

ONNX keeps kernels of convolutions as [out, in / groups, *window]; a weight is stored so, with the permutation in its
recipe. Convolution kernels of ONNX Runtime are float32's; other dtypes are summed place by place of the window.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import carrier
from graphc.codegen.onnx.spelling.movement import padded, part
from graphc.codegen.source.geometry import kernel_shape
from graphc.codegen.windows import Geometry, channels_first, channels_last, filters_first
from graphc.ir.dims import Size, maximum, product
from graphc.ir.graph import Op
from graphc.ir.sliding import covered
from graphc.ir.types import Shape, TensorType


def _type(op: Op, index: int = 0) -> TensorType:
    return op.operands[index].type  # type: ignore[union-attr]


def matmul(graph: GraphWriter, op: Op, x: Tensor, y: Tensor) -> Tensor:
    return graph.compute("MatMul", x, y)


def linear(graph: GraphWriter, op: Op, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    if _type(op).ndim == 2 and carrier("Gemm", x.dtype) is not None:
        return graph.compute("Gemm", *(t for t in (x, kernel, bias) if t is not None))
    y = graph.compute("MatMul", x, kernel)
    return y if bias is None else graph.compute("Add", y, bias)


def dot_general(graph: GraphWriter, op: Op, x: Tensor, y: Tensor) -> Tensor:
    """One matrix product: batch axes in front, the others in one axis each, where they are not already."""
    contract, batch = op.attributes
    left, right = _type(op), _type(op, 1)
    if left.ndim == right.ndim == 2 and not batch and len(contract) == 1 and carrier("Gemm", x.dtype) is not None:
        ((i, j),) = contract
        return graph.compute("Gemm", x, y, transA=int(i == 0), transB=int(j == 1))
    pairs = (*batch, *contract)
    rows = [axis for axis in range(left.ndim) if axis not in {i for i, _ in pairs}]
    columns = [axis for axis in range(right.ndim) if axis not in {j for _, j in pairs}]
    x = graph.transpose(x, [*(i for i, _ in batch), *rows, *(i for i, _ in contract)])
    y = graph.transpose(y, [*(j for _, j in batch), *(j for _, j in contract), *columns])
    together = [left.shape[i] for i, _ in batch]
    m, n = [left.shape[i] for i in rows], [right.shape[j] for j in columns]
    depth = product(left.shape[i] for i, _ in contract)
    plain_rows = len(contract) == 1 and (len(rows) == 1 or (not batch and len(columns) == 1 and rows))
    if not plain_rows:
        x = graph.reshape(x, [*together, product(m), depth])
    if len(contract) != 1 or len(columns) != 1:
        y = graph.reshape(y, [*together, depth, product(n)])
    z = graph.compute("MatMul", x, y)
    if (plain_rows or len(rows) == 1) and len(columns) == 1:
        return z
    return graph.reshape(z, [*together, *m, *n])


# --- convolution --------------------------------------------------------------------------------------------------


def attributes_of(geometry: Geometry) -> dict[str, Any]:
    """Strides, pads and dilations as ONNX spells them; pads are left out where `padded_first` makes them."""
    found: dict[str, Any] = {"strides": geometry.strides}
    pads = (*geometry.before, *geometry.after)
    if geometry.is_known and any(pads):
        found["pads"] = pads
    if any(step != 1 for step in geometry.dilation):
        found["dilations"] = geometry.dilation
    return found


def padded_first(graph: GraphWriter, x: Tensor, geometry: Geometry, value: float = 0) -> Tensor:
    """`x`, channels first, with its padding where that depends on symbols."""
    return x if geometry.is_known else padded(graph, x, ((0, 0), (0, 0), *geometry.pairs), value)


def image(graph: GraphWriter, x: Tensor, ndim: int, geometry: Geometry) -> Tensor:
    """`x` with its channels first."""
    return graph.transpose(x, channels_first(ndim)) if geometry.channels_last else x


def back(graph: GraphWriter, y: Tensor, ndim: int, geometry: Geometry) -> Tensor:
    """`y`, channels first, in the layout of the op."""
    return graph.transpose(y, channels_last(ndim)) if geometry.channels_last else y


def wanted_permutation(op: Op, index: int) -> tuple[int, ...] | None:
    """How an op wants the weight stored that is its operand at `index`, if not as it is."""
    kernel = op.operands[index]
    wants = index == 1 and op.name in ("convolution", "conv", "convolution_input_gradient")
    if not wants or kernel is None or carrier("Conv", kernel.dtype) is None or op.attribute_dict["filters_first"]:
        return None
    return filters_first(kernel.ndim)


def _filters_first(graph: GraphWriter, op: Op, kernel: Tensor) -> Tensor:
    """The kernel as ONNX has it."""
    if op.attribute_dict["filters_first"]:
        return kernel
    return graph.permuted_weight(kernel, filters_first(_type(op, 1).ndim))


def convolution(graph: GraphWriter, op: Op, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    type = _type(op)
    attributes = op.attribute_dict
    geometry = Geometry(type.shape, kernel_shape(op)[:-2], attributes)
    if carrier("Conv", x.dtype) is None:
        return _by_places(graph, op, x, kernel, bias, geometry, attributes["groups"])
    ndim = type.ndim
    x = padded_first(graph, image(graph, x, ndim, geometry), geometry)
    weight = _filters_first(graph, op, kernel)
    found = attributes_of(geometry) | ({"group": attributes["groups"]} if attributes["groups"] != 1 else {})
    y = graph.compute("Conv", *(t for t in (x, weight, bias) if t is not None), **found)
    return back(graph, y, ndim, geometry)


def _by_places(
    graph: GraphWriter, op: Op, x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
) -> Tensor:
    """For each place of the window a matrix product of what it sees, added up; channels last."""
    type, ndim = _type(op), _type(op).ndim
    if op.attribute_dict["filters_first"]:
        kernel = graph.transpose(kernel, (*range(2, ndim), 1, 0))
    if not geometry.channels_last:
        x = graph.transpose(x, channels_last(ndim))
    shape = (type.shape[0], *geometry.sizes, kernel_shape(op)[-2] * groups)
    pairs = ((0, 0), *geometry.pairs, (0, 0))
    x = padded(graph, x, pairs, 0)
    shape = tuple(low + size + high for size, (low, high) in zip(shape, pairs, strict=True))
    result = op.results[0].shape
    counts = result[1:-1] if geometry.channels_last else result[2:]
    total: Tensor | None = None
    for place in itertools.product(*(range(k) for k in geometry.window)):  # type: ignore[arg-type]
        seen = part(graph, x, shape, *_seen(shape, counts, place, geometry))
        at = graph.integers(*place)
        weight = graph.reshape(
            graph.slice(kernel, at, graph.integers(*(p + 1 for p in place)), range(len(place)), [1] * len(place)),
            kernel_shape(op)[-2:],
        )
        term = _grouped_product(graph, seen, weight, (type.shape[0], *counts), kernel_shape(op), groups)
        total = term if total is None else graph.compute("Add", total, term)
    assert total is not None
    if bias is not None:
        total = graph.compute("Add", total, bias)
    return total if geometry.channels_last else graph.transpose(total, channels_first(ndim))


def _seen(
    shape: Shape, counts: Sequence[Size], place: Sequence[int], geometry: Geometry
) -> tuple[list[Size], list[Size], list[int]]:
    """Starts, limits and strides of what a place of the window sees while it moves."""
    starts: list[Size] = [p * d for p, d in zip(place, geometry.dilation, strict=True)]
    spans = [maximum((n - 1) * s + 1, 0) for n, s in zip(counts, geometry.strides, strict=True)]
    limits = [start + span for start, span in zip(starts, spans, strict=True)]
    return [0, *starts, 0], [shape[0], *limits, shape[-1]], [1, *geometry.strides, 1]


def _grouped_product(
    graph: GraphWriter, x: Tensor, weight: Tensor, lead: Sequence[Size], kernel: Shape, groups: int
) -> Tensor:
    if groups == 1:
        return graph.compute("MatMul", x, weight)
    depth, filters = kernel[-2:]
    rows = graph.reshape(x, [*lead, groups, 1, depth])
    each = graph.transpose(graph.reshape(weight, [depth, groups, filters // groups]), (1, 0, 2))
    return graph.reshape(graph.compute("MatMul", rows, each), [*lead, filters])


def convolution_input_gradient(graph: GraphWriter, op: Op, dy: Tensor, kernel: Tensor) -> Tensor:
    """`ConvTranspose` over the padded input, from which the padding is cut."""
    attributes, shape = op.attribute_dict, op.results[0].shape
    geometry = Geometry(shape, kernel_shape(op)[:-2], attributes)
    ndim, last = len(shape), geometry.channels_last
    dy = image(graph, dy, ndim, geometry)
    counts = [_type(op).shape[axis] for axis in geometry.spatial]
    # What windows reach, and what lies behind them and is reached by none, is cut off or filled up.
    reached = [
        (n - 1) * s + covered(k, d)
        for n, s, k, d in zip(counts, geometry.strides, geometry.window, geometry.dilation, strict=True)
    ]
    found = {"strides": geometry.strides, "dilations": geometry.dilation, "group": attributes["groups"]}
    weight = _filters_first(graph, op, kernel)
    whole = graph.compute("ConvTranspose", dy, weight, **found)
    behind = [
        maximum(low + size - reach, 0)
        for (low, _), size, reach in zip(geometry.pairs, geometry.sizes, reached, strict=True)
    ]
    whole = padded(graph, whole, ((0, 0), (0, 0), *((0, size) for size in behind)), 0)
    channels = shape[-1] if last else shape[1]
    full = (shape[0], channels, *(reach + more for reach, more in zip(reached, behind, strict=True)))
    lows = [low for low, _ in geometry.pairs]
    limits = [low + size for low, size in zip(lows, geometry.sizes, strict=True)]
    cut = part(graph, whole, full, [0, 0, *lows], [*full[:2], *limits], [1] * ndim)
    return back(graph, cut, ndim, geometry)


MOST_PLACES = 16
"""Of a window whose gradient is taken by a product that holds what each place sees; of larger ones `Conv` is faster."""


def convolution_kernel_gradient(graph: GraphWriter, op: Op, dy: Tensor, x: Tensor) -> Tensor:
    """A convolution whose window is dy: batch and channels change places, strides and dilation too; groups of channels
    join the batch. Of small windows a product with what each place of the window sees, which is faster."""
    attributes, kernel = op.attribute_dict, kernel_shape(op)
    type = _type(op, 1)
    geometry = Geometry(type.shape, kernel[:-2], attributes)
    ndim, groups = type.ndim, attributes["groups"]
    places = product(kernel[:-2])
    if groups == 1 and isinstance(places, int) and places <= MOST_PLACES and carrier("Gemm", x.dtype) is not None:
        return _product_of_places(graph, op, dy, x, geometry)
    spatial = range(2, ndim)
    x = image(graph, x, ndim, geometry)
    x = padded_first(graph, x, geometry)
    shape = (type.shape[0], kernel[-2] * groups, *geometry.sizes)
    if not geometry.is_known:
        shape = (*shape[:2], *(low + s + high for s, (low, high) in zip(geometry.sizes, geometry.pairs, strict=True)))
    if groups == 1:
        images = graph.transpose(x, [1, 0, *spatial])
    else:
        split = graph.reshape(x, [shape[0], groups, kernel[-2], *shape[2:]])
        images = graph.transpose(split, [2, 1, 0, *(axis + 1 for axis in spatial)])
        images = graph.reshape(images, [kernel[-2], shape[0] * groups, *shape[2:]])
    windows = graph.transpose(image(graph, dy, ndim, geometry), [1, 0, *spatial])
    found: dict[str, Any] = {"strides": geometry.dilation, "dilations": geometry.strides, "group": groups}
    pads = (*geometry.before, *geometry.after)
    if geometry.is_known and any(pads):
        found["pads"] = pads
    y = graph.compute("Conv", images, windows, **found)  # [in / groups, out, *window, and perhaps more]
    y = graph.slice(y, graph.integers(*[0] * len(spatial)), graph.sizes.shape(kernel[:-2]), spatial, [1] * len(spatial))
    return graph.transpose(y, [1, 0, *spatial] if attributes["filters_first"] else [*spatial, 0, 1])


def _product_of_places(graph: GraphWriter, op: Op, dy: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of a kernel as one product of dy [F, B·counts] with the places of the window [C·window, B·counts].

    With ONNX Runtime's `Conv` the gradients of ResNet-18's kernels of 3 × 3 take up to 2.6 times as long.
    """
    type, kernel, ndim = _type(op, 1), kernel_shape(op), _type(op, 1).ndim
    (batch, *_), (*window, channels, filters) = type.shape, kernel
    counts = [_type(op).shape[axis] for axis in geometry.spatial]
    last = geometry.channels_last
    x = graph.transpose(x, (ndim - 1, *range(ndim - 1)) if last else (1, 0, *range(2, ndim)))
    dy = graph.transpose(dy, (ndim - 1, *range(ndim - 1)) if last else (1, 0, *range(2, ndim)))
    pairs = ((0, 0), (0, 0), *geometry.pairs)
    x = padded(graph, x, pairs, 0)
    sizes = [low + size + high for size, (low, high) in zip(geometry.sizes, geometry.pairs, strict=True)]
    shape = (channels, batch, *sizes)
    seen: list[Tensor] = []
    for place in itertools.product(*map(range, geometry.window)):  # type: ignore[arg-type]
        starts = [p * d for p, d in zip(place, geometry.dilation, strict=True)]
        spans = [maximum((n - 1) * s + 1, 0) for n, s in zip(counts, geometry.strides, strict=True)]
        limits = [start + span for start, span in zip(starts, spans, strict=True)]
        cut = part(graph, x, shape, [0, 0, *starts], [channels, batch, *limits], [1, 1, *geometry.strides])
        seen.append(graph.reshape(cut, [channels, 1, product([batch, *counts])]))
    columns = seen[0] if len(seen) == 1 else graph.compute("Concat", *seen, axis=1)
    columns = graph.reshape(columns, [channels * len(seen), product([batch, *counts])])
    rows = graph.reshape(dy, [filters, product([batch, *counts])])
    found = graph.reshape(graph.compute("Gemm", rows, columns, transB=1), [filters, channels, *window])
    return found if op.attribute_dict["filters_first"] else graph.transpose(found, (*range(2, ndim), 1, 0))


def _convolves(op: Op) -> bool:
    dtype = op.results[0].dtype
    static = all(isinstance(k, int) for k in kernel_shape(op)[:-2])
    return carrier("Conv", dtype) is not None or (static and carrier("MatMul", dtype) is not None)


def _has_conv(op: Op) -> bool:
    return carrier("ConvTranspose", op.results[0].dtype) is not None


SPELLING: dict[str, Any] = {
    "matmul": matmul,
    "linear": linear,
    "dot_general": dot_general,
    "convolution": convolution,
    "conv": convolution,
    "convolution_input_gradient": convolution_input_gradient,
    "convolution_kernel_gradient": convolution_kernel_gradient,
}

WHEN: dict[str, Any] = {
    "convolution": _convolves,
    "conv": _convolves,
    "convolution_input_gradient": _has_conv,
    "convolution_kernel_gradient": _has_conv,
}
