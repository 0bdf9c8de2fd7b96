"""Fusions of several ops, as two expressions written with the ops.

    fusion(lambda x: x * sigmoid(x), lambda x: silu(x))

    def softmax_by_hand(x, *, axis):
        e = exp(x - reduce_max(x, axes=(axis,), keepdims=True))
        return e / reduce_sum(e, axes=(axis,), keepdims=True)

    fusion(softmax_by_hand, lambda x, *, axis: softmax(x, axis=axis))

Positional parameters stand for any value, keyword-only ones for any attribute (or a part of one). A parameter that
occurs twice is the same value twice, and so is an intermediate result. Numbers match constants; attributes that the
pattern does not mention have their defaults; operands of commutative ops match in either order. What lies inside a
match must not be read outside it. The match starts from the pattern's rarest op and looks up and down from there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from graphc.ir import ops
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Op, Value
from graphc.ir.location import Location, fused
from graphc.ir.opdef import REQUIRED, OpDef
from graphc.ir.rewriter import Rewriter
from graphc.passes.driver import Rewritten, Rule

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "and", "or", "xor", "eq", "ne"})

_COMMON = ("add", "sub", "mul", "div", "constant", "convert", "reshape", "transpose", "broadcast", "neg")
"""Ops that graphs are full of: a match does not start from one if it can start elsewhere."""


class Pattern:
    """A value in a pattern: a parameter (no definition), or the result of an op on patterns and numbers."""

    __slots__ = ("attributes", "definition", "name", "operands")

    def __init__(
        self,
        name: str,
        definition: OpDef[..., Any] | None = None,
        operands: tuple[Any, ...] = (),
        attributes: tuple[Any, ...] = (),
    ) -> None:
        self.name = name
        self.definition = definition
        self.operands = operands
        self.attributes = attributes

    def __graphc_record__(self, definition: OpDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pattern:
        return _applied(definition, args, kwargs)

    def __add__(self, other: Any) -> Pattern:
        return _applied(ops.add, (self, other), {})

    def __radd__(self, other: Any) -> Pattern:
        return _applied(ops.add, (other, self), {})

    def __sub__(self, other: Any) -> Pattern:
        return _applied(ops.sub, (self, other), {})

    def __rsub__(self, other: Any) -> Pattern:
        return _applied(ops.sub, (other, self), {})

    def __mul__(self, other: Any) -> Pattern:
        return _applied(ops.mul, (self, other), {})

    def __rmul__(self, other: Any) -> Pattern:
        return _applied(ops.mul, (other, self), {})

    def __truediv__(self, other: Any) -> Pattern:
        return _applied(ops.div, (self, other), {})

    def __rtruediv__(self, other: Any) -> Pattern:
        return _applied(ops.div, (other, self), {})

    def __neg__(self) -> Pattern:
        return _applied(ops.neg, (self,), {})


class AttributeOf:
    """A parameter of a pattern that stands for an attribute."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def _applied(definition: OpDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pattern:
    names = [o.name for o in definition.operands]
    operands = list(args)
    if not definition.variadic:
        for operand in definition.operands[len(args) :]:
            if operand.name not in kwargs and not operand.optional:
                raise TypeError(f"the pattern gives {definition.name} no {operand.name!r}")
            operands.append(kwargs.get(operand.name))
    attributes: list[Any] = []
    for attribute in definition.attributes:
        value = kwargs.get(attribute.name, attribute.default)
        if value is REQUIRED:
            raise TypeError(f"the pattern says nothing of the attribute {attribute.name!r} of {definition.name}")
        attributes.append(value if _has_parameter(value) else attribute.convert(value))
    unknown = [name for name in kwargs if name not in (*names, *definition.attribute_names)]
    if unknown:
        raise TypeError(f"{definition.name} has no {unknown[0]!r}")
    return Pattern(definition.name, definition, tuple(operands), tuple(attributes))


def _has_parameter(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_has_parameter(item) for item in cast(Sequence[Any], value))
    return isinstance(value, AttributeOf)


Bindings = dict[Any, Any]
"""What a match found: a value for each pattern, and an attribute for each name."""


def match(goals: list[tuple[Any, Value | None]], found: Bindings) -> Bindings | None:
    """Match all pairs of a pattern and a value, given what was found before; None when one does not fit."""
    while goals:
        pattern, value = goals.pop()
        if not isinstance(pattern, Pattern):
            if pattern is None and value is None:
                continue
            if pattern is None or value is None or not _is_constant(value, pattern):
                return None
            continue
        if pattern in found:
            if found[pattern] is not value:
                return None
            continue
        if value is None:
            return None
        found[pattern] = value
        if pattern.definition is None:
            continue
        op = value.owner
        if op.__class__ is not pattern.definition.op_class or not isinstance(op, Op):
            return None
        if not _attributes_match(pattern.attributes, op.attributes, found):
            return None
        if len(op.operands) != len(pattern.operands):
            return None
        pairs = list(zip(pattern.operands, op.operands, strict=True))
        if pattern.definition.name in COMMUTATIVE:
            first = match([*goals, *pairs], dict(found))
            if first is not None:
                return first
            pairs = list(zip(pattern.operands, reversed(op.operands), strict=True))
        goals.extend(pairs)
    return found


def _is_constant(value: Value, number: Any) -> bool:
    op = value.owner
    if not isinstance(op, Op) or op.definition is not ops.constant:
        return False
    held, kind = op.attributes
    if not isinstance(held, (bool, int, float, complex)):
        return False
    return held == number or bool(kind.numpy.type(number) == kind.numpy.type(held))


def _attributes_match(pattern: Any, value: Any, found: Bindings) -> bool:
    if isinstance(pattern, AttributeOf):
        if pattern.name in found:
            return bool(found[pattern.name] == value)
        found[pattern.name] = value
        return True
    if isinstance(pattern, (tuple, list)):
        if not isinstance(value, tuple):
            return False
        wanted, given = cast(Sequence[Any], pattern), cast("tuple[Any, ...]", value)
        return len(wanted) == len(given) and all(
            _attributes_match(p, v, found) for p, v in zip(wanted, given, strict=True)
        )
    return bool(pattern == value) and type(pattern) is type(value)


def fusion(
    pattern: Callable[..., Any],
    replacement: Callable[..., Any],
    guard: Callable[..., bool] | None = None,
    name: str | None = None,
) -> Rule:
    """A rule that replaces what `pattern` computes by `replacement`, when `guard` (of the same parameters) allows it.

    The replacement gets the location of all that it stands for. Raises TypeError for a pattern that is no expression.
    """
    parameters = inspect.signature(pattern).parameters.values()
    values = {p.name: Pattern(p.name) for p in parameters if p.kind is not p.KEYWORD_ONLY}
    attributes = {p.name: AttributeOf(p.name) for p in parameters if p.kind is p.KEYWORD_ONLY}
    output = pattern(*values.values(), **attributes)
    if not isinstance(output, Pattern) or output.definition is None:
        raise TypeError("a pattern is an expression of ops on its parameters")
    nodes = _nodes(output)
    missing = [n for n, value in values.items() if value not in nodes]
    if missing:
        raise TypeError(f"the pattern does not use its parameter {missing[0]!r}")
    inner = [node for node in nodes if node.definition is not None]
    # Of equally rare ops the first in the expression: it has the least to look up through.
    root = min(
        inner, key=lambda node: (node.name in _COMMON, _COMMON.index(node.name) * -1 if node.name in _COMMON else 0)
    )
    path = _path(output, root)
    definition = root.definition
    assert definition is not None

    def rewrite(op: Op, rewriter: Rewriter) -> Rewritten:
        for top in _climb(op, path):
            found = match([(output, top.results[0])], {})
            if found is None or found[root] is not op.results[0] or not _is_private(inner, output, found):
                continue
            given = [found[node] for node in values.values()]
            named = {key: found[key] for key in attributes}
            if guard is None or guard(*given, **named):
                matched = [cast(Op, found[node].owner) for node in inner]
                _replace(top, matched, lambda given=given, named=named: replacement(*given, **named), rewriter)
                return True
        return None

    return Rule(name or getattr(replacement, "__name__", "fusion"), (definition,), rewrite)


def _replace(top: Op, matched: list[Op], build: Callable[[], Any], rewriter: Rewriter) -> None:
    location: Location = matched[0].location
    for op in matched[1:]:
        location = fused(location, op.location)
    builder = rewriter.before(top)
    builder.location = location
    with builder:
        value = builder.value(build())
    if value is None:
        raise GraphcError("the replacement of a fusion returned nothing")
    rewriter.replace(top, value)


def _nodes(output: Pattern) -> list[Pattern]:
    """All patterns below and with `output`, each once, operands first."""
    order: dict[Pattern, None] = {}

    def visit(node: Any) -> None:
        if isinstance(node, Pattern) and node not in order:
            for operand in node.operands:
                visit(operand)
            order[node] = None

    visit(output)
    return list(order)


def _path(output: Pattern, root: Pattern) -> list[Pattern]:
    """The patterns to climb through from `root` (without it) to `output`."""
    if output is root:
        return []
    for operand in output.operands:
        if isinstance(operand, Pattern) and root in _nodes(operand):
            return [*_path(operand, root), output]
    raise TypeError("the root of a pattern is not part of it")


def _climb(op: Op, path: Sequence[Pattern]) -> Iterator[Op]:
    """The ops at the end of `path`, following readers of matching kinds up from `op`."""
    if not path:
        yield op
        return
    definition = path[0].definition
    assert definition is not None
    for value in op.results:
        for user in list(value.uses or ()):
            if user.__class__ is definition.op_class:
                yield from _climb(user, path[1:])


def _is_private(inner: Sequence[Pattern], output: Pattern, found: Mapping[Any, Any]) -> bool:
    """Whether nothing outside reads what lies inside a match."""
    matched = {found[node].owner for node in inner}
    for node in inner:
        if node is not output:
            for result in found[node].owner.results:
                if any(user not in matched for user in result.uses or ()):
                    return False
    return True
