"""Sizes: one object for one canonical form, and no form or decision that contradicts plain integer arithmetic."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphc.ir import dims
from graphc.ir.dims import (
    Dim,
    Guard,
    Size,
    bounds,
    ceil_div,
    equal,
    evaluate,
    exact_div,
    floor_div,
    less,
    less_equal,
    maximum,
    minimum,
    mod,
    parse_guard,
    parse_size,
    solve,
    substitute,
    symbol,
    symbols,
)
from graphc.ir.errors import ShapeError

B, S, T, Z = symbol("B"), symbol("S"), symbol("T"), symbol("Z", 0)
MINIMUMS = {"Z": 0}

# Source expressions are trees ("//", left, right), so that the same tree is computed on sizes and on plain integers.
LEAVES = st.one_of(st.sampled_from([B, S, T, Z]), st.integers(-6, 12))
BINARY = ["+", "-", "*", "//", "%", "min", "max"]
ON_INTEGERS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "min": min,
    "max": max,
}
ON_SIZES = ON_INTEGERS | {"//": floor_div, "%": mod, "min": minimum, "max": maximum}
TREES = st.recursive(LEAVES, lambda inner: st.tuples(st.sampled_from(BINARY), inner, inner), max_leaves=8)
VALUES = st.fixed_dictionaries(
    {
        name: st.one_of(st.integers(low, 12), st.integers(low, 10**6))
        for name, low in [("B", 1), ("S", 1), ("T", 1), ("Z", 0)]
    }
)


def build(tree: Any) -> Size:
    if not isinstance(tree, tuple):
        return tree
    operation, left, right = tree
    return ON_SIZES[operation](build(left), build(right))


def compute(tree: Any, values: dict[str, int]) -> int:
    if isinstance(tree, tuple):
        operation, left, right = tree
        return ON_INTEGERS[operation](compute(left, values), compute(right, values))
    return values[tree.name] if isinstance(tree, Dim) else tree


@st.composite
def expressions(draw: st.DrawFn) -> Size:
    try:
        return build(draw(TREES))
    except ShapeError:  # a literal zero below a division
        assume(False)
        raise


POLYNOMIALS = st.recursive(LEAVES, lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner), max_leaves=6).map(
    build
)


def value_of(size: Size, values: dict[str, int]) -> int:
    """The value; an example that divides by zero is skipped."""
    try:
        return evaluate(size, values)
    except ShapeError:
        assume(False)
        raise


# Soundness


@given(TREES, st.lists(VALUES, min_size=3, max_size=3))
@settings(max_examples=500)
def test_canonical_form_has_the_value_of_the_source(tree: Any, many: list[dict[str, int]]):
    try:
        size = build(tree)
    except ShapeError:
        assume(False)
        raise
    for values in many:
        try:
            expected = compute(tree, values)
        except ZeroDivisionError:
            continue
        assert evaluate(size, values) == expected
        assert type(size) is Dim or size == expected


@given(expressions(), VALUES)
@settings(max_examples=300)
def test_bounds_contain_the_value(size: Size, values: dict[str, int]):
    low, high = bounds(size)
    value = value_of(size, values)
    assert low is None or low <= value
    assert high is None or value <= high


@given(expressions(), expressions(), VALUES)
@settings(max_examples=300)
def test_decisions_never_contradict_the_values(a: Size, b: Size, values: dict[str, int]):
    left, right = value_of(a, values), value_of(b, values)
    assert equal(a, b) in (left == right, None)
    assert less(a, b) in (left < right, None)
    assert less_equal(a, b) in (left <= right, None)
    if left:
        assert dims.divides(a, b) in (right % left == 0, None)
    assert minimum(a, b) == minimum(b, a) and evaluate(minimum(a, b), values) == min(left, right)
    assert maximum(a, b) == maximum(b, a) and evaluate(maximum(a, b), values) == max(left, right)
    if right:
        assert evaluate(ceil_div(a, b), values) == -(-left // right)


@given(expressions(), st.dictionaries(st.sampled_from([B, S, T, Z]), LEAVES), VALUES)
@settings(max_examples=200)
def test_substitution_commutes_with_evaluation(size: Size, mapping: dict[Dim, Size], values: dict[str, int]):
    try:
        substituted = substitute(size, mapping)
    except ShapeError:
        assume(False)
        raise
    inner = values | {key.name: evaluate(new, values) for key, new in mapping.items()}
    assume(all(inner[key.name] >= key.minimum for key in mapping))
    assert value_of(substituted, values) == value_of(size, inner)
    assert substitute(size, {}) is size


# One form, one object


@given(POLYNOMIALS, POLYNOMIALS, POLYNOMIALS)
@settings(max_examples=200)
def test_ring_identities_give_one_object(a: Size, b: Size, c: Size):
    same = operator.eq  # of dims: identity
    assert same(a + b, b + a) and same(a * b, b * a)
    assert same((a + b) + c, a + (b + c)) and same((a * b) * c, a * (b * c))
    assert same(a * (b + c), a * b + a * c)
    assert same(a - b, a + -1 * b) and same(a - a, 0) and same(a + 0, a) and same(a * 1, a) and same(a * 0, 0)
    assert same(dims.sum_of([a, b, c]), a + b + c) and same(dims.product([a, b, c]), a * b * c)


@given(expressions(), expressions(), expressions())
@settings(max_examples=300)
def test_multiples_of_the_divisor_leave_divisions(k: Size, r: Size, b: Size):
    assume(b != 0)
    assert floor_div(k * b + r, b) == k + floor_div(r, b)
    assert mod(k * b + r, b) == mod(r, b)
    assert floor_div(-r, b) == floor_div(r, -b)
    assert exact_div(k * b, b) == k


@given(POLYNOMIALS, POLYNOMIALS, st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=200)
def test_factors_cancel_and_divisions_nest(a: Size, b: Size, c: int, d: int):
    assume(b != 0)
    assert floor_div(a * c, b * c) == floor_div(a, b)
    assert mod(a * c, b * c) == mod(a, b) * c
    assert floor_div(floor_div(a, c), d) == floor_div(a, c * d)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ((S - 1) // 2 + 1, (S + 1) // 2),
        ((4 * S) // 2, 2 * S),
        ((2 * S) // (2 * T), S // T),
        ((2 * S + 1) // (2 * T), S // T),
        ((B * S) // (B * T), S // T),
        ((B * S * T + S) // T, B * S + S // T),
        ((S * (T + 1) + T + 1) // (T + 1), S + 1),
        ((S // 2) // 3, S // 6),
        ((S // 2 + 1) // 2, (S + 2) // 4),
        ((S // T) // B, S // (T * B)),
        ((2 * S + 1) % 2, 1),
        ((S + 4 * T) % 4, S % 4),
        ((S % 8) % 4, S % 4),
        (S % 4 % 8, S % 4),
        ((S % 4) // 4, 0),
        (S % S, 0),
        (S // S, 1),
        ((S - 1) // S, 0),
        ((2 * S) % 4, 2 * (S % 2)),
        (ceil_div(S, 2), (S + 1) // 2),
        (ceil_div(4 * S, 4), S),
        (minimum(S, S + 1, 0), 0),
        (minimum(S, minimum(T, S)), minimum(T, S)),
        (maximum(S, S // 2), S),
        (maximum(Z, 0), Z),
        (S**3, S * S * S),
        (S**0, 1),
        (S - S, 0),
        (np.int64(3) * S, 3 * S),
        (S + np.int32(3), S + 3),
        (np.int64(7) - S, 7 - S),
        (np.int64(7) // S, 7 // S),
        (+S, S),
    ],
)
def test_examples_of_the_canonical_form(made: Size, expected: Size):
    assert made is expected
    assert type(made) in (int, Dim)


def test_symbols_are_interned_by_name_and_minimum():
    assert symbol("S") is S and symbol("S", 0) is not S
    assert (S.name, S.minimum, S.is_symbol) == ("S", 1, True)
    assert symbol("Z", 0).minimum == 0
    assert not (S + 1).is_symbol and not (2 * S).is_symbol and not (S // 2).is_symbol
    assert symbols((S + T) // B + minimum(S, Z)) == (B, S, T, Z)
    assert symbols(3) == ()
    both = S + symbol("S", 0)
    assert both is symbol("S", 0) + S and len(symbols(both)) == 2


def test_copies_are_the_object_itself():
    size = (S + 1) // 2 * Z
    assert copy.deepcopy(size) is size
    assert pickle.loads(pickle.dumps(size)) is size


# Decisions


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (equal(2 * S, 3), False),
        (equal(2 * S + 1, 2 * T), False),
        (equal(S, T), None),
        (equal(S, 0), False),
        (equal(Z, 0), None),
        (equal(4, 4), True),
        (equal(-(-S // 2), (S + 1) // 2), True),
        (equal(-(-S // 3), ceil_div(S, 3)), True),
        (equal(S // 4 * 4 + S % 4, S), True),
        (less(S, S + 1), True),
        (less_equal(1, S), True),
        (less_equal(S, T), None),
        (less_equal(S // 2, S), True),
        (less_equal(minimum(S, T), T), True),
        (less_equal(S, maximum(S, T)), True),
        (less_equal(S, S * T), True),
        (less_equal(S % 4, S), True),
        (less_equal(2 * ceil_div(S, 2), S + 1), True),
        (less(S, 1), False),
        (dims.divides(4, 4 * S), True),
        (dims.divides(4, 2 * S + 1), False),
        (dims.divides(4, S), None),
        (dims.divides(S, S * T), True),
        (dims.divides(0, S), False),
        (S >= 1, True),
        (S < S + T, True),
    ],
)
def test_examples_of_decisions(answer: bool | None, expected: bool | None):
    assert answer is expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (7, (7, 7)),
        (2 * S + 1, (3, None)),
        (3 - S, (None, 2)),
        (S % 4, (0, 3)),
        (minimum(S, 4), (1, 4)),
        (maximum(Z, 2), (2, None)),
        ((S + 1) // 2, (1, None)),
        (S * T - S, (0, None)),
        (S - S // 2, (1, None)),
        (S - T, (None, None)),
    ],
)
def test_examples_of_bounds(size: Size, expected: tuple[int | None, int | None]):
    assert bounds(size) == expected


@given(expressions(), expressions(), VALUES)
@settings(max_examples=200)
def test_exact_quotients_are_exact(a: Size, b: Size, values: dict[str, int]):
    assume(b != 0)
    if (quotient := exact_div(a, b)) is not None:
        assert value_of(a, values) == evaluate(quotient, values) * value_of(b, values)


def test_examples_of_exact_division():
    assert exact_div(B * S * 4, S * 2) is 2 * B
    assert exact_div(S * T + S, T + 1) is S
    assert exact_div(-S, -1) is S
    assert exact_div(S, 2) is None
    assert exact_div(12, 4) == 3
    with pytest.raises(ShapeError, match="divided by zero"):
        exact_div(S, 0)


# Solving


@given(expressions(), st.dictionaries(st.sampled_from([B, S, T, Z]), st.integers(1, 9)), VALUES)
@settings(max_examples=300)
def test_solving_is_sound(pattern: Size, bound: dict[Dim, int], values: dict[str, int]):
    """The actual size is the pattern's own value, so it can be matched, and what is bound must match it."""
    values = values | {each.name: value for each, value in bound.items()}
    actual = value_of(pattern, values)
    bindings: dict[Dim, Size] = dict(bound)
    answer = solve(pattern, actual, bindings)
    assert answer is not False
    if answer:
        assert evaluate(pattern, values | {each.name: evaluate(size, {}) for each, size in bindings.items()}) == actual
    assert solve(pattern, actual + 1, dict(bindings)) is not True or len(bindings) == len(bound)


def solved(pattern: Size, actual: Size, **bound: Size) -> tuple[bool | None, dict[str, Size]]:
    bindings = {symbol(name): size for name, size in bound.items()}
    answer = solve(pattern, actual, bindings)
    return answer, {each.name: size for each, size in bindings.items()}


def test_examples_of_solving():
    assert solved(S, 2 * T) == (True, {"S": 2 * T})
    assert solved(S, 4, S=4) == (True, {"S": 4})
    assert solved(S, 4, S=5) == (False, {"S": 5})
    assert solved(2 * S + 1, 7) == (True, {"S": 3})
    assert solved(2 * S + 1, 8) == (False, {})
    assert solved(2 * S + 1, 1) == (False, {})  # S would be 0
    assert solved(2 * S, 2 * T + 4) == (True, {"S": T + 2})
    assert solved(2 * S, T) == (None, {})
    assert solved(B * S, 3 * T * T, B=T) == (True, {"B": T, "S": 3 * T})
    assert solved(S, Z) == (None, {"S": Z})  # whether Z >= 1 is left to a guard
    assert solved(S * S, 9) == (None, {})
    assert solved(S + 4, 3) == (False, {})
    assert solved(S + T, 9) == (None, {})
    assert solved(3, 3) == (True, {})
    assert solved(3, S) == (None, {})
    assert solved(S + 1, S) == (None, {"S": S - 1})  # the formal S and the caller's S are not one
    assert solved(S + 1, S + 2) == (True, {"S": S + 1})
    assert solved(S + T, S + 1, T=S) == (True, {"T": S, "S": 1})


# Text


@given(expressions(), VALUES)
@settings(max_examples=300)
def test_text_round_trip(size: Size, values: dict[str, int]):
    assert parse_size(str(size), MINIMUMS) == size  # of dims: identity
    value = value_of(size, values)
    source, precedence = dims.python(size, {name: name.lower() for name in values})
    scope = {name.lower(): value for name, value in values.items()} | {"min": min, "max": max}
    assert eval(source, scope) == value
    assert precedence in (0, 1, 2)
    wrapped = source if precedence == 0 else f"({source})"
    assert eval(f"7*{wrapped}", scope) == 7 * value
    if precedence < 2:
        assert eval(f"7 - {source}", scope) == 7 - value


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (2 * S + 1, "2*S + 1"),
        (S * B, "B*S"),
        ((S + 1) // 2, "(S + 1)//2"),
        (S % 4, "S % 4"),
        (minimum(T, S, 4), "min(S, T, 4)"),
        (maximum(T, S), "max(S, T)"),
        (S**2, "S*S"),
        (S - 2, "S - 2"),
        (2 - S, "2 - S"),
        (T - S, "T - S"),
        (-S - T, "-S - T"),
        (-(S // 2), "-(S//2)"),
        (B * (S // 2), "B*(S//2)"),
        (B * S // 4, "B*S//4"),
        (S // (B * T), "S//(B*T)"),
        (S // (T + 1), "S//(T + 1)"),
        (2 * (S % 4), "2*(S % 4)"),
        ((S % 4) // T, "(S % 4)//T"),
    ],
)
def test_examples_of_text(size: Size, text: str):
    assert str(size) == repr(size) == text
    assert parse_size(text) is size


def test_text_accepts_any_spelling():
    assert parse_size(" -(-S//2) ") is -(-S // 2)
    assert parse_size("--3") == 3
    assert parse_size("S*2+ 1 -T") is 2 * S + 1 - T
    assert parse_size("12") == 12
    assert parse_size("Z", MINIMUMS) is Z


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"column 1: expected a number, a symbol or '\(', found the end"),
        ("2*+S", r"column 3: expected a number, a symbol or '\(', found '\+'"),
        ("S T", "column 3: expected an operator or the end, found 'T'"),
        ("(S", r"column 3: expected '\)', found the end"),
        ("min(S", r"column 6: expected '\)', found the end"),
        ("S / 2", "column 3: expected an operator or the end, found '/'"),
        ("S//0", "column 5: .*divided by zero"),
        ("(" * 5000, "column 97: expected less nesting"),
        ("1" * 50, "column 1: expected a number"),
        ("S+" * 20000, "too long"),
        ("*".join(["(S + T)"] * 2000), "grown past"),
        ("+".join(f"S//{n}" for n in range(2, 1200)), "column .*grown past"),
        ("é!", "column 2"),
    ],
)
def test_bad_text_is_named_by_column(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        parse_size(text)


@given(st.text(alphabet="ST2 0()+-*/%,min", max_size=20))
def test_arbitrary_text_is_a_size_or_a_value_error(text: str):
    try:
        assert type(parse_size(text)) in (int, Dim)
    except ValueError as error:
        assert "column" in str(error)


class Integers:
    """The algebra in which a fold computes the value."""

    def __init__(self, values: dict[str, int]):
        self.values = values

    def const(self, value: int) -> int:
        return value

    def symbol(self, symbol: Dim) -> int:
        return self.values[symbol.name]

    add, mul, floordiv, mod, min, max = (
        staticmethod(ON_INTEGERS[each]) for each in ["+", "*", "//", "%", "min", "max"]
    )


@given(expressions(), VALUES)
def test_fold_agrees_with_evaluation(size: Size, values: dict[str, int]):
    expected = value_of(size, values)
    assert dims.lower_with(size, Integers(values)) == expected


# Guards


@given(st.sampled_from(["==", "<=", "divides"]), expressions(), expressions(), VALUES)
def test_guards(kind: Any, left: Size, right: Size, values: dict[str, int]):
    guard = Guard(kind, left, right)
    assert parse_guard(str(guard), MINIMUMS) == guard
    a, b = value_of(left, values), value_of(right, values)
    expected = a == b if kind == "==" else a <= b if kind == "<=" else b % a == 0 if a else b == 0
    assert guard.check(values) is expected
    assert (kind == "divides" and left == 0) or guard.holds in (expected, None) or not a


def test_examples_of_guards():
    assert str(Guard("==", B, S)) == "B == S"
    assert str(Guard("<=", 1, S - 2)) == "1 <= S - 2"
    assert str(Guard("divides", 4, S)) == "4 divides S"
    assert Guard("divides", 4, S).check({"S": 8}) and not Guard("divides", 4, S).check({"S": 6})
    assert Guard("divides", 4, S).substitute({S: 4 * T}).holds is True
    assert len({Guard("==", B, S), Guard("==", B, S)}) == 1
    with pytest.raises(ValueError, match="expected '==', '<=' or 'divides' between two sizes in the guard 'B < 4'"):
        parse_guard("B < 4")
    with pytest.raises(ShapeError, match="the symbol S has no value; known are B"):
        Guard("==", B, S).check({"B": 1})


# Refusals


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bool(B), TypeError, "the size B is symbolic"),
        (lambda: int(B), TypeError, "the size B is symbolic"),
        (lambda: range(S + 1), TypeError, r"the size S \+ 1 is symbolic"),
        (lambda: B < 4, ShapeError, "whether B < 4 holds is not known"),
        (lambda: B > 4, ShapeError, "whether B > 4 holds is not known"),
        (lambda: S // 0, ShapeError, "the size S is divided by zero"),
        (lambda: S % 0, ShapeError, "the size S is divided by zero"),
        (lambda: floor_div(3, 0), ShapeError, "the size 3 is divided by zero"),
        (lambda: evaluate(S // Z, {"S": 1, "Z": 0}), ShapeError, "S//Z divides by zero: Z is 0"),
        (lambda: evaluate(S, {}), ShapeError, "the symbol S has no value; known are none"),
        (lambda: S + True, TypeError, "unsupported operand"),
        (lambda: 1.0 * S, TypeError, "unsupported operand"),
        (lambda: S + np.True_, TypeError, "Dim"),
        (lambda: S * np.float32(2), TypeError, "Dim"),
        (lambda: minimum(S, 2.0), TypeError, "a size is an integer or a Dim, not 2.0 of type float"),
        (lambda: equal(S, True), TypeError, "a size is an integer or a Dim, not True of type bool"),
        (lambda: S**-1, ShapeError, "the power of S must be an integer that is not negative, not -1"),
        (lambda: (S + T) ** 10**9, ShapeError, "grown past"),
        (lambda: symbol("2x"), ShapeError, "must be a Python identifier"),
        (lambda: symbol("min"), ShapeError, "must be a Python identifier other than"),
        (lambda: symbol("S", -1), ShapeError, "the minimum of symbol S"),
        (lambda: (S + 1).name, AttributeError, "only a symbol has a name"),
        (lambda: minimum(), ShapeError, "min of no sizes"),
    ],
)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()


def test_booleans_do_not_hit_the_memo_of_integers():
    assert str(S + 1) == "S + 1"
    with pytest.raises(TypeError):
        S + True


def test_expressions_cannot_double_without_end():
    size: Size = S
    with pytest.raises(ShapeError, match="grown past"):
        for _ in range(64):
            size = size // T + size // 3


def test_sums_and_products_of_a_shape():
    assert dims.product([B, S, 4]) is 4 * B * S and dims.product([]) == 1
    assert dims.sum_of([B, S, 4]) is B + S + 4 and dims.sum_of([]) == 0
    assert dims.product([2, 3]) == prod([2, 3])
