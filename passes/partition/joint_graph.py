"""A function with forward and backward ops as numbers, which planning works on: bytes, FLOPs, who reads what.

Ops are numbered with the forward ones first, then the backward ones, each in their order. An op is backward if it
stands below autodiff's mark or depends on one that does (the update of a weight), or is arithmetic for those that hangs
on nothing of the forward part (the decay of a weight). The latter never runs again: numbers come first, so that updates
stay alike, arrays just before they are read. Values are numbered as well; those that are given (parameters, views of
them, and constants) are at hand everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.ir.analysis.cost import op_cost
from graphc.ir.analysis.liveness import PLAIN, Memory, type_bytes
from graphc.ir.dims import Size, evaluate
from graphc.ir.graph import Function, Op, Value, operand_values
from graphc.ir.types import TensorType
from graphc.passes.partition.backward import is_backward

GIVEN = -1
"""The buffer of a value that the caller holds."""

NEVER_AGAIN = frozenset({"while", "assume_dim"})
"""Ops that are not recomputed: what they cost is not known, or their symbols may be bound only once."""


@dataclass(slots=True)
class JointGraph:
    """`forward` ops come first in `ops`. For each op: the values it reads and makes, FLOPs, workspace, and for a view
    the values whose buffers its results share. For each value: its bytes (0 for parameters and views of them) and the
    op that makes it."""

    function: Function
    sizes: Mapping[str, int]
    ops: list[Op]
    forward: int
    values: list[Value]
    number: dict[Value, int]
    bytes: list[int]
    maker: list[int]
    reads: list[list[int]]
    makes: list[list[int]]
    flops: list[int]
    workspace: list[int]
    shares: list[list[int] | None]
    fixed: list[bool]
    """Whether an op may not be recomputed."""
    sunk: frozenset[Op] = frozenset()
    """The backward ops that stand elsewhere in the block, and are to move before the op that follows here."""
    given: set[int] = field(default_factory=set[int])
    outputs: set[int] = field(default_factory=set[int])

    def is_forward(self, value: int) -> bool:
        """Whether the value is made by a forward op, and not given."""
        return 0 <= self.maker[value] < self.forward and value not in self.given

    def read_by_backward(self) -> list[int]:
        """The forward values that backward ops read, in order of their first use."""
        found: dict[int, None] = {}
        for op in range(self.forward, len(self.ops)):
            found.update((value, None) for value in self.reads[op] if self.is_forward(value))
        return list(found)


def joint_graph(function: Function, sizes: Mapping[str, int], memory: Memory = PLAIN) -> JointGraph:
    """The graph of `function` at these sizes of its symbols, as `memory` holds values.

    Raises `ShapeError` for a symbol without a size. Linear in the number of ops.
    """
    backward: set[Op] = set()
    first: list[Op] = []
    second: list[Op] = []
    made_backward: set[Value] = set()
    for op in function.block:
        if op.next is None:
            break
        if is_backward(op) or any(value in made_backward for value in operand_values(op)):
            backward.add(op)
            made_backward.update(op.results)
            second.append(op)
        else:
            first.append(op)
    apart = _apart(first, backward)
    first = [op for op in first if op not in apart]
    if memory.in_place:
        second = [op for op in function.block if op in apart or op in backward]
    else:
        numbers = [op for op in function.block if op in apart and all(value.ndim == 0 for value in op.results)]
        second = _merged(apart, [*numbers, *second])
    ops = [*first, *second]
    known_bytes: dict[TensorType, int] = {}

    def size_of(type: TensorType) -> int:
        found = known_bytes.get(type)
        if found is None:
            found = known_bytes[type] = evaluate(type_bytes(type), dict(sizes))
        return found

    known_flops: dict[tuple[object, ...], int] = {}

    def flops_of(op: Op) -> int:
        key = (op.__class__, op.attributes, *(None if v is None else v.type for v in op.operands))
        if op.regions or op.name == "call":
            return _evaluated(op_cost(op).flops, sizes)
        if key not in known_flops:
            known_flops[key] = _evaluated(op_cost(op).flops, sizes)
        return known_flops[key]

    values: list[Value] = list(function.block.parameters)
    number = {value: i for i, value in enumerate(values)}
    graph = JointGraph(
        function, sizes, ops, len(first), values, number, [0] * len(values), [GIVEN] * len(values), *_no()
    )
    graph.sunk = frozenset() if memory.in_place else frozenset(apart)
    given = set(values)
    for i, op in enumerate(ops):
        operands = list(operand_values(op))
        sources = memory.sources(op)
        free = all(value in given for value in operands) and op not in backward and op not in apart
        free = free and (op.name == "constant" or (sources is not None and bool(operands)))
        graph.reads.append([number[value] for value in operands])
        graph.makes.append([])
        for value in op.results:
            number[value] = len(values)
            graph.makes[-1].append(len(values))
            values.append(value)
            graph.bytes.append(0 if free and operands else size_of(value.type))
            graph.maker.append(i)
        if free:
            given.update(op.results)
        graph.flops.append(0 if sources is not None or memory.is_free(op) else flops_of(op))
        graph.workspace.append(memory.workspace(op, size_of))
        graph.shares.append(None if sources is None else [number[value] for value in sources])
        graph.fixed.append(op.name in NEVER_AGAIN or op.definition.has_effect or op.definition.introduces_symbols)
    graph.given = {number[value] for value in given}
    graph.outputs = {number[value] for value in function.outputs}
    return graph


def _apart(forward: list[Op], backward: set[Op]) -> set[Op]:
    """Those of the `forward` ops that only backward ops read which autodiff did not write, and that read nothing of the
    rest but constants."""
    free: set[Op] = set()
    for op in forward:
        makers = [value.op for value in operand_values(op) if value.op is not None]
        alone = all(maker in free or maker.name == "constant" for maker in makers)
        if alone and op.name != "constant" and op.results and not op.definition.has_effect and not op.regions:
            free.add(op)
    apart: set[Op] = set()
    for op in reversed(forward):
        if op in free:
            users = {user for value in op.results for user in value.uses or () if user.next is not None}
            if users and all(user in apart or (user in backward and not is_backward(user)) for user in users):
                apart.add(op)
    return apart


def _merged(apart: set[Op], readers: list[Op]) -> list[Op]:
    """These ops, with those that are `apart` just before what reads them first."""
    found: list[Op] = []
    placed: set[Op] = set()
    for reader in readers:
        stack = [reader]
        while stack:
            op = stack[-1]
            makers = (value.op for value in operand_values(op))
            missing = [maker for maker in makers if maker in apart and maker not in placed]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if op not in placed:
                placed.add(op)
                found.append(op)
    return found


def _no() -> tuple[list[list[int]], list[list[int]], list[int], list[int], list[list[int] | None], list[bool]]:
    return [], [], [], [], [], []


def _evaluated(size: Size, sizes: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else evaluate(size, dict(sizes))
