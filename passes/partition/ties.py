"""Keeps XLA from undoing a plan: what the backward part reads of the forward one waits for a cotangent.

XLA drops barriers before it schedules; it merges what is equal (also the softmax that an attention's gradient computes
again, and the sigmoid in that of a gate, with those of the forward part), runs what it can early, transposes weights
and activations for the backward part while the forward one runs, and copies a donated weight that might be read after
its new value is there. Here a value is tied by `select(ready, value, 0)`, where `ready` is true whatever the cotangent
is that it is computed from, in a way that no compiler sees. XLA makes the select part of the loop that reads it.

Tied are: what passes the barrier of a group that runs again; what is saved, what such a group leaves for later, and
weights that products read, at their first use in the backward part, to the last cotangent before it, so that XLA runs
the backward part in the order of the plan; the new value of a weight, to what is computed last of the old one. The
gradients of poolings, which read their operand once for each place of the window, become a branch, so that what they
read is there and not fused into each place.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_op
from graphc.ir.dtypes import f32, i32
from graphc.ir.graph import Function, Op, Region, Value, operand_values
from graphc.ir.location import Location
from graphc.ir.module import Module
from graphc.ir.ops.control import cond_op
from graphc.ir.ops.structure import yield_
from graphc.ir.rewriter import Rewriter
from graphc.passes.partition.backward import is_backward
from graphc.passes.partition.rewrite import group_of

PRODUCTS = frozenset({"convolution_input_gradient", "dot_general", "linear", "matmul"})
"""Ops that read a weight transposed, in the backward part."""

BY_PLACE = frozenset({"select_and_gather", "select_and_scatter"})
"""Ops that read their operand for each place of a window."""

FEW = 4096
"""Arrays of fewer elements are left as they are."""


def with_ties(module: Module) -> None:
    """Tie what the functions hold that a plan was carried out for, in place; others stay as they are. Linear."""
    for function in module.functions.values():
        if any(op.name == "barrier" and group_of(op) is not None for op in function.block):
            _Ties(function).write()


class _Ties:
    """Ties in one function. `late` has for each value the number of the last forward op that it waits for."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.block = function.block
        self.rewriter = Rewriter()
        self.weights = {p.value for p in function.parameters if p.weight is not None}
        self.late: dict[Value, int] = {}
        self.forward: set[Value] = set()
        self.backward: set[Value] = set()
        self.again: set[Value] = set()
        """Results of ops that run again, which are no cotangents: they may be there long before they are read."""
        for number, op in enumerate(self.block):
            if is_backward(op) or any(value in self.backward for value in operand_values(op)):
                self.backward.update(op.results)
            else:
                self.forward.update(op.results)
                self.late |= dict.fromkeys(op.results, number)
        self.tied: dict[Value, Value] = {}
        self.ready: dict[Value, Value] = {}
        self.link: Value | None = None
        """The last cotangent that waits for as much as any."""
        self.latest = -1

    def write(self) -> None:
        for op in list(self.block):
            if not op.results or op.results[0] not in self.backward:
                continue
            if op.name == "barrier" and group_of(op) is not None:
                self._open(op)
                continue
            self._tie_reads(op)
            if group_of(op) is not None:
                self.again.update(op.results)
            if op.name in BY_PLACE and self.link is not None:
                self._branch(op)
                continue
            self._made(op.results, max((self.late.get(value, -1) for value in operand_values(op)), default=-1))
        self._tie_updates()
        self.rewriter.flush()

    def _made(self, results: Sequence[Value], late: int) -> None:
        self.backward.update(results)
        self.late |= dict.fromkeys(results, late)
        if results[0] in self.again:
            return
        if late > self.latest or (late == self.latest and not _is_small(results[0])):
            self.latest, self.link = late, results[0]

    def _open(self, op: Op) -> None:
        """Ties in place of the barrier of a group, to its own link where there is no cotangent yet."""
        *values, own = operand_values(op)
        link = own if self.link is None else self.link
        for result, value in zip(op.results, values, strict=False):
            self.rewriter.replace_value(result, self._tie(value, link, op))
        self.rewriter.replace_value(op.results[-1], own)
        self.rewriter.erase(op)
        self.rewriter.flush()

    def _tie_reads(self, op: Op) -> None:
        """Let a backward op read ties of what is saved, of what ran again before it, and of weights."""
        if self.link is None:
            return
        inside = group_of(op) is not None
        found: dict[Value, Value] = {}
        for value in operand_values(op):
            early = value in self.forward or (value in self.again and not inside)
            if early or (value in self.weights and op.name in PRODUCTS):
                if value not in self.tied and not _is_small(value):
                    self.tied[value] = self._tie(value, self.link, op)
                found[value] = self.tied.get(value, value)
        if found:
            self.rewriter.set_operands(op, [v if v is None else found.get(v, v) for v in op.operands])
            self.rewriter.flush()

    def _tie(self, value: Value, link: Value, before: Op) -> Value:
        with Builder(self.block, before, before.location, function=self.function):
            tied = ops.select(self._ready(link), value, ops.full((), False if value.dtype.is_bool else 0, value.dtype))
        self._made([tied], self.late.get(link, -1))
        return tied

    def _ready(self, link: Value) -> Value:
        """A bool that is known when `link` is."""
        if link not in self.ready:
            assert link.op is not None
            location = Location.of(link.op.location.scope)
            with Builder(self.block, link.op.next, location, function=self.function):
                self.ready[link] = always(link)
            self.ready[link].name = "ready"
        return self.ready[link]

    def _branch(self, op: Op) -> None:
        """Put an op into the taken branch of a `cond`."""
        assert self.link is not None
        captures = list(dict.fromkeys(operand_values(op)))
        again, never = Region(), Region()
        inside = {value: again.block.add_parameter(value.type, value.name) for value in captures}
        for value in captures:
            never.block.add_parameter(value.type, value.name)
        copy = clone_op(op, inside)
        copy.location = op.location
        again.block.append(copy)
        yield_.build(Builder(again.block, function=self.function), tuple(copy.results))
        with Builder(never.block, function=self.function) as inner:
            yield_.build(inner, tuple(ops.full(value.shape, 0, value.dtype) for value in op.results))
        ready = self._ready(self.link)
        builder = self.rewriter.before(op)
        builder.location = op.location
        found = cond_op.build(builder, (ready, *captures), None, (again, never)).results
        for old, new in zip(op.results, found, strict=True):
            self.rewriter.replace_value(old, new)
        self.rewriter.erase(op)
        self.rewriter.flush()
        self._made(found, self.late.get(self.link, -1))

    def _tie_updates(self) -> None:
        """Let the new value of a weight wait for what is computed last of the old one."""
        number = {op: i for i, op in enumerate(self.block)}
        for result, new in zip(self.function.results, self.function.outputs, strict=True):
            update = new.op
            if result.updates is None or update is None or update.block is not self.block:
                continue
            old = result.updates.value
            read = [value for op in old.uses or () for value in (op.results if op is not update else ())]
            read += [user.results[0] for value in read if value is self.tied.get(old) for user in value.uses or ()]
            last = [v for v in read if v in self.backward and v.op in number and number[v.op] < number[update]]
            last = [v for v in last if v is not self.tied.get(old) and not _is_small(v)]
            place = next((i for i, v in enumerate(update.operands) if v in self.backward and v not in last), None)
            if last and place is not None and (value := update.operands[place]) is not None:
                tied = self._tie(value, max(last, key=lambda v: number[v.owner]), update)  # type: ignore[index]
                self.rewriter.set_operands(update, [tied if i == place else v for i, v in enumerate(update.operands)])
                self.rewriter.flush()


def _is_small(value: Value) -> bool:
    count = 1
    for size in value.shape:
        if not isinstance(size, int):
            return False
        count *= size
    return count < FEW


def always(link: Value) -> Value:
    """A bool that is true whatever `link` is, in a way that no compiler sees: of the bits of an element, or 1."""
    while link.op is not None and link.op.name == "pad" and link.op.operands[0] is not None:
        link = link.op.operands[0]  # the first element is known
    first = link
    if link.shape:
        first = ops.slice(link, starts=(0,) * link.ndim, limits=(1,) * link.ndim)
        first = ops.reshape(first, shape=())
    if first.dtype.is_float or first.dtype.is_complex:
        first = ops.real(first) if first.dtype.is_complex else first
        bits = ops.bitcast(first if first.dtype is f32 else ops.convert(first, dtype=f32), dtype=i32)
    else:
        bits = first if first.dtype is i32 else ops.convert(first, dtype=i32)
    return ops.ne(ops.or_(bits, 1), 0)
