"""What the readers of a weight multiply it with, on calibration data: the second moments of a layer's inputs.

The error that other weights make in a layer's outputs is a quadratic form in these: of a change D [out, n] of a kernel
whose outputs are its channels it is tr(D·H·Dᵀ), H [n, n] being the sum of x·xᵀ over all inputs x.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.adapting import Use, uses_of
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import Module
from graphc.runtime.quantization.stages import Batch, Stages

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
    uses = {name: _uses(module, function, name) for name in axes}
    found: dict[str, list[Reader]] = {}
    for name in sorted(uses, key=lambda name: uses[name][0].op.order):
        rank = module.weights.info(name).type.ndim
        each = [_reader(use, axes[name] % rank == rank - 1) for use in uses[name]]
        found[name] = [reader for reader in each if reader is not None]
    return found


def first_use(module: Module, function: Function, names: Iterable[str]) -> Op:
    """The first op that reads one of these weights. Raises `UnsupportedError` as `readers` does."""
    return min((_uses(module, function, name)[0].op for name in names), key=lambda op: op.order)


def _uses(module: Module, function: Function, name: str) -> list[Use]:
    """The uses of a weight, in order."""
    values = [
        p.value for p in function.parameters if p.weight is not None and module.weights.source(p.weight).name == name
    ]
    found = sorted((use for value in values for use in uses_of(value)), key=lambda use: use.op.order)
    if not found:
        raise UnsupportedError(f"{name!r} is not read in {function.name!r} itself, whose inputs calibrate it")
    return found


def _reader(use: Use, last: bool) -> Reader | None:
    """None for a use in which the weight's channels are not outputs."""
    x = use.op.operands[0]
    if use.kind is None or use.kind == "embedding" or x is None or use.flipped == last:
        return None
    return Reader(use.op, x, use.kind)


def measured(
    module: Module, names: Iterable[str], axes: Mapping[str, int], data: Sequence[Batch], target: str = "numpy"
) -> dict[str, Moments]:
    """The moments of what reads these weights, by a run over the data; see `measured_in`."""
    return measured_in(Stages(module, data, target), {name: axes[name] for name in names})


def measured_in(stages: Stages, chosen: Mapping[str, int]) -> dict[str, Moments]:
    """The moments of what reads the chosen weights, whose channels lie along these axes, by a run from where the stage
    begins; of a weight that nothing multiplies with, the identity. Raises `GraphcError` for values that are not
    finite."""
    module = stages.module
    reads = readers(module, module.main, chosen)
    keys: dict[Value, str] = {}
    for name, each in reads.items():
        for number, reader in enumerate(each):
            keys.setdefault(reader.x, f"{name}#{number}")
    found: dict[str, Moments] = {}
    if keys:
        for values in stages.observed({key: x for x, key in keys.items()}):
            for name, each in reads.items():
                for reader in each:
                    x = _matrix(reader, values[keys[reader.x]], module.weights.info(name).type.shape)
                    if name not in found:
                        found[name] = Moments(np.zeros((len(x), x.shape[2], x.shape[2])), np.zeros(x.shape[::2]))
                    found[name].add(x)
    for name in chosen:
        if name not in found:
            shape = module.weights.info(name).type.shape
            width = int(np.prod([s for i, s in enumerate(shape) if i != chosen[name] and isinstance(s, int)]))
            found[name] = Moments(np.eye(width)[None], np.ones((1, width)), 1)
    return found


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


__all__ = ["Moments", "Reader", "first_use", "measured", "measured_in", "patches", "readers"]
