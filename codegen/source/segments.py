"""What the blocks of a model do in a training step: parts forward and backward, which become functions.

A segment is the ops of one member of a list of modules that stand together. The forward one leaves what the backward
one reads (the residuals), and that the gradients which update the block's weights: the step only keeps these for it,
under the block's number. All else comes as arguments and goes as results.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from graphc.codegen.source.dialect import Path
from graphc.codegen.source.items import Item, UpdateCall
from graphc.codegen.source.members import Layers
from graphc.ir.dtypes import u32
from graphc.ir.graph import Op, Value, operand_values
from graphc.ir.location import Scope
from graphc.passes.autodiff.joint import MARK
from graphc.passes.partition.backward import is_backward
from graphc.passes.partition.rewrite import AGAIN

LEAST = 6
"""Ops of a segment; fewer stay in the step."""


@dataclass(eq=False, slots=True)
class Segment:
    """What one block does forward or backward."""

    owner: str
    path: Path
    """The place of the block below the root: that of its list, and its number."""
    backward: bool
    items: list[Op | UpdateCall]
    arguments: list[Value] = field(default_factory=list)
    taken: list[Value] = field(default_factory=list)
    """What the forward segment left for this one."""
    results: list[Value] = field(default_factory=list)
    left: list[Value] = field(default_factory=list)
    """What the backward segment takes, arguments of this one among it."""
    gradients: dict[Value, str] = field(default_factory=dict)
    """What is kept for the updates of the block's weights, with the weights' names below it."""

    @property
    def ops(self) -> list[Op]:
        """The ops among the items."""
        return [item for item in self.items if isinstance(item, Op)]

    @property
    def updates(self) -> list[UpdateCall]:
        """Updates of the block's weights that come before its backward part ends, as plans of memory have them."""
        return [item for item in self.items if isinstance(item, UpdateCall)]

    def inside(self) -> Iterator[Op]:
        """All ops, those of updates among them."""
        for item in self.items:
            if isinstance(item, Op):
                yield item
            else:
                yield from item.node.ops


def homes(segments: Iterable[Segment]) -> dict[Op, Segment]:
    """The segments of ops."""
    return {op: segment for segment in segments for op in segment.inside()}


class Blocks:
    """The members of lists that a model has, and which ops of a step belong to them."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths
        self._of: dict[Scope, str | None] = {}

    def of(self, scope: Scope) -> str | None:
        """The block that a scope lies in, forward or backward."""
        if scope not in self._of:
            names = [part.name for part in scope.parts if part.name != MARK]
            self._of[scope] = self.of_path("/".join(names))
        return self._of[scope]

    def of_path(self, path: str) -> str | None:
        """The block that a layer or weight lies in."""
        at = path.find("/")
        while at >= 0:
            if path[:at] in self.paths:
                return path[:at]
            at = path.find("/", at + 1)
        return path if path in self.paths else None


def _is_again(op: Op) -> bool:
    """Whether the op runs again what the forward part has run."""
    parts = op.location.scope.parts
    return len(parts) > 1 and parts[0].name == MARK and parts[1].name == AGAIN


class Row(NamedTuple):
    """A row of an array whose first axis has one for each use, as keys of dropout have it."""

    array: Value
    number: int


def row_of(value: Value) -> Row | None:
    """The row that a value is, where that is an array's."""
    op = value.op
    source = op.operands[0] if op is not None and op.name == "reshape" else None
    cut = source.op if source is not None else None
    array = cut.operands[0] if cut is not None and cut.name == "slice" else None
    if cut is None or array is None or value.type.shape != array.type.shape[1:]:
        return None
    starts, limits, strides = cut.attributes[:3]
    whole = starts[1:] == (0,) * (array.ndim - 1) and limits[1:] == array.type.shape[1:]
    return Row(array, starts[0]) if whole and limits[0] == starts[0] + 1 and strides is None else None


class Blocked(NamedTuple):
    """The parts of a step: items and segments, and the ops of blocks that only cut rows out of what blocks share."""

    parts: list[Item | Segment]
    cuts: dict[Value, Op]


def segmented(items: Sequence[Item], blocks: Blocks) -> Blocked:
    """The parts of a step, with segments for the ops of blocks.

    What runs again for a block's backward part belongs to that, and so do updates of its weights that do not come
    after all backward parts.
    """
    out: list[Item | Segment] = []
    waiting: list[Op | UpdateCall] = []
    cuts: dict[Value, Op] = {}
    for item in items:
        last = out[-1] if out else None
        if isinstance(item, Op) and _is_cut(item, cuts, blocks):
            cuts[item.results[0]] = item
            continue
        if isinstance(item, Op) and _is_again(item):
            waiting.append(item)
            continue
        if isinstance(item, UpdateCall) and isinstance(last, Segment):
            waiting.append(item)
            continue
        owner = blocks.of(item.location.scope) if isinstance(item, Op) else None
        if owner is None or not isinstance(item, Op):
            out += [*waiting, item]
        else:
            backward = is_backward(item)
            if not isinstance(last, Segment) or last.owner != owner or last.backward != backward:
                if isinstance(last, Segment):
                    waiting = _updated(last, waiting, blocks)
                if any(isinstance(each, UpdateCall) or _is_elsewhere(each, owner, blocks) for each in waiting):
                    out += waiting
                    waiting = []
                last = Segment(owner, blocks.paths[owner], backward, [])
                out.append(last)
            elif any(not _may_stand(each, owner, blocks) for each in waiting):
                out += waiting
                waiting = []
                last = Segment(owner, blocks.paths[owner], backward, [])
                out.append(last)
            last.items += [*waiting, item]
        waiting = []
    return Blocked(_only_whole([*out, *waiting]), cuts)


def _is_cut(op: Op, cuts: Mapping[Value, Op], blocks: Blocks) -> bool:
    """Whether an op of a block only gets it its keys from those of all."""
    source = op.operands[0] if op.operands else None
    if op.name not in ("reshape", "slice") or source is None or source.dtype is not u32 or not blocks.of(_scope(op)):
        return False
    return source in cuts or source.op is None or blocks.of(_scope(source.op)) is None


def _scope(op: Op) -> Scope:
    return op.location.scope


def _updated(last: Segment, waiting: list[Op | UpdateCall], blocks: Blocks) -> list[Op | UpdateCall]:
    """Let a segment that has ended have the updates of its weights that come at once; what is left."""
    count = 0
    while count < len(waiting) and last.backward and _is_of(waiting[count], last.owner, blocks):
        count += 1
    last.items += waiting[:count]
    return waiting[count:]


def _may_stand(item: Op | UpdateCall, owner: str, blocks: Blocks) -> bool:
    """Whether an update, or what runs again, may be in a segment of the block."""
    return _is_of(item, owner, blocks) if isinstance(item, UpdateCall) else not _is_elsewhere(item, owner, blocks)


def _is_elsewhere(item: Op | UpdateCall, owner: str, blocks: Blocks) -> bool:
    """Whether what runs again is of a layer outside of the block, whose class knows nothing of that."""
    if isinstance(item, UpdateCall):
        return False
    found = blocks.of_path("/".join(part.name for part in _scope(item).parts if part.name not in (MARK, AGAIN)))
    reads_weight = any(value.op is None for value in operand_values(item))
    return found != owner and (found is not None or reads_weight)


def _is_of(item: Op | UpdateCall, owner: str, blocks: Blocks) -> bool:
    """Whether it is the update of a weight of the block."""
    return isinstance(item, UpdateCall) and blocks.of_path(item.form.weight) == owner


def _only_whole(items: Sequence[Item | Segment]) -> list[Item | Segment]:
    """Without segments that are short, or of blocks with more than one of a kind, or that do not run backward."""
    kinds: dict[str, list[bool]] = {}
    for item in items:
        if isinstance(item, Segment) and len(item.ops) >= LEAST:
            kinds.setdefault(item.owner, []).append(item.backward)
    whole = {owner for owner, found in kinds.items() if found == [False, True]}
    out: list[Item | Segment] = []
    for item in items:
        if isinstance(item, Segment) and (item.owner not in whole or len(item.ops) < LEAST):
            out += item.items
        else:
            out.append(item)
    return out


def connect(segments: Sequence[Segment], layers: Layers, gradients: Mapping[Value, str]) -> None:
    """Find what goes into segments and what comes out. `gradients` are those that are kept for updates of blocks."""
    home = homes(segments)
    readers: dict[Value, set[str]] = {}
    """Of arguments the blocks whose forward parts read them."""
    for segment in segments:
        segment.arguments = _arguments(segment, home, layers)
        if not segment.backward:
            for value in segment.arguments:
                readers.setdefault(value, set()).add(segment.owner)
    forward = {segment.owner: segment for segment in segments if not segment.backward}
    for segment in segments:
        if segment.backward:
            _take(forward[segment.owner], segment, home, readers)
    for segment in segments:
        left = set(segment.left)
        for op in segment.ops:
            for value in op.results:
                outside = {home.get(user) for user in value.uses or ()} - {segment}
                if value in gradients:
                    segment.gradients[value] = gradients[value]
                elif value in left:
                    if any(each is None or each.owner != segment.owner for each in outside):
                        segment.results.append(value)
                elif outside:
                    segment.results.append(value)


def _arguments(segment: Segment, home: Mapping[Op, Segment], layers: Layers) -> list[Value]:
    """What the ops of a segment read that is computed elsewhere, and weights of other blocks."""
    found: dict[Value, None] = {}
    for item in segment.items:
        for value in operand_values(item) if isinstance(item, Op) else item.form.arguments:
            if isinstance(item, UpdateCall) and value in layers.weight_of:
                continue
            producer = value.op
            if producer is None:
                weight = layers.weight_of.get(value)
                if weight is not None and f"{layers.resolved(value)}/".startswith(f"{segment.owner}/"):
                    continue
            elif producer.name == "constant" or home.get(producer) is segment:
                continue
            found[value] = None
    return list(found)


def _take(
    before: Segment, segment: Segment, home: Mapping[Op, Segment], readers: Mapping[Value, Collection[str]]
) -> None:
    """Let a backward segment take what it reads of its block's forward part: values from there, its own arguments."""
    own = set(before.arguments)
    for value in segment.arguments:
        producer = value.op
        if producer is None:
            continue
        if home.get(producer) is before or (value in own and len(readers[value]) == 1):
            segment.taken.append(value)
    taken = set(segment.taken)
    place = {value: i for i, value in enumerate(before.arguments, 1)}
    segment.arguments = [value for value in segment.arguments if value not in taken]
    segment.arguments.sort(key=lambda value: place.get(value, 0))  # gradients first
    order = [*before.arguments, *(value for op in before.ops for value in op.results)]
    segment.taken = before.left = [value for value in order if value in taken]


class Passed(NamedTuple):
    """How a loop over blocks gets its arguments; the others are the same for all."""

    carried: dict[int, int]
    """Argument → the result of the block before that it is."""
    rows: dict[int, tuple[Value, int, int]]
    """Argument → the array of which it is the row `a * i + b` for block `i`: the array, a and b."""


def passed_on(first: Segment, last: Segment, following: Segment, home: Mapping[Op, Segment]) -> Passed | None:
    """How `following` gets its arguments in a loop from `first` on, in which `last` is before it; None if it cannot.

    Results go to the next block alone.
    """
    if len(following.arguments) != len(first.arguments) or len(following.results) != len(first.results):
        return None
    found = Passed({}, {})
    for i, (value, begun) in enumerate(zip(following.arguments, first.arguments, strict=True)):
        if value in last.results:
            found.carried[i] = last.results.index(value)
        elif value is not begun:
            row = _progression(first, begun, following, value)
            if row is None:
                return None
            found.rows[i] = row
    results = found.carried.values()
    if len(set(results)) != len(results) or not all(_stays(v, last, following, home) for v in last.results):
        return None
    return found


def _progression(first: Segment, begun: Value, following: Segment, value: Value) -> tuple[Value, int, int] | None:
    """The array whose rows two blocks get, and how their numbers come from those of the blocks."""
    one, two = row_of(begun), row_of(value)
    start, number = int(first.path[-1]), int(following.path[-1])
    if one is None or two is None or one.array is not two.array or (two.number - one.number) % (number - start):
        return None
    step = (two.number - one.number) // (number - start)
    return one.array, step, one.number - step * start


def _stays(value: Value, last: Segment, following: Segment, home: Mapping[Op, Segment]) -> bool:
    """Whether a result is read by nothing but the next segment, and the backward ones that take it."""
    for user in value.uses or ():
        reader = home.get(user)
        if reader is None or not (reader in (last, following) or value in reader.taken):
            return False
    return True


__all__ = ["Blocked", "Blocks", "Passed", "Segment", "connect", "homes", "passed_on", "segmented"]
