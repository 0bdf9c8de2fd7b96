"""Weights quantized layer by layer, each on what the layers before it, quantized already, give on calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.ir.formats import AWQ, BlockFormat, Format
from graphc.ir.formats.shapes import as_rows
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.passes.quantization.matching import absorb_transposes
from graphc.passes.quantization.weights import quantize_weights
from graphc.runtime.quantization.awq import AWQOptions, foldable, input_scales
from graphc.runtime.quantization.gptq import GPTQ, gptq
from graphc.runtime.quantization.moments import Moments, first_use, measured_in, readers
from graphc.runtime.quantization.rounding import Grid, Rounded, nearest_values
from graphc.runtime.quantization.stages import Batch, Stages

Array = np.ndarray[Any, Any]
Algorithm = Literal["gptq", "awq"]


@dataclass
class Found:
    """What weights become: formats and arrays by name, and the new values of weights that took factors in."""

    formats: dict[str, Format] = field(default_factory=dict[str, Format])
    arrays: dict[str, tuple[Array, ...]] = field(default_factory=dict[str, tuple[Array, ...]])
    folded: dict[str, Array] = field(default_factory=dict[str, Array])

    def add(self, name: str, form: Format, arrays: tuple[Array, ...], work: Module) -> None:
        """Take a weight in, and let the work go on with what is left of it."""
        self.formats[name], self.arrays[name] = form, arrays
        whole = form.dequantize(*arrays, shape=work.weights.info(name).type.shape)  # type: ignore[arg-type]
        work.weights.set(name, whole)

    def store(self, module: Module) -> None:
        """Store all this in the module that it was found for, in place."""
        for name, value in self.folded.items():
            module.weights.set(name, value)
        quantize_weights(module, self.formats, self.arrays)
        absorb_transposes(module)


def in_place(form: Format, axis: int, rank: int) -> Format:
    """The format with its channels along an axis of a tensor, left open where it is the last."""
    return form if axis % rank == rank - 1 else form.of_channels(axis)


def by_layer(
    module: Module,
    formats: Mapping[str, Format],
    axes: Mapping[str, int],
    data: Sequence[Batch],
    options: GPTQ | AWQOptions,
    target: str = "numpy",
) -> Found:
    """The arrays of the weights in `formats`, each with its channels along `axes`; the module stays as it is.

    Weights that read the same value are quantized together. Between groups only what lies between them is run.
    """
    work = module.clone()
    found = Found()
    chosen = {name: axes[name] for name in formats}
    stages = Stages(work, data, target)
    for group in groups(work, chosen):
        stages.advance(_start(work, group, chosen, isinstance(options, AWQOptions)))
        moments = measured_in(stages, {name: axes[name] for name in group})
        matrices = {name: as_rows(work.weights[name].astype(np.float64), axes[name]) for name in group}
        if isinstance(options, GPTQ):
            for name in group:
                arrays = _rounded(matrices[name], moments[name], formats[name], work, name, options)
                found.add(name, formats[name], arrays, work)
        else:
            _scale_and_round(work, group, chosen, matrices, moments, formats, options, found)
    return found


def _start(work: Module, group: Sequence[str], axes: Mapping[str, int], folds: bool) -> Op:
    """The op before which the stage of a group begins: its first use, or the normalization before it whose weights
    may change too."""
    if folds:
        reads = readers(work, work.main, {name: axes[name] for name in group})
        if foldable(work, work.main, reads):
            before = next(reader.x.op for each in reads.values() for reader in each)
            assert before is not None
            return before
    return first_use(work, work.main, group)


def groups(module: Module, axes: Mapping[str, int]) -> list[list[str]]:
    """The weights in order of their first use, those together that read the same values."""
    found: dict[Any, list[str]] = {}
    for name, each in readers(module, module.main, axes).items():
        found.setdefault(frozenset(reader.x for reader in each) or name, []).append(name)
    return list(found.values())


def _each_group(w: Array, moments: Moments, quantized: Callable[[Array, int], Rounded]) -> Rounded:
    """The rows of each group of channels, put together."""
    count = len(moments.second)
    parts = [quantized(part, i) for i, part in enumerate(np.split(w, count))]
    joined = [np.concatenate([getattr(part, key) for part in parts]) for key in ("values", "scales", "zeros")]
    return Rounded(*joined)


def _rounded(w: Array, moments: Moments, form: Format, work: Module, name: str, options: GPTQ) -> tuple[Array, ...]:
    grid = Grid.of(form, w.shape[1])
    found = _each_group(w, moments, lambda part, i: gptq(part, moments.second[i], grid, options))
    return found.arrays(form, work.weights[name].shape)


def _scale_and_round(
    work: Module,
    group: Sequence[str],
    axes: Mapping[str, int],
    matrices: Mapping[str, Array],
    moments: Mapping[str, Moments],
    formats: Mapping[str, Format],
    options: AWQOptions,
    found: Found,
) -> None:
    grids = {name: Grid.of(formats[name], matrices[name].shape[1]) for name in group}
    reads = readers(work, work.main, {name: axes[name] for name in group})
    before = foldable(work, work.main, reads) if all(len(moments[n].second) == 1 for n in group) else []
    ones = {name: np.ones(matrices[name].shape[1]) for name in group}
    scales = ones
    if before:
        shared = input_scales([(matrices[n], grids[n], moments[n]) for n in group], options.points)
        scales = dict.fromkeys(group, shared)
        for name in before:
            found.folded[name] = (work.weights[name] / shared).astype(work.weights[name].dtype)
            work.weights.set(name, found.folded[name])
    else:
        able = [n for n in group if isinstance(formats[n], BlockFormat) and len(moments[n].second) == 1 and reads[n]]
        for name in able:
            own = (matrices[name], grids[name], moments[name])
            scales = {**scales, name: input_scales([own], options.points)}
    for name in group:
        form, each = formats[name], scales[name]
        importance = np.diagonal(moments[name].second, axis1=1, axis2=2)
        rounded = _each_group(
            matrices[name] * each,
            moments[name],
            lambda part, i, name=name, weight=importance / each**2: nearest_values(
                part, grids[name], weight[i], options.search
            ),
        )
        arrays = rounded.arrays(form, work.weights[name].shape)
        if not before and np.any(each != 1):
            assert isinstance(form, BlockFormat)
            form, arrays = AWQ.of(form), (*arrays, (1 / each).astype(np.float16))
        found.add(name, form, arrays, work)


OPTIONS: dict[str, float | bool] = {
    "damping": 0.0,
    "act_order": False,
    "search": False,
    "sweeps": 0,
    "lazy": 1,
    "points": 1,
}
"""The least value of each option; of switches, False."""


def options_of(algorithm: str, given: Mapping[str, Any]) -> Any:
    """The options of an algorithm. Raises `GraphcError` for those that it does not have."""
    kind = {"gptq": GPTQ, "awq": AWQOptions}[algorithm]
    unknown = [name for name in given if name not in kind.__dataclass_fields__]
    if unknown:
        known = ", ".join(kind.__dataclass_fields__)
        raise GraphcError(f"{algorithm} has no option {unknown[0]!r}; it has {known}")
    for name, value in given.items():
        least = OPTIONS[name]
        if isinstance(least, bool):
            if not isinstance(value, bool):
                raise GraphcError(f"{name} of {algorithm} is True or False, not {value!r}")
        elif isinstance(value, bool) or not isinstance(value, type(least) | int) or not least <= value < math.inf:
            what = "an integer" if isinstance(least, int) else "a number"
            raise GraphcError(f"{name} of {algorithm} is {what} from {least} on, not {value!r}")
    return kind(**given)


__all__ = ["Algorithm", "Found", "by_layer", "groups", "in_place", "options_of"]
