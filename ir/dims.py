"""Sizes of tensors: integers, or canonical integer expressions over named symbols.

A `Size` is an `int` or a `Dim`. A `Dim` is never constant: it is a sum of products of atoms with integer coefficients,
where an atom is a symbol, a floor division, a remainder, a minimum or a maximum. Every form is one object, so identical
sizes are the same object (`is`) and hash by identity. Two sizes that are not identical are compared by `equal`, `less`
and `less_equal`, which answer yes, no, or None for "not known": a caller then leaves a `Guard`, which is checked when
the symbols have values.

Canonical division is polynomial division with remainder: in graded lexicographic order, n = q*d + r has exactly one r
whose terms divisible by the leading term of d have coefficients in [0, leading coefficient of d). Then n//d = q + r//d
and n % d = r % d.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, reduce
from math import gcd
from types import MappingProxyType
from typing import Literal, Protocol, SupportsIndex, TypeAlias, TypeVar

from graphc.ir.errors import ShapeError

T = TypeVar("T")
Bounds: TypeAlias = tuple[int | None, int | None]
AtomKind: TypeAlias = Literal["symbol", "//", "%", "min", "max"]
MAXIMAL_WEIGHT = (
    1024  # atoms in an expression written out; shape arithmetic in a hostile file could double it at every node
)
MAXIMAL_DEPTH = 48
RESERVED = frozenset({"min", "max", "divides"})
DEFAULT_MINIMUMS: Mapping[str, int] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Atom:
    """What products are made of: a symbol, or `//`, `%`, `min`, `max` of sizes. Interned."""

    kind: AtomKind
    name: str
    minimum: int
    operands: tuple[Size, ...]
    weight: int
    depth: int
    limits: Bounds
    key: tuple[int, str, tuple[int, ...]]  # orders atoms alike in every process: symbols first, then by text
    dim: Dim = field(init=False)  # this atom alone


Monomial: TypeAlias = tuple[Atom, ...]  # sorted by key, repeated for powers
Term: TypeAlias = tuple[Monomial, int]


@dataclass(slots=True, eq=False, repr=False)
class Dim:
    """A size that depends on symbols. Made by `symbol` and arithmetic, never by calling the class."""

    constant: int
    terms: tuple[Term, ...]  # by falling degree, then by atoms; never empty, no zero coefficients
    weight: int
    cached_text: str | None = None
    cached_bounds: Bounds | None = None
    cached_symbols: tuple[Dim, ...] | None = None
    cached_zero: bool | Literal["new"] | None = "new"

    __array_ufunc__ = None  # numpy's integers leave arithmetic with a dim to the dim

    @property
    def atom(self) -> Atom | None:
        """The atom that this dim consists of, if it is nothing else."""
        (monomial, coefficient), *more = self.terms
        return monomial[0] if coefficient == len(monomial) == 1 and not more and not self.constant else None

    @property
    def is_symbol(self) -> bool:
        return (atom := self.atom) is not None and atom.kind == "symbol"

    @property
    def name(self) -> str:
        """The symbol's name; AttributeError for any other dim."""
        return self._symbol().name

    @property
    def minimum(self) -> int:
        """The smallest value the symbol takes; AttributeError for any other dim."""
        return self._symbol().minimum

    def _symbol(self) -> Atom:
        if (atom := self.atom) is None or atom.kind != "symbol":
            raise AttributeError(f"{self} is an expression; only a symbol has a name and a minimum")
        return atom

    def __add__(self, other: Size) -> Size:
        if (kind := type(other)) is int or kind is Dim:
            return found if (found := _SUMS.get((self, other))) is not None else _add(self, other)
        return NotImplemented if (number := _integer(other)) is None else self + number

    def __mul__(self, other: Size) -> Size:
        if (kind := type(other)) is int or kind is Dim:
            return found if (found := _PRODUCTS.get((self, other))) is not None else _multiply(self, other)
        return NotImplemented if (number := _integer(other)) is None else self * number

    __radd__ = __add__
    __rmul__ = __mul__

    def __sub__(self, other: Size) -> Size:
        if (kind := type(other)) is int or kind is Dim:
            return _subtract(self, other)
        return NotImplemented if (number := _integer(other)) is None else self + -number

    def __rsub__(self, other: Size) -> Size:
        return NotImplemented if (number := _integer(other)) is None else _subtract(number, self)

    def __neg__(self) -> Size:
        return self * -1

    def __pos__(self) -> Dim:
        return self

    def __floordiv__(self, other: Size) -> Size:
        return floor_div(self, other) if _is_operand(other) else NotImplemented

    def __rfloordiv__(self, other: Size) -> Size:
        return floor_div(other, self) if _is_operand(other) else NotImplemented

    def __mod__(self, other: Size) -> Size:
        return mod(self, other) if _is_operand(other) else NotImplemented

    def __rmod__(self, other: Size) -> Size:
        return mod(other, self) if _is_operand(other) else NotImplemented

    def __pow__(self, exponent: int) -> Size:
        if (count := _integer(exponent)) is None or count < 0:
            raise ShapeError(f"the power of {self} must be an integer that is not negative, not {exponent!r}")
        result: Size = 1
        for _ in range(count):  # the weight limit ends absurd powers
            result = self * result
        return result

    def __lt__(self, other: Size) -> bool:
        return _decided(less(self, other), self, "<", other)

    def __le__(self, other: Size) -> bool:
        return _decided(less_equal(self, other), self, "<=", other)

    def __gt__(self, other: Size) -> bool:
        return _decided(less(other, self), self, ">", other)

    def __ge__(self, other: Size) -> bool:
        return _decided(less_equal(other, self), self, ">=", other)

    def __bool__(self) -> bool:
        raise TypeError(
            f"the size {self} is symbolic and neither true nor false: compare it, for example with equal(size, 0)"
        )

    def __index__(self) -> int:
        raise TypeError(f"the size {self} is symbolic: its value is known only when the model runs")

    __int__ = __index__

    def __str__(self) -> str:
        if self.cached_text is None:
            self.cached_text = _render(self, _symbol_name)[0]
        return self.cached_text

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[..., Size], tuple[str, dict[str, int]]]:
        return parse_size, (str(self), {each.name: each.minimum for each in symbols(self)})


Size: TypeAlias = int | Dim

_ATOMS: dict[tuple[object, ...], Atom] = {}
_DIMS: dict[tuple[int, tuple[Term, ...]], Dim] = {}
_SUMS: dict[tuple[Size, Size], Size] = {}  # keys hold exact ints and dims only: True and 1.0 would hit 1's entry
_PRODUCTS: dict[tuple[Size, Size], Size] = {}
_DIFFERENCES: dict[tuple[Size, Size], Size] = {}
_QUOTIENTS: dict[tuple[Size, Size], Size] = {}
_REMAINDERS: dict[tuple[Size, Size], Size] = {}


def as_size(value: SupportsIndex | Dim) -> Size:
    """`value` as a size: a dim itself, any integer (numpy's too) as an `int`. TypeError for anything else."""
    if isinstance(value, Dim):
        return value
    if (number := _integer(value)) is None:
        raise TypeError(f"a size is an integer or a Dim, not {value!r} of type {type(value).__name__}")
    return number


def _integer(value: object) -> int | None:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array has `__index__`, but not every array is an integer
        return None


def _is_operand(value: object) -> bool:
    return isinstance(value, Dim) or _integer(value) is not None


def _decided(answer: bool | None, left: Size, sign: str, right: Size) -> bool:
    if answer is None:
        raise ShapeError(f"whether {left} {sign} {right} holds is not known: it depends on the values of the symbols")
    return answer


# Construction


def symbol(name: str, minimum: int = 1) -> Dim:
    """The size called `name`, at least `minimum`. The same name with another minimum is another symbol."""
    if not name.isidentifier() or name in RESERVED:
        raise ShapeError(
            f"a symbol's name must be a Python identifier other than {', '.join(sorted(RESERVED))}, not {name!r}"
        )
    if minimum < 0:
        raise ShapeError(f"the minimum of symbol {name} is 0 or more, not {minimum}")
    return _atom("symbol", (), name, int(minimum))


def _atom(kind: AtomKind, operands: tuple[Size, ...], name: str = "", minimum: int = 0) -> Dim:
    key = (kind, operands, name, minimum)
    if (found := _ATOMS.get(key)) is not None:
        return found.dim
    inner = [atom for each in operands for monomial, _ in _parts(each)[0] for atom in monomial]
    weight, depth = 1 + sum(atom.weight for atom in inner), 1 + max((atom.depth for atom in inner), default=0)
    if weight > MAXIMAL_WEIGHT or depth > MAXIMAL_DEPTH:
        raise ShapeError(f"a size has grown past {MAXIMAL_WEIGHT} atoms or {MAXIMAL_DEPTH} nested operations")
    limits = (minimum, None) if kind == "symbol" else _atom_bounds(kind, operands)
    minimums = (minimum,) if kind == "symbol" else tuple(each.minimum for each in _union_of_symbols(operands))
    text = name if kind == "symbol" else _render_operation(kind, operands, _symbol_name)[0]
    atom = Atom(kind, name, minimum, operands, weight, depth, limits, (kind != "symbol", text, minimums))
    atom.dim = _DIMS.setdefault((0, (((atom,), 1),)), Dim(0, (((atom,), 1),), weight))
    return _ATOMS.setdefault(key, atom).dim


def _intern(terms: tuple[Term, ...], constant: int) -> Size:
    if not terms:
        return constant
    if (found := _DIMS.get((constant, terms))) is not None:
        return found
    weight = sum([atom.weight for monomial, _ in terms for atom in monomial])
    if weight > MAXIMAL_WEIGHT:
        raise ShapeError(f"a size has grown past {MAXIMAL_WEIGHT} atoms")
    return _DIMS.setdefault((constant, terms), Dim(constant, terms, weight))


_KEY_OF_ATOM = operator.attrgetter("key")


def _rank(term: Term) -> tuple[int, list[tuple[int, str, tuple[int, ...]]]]:
    return -len(term[0]), [atom.key for atom in term[0]]


def _polynomial(coefficients: Mapping[Monomial, int], constant: int) -> Size:
    terms = [term for term in coefficients.items() if term[1]]
    if len(terms) > 1:
        terms.sort(key=_rank)
    return _intern(tuple(terms), constant)


def _parts(size: Size) -> tuple[tuple[Term, ...], int]:
    return (size.terms, size.constant) if isinstance(size, Dim) else ((), size)


def _combine(left: Size, factor: int, right: Size) -> Size:
    """left + factor*right"""
    left_terms, left_constant = _parts(left)
    right_terms, right_constant = _parts(right)
    if not right_terms:
        return _intern(left_terms, left_constant + factor * right_constant)
    coefficients = dict(left_terms)
    for monomial, coefficient in right_terms:
        coefficients[monomial] = coefficients.get(monomial, 0) + factor * coefficient
    return _polynomial(coefficients, left_constant + factor * right_constant)


def _add(left: Size, right: Size) -> Size:
    result = _SUMS[left, right] = _combine(left, 1, right)
    return result


def _subtract(left: Size, right: Size) -> Size:
    if (found := _DIFFERENCES.get((left, right))) is not None:
        return found
    result = _DIFFERENCES[left, right] = _combine(left, -1, right)
    return result


def _multiply(left: Dim, right: Size) -> Size:
    if isinstance(right, int):
        terms = tuple([(monomial, coefficient * right) for monomial, coefficient in left.terms]) if right else ()
        result = _intern(terms, left.constant * right)
    else:
        if len(left.terms) * len(right.terms) > 16 * MAXIMAL_WEIGHT:
            raise ShapeError(f"a size has grown past {MAXIMAL_WEIGHT} atoms")
        coefficients: dict[Monomial, int] = {}
        for one, factor in (*left.terms, ((), left.constant)):
            for other, coefficient in (*right.terms, ((), right.constant)):
                monomial = tuple(sorted(one + other, key=_KEY_OF_ATOM)) if one and other else one or other
                coefficients[monomial] = coefficients.get(monomial, 0) + factor * coefficient
        constant = coefficients.pop((), 0)
        result = _polynomial(coefficients, constant)
    _PRODUCTS[left, right] = result
    return result


def sum_of(sizes: Iterable[Size]) -> Size:
    """The sum of `sizes`, 0 for none; linear in their terms."""
    coefficients: dict[Monomial, int] = {}
    total = 0
    for size in sizes:
        terms, constant = _parts(as_size(size))
        total += constant
        for monomial, coefficient in terms:
            coefficients[monomial] = coefficients.get(monomial, 0) + coefficient
    return _polynomial(coefficients, total)


def product(sizes: Iterable[Size]) -> Size:
    """The product of `sizes`, 1 for none: the number of elements of a shape."""
    result: Size = 1
    for size in sizes:
        result = as_size(size) * result
    return result


# Division, minimum and maximum


def _leading(size: Size) -> int:
    return size.terms[0][1] if isinstance(size, Dim) else size


def _is_positive(size: Size) -> bool:
    low = bounds(size)[0]
    return low is not None and low >= 1


def _monomial_quotient(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    rest = list(monomial)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _divide(numerator: Size, divisor: Size) -> tuple[Size, Size]:
    """The q and r of the module's docstring; the leading coefficient of `divisor` is positive."""
    if isinstance(divisor, int):
        terms, constant = _parts(numerator)
        quotient = _polynomial(
            {monomial: coefficient // divisor for monomial, coefficient in terms}, constant // divisor
        )
        return quotient, _combine(numerator, -divisor, quotient)
    quotient, rest = 0, numerator
    lead, unit = divisor.terms[0]
    while isinstance(rest, Dim):
        for monomial, coefficient in rest.terms:
            part = _monomial_quotient(monomial, lead)
            if part is not None and (count := coefficient // unit):
                step = _polynomial({part: count}, 0) if part else count
                quotient = _combine(quotient, 1, step)
                rest = _combine(rest, -1, divisor * step)
                break
        else:
            break
    return quotient, rest


def _cancel(numerator: Size, divisor: Size) -> tuple[Size, Size, Size, int]:
    """(n, d, f, k) with numerator = f*n + k and divisor = f*d, so that numerator//divisor = n//d.

    The k lies in [0, f), and is 0 if the divisor's sign is unknown.
    """
    terms, constant = _parts(numerator)
    divisor_terms, divisor_constant = _parts(divisor)
    factor = gcd(*[coefficient for _, coefficient in terms + divisor_terms], divisor_constant)
    if not _is_positive(divisor):
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
        return _polynomial(pairs, constant // factor + bare)

    shared = _polynomial({tuple(common): factor}, 0) if common else factor
    return reduced(terms, constant - left_over), reduced(divisor_terms, divisor_constant), shared, left_over


def _small_quotient(numerator: Size, divisor: Size) -> int | None:
    """numerator//divisor if bounds show that it is one number."""
    low, high = bounds(numerator)
    if isinstance(divisor, int):
        return low // divisor if low is not None and high is not None and low // divisor == high // divisor else None
    if _is_positive(divisor):
        if low is not None and low >= 0 and less(numerator, divisor):
            return 0
        if high is not None and high < 0 and less_equal(0, divisor + numerator):
            return -1
    return None


def floor_div(a: Size, b: Size) -> Size:
    """a//b, rounded down. ShapeError if `b` is the number 0."""
    numerator, divisor = as_size(a), as_size(b)
    if (found := _QUOTIENTS.get((numerator, divisor))) is None:
        found = _QUOTIENTS[numerator, divisor] = _floor_div(numerator, divisor)
    return found


def _floor_div(numerator: Size, divisor: Size) -> Size:
    if isinstance(divisor, int) and divisor == 0:
        raise ShapeError(f"the size {numerator} is divided by zero")
    if _leading(divisor) < 0:
        return floor_div(-numerator, -divisor)
    quotient, rest = _divide(numerator, divisor)
    if (small := _small_quotient(rest, divisor)) is not None:
        return quotient + small
    inner, reduced, factor, _ = _cancel(rest, divisor)
    if factor != 1:
        return quotient + floor_div(inner, reduced)
    if isinstance(rest, Dim) and _is_positive(divisor):
        for monomial, coefficient in rest.terms:
            if coefficient == len(monomial) == 1 and monomial[0].kind == "//":  # (a//b + k)//c = (a + k*b)//(b*c)
                above, below = monomial[0].operands
                return quotient + floor_div(above + (rest - monomial[0].dim) * below, below * divisor)
    return quotient + _atom("//", (rest, divisor))


def mod(a: Size, b: Size) -> Size:
    """a % b, with the sign of `b` as in Python. ShapeError if `b` is the number 0."""
    numerator, divisor = as_size(a), as_size(b)
    if (found := _REMAINDERS.get((numerator, divisor))) is None:
        found = _REMAINDERS[numerator, divisor] = _mod(numerator, divisor)
    return found


def _mod(numerator: Size, divisor: Size) -> Size:
    if isinstance(divisor, int) and divisor == 0:
        raise ShapeError(f"the size {numerator} is divided by zero")
    if _leading(divisor) < 0:
        return -mod(-numerator, -divisor)
    _, rest = _divide(numerator, divisor)
    if (small := _small_quotient(rest, divisor)) is not None:
        return rest - divisor * small
    inner, reduced, factor, left_over = _cancel(rest, divisor)
    if factor != 1:
        return factor * mod(inner, reduced) + left_over
    if isinstance(rest, Dim) and isinstance(divisor, int):  # (a % 8) % 4 = a % 4
        plain = _rewrite(
            rest,
            lambda atom: atom.operands[0] if atom.kind == "%" and mod(atom.operands[1], divisor) == 0 else atom.dim,
        )
        if plain is not rest:
            return mod(plain, divisor)
    return _atom("%", (rest, divisor))


def ceil_div(a: Size, b: Size) -> Size:
    """a/b, rounded up. ShapeError if `b` is the number 0."""
    numerator, divisor = as_size(a), as_size(b)
    if _is_positive(divisor):
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
    return kept[0] if len(kept) == 1 else _atom(kind, tuple(kept))


def _operand_rank(size: Size) -> tuple[bool, list[tuple[int, list[tuple[int, str, tuple[int, ...]]], int]], int]:
    terms, constant = _parts(size)
    return not terms, [(*_rank(term), term[1]) for term in terms], constant


# Bounds


def bounds(size: Size) -> Bounds:
    """The least and the greatest value of `size`, or a range around them; None where no bound is found."""
    if not isinstance(size, Dim):
        return size, size
    if size.cached_bounds is None:
        size.cached_bounds = _bounds(size, 3)
    return size.cached_bounds


def _bounds(size: Size, effort: int) -> Bounds:
    if not isinstance(size, Dim):
        return size, size
    low, high = _interval(size)
    if effort and len(size.terms) > 1 and not _is_linear(size):
        below, above = _relaxed(size, effort), _relaxed(-size, effort)
        low = below if low is None or (below is not None and below > low) else low
        high = -above if above is not None and (high is None or -above < high) else high
    return low, high


def _is_linear(size: Dim) -> bool:
    return all(len(monomial) == 1 and monomial[0].kind == "symbol" for monomial, _ in size.terms)


def _interval(size: Dim) -> Bounds:
    low: int | None = size.constant
    high: int | None = size.constant
    for monomial, coefficient in size.terms:
        least, most = monomial[0].limits
        for atom in monomial[1:]:
            least, most = _interval_product((least, most), atom.limits)
        if coefficient < 0:
            least, most = most, least
        low = None if low is None or least is None else low + coefficient * least
        high = None if high is None or most is None else high + coefficient * most
    return low, high


def _interval_product(left: Bounds, right: Bounds) -> Bounds:
    (a, b), (c, d) = left, right
    if a is not None and c is not None and a >= 0 and c >= 0:
        return a * c, None if b is None or d is None else b * d
    if a is None or b is None or c is None or d is None:
        return None, None
    products = a * c, a * d, b * c, b * d
    return min(products), max(products)


def _relaxed(size: Size, effort: int) -> int | None:
    """A lower bound that takes into account how atoms depend on each other: S - S//2, S*T - S, S - min(S, T)."""
    assert isinstance(size, Dim)
    terms, constant = _parts(_rewrite(size, lambda atom: atom.dim + atom.limits[0] if atom.limits[0] else atom.dim))
    if all(factor >= 0 and all(atom.limits[0] is not None for atom in monomial) for monomial, factor in terms):
        return constant
    for monomial, factor in size.terms:
        atom = monomial[0]
        if len(monomial) > 1 or atom.kind == "symbol":
            continue
        rest = size - factor * atom.dim
        if atom.kind == "%":
            return _bounds(rest + factor * _remainder_as_quotient(atom), effort - 1)[0]
        if atom.kind == "//":
            above, below = atom.operands
            if isinstance(below, Dim):
                continue
            over = rest * below + factor * (above if factor < 0 else above - (below - 1))
            low = _bounds(over, effort - 1)[0]
            return None if low is None else -(-low // below)
        lows = [_bounds(rest + factor * each, effort - 1)[0] for each in atom.operands]
        known = [low for low in lows if low is not None]
        if (factor > 0) == (atom.kind == "max"):
            return max(known, default=None)
        return min(known) if len(known) == len(lows) else None
    return None


def _atom_bounds(kind: AtomKind, operands: tuple[Size, ...]) -> Bounds:
    limits = [bounds(each) for each in operands]
    if kind in ("min", "max"):
        lows = [low for low, _ in limits if low is not None]
        highs = [high for _, high in limits if high is not None]
        if kind == "min":
            return min(lows) if len(lows) == len(limits) else None, min(highs, default=None)
        return max(lows, default=None), max(highs) if len(highs) == len(limits) else None
    (low, high), (least, most) = limits
    if least is None or least < 1:  # a divisor of unknown sign
        largest = None if kind == "%" or low is None or high is None else max(abs(low), abs(high))
        return None if largest is None else -largest, largest
    if kind == "%":
        own = high if low is not None and low >= 0 else None
        return 0, min([each for each in (own, None if most is None else most - 1) if each is not None], default=None)
    lower = None if low is None else low // least if low < 0 else 0 if most is None else low // most
    upper = None if high is None else high // least if high >= 0 else -1 if most is None else high // most
    return lower, upper


def _rewrite(size: Size, replace: Callable[[Atom], Size]) -> Size:
    """`size` with each of its outermost atoms replaced; the same object if all stay."""
    if not isinstance(size, Dim):
        return size
    replaced = {atom: replace(atom) for monomial, _ in size.terms for atom in monomial}
    if all(new is atom.dim for atom, new in replaced.items()):
        return size
    parts: list[Size] = [product([factor, *(replaced[atom] for atom in monomial)]) for monomial, factor in size.terms]
    return sum_of([*parts, size.constant])


def _remainder_as_quotient(atom: Atom) -> Size:
    above, below = atom.operands
    return above - below * floor_div(above, below)


# Decisions


def equal(a: Size, b: Size) -> bool | None:
    """Whether the sizes are equal: True or False if so for all values of the symbols, None if not known."""
    if a is b:
        return True
    difference = _subtract(as_size(a), as_size(b))
    if not isinstance(difference, Dim):
        return difference == 0
    if difference.cached_zero == "new":
        difference.cached_zero = _is_zero(difference)
    return difference.cached_zero


def _is_zero(dim: Dim) -> bool | None:
    for form in (dim, _in_quotients(dim)):
        if not isinstance(form, Dim):
            return form == 0
        low, high = bounds(form)
        if (low is not None and low > 0) or (high is not None and high < 0):
            return False
        if form.constant % gcd(*[coefficient for _, coefficient in form.terms]):
            return False
    return None


def _in_quotients(size: Size) -> Size:
    """`size` without outermost remainders, and with one of two quotients whose sum has none: S//2 + (S + 1)//2 = S."""

    def replace(atom: Atom) -> Size:
        above, below = atom.operands if len(atom.operands) == 2 else (0, 0)
        if atom.kind == "//" and isinstance(below, int):
            mirrored = mod_terms(-above - 1, below)  # a//b = -1 - (-a - 1)//b
            return -1 - floor_div(-above - 1, below) if mirrored < mod_terms(above, below) else atom.dim
        return atom.dim

    def mod_terms(above: Size, below: int) -> list[int]:
        terms, constant = _parts(above)
        return [*(coefficient % below for _, coefficient in terms), constant % below]

    plain = _rewrite(size, lambda atom: _remainder_as_quotient(atom) if atom.kind == "%" else atom.dim)
    return _rewrite(plain, replace)


def less_equal(a: Size, b: Size) -> bool | None:
    """Whether a <= b: True or False if so for all values of the symbols, None if not known."""
    low, high = bounds(_subtract(as_size(b), as_size(a)))
    return True if low is not None and low >= 0 else False if high is not None and high < 0 else None


def less(a: Size, b: Size) -> bool | None:
    """Whether a < b: True or False if so for all values of the symbols, None if not known."""
    low, high = bounds(_subtract(as_size(b), as_size(a)))
    return True if low is not None and low > 0 else False if high is not None and high <= 0 else None


def divides(a: Size, b: Size) -> bool | None:
    """Whether `b` is a multiple of `a`; None if not known. Only 0 is a multiple of the number 0."""
    return equal(b, 0) if a == 0 else equal(mod(b, a), 0)


def exact_div(a: Size, b: Size) -> Size | None:
    """The size q with a = q*b, if polynomial division finds one. ShapeError if `b` is the number 0."""
    numerator, divisor = as_size(a), as_size(b)
    if not isinstance(divisor, Dim) and divisor == 0:
        raise ShapeError(f"the size {numerator} is divided by zero")
    if _leading(divisor) < 0:
        numerator, divisor = -numerator, -divisor
    quotient, rest = _divide(numerator, divisor)
    return quotient if rest == 0 else None


# Symbols and their values


def symbols(size: Size) -> tuple[Dim, ...]:
    """The symbols in `size`, by name."""
    if not isinstance(size, Dim):
        return ()
    if size.cached_symbols is None:
        atoms = dict.fromkeys(atom for monomial, _ in size.terms for atom in monomial)
        own = [atom.dim for atom in atoms if atom.kind == "symbol"]
        inner = [each for atom in atoms for each in _union_of_symbols(atom.operands)]
        size.cached_symbols = tuple(sorted(dict.fromkeys(own + inner), key=_symbol_rank))
    return size.cached_symbols


def _union_of_symbols(sizes: Iterable[Size]) -> tuple[Dim, ...]:
    return tuple(sorted({each for size in sizes for each in symbols(size)}, key=_symbol_rank))


def _symbol_rank(dim: Dim) -> tuple[str, int]:
    return dim.name, dim.minimum


def _symbol_name(atom: Atom) -> str:
    return atom.name


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

    return _rewrite(size, replace)


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
    terms, constant = _parts(pattern)
    formal = unbound[0].atom
    linear = {
        tuple(a for a in monomial if a is not formal): factor
        for monomial, factor in terms
        if monomial.count(formal) == 1
    }
    rest = {monomial: factor for monomial, factor in terms if formal not in monomial}
    slope = _polynomial({m: factor for m, factor in linear.items() if m}, linear.get((), 0))
    offset = _polynomial(rest, constant)
    if len(unbound) > 1 or len(linear) + len(rest) < len(terms) or {*symbols(slope), *symbols(offset)} & {*unbound}:
        return None
    slope, target = substitute(slope, bindings), actual - substitute(offset, bindings)
    if equal(slope, 0) is not False:
        return None
    value = exact_div(target, slope)
    return value if value is not None or divides(slope, target) is not False else False


# Text and folds


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
    return _render(size, lambda atom: names.get(atom.name, atom.name))


def _render(size: Size, spell: Callable[[Atom], str]) -> tuple[str, int]:
    if not isinstance(size, Dim):
        return str(size), int(size < 0)
    text, count, precedence = "", 0, 0
    for monomial, coefficient in _in_text_order(size):
        factors = [
            (spell(atom), 0) if atom.kind == "symbol" else _render_operation(atom.kind, atom.operands, spell)
            for atom in monomial
        ]
        bare = len(factors) == 1 and abs(coefficient) == 1 and not (coefficient < 0 and not text)
        spelled = [factor if precedence == 0 or bare else f"({factor})" for factor, precedence in factors]
        joined = "*".join([str(abs(coefficient)), *spelled] if abs(coefficient) != 1 or not spelled else spelled)
        sign = ("-" if coefficient < 0 else "") if not text else " - " if coefficient < 0 else " + "
        text, count = text + sign + joined, count + 1
        precedence = factors[0][1] if bare else int(len(spelled) + (abs(coefficient) != 1) > 1 or coefficient < 0)
    return text, 2 if count > 1 else precedence


def _render_operation(kind: AtomKind, operands: tuple[Size, ...], spell: Callable[[Atom], str]) -> tuple[str, int]:
    texts = [_render(each, spell) for each in operands]
    if kind in ("min", "max"):
        return f"{kind}({', '.join(text for text, _ in texts)})", 0
    above = operands[0]
    is_product = isinstance(above, Dim) and len(above.terms) == 1 and not above.constant and above.atom is None
    (left, left_class), (right, right_class) = texts
    left = left if left_class == 0 or is_product else f"({left})"
    right = right if right_class == 0 else f"({right})"
    return f"{left}//{right}" if kind == "//" else f"{left} % {right}", 1


_TOKEN = re.compile(r"\s*(?:(\d+)|([^\W\d]\w*)|(//|[-+*%(),])|(\S)|$)")


def parse_size(text: str, minimums: Mapping[str, int] = DEFAULT_MINIMUMS) -> Size:
    """The size that `text` spells, as `str` does or otherwise; a symbol's minimum is 1 if `minimums` does not have it.

    ValueError, with the column, if the text is not a size.
    """
    return _Parser(text, minimums).parse()


class _Parser:
    """Recursive descent with Python's precedences."""

    def __init__(self, text: str, minimums: Mapping[str, int]):
        if len(text) > 16 * MAXIMAL_WEIGHT:
            raise ValueError(f"column {16 * MAXIMAL_WEIGHT + 1}: the size is too long")
        self.text, self.minimums, self.depth = text, minimums, 0
        self.end = 0
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.end)
        assert match is not None
        self.match, self.token, self.end = match, match[match.lastindex] if match.lastindex else "", match.end()

    def error(self, wanted: str) -> ValueError:
        column = (self.match.start(self.match.lastindex) if self.match.lastindex else len(self.text)) + 1
        found = repr(self.token) if self.token else "the end"
        return ValueError(f"column {column}: expected {wanted}, found {found} in the size {self.text!r}")

    def take(self, token: str) -> None:
        if self.token != token:
            raise self.error(repr(token))
        self.advance()

    def parse(self) -> Size:
        try:
            size = self.sum()
        except ShapeError as error:
            raise self.error(f"a size ({error})") from error
        if self.token:
            raise self.error("an operator or the end")
        return size

    def sum(self) -> Size:
        total = self.product()
        while (sign := self.token) in ("+", "-"):
            self.advance()
            other = self.product()
            total = total + other if sign == "+" else total - other
        return total

    def product(self) -> Size:
        result = self.factor()
        while (sign := self.token) in ("*", "//", "%"):
            self.advance()
            other = self.factor()
            result = result * other if sign == "*" else floor_div(result, other) if sign == "//" else mod(result, other)
        return result

    def factor(self) -> Size:
        negative = False
        while self.token == "-":
            negative = not negative
            self.advance()
        number, name, _, _ = self.match.groups()
        if number is not None and len(number) <= 40:
            result: Size = int(number)
            self.advance()
        elif name in ("min", "max"):
            self.advance()
            result = (minimum if name == "min" else maximum)(*self.group())
        elif name is not None:
            result = symbol(name, self.minimums.get(name, 1))
            self.advance()
        elif self.token == "(":
            (result,) = self.group(1)
        else:
            raise self.error("a number, a symbol or '('")
        return -result if negative else result

    def group(self, count: int | None = None) -> list[Size]:
        self.depth += 1
        if self.depth > 2 * MAXIMAL_DEPTH:
            raise self.error("less nesting")
        self.take("(")
        sizes = [self.sum()]
        while self.token == "," and count is None:
            self.advance()
            sizes.append(self.sum())
        self.take(")")
        self.depth -= 1
        return sizes


# Guards


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


def parse_guard(text: str, minimums: Mapping[str, int] = DEFAULT_MINIMUMS) -> Guard:
    """The guard that `text` spells. ValueError if it spells none."""
    left, kind, right = (re.split(r"(==|<=|\bdivides\b)", text, maxsplit=1) + ["", ""])[:3]
    if kind not in ("==", "<=", "divides"):
        raise ValueError(f"expected '==', '<=' or 'divides' between two sizes in the guard {text!r}")
    return Guard(kind, parse_size(left.strip(), minimums), parse_size(right.strip(), minimums))
