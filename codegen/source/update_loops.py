"""Updates of the weights of blocks that are alike, as a loop over the blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from graphc.codegen.source.dialect import Path
from graphc.codegen.source.expressions import POSTFIX, Expression
from graphc.codegen.source.items import Hint, Item, UpdateCall, UpdateLoop
from graphc.codegen.source.members import SLOTS, Members
from graphc.codegen.source.naming import identifier
from graphc.codegen.source.segments import Blocks, Segment
from graphc.ir.graph import Op, Value

if TYPE_CHECKING:
    from graphc.codegen.source.writer import ModuleWriter

BLOCK, SLOT = "\0block", "\0slots"
"""Where the names of a block, and of what the optimizer keeps for it, go in the text of an update."""


def update_loops(
    writer: ModuleWriter, parts: Sequence[Item | Segment], blocks: Blocks, home: Mapping[Op, Segment]
) -> list[UpdateLoop]:
    """Loops for the updates of blocks, where those of all blocks of a list are the same but for the block.

    Their gradients are read by nothing else. The updates of a block then come together: they have nothing to do with
    one another, and nothing but updates stands between them.
    """
    runs = [list(run) for is_call, run in groupby(parts, lambda each: isinstance(each, UpdateCall)) if is_call]
    calls = [each for each in max(runs, key=len, default=[]) if isinstance(each, UpdateCall)]
    if not _are_apart(calls):
        return []
    of_block: dict[str, list[UpdateCall]] = {}
    for call in calls:
        owner = blocks.of_path(call.form.weight)
        if owner is not None:
            of_block.setdefault(owner, []).append(call)
    lists: dict[Path, list[str]] = {}
    for owner in of_block:
        lists.setdefault(blocks.paths[owner][:-1], []).append(owner)
    members = Members(writer.dialect, writer.layers, writer.places, "", writer.function_names)
    loops: list[UpdateLoop] = []
    for owners in lists.values():
        owners.sort(key=lambda owner: int(blocks.paths[owner][-1]))
        numbers = [int(blocks.paths[owner][-1]) for owner in owners]
        if len(owners) < 2 or numbers[-1] - numbers[0] != len(numbers) - 1:
            continue
        loop = _loop(owners, of_block, blocks, home, members)
        if loop is not None:
            loops.append(loop)
    return loops


def _are_apart(calls: Sequence[UpdateCall]) -> bool:
    """Whether no update reads a weight that another writes, or its new value."""
    written = {old for call in calls for _, old in call.form.targets}
    new = {value for call in calls for value, _ in call.form.targets}
    return all(
        value not in new and (value not in written or any(value is old for _, old in call.form.targets))
        for call in calls
        for value in call.node.inputs
    )


def _loop(
    owners: Sequence[str],
    of_block: Mapping[str, list[UpdateCall]],
    blocks: Blocks,
    home: Mapping[Op, Segment],
    members: Members,
) -> UpdateLoop | None:
    keys: dict[Value, str] = {}
    hints: dict[Value, Hint] = {}
    inputs: dict[Value, None] = {}
    first: list[str] | None = None
    for owner in owners:
        for call in of_block[owner]:
            gradient = call.form.gradient
            key = _key(call, owner, home)
            if gradient is None or key is None:
                return None
            keys[gradient] = key
            hints[gradient] = Hint(f"{key}_gradient", call.form.steps or ())
            for value in call.form.arguments:
                if value is not gradient and members.place_of(value) is None:
                    inputs[value] = None
        common = {value: f"\0{id(value)}" for value in inputs}
        texts = update_texts(members, of_block[owner], keys, blocks.paths[owner], common, "", frozenset())
        if first is None:
            first = texts
        elif texts != first:
            return None
    paths = [blocks.paths[owner] for owner in owners]
    return UpdateLoop(
        owners[0].rpartition("/")[2], paths, [of_block[owner] for owner in owners], keys, hints, list(inputs)
    )


def _key(call: UpdateCall, owner: str, home: Mapping[Op, Segment]) -> str | None:
    """What the gradient is kept under that an update reads: None where something else reads it, or has computed it."""
    gradient = call.form.gradient
    if gradient is None or gradient.op is None:
        return None
    segment = home.get(gradient.op)
    if segment is None or segment.owner != owner or not segment.backward:
        return None
    inside = set(call.node.ops)
    if any(user not in inside and home.get(user) is not segment for user in gradient.uses or ()):
        return None
    return identifier(call.form.weight[len(owner) + 1 :].replace("/", "_"))


def update_hints(segment: Segment) -> dict[Value, Hint]:
    """Names for the gradients that updates in a block's backward part read."""
    found: dict[Value, Hint] = {}
    for call in segment.updates:
        gradient = call.form.gradient
        if gradient is not None and gradient.op is not None:
            name = identifier(call.form.weight[len(segment.owner) + 1 :].replace("/", "_"))
            found[gradient] = Hint(f"{name}_gradient", call.form.steps or ())
    return found


def places_of(members: Members, call: UpdateCall) -> list[Path]:
    """The places of the weights that an update reads or writes."""
    return [place for value in call.form.arguments if (place := members.place_of(value)) is not None]


def update_texts(
    members: Members,
    calls: Sequence[UpdateCall],
    keys: Mapping[Value, str],
    path: Path,
    common: Mapping[Value, str],
    gradient: str,
    stored: frozenset[Value] | set[Value],
) -> list[str]:
    """The statements that update the block at `path`, whose gradients are in the dict `gradient`."""
    dialect = members.dialect
    block, slots = dialect.member(path), dialect.member((SLOTS[:-1], *path))
    texts: list[str] = []
    for call in calls:
        form = call.form
        arguments: list[str] = []
        for value in form.arguments:
            as_stored = form.steps is not None and value.ndim > 0
            place = members.place_of(value)
            if place is not None:
                arguments.append(dialect.member(place) if as_stored else members.weight(value).text)
                continue
            text = common.get(value, "")
            if value in keys:
                text = f'{gradient}.pop("{keys[value]}")' if dialect.is_eager else f'{gradient}["{keys[value]}"]'
            if as_stored and value not in stored:
                text = dialect.stored(Expression(text, POSTFIX), form.steps or ()).text
            arguments.append(text)
        places = [members.place_of(old) for _, old in form.targets]
        targets = [dialect.member(place) for place in places if place is not None]
        text = dialect.update_call(f"{call.code.name}({', '.join(arguments)})", targets)
        texts.append(text.replace(slots, SLOT).replace(block, BLOCK))
    return texts


__all__ = ["BLOCK", "SLOT", "places_of", "update_hints", "update_loops", "update_texts"]
