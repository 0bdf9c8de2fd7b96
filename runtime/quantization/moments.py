"""What the readers of a weight multiply it with, on calibration data: the second moments of a layer's inputs.

The error that other weights make in a layer's outputs is a quadratic form in these: of a change D [out, n] of a kernel
whose outputs are its channels it is tr(D·H·Dᵀ), H [n, n] being the sum of x·xᵀ over all inputs x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.adapting import Use, uses_of
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import Module
from graphc.runtime.quantization.observing import Batch, observed

Array = np.ndarray[Any, Any]


@dataclass
class Moments:
    """Of the inputs of one weight, in the order of a channel's elements: Σ x·xᵀ [groups, n, n], Σ |x| [groups, n], and
    how many there were. Groups are those of a convolution."""

    second: Array
    magnitude: Array
    count: int = 0

    def add(self, x: Array) -> None:
        """Take in inputs [groups, rows, n]."""
        wide = x.astype(np.float64)
        self.second += np.matmul(wide.transpose(0, 2, 1), wide)
        self.magnitude += np.abs(wide).sum(1)
        self.count += x.shape[1]


@dataclass(frozen=True)
class Reader:
    """An op that multiplies `x` with a weight whose channels are its outputs."""

    op: Op
    x: Value
    kind: str


def readers(module: Module, function: Function, axes: Mapping[str, int]) -> dict[str, list[Reader]]:
    """The readers of each of the weights, in order of the first; `axes` are those of their channels.

    A table's look-ups are none: there each element counts alike. Raises `UnsupportedError` for a weight that only other
    functions read.
    """
    found: dict[str, list[Reader]] = {}
    first: dict[str, int] = {}
    for parameter in function.parameters:
        if parameter.weight is None:
            continue
        name = module.weights.source(parameter.weight).name
        if name not in axes:
            continue
        rank = parameter.type.ndim
        for use in uses_of(parameter.value):
            first[name] = min(first.get(name, use.op.order), use.op.order)
            reader = _reader(use, axes[name] % rank == rank - 1)
            if reader is not None:
                found.setdefault(name, []).append(reader)
    missing = [name for name in axes if name not in first]
    if missing:
        raise UnsupportedError(f"{missing[0]!r} is not read in {function.name!r} itself, whose inputs calibrate it")
    return {name: found.get(name, []) for name in sorted(first, key=lambda name: first[name])}


def _reader(use: Use, last: bool) -> Reader | None:
    """None for a use in which the weight's channels are not outputs."""
    x = use.op.operands[0]
    if use.kind is None or use.kind == "embedding" or x is None or use.flipped == last:
        return None
    return Reader(use.op, x, use.kind)


def measured(
    module: Module, names: Iterable[str], axes: Mapping[str, int], data: Sequence[Batch], target: str = "numpy"
) -> dict[str, Moments]:
    """The moments of what reads these weights, by a run over the data; of a weight that nothing multiplies with, the
    identity. Raises `GraphcError` for values that are not finite."""
    chosen = {name: axes[name] for name in names}
    reads = readers(module, module.main, chosen)
    found: dict[str, Moments] = {}
    if any(reads.values()):
        for values in observed(module, _inputs_of(module, chosen), data, target):
            for name, each in reads.items():
                for number, reader in enumerate(each):
                    x = _matrix(reader, values[_key(reads, name, number)], module.weights.info(name).type.shape)
                    if name not in found:
                        found[name] = Moments(np.zeros((len(x), x.shape[2], x.shape[2])), np.zeros(x.shape[::2]))
                    found[name].add(x)
    for name in chosen:
        if name not in found:
            shape = module.weights.info(name).type.shape
            width = int(np.prod([s for i, s in enumerate(shape) if i != axes[name] and isinstance(s, int)]))
            found[name] = Moments(np.eye(width)[None], np.ones((1, width)), 1)
    return found


def _key(reads: Mapping[str, Sequence[Reader]], name: str, number: int) -> str:
    """What the value that a reader takes is called among those observed: by the first that takes it."""
    x = reads[name][number].x
    for other, each in reads.items():
        for at, reader in enumerate(each):
            if reader.x is x:
                return f"{other}#{at}"
    raise GraphcError(f"{name!r} has no reader {number}")


def _inputs_of(module: Module, axes: Mapping[str, int]) -> Callable[[Function], Mapping[str, Value]]:
    def choose(function: Function) -> Mapping[str, Value]:
        reads = readers(module, function, axes)
        return {
            key: reader.x
            for name, each in reads.items()
            for number, reader in enumerate(each)
            if (key := f"{name}#{number}") == _key(reads, name, number)
        }

    return choose


# --- matrices of inputs -----------------------------------------------------------------------------------------------


def _matrix(reader: Reader, x: Array, shape: Sequence[Any]) -> Array:
    """The inputs [groups, rows, n] of one channel's elements each, in their order."""
    if reader.kind == "linear":
        return x.reshape(1, -1, x.shape[-1])
    return patches(x, [int(size) for size in shape[:-2]], reader.op.attribute_dict)


def patches(x: Array, window: Sequence[int], attributes: Mapping[str, Any]) -> Array:
    """What the windows of a convolution see of `x`: [groups, places, window · inputs of a group]."""
    if not attributes["channels_last"]:
        x = np.moveaxis(x, 1, -1)
    rank = len(window)
    strides, dilation = (tuple(attributes[key] or (1,) * rank) for key in ("strides", "dilation"))
    spans = [(size - 1) * d + 1 for size, d in zip(window, dilation, strict=True)]
    x = np.pad(x, [(0, 0), *_padding(attributes["padding"], x.shape[1:-1], spans, strides), (0, 0)])
    views = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(1, 1 + rank)))
    places = (slice(None), *(slice(None, None, s) for s in strides), slice(None))
    views = views[(*places, *(slice(None, None, d) for d in dilation))]
    groups = attributes["groups"]
    inputs = x.shape[-1] // groups
    views = views.reshape(*views.shape[: 1 + rank], groups, inputs, *window)
    ordered = np.moveaxis(views, (1 + rank, 2 + rank), (0, -1))  # [groups, batch, places, window, inputs]
    return ordered.reshape(groups, -1, int(np.prod(window)) * inputs)


def _padding(given: Any, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    if given == "valid":
        return [(0, 0)] * len(spans)
    if given != "same":
        return [(int(low), int(high)) for low, high in given]
    found: list[tuple[int, int]] = []
    for size, span, stride in zip(sizes, spans, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        found.append((total // 2, total - total // 2))
    return found


__all__ = ["Moments", "Reader", "measured", "patches", "readers"]
