"""Which values are held while each op runs, and how many bytes they take: a simulation over block order.

The model: every value is a buffer of its own, made by its op and dropped after the last op that reads it; what a block
returns or yields is held to its end. An op holds its operands and its results at once. The ops in `VIEWS` make no
buffer: their results share the operand's, which is held as long as any of them. Parameters of a function belong to the
caller for the whole run; they are counted apart, as `weights` (what stands for an entry of the weight table) and
`inputs`, and not in `peak`.

Updates: the new value of a weight is a buffer of its own from the op that makes it to the return, beside the old one.
That is the form that is always right (two buffers, swapped between calls); a target that may write in place, since
every read of the old value comes earlier, needs less.

A target may share more or need more (`Memory`): results that are views of an operand, a workspace that an op holds
while it runs.

Regions: captures are the outer buffers. A branch of `cond` holds what its ops make; its results become the op's. A loop
holds each carried value in a buffer of its own from the second pass on (the first pass reads the operands), `scan`
also the slices of the current step, and the stacked results from the start. A `while` is taken to run twice or more;
its condition holds all carried values. A `call` holds what the called function does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.ir.binding import bind_symbols
from graphc.ir.dims import Size, ceil_div, evaluate, product
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Block, Function, Op, Value, operand_values
from graphc.ir.types import TensorType

VIEWS = frozenset({"barrier", "name", "reshape", "stop_gradient"})
"""Ops whose results are their operands under another type: they move and hold nothing."""


def _renames(op: Op) -> bool:
    return op.name in VIEWS


def _never(op: Op) -> bool:
    return False


def _nothing(op: Op, size: Callable[[TensorType], int]) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Memory:
    """How a target holds values.

    `is_view` says whether the results of an op share its operands' buffers: each that of the operand of its place, or
    all that of the first where there are more or fewer results. `workspace` is how many bytes an op holds beside its
    operands and results while it runs; it is given the bytes of a type. `slack` is the part of a budget to leave free,
    for small arrays and what allocators round up. `is_free` says which ops cost nothing to run again, as the target's
    compiler runs them inside those that read their results. With `in_place` the new value of a weight takes the place
    of the old one where nothing reads that later.
    """

    is_view: Callable[[Op], bool] = _renames
    workspace: Callable[[Op, Callable[[TensorType], int]], int] = _nothing
    slack: float = 0.0
    is_free: Callable[[Op], bool] = _never
    in_place: bool = False

    def sources(self, op: Op) -> Sequence[Value] | None:
        """For each result of `op` the value whose buffer it shares, if they do."""
        if self.in_place and (old := _replaced(op)) is not None:
            return [old]
        if not self.is_view(op):
            return None
        operands = list(operand_values(op))
        return operands if len(operands) == len(op.results) else [operands[0]] * len(op.results)


def _replaced(op: Op) -> Value | None:
    """The weight whose new value `op` makes, if nothing but it reads the old value then or later."""
    function, last = op.block.function, op.block.last
    if function is None or last is None or len(op.results) != 1 or last not in (op.results[0].uses or ()):
        return None
    for result, value in zip(function.results, last.operands, strict=False):
        if value is op.results[0] and result.updates is not None:
            old = result.updates.value
            same = old.type == op.results[0].type and op.block is function.block
            return old if same and all(user is op or user.is_before(op) for user in old.uses or ()) else None
    return None


PLAIN = Memory()
"""Every value is a buffer of its own but for `VIEWS`, and no op needs a workspace."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """What a function holds as it runs.

    `peak` is the most bytes held at once beside the parameters, reached first `at` that op (of a region or of a called
    function where it is reached inside one), when the values `live` are held. `profile` has the bytes held at each op
    of the function's block, in order. `weights` and `inputs` are the bytes of the parameters.
    """

    peak: int
    at: Op
    live: list[Value]
    profile: list[int]
    weights: int
    inputs: int

    @property
    def total(self) -> int:
        """Bytes held at the peak, parameters included."""
        return self.peak + self.weights + self.inputs


def type_bytes(type: TensorType) -> Size:
    """Bytes that a tensor of this type takes; elements of 4 bits lie two to a byte."""
    count = product(type.shape)
    return ceil_div(count, 2) if type.dtype.bits == 4 else count * int(type.dtype.size)


def live_bytes(function: Function, bindings: Mapping[str, int] | None = None, memory: Memory = PLAIN) -> Liveness:
    """Simulate `function` with these values of its symbols, by name, as `memory` holds values. Linear in its ops.

    Symbols that ops introduce (data-dependent sizes) need a value too. Raises `ShapeError` for one that has none.
    """
    given = dict(bindings or {})
    simulator = _Simulator(given, given, {}, memory)
    held = simulator.block(function.block)
    return Liveness(held.peak, held.at, held.live, held.profile, *simulator.parameters(function))


@dataclass(slots=True)
class _Held:
    """What a block, or an op beside its operands, holds: the most bytes, where, which values, and the course."""

    peak: int
    at: Op
    live: list[Value]
    profile: list[int] = field(default_factory=list[int])


_Calls = dict[tuple[Function, tuple[int, ...]], _Held]


class _Simulator:
    """Simulates blocks under the symbol values `sizes`; called functions once for each set of argument shapes, with
    the values that were `given` at the top for the symbols their ops introduce."""

    def __init__(self, sizes: dict[str, int], given: dict[str, int], calls: _Calls, memory: Memory) -> None:
        self.sizes = sizes
        self.given = given
        self.calls = calls
        self.memory = memory
        self.known: dict[TensorType, int] = {}

    def bytes(self, value: Value) -> int:
        return self.type_bytes(value.type)

    def type_bytes(self, type: TensorType) -> int:
        found = self.known.get(type)
        if found is None:
            found = self.known[type] = evaluate(type_bytes(type), self.sizes)
        return found

    def total(self, values: Sequence[Value]) -> int:
        return sum(self.bytes(value) for value in values)

    def parameters(self, function: Function) -> tuple[int, int]:
        """Bytes of the weights, tied ones once, and of the inputs."""
        table = function.module.weights if function.module is not None else None
        weights: dict[str, int] = {}
        inputs = 0
        for parameter in function.parameters:
            if parameter.weight is None:
                inputs += self.bytes(parameter.value)
                continue
            known = table is not None and parameter.weight in table
            name = table.source(parameter.weight).name if table is not None and known else parameter.weight
            weights[name] = self.bytes(parameter.value)
        return sum(weights.values()), inputs

    def block(self, block: Block, owned: Sequence[Value] = (), pinned: bool = False) -> _Held:
        """Simulate a block that holds those of its parameters that are `owned`, to their last use or, `pinned`, to the
        block's end."""
        buffer_of, last_use, count = _buffers(block, self.memory)
        if pinned:
            last_use |= dict.fromkeys(owned, count - 1)
        ending: list[list[Value]] = [[] for _ in range(count)]
        live = [value for value in owned if value in last_use]
        made = set(live)
        now = self.total(live)
        for op in block:
            made.update(value for value in op.results if buffer_of.get(value, value) is value)
        for value in made:
            ending[last_use[value]].append(value)
        held: _Held | None = None
        profile: list[int] = []
        peak_at = -1
        for position, op in enumerate(block):
            results = [value for value in op.results if value in made]
            inside = self.inside(op, results)
            profile.append(now + inside.peak)
            if held is None or profile[-1] > held.peak:
                held, peak_at = _Held(profile[-1], inside.at, inside.live, profile), position
            now += self.total(results) - self.total(ending[position])
        if held is None:
            raise GraphcError("the block is empty: it has no return or yield")
        for position, op in enumerate(block):
            if position == peak_at:
                break
            live += [value for value in op.results if value in made]
        held.live = [value for value in live if last_use[value] >= peak_at] + held.live
        return held

    def inside(self, op: Op, results: list[Value]) -> _Held:
        """What `op` holds beside what is live before it: its results, or more while its regions run."""
        most = _Held(self.total(results) + self.memory.workspace(op, self.type_bytes), op, results)
        if op.regions or op.definition.call_rule is not None:
            for held in self.nested(op, results):
                if held.peak > most.peak:
                    most = held
        return most

    def nested(self, op: Op, results: list[Value]) -> list[_Held]:
        if op.definition.call_rule is not None:
            return [self.call(op)]
        blocks = [region.block for region in op.regions]
        if op.name == "cond":
            return [self.block(block) for block in blocks]
        carried: int = op.attribute_dict["carried"]
        if op.name == "while":
            condition, body = blocks
            return [
                self.block(condition, condition.parameters[:carried], pinned=True),
                self.block(body, body.parameters[:carried]),
            ]
        (body,) = blocks
        steps = evaluate(op.attribute_dict["length"], self.sizes)
        if steps == 0:
            return []
        slices_end = carried + op.attribute_dict["sliced"]
        held = self.block(body, body.parameters[0 if steps > 1 else carried : slices_end])
        stacks = results[carried:]
        return [_Held(held.peak + self.total(stacks), held.at, stacks + held.live)]

    def call(self, op: Op) -> _Held:
        function = op.block.function
        if function is None or function.module is None:
            raise GraphcError("a call is simulated in a module, which has the function that is called")
        if op.name == "native_gradient":
            raise GraphcError("what the framework's own gradient holds is not known; the IR's own has a planned peak")
        callee = function.module.functions[op.attributes[0]]
        shapes = [tuple(evaluate(size, self.sizes) for size in value.type.shape) for value in operand_values(op)]
        key = callee, tuple(size for shape in shapes for size in shape)
        if key not in self.calls:
            bound = {symbol.name: evaluate(size, {}) for symbol, size in bind_symbols(callee, shapes).items()}
            self.calls[key] = _Simulator(self.given | bound, self.given, self.calls, self.memory).block(callee.block)
        return self.calls[key]


def _buffers(block: Block, memory: Memory) -> tuple[dict[Value, Value], dict[Value, int], int]:
    """The value whose buffer each view has, the position of the last use of each buffer, and how many ops there are.

    A result that nothing reads is last used by the op that makes it; a parameter that nothing reads is not listed.
    """
    buffer_of: dict[Value, Value] = {}
    last_use: dict[Value, int] = {}
    count = 0
    for position, op in enumerate(block):
        for operand in operand_values(op):
            last_use[buffer_of.get(operand, operand)] = position
        sources = memory.sources(op)
        if sources is not None:
            for result, operand in zip(op.results, sources, strict=True):
                buffer_of[result] = buffer_of.get(operand, operand)
        else:
            last_use |= dict.fromkeys(op.results, position)
        count = position + 1
    return buffer_of, last_use, count
