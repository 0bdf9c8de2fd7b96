"""Frozen weights that are read only side by side are stored so: one concatenation when compiling, none in a step.

Of weights that are stored as integers the arrays are joined, each with its like, where the format allows that, so that
one `dequantize` gives all. The stored weight's recipe names the weights it was made from, so that checkpoints and
`weights` speak of these.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from graphc.ir import ops
from graphc.ir.formats import parse_format
from graphc.ir.graph import Op, Parameter, Value
from graphc.ir.module import Array, Module, Weight, WeightTable
from graphc.ir.recipes import Quantize, Recipe
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes.weight_parameters import WeightParameters, forget_weights


@dataclass(frozen=True)
class Side:
    """What a concatenation reads: for each weight the names of its arrays (itself, or those of its format)."""

    names: tuple[tuple[str, ...], ...]
    axis: int
    form: str | None = None


def join_weights(module: Module) -> int:
    """Join what every function reads joined, in place; returns how many arrays were made. Linear."""
    concats: dict[Side, list[Op]] = {}
    for function in module.functions.values():
        named = {p.value: p.weight for p in function.parameters if p.weight is not None}
        for op in function.block:
            side = _side(op, named) if op.name == "concat" else None
            if side is not None:
                concats.setdefault(side, []).append(op)
    made = 0
    uses, parameters = _Uses(module), WeightParameters(module)
    gone: list[str] = []
    for side, found in concats.items():
        recipes = _recipes(module, side, found, uses)
        if recipes is not None:
            _join(module, side, recipes, found, parameters)
            gone += [name for arrays in side.names for name in arrays]
            made += len(recipes)
    forget_weights(module, set(gone))
    return made


def _side(op: Op, named: Mapping[Value, str]) -> Side | None:
    """What a concatenation of weights reads, where each is another one and all are stored in one way."""
    names: list[tuple[str, ...]] = []
    forms: set[str | None] = set()
    for value in (value for value in op.operands if value is not None):
        inner = value.op if value.op is not None and value.op.name == "dequantize" else None
        arrays = [value] if inner is None else [array for array in inner.operands if array is not None]
        names.append(tuple(named[array] for array in arrays if array in named))
        forms.add(None if inner is None else inner.attribute_dict["format"])
        if len(names[-1]) < len(arrays):
            return None
    flat = [name for arrays in names for name in arrays]
    if len(names) < 2 or len(forms) > 1 or len(set(flat)) < len(flat):
        return None
    return Side(tuple(names), op.attribute_dict["axis"], forms.pop())


class _Uses:
    """The parameters that stand for each weight, those that are written, and the weights that others are tied to."""

    def __init__(self, module: Module) -> None:
        self.parameters: dict[str, list[Parameter]] = {}
        self.written: set[Parameter | None] = set()
        for function in module.functions.values():
            self.written.update(result.updates for result in function.results)
            for parameter in function.parameters:
                if parameter.weight is not None:
                    self.parameters.setdefault(parameter.weight, []).append(parameter)
        self.tied = {weight.alias for weight in module.weights.entries()}


def _recipes(module: Module, side: Side, concats: Sequence[Op], uses: _Uses) -> list[tuple[Recipe, int]] | None:
    """How each joined array is made of the source's weights, and along which of its own axes it is joined; None where
    something else reads one of these weights or writes it, where it is not as its source has it, or its format cannot
    be joined."""
    table, axis = module.weights, side.axis
    readers = set(concats)
    if side.form is not None:
        readers = {value.op for op in concats for value in op.operands if value is not None and value.op is not None}
        if any(op not in concats for reader in readers for op in reader.result.uses or ()):
            return None
    if not all(_is_read_by(table.info(name), readers, uses) for arrays in side.names for name in arrays):
        return None
    splits = tuple(accumulate(value.shape[axis] for value in concats[0].operands[:-1] if value is not None))
    if not all(isinstance(split, int) for split in splits):
        return None
    if side.form is None:
        sources = tuple(name for (name,) in side.names)
        plain = all(table.info(name).recipe in (None, Recipe((name,))) for name in sources)
        return [(Recipe(sources, (), axis, splits), axis)] if plain else None  # type: ignore[arg-type]
    shapes = [value.shape for value in concats[0].operands if value is not None]
    axes = parse_format(side.form).joined_axes(shapes, axis)
    found: list[tuple[Recipe, int]] = []
    for part, own in enumerate(axes or ()):
        before = [
            _recipe_of(table.info(arrays[part]), side.form, shape, part)
            for arrays, shape in zip(side.names, shapes, strict=True)
        ]
        sources = tuple(recipe.sources[0] for recipe in before if recipe is not None)
        kinds = {recipe.quantized.before for recipe in before if recipe is not None and recipe.quantized is not None}
        if len(sources) < len(before) or len(kinds) > 1:
            return None
        step = Quantize(side.form, concats[0].result.type.shape, kinds.pop(), part)  # type: ignore[arg-type]
        found.append((Recipe(sources, (step,), axis, splits), own))  # type: ignore[arg-type]
    return found or None


def _recipe_of(weight: Weight, form: str, shape: Sequence[object], part: int) -> Recipe | None:
    """The recipe of an array of a format that is all that was done to a weight of this shape."""
    recipe = weight.recipe
    if recipe is None or len(recipe.sources) > 1 or len(recipe.steps) > 1 or recipe.quantized is None:
        return None
    step = recipe.quantized
    return recipe if (step.format, step.shape, step.part) == (form, tuple(shape), part) else None


def _is_read_by(weight: Weight, readers: Collection[Op], uses: _Uses) -> bool:
    """Whether only these read a weight, under this name, and nothing writes it."""
    if weight.alias is not None or weight.name in uses.tied or (weight.array is None and weight.load is None):
        return False
    found = uses.parameters.get(weight.name, ())
    return all(p not in uses.written and all(op in readers for op in p.value.uses or ()) for p in found)


def _join(
    module: Module,
    side: Side,
    recipes: Sequence[tuple[Recipe, int]],
    concats: Sequence[Op],
    parameters: WeightParameters,
) -> None:
    columns = list(zip(*side.names, strict=True))
    names = [
        _store(module.weights, column, recipe, axis) for column, (recipe, axis) in zip(columns, recipes, strict=True)
    ]
    rewriter = Rewriter()
    inner = dict.fromkeys(value.op for op in concats for value in op.operands if value is not None)
    for op in concats:
        function, type = op.block.function, op.result.type
        assert function is not None
        arrays = [parameters.of(function, name) for name in names]
        if side.form is None:
            rewriter.replace(op, arrays[0])
            continue
        with rewriter.before(op):
            whole = ops.dequantize(*arrays, format=side.form, shape=type.shape, dtype=type.dtype)
        rewriter.replace(op, whole)
    for op in inner:
        if op is not None:
            rewriter.erase(op)
    rewriter.flush()


def _store(table: WeightTable, names: Sequence[str], recipe: Recipe, axis: int) -> str:
    """Put the arrays of these weights into the table, joined; returns under which name."""
    sources = [table.info(name) for name in names]
    shape = list(sources[0].type.shape)
    shape[axis] = sum(size for source in sources if isinstance(size := source.type.shape[axis], int))
    name, type = _joined_name(names, table), TensorType.of(sources[0].type.dtype, shape)
    loads = [_loader(source) for source in sources]

    def joined() -> Array:
        return np.concatenate([load() for load in loads], axis)

    kept = all(source.array is not None for source in sources)
    trainable = any(source.trainable for source in sources)
    array, load = (joined(), None) if kept else (None, joined)
    table.declare(Weight(name, type, trainable, recipe=recipe, load=load, array=array))
    return name


def _loader(weight: Weight) -> Callable[[], Array]:
    array, load = weight.array, weight.load

    def read() -> Array:
        if array is not None:
            return array
        assert load is not None
        return load()

    return read


def _joined_name(names: Sequence[str], table: WeightTable) -> str:
    """`mlp/gate_up_proj/kernel` for `mlp/gate_proj/kernel` and `mlp/up_proj/kernel`; `attention/qkv_proj/kernel`."""
    paths = [name.split("/") for name in names]
    leaf = paths[0][-1]
    layers = [path[-2] if len(path) > 1 else path[-1] for path in paths]
    ends = [layer.rpartition("_")[2] for layer in layers]
    common = f"_{ends[0]}" if len(set(ends)) == 1 and all("_" in layer for layer in layers) else ""
    stems = [layer.removesuffix(common) for layer in layers]
    joined = ("" if all(len(stem) == 1 for stem in stems) else "_").join(stems) + common
    above = "/".join(paths[0][:-2])
    name = "/".join(part for part in (above, joined, leaf if len(paths[0]) > 1 else "") if part)
    number = 1
    found = name
    while found in table:
        found, number = f"{name}_{number}", number + 1
    return found


__all__ = ["join_weights"]
