"""Blocks, values, uses and order numbers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import Guard, symbol
from graphc.ir.dtypes import f32
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import ORDER_GAP, Block, Function, Op
from graphc.ir.module import Module
from graphc.ir.parser import parse
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType

SCALAR = TensorType.of(f32)
B = symbol("B")


def chain(length: int) -> tuple[Function, list[Op]]:
    """A function of so many `neg`, one after the other."""
    function = Function("f")
    value = function.add_parameter(SCALAR, "x")
    with Builder(function.block) as builder:
        for _ in range(length):
            value = ops.neg(value)
        builder.finish([value])
    return function, list(function.block)


def check_links(block: Block) -> None:
    listed = list(block)
    assert listed == list(reversed(list(reversed(block))))
    assert [op.prev for op in listed] == [None, *listed[:-1]]
    assert block.last is (listed[-1] if listed else None)
    orders = [op.order for op in listed]
    assert orders == sorted(set(orders))


def test_appending_spaces_order_numbers():
    function, listed = chain(5)
    assert [b.order - a.order for a, b in pairwise(listed)] == [ORDER_GAP] * 5
    assert listed[0].is_before(listed[3]) and not listed[3].is_before(listed[0])
    check_links(function.block)


def test_inserting_at_one_place_renumbers_when_there_is_no_room():
    function, listed = chain(3)
    anchor = listed[2]
    builder = Builder(function.block, anchor)
    x = function.block.parameters[0]
    made: list[Op] = []
    with builder:
        for _ in range(200):  # far more than the 20 that halving a gap of 2**20 has room for
            made.append(ops.neg(x).owner)  # type: ignore[arg-type]
    assert list(function.block) == [*listed[:2], *made, *listed[2:]]
    check_links(function.block)


def test_inserting_at_the_front():
    function, listed = chain(2)
    x = function.block.parameters[0]
    for _ in range(3):
        with Builder(function.block, function.block.first):
            ops.exp(x)
    assert [op.name for op in function.block] == ["exp"] * 3 + ["neg", "neg", "return"]
    assert listed[0].prev is not None
    check_links(function.block)


@given(st.lists(st.tuples(st.sampled_from(["insert", "erase", "move"]), st.integers(0), st.integers(0)), max_size=60))
def test_any_edits_keep_links_and_order(edits: list[tuple[str, int, int]]):
    function, _ = chain(0)
    block, x = function.block, function.block.parameters[0]
    expected = list(block)
    rewriter = Rewriter()
    for kind, a, b in edits:
        at = expected[a % len(expected)]
        if kind == "insert":
            with Builder(block, at):
                expected.insert(expected.index(at), ops.neg(x).owner)  # type: ignore[arg-type]
        elif at.next is not None and kind == "erase":
            rewriter.erase(at)
            expected.remove(at)
        elif at.next is not None:
            anchor = expected[b % len(expected)]
            rewriter.move_before(at, anchor)
            if anchor is not at:
                expected.remove(at)
                expected.insert(expected.index(anchor), at)
        assert list(block) == expected
        check_links(block)
    assert x.use_count == len(expected)  # the return reads it too


def test_iteration_goes_on_after_the_current_op_is_erased_and_sees_what_is_inserted():
    function, listed = chain(4)
    x = function.block.parameters[0]
    rewriter = Rewriter()
    seen: list[Op] = []
    for op in function.block:
        seen.append(op)
        if op is listed[1]:
            rewriter.replace(op, x)
        if op is listed[2]:
            with Builder(function.block, listed[3]):
                ops.exp(x)
    assert [op.name for op in seen] == ["neg", "neg", "neg", "exp", "neg", "return"]


def test_uses_count_operands():
    function = Function("f")
    x = function.add_parameter(SCALAR, "x")
    assert x.uses is None and x.use_count == 0
    with Builder(function.block):
        y = ops.add(x, x)
        z = ops.mul(x, y)
    assert y.op is not None and z.op is not None
    assert x.uses == {y.op: 2, z.op: 1} and x.use_count == 3
    assert list(x.uses) == [y.op, z.op]
    assert y.block is x.block is function.block and x.op is None
    assert function.block.function is function


def test_walking_enters_regions():
    module = parse("""
func @f(%b: bool[] input) -> bool[] {
  %0 = not %b : bool[]
  %1 = cond %b, %0 (%p: bool[]) {
    %2 = cond %p, %p (%q: bool[]) {
      yield %q
    }, (%r: bool[]) {
      %3 = not %r : bool[]
      yield %3
    } : bool[]
    yield %2
  }, (%s: bool[]) {
    yield %s
  } : bool[]
  return %1
}
""")
    names = [op.name for op in module.walk()]
    assert names == ["not", "cond", "cond", "yield", "not", "yield", "yield", "yield", "return"]
    assert [op.name for op in module.main.block] == ["not", "cond", "return"]
    inner = list(module.walk())[4]
    assert inner.block.function is module.main and inner.block is not module.main.block


def test_operands_and_attributes_are_properties():
    module = parse("""
func @f(%x: f32[4, 3] input, %k: f32[3, 2] input) -> f32[1, 2] {
  %0 = linear %x, %k, _ : f32[4, 2]
  %1 = reduce_sum %0 {axes = [0], keepdims = true} : f32[1, 2]
  return %1
}
""")
    linear, reduce_sum, _ = module.main.block
    x, kernel = module.main.block.parameters
    assert (linear.x, linear.kernel, linear.bias) == (x, kernel, None)  # type: ignore[attr-defined]
    assert (reduce_sum.axes, reduce_sum.keepdims) == ((0,), True)  # type: ignore[attr-defined]
    assert reduce_sum.attribute_dict == {"axes": (0,), "keepdims": True}
    assert reduce_sum.result is reduce_sum.results[0]
    with pytest.raises(ValueError):
        _ = module.main.block.terminator.result


def test_what_a_traced_value_refuses():
    function = Function("f")
    vector = function.add_parameter(TensorType.of(f32, (B, 3)), "x")
    scalar = function.add_parameter(SCALAR, "y")
    with pytest.raises(GraphcError, match="the truth of a traced value is not known"):
        bool(vector)
    with pytest.raises(ShapeError, match=r"first size is symbolic \(B\)"):
        len(vector)
    with pytest.raises(TypeError, match="scalar"):
        len(scalar)
    with pytest.raises(GraphcError, match="has no array"):
        np.asarray(vector)
    assert repr(vector) == "<%x: f32[B, 3]>"


def test_an_empty_block_has_no_terminator():
    function = Function("f")
    with pytest.raises(GraphcError, match="the block is empty"):
        _ = function.outputs


def test_binding_shapes_to_parameters():
    function = Function("f")
    function.add_parameter(TensorType.of(f32, (2 * B, 3)), "x")
    function.add_parameter(TensorType.of(f32, (B,)), "y")
    function.add_guard(Guard("<=", B, 8))
    assert function.bind((8, 3), (4,)) == {B: 4}
    with pytest.raises(ShapeError, match=r"input 'x' of @f has shape \[7, 3\]; it must be \[2\*B, 3\] with B = 4"):
        function.bind((7, 3), (4,))
    with pytest.raises(ShapeError, match="B must be at least 1, not 0"):
        function.bind((0, 3), (0,))
    with pytest.raises(ShapeError, match="@f needs B <= 8, but it was called with B = 9"):
        function.bind((18, 3), (9,))
    assert function.bind((2 * symbol("N"), 3), (symbol("N"),)) == {B: symbol("N")}


def test_a_module_is_shown_by_its_functions():
    module = parse("func @f(%x: f32[2] input) -> f32[2] {\n  return %x\n}")
    assert repr(module) == "<Module: @f>"
    assert repr(Module()) == "<Module: empty>"
