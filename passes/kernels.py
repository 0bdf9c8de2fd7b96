"""Kernels of convolutions that a step updates, stored filters first as targets read them. Part of `layout`.

What only rearranges a weight is done to the stored weight where nothing writes it (`fold_weights`). A kernel that is
written is read in one order by its convolutions, and meets its gradient and the optimizer's slots in operations that
do not care about order: all these weights are stored with the filters first, and the operations follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.ir import ops
from graphc.ir.graph import Function, Op, Parameter, Value
from graphc.ir.module import Module
from graphc.ir.recipes import Permute
from graphc.ir.rewriter import Rewriter
from graphc.passes.elementwise import is_elementwise
from graphc.passes.fold_weights import WeightGroup, store, weight_groups
from graphc.passes.permutations import Permutation, filters_first, inverse

READS_KERNEL = frozenset({"conv", "convolution", "convolution_input_gradient"})
"""Ops whose second operand is a kernel."""

_ANY_ORDER = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_mean", "return"})

_Key = Value | str
"""A value, or the name of a weight, which stands for its parameters in all functions."""


@dataclass(slots=True)
class StoredKernels:
    """`twins`: a value in the source's order → the parameter that is stored in another, and that order. `alike`: the
    values that meet such a parameter element by element."""

    twins: dict[Value, tuple[Value, Permutation]] = field(default_factory=dict[Value, "tuple[Value, Permutation]"])
    alike: set[Value] = field(default_factory=set[Value])


def store_filters_first(module: Module, rewriter: Rewriter) -> StoredKernels:
    """Store updated kernels, and the weights that meet them element by element, filters first; their recipes say so.

    Functions read and write them through transposes, which `layout` moves along until they cancel. A kernel stays as it
    is where something else reads it, or a weight that it meets. Linear.
    """
    stored = StoredKernels()
    if not any(result.updates for function in module.functions.values() for result in function.results):
        return stored
    classes = _Classes(module)
    for groups in classes.of_updated_kernels():
        for group in groups:
            shape = group.source.type.shape
            order = filters_first(len(shape))
            type = group.source.type.with_shape([shape[axis] for axis in order])
            store(group, Permute(order), type)
            for function, parameter in group.parameters:
                rewriter.set_type(parameter.value, type)
                stored.twins[_restored(function, parameter, order, rewriter)] = parameter.value, order
    orders = dict(stored.twins.values())
    for function in module.functions.values():
        _write_permuted(function, orders, rewriter)
    roots = {classes.find(parameter) for parameter in orders}
    stored.alike |= {key for key in list(classes.parent) if isinstance(key, Value) and classes.find(key) in roots}
    return stored


def _restored(function: Function, parameter: Parameter, order: Permutation, rewriter: Rewriter) -> Value:
    """The parameter in the source's order, which all that read it now read."""
    value, first = parameter.value, function.block.first
    assert first is not None
    readers = list(value.uses or ())
    with rewriter.before(first):
        back: Value = ops.transpose(value, permutation=inverse(order))  # type: ignore[assignment,arg-type]
    for op in readers:
        rewriter.set_operands(op, [back if operand is value else operand for operand in op.operands])
    return back


def _write_permuted(function: Function, orders: dict[Value, Permutation], rewriter: Rewriter) -> None:
    """Let the new values of these parameters be returned in their order."""
    terminator = function.block.terminator
    if not any(result.updates and result.updates.value in orders for result in function.results):
        return
    values = list(terminator.operands)
    with rewriter.before(terminator):
        for i, result in enumerate(function.results):
            if result.updates is not None and (order := orders.get(result.updates.value)) is not None:
                values[i] = ops.transpose(values[i], permutation=order)  # type: ignore[assignment,arg-type]
    rewriter.set_operands(terminator, values)


class _Classes:
    """Values and weights of one shape that meet element by element, as sets of which one member is the root (Tarjan,
    "Efficiency of a good but not linear set union algorithm", 1975)."""

    def __init__(self, module: Module) -> None:
        self.parent: dict[_Key, _Key] = {}
        self.groups = {group.source.name: group for group in weight_groups(module)}
        self.updated: set[str] = set()
        source = module.weights.source
        for function in module.functions.values():
            for parameter in function.parameters:
                if parameter.weight is not None:
                    self._join(parameter.value, source(parameter.weight).name)
            for result, value in zip(function.results, function.outputs, strict=True):
                if result.updates is not None and result.updates.weight is not None:
                    self.updated.add(source(result.updates.weight).name)
                    self._join(value, result.updates.value)
            for op in function.walk():
                if op.results and is_elementwise(op):
                    for value in op.operands:
                        if value is not None and value.shape == op.results[0].shape:
                            self._join(value, op.results[0])

    def find(self, key: _Key) -> _Key:
        """The root of the set that a value or a weight is in."""
        parent = self.parent
        while (above := parent.setdefault(key, key)) is not key:
            parent[key] = parent[above]
            key = above
        return key

    def _join(self, first: _Key, second: _Key) -> None:
        self.parent[self.find(first)] = self.find(second)

    def of_updated_kernels(self) -> list[list[WeightGroup]]:
        """The weights of each set that has an updated one which convolutions read, if nothing else reads any."""
        members: dict[_Key, list[str]] = {}
        for name in self.groups:
            members.setdefault(self.find(name), []).append(name)
        found: list[list[WeightGroup]] = []
        for names in members.values():
            groups = [self.groups[name] for name in names]
            readers = [(op, value) for group in groups for value in _values(group) for op in value.uses or ()]
            reads = [_reads_kernel(op, value) for op, value in readers]
            if self.updated.intersection(names) and any(reads):
                others = [op for (op, _), kernel in zip(readers, reads, strict=True) if not kernel]
                if all(op.name in _ANY_ORDER or is_elementwise(op) for op in others):
                    found.append(groups)
        return found


def _values(group: WeightGroup) -> list[Value]:
    return [parameter.value for _, parameter in group.parameters]


def _reads_kernel(op: Op, value: Value) -> bool:
    """Whether an op reads a value as a kernel with the filters last, and as nothing else."""
    return (
        op.name in READS_KERNEL
        and op.operands[1] is value
        and op.operands.count(value) == 1
        and not op.attribute_dict["filters_first"]
    )
