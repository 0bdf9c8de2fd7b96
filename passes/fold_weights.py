"""`fold_weights`: what only rearranges a weight is done to the stored weight, once, and noted in its recipe.

A transpose, reshape or convert of a weight that all readers of the weight want in the same way, in all functions, goes
into the weight table: the parameter gets the new type, the weight a `Recipe` that makes it from the source's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graphc.ir.dtypes import f64
from graphc.ir.graph import Function, Op, Parameter
from graphc.ir.module import Array, Module, Weight
from graphc.ir.opdef import OpDef
from graphc.ir.ops.casting import convert
from graphc.ir.ops.movement import reshape, transpose
from graphc.ir.recipes import Cast, Permute, Recipe, Reshape, Step
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes.registry import register_pass


@dataclass(slots=True)
class WeightGroup:
    """All parameters that stand for one array, under whichever tied name."""

    source: Weight
    weights: list[Weight]
    parameters: list[tuple[Function, Parameter]] = field(default_factory=list[tuple[Function, Parameter]])


@register_pass("fold_weights")
def fold_weights(module: Module) -> None:
    """Fold transposes, reshapes and casts of weights into the stored weights, with a recipe that undoes it."""
    rewriter = Rewriter()
    for group in weight_groups(module):
        while (ops := _common_step(group)) is not None:
            _fold(group, ops, rewriter)
    rewriter.flush()


def weight_groups(module: Module) -> list[WeightGroup]:
    """The weights of a module with the parameters that stand for them, tied ones together."""
    groups: dict[str, WeightGroup] = {}
    for weight in module.weights.entries():
        source = module.weights.source(weight.name)
        groups.setdefault(source.name, WeightGroup(source, [])).weights.append(weight)
    for function in module.functions.values():
        for parameter in function.parameters:
            if parameter.weight is not None:
                groups[module.weights.source(parameter.weight).name].parameters.append((function, parameter))
    return list(groups.values())


def _common_step(group: WeightGroup) -> list[Op] | None:
    """The readers of a weight, if all of them rearrange it in one and the same way and nothing writes it."""
    found: list[Op] = []
    for function, parameter in group.parameters:
        if any(result.updates is parameter for result in function.results):
            return None
        for op in parameter.value.uses or ():
            if not _folds(op) or (found and _kind(op) != _kind(found[0])):
                return None
            found.append(op)
    return found if found and _is_static(found[0].result.type) else None


def _kind(op: Op) -> tuple[OpDef[..., object], tuple[object, ...]]:
    return op.definition, op.attributes


def _folds(op: Op) -> bool:
    """Whether a recipe has a step that does the same. Casts are between floats: NumPy's others saturate nothing, and
    it rounds float64 to 8 and 16 bits twice."""
    if op.definition is not convert:
        return op.definition is transpose or op.definition is reshape
    (x,) = op.operands
    assert x is not None
    before, after = x.dtype, op.result.dtype
    return before.is_float and after.is_float and (before is not f64 or after.bits >= 32)


def _step(op: Op, before: TensorType) -> Step:
    (attribute,) = op.attributes
    if op.definition is transpose:
        return Permute(attribute)
    if op.definition is convert:
        return Cast(before.dtype, attribute)
    return Reshape(_sizes(before), _sizes(op.result.type))


def _is_static(type: TensorType) -> bool:
    return all(isinstance(size, int) for size in type.shape)


def _sizes(type: TensorType) -> tuple[int, ...]:
    return tuple(size for size in type.shape if isinstance(size, int))


def _fold(group: WeightGroup, ops: list[Op], rewriter: Rewriter) -> None:
    type = ops[0].result.type
    store(group, _step(ops[0], group.source.type), type)
    for _, parameter in group.parameters:
        rewriter.set_type(parameter.value, type)
    for op in ops:
        (operand,) = op.operands
        assert operand is not None
        rewriter.replace(op, operand)


def store(group: WeightGroup, step: Step, type: TensorType) -> None:
    """Apply a step to the stored weights, and note it in their recipes; their parameters are the caller's affair."""
    _change_array(group.source, step)
    for weight in group.weights:
        weight.type = type
        if weight.alias is None:
            weight.recipe = (weight.recipe or Recipe((weight.name,))).then(step)


def _change_array(weight: Weight, step: Step) -> None:
    """Apply the step now to an array in memory, later to one that is still on disk."""
    weight.digest = None
    if weight.array is not None:
        weight.array = np.ascontiguousarray(step.apply(weight.array))
    elif weight.load is not None:
        load = weight.load

        def changed() -> Array:
            return step.apply(load())

        weight.load = changed
