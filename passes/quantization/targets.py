"""Which weights can be quantized, along which axis their channels lie, and which of them patterns choose."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from graphc.ir.adapting import uses_of
from graphc.ir.errors import GraphcError
from graphc.ir.formats import Format, parse_format
from graphc.ir.graph import Function, Value
from graphc.ir.module import Module
from graphc.ir.suggestions import nearest
from graphc.passes.lora.settings import layer_of, matches

_WITH_ADAPTERS = {"lora_linear": (1, -1), "lora_conv": (1, -1), "lora_embedding": (0, 0)}
"""Ops with an adapter: where they have the kernel, and the axis of its channels."""


def channel_axes(module: Module) -> dict[str, int]:
    """The weights that a product, a convolution or an embedding reads, with the axis of their channels: the outputs of
    a kernel, the rows of a table. Tied weights stand under the name of the one that they are tied to.

    Of a weight that is not stored as it is read (`store_as_read`), the axis says no more than that there is one."""
    found: dict[str, int] = {}
    for function in module.functions.values():
        for parameter in function.parameters:
            if parameter.weight is None or not parameter.type.dtype.is_float or parameter.type.ndim < 2:
                continue
            axis = channel_axis(parameter.value)
            if axis is not None:
                found.setdefault(module.weights.source(parameter.weight).name, axis % parameter.type.ndim)
    return {weight.name: found[weight.name] for weight in module.weights.entries() if weight.name in found}


def channel_axis(kernel: Value) -> int | None:
    """The axis of the channels of a kernel, None where nothing reads it as one. A table's rows count before outputs."""
    axes = [
        0 if use.kind == "embedding" or use.flipped else -1
        for use in sorted(uses_of(kernel), key=lambda use: use.kind != "embedding")
        if use.kind is not None
    ]
    for op in kernel.uses or ():
        place, axis = _WITH_ADAPTERS.get(op.name, (None, 0))
        if place is not None and op.operands[place] is kernel:
            axes.append(axis)
    return axes[0] if axes else None


def quantized_weights(module: Module) -> dict[str, str]:
    """The source weights that are stored quantized already, with their formats."""
    found: dict[str, str] = {}
    for weight in module.weights.entries():
        step = None if weight.recipe is None else weight.recipe.quantized
        if weight.recipe is not None and step is not None:
            found[weight.recipe.sources[0]] = step.format
    return found


def chosen_weights(module: Module, targets: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The weights that the patterns choose, in order: of those that can be quantized, what one of `targets` matches and
    none of `exclude`.

    Raises `GraphcError` for a pattern that matches nothing, and for one that matches what is quantized already.
    """
    able = channel_axes(module)
    done = quantized_weights(module)
    chosen: set[str] = set()
    for pattern in targets:
        again = [name for name in done if matches(pattern, name)]
        if again:
            raise GraphcError(
                f"the pattern {pattern!r} matches {again[0]!r}, which is quantized already, as {done[again[0]]}"
            )
        found = [name for name in able if matches(pattern, name)]
        if not found:
            raise _nothing(module, pattern, "targets", able)
        chosen.update(found)
    for pattern in exclude:
        names = [name for name in module.weights if matches(pattern, name)]
        if not names:
            raise _nothing(module, pattern, "exclude", able)
        chosen.difference_update(names)
    if not chosen:
        raise GraphcError("no weight is left to quantize: `exclude` takes away all that `targets` match")
    return [name for name in able if name in chosen]


def _nothing(module: Module, pattern: str, what: str, able: Collection[str]) -> GraphcError:
    unfit = [name for name in module.weights if matches(pattern, name)]
    if unfit:
        return GraphcError(
            f"the pattern {pattern!r} of {what} matches only {', '.join(unfit[:3])}: what is quantized is read as a "
            "kernel by products, convolutions and embeddings"
        )
    if not able:
        return GraphcError(f"the pattern {pattern!r} of {what} matches nothing: there is no weight to quantize")
    layers = dict.fromkeys(layer_of(name) for name in able)
    known = [*layers, *able] if "/" in pattern.removeprefix("*/") else [name.rpartition("/")[2] for name in layers]
    return GraphcError(f"the pattern {pattern!r} of {what} matches nothing{nearest(pattern.removeprefix('*/'), known)}")


def chosen_formats(module: Module, given: Mapping[str, str]) -> dict[str, Format]:
    """The format of each weight, of formats by the names of weights, or by patterns.

    Raises `GraphcError` as `chosen_weights` does, and for what names no weight at all.
    """
    able = channel_axes(module)
    found: dict[str, Format] = {}
    for name, text in given.items():
        names = [name] if name in able else chosen_weights(module, [name], ())
        found |= dict.fromkeys(names, parse_format(text))
    if not found:
        raise GraphcError("there is no weight in the formats that are given")
    return found


def patterns(given: str | Iterable[str]) -> list[str]:
    """Patterns that are given as a text, separated by commas, or as several."""
    return [part for part in map(str.strip, given.split(",")) if part] if isinstance(given, str) else list(given)


def kernel_inputs(function: Function) -> dict[str, Value]:
    """What products and convolutions read, by the names of their weights: whose statistics tell how much each input of
    a kernel counts. A weight that several ops read has the input of the first; tables have none.

    `runtime/quantization/observing.py` runs a model and hands out such values.
    """
    found: dict[str, Value] = {}
    for parameter in function.parameters:
        if parameter.weight is None or not parameter.type.dtype.is_float:
            continue
        uses = [use for use in uses_of(parameter.value) if use.kind in ("linear", "conv")]
        if uses and uses[0].op.operands[0] is not None:
            found.setdefault(parameter.weight, uses[0].op.operands[0])
    return found
