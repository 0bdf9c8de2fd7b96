"""The text form: what is printed parses to the same module, and prints the same again."""

from __future__ import annotations

import math
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isomorphism import assert_isomorphic

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.cursor import Cursor
from graphc.ir.dims import Guard, minimum, symbol
from graphc.ir.dtypes import DTYPES, c64, f32, i64
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Result
from graphc.ir.location import ROOT, UNKNOWN, Location, Scope, fused
from graphc.ir.module import Module
from graphc.ir.parser import parse
from graphc.ir.printer import module_text
from graphc.ir.recipes import Cast, Permute, Recipe, Reshape
from graphc.ir.types import TensorType


def round_trip(text: str, **weights: np.ndarray[Any, Any]) -> Module:
    """The module of `text`, after checking that its own text gives it back."""
    module = parse(text, weights)
    module.verify()
    printed = str(module)
    again = parse(printed, weights)
    assert_isomorphic(module, again)
    assert str(again) == printed
    assert_isomorphic(module, module.clone())
    return module


def canonical(body: str) -> None:
    """`body` prints as it is written."""
    text = f"graphc-ir 1\n\n{body.strip()}\n"
    assert str(round_trip(text)) == text


MLP = """
weight "dense/kernel" : f32[2, 3] trainable = [[1.0, 2.0, 3.0], [4.0, 5.0, -0.0]]
weight "dense/bias" : f32[3] trainable sha256:{}

func @mlp(%x: f32[B, 2] input, %w: f32[2, 3] param "dense/kernel", %b: f32[3] param "dense/bias") -> f32[B, 3] {{
  %0 = matmul %x, %w : f32[B, 3] @ "dense" model.py:7
  %hidden = add %0, %b : f32[B, 3] @ "dense" model.py:8
  %1 = softmax %hidden : f32[B, 3]
  return %1
}}
"""


def test_a_small_network_prints_as_it_is_written():
    text = MLP.format("0" * 64).strip()
    module = parse(text)
    assert str(module) == f"graphc-ir 1\n\n{text}\n"
    kernel = module.weights.info("dense/kernel")
    assert kernel.trainable and kernel.type is TensorType.of("float32", (2, 3))
    assert math.copysign(1, module.weights["dense/kernel"][1, 2]) == -1
    first, hidden, _, _ = module.main.block
    assert first.result.name is None and hidden.result.name == "hidden"
    assert (first.location.scope.path, first.location.file, first.location.line) == ("dense", "model.py", 7)


def test_weights_by_reference_come_from_what_is_given():
    bias = np.arange(3, dtype=np.float32)
    plain = Module()
    plain.weights.add("b", bias)
    digest = plain.weights.digest("b")
    assert digest is not None
    text = MLP.format(digest)
    module = parse(text, {"dense/bias": bias})
    np.testing.assert_array_equal(module.weights["dense/bias"], bias)
    with pytest.raises(GraphcError, match=r"^3:8: the array given for the weight 'dense/bias' is not the one"):
        parse(text, {"dense/bias": bias + 1})
    with pytest.raises(GraphcError, match=r"^3:8: weight 'dense/bias' has shape"):
        parse(text, {"dense/bias": bias[:2]})
    with pytest.raises(GraphcError, match="has no array"):
        _ = parse(text).weights["dense/bias"]


def test_weights_of_all_kinds():
    canonical("""
weight "a" : f32[4, 2] trainable
weight "b" : f32[4, 2] trainable tied "a"
weight "q" : f32[2, 4] from ("old/q") permute[1, 0]
weight "qkv" : bf16[6, 4] trainable from ("q", "k \\"x\\"", "v") axis 0 splits [2, 4] reshape[24][6, 4] cast[f32, bf16]
weight "joined" : f32[2, 4] from ("q", "k") axis -1 splits [2]
weight "empty" : f32[0, 3] = []
weight "scalar" : i64[] = -5
weight "flags" : bool[2] = [true, false]
weight "spectrum" : c64[2] = [complex(1.0, -0.0), complex(nan, inf)]
""")


def test_recipes_are_read_back():
    recipe = Recipe(("q", "k"), (Permute((1, 0)), Reshape((2, 4), (8,)), Cast(f32, DTYPES[13])), -1, (2,))
    module = Module()
    module.weights.add("w", np.zeros(8, ml_dtypes.bfloat16), recipe=recipe)
    assert parse(str(module)).weights.info("w").recipe == recipe


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_small_weights_keep_their_bits(dtype: Any):
    array = np.array([0, 1, 1, 0], np.int8).astype(dtype.numpy)
    if dtype.is_float or dtype.is_complex:
        array = np.array([0.1, -0.0, np.inf if dtype.short != "f8e4m3fn" else 3, np.nan]).astype(dtype.numpy)
    elif not dtype.is_bool:
        limit = ml_dtypes.iinfo(dtype.numpy)
        array = np.array([limit.min, limit.max, 1, 0], dtype.numpy)
    module = Module()
    module.weights.add("w", array)
    again = parse(str(module)).weights["w"]
    assert again.dtype == array.dtype
    assert again.tobytes() == array.tobytes()


def test_state_and_updates():
    canonical("""
weight "bn/mean" : f32[3] = [0.0, 0.0, 0.0]

func @step(
    %x: f32[B, 3] input,
    %mean: f32[3] state "bn/mean",
    %cache: f32[3] state,
    %k: u32[2] key
) -> (y: f32[B, 3], f32[3] updates %mean, next: f32[3] updates %cache) {
  %0 = add %x, %mean : f32[B, 3]
  %1 = neg %mean : f32[3]
  return %0, %1, %cache
}
""")


def test_symbols_with_minimums_and_guards():
    canonical("""
func @f<N >= 2, Z >= 0>(
    %x: f32[B, Z, N] input,
    %y: f32[C, 2*Z + 1, min(N, 4)] input
) -> f32[B*N*Z] where B == C, 4 divides N, 1 <= Z - 2, min(max(N, Z + 1), 5)//2 == (N + 1) % 3 {
  %0 = reshape %x {shape = [B*N*Z]} : f32[B*N*Z]
  return %0
}
""")
    text = "func @f<Z >= 0>(%x: f32[Z] input) -> f32[Z] {\n  return %x\n}"
    assert parse(text).main.parameters[0].type.shape == (symbol("Z", 0),)


def test_guards_of_type_rules_appear():
    module = round_trip("""
func @f(%x: f32[B] input, %y: f32[C] input) -> f32[B] {
  %0 = add %x, %y : f32[B]
  return %0
}
""")
    assert list(module.main.guards) == [Guard("==", symbol("B"), symbol("C"))]
    assert "where B == C {" in str(module)


def test_nested_regions():
    canonical("""
func @f(%x: f32[3] input, %n: i32[] input) -> f32[3] {
  %0 = constant {value = 0, dtype = i32} : i32[]
  %i, %total = while %0, %x, %n {carried = 2} (%i.1: i32[], %1: f32[3], %limit: i32[]) {
    %2 = lt %i.1, %limit : bool[]
    yield %2
  }, (%3: i32[], %4: f32[3], %5: i32[]) {
    %6 = constant {value = 2, dtype = i32} : i32[]
    %7 = lt %3, %6 : bool[]
    %8 = cond %7, %4 (%9: f32[3]) {
      %10 = neg %9 : f32[3]
      yield %10
    }, (%11: f32[3]) {
      yield %11
    } : f32[3] @ "loop" a.py:3
    %12 = add %3, %6 : i32[]
    yield %12, %8
  } : i32[], f32[3]
  return %total
}
""")


def test_scan_with_symbolic_length():
    canonical("""
func @f(%x: f32[T, 2] input, %h: f32[2] input) -> (f32[2], f32[T, 2]) {
  %last, %all = scan %h, %x {carried = 1, sliced = 1, length = T, reverse = true} (%c: f32[2], %row: f32[2]) {
    %0 = add %c, %row : f32[2]
    yield %0, %0
  } : f32[2], f32[T, 2]
  return %last, %all
}
""")


def test_calls_bind_the_callees_symbols():
    canonical("""
func @main(%x: f32[B, 4] input, %y: f32[2*B, 4] input) -> (f32[2*B, 4], f32[2*B, 4]) {
  %0, %1 = call %y, %y {callee = @both} : f32[2*B, 4], f32[2*B, 4]
  return %0, %1
}

private func @both(%x: f32[N, 4] input, %y: f32[M, 4] input) -> (f32[N, 4], f32[N, 4]) where N == M {
  %0 = add %x, %y : f32[N, 4]
  return %0, %x
}
""")
    module = round_trip("""
func @main(%x: f32[B] input, %y: f32[C] input) -> f32[B] {
  %0 = call %x, %y {callee = @same} : f32[B]
  return %0
}
private func @same(%x: f32[N] input, %y: f32[M] input) -> f32[N] where N == M {
  return %x
}
""")
    assert list(module.main.guards) == [Guard("==", symbol("B"), symbol("C"))]


def test_optional_and_variadic_operands():
    canonical("""
func @f(%x: f32[4, 3] input, %k: f32[3, 3] input, %b: f32[3] input) -> (f32[4, 3], f32[4, 3], f32[8, 3]) {
  %0 = linear %x, %k, _ : f32[4, 3]
  %1 = batch_norm %0, %b, %b, _, %b : f32[4, 3]
  %2 = concat %0, %1 {axis = 0} : f32[8, 3]
  return %0, %1, %2
}
""")
    short = """
func @f(%x: f32[4, 3] input, %k: f32[3, 3] input) -> f32[4, 3] {
  %0 = linear %x, %k : f32[4, 3]
  return %0
}
"""
    assert next(round_trip(short).walk()).operands[2] is None


def test_no_parameters_and_no_results():
    canonical("""
func @nothing() -> () {
  return
}

func @one() -> f32[] {
  %0 = constant {value = 1.0} : f32[]
  return %0
}
""")


def test_attributes_of_every_kind():
    canonical("""
func @f(%x: f32[2, S] input, %y: f32[1, 4, 4, 1] input) -> f32[2, S] {
  %0 = constant {value = nan} : f32[]
  %1 = constant {value = -inf, dtype = f64} : f64[]
  %2 = constant {value = -0.0} : f32[]
  %3 = constant {value = [[1, 2], [3, -4]], dtype = i8} : i8[2, 2]
  %4 = constant {value = [true, false], dtype = bool} : bool[2]
  %5 = constant {value = complex(-0.0, nan), dtype = c64} : c64[]
  %6 = constant {value = []} : f32[0]
  %7 = constant {value = 1e+30} : f32[]
  %8 = constant {value = 18446744073709551615, dtype = u64} : u64[]
  %9 = name %x {tag = "a \\"quoted\\" \\\\ \\\\u00000a \\u00000a😀 é {%0} : // @ x"} : f32[2, S]
  %10 = dim_size {size = ((S + 1)//2)*min(S, 4) - S % 3} : i64[]
  %11 = slice %x {starts = [0, S//2], limits = [2, S]} : f32[2, S - S//2]
  %12 = max_pool %y {window = [2, 2], strides = [1, 1], padding = [[0, 1], [1, 0]], dilation = [1, 1]} : f32[1, 4, 4, 1]
  %13 = max_pool %y {window = [2, 2], strides = [1, 1], padding = "same", dilation = [1, 1]} : f32[1, 4, 4, 1]
  %14 = gather %x, %3 {axis = 1, mode = "fill"} : f32[2, 2, 2]
  %15 = iota {shape = [S, 3], axis = 1, dtype = i64} : i64[S, 3]
  return %x
}
""")  # fmt: skip


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.complex_numbers(),
    st.text(),
    st.sampled_from([symbol("B"), symbol("S") // 2 + 1, minimum(symbol("B"), symbol("S"))]),
)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=12))
def test_attribute_values_are_read_as_they_are_written(value: Any):
    from graphc.ir.attributes import attribute_text

    text = attribute_text(value)
    assert "\n" not in text
    cursor = Cursor(text, 1)
    again = cursor.attribute()
    assert cursor.at_end()
    assert bits(again) == bits(value)


def bits(value: Any) -> Any:
    """The value with floats as their bytes, so that nan, -0.0, 1 and 1.0 are told apart."""
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("d", value)
    if isinstance(value, complex):
        return bits(value.real), bits(value.imag), "complex"
    return type(value), value


def test_values_of_one_name_are_told_apart():
    module = Module()
    function = module.add_function("f")
    vector = TensorType.of(f32, (2,))
    x, y = function.add_parameter(vector, "x"), function.add_parameter(vector, "y")
    with Builder(function.block) as builder:
        first = ops.neg(x)
        second = ops.exp(first)
        first.name = second.name = "x"
        third = ops.add(second, y)
        third.name = "y"
        builder.finish([third, first])
    function.results = [Result(), Result()]
    text = str(module)
    assert [line.split(" = ")[0].strip() for line in text.splitlines() if " = " in line] == ["%x.1", "%x.2", "%y.1"]
    assert_isomorphic(module, parse(text))
    assert str(parse(text)) == text


def test_labels_of_parameters_are_what_the_text_says():
    module = parse(
        "func @f(%x.4: f32[] input, %7: f32[] input) -> f32[] {\n  %a = sub %x.4, %7 : f32[]\n  return %a\n}"
    )
    assert [p.value.name for p in module.main.parameters] == ["x", None]
    assert [p.name for p in module.main.parameters] == ["x", "arg1"]


@pytest.mark.parametrize(
    "location",
    [
        UNKNOWN,
        Location.of(ROOT.child("a").child("b", 2), "model.py", 12),
        Location.of(ROOT.child("a#b c").child('"q"\\').child("é\n")),
        Location.of(ROOT, "my model@v1: x.py", 3),
        Location.of(ROOT, 'from "a"', 1),
        Location.of(ROOT, "C:\\models\\a.py", 1, (ROOT.child("x"), ROOT)),
        Location.of(ROOT.child("m"), "", 0, (ROOT.child("m").child("a", 1), ROOT.child("m").child("b"))),
    ],
    ids=str,
)
def test_locations_are_read_back(location: Location):
    text = str(location)
    assert "\n" not in text
    assert Cursor(text, 1).location() is location
    module = parse(
        f"func @f(%x: f32[] input) -> f32[] {{\n  %0 = neg %x : f32[]{f' @ {text}' * bool(text)}\n  return %0\n}}"
    )
    assert module.main.block.terminator.prev.location is location  # type: ignore[union-attr]
    assert parse(module_text(module, locations=False)).main.block.terminator.prev.location is UNKNOWN  # type: ignore[union-attr]


def test_a_fused_location_keeps_file_and_line_of_one_op():
    a, b = Location.of(ROOT.child("m").child("a")), Location.of(ROOT.child("m").child("b", 1), "f.py", 4)
    both = fused(a, b)
    assert str(both) == '"m" f.py:4 from "m/a" "m/b#1"'
    assert Cursor(str(both), 1).location() is both
    assert Location.of(ROOT, "", 5) is UNKNOWN  # a line of no file


@pytest.mark.parametrize("name", ["", "a/b", "a#1"])
def test_names_that_a_path_could_not_tell_apart_are_no_scopes(name: str):
    with pytest.raises(GraphcError, match="is no name of a scope"):
        Scope.of(ROOT, name)


def test_hand_written_text_may_be_spaced_freely():
    module = parse(
        """
// a comment
func @f(
    %x: f32[2 , B] input,

    %y: f32[2, B] input,
) -> f32[2, B]
  where 4 divides B,
        2<=B {

  // another
  %0,%1=split %x{sizes=[ 1,1 ]}:f32[1,B],f32[1, B]@ "s"
    %z  =  concat  %0 ,%1 { axis = 0 } : f32[2,B]
  return %z
}
""".replace("\n", "\r\n")
    )
    module.verify()
    assert len(module.main.guards) == 2 and next(module.walk()).results[1].uses
    assert_isomorphic(module, parse(str(module)))


def test_an_incomplete_function_can_be_printed():
    module = Module()
    function = module.add_function("f")
    x = function.add_parameter(TensorType.of(f32), "x")
    assert str(function) == "func @f(%x: f32[] input) -> () {\n}"
    with Builder(function.block):
        ops.neg(x)
    assert "%0 = neg %x" in str(function)


def test_symbols_that_ops_introduce():
    canonical("""
func @f(%x: f32[B, 2] input, %n: i32[] input) -> f32[K, 2] {
  %0 = assume_dim %x, %n {axis = 0, size = K} : f32[K, 2]
  %1 = neg %0 : f32[K, 2]
  return %1
}
""")


def test_large_arrays_are_printed_by_reference():
    module = Module()
    array = np.arange(1000, dtype=np.int64)
    module.weights.add("w", array, trainable=False)
    line = str(module).splitlines()[2]
    assert line.startswith('weight "w" : i64[1000] sha256:') and len(line) < 120
    again = parse(str(module), {"w": array})
    assert_isomorphic(module, again)
    assert i64.is_integer and c64.is_complex
