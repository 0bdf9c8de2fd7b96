"""The steps of training whose blocks are alike: functions for what a block does forward and backward, and loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.calls import has_slots
from graphc.codegen.source.dialect import RESIDUALS, SLOTS_OF_BLOCK, Code, Path
from graphc.codegen.source.forms import segment_form
from graphc.codegen.source.freeing import with_deletions, worth_freeing
from graphc.codegen.source.items import BlockCall, BlockLoop, Hint, Item, UpdateCall, UpdateLoop
from graphc.codegen.source.members import Members
from graphc.codegen.source.naming import Names
from graphc.codegen.source.scopes import UPDATES
from graphc.codegen.source.sections import BlockSections, value_name
from graphc.codegen.source.segments import Blocks, Passed, Segment, connect, homes, passed_on, segmented
from graphc.codegen.source.update_loops import places_of, update_hints, update_loops
from graphc.ir.graph import Op, Value

if TYPE_CHECKING:
    from graphc.codegen.source.writer import ModuleWriter


class Unbound(Exception):
    """A function needs a size that none of its parameters has."""


@dataclass(slots=True)
class Step:
    """The items of a step, with what those among them that stand for blocks need."""

    items: list[Item]
    hints: dict[Value, Hint] = field(default_factory=dict)
    stored: set[Value] = field(default_factory=set)


def with_blocks(writer: ModuleWriter, items: Sequence[Item]) -> Step:
    """The items of a training step with calls and loops for its blocks; as they are where it has no blocks alike.

    Blocks whose functions no other would share stay as they are, too.
    """
    paths = _alike(writer)
    while paths:
        blocks = Blocks(paths)
        parts, cuts = segmented(items, blocks)
        segments = [each for each in parts if isinstance(each, Segment)]
        if not segments:
            break
        home = homes(segments)
        loops = update_loops(writer, parts, blocks, home)
        connect(segments, writer.layers, {value: key for loop in loops for value, key in loop.keys.items()})
        functions = _Functions(writer, {value: hint for loop in loops for value, hint in loop.hints.items()})
        try:
            codes = {segment: functions.code(segment) for segment in segments}
        except Unbound:
            break
        shared = _shared(codes)
        if len(shared) * 2 == len(segments):
            functions.keep(codes)
            return _step(parts, loops, _Runs(codes, home, cuts), functions.stored)
        paths = {owner: path for owner, path in paths.items() if owner in shared}
    return Step(list(items))


def _shared(codes: Mapping[Segment, Code]) -> set[str]:
    """The blocks both of whose functions are those of other blocks, too."""
    times = Counter(codes.values())
    alone = {segment.owner for segment, code in codes.items() if times[code] < 2}
    return {segment.owner for segment in codes} - alone


def _step(parts: Sequence[Item | Segment], loops: Sequence[UpdateLoop], runs: _Runs, stored: set[Value]) -> Step:
    step = Step([], stored=stored)
    in_loop = {call.node: loop for loop in loops for calls in loop.calls for call in calls}
    begun: set[int] = set()
    for each in runs.items(parts):
        if isinstance(each, UpdateCall) and each.node in in_loop:
            loop = in_loop[each.node]
            if id(loop) not in begun:
                step.items.append(loop)
                begun.add(id(loop))
        else:
            step.items.append(each)
            if isinstance(each, BlockCall | BlockLoop):
                step.hints |= _hints(each, runs.home)
    return step


def _alike(writer: ModuleWriter) -> dict[str, tuple[str | int, ...]]:
    """The places of blocks of which there is another that is written as they are."""
    found: dict[str, tuple[str | int, ...]] = {}
    lists: dict[tuple[object, ...], list[str]] = {}
    for owner, code in writer.codes.items():
        key = f"class {owner}"
        path = writer.places.path(key, "") if key in writer.places.of else ()
        if path and isinstance(path[-1], int) and not any(isinstance(part, int) for part in path[:-1]):
            found[owner] = path
            lists.setdefault((path[:-1], id(code)), []).append(owner)
    return {owner: found[owner] for owners in lists.values() if len(owners) > 1 for owner in owners}


class _Runs:
    """Calls of functions for segments, in loops where these follow one another."""

    def __init__(self, codes: Mapping[Segment, Code], home: Mapping[Op, Segment], cuts: dict[Value, Op]) -> None:
        self.codes = codes
        self.home = home
        self._cuts = cuts
        self._out: list[Item] = []
        self._run: list[Segment] = []
        self._passed = Passed({}, {})

    def items(self, parts: Iterable[Item | Segment]) -> list[Item]:
        """The parts as items."""
        for each in parts:
            if isinstance(each, Segment):
                self._add(each)
            else:
                self._close()
                for value in each.operands if isinstance(each, Op) else ():
                    self._cut(value)
                self._out.append(each)
        self._close()
        return self._out

    def _add(self, segment: Segment) -> None:
        run = self._run
        found: Passed | None = None
        if run and self.codes[segment] is self.codes[run[-1]] and _is_next(run, segment):
            found = passed_on(run[0], run[-1], segment, self.home)
        if run and (found is None or (len(run) > 1 and found != self._passed)):
            self._close()
        elif found is not None:
            self._passed = found
        run.append(segment)

    def _close(self) -> None:
        run = self._run
        if len(run) > 1:
            item = BlockLoop(tuple(run), self.codes[run[0]], self._passed)
            for value in item.inputs:
                self._cut(value)
            self._out.append(item)
        for segment in run if len(run) == 1 else ():
            for value in segment.arguments:
                self._cut(value)
            self._out.append(BlockCall(segment, self.codes[segment]))
        run.clear()

    def _cut(self, value: Value | None) -> None:
        """Have a row cut out before it is read first, where none but a loop reads it."""
        op = self._cuts.pop(value, None) if value is not None else None
        if op is not None:
            self._cut(op.operands[0])
            self._out.append(op)


def _is_next(run: Sequence[Segment], segment: Segment) -> bool:
    """Whether a segment is that of the next block of the list, or of the one before, as the others were."""
    last = run[-1]
    if segment.path[:-1] != last.path[:-1]:
        return False
    step = segment.path[-1] - last.path[-1]  # type: ignore[operator]
    before = last.path[-1] - run[-2].path[-1] if len(run) > 1 else step  # type: ignore[operator]
    return step == before and step in (-1, 1)


def _hints(item: BlockCall | BlockLoop, home: Mapping[Op, Segment]) -> dict[Value, Hint]:
    """Names for what passes from block to block, and for what the first of them gets, where that is for it alone."""
    segments = (item.segment,) if isinstance(item, BlockCall) else item.segments
    first = segments[0]
    name = "dx" if first.backward else "x"
    found = {segment.results[0]: Hint(name) for segment in segments if segment.results}
    if isinstance(item, BlockLoop):
        for i, at in item.passed.carried.items():
            value = first.arguments[i]
            only = all((reader := home.get(user)) and reader.owner == first.owner for user in value.uses or ())
            if at == 0 and value.op is not None and only:
                found[value] = Hint(name)
    return found


class _Functions:
    """The functions of segments, each written once for those that have its text."""

    def __init__(self, writer: ModuleWriter, hints: Mapping[Value, Hint]) -> None:
        self.writer = writer
        self._hints = hints
        self.stored: set[Value] = set()
        """Gradients that are held as weights are stored."""
        self._of_text: dict[tuple[Code, str], Code] = {}
        self._written: dict[tuple[object, ...], tuple[Code, list[str], list[bool]]] = {}
        self._names: dict[str, list[str]] = {}
        """What forward functions call what they leave, by block."""
        self._taken = writer.dialect.reserved | set(writer.function_names.values())
        self._taken |= {code.name for code in writer.definitions} | {RESIDUALS, SLOTS_OF_BLOCK}

    def code(self, segment: Segment) -> Code:
        """The function of a segment, written unless there is one for its form or of its text. Raises `Unbound`."""
        form = segment_form(self.writer, segment, self._hints)
        written = self._written.get(form)
        if written is None:
            written = self._written[form] = self._code(segment), self._names.get(segment.owner, []), self._kept(segment)
        code, self._names[segment.owner], stored = written
        self.stored |= {value for value, is_stored in zip(segment.gradients, stored, strict=True) if is_stored}
        return code

    def keep(self, codes: Mapping[Segment, Code]) -> None:
        """Let the file have the functions of segments, under names."""
        writer, dialect = self.writer, self.writer.dialect
        for segment, code in codes.items():
            block = writer.codes[segment.owner]
            known = block.functions.setdefault(code.text, code)
            if known is code and not code.name:
                base = dialect.block_function_name(block, segment.backward)
                own = Names({each.name for each in block.functions.values()})
                code.name = (own if dialect.has_classes else writer.class_names).take(base)
                if not dialect.has_classes:
                    writer.definitions.append(code)
                    writer.owners_of[code.name] = {}
            code.name = known.name
            if not dialect.has_classes:
                writer.owners_of[code.name][segment.owner] = None

    def _kept(self, segment: Segment) -> list[bool]:
        """Of the gradients that are kept for updates, which are held as weights are stored."""
        return [value in self.stored for value in segment.gradients]

    def _code(self, segment: Segment) -> Code:
        writer, dialect = self.writer, self.writer.dialect
        block = writer.codes[segment.owner]
        parameters, lines = self._body(segment)
        text = dialect.block_function(block, segment.backward, parameters, lines, updates=bool(segment.updates))
        return self._of_text.setdefault((block, text), Code("", text))

    def _body(self, segment: Segment) -> tuple[list[str], list[str]]:
        writer = self.writer
        members = Members(writer.dialect, writer.layers, writer.places, segment.owner, writer.function_names)
        names = Names(self._taken)
        outputs = [*segment.results, *segment.left, *segment.gradients]
        indent = writer.dialect.indent
        body = BodyWriter(writer.dialect, members, segment.items, outputs, names, indent)
        whole = Members(writer.dialect, writer.layers, writer.places, "", writer.function_names)
        body.block = whole, segment.path
        body.ordered = writer.keeps_order
        body.sections = BlockSections(segment.owner, segment.ops, segment.backward)
        body.hints = {value: self._hints[value] for value in segment.gradients} | update_hints(segment)
        called: dict[Value, str] = {}
        for value, name in zip(segment.taken, self._names.get(segment.owner, ()), strict=False):
            called[value] = names.take(name)
            if worth_freeing(value):
                body.large.add(called[value])
        for i, value in enumerate(segment.arguments):
            base = "x" if not i and not segment.backward else value_name(value)
            called[value] = names.take(base)
        for value, name in called.items():
            body.bind(value, name)
        body.reserve_sizes([dim for value in called for dim in value.type.symbols])
        body.write_items()
        if any(
            not _is_below(path, segment.path) for call in segment.updates for path in places_of(body.block[0], call)
        ):
            raise Unbound
        parameters = [called[value] for value in segment.arguments]
        unpacked: list[str] = []
        if segment.taken:
            parameters.insert(1, RESIDUALS)
            unpacked.append(f"{_tuple(called[value] for value in segment.taken)[1:-1]} = {RESIDUALS}")
            if body.ordered:
                unpacked.append(f"del {RESIDUALS}")
        body.emit(f"return {self._returned(segment, body)}")
        bound = {dim for value in called for dim in value.type.symbols}
        if any(dim not in bound for dim in body.sizes_read):
            raise Unbound
        top = [*unpacked, *body.sizes_at_top(list(called), called)]
        lines = [*top, *body.lines]
        if has_slots(writer.dialect, segment):
            parameters.insert(0, SLOTS_OF_BLOCK)
        return parameters, with_deletions(lines, body.large) if body.ordered else lines

    def _returned(self, segment: Segment, body: BodyWriter) -> str:
        kept: list[str] = []
        if segment.left:
            names = [body.named(value) for value in segment.left]
            self._names[segment.owner] = [name if name.isidentifier() else "y" for name in names]
            kept.append(_tuple(names))
        if segment.gradients:
            pairs = [f'"{key}": {body.named(value)}' for value, key in segment.gradients.items()]
            kept.append(f"{{{', '.join(pairs)}}}")
        self.stored |= body.stored
        texts = [body.operand(value).text for value in segment.results]
        return ", ".join([*texts, *kept]) or "None"


def _is_below(path: Path, block: Path) -> bool:
    """Whether a weight is the block's, or kept by the optimizer for one of these."""
    return path[: len(block)] == block or path[: len(block) + 1] == (UPDATES, *block)


def _tuple(texts: Iterable[str]) -> str:
    items = list(texts)
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


__all__ = ["Step", "with_blocks"]
