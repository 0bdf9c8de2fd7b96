"""Weights stored as integers: in the table the arrays of a format, where they are read a `dequantize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.ir import ops
from graphc.ir.dims import product
from graphc.ir.errors import GraphcError
from graphc.ir.formats import Format
from graphc.ir.graph import Function, Op, Parameter, Value
from graphc.ir.module import Array, Module, Weight, WeightTable
from graphc.ir.recipes import Quantize, Recipe
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes.fold_weights import WeightGroup, weight_groups
from graphc.passes.quantization.targets import channel_axes
from graphc.passes.weight_parameters import WeightParameters

Arrays = Mapping[str, Sequence[Array]]


@dataclass(frozen=True)
class Stored:
    """How a weight is stored now: its type as it is read, the format, and the weights that hold its arrays."""

    type: TensorType
    format: Format
    names: tuple[str, ...]


def quantize_weights(module: Module, formats: Mapping[str, Format], arrays: Arrays | None = None) -> dict[str, Stored]:
    """Store weights in formats, in place; `formats` has them by name, and `arrays` what they become where that is not
    their own rounding to nearest.

    A weight gives its place in the table to the arrays of its format, `dense/kernel_values` and so on, which are not
    trained; their recipes name it. Where it was read, `dequantize` gives it back, once for each reader, so that it goes
    with the layer; an embedding dequantizes the rows it takes. Raises `GraphcError` for a weight that an entry updates.
    """
    axes = channel_axes(module)
    found: dict[str, Stored] = {}
    places: list[tuple[WeightGroup, Stored]] = []
    taken = {weight.name for weight in module.weights.entries()}
    changes: dict[str, list[Weight]] = {}
    for group in weight_groups(module):
        name = group.source.name
        if name not in formats:
            continue
        if any(r.updates is p for function, p in group.parameters for r in function.results):
            raise GraphcError(f"the weight {name!r} is trained, and cannot be quantized: freeze it, or train first")
        axis = axes.get(name, group.source.type.ndim - 1)
        form = formats[name] if axis == group.source.type.ndim - 1 else formats[name].of_channels(axis)
        found[name] = _stored(module.weights, group, form, (arrays or {}).get(name), taken, changes)
        places.append((group, found[name]))
    module.weights.replace(changes)
    _read_all(module, places)
    return found


def _stored(
    table: WeightTable,
    group: WeightGroup,
    form: Format,
    arrays: Sequence[Array] | None,
    taken: set[str],
    changes: dict[str, list[Weight]],
) -> Stored:
    """How a weight is to be stored; `changes` gets what comes in the place of it and of those tied to it, under names
    that are not `taken`."""
    source = group.source
    shape = tuple(size for size in source.type.shape if isinstance(size, int))
    try:
        parts = form.parts(shape)
        values = form.quantize(table[source.name]) if arrays is None else tuple(arrays)
    except GraphcError as error:
        raise error.at(f"the weight {source.name!r}") from error.__cause__
    made: list[Weight] = []
    for weight in group.weights:
        for i, (part, value) in enumerate(zip(parts, values, strict=True)):
            name = _free(f"{weight.name}_{part.name}", taken)
            if value.shape != part.type.shape or value.dtype != part.type.dtype.numpy:
                raise GraphcError(f"{source.name!r}: {part.name} of {form} is {part.type}, not {value.shape}")
            step = Quantize(str(form), shape, source.type.dtype, i)
            recipe = (weight.recipe or source.recipe or Recipe((weight.name,))).then(step)
            own = weight is source
            alias = None if own else made[i].name
            made.append(Weight(name, part.type, False, alias, recipe, array=value if own else None))
    for n, weight in enumerate(group.weights):
        changes[weight.name] = made[n * len(parts) : (n + 1) * len(parts)]
    return Stored(source.type, form, tuple(weight.name for weight in made[: len(parts)]))


def _free(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


# --- readers --------------------------------------------------------------------------------------------------------


def _read_all(module: Module, places: Sequence[tuple[WeightGroup, Stored]]) -> None:
    """Let what reads the weights read what is stored, and remove their parameters."""
    parameters, rewriter = WeightParameters(module), Rewriter()
    gone: dict[Function, list[Parameter]] = {}
    for group, stored in places:
        for function, parameter in group.parameters:
            _read(parameter.value, [parameters.of(function, name) for name in stored.names], stored, rewriter)
            gone.setdefault(function, []).append(parameter)
    rewriter.flush()
    for function, each in gone.items():
        dropped = set(each)
        rewriter.remove_parameters(function, [i for i, p in enumerate(function.parameters) if p in dropped])


def _read(value: Value, parts: Sequence[Value], stored: Stored, rewriter: Rewriter) -> None:
    """Let what reads a weight read what is stored."""
    for op in list(value.uses or ()):
        with rewriter.before(op):
            rows = _rows(op, value, parts, stored)
            whole = dequantized(parts, stored.format, stored.type) if rows is None else None
        if rows is not None:
            rewriter.replace(op, rows)
        else:
            rewriter.set_operands(op, [whole if operand is value else operand for operand in op.operands])


def dequantized(parts: Sequence[Value], form: Format, type: TensorType) -> Value:
    """The weight of which these are the arrays."""
    return ops.dequantize(*parts, format=str(form), shape=type.shape, dtype=type.dtype)  # type: ignore[return-value]


def _rows(op: Op, table: Value, parts: Sequence[Value], stored: Stored) -> Value | None:
    """What an embedding takes from the table, dequantized after it was taken; None where rows are not stored apart."""
    form, width = stored.format, stored.type.shape[1:]
    if op.name != "embedding" or op.operands[0] is not table or not form.has_rows or len(width) != 1:
        return None
    ids = op.operands[1]
    assert ids is not None
    flat = ids if ids.ndim == 1 else ops.reshape(ids, shape=(product(ids.shape),))
    taken = [ops.embedding(part, flat) for part in parts]
    rows = dequantized(taken, form, stored.type.with_shape((flat.shape[0], *width)))
    return rows if ids.ndim == 1 else ops.reshape(rows, shape=(*ids.shape, *width))  # type: ignore[return-value]


__all__ = ["Stored", "dequantized", "quantize_weights"]
