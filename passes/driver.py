"""Rules and what drives them.

    @rule(transpose)
    def transposes_compose(op: Any, rewriter: Rewriter) -> Rewritten:
        "transpose(transpose(x, p), q) = transpose(x, p∘q)"
        if inner := producer(op.x, transpose):
            return transpose(inner.x, permutation=compose(inner.permutation, op.permutation))

A rule is tried on the ops it is declared for. What it returns replaces the op's results; ops called in it are recorded
before the op, at the op's location. None: it does not apply. True: it has changed the graph through `rewriter`.

`apply_rules` walks every block once, in order, and then works off a list of the ops that changes touched, so the cost
is one look-up for each op plus what rules do. Ops that lose their last reader on the way are erased.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Block, Function, Op, Region, Value
from graphc.ir.location import Location
from graphc.ir.module import Module
from graphc.ir.opdef import Inferred, OpDef
from graphc.ir.rewriter import Rewriter

Rewritten = Value | Sequence[Value] | Literal[True] | None
RuleFunction = Callable[[Any, Rewriter], Rewritten]

MOST_APPLICATIONS = 64
"""Rules may be applied this many times for each op there was (and a thousand more) before they count as endless."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rewrite and the ops it starts from; no definitions: it is tried on every op. `of`: an operand of the op must be
    the result of one of these, if there are any."""

    name: str
    definitions: tuple[OpDef[..., Any], ...]
    function: RuleFunction
    of: tuple[OpDef[..., Any], ...] = ()


def rule(*definitions: OpDef[..., Any], of: Sequence[OpDef[..., Any]] = ()) -> Callable[[RuleFunction], Rule]:
    """Decorator: make a function of an op and a rewriter a rule for ops of these definitions (of all, if none).

    `of` says which ops must produce one of the operands, for those that are too many to call a function on each.
    """

    def declare(function: RuleFunction) -> Rule:
        return Rule(getattr(function, "__name__", "rule"), definitions, function, tuple(of))

    return declare


def rules_in(*files: ModuleType) -> list[Rule]:
    """The rules that are defined in these files, in order."""
    return [value for file in files for value in vars(file).values() if isinstance(value, Rule)]


def producer(value: Value | None, definition: OpDef[..., Any]) -> Any:
    """The op that produces `value`, if it is one of `definition`, else None. Typed `Any`: its operands and attributes
    are properties that the declaration makes."""
    if value is None:
        return None
    owner = value.owner
    return owner if owner.__class__ is definition.op_class else None


def is_dead(op: Op) -> bool:
    """Whether nothing reads the op, and leaving it out changes nothing."""
    if op.next is None or op.definition.has_effect:
        return False
    return not any(value.uses for value in op.results)


def apply_rules(module: Module, rules: Iterable[Rule]) -> int:
    """Apply rules in every block, regions and private functions too, until none applies; returns how often one did.

    Raises `GraphcError` naming the rules at work when they seem to go on for ever.
    """
    return Driver(rules).run(module)


Candidates = tuple[tuple[Rule, ...], frozenset[type] | None]
"""Rules for a kind of op, and the kinds of which one must produce an operand (None: none must)."""


def _candidates(rules: Sequence[Rule]) -> Candidates:
    producers = frozenset[type](definition.op_class for each in rules for definition in each.of)
    return tuple(rules), None if any(not each.of for each in rules) else producers


class Driver(Rewriter):
    """The rewriter that rules get, and the worklist behind it."""

    __slots__ = (
        "_any",
        "_block",
        "_builder",
        "_current",
        "_cursor",
        "_order",
        "_table",
        "applied",
        "applied_by",
        "visited",
        "work",
    )

    def __init__(self, rules: Iterable[Rule]) -> None:
        super().__init__(self._changed, self._erased)
        every: list[Rule] = []
        named: dict[type[Op], list[Rule]] = {}
        for each in rules:
            if not each.definitions:
                every.append(each)
            for definition in each.definitions:
                named.setdefault(definition.op_class, []).append(each)
        self._any = _candidates(every)
        self._table = {kind: _candidates([*found, *every]) for kind, found in named.items()}
        self.work: dict[Op, None] = {}
        self.applied = 0
        self.applied_by: dict[str, int] = {}
        self.visited = 0
        self._block: Block | None = None
        self._order = 0
        self._cursor: Op | None = None  # the op to walk on to
        self._current: Op | None = None  # the op that rules are tried on, until it is erased
        self._builder = _Recording(self)

    def run(self, module: Module) -> int:
        for function in module.functions.values():
            self._function(function)
        return self.applied

    def before(self, op: Op) -> Builder:
        """The builder rules record with: what it records is looked at later."""
        builder = self._builder
        builder.block, builder.before, builder.location = op.block, op, op.location
        return builder

    def move_before(self, op: Op, anchor: Op | None) -> None:
        super().move_before(op, anchor)
        self.created(op)

    # --- walking ------------------------------------------------------------------------------------------------

    def _function(self, function: Function) -> None:
        self._builder.function = function
        blocks = [function.block]
        count = 0
        with self._builder:
            for block in blocks:  # grows as regions are met
                count += self._walk(block, blocks)
            limit = MOST_APPLICATIONS * count + 1000 + self.applied
            self._drain(limit)
        self.flush()

    def _walk(self, block: Block, blocks: list[Block]) -> int:
        table, every, builder = self._table, self._any, self._builder
        self._block = builder.block = block
        op = block.first
        count = 0
        while op is not None:
            count += 1
            self._cursor = op.next
            rules, producers = table.get(op.__class__, every)
            tried = producers is None
            if not tried and producers:
                for value in op.operands:
                    if value is not None and value.owner.__class__ in producers:
                        tried = True
                        break
            if tried:
                self._order = op.order
                self._try(op, rules)
                if op.regions and self._current is op:
                    blocks.extend(region.block for region in op.regions)
            elif op.regions:
                blocks.extend(region.block for region in op.regions)
            op = self._cursor
        self._block = None
        self.visited += count
        return count

    def _drain(self, limit: int) -> None:
        table, every, work = self._table, self._any, self.work
        while work:
            op, _ = work.popitem()
            self.visited += 1
            if is_dead(op):
                self.erase(op)
                continue
            self._try(op, table.get(op.__class__, every)[0])
            if self.applied > limit:
                common = sorted(self.applied_by, key=self.applied_by.__getitem__, reverse=True)[:4]
                raise GraphcError(f"rules were applied {self.applied} times and go on: {', '.join(common)}")

    def _try(self, op: Op, rules: tuple[Rule, ...]) -> None:
        builder = self._builder
        self._current = op
        if op in self._deferred:
            self.flush(op)
        for each in rules:
            if builder.before is not op:
                builder.block, builder.before, builder.location = op.block, op, op.location
            values = each.function(op, self)
            if values is None:
                continue
            self.applied += 1
            self.applied_by[each.name] = self.applied_by.get(each.name, 0) + 1
            if isinstance(values, Value):
                self.replace(op, values)
            elif values is not True:
                self.replace(op, *values)
            elif self._current is op:  # it still stands: other rules may apply as well
                self.work[op] = None
            return

    # --- what changes touch -------------------------------------------------------------------------------------

    def _changed(self, op: Op) -> None:
        # What is ahead will be walked over anyway, and is only listed if it has to be erased.
        if op.block is not self._block or op.order <= self._order or not any(value.uses for value in op.results):
            self.work[op] = None

    def _erased(self, op: Op) -> None:
        self.work.pop(op, None)
        if op is self._cursor:
            self._cursor = op.next
        if op is self._current:
            self._current = None

    def created(self, op: Op) -> None:
        """Look at an op that was recorded or moved, and at those of its regions."""
        self.work[op] = None
        for region in op.regions:
            for inner in region.block.walk():
                self.work[inner] = None


class _Recording(Builder):
    """Tells the driver of what is recorded."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        super().__init__(Block())
        self._driver = driver

    def insert(
        self,
        op_class: type[Op],
        operands: tuple[Value | None, ...],
        inferred: Inferred,
        regions: tuple[Region, ...] = (),
        location: Location | None = None,
    ) -> Op:
        op = super().insert(op_class, operands, inferred, regions, location)
        self._driver.created(op)
        return op
