"""Spelling templates: text with slots, parsed once into the precedence of the whole and of each slot.

A slot is `{0}` (an operand), `{axis}` (an attribute), `{shape.1}` (an item of one) or `{*}` (all operands, separated by
commas). Formatting puts parentheses where the operand binds less tightly than its slot needs, and nowhere else.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

# How tightly an expression binds, after Python's grammar.
(
    LOOSEST,
    TERNARY,
    OR,
    AND,
    NOT,
    COMPARISON,
    BIT_OR,
    BIT_XOR,
    BIT_AND,
    SHIFT,
    SUM,
    PRODUCT,
    UNARY,
    POWER,
    POSTFIX,
    ATOM,
) = range(16)

_BINARY: dict[type[ast.operator], int] = {
    ast.Add: SUM,
    ast.Sub: SUM,
    ast.Mult: PRODUCT,
    ast.Div: PRODUCT,
    ast.FloorDiv: PRODUCT,
    ast.Mod: PRODUCT,
    ast.MatMult: PRODUCT,
    ast.Pow: POWER,
    ast.LShift: SHIFT,
    ast.RShift: SHIFT,
    ast.BitOr: BIT_OR,
    ast.BitXor: BIT_XOR,
    ast.BitAnd: BIT_AND,
}


class Expression(NamedTuple):
    """Python source of a value and how tightly it binds."""

    text: str
    precedence: int = ATOM

    def within(self, needed: int) -> str:
        """The text as it stands where an expression of at least the precedence `needed` does."""
        return self.text if self.precedence >= needed else f"({self.text})"


class Slot(NamedTuple):
    """A place in a template: what stands there, how tightly it must bind, whether it may be a Python number."""

    key: int | str
    precedence: int
    takes_scalars: bool


class Template(NamedTuple):
    """A parsed template: `pieces` are the texts around the slots."""

    pieces: tuple[str, ...]
    slots: tuple[Slot, ...]
    precedence: int
    repeats: bool = False
    """Whether an operand stands in it more than once."""
    has_star: bool = False

    def format(self, operand: Callable[[Slot], str]) -> Expression:
        """The template with each slot filled by `operand(slot)`: text that binds as tightly as the slot needs."""
        if not self.slots:
            return Expression(self.pieces[0], self.precedence)
        out = [self.pieces[0]]
        for slot, piece in zip(self.slots, self.pieces[1:], strict=True):
            out.append(operand(slot))
            out.append(piece)
        return Expression("".join(out), self.precedence)


_SLOT = re.compile(r"\{(\w+(?:\.\d+)*|\*)(:s)?\}")


@cache
def template(text: str) -> Template:
    """Parse a template; memoised. `{0:s}` says that a Python number may stand there, as it may beside an operator.

    Raises SyntaxError for text that is no expression.
    """
    pieces: list[str] = []
    found: list[tuple[str, bool]] = []
    end = 0
    for match in _SLOT.finditer(text):
        pieces.append(text[end : match.start()])
        found.append((match[1], match[2] is not None))
        end = match.end()
    pieces.append(text[end:])
    marked = pieces[0] + "".join(f"slot_{i}_{piece}" for i, piece in enumerate(pieces[1:]))
    tree = ast.parse(marked.strip(), mode="eval").body
    needs: dict[str, tuple[int, bool]] = {}
    _visit(tree, LOOSEST, False, needs)
    slots: list[Slot] = []
    for i, (key, marked_scalar) in enumerate(found):
        needed, beside_operator = needs[f"slot_{i}_"]
        slots.append(Slot(int(key) if key.isdigit() else key, needed, marked_scalar or beside_operator))
    keys = [slot.key for slot in slots if isinstance(slot.key, int) or slot.key == "*"]
    return Template(tuple(pieces), tuple(slots), precedence_of(tree), len(set(keys)) < len(keys), "*" in keys)


def precedence_of(node: ast.expr) -> int:
    """How tightly a parsed expression binds."""
    match node:
        case ast.Lambda():
            return LOOSEST
        case ast.IfExp():
            return TERNARY
        case ast.BoolOp(op=op):
            return OR if isinstance(op, ast.Or) else AND
        case ast.UnaryOp(op=op):
            return NOT if isinstance(op, ast.Not) else UNARY
        case ast.Compare():
            return COMPARISON
        case ast.BinOp(op=op):
            return _BINARY[type(op)]
        case ast.Call() | ast.Attribute() | ast.Subscript():
            return POSTFIX
        case _:
            return ATOM


def _visit(node: ast.expr, needed: int, scalar: bool, needs: dict[str, tuple[int, bool]]) -> None:
    """Note for each slot below `node` how tightly what stands there must bind."""
    own = precedence_of(node)
    match node:
        case ast.Name(id=name):
            needs[name] = needed, scalar
        case ast.BinOp(left=left, op=op, right=right):
            power = isinstance(op, ast.Pow)
            _visit(left, own + power, True, needs)
            _visit(right, UNARY if power else own + 1, True, needs)
        case ast.UnaryOp(operand=operand):
            _visit(operand, own, False, needs)
        case ast.Compare(left=left, comparators=comparators):
            for each in (left, *comparators):
                _visit(each, own + 1, True, needs)
        case ast.BoolOp(values=values):
            for each in values:
                _visit(each, own + 1, False, needs)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            _visit(body, TERNARY + 1, False, needs)
            _visit(test, TERNARY + 1, False, needs)
            _visit(orelse, TERNARY, False, needs)
        case ast.Attribute(value=value):
            _visit(value, POSTFIX, False, needs)
        case ast.Subscript(value=value, slice=index):
            _visit(value, POSTFIX, False, needs)
            _visit(index, LOOSEST, False, needs)
        case ast.Call(func=function, args=args, keywords=keywords):
            _visit(function, POSTFIX, False, needs)
            for each in (*args, *(keyword.value for keyword in keywords)):
                _visit(each, TERNARY, False, needs)
        case ast.Starred(value=value):
            _visit(value, BIT_OR, False, needs)
        case _:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    _visit(child, TERNARY, False, needs)
