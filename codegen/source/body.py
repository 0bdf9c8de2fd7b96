"""The statements of one body: names, inlined expressions, sizes, calls of members, loops over lists of members."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.codegen.source.calls import write_call, write_function_call
from graphc.codegen.source.dialect import Dialect, Path
from graphc.codegen.source.expressions import (
    ATOM,
    POSTFIX,
    PRODUCT,
    SUM,
    TERNARY,
    UNARY,
    Expression,
    Slot,
    Template,
    template,
)
from graphc.codegen.source.freeing import Line, worth_freeing
from graphc.codegen.source.geometry import least
from graphc.codegen.source.items import Call, Hint, Item, Pending, UpdateCall
from graphc.codegen.source.naming import Names, identifier
from graphc.codegen.source.roles import layer_role, role_of_op
from graphc.codegen.source.sections import Sections, is_loss
from graphc.codegen.source.sizes import size_statements
from graphc.ir import ops as _declared  # noqa: F401  declares `constant`
from graphc.ir.attributes import FunctionRef
from graphc.ir.dims import Dim, Size, python, symbols
from graphc.ir.dtypes import DType, f32, f64, i32, i64
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Op, Value
from graphc.ir.opdef import OPS

if TYPE_CHECKING:
    from graphc.codegen.source.members import Members

CONSTANT = OPS["constant"].op_class
WIDTH = 120
MOST_OPS = 6
"""Ops in one statement, however short."""
MOST_CALLS = 2
"""Calls nested in one statement; operators and what the dialect calls light do not count."""

NUMBERS = frozenset({i32, i64, f32, f64})
"""Dtypes that symbolic sizes are written in as Python's integers: arithmetic with arrays of them rounds as a cast."""

SAME = frozenset({"broadcast", "convert", "reduce_sum", "reshape"})
"""Ops that leave a size what it is, where they give a scalar of such a dtype."""

SCALED = {"div": "/", "mul": "*"}
"""Ops on sizes and other numbers that are written in Python's."""

SINGLE = frozenset({"lerp"})
"""Ops whose attributes are used in the dtype of their result."""

_SIZE_PRECEDENCE = {0: ATOM, 1: PRODUCT, 2: SUM, 3: TERNARY}
_STREAMS = ("x", "y", "z")
_STATISTICS = frozenset({"mean", "variance"})
_ROLES = frozenset({"index", "indices", "condition", "mask", "kernel", "bias", "scale", "offset", "mean", "variance"})


class BodyWriter:
    """Writes items as statements. Values are held under names while they are live; what is read once is inlined."""

    def __init__(
        self,
        dialect: Dialect,
        members: Members,
        items: Sequence[Item],
        outputs: Sequence[Value],
        names: Names | None = None,
        indent: int | None = None,
    ) -> None:
        self.dialect = dialect
        self.members = members
        self.items = items
        self.outputs = outputs
        self.names = names or Names()
        self.indent = dialect.indent if indent is None else indent
        self.lines: list[str] = []
        self.known: dict[Value, Expression] = {}
        self.pending: dict[Value, Pending] = {}
        self.uses: dict[Value, int] = {}
        self.result_names: dict[Value, str] = {}
        """What the model calls its results."""
        self.kept: set[Value] = set()
        """Values whose names belong to a surrounding body: they are never released here."""
        self.sizes: dict[Dim, str] = {}
        self.sizes_read: dict[Dim, None] = {}
        self.size_values: dict[Value, Size | Expression] = {}
        """Scalars that are sizes, or computed from these as Python's numbers."""
        self.ordered = False
        """Whether ops run in the order of the items, so that operands die where the plan of memory says."""
        self.records_nothing = False
        """Whether the body is one of which no framework keeps what it would need for a gradient."""
        self.large: set[str] = set()
        """Names that held an array worth freeing."""
        self.hints: dict[Value, Hint] = {}
        """Values that are held under a name of their own."""
        self.stored: set[Value] = set()
        """Values that are held after the steps of their hints."""
        self.sections: Sections | None = None
        self.title: str | None = None
        """The section of the item that is being written."""
        self.updates: set[Value] = set()
        """New values of weights, which are called as results are however often they are read."""
        self.written: set[Value] = set()
        """New values of weights that have taken the place of the old ones."""
        self.successors: dict[Value, str] = {}
        """New values that take the name of the old one, where nothing reads that any more."""
        self.holders: dict[str, list[Value]] = {}
        """The values that a name written in place has stood for."""
        self.late: list[tuple[str, str]] = []
        """Names with those of their new values, that come when nothing reads the old ones any more."""
        self.block: tuple[Members, Path] | None = None
        """For what a block does in a step, the members of the whole model and the place of the block."""
        self.kept_under: dict[tuple[Path, str], str] = {}
        """Names of the dicts in which a step keeps what the blocks of a list leave: of residuals and of gradients."""
        self._count_uses()

    # --- set-up -----------------------------------------------------------------------------------------------

    def _count_uses(self) -> None:
        uses = self.uses
        for item in self.items:
            if isinstance(item, Op):
                read: Sequence[Value | None] = item.operands
            else:
                read = item.node.inputs if isinstance(item, Call | UpdateCall) else item.inputs
            for value in read:
                if value is not None:
                    uses[value] = uses.get(value, 0) + 1
        for value in self.outputs:
            uses[value] = uses.get(value, 0) + 1

    def bind(self, value: Value, name: str) -> None:
        """Let a parameter be called `name`, which must have been taken from `names`."""
        self.known[value] = Expression(name)

    def reserve_sizes(self, dims: Sequence[Dim]) -> None:
        """Set names aside for symbols, so that reading them at the top disturbs nothing."""
        for dim in dims:
            if dim not in self.sizes:
                self.sizes[dim] = self.names.take(identifier(dim.name))

    def emit(self, line: str) -> None:
        if self.sections is not None:
            heading = self.sections.heading(self.title)
            if heading is not None:
                self.lines += ["", f"# {heading}"]
        self.lines.append(line)

    def room(self) -> int:
        """Columns that are left for a statement's right-hand side."""
        return WIDTH - self.indent - 6

    # --- the walk ---------------------------------------------------------------------------------------------

    def write_items(self) -> None:
        for item in self.items:
            if self.sections is not None:
                self._go_to(self.sections.title(item))
            if isinstance(item, Op):
                self._op(item)
            else:
                write_call(self, item)

    def _go_to(self, title: str | None) -> None:
        """Come to an item of a section; new values of weights, and a loss, stand in that where they are computed."""
        if title != self.title:
            for value in [value for value in self.pending if value in self.updates or is_loss(value)]:
                if value in self.pending:
                    self.materialise(value)
        self.title = title

    def _op(self, op: Op) -> None:
        if op.__class__ is CONSTANT:
            return
        if op.regions:
            self.dialect.region_op(self, op)
            return
        if op.definition.introduces_symbols:
            self._bind_new_symbol(op)
        if not any(value in self.uses for value in op.results) or self._is_size(op):
            return
        layer = self.members.layer(op)
        if layer is not None:
            module = self.dialect.member(self.members.path_of_layer(op))
            spelled, extra = template(layer.call), {"layer": module}
        elif op.definition.call_rule is not None:
            write_function_call(self, op)
            return
        else:
            spelled, extra = self._template(op)
        self._expression(op, spelled, extra)

    def _bind_new_symbol(self, op: Op) -> None:
        """Read the size that `assume_dim` introduces from its count."""
        size = op.attribute_dict["size"]
        self.reserve_sizes([size])
        self.emit(f"{self.sizes[size]} = int({self.named(op.operands[1])})")

    def _is_size(self, op: Op) -> bool:
        """Whether the result is a symbolic size, or a quotient or product with one: Python's numbers, beside arrays."""
        found: Size | Expression | None = None
        result = op.results[0]
        if op.name == "dim_size":
            found = op.attribute_dict["size"]
        elif op.name in SAME and result.dtype in NUMBERS and not result.ndim:
            source = op.operands[0]
            found = None if source is None else self.size_values.get(source)
        elif op.name in SCALED and result.dtype in (f32, f64) and not result.ndim:
            found = self._scaled(op)
        if found is not None:
            self.size_values[result] = found
        return found is not None

    def _scaled(self, op: Op) -> Expression | None:
        """A quotient or product of sizes and numbers in float64, from which it is rounded to float32 as it would be.

        That is so for operands that are float32 themselves (Figueroa, "When is double rounding innocuous?", 1995): for
        sizes up to 2²⁴. Larger ones it does not round before, as float32 would.
        """
        texts: list[Expression] = []
        for value in op.operands:
            size = self.size_values.get(value) if value is not None else None
            if isinstance(size, int | Dim) and least(size) > 0:
                texts.append(self.size(size))
                continue
            number = (
                value.op.attributes[0] if value is not None and value.op is not None and self.is_number(value) else 0
            )
            if not isinstance(number, float) or not number or not np.isfinite(number) or np.float32(number) != number:
                return None
            texts.append(self.literal(int(number) if number.is_integer() else number))
        if not any(value in self.size_values for value in op.operands):
            return None
        left, right = texts
        return Expression(f"{left.within(PRODUCT)} {SCALED[op.name]} {right.within(UNARY)}", PRODUCT)

    def _template(self, op: Op) -> tuple[Template, dict[str, str]]:
        types = [
            v if v is None else v.owner.attributes if isinstance(v.owner, CONSTANT) else v.type for v in op.operands
        ]
        key = (op.__class__, id(op.attributes), *types)
        found = self.members.spelled.get(key)
        if found is None:
            spelled = self.dialect.spelled(op)
            if spelled is None:
                shown = ", ".join(str(v.type) for v in op.operands if v is not None)
                raise UnsupportedError(f"{op.name}({shown}) has no spelling on this target")
            text, extra = (spelled, {}) if isinstance(spelled, str) else spelled
            found = self.members.spelled[key] = template(text), extra
        return found

    # --- expressions --------------------------------------------------------------------------------------------

    def _expression(self, op: Op, spelled: Template, extra: dict[str, str]) -> None:
        operands = op.operands
        self.settle(but=operands)
        if spelled.repeats:
            for value in operands:
                if value is not None and value in self.pending:
                    self.materialise(value)
        number = any(map(self.is_number, operands))
        arrays = not number or self._beside_array(op)
        weight = 0 if op.name in self.dialect.light or spelled.precedence < POSTFIX else 1
        while True:
            expression = spelled.format(lambda slot: self._fill(op, slot, extra, arrays))
            ops, calls, largest = 1, 0, None
            for value in operands:
                if value is not None and (waiting := self.pending.get(value)) is not None:
                    ops += waiting.ops
                    calls = max(calls, waiting.calls)
                    if waiting.stands_alone or (self.ordered and self._outlives(waiting)):
                        largest = value
                        break
                    if largest is None or waiting.ops > self.pending[largest].ops:
                        largest = value
            else:
                fits = ops <= MOST_OPS and calls + weight <= MOST_CALLS and len(expression.text) <= self.room()
                if largest is None or fits:
                    break
            self.materialise(largest)
        reads = self.consume(operands)
        alone = op.name == "transpose" and operands[0] is not None and operands[0].ndim > 3
        self.define(op.results, expression, reads, ops, calls + weight, alone, inlinable=len(op.results) == 1)

    def _fill(self, op: Op, slot: Slot, extra: Mapping[str, str], beside_array: bool) -> str:
        key = slot.key
        if isinstance(key, int):
            takes_number = beside_array and (slot.takes_scalars or self.dialect.scalars_anywhere)
            value = op.operands[key]
            if takes_number and value in self.size_values:
                takes_number = self._beside_array(op, self.size_values)
            return self.operand(value, takes_number).within(slot.precedence)
        if key == "*":
            return ", ".join(self.operand(v).within(slot.precedence) for v in op.operands if v is not None)
        if key in extra:
            return extra[key]
        name, *indices = key.split(".")
        value = getattr(op, name)
        for index in indices:
            value = value[int(index)]
        if op.name in SINGLE and op.results[0].dtype is f32:
            return self.dialect.number(value, f32).within(slot.precedence)
        return self.literal(value).within(slot.precedence)

    def _beside_array(self, op: Op, but: Container[Value] = ()) -> bool:
        """Whether an operand that takes part in promotion is an array, so that numbers beside it take its dtype."""
        for i, value in enumerate(op.operands):
            other = value is not None and not self.is_number(value) and value not in but
            if other and op.definition.kind_of(i) == "Tensor":
                return True
        return False

    def is_number(self, value: Value | None) -> bool:
        """Whether the value is a constant of no axes, which is written as a Python number."""
        return value is not None and value.owner.__class__ is CONSTANT and not value.type.shape

    def operand(self, value: Value | None, takes_number: bool = False) -> Expression:
        """The source of a value as it stands now. A number stays one where `takes_number`, else it becomes an array."""
        if value is None:
            return Expression("None")
        found = self.known.get(value)
        if found is not None:
            return found
        waiting = self.pending.get(value)
        if waiting is not None:
            return waiting.expression
        if value in self.size_values:
            found = self.size_values[value]
            size = found if isinstance(found, Expression) else self.size(found)
            return size if takes_number else Expression(self.dialect.array(size.text, value.type), POSTFIX)
        producer = value.op
        if producer is not None and producer.name == "constant":
            return self._constant(producer, takes_number)
        return self.members.weight(value)

    def _constant(self, op: Op, as_number: bool) -> Expression:
        value, dtype = op.attributes
        if as_number and not op.results[0].type.shape and self.dialect.is_weak_beside(value, dtype):
            return self.dialect.number(value, dtype)
        return Expression(self.dialect.array(self.nested(value, dtype), op.results[0].type), POSTFIX)

    def nested(self, value: Any, dtype: DType) -> str:
        """Numbers in nested lists, as source."""
        if isinstance(value, tuple):
            return f"[{', '.join(self.nested(item, dtype) for item in value)}]"
        return self.dialect.number(value, dtype).text

    def literal(self, value: Any) -> Expression:
        """An attribute as source."""
        kind = type(value)
        if kind is int:
            return Expression(str(value), ATOM if value >= 0 else UNARY)
        if kind is tuple:
            items = [self.literal(item).text for item in value]
            return Expression(f"({', '.join(items)}{',' if len(items) == 1 else ''})")
        if isinstance(value, Dim):
            return self.size(value)
        if kind is DType:
            return Expression(self.dialect.dtype(value))
        if kind is float:
            return self.dialect.number(value, f64)
        if kind is FunctionRef:
            return Expression(str(value))
        return Expression(repr(value))

    def size(self, size: Size) -> Expression:
        """A size as source; the symbols in it are read at the top of the body."""
        for dim in symbols(size):
            self.sizes_read[dim] = None
            if dim not in self.sizes:
                self.reserve_sizes([dim])
        text, precedence = python(size, {dim.name: self.sizes[dim] for dim in symbols(size)})
        return Expression(text, _SIZE_PRECEDENCE[precedence])

    # --- naming -----------------------------------------------------------------------------------------------

    def consume(self, operands: Sequence[Value | None]) -> list[Value]:
        """Take operands out of what is pending; returns the named values that are read instead, once for each read."""
        reads: list[Value] = []
        for value in operands:
            if value is None:
                continue
            waiting = self.pending.pop(value, None)
            if waiting is not None:
                reads.extend(waiting.reads)
            elif value in self.uses and value in self.known:
                reads.append(value)
        return reads

    def release(self, reads: Sequence[Value]) -> list[str]:
        """Count the reads as done; returns the names that are free from now on."""
        freed: list[str] = []
        for value in reads:
            left = self.uses[value] = self.uses[value] - 1
            if not left and value not in self.kept:
                name = self.known[value].text
                self.names.release(name)
                freed.append(name)
        return freed

    def define(
        self,
        results: Sequence[Value],
        expression: Expression,
        reads: list[Value],
        ops: int = 1,
        calls: int = 1,
        alone: bool = False,
        inlinable: bool = True,
    ) -> None:
        """Give `results` the value of `expression`: inline where their one reader is, or under names."""
        first = results[0]
        if first in self.successors and self.dialect.writes_in_place:
            self._overwrite(first, expression, reads)
            return
        hint = self.hints.get(first)
        if inlinable and hint is None and self.uses.get(first) == 1:
            self.pending[first] = Pending(expression, reads, ops, calls, alone)
            return
        if hint is not None and hint.steps and len(results) == 1 and self.uses.get(first) == 1:
            expression = self.dialect.stored(expression, hint.steps)
            self.stored.add(first)
        self.settle()
        freed = self.release(reads)
        targets = [self.name_result(value, freed) for value in results]
        held = self.ordered and any(worth_freeing(v) for v, name in zip(results, targets, strict=True) if name == "_")
        text = expression.text
        if held and targets.count("_") == len(targets) - 1:
            place = next(i for i, name in enumerate(targets) if name != "_")
            results, targets, held = results[place : place + 1], [targets[place]], False
            text = f"{expression.within(POSTFIX)}[{place}]"
        self.emit(Line.of(f"{', '.join(targets)} = {text}", dict(zip(targets, results, strict=True))))
        if held:
            self.emit("del _")  # which would hold an array that nothing reads

    def _overwrite(self, value: Value, expression: Expression, reads: Sequence[Value]) -> None:
        """Write a new value over the old one, or under a name of its own while that is still read."""
        self.release(reads)
        name = self.successors[value]
        if any(self.uses.get(held, 0) for held in self.holders[name]):
            new = self._hold(value, f"new_{name}")
            self.emit(f"{new} = {expression.text}")
            if value in self.outputs:
                self.late.append((name, new))
            return
        self.emit(self.dialect.rewritten(self, name, value, expression))
        self.known[value] = Expression(name)
        self.kept.add(value)
        self.holders[name].append(value)

    def write_late(self) -> None:
        """Write the new values whose names nothing reads any more."""
        for name, new in self.late:
            self.emit(f"{name}.copy_({new})")

    def materialise(self, value: Value) -> None:
        """Write what is pending for `value` as a statement of its own."""
        self.settle(value)
        waiting = self.pending.pop(value)
        freed = self.release(waiting.reads)
        name = self.name_result(value, freed)
        outer = self.title
        if self.sections is not None:
            self.title = self.sections.title(value)
        self.emit(Line.of(f"{name} = {waiting.expression.text}", {name: value}))
        self.title = outer

    def _outlives(self, waiting: Pending) -> bool:
        """Whether an array that is read last here would be held to the end of a longer statement by its name."""
        return any(worth_freeing(value) and self.uses[value] <= waiting.reads.count(value) for value in waiting.reads)

    def settle(self, before: Value | None = None, but: Sequence[Value | None] = ()) -> None:
        """Where order counts, write what is pending (longer than `before`): later it would keep what it reads alive."""
        if self.ordered:
            for value in list(self.pending):
                if value is before:
                    break
                if value in self.pending and value not in but and any(map(worth_freeing, self.pending[value].reads)):
                    self.materialise(value)

    def named(self, value: Value | None) -> str:
        """The value as a name or other atom that can be read any number of times."""
        if value is not None and value in self.pending:
            self.materialise(value)
        return self.operand(value).text

    def name_result(self, value: Value, freed: Sequence[str] = ()) -> str:
        """A name for a new value: that of a source that died, `x` for the main stream, or the model's name for it."""
        if value not in self.uses:
            return "_"
        if value in self.successors:
            name = self.successors[value]
            return self._hold(value, name if self.names.is_free(name) else f"new_{name}")
        if value in self.hints:
            return self._hold(value, self.hints[value].name)
        called = self.result_names.get(value)
        once = self.uses[value] == 1 or value in self.updates
        if called is not None and once and len(self.outputs) > 1 and self.names.is_free(called):
            return self._hold(value, called)
        if self.sections is not None:
            base = self.sections.name(value, freed, self.names)
            if base is not None:
                return self._hold(value, base)
        role = layer_role(value) or role_of_op(value)
        if role is not None and (role in freed or self.names.is_free(role)):
            return self._hold(value, role)
        base = self._base(value)
        if base in _STATISTICS and self.names.is_free(base):
            return self._hold(value, base)
        for name in freed:
            if name.partition("_")[0] in _STREAMS and self.names.is_free(name):
                return self._hold(value, name)
        if self.names.is_free("x"):
            return self._hold(value, "x")
        if base == "y":
            base = next((name for name in _STREAMS if self.names.is_free(name)), base)
        return self._hold(value, base)

    def _base(self, value: Value) -> str:
        if value.name and not value.name.isdigit():
            return identifier(value.name)
        reader = next(iter(value.uses or ()), None)
        if reader is not None and reader.definition.operands and not reader.definition.variadic:
            for operand, declared in zip(reader.operands, reader.definition.operands, strict=False):
                if operand is value and declared.name in _ROLES:
                    return declared.name
        return "y"

    def _hold(self, value: Value, base: str) -> str:
        name = self.names.take(base)
        self.known[value] = Expression(name)
        if worth_freeing(value):
            self.large.add(name)
        return name

    # --- the end ----------------------------------------------------------------------------------------------

    def write_return(self) -> None:
        """The return statement of the body's outputs."""
        self.emit(f"return {self.returned()}")

    def returned(self, values: Sequence[Value] | None = None) -> str:
        """The outputs as one expression, or several separated by commas."""
        outputs = self.outputs if values is None else values
        if len(set(outputs)) != len(outputs):
            for value in outputs:
                if value in self.pending and outputs.count(value) > 1:
                    self.materialise(value)
        while True:
            texts = [self.operand(value).text for value in outputs]
            if sum(map(len, texts)) + 2 * len(texts) + 7 + self.indent <= WIDTH:
                break
            waiting = [value for value in outputs if value in self.pending]
            if not waiting or len(outputs) == 1:
                break
            for value in waiting:
                if value in self.pending:  # what one of them settles may be another
                    self.materialise(value)
        return ", ".join(texts)

    def sizes_at_top(self, parameters: Sequence[Value], names: Mapping[Value, str]) -> list[str]:
        """Statements that read the sizes in use from the shapes of the body's parameters."""
        return size_statements(list(self.sizes_read), parameters, names, self.sizes)
