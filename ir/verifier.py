"""Checks the rules of the IR: SSA order, uses, types, terminators, roles, guards and calls. Linear in the module."""

from __future__ import annotations

from graphc.ir.dims import Dim, equal, symbols
from graphc.ir.errors import GraphcError, VerifyError
from graphc.ir.graph import ROLES, Block, Function, Op, Value
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.ops.control import infer_call

MOST_PROBLEMS = 20
"""So many problems are listed; a graph with one mistake can have thousands."""


def verify(module: Module) -> None:
    """Raise `VerifyError` with all that is broken (the first 20), each with its function and op."""
    problems: list[str] = []
    for name, function in module.functions.items():
        checker = _Checker(module, function, problems)
        if name != function.name or function.module is not module:
            checker.report(None, f"is filed under {name!r}")
        checker.function_rules()
        checker.block(function.block)
    if problems:
        shown = problems[:MOST_PROBLEMS]
        more = f"\n  and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
        raise VerifyError("the module breaks the rules of the IR:\n  " + "\n  ".join(shown) + more)


class _Checker:
    def __init__(self, module: Module, function: Function, problems: list[str]) -> None:
        self.module = module
        self.function = function
        self.problems = problems

    def report(self, op: Op | None, problem: str) -> None:
        where = f"@{self.function.name}"
        if op is not None:
            where += f", {op.name}"
            if str(op.location):
                where += f" at {op.location}"
        self.problems.append(f"{where}: {problem}")

    def function_rules(self) -> None:
        function = self.function
        if [p.value for p in function.parameters] != function.block.parameters:
            self.report(None, "parameters and block parameters differ")
        names: set[str] = set()
        for parameter in function.parameters:
            if parameter.role not in ROLES:
                self.report(None, f"parameter {parameter.name!r} has the role {parameter.role!r}")
            if parameter.name in names:
                self.report(None, f"two parameters are called {parameter.name!r}")
            names.add(parameter.name)
            if parameter.weight is None:
                if parameter.role == "param" and function.public:
                    self.report(None, f"parameter {parameter.name!r} of role param names no weight")
            elif parameter.weight not in self.module.weights:
                self.report(
                    None, f"parameter {parameter.name!r} names the weight {parameter.weight!r}, which there is not"
                )
            elif self.module.weights.info(parameter.weight).type is not parameter.type:
                type = self.module.weights.info(parameter.weight).type
                self.report(None, f"parameter {parameter.name!r} is {parameter.type}, its weight is {type}")
        outputs = function.block.last.operands if function.block.last is not None else ()
        if len(function.results) != len(outputs):
            self.report(None, f"declares {len(function.results)} results and returns {len(outputs)}")
        for result, value in zip(function.results, outputs, strict=False):
            target = result.updates
            if target is None or value is None:
                continue
            if target not in function.parameters:
                self.report(None, "a result updates something that is no parameter")
            elif not _same_type(target.type, value.type):
                self.report(None, f"a result of type {value.type} updates {target.name!r} of type {target.type}")
            elif target.role == "input":
                self.report(None, f"a result updates {target.name!r}, which is an input")

    def block(self, block: Block) -> None:
        is_function = isinstance(block.owner, Function)
        wanted = "return" if is_function else "yield"
        if block.last is None or block.last.definition is not OPS[wanted]:
            self.report(block.last, f"the block does not end with {wanted}")
        bound = {s for value in block.parameters for s in value.type.symbols} if is_function else None
        previous: Op | None = None
        order = None
        for op in block:
            if op.block is not block or op.prev is not previous:
                self.report(op, "is not linked to its neighbours")
            if order is not None and op.order <= order:
                self.report(op, "its order number does not grow")
            order = op.order
            previous = op
            if bound is not None and op.definition.introduces_symbols:
                bound.update(s for r in op.results for s in r.type.symbols)
            self.op(block, op)
        for index, value in enumerate(block.parameters):
            if value.owner is not block or value.index != index:
                self.report(None, f"parameter {index} does not know its block")
        if bound is not None:
            self.bound_symbols(block, bound)

    def bound_symbols(self, block: Block, bound: set[Dim]) -> None:
        seen: set[object] = set()
        for op in block:
            for result in op.results:
                if result.type in seen:
                    continue
                seen.add(result.type)
                for symbol in result.type.symbols:
                    if symbol not in bound:
                        self.report(op, f"the symbol {symbol} in {result.type} is bound by no parameter and no op")
        for guard in self.function.guards:
            for size in (guard.left, guard.right):
                for symbol in symbols(size):
                    if symbol not in bound:
                        self.report(None, f"the symbol {symbol} in the guard {guard} is not bound")

    def op(self, block: Block, op: Op) -> None:
        operands = op.operands
        for value in operands:
            if value is None:
                continue
            owner = value.owner
            if isinstance(owner, Op):
                if owner.block is not block or owner.order >= op.order:
                    self.report(op, f"reads {_shown(value)}, which does not stand before it in its block")
            elif owner is not block:
                self.report(op, f"reads {_shown(value)}, a parameter of another block")
            uses = value.uses
            if uses is None or op not in uses or (uses[op] != 1 and uses[op] != operands.count(value)):
                self.report(op, f"is not counted right among the uses of {_shown(value)}")
        for value in op.results:
            if value.owner is not op:
                self.report(op, f"does not own its result {_shown(value)}")
            if value.uses:
                for user in value.uses:
                    if user.block is None or value not in user.operands:  # type: ignore[comparison-overlap]
                        self.report(op, f"{_shown(value)} counts a use by {user.name}, which does not read it")
        for region in op.regions:
            if region.op is not op:
                self.report(op, "does not own its region")
            self.block(region.block)
        self.types(op)

    def types(self, op: Op) -> None:
        definition = op.definition
        operand_types = tuple([v if v is None else v.type for v in op.operands])
        try:
            if definition.name == "call":
                callee = self.module.functions.get(op.attributes[0])
                if callee is None:
                    self.report(op, f"calls @{op.attributes[0]}, which there is not")
                    return
                inferred = infer_call(callee, tuple(t for t in operand_types if t is not None))
            else:
                inferred = definition.infer(operand_types, op.attributes, op.regions)
        except GraphcError as error:
            self.report(op, error.message)
            return
        results = op.results
        if len(inferred.types) != len(results):
            self.report(op, f"has {len(results)} results, its type rule gives {len(inferred.types)}")
            return
        for type, value in zip(inferred.types, results, strict=True):
            if type is not value.type and not _same_type(type, value.type):
                self.report(op, f"its result is {value.type}, its type rule gives {type}")


def _same_type(a: object, b: object) -> bool:
    """Whether two types agree, up to sizes that only a guard makes equal."""
    from graphc.ir.types import TensorType

    if a is b:
        return True
    assert isinstance(a, TensorType) and isinstance(b, TensorType)
    return (
        a.dtype is b.dtype
        and a.ndim == b.ndim
        and all(equal(p, q) is not False for p, q in zip(a.shape, b.shape, strict=True))
    )


def _shown(value: Value) -> str:
    return f"%{value.name}" if value.name else f"a value of type {value.type}"
