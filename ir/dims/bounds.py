"""Least and greatest values of sizes, and the comparisons they decide."""

from __future__ import annotations

from graphc.ir.dims.expression import Atom, AtomKind, Bounds, Dim, Size, as_size, parts, rewrite, subtract


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
    terms, constant = parts(rewrite(size, lambda atom: atom.dim + atom.limits[0] if atom.limits[0] else atom.dim))
    if all(factor >= 0 and all(atom.limits[0] is not None for atom in monomial) for monomial, factor in terms):
        return constant
    for monomial, factor in size.terms:
        atom = monomial[0]
        if len(monomial) > 1 or atom.kind == "symbol":
            continue
        rest = size - factor * atom.dim
        if atom.kind == "%":
            return _bounds(rest + factor * remainder_as_quotient(atom), effort - 1)[0]
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


def operation_bounds(kind: AtomKind, operands: tuple[Size, ...]) -> Bounds:
    """Bounds of `//`, `%`, `min` or `max` of sizes."""
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


def remainder_as_quotient(atom: Atom) -> Size:
    """`a % b` written as `a - b*(a//b)`."""
    above, below = atom.operands
    return above - below * (above // below)


def less_equal(a: Size, b: Size) -> bool | None:
    """Whether a <= b: True or False if so for all values of the symbols, None if not known."""
    low, high = bounds(subtract(as_size(b), as_size(a)))
    return True if low is not None and low >= 0 else False if high is not None and high < 0 else None


def less(a: Size, b: Size) -> bool | None:
    """Whether a < b: True or False if so for all values of the symbols, None if not known."""
    low, high = bounds(subtract(as_size(b), as_size(a)))
    return True if low is not None and low > 0 else False if high is not None and high <= 0 else None


def is_positive(size: Size) -> bool:
    """Whether `size` is known to be 1 or more."""
    low = bounds(size)[0]
    return low is not None and low >= 1
