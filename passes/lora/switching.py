"""Several adapters in one module: an input says which one a call computes with.

The factors of all adapters of a kernel lie in one weight, one behind another; a call takes those that the input
`adapter` points at, 0 for the base alone. So the size of the code does not grow with the number of adapters, and a
target that loaded the weights once switches by a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.adapting import AdapterValues, Form, adapt
from graphc.ir.builder import Builder
from graphc.ir.dtypes import i32
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function, Value
from graphc.ir.location import ROOT, Location
from graphc.ir.module import Array, Module
from graphc.ir.recipes import Recipe, Reshape
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes.weight_parameters import WeightParameters, forget_weights

INPUT = "adapter"


@dataclass(frozen=True)
class Member:
    """What one adapter has for a kernel: the names of its weights, and their arrays."""

    names: tuple[str, str, str]
    a: Array
    b: Array
    scaling: float
    magnitude: Array | None = None


@dataclass
class Switched:
    """The adapters of a kernel by name, and how they lie beside it."""

    form: Form
    members: dict[str, Member] = field(default_factory=dict[str, Member])


def switch(
    module: Module,
    adapters: Sequence[str],
    kernels: Mapping[str, Switched],
    replaced: Mapping[str, Mapping[str, tuple[str, Array]]],
    entry: str = "forward",
) -> None:
    """Give an entry of a module without adapters the input `adapter`, in place: 0 is the base, n the adapter n - 1.

    `kernels` are by the weight's name; `replaced` are weights of which some adapters have their own: adapter → its name
    there, and the array. The weights of the adapters stay known by their names to whoever reads or writes the weights
    of an artifact; where ranks differ, they are filled up with zeros.
    """
    function = module.entry(entry)
    if any(p.name == INPUT for p in function.parameters):
        raise GraphcError(f"@{entry} has an input {INPUT!r} already")
    chosen = function.add_parameter(TensorType.of(i32, ()), INPUT)
    with Builder(function.block, function.block.first, Location.of(ROOT)):
        place = ops.maximum(chosen - 1, 0)
    readers: dict[str, list[Value]] = {}
    for parameter in function.parameters:
        if parameter.weight is not None:
            readers.setdefault(module.weights.source(parameter.weight).name, []).append(parameter.value)
    parameters = WeightParameters(module)
    for kernel, switched in kernels.items():
        _switch(module, function, parameters, kernel, readers.get(kernel, ()), switched, adapters, chosen, place)
    for weight, own in replaced.items():
        if weight in readers:
            _replace(module, function, parameters, weight, readers[weight], own, adapters, chosen)
    gone = {name for switched in kernels.values() for member in switched.members.values() for name in member.names}
    tied = {weight.alias for weight in module.weights.entries()}
    gone |= {weight for weight in replaced if weight in readers and weight not in tied}
    forget_weights(module, gone & {weight.name for weight in module.weights.entries()})


def _switch(
    module: Module,
    function: Function,
    parameters: WeightParameters,
    kernel: str,
    readers: Sequence[Value],
    switched: Switched,
    adapters: Sequence[str],
    chosen: Value,
    place: Value,
) -> None:
    form, members = switched.form, switched.members
    rank = max(member.a.shape[-1] for member in members.values())
    positions = {name: i for i, name in enumerate(members)}
    index = [0, *(positions.get(name, 0) for name in adapters)]
    scales = [0.0, *(members[name].scaling if name in members else 0.0 for name in adapters)]
    a = _stacked(module, [m.names[0] for m in members.values()], [_widened(m.a, rank, -1) for m in members.values()])
    b = _stacked(module, [m.names[1] for m in members.values()], [_widened(m.b, rank, 0) for m in members.values()])
    with_dora = [name for name, member in members.items() if member.magnitude is not None]
    m = None
    if with_dora:
        ones = np.ones(form.outputs, np.asarray(next(iter(members.values())).a).dtype)
        arrays = [ones if member.magnitude is None else member.magnitude for member in members.values()]
        m = _stacked(module, [member.names[2] for member in members.values()], arrays)
    stacks = [None if name is None else parameters.of(function, name) for name in (a, b, m)]
    assert stacks[0] is not None and stacks[1] is not None
    with Builder(function.block, _first_use(function, place), Location.of(ROOT)):
        at = place if index == [0, *range(len(adapters))] else _looked_up(index, np.int32, chosen)
        taken_a, taken_b = ops.gather(stacks[0], at, axis=0), ops.gather(stacks[1], at, axis=0)
        taken_b = taken_b * _looked_up(scales, stacks[1].dtype.numpy, chosen)
        magnitude = active = None
        if stacks[2] is not None:
            magnitude = ops.gather(stacks[2], at, axis=0)
            active = ops.ne(_looked_up([0, *(int(n in with_dora) for n in adapters)], np.int32, chosen), 0)
    values = AdapterValues(form, taken_a, taken_b, 1.0, magnitude, active=active)
    for reader in readers:
        adapt(reader, values, kernel)


def _first_use(function: Function, place: Value) -> Any:
    """Behind the op that computes the place."""
    assert place.op is not None
    return place.op.next


def _looked_up(numbers: Sequence[float], dtype: Any, chosen: Value) -> Value:
    return ops.gather(np.array(numbers, dtype), chosen, axis=0)


def _widened(array: Array, rank: int, axis: int) -> Array:
    missing = rank - array.shape[axis]
    if not missing:
        return array
    pads = [(0, 0)] * array.ndim
    pads[axis] = (0, missing)
    return np.pad(array, pads)


def _stacked(module: Module, names: Sequence[str], arrays: Sequence[Array]) -> str:
    """A weight of all these arrays along a new first axis, which names them as its sources."""
    shape = arrays[0].shape
    joined = np.concatenate([array.reshape(array.shape or (1,)) for array in arrays], 0)
    stacked = (len(arrays), *shape)
    rows = shape[0] if shape else 1
    splits = tuple(rows * i for i in range(1, len(arrays)))
    recipe = Recipe(tuple(names), (Reshape(joined.shape, stacked),), 0, splits)
    name = f"{names[0]}_stacked"
    module.weights.add(name, joined.reshape(stacked), recipe=recipe)
    return name


def _replace(
    module: Module,
    function: Function,
    parameters: WeightParameters,
    weight: str,
    readers: Sequence[Value],
    own: Mapping[str, tuple[str, Array]],
    adapters: Sequence[str],
    chosen: Value,
) -> None:
    """Let readers of a weight read that of the adapter, where it has one."""
    positions = {name: i for i, name in enumerate(own, 1)}
    base = module.weights[weight]
    uses = [(reader, list(reader.uses or ())) for reader in readers]
    rewriter = Rewriter()
    stack_name = f"{weight}_stacked"
    names, arrays = (weight, *(name for name, _ in own.values())), [base, *(array for _, array in own.values())]
    joined = np.concatenate([array.reshape(array.shape or (1,)) for array in arrays], 0)
    stacked = (len(arrays), *base.shape)
    splits = tuple((base.shape[0] if base.shape else 1) * i for i in range(1, len(arrays)))
    recipe = Recipe(names, (Reshape(joined.shape, stacked),), 0, splits)
    module.weights.add(stack_name, joined.reshape(stacked), recipe=recipe)
    stack = parameters.of(function, stack_name)
    with Builder(function.block, function.block.first, Location.of(ROOT)):
        index = [0, *(positions.get(name, 0) for name in adapters)]
        taken = ops.gather(stack, _looked_up(index, np.int32, chosen), axis=0)
    for reader, readers_ops in uses:
        for op in readers_ops:
            rewriter.set_operands(op, [taken if value is reader else value for value in op.operands])
    rewriter.flush()


__all__ = ["INPUT", "Member", "Switched", "switch"]
