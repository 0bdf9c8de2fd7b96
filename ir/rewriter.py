"""The one way to change a graph. It keeps uses, order and locations right and tells a listener what it touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from graphc.ir.attributes import Attributes
from graphc.ir.builder import Builder
from graphc.ir.dims import equal
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Block, Function, Op, Value
from graphc.ir.opdef import OPS, Inferred
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType

WIDE = 256
"""An op with more operands than this has its replacements collected and made in one walk, by `flush`."""


class Rewriter:
    """Changes graphs. `on_change` is called with each op that lost or changed an operand, `on_erase` with erased ops.

    Use it as a context manager, or call `flush` when done: replacements in ops with very many operands (a `return` of
    100,000 values) are collected until then, so that replacing them one by one stays linear. Whoever reads the operands
    of such an op in between flushes it first.
    """

    __slots__ = ("_deferred", "on_change", "on_erase")

    def __init__(
        self, on_change: Callable[[Op], None] | None = None, on_erase: Callable[[Op], None] | None = None
    ) -> None:
        self.on_change = on_change
        self.on_erase = on_erase
        self._deferred: dict[Op, dict[Value, Value]] = {}

    def __enter__(self) -> Rewriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    # --- values ---------------------------------------------------------------------------------------------

    def replace_value(self, old: Value, new: Value) -> None:
        """Let every reader of `old` read `new`. A name that `new` lacks is taken over. O(readers)."""
        if old is new:
            return
        uses = old.uses
        old.uses = None
        if old.name is not None and new.name is None:
            new.name = old.name
        if not uses:
            return
        if new.uses is None:
            new.uses = {}
        new_uses = new.uses
        changed = self.on_change
        for op, count in uses.items():
            operands = op.operands
            if len(operands) > WIDE:
                self._defer(op, old, new)
            elif len(operands) == 1:
                op.operands = (new,)
            else:
                op.operands = tuple([new if v is old else v for v in operands])
            new_uses[op] = new_uses.get(op, 0) + count
            if changed is not None:
                changed(op)

    def _defer(self, op: Op, old: Value, new: Value) -> None:
        mapping = self._deferred.setdefault(op, {})
        if new in mapping:  # it comes back after it was replaced itself: what was collected must not apply to it
            self.flush(op)
            mapping = self._deferred[op] = {}
        mapping[old] = new

    def set_operands(self, op: Op, operands: Sequence[Value | None]) -> None:
        """Give `op` other operands of the same types."""
        self.flush(op)
        self._release(op)
        op.operands = tuple(operands)
        for value in op.operands:
            if value is not None:
                if value.uses is None:
                    value.uses = {}
                value.uses[op] = value.uses.get(op, 0) + 1
        if self.on_change is not None:
            self.on_change(op)

    def set_type(self, value: Value, type: TensorType) -> None:
        """Give a value, such as a parameter whose weight changes, another type; the caller answers for its readers."""
        value.type = type
        if self.on_change is not None:
            for op in value.uses or ():
                self.on_change(op)

    def flush(self, only: Op | None = None) -> None:
        """Make the collected replacements, of one op or of all."""
        chosen = [only] if only is not None else list(self._deferred)
        for op in chosen:
            mapping = self._deferred.pop(op, None)
            if mapping is not None:
                op.operands = tuple([v if v is None else _final(v, mapping) for v in op.operands])

    # --- ops ------------------------------------------------------------------------------------------------

    def before(self, op: Op) -> Builder:
        """A builder that records before `op`, at its location."""
        return Builder(op.block, op, op.location)

    def replace(self, op: Op, *values: Value) -> None:
        """Let readers of the results read `values`, and erase `op`.

        Raises `GraphcError` when the number of results, a dtype, a rank or a size differs.
        """
        self._check_replacements(op, values)
        for old, new in zip(op.results, values, strict=True):
            self.replace_value(old, new)
        self.erase(op)

    def hand_over(self, op: Op, values: Sequence[Value], after: Op | None) -> None:
        """Like `replace`, but whoever holds a result of `op`, such as code that is still recording, may go on using it.

        The results of `op` become those of the ops that give `values`, which stand between `after` (None: the start of
        the block) and `op`. A value from elsewhere, or one that is meant twice, gets a convert to its own dtype.
        """
        self._check_replacements(op, values)
        convert = OPS["convert"]
        results = op.results
        for i, value in enumerate(values):
            old, new = results[i], value
            if not _is_made_between(value, after, op):
                # What was handed over before is where `value` was.
                source = next((o for o, v in zip(results[:i], values, strict=False) if v is value), value)
                new = convert.build(self.before(op), (source,), convert.make_attributes(dtype=value.dtype)).results[0]
            self.replace_value(new, old)
            self._exchange(old, new)
        self.erase(op)

    def give(self, op: Op, values: Sequence[Value], ops: Sequence[Op]) -> None:
        """Let `op` give `values`, all that `ops` of its block give, in place of its own first results, which nothing
        reads; `ops` are erased. Whoever holds one of the values may go on using it."""
        for i, value in enumerate(values):
            value.owner, value.index, value.type = op, i, op.results[i].type
        op.results = (*values, *op.results[len(values) :])
        for old in reversed(ops):
            old.results = ()
            self.erase(old)

    def _exchange(self, old: Value, new: Value) -> None:
        """Let two results of ops be each other's; nothing reads `new`."""
        for value, other in ((old, new), (new, old)):
            owner = value.owner
            assert isinstance(owner, Op)
            owner.results = (*owner.results[: value.index], other, *owner.results[value.index + 1 :])
        old.owner, old.index, new.owner, new.index = new.owner, new.index, old.owner, old.index
        old.type = new.type

    def _check_replacements(self, op: Op, values: Sequence[Value]) -> None:
        if len(values) != len(op.results):
            has = number_of(len(op.results), "result")
            raise GraphcError(f"{op.name} has {has}, {number_of(len(values), 'value replaces', 'values replace')} them")
        for old, new in zip(op.results, values, strict=True):
            if not _may_replace(old.type, new.type):
                raise GraphcError(f"{op.name}: a result {old.type} cannot be replaced by {new.type}")

    def erase(self, op: Op) -> None:
        """Remove an op that nothing reads. Raises `GraphcError` when a result is read."""
        for value in op.results:
            if value.uses:
                raise GraphcError(f"{op.name} cannot be erased: %{value.name or '?'} is still read")
        if op in self._deferred:
            self.flush(op)
        for region in op.regions:
            for inner in list(reversed(region.block)):
                for value in inner.results:
                    value.uses = None
                self.erase(inner)
        changed = self.on_change
        for value in op.operands:
            if value is not None:
                uses = value.uses
                if uses is not None and op in uses:
                    del uses[op]
                    if changed is not None:
                        owner = value.owner
                        if isinstance(owner, Op):
                            changed(owner)
        op.block.remove(op)
        if self.on_erase is not None:
            self.on_erase(op)

    def set_attributes(self, op: Op, attributes: Attributes) -> None:
        """Give `op` other attributes under which its result types stay what they are."""
        op.attributes = attributes
        if self.on_change is not None:
            self.on_change(op)

    def rebuild(self, op: Op, operands: Sequence[Value | None], inferred: Inferred) -> Op:
        """Replace `op` by one of the same kind with other operands, attributes or result types; readers follow."""
        regions, op.regions = op.regions, ()  # they move to the new op, and must not be erased with the old one
        new = self.before(op).insert(op.__class__, tuple(operands), inferred, regions, op.location)
        for old, value in zip(op.results, new.results, strict=True):
            self.replace_value(old, value)
        self.erase(op)
        return new

    def retain(self, op: Op, operands: Sequence[Value | None], attributes: Attributes, results: Sequence[int]) -> Op:
        """Replace an op with regions by one of the same kind around the same regions, with these operands and
        attributes and only these of its results; nothing may read the others."""
        regions, types = op.regions, tuple(op.results[i].type for i in results)
        op.regions = ()
        inferred = Inferred(attributes, types, ())
        new = self.before(op).insert(op.__class__, tuple(operands), inferred, regions, op.location)
        for i, value in zip(results, new.results, strict=True):
            self.replace_value(op.results[i], value)
        self.erase(op)
        return new

    def remove_block_parameter(self, block: Block, index: int) -> None:
        """Drop a parameter of a region's block that nothing reads; later ones move up."""
        value = block.parameters[index]
        if value.uses:
            raise GraphcError(f"the block parameter {value!r} is still read")
        del block.parameters[index]
        for i, later in enumerate(block.parameters[index:], index):
            later.index = i

    def move_before(self, op: Op, anchor: Op | None) -> None:
        """Move `op` to stand before `anchor` (None: at the end of its block); the caller answers for dominance."""
        if op is anchor:
            return
        block = op.block
        block.remove(op)
        op.prev = op.next = None
        if anchor is None:
            block.append(op)
        else:
            anchor.block.insert_before(anchor, op)

    # --- functions ------------------------------------------------------------------------------------------

    def remove_parameter(self, function: Function, index: int) -> None:
        """Drop a parameter that nothing reads and no result updates; later ones move up."""
        self.remove_parameters(function, (index,))

    def remove_parameters(self, function: Function, indices: Iterable[int]) -> None:
        """Drop parameters that nothing reads and no result updates; later ones move up. Linear in all parameters."""
        gone = {function.parameters[index]: None for index in indices}
        updated = {result.updates for result in function.results}
        for parameter in gone:
            if parameter.value.uses:
                raise GraphcError(f"parameter {parameter.name!r} of @{function.name} is still read")
            if parameter in updated:
                raise GraphcError(f"parameter {parameter.name!r} of @{function.name} is still updated by a result")
        function.parameters[:] = [parameter for parameter in function.parameters if parameter not in gone]
        function.block.parameters[:] = [parameter.value for parameter in function.parameters]
        for i, value in enumerate(function.block.parameters):
            value.index = i

    def _release(self, op: Op) -> None:
        for value in op.operands:
            if value is not None and value.uses is not None and op in value.uses:
                del value.uses[op]


def _is_made_between(value: Value, after: Op | None, before: Op) -> bool:
    """Whether an op between these gives the value, and has not handed it over."""
    owner = value.owner
    if not isinstance(owner, Op) or owner.block is not before.block or not owner.is_before(before):
        return False
    return (after is None or after.is_before(owner)) and owner.results[value.index] is value


def _final(value: Value, mapping: Mapping[Value, Value]) -> Value:
    while value in mapping:
        value = mapping[value]
    return value


def _may_replace(old: TensorType, new: TensorType) -> bool:
    """Whether a value of one type may stand for one of the other: the same, up to sizes that may be equal."""
    return old is new or (
        old.dtype is new.dtype
        and old.ndim == new.ndim
        and all(equal(a, b) is not False for a, b in zip(old.shape, new.shape, strict=True))
    )
