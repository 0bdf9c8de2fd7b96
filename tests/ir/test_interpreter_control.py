"""What branches, loops, scans and calls mean, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import Size, symbol
from graphc.ir.dtypes import dtype
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Result, Value
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.parser import parse
from graphc.ir.types import TensorType

B, T, Z = symbol("B"), symbol("T"), symbol("Z", 0)


def traced(body: Callable[..., Any], **inputs: tuple[str, tuple[Size, ...]]) -> Module:
    """A module of one function that `body` records; verified, and the same after its text is read back."""
    module = Module()
    function = module.add_function("main")
    values = [function.add_parameter(TensorType.of(dtype(d), shape), name) for name, (d, shape) in inputs.items()]
    with Builder(function.block) as builder:
        found = body(*values)
        results = builder.values(found if isinstance(found, tuple) else (found,), None, ops.return_)
        builder.finish(results)
        function.results = [Result() for _ in results]
    module.verify()
    again = parse(str(module))
    again.verify()
    assert str(again) == str(module)
    return again


# Branches


@pytest.mark.parametrize(("choice", "expected"), [(True, [-1, -2]), (False, [2, 3])])
def test_a_bool_chooses_the_first_branch_when_it_holds(choice: bool, expected: list[float]):
    module = traced(
        lambda c, x: ops.cond(c, lambda: ops.neg(x), lambda: x + 1),
        c=("bool", ()),
        x=("f32", (2,)),
    )
    np.testing.assert_array_equal(interpret(module, choice, np.array([1, 2], np.float32)), expected)


@pytest.mark.parametrize(("index", "expected"), [(-7, 10), (0, 10), (1, 20), (2, 30), (3, 30), (2**31 - 1, 30)])
def test_an_integer_chooses_a_branch_and_is_clamped(index: int, expected: int):
    module = traced(lambda i, x: ops.cond(i, lambda: x * 1, lambda: x * 2, lambda: x * 3), i=("i32", ()), x=("i32", ()))
    assert interpret(module, np.int32(index), np.int32(10)) == expected


def test_only_the_chosen_branch_runs():
    module = traced(
        lambda i, n: ops.cond(
            i, lambda: ops.while_loop(lambda k: ops.ge(k, 0), lambda k: (ops.maximum(k, 0),), [n])[0], lambda: n
        ),
        i=("bool", ()),
        n=("i32", ()),
    )
    assert interpret(module, False, np.int32(5)) == 5  # the first branch would not end


def test_branches_of_several_results_and_nested_captures():
    def body(c: Value, d: Value, x: Value, y: Value) -> Any:
        def first() -> Any:
            inner = ops.cond(d, lambda: x + y, lambda: x - y)
            return inner, y

        return tuple(ops.cond(c, first, lambda: (y, x)))

    module = traced(body, c=("bool", ()), d=("bool", ()), x=("f32", (B,)), y=("f32", (B,)))
    outer = next(op for op in module.main.block if op.name == "cond")
    assert len(outer.operands) == 4 and all(len(region.block.parameters) == 3 for region in outer.regions)
    x, y = np.array([5, 6], np.float32), np.array([1, 1], np.float32)
    for c, d, expected in [(1, 1, (x + y, y)), (1, 0, (x - y, y)), (0, 0, (y, x))]:
        np.testing.assert_array_equal(interpret(module, bool(c), bool(d), x, y), expected)


# Loops


def test_while_repeats_and_reads_captures():
    def body(n: Value, step: Value) -> Any:
        return ops.while_loop(lambda i, total: ops.lt(i, n), lambda i, total: (i + 1, total + i * step), [0, 0])

    module = traced(body, n=("i32", ()), step=("i32", ()))
    for n in (-3, 0, 1, 5):
        i, total = interpret(module, np.int32(n), np.int32(10))
        assert (i, total) == (max(n, 0), 10 * sum(range(max(n, 0))))


def test_while_carries_symbolic_shapes():
    module = traced(
        lambda x: ops.while_loop(
            lambda y: ops.lt(ops.reduce_max(y, axes=(0, 1)), 100.0), lambda y: (y * 2.0,), [x]
        )[0],
        x=("f32", (B, 2)),
    )  # fmt: skip
    np.testing.assert_array_equal(interpret(module, np.array([[1, 30]], np.float32)), [[4, 120]])


# Scans


def running_sum(reverse: bool = False, length: Size | None = None) -> Module:
    def body(h: Value, x: Value, scale: Value) -> Any:
        def step(carries: tuple[Value, ...], slices: tuple[Value, ...]) -> Any:
            total = carries[0] + slices[0] * scale
            return (total,), (total, carries[0])

        (last,), stacks = ops.scan(step, [h], [x], length=length, reverse=reverse)
        return (last, *stacks)

    return traced(body, h=("f32", (2,)), x=("f32", (Z, 2)), scale=("f32", ()))


def test_scan_stacks_in_order():
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    h = np.array([100, 200], np.float32)
    last, totals, before = interpret(running_sum(), h, x, np.float32(2))
    expected = h + np.cumsum(2 * x, 0)
    np.testing.assert_array_equal(totals, expected)
    np.testing.assert_array_equal(last, expected[-1])
    np.testing.assert_array_equal(before, [h, *expected[:-1]])


def test_scan_in_reverse_keeps_the_place_of_each_row():
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    h = np.zeros(2, np.float32)
    last, totals, before = interpret(running_sum(reverse=True), h, x, np.float32(1))
    expected = np.cumsum(x[::-1], 0)[::-1]
    np.testing.assert_array_equal(totals, expected)
    np.testing.assert_array_equal(last, expected[0])
    np.testing.assert_array_equal(before, [*expected[1:], h])


@pytest.mark.parametrize("wide", [None, "float64"])
def test_scan_of_no_steps(wide: str | None):
    h = np.array([1, 2], np.float32)
    last, totals, before = interpret(running_sum(), h, np.zeros((0, 2), np.float32), np.float32(1), dtype=wide)
    np.testing.assert_array_equal(last, h)
    assert totals.shape == before.shape == (0, 2)
    assert totals.dtype == (np.float64 if wide else np.float32)


def test_scan_of_a_length_alone():
    module = traced(
        lambda x: (
            ops.scan(lambda c, _: ((c[0] * 2.0,), (ops.dim_size(size=T) * 1,)), [x], length=T)[1][0]
            + ops.convert(ops.scan(lambda c, _: ((c[0] * 2.0,), ()), [x], length=3)[0][0], dtype="i64")
        ),
        x=("f32", (T,)),
    )
    np.testing.assert_array_equal(interpret(module, np.ones(4, np.float32)), [12, 12, 12, 12])


def test_scan_of_vectors_hands_scalars_to_its_body():
    def body(x: Value, y: Value) -> Any:
        carries, stacks = ops.scan(lambda c, s: ((c[0] + s[0],), (s[0] * s[1], s[0])), [0.0], [x, y])
        return (*carries, *stacks)

    module = traced(body, x=("f32", (B,)), y=("f32", (B,)))
    x, y = np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)
    total, products, same = interpret(module, x, y)
    assert total == 6 and total.shape == ()
    np.testing.assert_array_equal(products, x * y)
    np.testing.assert_array_equal(same, x)


def test_operands_of_unknown_length_leave_a_guard():
    module = traced(
        lambda x, y: ops.scan(lambda c, s: ((), (s[0] + s[1],)), [], [x, y])[1][0], x=("f32", (B,)), y=("f32", (T,))
    )
    assert [str(guard) for guard in module.main.guards] == ["T == B"]
    np.testing.assert_array_equal(interpret(module, np.ones(2, np.float32), np.ones(2, np.float32)), [2, 2])
    with pytest.raises(ShapeError, match=r"@main needs T == B, but it was called with B = 2, T = 3"):
        interpret(module, np.ones(2, np.float32), np.ones(3, np.float32))


def test_each_op_of_a_body_rounds_to_its_dtype():
    module = traced(
        lambda x: ops.scan(lambda c, _: ((c[0] * 1.1,), ()), [x], length=20)[0][0],
        x=("bf16", ()),
    )
    expected = ml_dtypes.bfloat16(1)
    for _ in range(20):
        expected = ml_dtypes.bfloat16(float(expected) * float(ml_dtypes.bfloat16(1.1)))
    assert interpret(module, ml_dtypes.bfloat16(1)) == expected
    assert abs(interpret(module, ml_dtypes.bfloat16(1), dtype="float64") - 1.1**20) < 1e-9


# Calls


CALLS = """
weight "w" : f32[2] = [10.0, 20.0]

func @main(%x: f32[B, 2] input, %w: f32[2] param "w") -> (f32[B, 2], f32[2*B, 2]) {
  %0 = call %x, %w {callee = @layer} : f32[B, 2]
  %1 = concat %0, %x {axis = 0} : f32[2*B, 2]
  %2 = call %1, %w {callee = @layer} : f32[2*B, 2]
  return %0, %2
}

private func @layer(%y: f32[N, 2] input, %k: f32[2] param) -> f32[N, 2] {
  %3 = mul %y, %k : f32[N, 2]
  %4 = call %3 {callee = @last} : f32[N, 2]
  return %4
}

private func @last(%y: f32[B, 2] input) -> f32[B, 2] {
  %5 = dim_size {size = B} : i64[]
  %6 = convert %5 {dtype = f32} : f32[]
  %7 = add %y, %6 : f32[B, 2]
  return %7
}
"""


def test_calls_bind_symbols_of_their_own():
    module = parse(CALLS)
    module.verify()
    x = np.ones((3, 2), np.float32)
    w = np.array([10, 20], np.float32)
    first, second = interpret(module, x)
    np.testing.assert_array_equal(first, x * w + 3)
    np.testing.assert_array_equal(second, np.concatenate([first, x]) * w + 6)


def test_recorded_calls_take_over_guards():
    module = parse("""
func @main(%x: f32[B] input, %y: f32[T] input) -> f32[B] {
  return %x
}
private func @same(%a: f32[N] input, %b: f32[M] input) -> f32[N] where N == M, 1 <= N {
  return %a
}
""")
    main, same = module.functions.values()
    x, y = main.block.parameters
    with Builder(main.block, main.block.terminator) as builder:
        (result,) = ops.call_function(builder, same, [x, y])
    assert result.type is x.type
    assert [str(guard) for guard in main.guards] == ["B == T"]  # 1 <= B holds anyway
    module.verify()
    with (
        Builder(main.block, main.block.terminator) as builder,
        pytest.raises(ShapeError, match="@same takes 2 arguments, 1 was passed"),
    ):
        ops.call_function(builder, same, [x])


# Sizes that depend on data


def test_sizes_that_ops_bind():
    module = parse("""
func @f(%x: f32[B, 2] input, %n: i32[] input) -> (f32[K, 2], i64[]) {
  %0 = assume_dim %x, %n {axis = 0, size = K} : f32[K, 2]
  %1 = neg %0 : f32[K, 2]
  %2 = dim_size {size = K + B} : i64[]
  return %1, %2
}
""")
    module.verify()
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    for n in range(4):
        found, size = interpret(module, x, np.int32(n))
        np.testing.assert_array_equal(found, -x[:n])
        assert size == n + 3


# Refusals


def scalars(text: str) -> Module:
    return parse(
        "func @f(%b: bool[] input, %i: i32[] input, %x: f32[4] input) -> f32[4] {\n" + text + "\n return %x\n}"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%0 = cond %x (){\n yield\n}, (){\n yield\n}", r"cond chooses by a bool or integer scalar, not f32\[4\]"),
        ("cond %b () {\n yield\n}", r"cond by bool\[\] has 1 branches"),
        ("%0 = cond %i, %x (%p: f32[4]) {\n yield %p\n}, (%p: f32[3]) {\n yield %p\n} : f32[4]",
         r"a parameter of branch 1 is f32\[3\], but f32\[4\] is needed"),
        ("%0 = cond %i, %x (%p: f32[4]) {\n yield %p\n}, (%p: f32[4]) {\n yield\n} : f32[4]",
         "branch 1 yields 0 values, branch 0 yields 1"),
        ("%0 = cond %i, %x (%p: f32[4]) {\n yield %p\n}, () {\n yield\n} : f32[4]",
         "branch 1 has 0 parameters, 1 is passed"),
        ("%0 = while %x {carried = 1} (%p: f32[4]) {\n yield %p\n}, (%q: f32[4]) {\n yield %q\n} : f32[4]",
         r"the condition of while must yield a bool scalar, not f32\[4\]"),
        ("%0 = while %b {carried = 1} (%p: bool[]) {\n yield %p, %p\n}, (%q: bool[]) {\n yield %q\n} : bool[]",
         "the condition of while yields 2 values, not one"),
        ("%0 = while %b {carried = 1} (%p: bool[]) {\n yield %p\n}, (%q: bool[]) {\n yield\n} : bool[]",
         "the body of while yields 0 values for 1 carried ones"),
        ("%0 = while %b {carried = 2} (%p: bool[]) {\n yield %p\n}, (%q: bool[]) {\n yield %q\n} : bool[]",
         "while carries 2 of 1 operand"),
        ("%0 = while %b {carried = 1} (%p: bool[]) {\n yield %p\n} : bool[]",
         "while has a condition and a body, not"),
        ("%0 = while %b {carried = 1} : bool[]", "while has a condition and a body, not 0 regions"),
        ("%0 = scan %i {carried = 0, sliced = 1, length = 4} (%p: i32[]) {\n yield %p\n} : i32[4]",
         "a scalar has none"),
        ("%0 = scan %x {carried = 0, sliced = 1, length = 5} (%p: f32[]) {\n yield %p\n} : f32[5]",
         "the sliced operands of scan must have its length: 4 is not 5"),
        ("%0 = scan %x {carried = 1, sliced = 1, length = 4} (%p: f32[4]) {\n yield %p\n} : f32[4]",
         "scan carries 1 and cuts 1 of 1 operand"),
        ("%0 = scan %x {carried = -1, sliced = 1, length = 4} (%p: f32[4]) {\n yield %p\n} : f32[4]",
         "scan carries -1 and cuts 1 of 1 operand"),
        ("%0 = scan %x {carried = 1, sliced = 0, length = -4} (%p: f32[4]) {\n yield %p\n} : f32[4]",
         "the length of scan is negative: -4"),
        ("%0 = scan %x {carried = 1, sliced = 0, length = 4} (%p: f32[4]) {\n yield\n} : f32[4]",
         "the body of scan yields 0 values for 1 carried ones"),
        ("%0 = scan %x {carried = 1, sliced = 0, length = 4} (%p: f32[4]) {\n yield %p\n}, () {\n yield\n} : f32[4]",
         "scan has one region, its body, not 2"),
    ],
)  # fmt: skip
def test_region_ops_of_wrong_form_are_refused(text: str, message: str):
    with pytest.raises(GraphcError, match=message):
        scalars(text)


def test_building_region_ops_of_wrong_form_is_refused():
    with pytest.raises(GraphcError, match="on arrays use Python's own control flow"):
        ops.cond(True, lambda: 1, lambda: 2)
    module = Module()
    function = module.add_function("f")
    x = function.add_parameter(TensorType.of("float32", (B,)), "x")
    with Builder(function.block):
        with pytest.raises(GraphcError, match="branch 1 returned None"):
            ops.cond(True, lambda: x, lambda: None)
        with pytest.raises(ShapeError, match="scan without xs needs a length"):
            ops.scan(lambda c, s: (c, ()), [x])
        with pytest.raises(ShapeError, match="the body of scan carries 2 values on, 1 came in"):
            ops.scan(lambda c, s: ((x, x), ()), [x], length=3)
        with pytest.raises(GraphcError, match="has 0 branches"):
            ops.cond(True)
