"""Frozen weights that are read only side by side are stored so: one concatenation when compiling, none in a step.

The stored weight's recipe names the weights it was made from, so that checkpoints and `weights` speak of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from graphc.ir.graph import Function, Op, Parameter
from graphc.ir.module import Array, Module, Weight, WeightTable
from graphc.ir.recipes import Recipe
from graphc.ir.rewriter import Rewriter
from graphc.passes.lora.insert import weight_parameter

Key = tuple[tuple[str, ...], int]
"""Names of weights, and the axis along which they are joined."""


def join_weights(module: Module) -> int:
    """Join what every function reads joined, in place; returns how many weights were made. Linear."""
    concats: dict[Key, list[Op]] = {}
    for function in module.functions.values():
        named = {p.value: p.weight for p in function.parameters if p.weight is not None}
        for op in function.block:
            names = [named.get(value) for value in op.operands if value is not None] if op.name == "concat" else []
            sources = tuple(name for name in names if name is not None)
            if len(sources) > 1 and len(sources) == len(names) == len(set(sources)):
                concats.setdefault((sources, op.attribute_dict["axis"]), []).append(op)
    made = 0
    for (names, axis), found in concats.items():
        if _can_join(module, names, set(found)):
            _join(module, names, axis, found)
            made += 1
    return made


def _readers(module: Module, name: str) -> list[tuple[Function, Parameter]]:
    return [(f, p) for f in module.functions.values() for p in f.parameters if p.weight == name]


def _can_join(module: Module, names: Sequence[str], concats: set[Op]) -> bool:
    """Whether nothing else reads these weights, nothing writes them, and they are as their source has them."""
    table = module.weights
    aliases = {weight.alias for weight in table.entries()}
    for name in names:
        weight = table.info(name)
        plain = weight.alias is None and name not in aliases and weight.recipe in (None, Recipe((name,)))
        if not plain or (weight.array is None and weight.load is None):
            return False
        for function, parameter in _readers(module, name):
            if any(result.updates is parameter for result in function.results):
                return False
            if any(op not in concats for op in parameter.value.uses or ()):
                return False
    return True


def _join(module: Module, names: Sequence[str], axis: int, concats: Sequence[Op]) -> None:
    table = module.weights
    sources = [table.info(name) for name in names]
    sizes = [size for source in sources if isinstance(size := source.type.shape[axis], int)]
    splits = tuple(accumulate(sizes[:-1]))
    name = _joined_name(names, table)
    recipe = Recipe(tuple(names), (), axis, splits)
    trainable = any(source.trainable for source in sources)
    type = concats[0].result.type
    if all(source.array is not None for source in sources):
        array = np.concatenate([table[each] for each in names], axis)
        table.declare(Weight(name, type, trainable, recipe=recipe, array=array))
    else:
        loads = [_loader(source) for source in sources]
        table.declare(
            Weight(name, type, trainable, recipe=recipe, load=lambda: np.concatenate([load() for load in loads], axis))
        )
    rewriter = Rewriter()
    for op in concats:
        function = op.block.function
        assert function is not None
        rewriter.replace(op, weight_parameter(module, function, name))
    rewriter.flush()
    for each in names:
        for function in module.functions.values():
            for index, parameter in reversed(list(enumerate(function.parameters))):
                if parameter.weight == each:
                    rewriter.remove_parameter(function, index)
        table.remove(each)


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
