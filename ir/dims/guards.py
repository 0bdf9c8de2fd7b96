"""Symbols and their values: substitution, evaluation, solving, and guards that wait for values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from graphc.ir.dims.bounds import bounds, less_equal
from graphc.ir.dims.decisions import divides, equal, exact_div
from graphc.ir.dims.expression import Atom, Dim, Size, as_size, parts, polynomial, rewrite, symbols
from graphc.ir.dims.operations import floor_div, maximum, minimum, mod
from graphc.ir.errors import ShapeError


def substitute(size: Size, mapping: Mapping[Dim, Size]) -> Size:
    """`size` with the symbols that are keys of `mapping` replaced, all at once.

    What is put in is at least the symbol's minimum: the canonical form of `size` may rest on that.
    """

    def replace(atom: Atom) -> Size:
        if atom.kind == "symbol":
            return as_size(mapping.get(atom.dim, atom.dim))
        operands = [substitute(each, mapping) for each in atom.operands]
        if all(new is old for new, old in zip(operands, atom.operands, strict=True)):
            return atom.dim
        return _OPERATIONS[atom.kind](*operands)

    return rewrite(size, replace)


_OPERATIONS: dict[str, Callable[..., Size]] = {"//": floor_div, "%": mod, "min": minimum, "max": maximum}


def evaluate(size: Size, mapping: Mapping[str, int]) -> int:
    """The number that `size` is when symbols have these values. ShapeError for a missing one or a division by zero."""
    if not isinstance(size, Dim):
        return size
    total = size.constant
    for monomial, coefficient in size.terms:
        for atom in monomial:
            coefficient *= _value(atom, mapping)
        total += coefficient
    return total


def _value(atom: Atom, mapping: Mapping[str, int]) -> int:
    if atom.kind == "symbol":
        if atom.name not in mapping:
            raise ShapeError(f"the symbol {atom.name} has no value; known are {', '.join(sorted(mapping)) or 'none'}")
        return mapping[atom.name]
    values = [evaluate(each, mapping) for each in atom.operands]
    if atom.kind in ("min", "max"):
        return min(values) if atom.kind == "min" else max(values)
    if values[1] == 0:
        raise ShapeError(f"{atom.dim} divides by zero: {atom.operands[1]} is 0")
    return values[0] // values[1] if atom.kind == "//" else values[0] % values[1]


def solve(pattern: Size, actual: Size, bindings: dict[Dim, Size]) -> bool | None:
    """Match a formal size against an actual one, adding to `bindings` the symbol of `pattern` that this determines.

    Symbols of `pattern` are formal, those of `actual` and of the values in `bindings` are the caller's, even if they
    are the same objects. A pattern is solved for a symbol in which it is linear: `S`, `2*S + 1`, `B*S` with B bound.
    False if the sizes cannot be equal, None if that is not known. Also None, and bound, if only whether the value
    reaches the symbol's minimum is not known.
    """
    unbound = [each for each in symbols(pattern) if each not in bindings]
    if not unbound:
        return equal(substitute(pattern, bindings), actual)
    value = actual if pattern is unbound[0] else _linear_solution(pattern, actual, unbound, bindings)
    if isinstance(value, bool) or value is None:
        return value
    reaches = less_equal(unbound[0].minimum, value)
    if reaches is not False:
        bindings[unbound[0]] = value
    return reaches


def _linear_solution(pattern: Size, actual: Size, unbound: list[Dim], bindings: Mapping[Dim, Size]) -> Size | None:
    """The value of the one unbound symbol, False if there is none, None if not known."""
    (low, high), (least, most) = bounds(pattern), bounds(actual)
    if (low is not None and most is not None and low > most) or (
        high is not None and least is not None and high < least
    ):
        return False
    terms, constant = parts(pattern)
    formal = unbound[0].atom
    linear = {
        tuple(a for a in monomial if a is not formal): factor
        for monomial, factor in terms
        if monomial.count(formal) == 1
    }
    rest = {monomial: factor for monomial, factor in terms if formal not in monomial}
    slope = polynomial({m: factor for m, factor in linear.items() if m}, linear.get((), 0))
    offset = polynomial(rest, constant)
    if len(unbound) > 1 or len(linear) + len(rest) < len(terms) or {*symbols(slope), *symbols(offset)} & {*unbound}:
        return None
    slope, target = substitute(slope, bindings), actual - substitute(offset, bindings)
    if equal(slope, 0) is not False:
        return None
    value = exact_div(target, slope)
    return value if value is not None or divides(slope, target) is not False else False


@dataclass(frozen=True, slots=True)
class Guard:
    """A fact about sizes that is checked when the symbols have values: `B == N`, `1 <= S - 2`, `4 divides S`."""

    kind: Literal["==", "<=", "divides"]
    left: Size
    right: Size

    def __str__(self) -> str:
        return f"{self.left} {self.kind} {self.right}"

    @property
    def holds(self) -> bool | None:
        """True or False if so for all values of the symbols."""
        return {"==": equal, "<=": less_equal, "divides": divides}[self.kind](self.left, self.right)

    def check(self, mapping: Mapping[str, int]) -> bool:
        """Whether it holds for these values of the symbols."""
        left, right = evaluate(self.left, mapping), evaluate(self.right, mapping)
        if self.kind == "divides":
            return right % left == 0 if left else right == 0
        return left == right if self.kind == "==" else left <= right

    def substitute(self, mapping: Mapping[Dim, Size]) -> Guard:
        """The guard with symbols replaced."""
        return Guard(self.kind, substitute(self.left, mapping), substitute(self.right, mapping))


class Facts:
    """What follows from guards that hold: symbols that an `==` determines are replaced wherever sizes are compared."""

    def __init__(self, guards: Iterable[Guard]) -> None:
        self.mapping: dict[Dim, Size] = {}
        self.unsolved = False
        """Whether an `==` determines no symbol, so that not all that follows from the guards is found."""
        given = list(guards)
        for guard in given:
            if guard.kind == "==":
                self._learn(self.reduce(guard.left), self.reduce(guard.right))
        self._known = {self._reduced(guard) for guard in given}

    def _learn(self, left: Size, right: Size) -> None:
        for a, b in ((left, right), (right, left)):
            if isinstance(a, Dim) and a.is_symbol and a not in symbols(b):
                self.mapping = {symbol: substitute(size, {a: b}) for symbol, size in self.mapping.items()}
                self.mapping[a] = b
                return
        self.unsolved |= equal(left, right) is None

    def reduce(self, size: Size) -> Size:
        """`size` in symbols that no guard determines."""
        return substitute(size, self.mapping) if self.mapping else size

    def _reduced(self, guard: Guard) -> Guard:
        return Guard(guard.kind, self.reduce(guard.left), self.reduce(guard.right))

    def equal(self, a: Size, b: Size) -> bool:
        """Whether the sizes are equal where the guards hold; also if only that is not known."""
        if a is b:
            return True
        found = equal(self.reduce(a), self.reduce(b))
        return found is True or (found is None and self.unsolved)

    def imply(self, guard: Guard) -> bool:
        """Whether `guard` follows from the guards; also if only that is not known."""
        reduced = self._reduced(guard)
        found = reduced.holds
        return found is True or (found is None and (self.unsolved or reduced in self._known))
