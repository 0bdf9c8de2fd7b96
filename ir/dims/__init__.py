"""Sizes of tensors: integers, or canonical integer expressions over named symbols.

A `Size` is an `int` or a `Dim`. A `Dim` is never constant: it is a sum of products of atoms with integer coefficients,
where an atom is a symbol, a floor division, a remainder, a minimum or a maximum. Every form is one object, so identical
sizes are the same object (`is`) and hash by identity. Two sizes that are not identical are compared by `equal`, `less`
and `less_equal`, which answer yes, no, or None for "not known": a caller then leaves a `Guard`, which is checked when
the symbols have values.

Start at `expression.py` (what a dim is); `operations.py` has the canonical division, `bounds.py` and `decisions.py`
the comparisons, `guards.py` what happens when symbols get values, `text.py` and `parsing.py` the text.
"""

from graphc.ir.dims.bounds import bounds, less, less_equal
from graphc.ir.dims.decisions import divides, equal, exact_div
from graphc.ir.dims.expression import Dim, Size, as_size, product, sum_of, symbol, symbols
from graphc.ir.dims.guards import Facts, Guard, evaluate, solve, substitute
from graphc.ir.dims.operations import ceil_div, floor_div, maximum, minimum, mod
from graphc.ir.dims.parsing import SizeSyntaxError, parse_guard, parse_size
from graphc.ir.dims.text import Algebra, lower_with, python

__all__ = [
    "Algebra", "Dim", "Guard", "Size", "SizeSyntaxError",
    "as_size", "symbol", "symbols", "sum_of", "product",
    "floor_div", "mod", "ceil_div", "minimum", "maximum",
    "bounds", "less", "less_equal", "equal", "divides", "exact_div",
    "evaluate", "solve", "substitute", "Facts",
    "lower_with", "parse_guard", "parse_size", "python",
]  # fmt: skip
