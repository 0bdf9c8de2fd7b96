"""The rewriter: uses and order stay right through any edits, wide ops are rewritten once, listeners hear of it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import f32
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function, Op, Result, Value
from graphc.ir.interpreter import interpret
from graphc.ir.location import ROOT, Location, fused
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.parser import parse
from graphc.ir.rewriter import WIDE, Rewriter
from graphc.ir.types import TensorType

SCALAR = TensorType.of(f32)


def wide_module(width: int) -> tuple[Module, Function, list[Value]]:
    """A function that returns so many values."""
    module = Module()
    function = module.add_function("f")
    x = function.add_parameter(SCALAR, "x")
    with Builder(function.block) as builder:
        values = [ops.neg(x) for _ in range(width)]
        builder.finish(values)
    function.results = [Result() for _ in values]
    return module, function, values


def producer(value: Value) -> Op:
    assert value.op is not None
    return value.op


@given(st.integers(0, 2**32), st.sampled_from([4, WIDE + 20]))
def test_random_edits_leave_a_right_graph(seed: int, width: int):
    """Replacements only of later values by earlier ones, so that the order stays right; meaning is followed by hand."""
    rng = random.Random(seed)
    module, function, _ = wide_module(width)
    block = function.block
    with Rewriter() as rewriter:
        for _ in range(60):
            listed = [op for op in block if op.next is not None]
            if not listed:  # all were erased
                break
            op = rng.choice(listed)
            earlier = [*block.parameters, *(o.result for o in listed if o.is_before(op))]
            match rng.choice(["insert", "replace", "operands", "erase", "rebuild", "move"]):
                case "insert":
                    with rewriter.before(op):
                        ops.add(rng.choice(earlier), rng.choice(earlier))
                case "replace":
                    rewriter.replace_value(op.result, rng.choice(earlier))
                case "operands":
                    rewriter.set_operands(op, [rng.choice(earlier) for _ in op.operands])
                case "erase" if not op.result.uses:
                    rewriter.erase(op)
                case "rebuild":
                    operands = [rng.choice(earlier) for _ in op.operands]
                    rewriter.rebuild(op, operands, op.definition.infer((SCALAR,) * len(operands), op.attributes))
                case "move" if op.prev is not None and op.prev.result not in op.operands:
                    rewriter.move_before(op, op.prev)
                case _:
                    pass
    module.verify()
    assert str(parse(str(module))) == str(module)


@pytest.mark.parametrize("width", [3, WIDE + 1])
def test_replacements_in_sequence_mean_the_same_wide_or_not(width: int):
    """a by b, then b by c, then c by a again: everything reads a in the end."""
    module, function, values = wide_module(width)
    a, b, c, *rest = values
    with Rewriter() as rewriter:
        rewriter.replace_value(b, a)
        rewriter.replace_value(a, c)
        rewriter.replace_value(c, a)
    assert function.outputs == (a, a, a, *rest)
    assert a.uses == {function.block.terminator: 3} and not b.uses and not c.uses
    module.verify()


def test_a_swap_by_way_of_a_third_value():
    _, function, values = wide_module(WIDE + 1)
    a, b, *_ = values
    x = function.block.parameters[0]
    with Rewriter() as rewriter:
        rewriter.replace_value(a, x)
        rewriter.replace_value(b, a)
        rewriter.replace_value(x, b)  # this also makes the producers read b, which the test does not run
    assert function.outputs[:2] == (b, a)


def test_an_op_that_waits_for_replacements_can_be_changed_or_erased():
    module, function, values = wide_module(WIDE + 1)
    end = function.block.terminator
    rewriter = Rewriter()
    rewriter.replace_value(values[0], values[1])
    rewriter.set_operands(end, [values[1], *values[1:WIDE]])
    assert values[1].uses == {end: 2} and not values[0].uses
    function.results.pop()
    module.verify()
    rewriter.replace_value(values[2], values[3])
    with rewriter.before(end) as builder:
        builder.finish([values[5]])
    rewriter.erase(end)
    assert [v.use_count for v in values[:6]] == [0, 0, 0, 0, 0, 1]
    function.results = [Result()]
    module.verify()


def test_the_operands_of_a_wide_op_are_replaced_in_one_walk():
    module, function, values = wide_module(10 * WIDE)
    x, end = function.block.parameters[0], function.block.terminator
    before = end.operands
    with Rewriter() as rewriter:
        for value in values:
            rewriter.replace(producer(value), x)
            assert end.operands is before  # making 2,560 new tuples of 2,560 operands would be quadratic
    assert function.outputs == (x,) * len(values) and x.uses == {end: len(values)}
    module.verify()


def test_replacing_takes_over_names_and_checks_types():
    module = parse("""
func @f(%x: f32[B, 3] input, %i: i32[B, 3] input, %y: f32[C, 3] input, %z: f32[B, 4] input) -> f32[B, 3] {
  %hidden = neg %x : f32[B, 3]
  %0 = exp %x : f32[B, 3]
  %1, %2 = split %hidden {sizes = [1, 2], axis = 1} : f32[B, 1], f32[B, 2]
  return %hidden
}
""")
    hidden, exponential, split, _ = module.main.block
    _, i, y, z = module.main.block.parameters
    rewriter = Rewriter()
    for wrong in (i, z, split.results[0]):
        with pytest.raises(GraphcError, match=r"neg: a result f32\[B, 3\] cannot be replaced by"):
            rewriter.replace(hidden, wrong)
    with pytest.raises(GraphcError, match="split has 2 results, 1 value replaces them"):
        rewriter.replace(split, y)
    module.verify()
    rewriter.replace(hidden, exponential.result)
    assert exponential.result.name == "hidden"
    rewriter.replace_value(exponential.result, y)  # B and C may be equal
    assert y.name == "y" and module.main.outputs == (y,)


def test_an_op_that_is_read_is_not_erased():
    module, function, values = wide_module(2)
    with pytest.raises(GraphcError, match="neg cannot be erased: %? is still read".replace("?", r"\?")):
        Rewriter().erase(producer(values[0]))
    with pytest.raises(GraphcError, match="parameter 'x' of @f is still read"):
        Rewriter().remove_parameter(function, 0)
    module.verify()


NESTED = """
func @f(%b: bool[] input, %x: f32[2] input) -> f32[2] {
  %0 = cond %b, %b, %x (%c: bool[], %p: f32[2]) {
    %1 = neg %p : f32[2]
    %2 = cond %c, %1 (%q: f32[2]) {
      %3 = exp %q : f32[2]
      yield %3
    }, (%r: f32[2]) {
      yield %r
    } : f32[2]
    yield %2
  }, (%t: bool[], %s: f32[2]) {
    yield %s
  } : f32[2]
  return %0
}
"""


def test_erasing_an_op_erases_its_regions():
    module = parse(NESTED)
    module.verify()
    outer = next(iter(module.main.block))
    inside = [op for op in outer.walk() if op is not outer]
    erased: list[Op] = []
    changed: list[Op] = []
    rewriter = Rewriter(changed.append, erased.append)
    rewriter.replace(outer, module.main.block.parameters[1])
    assert set(erased) == {*inside, outer} and erased[-1] is outer
    assert module.main.block.terminator in changed
    assert list(module.main.block) == [module.main.block.terminator]
    b, x = module.main.block.parameters
    assert not b.uses and x.use_count == 1
    module.verify()


def test_rebuilding_an_op_moves_its_regions():
    module = parse(NESTED)
    outer = next(iter(module.main.block))
    _, x = module.main.block.parameters
    erased: list[Op] = []
    rewriter = Rewriter(on_erase=erased.append)
    with rewriter.before(outer):
        doubled = ops.add(x, x)
    types = tuple(value.type for value in outer.operands if value is not None)
    operands = (*outer.operands[:2], doubled)
    new = rewriter.rebuild(outer, operands, outer.definition.infer(types, outer.attributes, outer.regions))
    assert erased == [outer] and len(new.regions) == 2 and all(region.op is new for region in new.regions)
    module.verify()
    one = np.array([1, 2], np.float32)
    np.testing.assert_allclose(interpret(module, np.True_, one), np.exp(-2 * one), rtol=1e-6)


def test_listeners_hear_of_readers_and_of_producers_that_lost_one():
    module, function, values = wide_module(3)
    a, b, _ = map(producer, values)
    changed: list[Op] = []
    erased: list[Op] = []
    rewriter = Rewriter(changed.append, erased.append)
    with rewriter.before(function.block.terminator):
        total = producer(ops.add(values[0], values[1]))
    rewriter.erase(total)
    assert changed == [a, b] and erased == [total]
    changed.clear()
    rewriter.set_attributes(a, a.attributes)
    rewriter.set_operands(b, [values[0]])
    assert changed == [a, b]
    module.verify()


def test_parameters_are_removed_with_their_numbers():
    module = parse(
        """
func @f(%x: f32[] input, %y: f32[] input, %s: f32[] state) -> f32[] updates %s {
  return %s
}
""".replace("-> f32[] updates %s", "-> (f32[] updates %s)")
    )
    function = module.main
    Rewriter().remove_parameter(function, 0)
    assert [(p.name, p.value.index) for p in function.parameters] == [("y", 0), ("s", 1)]
    module.verify()
    Rewriter().set_operands(function.block.terminator, [function.block.parameters[0]])
    with pytest.raises(GraphcError, match="parameter 's' of @f is still updated by a result"):
        Rewriter().remove_parameter(function, 1)


def test_locations_are_kept_and_fused():
    module = parse("""
func @f(%x: f32[B] input) -> f32[B] {
  %0 = neg %x : f32[B] @ "m/a" f.py:1
  %1 = exp %0 : f32[B] @ "m/b#1" f.py:2
  return %1
}
""")
    negation, exponential, _ = module.main.block
    rewriter = Rewriter()
    with rewriter.before(exponential):
        made = producer(ops.log(negation.result))
    assert made.location is exponential.location
    made.location = fused(made.location, negation.location)
    assert str(made.location) == '"m" f.py:2 from "m/b#1" "m/a"'
    rebuilt = rewriter.rebuild(
        exponential, [made.result], exponential.definition.infer((made.result.type,), exponential.attributes)
    )
    assert rebuilt.location is Location.of(ROOT.child("m").child("b", 1), "f.py", 2)
    assert OPS["exp"].op_class is type(rebuilt) and rebuilt.result.type.shape == (symbol("B"),)
    module.verify()
