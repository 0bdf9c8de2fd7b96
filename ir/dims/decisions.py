"""Whether sizes are equal or divide each other: yes, no, or not known."""

from __future__ import annotations

from math import gcd

from graphc.ir.dims.bounds import bounds, remainder_as_quotient
from graphc.ir.dims.expression import Atom, Dim, Size, as_size, parts, rewrite, subtract
from graphc.ir.dims.operations import divide, floor_div, leading, mod
from graphc.ir.errors import ShapeError


def equal(a: Size, b: Size) -> bool | None:
    """Whether the sizes are equal: True or False if so for all values of the symbols, None if not known."""
    if a is b:
        return True
    difference = subtract(as_size(a), as_size(b))
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
        terms, constant = parts(above)
        return [*(coefficient % below for _, coefficient in terms), constant % below]

    plain = rewrite(size, lambda atom: remainder_as_quotient(atom) if atom.kind == "%" else atom.dim)
    return rewrite(plain, replace)


def divides(a: Size, b: Size) -> bool | None:
    """Whether `b` is a multiple of `a`; None if not known. Only 0 is a multiple of the number 0."""
    return equal(b, 0) if a == 0 else equal(mod(b, a), 0)


def exact_div(a: Size, b: Size) -> Size | None:
    """The size q with a = q*b, if polynomial division finds one. ShapeError if `b` is the number 0."""
    numerator, divisor = as_size(a), as_size(b)
    if not isinstance(divisor, Dim) and divisor == 0:
        raise ShapeError(f"the size {numerator} is divided by zero")
    if leading(divisor) < 0:
        numerator, divisor = -numerator, -divisor
    quotient, rest = divide(numerator, divisor)
    return quotient if rest == 0 else None
