"""Writing sizes: as text, as Python source, and by any other algebra."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Protocol, TypeVar

from graphc.ir.dims.expression import Atom, AtomKind, Dim, Size, Term

T = TypeVar("T")


class Algebra(Protocol[T]):
    """What `lower_with` builds from a size: numbers, source text, tensors that hold sizes."""

    def const(self, value: int, /) -> T: ...
    def symbol(self, symbol: Dim, /) -> T: ...
    def add(self, a: T, b: T, /) -> T: ...
    def mul(self, a: T, b: T, /) -> T: ...
    def floordiv(self, a: T, b: T, /) -> T: ...
    def mod(self, a: T, b: T, /) -> T: ...
    def min(self, a: T, b: T, /) -> T: ...
    def max(self, a: T, b: T, /) -> T: ...


def lower_with(size: Size, algebra: Algebra[T]) -> T:
    """Fold `size` with the operations of `algebra`, terms in the order of the text."""
    if not isinstance(size, Dim):
        return algebra.const(size)
    operations = {"//": algebra.floordiv, "%": algebra.mod, "min": algebra.min, "max": algebra.max}
    total: T | None = None
    for monomial, coefficient in _in_text_order(size):
        factors = [algebra.const(coefficient)] if coefficient != 1 or not monomial else []
        for atom in monomial:
            if atom.kind == "symbol":
                factors.append(algebra.symbol(atom.dim))
            else:
                factors.append(reduce(operations[atom.kind], [lower_with(each, algebra) for each in atom.operands]))
        term = reduce(algebra.mul, factors)
        total = term if total is None else algebra.add(total, term)
    assert total is not None
    return total


def _in_text_order(dim: Dim) -> list[Term]:
    """The terms, the constant last, but one with a positive sign first if there is any: T - S."""
    terms = [*dim.terms, ((), dim.constant)] if dim.constant else list(dim.terms)
    first = next((index for index, (_, coefficient) in enumerate(terms) if coefficient > 0), 0)
    return [terms.pop(first), *terms]


def python(size: Size, names: Mapping[str, str]) -> tuple[str, int]:
    """Python source of `size`, its symbols spelled by `names` (or as they are), and its precedence class.

    0 is an atom, 1 multiplicative or negated, 2 additive, 3 anything looser (which sizes never are).
    """
    return rendered(size, lambda atom: names.get(atom.name, atom.name))


def rendered(size: Size, spell: Callable[[Atom], str]) -> tuple[str, int]:
    """Text of `size`, its symbols spelled by `spell`, and its precedence class as `python` gives it."""
    if not isinstance(size, Dim):
        return str(size), int(size < 0)
    text, count, precedence = "", 0, 0
    for monomial, coefficient in _in_text_order(size):
        factors = [
            (spell(atom), 0) if atom.kind == "symbol" else operation_text(atom.kind, atom.operands, spell)
            for atom in monomial
        ]
        bare = len(factors) == 1 and abs(coefficient) == 1 and not (coefficient < 0 and not text)
        spelled = [factor if precedence == 0 or bare else f"({factor})" for factor, precedence in factors]
        joined = "*".join([str(abs(coefficient)), *spelled] if abs(coefficient) != 1 or not spelled else spelled)
        sign = ("-" if coefficient < 0 else "") if not text else " - " if coefficient < 0 else " + "
        text, count = text + sign + joined, count + 1
        precedence = factors[0][1] if bare else int(len(spelled) + (abs(coefficient) != 1) > 1 or coefficient < 0)
    return text, 2 if count > 1 else precedence


def operation_text(kind: AtomKind, operands: tuple[Size, ...], spell: Callable[[Atom], str]) -> tuple[str, int]:
    """As `rendered`, of `//`, `%`, `min` or `max` of sizes."""
    texts = [rendered(each, spell) for each in operands]
    if kind in ("min", "max"):
        return f"{kind}({', '.join(text for text, _ in texts)})", 0
    above = operands[0]
    is_product = isinstance(above, Dim) and len(above.terms) == 1 and not above.constant and above.atom is None
    (left, left_class), (right, right_class) = texts
    left = left if left_class == 0 or is_product else f"({left})"
    right = right if right_class == 0 else f"({right})"
    return f"{left}//{right}" if kind == "//" else f"{left} % {right}", 1


def symbol_name(atom: Atom) -> str:
    """Spells a symbol as it is called."""
    return atom.name
