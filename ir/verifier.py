"""Checks the rules of the IR: SSA order, uses, types, terminators, roles, symbols, guards and calls.

Linear in the module. What is right is seen in one walk with few steps an op; only what looks wrong is looked at again,
to say what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from graphc.ir.attributes import FunctionRef
from graphc.ir.body_reader import RULE_ERRORS
from graphc.ir.dims import Dim, Facts, Size, solve, symbols
from graphc.ir.errors import GraphcError, VerifyError
from graphc.ir.graph import ROLES, Block, Function, Op, Value
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Inferred
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType

MOST_PROBLEMS = 20
"""So many problems are listed; a graph with one mistake can have thousands."""

_TERMINATORS = (OPS["return"].op_class, OPS["yield"].op_class)


def verify(module: Module) -> None:
    """Raise `VerifyError` with all that is broken (the first 20), each with its function and op."""
    problems: list[str] = []
    calls: dict[str, set[str]] = {}
    for name, function in module.functions.items():
        checker = _Checker(module, function, problems)
        if name != function.name or function.module is not module:
            checker.report(None, f"is filed under {name!r}")
        checker.run()
        calls[name] = checker.callees
    _no_recursion(calls, problems)
    if problems:
        shown = problems[:MOST_PROBLEMS]
        more = f"\n  and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
        raise VerifyError("the module breaks the rules of the IR:\n  " + "\n  ".join(shown) + more)


def _no_recursion(calls: dict[str, set[str]], problems: list[str]) -> None:
    """Report functions that reach themselves; `calls` has the callees of each."""
    while leaves := [name for name, callees in calls.items() if not callees]:
        for name in leaves:
            del calls[name]
        for callees in calls.values():
            callees.difference_update(leaves)
    for name, callees in calls.items():
        problems.append(f"@{name}: calls {', '.join('@' + callee for callee in sorted(callees))}, and so itself")


class _Checker:
    """Checks one function and collects its `callees`.

    `bound`, where it is passed on, are the symbols that parameters and the ops before have bound, by name.
    """

    def __init__(self, module: Module, function: Function, problems: list[str]) -> None:
        self.module = module
        self.function = function
        self.problems = problems
        self.callees: set[str] = set()
        self.facts = Facts(function.guards)

    def report(self, op: Op | None, problem: str) -> None:
        where = f"@{self.function.name}"
        if op is not None:
            where += f", {op.name}"
            if str(op.location):
                where += f" at {op.location}"
        self.problems.append(f"{where}: {problem}")

    def run(self) -> None:
        function = self.function
        if not function.name.isidentifier():
            self.report(None, "its name is no identifier")
        self.parameters()
        bound = self.bound_by_parameters()
        self.block(function.block, bound)
        self.results()
        for guard in function.guards:
            self.bound_symbols(None, (guard.left, guard.right), f"the guard {guard}", bound)

    # --- the function -----------------------------------------------------------------------------------------

    def parameters(self) -> None:
        function, weights = self.function, self.module.weights
        if [p.value for p in function.parameters] != function.block.parameters:
            self.report(None, "parameters and block parameters differ")
        names: set[str] = set()
        for parameter in function.parameters:
            name, weight = parameter.name, parameter.weight
            if parameter.role not in ROLES:
                self.report(None, f"parameter {name!r} has the role {parameter.role!r}")
            if name in names:
                self.report(None, f"two parameters are called {name!r}")
            names.add(name)
            if weight is None:
                if parameter.role == "param" and function.public:
                    self.report(None, f"parameter {name!r} of role param names no weight")
            elif weight not in weights:
                self.report(None, f"parameter {name!r} names the weight {weight!r}, which there is not")
            elif weights.info(weight).type is not parameter.type:
                self.report(None, f"parameter {name!r} is {parameter.type}, its weight is {weights.info(weight).type}")

    def results(self) -> None:
        function = self.function
        outputs = function.block.last.operands if function.block.last is not None else ()
        if len(function.results) != len(outputs):
            self.report(None, f"declares {number_of(len(function.results), 'result')} and returns {len(outputs)}")
        updated: set[int] = set()
        for result, value in zip(function.results, outputs, strict=False):
            target = result.updates
            if result.name is not None and not result.name.isidentifier():
                self.report(None, f"the name {result.name!r} of a result is no identifier")
            if target is None or value is None:
                continue
            if all(target is not parameter for parameter in function.parameters):
                self.report(None, "a result updates something that is no parameter")
            elif not self.agree(target.type, value.type):
                self.report(None, f"a result of type {value.type} updates {target.name!r} of type {target.type}")
            elif target.role == "input":
                self.report(None, f"a result updates {target.name!r}, which is an input")
            elif id(target) in updated:
                self.report(None, f"two results update {target.name!r}")
            updated.add(id(target))

    # --- symbols ----------------------------------------------------------------------------------------------

    def bound_by_parameters(self) -> dict[str, Dim]:
        """The symbols that the shapes of parameters give values to, as `binding.bind_symbols` does it."""
        bindings: dict[Dim, Size] = {}
        sizes = [size for p in self.function.parameters for size in p.type.shape if isinstance(size, Dim)]
        for size in sorted(sizes, key=lambda size: not size.is_symbol):
            solve(size, size, bindings)
        bound = {symbol.name: symbol for symbol in bindings}
        self.bound_symbols(None, sizes, "the parameters", bound)
        return bound

    def bound_symbols(self, op: Op | None, value: Any, where: str, bound: dict[str, Dim]) -> None:
        """Report symbols in a size, or in tuples of sizes, that nothing binds before."""
        for symbol in _symbols_in(value):
            known = bound.get(symbol.name)
            if known is None:
                self.report(op, f"the symbol {symbol} in {where} is bound by no parameter and no op before")
            elif known is not symbol:
                least = f"{known.minimum} and {symbol.minimum}"
                self.report(op, f"two symbols are called {symbol}, one in {where}: their least values are {least}")

    # --- blocks and ops ---------------------------------------------------------------------------------------

    def block(self, block: Block, bound: dict[str, Dim]) -> None:
        wanted = _TERMINATORS[0 if isinstance(block.owner, Function) else 1]
        if not isinstance(block.last, wanted):
            self.report(block.last, f"the block does not end with {wanted.definition.name}")
        for index, value in enumerate(block.parameters):
            if value.owner is not block or value.index != index:
                self.report(None, f"parameter {index} of a block does not know its block")
        seen: set[Value] = set(block.parameters)
        # What was found right for one op holds for all with these operand types, attributes and result types.
        right: set[tuple[object, ...]] = set()
        readers = 0  # pairs of an op and a value it reads; as many as the uses that values count, if all is right
        op, previous, order = block.first, None, None
        while op is not None:
            if op.prev is not previous or _block_of(op) is not block:
                self.report(op, "is not linked to its neighbours")
            if order is not None and op.order <= order:
                self.report(op, "its order number does not grow")
                return  # a list that runs in a circle would not end
            previous, order = op, op.order
            key: list[object] = [op.__class__, id(op.attributes)]
            counted = True
            for value in op.operands:
                if value is None:
                    key.append(None)
                    continue
                if value not in seen:
                    self.report(op, f"reads {_shown(value)}, which does not stand before it in its block")
                uses = value.uses
                if uses is None or uses.get(op) != 1:
                    counted = False
                readers += 1
                key.append(value.type)
            if not counted:
                readers -= self.recounted(op)
            for value in op.results:
                if value.owner is not op:
                    self.report(op, f"does not own its result {_shown(value)}")
                if value.name is not None and not value.name.isidentifier():
                    self.report(op, f"the name {value.name!r} of a result is no identifier")
                seen.add(value)
                key.append(value.type)
            known = tuple(key)
            if op.regions:
                self.regions(op, bound)
            elif known not in right and self.op(op, bound):
                right.add(known)
            op = op.next
        if readers != sum([len(value.uses) for value in seen if value.uses]):
            self.wrong_uses(block, seen)

    def recounted(self, op: Op) -> int:
        """Report wrong counts of uses; returns how many operands repeat one before them."""
        counts = Counter([value for value in op.operands if value is not None])
        for value, count in counts.items():
            if value.uses is None or value.uses.get(op) != count:
                self.report(op, f"is not counted right among the uses of {_shown(value)}")
        return counts.total() - len(counts)

    def wrong_uses(self, block: Block, values: set[Value]) -> None:
        """Report what only the sum of uses shows: values read twice and counted once, and uses by ops that read not."""
        reading: set[tuple[Op, Value | None]] = set()
        for op in block:
            reading.update([(op, value) for value in op.operands])
            if all(value is None or (value.uses and value.uses.get(op) == 1) for value in op.operands):
                self.recounted(op)
        for value in values:
            for user in value.uses or ():
                if (user, value) not in reading:
                    producer = value.owner if isinstance(value.owner, Op) else None
                    self.report(producer, f"{_shown(value)} counts a use by {user.name}, which does not read it")

    def regions(self, op: Op, bound: dict[str, Dim]) -> None:
        for region in op.regions:
            if region.op is not op or region.block.owner is not region:
                self.report(op, "does not own its region")
            for value in region.block.parameters:
                self.bound_symbols(op, value.type.shape, f"{value.type}", bound)
            self.block(region.block, dict(bound))
        self.op(op, bound)

    def op(self, op: Op, bound: dict[str, Dim]) -> bool:
        """Whether attributes, types and symbols of an op are right; reports what is not."""
        before = len(self.problems)
        definition, results = op.definition, op.results
        if op.__class__ in _TERMINATORS and op.next is not None:
            self.report(op, "stands in the middle of its block")
        if len(op.attributes) != len(definition.attributes):
            has = number_of(len(op.attributes), "attribute")
            self.report(op, f"has {has}, it declares {len(definition.attributes)}")
            return False
        if definition.introduces_symbols:
            bound |= {s.name: s for value in results for s in value.type.symbols if s.name not in bound}
        self.bound_symbols(op, op.attributes, "its attributes", bound)
        for value in results:
            self.bound_symbols(op, value.type.shape, f"{value.type}", bound)
        inferred = self.inferred(op)
        if inferred is not None:
            types = inferred.types
            if len(types) != len(results):
                self.report(op, f"has {number_of(len(results), 'result')}, its type rule gives {len(types)}")
            for type, value in zip(types, results, strict=False):
                if not self.agree(type, value.type):
                    self.report(op, f"its result is {value.type}, its type rule gives {type}")
            for guard in inferred.guards:
                if not self.facts.imply(guard):
                    self.report(op, f"needs {guard}, which no guard of the function says")
        return len(self.problems) == before

    def agree(self, a: TensorType, b: TensorType) -> bool:
        """Whether two types are the same where the guards of the function hold."""
        return a is b or (
            a.dtype is b.dtype
            and a.ndim == b.ndim
            and all(self.facts.equal(p, q) for p, q in zip(a.shape, b.shape, strict=True))
        )

    def inferred(self, op: Op) -> Inferred | None:
        """What the op's type rule finds, None when it refuses."""
        definition = op.definition
        types = tuple([None if value is None else value.type for value in op.operands])
        try:
            if definition.call_rule is None:
                return definition.infer(types, op.attributes, op.regions)
            definition.check_operands(types)
            for name in op.attributes:
                if isinstance(name, FunctionRef):
                    if name not in self.module.functions:
                        self.report(op, f"calls @{name}, which there is not")
                        return None
                    self.callees.add(name)
            present = tuple([type for type in types if type is not None])
            return definition.call_rule(self.module.functions, present, op.attributes)
        except GraphcError as error:
            self.report(op, error.message)
        except RULE_ERRORS as error:
            self.report(op, f"its type rule does not take its operands and attributes ({error})")
        return None


def _block_of(op: Op) -> Block | None:
    return getattr(op, "block", None)  # unset where an op was never placed


def _symbols_in(value: object) -> Iterator[Dim]:
    if isinstance(value, Dim):
        yield from symbols(value)
    elif isinstance(value, (tuple, list)):
        for item in cast("tuple[object, ...]", value):
            yield from _symbols_in(item)


def _shown(value: Value) -> str:
    return f"%{value.name}" if value.name else f"a value of type {value.type}"
