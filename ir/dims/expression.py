"""Sums of products over symbols: atoms, interned dims and their arithmetic.

Every form is one object, so identical sizes are the same object (`is`) and hash by identity.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, SupportsIndex, TypeAlias, cast

from graphc.ir.errors import ShapeError

Bounds: TypeAlias = tuple[int | None, int | None]
AtomKind: TypeAlias = Literal["symbol", "//", "%", "min", "max"]
MAXIMAL_WEIGHT = 1024
"""Atoms in an expression written out; shape arithmetic in a hostile file could double it at every node."""
RESERVED = frozenset({"min", "max", "divides", "true", "false", "none", "inf", "nan"})
"""Words of the text that no symbol can be called."""


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

    def __post_init__(self) -> None:
        self.dim = cast(Dim, intern((((self,), 1),), 0))


Monomial: TypeAlias = tuple[Atom, ...]  # sorted by key, repeated for powers
Term: TypeAlias = tuple[Monomial, int]


@dataclass(slots=True, eq=False, repr=False)
class Dim:
    """A size that depends on symbols. Made by `symbol` and arithmetic, never by calling the class.

    Division, comparison and text stand in modules that build on this one: the methods for them import late.
    """

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
        return NotImplemented if (number := as_integer(other)) is None else self + number

    def __mul__(self, other: Size) -> Size:
        if (kind := type(other)) is int or kind is Dim:
            return found if (found := _PRODUCTS.get((self, other))) is not None else _multiply(self, other)
        return NotImplemented if (number := as_integer(other)) is None else self * number

    __radd__ = __add__
    __rmul__ = __mul__

    def __sub__(self, other: Size) -> Size:
        if (kind := type(other)) is int or kind is Dim:
            return subtract(self, other)
        return NotImplemented if (number := as_integer(other)) is None else self + -number

    def __rsub__(self, other: Size) -> Size:
        return NotImplemented if (number := as_integer(other)) is None else subtract(number, self)

    def __neg__(self) -> Size:
        return self * -1

    def __pos__(self) -> Dim:
        return self

    def __floordiv__(self, other: Size) -> Size:
        if (kind := type(other)) is int or kind is Dim:
            if (found := QUOTIENTS.get((self, other))) is not None:
                return found
            from graphc.ir.dims.operations import floor_div

            return floor_div(self, other)
        return NotImplemented if (number := as_integer(other)) is None else self // number

    def __mod__(self, other: Size) -> Size:
        if (kind := type(other)) is int or kind is Dim:
            if (found := REMAINDERS.get((self, other))) is not None:
                return found
            from graphc.ir.dims.operations import mod

            return mod(self, other)
        return NotImplemented if (number := as_integer(other)) is None else self % number

    def __rfloordiv__(self, other: Size) -> Size:
        from graphc.ir.dims.operations import floor_div

        return NotImplemented if (number := as_integer(other)) is None else floor_div(number, self)

    def __rmod__(self, other: Size) -> Size:
        from graphc.ir.dims.operations import mod

        return NotImplemented if (number := as_integer(other)) is None else mod(number, self)

    def __pow__(self, exponent: int) -> Size:
        if (count := as_integer(exponent)) is None or count < 0:
            raise ShapeError(f"the power of {self} must be an integer that is not negative, not {exponent!r}")
        result: Size = 1
        for _ in range(count):  # the weight limit ends absurd powers
            result = self * result
        return result

    def __lt__(self, other: Size) -> bool:
        from graphc.ir.dims.bounds import less

        return _decided(less(self, other), self, "<", other)

    def __le__(self, other: Size) -> bool:
        from graphc.ir.dims.bounds import less_equal

        return _decided(less_equal(self, other), self, "<=", other)

    def __gt__(self, other: Size) -> bool:
        from graphc.ir.dims.bounds import less

        return _decided(less(other, self), self, ">", other)

    def __ge__(self, other: Size) -> bool:
        from graphc.ir.dims.bounds import less_equal

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
            from graphc.ir.dims.text import rendered, symbol_name

            self.cached_text = rendered(self, symbol_name)[0]
        return self.cached_text

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[..., Size], tuple[str, dict[str, int]]]:
        from graphc.ir.dims.parsing import parse_size

        return parse_size, (str(self), {each.name: each.minimum for each in symbols(self)})


Size: TypeAlias = int | Dim

_DIMS: dict[tuple[int, tuple[Term, ...]], Dim] = {}
_SUMS: dict[tuple[Size, Size], Size] = {}  # keys hold exact ints and dims only: True and 1.0 would hit 1's entry
_PRODUCTS: dict[tuple[Size, Size], Size] = {}
_DIFFERENCES: dict[tuple[Size, Size], Size] = {}
QUOTIENTS: dict[tuple[Size, Size], Size] = {}  # filled by `operations`, and read here first
REMAINDERS: dict[tuple[Size, Size], Size] = {}
_SYMBOLS: dict[tuple[str, int], Atom] = {}


def as_size(value: SupportsIndex | Dim) -> Size:
    """`value` as a size: a dim itself, any integer (numpy's too) as an `int`. TypeError for anything else."""
    if isinstance(value, Dim):
        return value
    if (number := as_integer(value)) is None:
        raise TypeError(f"a size is an integer or a Dim, not {value!r} of type {type(value).__name__}")
    return number


def as_integer(value: object) -> int | None:
    """`value` as an int, None if it is no integer."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array has `__index__`, but not every array is an integer
        return None


def _decided(answer: bool | None, left: Size, sign: str, right: Size) -> bool:
    if answer is None:
        raise ShapeError(f"whether {left} {sign} {right} holds is not known: it depends on the values of the symbols")
    return answer


def symbol(name: str, minimum: int = 1) -> Dim:
    """The size called `name`, at least `minimum`. The same name with another minimum is another symbol."""
    if (found := _SYMBOLS.get((name, minimum))) is not None:
        return found.dim
    if not name.isidentifier() or name in RESERVED:
        raise ShapeError(
            f"a symbol's name must be a Python identifier other than {', '.join(sorted(RESERVED))}, not {name!r}"
        )
    if minimum < 0:
        raise ShapeError(f"the minimum of symbol {name} is 0 or more, not {minimum}")
    minimum = int(minimum)
    atom = Atom("symbol", name, minimum, (), 1, 1, (minimum, None), (False, name, (minimum,)))
    return _SYMBOLS.setdefault((name, minimum), atom).dim


def intern(terms: tuple[Term, ...], constant: int) -> Size:
    """The one object of these terms, which are sorted and have no zero coefficients, and constant."""
    if not terms:
        return constant
    if (found := _DIMS.get((constant, terms))) is not None:
        return found
    weight = sum([atom.weight for monomial, _ in terms for atom in monomial])
    if weight > MAXIMAL_WEIGHT:
        raise ShapeError(f"a size has grown past {MAXIMAL_WEIGHT} atoms")
    return _DIMS.setdefault((constant, terms), Dim(constant, terms, weight))


_KEY_OF_ATOM = operator.attrgetter("key")


def rank(term: Term) -> tuple[int, list[tuple[int, str, tuple[int, ...]]]]:
    """Orders terms by falling degree, then by atoms."""
    return -len(term[0]), [atom.key for atom in term[0]]


def polynomial(coefficients: Mapping[Monomial, int], constant: int) -> Size:
    """The sum of these products and a constant."""
    terms = [term for term in coefficients.items() if term[1]]
    if len(terms) > 1:
        terms.sort(key=rank)
    return intern(tuple(terms), constant)


def parts(size: Size) -> tuple[tuple[Term, ...], int]:
    """The terms and the constant of a size."""
    return (size.terms, size.constant) if isinstance(size, Dim) else ((), size)


def combine(left: Size, factor: int, right: Size) -> Size:
    """left + factor*right"""
    left_terms, left_constant = parts(left)
    right_terms, right_constant = parts(right)
    if not right_terms:
        return intern(left_terms, left_constant + factor * right_constant)
    coefficients = dict(left_terms)
    for monomial, coefficient in right_terms:
        coefficients[monomial] = coefficients.get(monomial, 0) + factor * coefficient
    return polynomial(coefficients, left_constant + factor * right_constant)


def _add(left: Size, right: Size) -> Size:
    result = _SUMS[left, right] = combine(left, 1, right)
    return result


def subtract(left: Size, right: Size) -> Size:
    """left - right, where both may be integers."""
    if (found := _DIFFERENCES.get((left, right))) is not None:
        return found
    result = _DIFFERENCES[left, right] = combine(left, -1, right)
    return result


def _multiply(left: Dim, right: Size) -> Size:
    if isinstance(right, int):
        terms = tuple([(monomial, coefficient * right) for monomial, coefficient in left.terms]) if right else ()
        result = intern(terms, left.constant * right)
    else:
        if len(left.terms) * len(right.terms) > 16 * MAXIMAL_WEIGHT:
            raise ShapeError(f"a size has grown past {MAXIMAL_WEIGHT} atoms")
        coefficients: dict[Monomial, int] = {}
        for one, factor in (*left.terms, ((), left.constant)):
            for other, coefficient in (*right.terms, ((), right.constant)):
                monomial = tuple(sorted(one + other, key=_KEY_OF_ATOM)) if one and other else one or other
                coefficients[monomial] = coefficients.get(monomial, 0) + factor * coefficient
        constant = coefficients.pop((), 0)
        result = polynomial(coefficients, constant)
    _PRODUCTS[left, right] = result
    return result


def sum_of(sizes: Iterable[Size]) -> Size:
    """The sum of `sizes`, 0 for none; linear in their terms."""
    coefficients: dict[Monomial, int] = {}
    total = 0
    for size in sizes:
        terms, constant = parts(as_size(size))
        total += constant
        for monomial, coefficient in terms:
            coefficients[monomial] = coefficients.get(monomial, 0) + coefficient
    return polynomial(coefficients, total)


def product(sizes: Iterable[Size]) -> Size:
    """The product of `sizes`, 1 for none: the number of elements of a shape."""
    result: Size = 1
    for size in sizes:
        result = as_size(size) * result
    return result


def symbols(size: Size) -> tuple[Dim, ...]:
    """The symbols in `size`, by name."""
    if not isinstance(size, Dim):
        return ()
    if size.cached_symbols is None:
        atoms = dict.fromkeys(atom for monomial, _ in size.terms for atom in monomial)
        own = [atom.dim for atom in atoms if atom.kind == "symbol"]
        inner = [each for atom in atoms for each in symbols_of(atom.operands)]
        size.cached_symbols = tuple(sorted(dict.fromkeys(own + inner), key=_symbol_rank))
    return size.cached_symbols


def symbols_of(sizes: Iterable[Size]) -> tuple[Dim, ...]:
    """The symbols in all of `sizes`, by name."""
    return tuple(sorted({each for size in sizes for each in symbols(size)}, key=_symbol_rank))


def _symbol_rank(dim: Dim) -> tuple[str, int]:
    return dim.name, dim.minimum


def rewrite(size: Size, replace: Callable[[Atom], Size]) -> Size:
    """`size` with each of its outermost atoms replaced; the same object if all stay."""
    if not isinstance(size, Dim):
        return size
    replaced = {atom: replace(atom) for monomial, _ in size.terms for atom in monomial}
    if all(new is atom.dim for atom, new in replaced.items()):
        return size
    parts: list[Size] = [product([factor, *(replaced[atom] for atom in monomial)]) for monomial, factor in size.terms]
    return sum_of([*parts, size.constant])
