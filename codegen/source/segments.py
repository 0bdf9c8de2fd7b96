"""What the blocks of a model do in a training step: parts forward and backward, which become functions.

A segment is the ops of one member of a list of modules that stand together. The forward one leaves what the backward
one reads (the residuals), and that the gradients which update the block's weights: the step only keeps these for it,
under the block's number. All else comes as arguments and goes as results.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.codegen.source.dialect import Path
from graphc.codegen.source.items import Item, UpdateCall
from graphc.codegen.source.members import Layers
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


def segmented(items: Sequence[Item], blocks: Blocks) -> list[Item | Segment]:
    """The items with segments for the ops of blocks.

    What runs again for a block's backward part belongs to that, and so do updates of its weights that do not come
    after all backward parts.
    """
    out: list[Item | Segment] = []
    waiting: list[Op | UpdateCall] = []
    for item in items:
        last = out[-1] if out else None
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
                if any(isinstance(each, UpdateCall) for each in waiting):
                    out += waiting
                    waiting = []
                last = Segment(owner, blocks.paths[owner], backward, [])
                out.append(last)
            elif any(isinstance(each, UpdateCall) and not _is_of(each, owner, blocks) for each in waiting):
                out += waiting
                waiting = []
                last = Segment(owner, blocks.paths[owner], backward, [])
                out.append(last)
            last.items += [*waiting, item]
        waiting = []
    return _only_whole([*out, *waiting])


def _updated(last: Segment, waiting: list[Op | UpdateCall], blocks: Blocks) -> list[Op | UpdateCall]:
    """Let a segment that has ended have the updates of its weights that come at once; what is left."""
    count = 0
    while count < len(waiting) and last.backward and _is_of(waiting[count], last.owner, blocks):
        count += 1
    last.items += waiting[:count]
    return waiting[count:]


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


def passed_on(first: Segment, last: Segment, following: Segment, home: Mapping[Op, Segment]) -> dict[int, int] | None:
    """Argument of `following` → the result of `last` that it is, in a loop from `first` on; None if it cannot be in it.

    Other arguments are the same for all; results go to the next block alone.
    """
    if len(following.arguments) != len(first.arguments) or len(following.results) != len(first.results):
        return None
    found: dict[int, int] = {}
    for i, value in enumerate(following.arguments):
        if value in last.results:
            found[i] = last.results.index(value)
        elif value is not first.arguments[i]:
            return None
    if len(set(found.values())) != len(found) or not all(_stays(v, last, following, home) for v in last.results):
        return None
    return found


def _stays(value: Value, last: Segment, following: Segment, home: Mapping[Op, Segment]) -> bool:
    """Whether a result is read by nothing but the next segment, and the backward ones that take it."""
    for user in value.uses or ():
        reader = home.get(user)
        if reader is None or not (reader in (last, following) or value in reader.taken):
            return False
    return True


__all__ = ["Blocks", "Segment", "connect", "homes", "passed_on", "segmented"]
