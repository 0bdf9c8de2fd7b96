"""Division, minimum and maximum: the operations that make atoms.

Canonical division is polynomial division with remainder: in graded lexicographic order, n = q*d + r has exactly one r
whose terms divisible by the leading term of d have coefficients in [0, leading coefficient of d). Then n//d = q + r//d
and n % d = r % d.
"""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Literal

from graphc.ir.dims.bounds import bounds, is_positive, less, less_equal, operation_bounds
from graphc.ir.dims.expression import (
    MAXIMAL_WEIGHT,
    QUOTIENTS,
    REMAINDERS,
    Atom,
    AtomKind,
    Dim,
    Monomial,
    Size,
    Term,
    as_size,
    combine,
    parts,
    polynomial,
    rank,
    rewrite,
    symbols_of,
)
from graphc.ir.dims.text import operation_text, symbol_name
from graphc.ir.errors import ShapeError

MAXIMAL_DEPTH = 48
"""Operations nested in each other."""

_ATOMS: dict[tuple[AtomKind, tuple[Size, ...]], Atom] = {}


def _operation(kind: AtomKind, operands: tuple[Size, ...]) -> Dim:
    if (found := _ATOMS.get((kind, operands))) is not None:
        return found.dim
    inner = [atom for each in operands for monomial, _ in parts(each)[0] for atom in monomial]
    weight, depth = 1 + sum(atom.weight for atom in inner), 1 + max((atom.depth for atom in inner), default=0)
    if weight > MAXIMAL_WEIGHT or depth > MAXIMAL_DEPTH:
        raise ShapeError(f"a size has grown past {MAXIMAL_WEIGHT} atoms or {MAXIMAL_DEPTH} nested operations")
    minimums = tuple([each.minimum for each in symbols_of(operands)])
    key = (True, operation_text(kind, operands, symbol_name)[0], minimums)
    atom = Atom(kind, "", 0, operands, weight, depth, operation_bounds(kind, operands), key)
    return _ATOMS.setdefault((kind, operands), atom).dim


def leading(size: Size) -> int:
    """The coefficient of the leading term."""
    return size.terms[0][1] if isinstance(size, Dim) else size


def _monomial_quotient(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    rest = list(monomial)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def divide(numerator: Size, divisor: Size) -> tuple[Size, Size]:
    """The q and r of the module's docstring; the leading coefficient of `divisor` is positive."""
    if isinstance(divisor, int):
        terms, constant = parts(numerator)
        quotient = polynomial(
            {monomial: coefficient // divisor for monomial, coefficient in terms}, constant // divisor
        )
        return quotient, combine(numerator, -divisor, quotient)
    quotient, rest = 0, numerator
    lead, unit = divisor.terms[0]
    while isinstance(rest, Dim):
        for monomial, coefficient in rest.terms:
            part = _monomial_quotient(monomial, lead)
            if part is not None and (count := coefficient // unit):
                step = polynomial({part: count}, 0) if part else count
                quotient = combine(quotient, 1, step)
                rest = combine(rest, -1, divisor * step)
                break
        else:
            break
    return quotient, rest


def _cancel(numerator: Size, divisor: Size) -> tuple[Size, Size, Size, int]:
    """(n, d, f, k) with numerator = f*n + k and divisor = f*d, so that numerator//divisor = n//d.

    The k lies in [0, f), and is 0 if the divisor's sign is unknown.
    """
    terms, constant = parts(numerator)
    divisor_terms, divisor_constant = parts(divisor)
    factor = gcd(*[coefficient for _, coefficient in terms + divisor_terms], divisor_constant)
    if not is_positive(divisor):
        factor = gcd(factor, constant)
    left_over = constant % factor
    common: list[Atom] = []
    if constant == left_over and divisor_constant == 0 and terms and divisor_terms:
        monomials = [monomial for monomial, _ in terms + divisor_terms]
        common = [
            atom for atom in dict.fromkeys(monomials[0]) for _ in range(min(each.count(atom) for each in monomials))
        ]

    def reduced(terms: tuple[Term, ...], constant: int) -> Size:
        pairs = {
            _monomial_quotient(monomial, tuple(common)) or (): coefficient // factor for monomial, coefficient in terms
        }
        bare = pairs.pop((), 0)
        return polynomial(pairs, constant // factor + bare)

    shared = polynomial({tuple(common): factor}, 0) if common else factor
    return reduced(terms, constant - left_over), reduced(divisor_terms, divisor_constant), shared, left_over


def _small_quotient(numerator: Size, divisor: Size) -> int | None:
    """numerator//divisor if bounds show that it is one number."""
    low, high = bounds(numerator)
    if isinstance(divisor, int):
        return low // divisor if low is not None and high is not None and low // divisor == high // divisor else None
    if is_positive(divisor):
        if low is not None and low >= 0 and less(numerator, divisor):
            return 0
        if high is not None and high < 0 and less_equal(0, divisor + numerator):
            return -1
    return None


def floor_div(a: Size, b: Size) -> Size:
    """a//b, rounded down. ShapeError if `b` is the number 0."""
    numerator, divisor = as_size(a), as_size(b)
    if (found := QUOTIENTS.get((numerator, divisor))) is None:
        found = QUOTIENTS[numerator, divisor] = _floor_div(numerator, divisor)
    return found


def _floor_div(numerator: Size, divisor: Size) -> Size:
    if isinstance(divisor, int) and divisor == 0:
        raise ShapeError(f"the size {numerator} is divided by zero")
    if leading(divisor) < 0:
        return floor_div(-numerator, -divisor)
    quotient, rest = divide(numerator, divisor)
    if (small := _small_quotient(rest, divisor)) is not None:
        return quotient + small
    inner, reduced, factor, _ = _cancel(rest, divisor)
    if factor != 1:
        return quotient + floor_div(inner, reduced)
    if isinstance(rest, Dim) and is_positive(divisor):
        for monomial, coefficient in rest.terms:
            if coefficient == len(monomial) == 1 and monomial[0].kind == "//":  # (a//b + k)//c = (a + k*b)//(b*c)
                above, below = monomial[0].operands
                return quotient + floor_div(above + (rest - monomial[0].dim) * below, below * divisor)
    return quotient + _operation("//", (rest, divisor))


def mod(a: Size, b: Size) -> Size:
    """a % b, with the sign of `b` as in Python. ShapeError if `b` is the number 0."""
    numerator, divisor = as_size(a), as_size(b)
    if (found := REMAINDERS.get((numerator, divisor))) is None:
        found = REMAINDERS[numerator, divisor] = _mod(numerator, divisor)
    return found


def _mod(numerator: Size, divisor: Size) -> Size:
    if isinstance(divisor, int) and divisor == 0:
        raise ShapeError(f"the size {numerator} is divided by zero")
    if leading(divisor) < 0:
        return -mod(-numerator, -divisor)
    _, rest = divide(numerator, divisor)
    if (small := _small_quotient(rest, divisor)) is not None:
        return rest - divisor * small
    inner, reduced, factor, left_over = _cancel(rest, divisor)
    if factor != 1:
        return factor * mod(inner, reduced) + left_over
    if isinstance(rest, Dim) and isinstance(divisor, int):  # (a % 8) % 4 = a % 4
        plain = rewrite(
            rest,
            lambda atom: atom.operands[0] if atom.kind == "%" and mod(atom.operands[1], divisor) == 0 else atom.dim,
        )
        if plain is not rest:
            return mod(plain, divisor)
    return _operation("%", (rest, divisor))


def ceil_div(a: Size, b: Size) -> Size:
    """a/b, rounded up. ShapeError if `b` is the number 0."""
    numerator, divisor = as_size(a), as_size(b)
    if is_positive(divisor):
        return floor_div(numerator + divisor - 1, divisor)
    return -floor_div(-numerator, divisor)


def minimum(*sizes: Size) -> Size:
    """The smallest of `sizes`; those that are never smaller than another one are dropped."""
    return _extremum("min", tuple(map(as_size, sizes)))


def maximum(*sizes: Size) -> Size:
    """The largest of `sizes`; those that are never larger than another one are dropped."""
    return _extremum("max", tuple(map(as_size, sizes)))


@cache
def _extremum(kind: Literal["min", "max"], sizes: tuple[Size, ...]) -> Size:
    def wins(one: Size, other: Size) -> bool | None:
        return less_equal(one, other) if kind == "min" else less_equal(other, one)

    flat: list[Size] = []
    for size in sizes:
        atom = size.atom if isinstance(size, Dim) else None
        flat.extend(atom.operands if atom is not None and atom.kind == kind else (size,))
    kept: list[Size] = []
    for size in sorted(flat, key=_operand_rank):
        if not any(wins(other, size) for other in kept):
            kept = [other for other in kept if not wins(size, other)] + [size]
    if not kept:
        raise ShapeError(f"{kind} of no sizes")
    return kept[0] if len(kept) == 1 else _operation(kind, tuple(kept))


def _operand_rank(size: Size) -> tuple[bool, list[tuple[int, list[tuple[int, str, tuple[int, ...]]], int]], int]:
    terms, constant = parts(size)
    return not terms, [(*rank(term), term[1]) for term in terms], constant
