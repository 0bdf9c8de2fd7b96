"""Every rule of the IR, broken by hand, is reported with the function and the op."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import Guard, symbol
from graphc.ir.errors import VerifyError
from graphc.ir.graph import Function, Op, Parameter, Result, Value
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.parser import parse
from graphc.ir.types import TensorType

TEXT = """
weight "w" : f32[3]

func @main(%x: f32[B, 3] input, %w: f32[3] param "w", %s: f32[B, 3] state) -> (f32[B, 3], f32[B, 3] updates %s) {
  %sum = add %x, %w : f32[B, 3] @ "layer" model.py:3
  %same = add %sum, %sum : f32[B, 3]
  %0 = constant {value = true, dtype = bool} : bool[]
  %1 = cond %0, %same (%p: f32[B, 3]) {
    %in = neg %p : f32[B, 3]
    yield %in
  }, (%q: f32[B, 3]) {
    yield %q
  } : f32[B, 3]
  %2 = call %1 {callee = @block} : f32[B, 3]
  return %2, %same
}

private func @block(%y: f32[N, 3] input) -> f32[N, 3] {
  %3 = exp %y : f32[N, 3]
  return %3
}
"""

T = TensorType.of


class Graph:
    """The module of `TEXT`, with its ops by name."""

    def __init__(self) -> None:
        self.module = parse(TEXT)
        self.main, self.block = self.module.functions.values()
        self.add, self.same, self.constant, self.cond, self.call, self.end = self.main.block
        self.neg = next(iter(self.cond.regions[0].block))
        self.x, self.w, self.s = self.main.parameters


def test_what_is_broken_below_is_right():
    Graph().module.verify()


def retyped(op: Op, type: TensorType) -> None:
    op.result.type = type


def build_after(graph: Graph, make: Callable[[], Value]) -> Value:
    with Builder(graph.main.block, graph.end):
        return make()


def add_bound_twice(g: Graph) -> None:
    g.main.add_parameter(T("f32", (symbol("B", 0),)), "other")


def add_unbound(g: Graph) -> None:
    g.main.add_parameter(T("f32", (symbol("M") * symbol("K"),)), "other")


def unlink(g: Graph) -> None:
    g.same.prev = None


def cyclic_list(g: Graph) -> None:
    g.same.next = g.add


def late_operand(g: Graph) -> None:
    g.main.block.remove(g.add)
    g.add.prev = g.add.next = None
    g.main.block.insert_before(g.end, g.add)


def erased_operand(g: Graph) -> None:
    g.main.block.remove(g.add)


def operand_of_another_block(g: Graph) -> None:
    inner = g.neg.result
    g.call.operands = (inner,)
    inner.uses = {**(inner.uses or {}), g.call: 1}
    g.cond.result.uses = None


def missing_use(g: Graph) -> None:
    g.x.value.uses = None


def wrong_count(g: Graph) -> None:
    g.add.result.uses = {g.same: 1}


def stale_use(g: Graph) -> None:
    g.x.value.uses = {g.add: 1, g.end: 1}


def stale_use_of_result(g: Graph) -> None:
    g.constant.result.uses = {g.cond: 1, g.call: 1}


def middle_terminator(g: Graph) -> None:
    with Builder(g.main.block, g.call):
        OPS["return"].build(Builder(g.main.block, g.call), [g.add.result])


def no_terminator(g: Graph) -> None:
    g.main.block.remove(g.end)


def no_yield(g: Graph) -> None:
    block = g.cond.regions[0].block
    block.remove(block.terminator)


def calls_itself(g: Graph) -> None:
    with Builder(g.block.block, g.block.block.terminator) as builder:
        ops.call_function(builder, g.main, [g.block.parameters[0].value, g.w.value, g.x.value])


BROKEN: dict[str, tuple[Callable[[Graph], object], str]] = {
    # functions
    "filed under another name": (lambda g: setattr(g.main, "name", "other"), "@other: is filed under 'main'"),
    "of another module": (lambda g: setattr(g.main, "module", None), "@main: is filed under 'main'"),
    "no identifier": (lambda g: setattr(g.main, "name", "a b"), "@a b: its name is no identifier"),
    "parameters differ": (lambda g: g.main.parameters.pop(), "@main: parameters and block parameters differ"),
    "role": (lambda g: setattr(g.x, "role", "thing"), "@main: parameter 'x' has the role 'thing'"),
    "two parameters of a name": (
        lambda g: setattr(g.w.value, "name", "x"),
        "@main: two parameters are called 'x'",
    ),
    "param without weight": (
        lambda g: setattr(g.w, "weight", None),
        "@main: parameter 'w' of role param names no weight",
    ),
    "no such weight": (lambda g: setattr(g.w, "weight", "v"), "@main: parameter 'w' names the weight 'v'"),
    "weight's type": (
        lambda g: setattr(g.module.weights.info("w"), "type", T("f32", (4,))),
        "@main: parameter 'w' is f32[3], its weight is f32[4]",
    ),
    "number of results": (lambda g: g.main.results.pop(), "@main: declares 1 result and returns 2"),
    "result's name": (
        lambda g: setattr(g.main.results[0], "name", "y:0"),
        "@main: the name 'y:0' of a result is no identifier",
    ),
    "updates no parameter": (
        lambda g: setattr(g.main.results[0], "updates", Parameter(g.s.value)),
        "@main: a result updates something that is no parameter",
    ),
    "updates another type": (
        lambda g: setattr(g.main.results[0], "updates", g.w),
        "@main: a result of type f32[B, 3] updates 'w' of type f32[3]",
    ),
    "updates an input": (
        lambda g: setattr(g.main.results[0], "updates", g.x),
        "@main: a result updates 'x', which is an input",
    ),
    "updates twice": (lambda g: setattr(g.main.results[0], "updates", g.s), "@main: two results update 's'"),
    "recursion": (calls_itself, "@block: calls @main, and so itself"),
    # symbols
    "unbound in a parameter": (add_unbound, "@main: the symbol K in the parameters is bound by no parameter"),
    "two symbols of a name": (add_bound_twice, "@main: two symbols are called B"),
    "unbound in a guard": (
        lambda g: g.main.add_guard(Guard("<=", symbol("K"), 3)),
        "@main: the symbol K in the guard K <= 3 is bound by no parameter",
    ),
    "unbound in an attribute": (
        lambda g: build_after(g, lambda: ops.dim_size(size=symbol("K"))),
        "@main, dim_size: the symbol K in its attributes is bound by no parameter",
    ),
    "unbound in a result": (
        lambda g: retyped(g.add, T("f32", (symbol("K"), 3))),
        '@main, add at "layer" model.py:3: the symbol K in f32[K, 3] is bound by no parameter',
    ),
    # blocks
    "no return": (no_terminator, "@main, call: the block does not end with return"),
    "no yield": (no_yield, "@main, neg: the block does not end with yield"),
    "return in the middle": (middle_terminator, "@main, return: stands in the middle of its block"),
    "block parameter's index": (
        lambda g: setattr(g.w.value, "index", 0),
        "@main: parameter 1 of a block does not know its block",
    ),
    "not linked back": (unlink, "@main, add: is not linked to its neighbours"),
    "in another block": (lambda g: setattr(g.same, "block", g.block.block), "@main, add: is not linked to its neigh"),
    "order": (lambda g: setattr(g.same, "order", -1), "@main, add: its order number does not grow"),
    "linked in a circle": (cyclic_list, "its order number does not grow"),
    "region's op": (lambda g: setattr(g.cond.regions[0], "op", g.add), "@main, cond: does not own its region"),
    # values
    "read before it is made": (late_operand, "@main, add: reads %sum, which does not stand before it"),
    "read after it was erased": (erased_operand, "@main, add: reads %sum, which does not stand before it"),
    "read from another block": (operand_of_another_block, "@main, call: reads %in, which does not stand before it"),
    "no use": (missing_use, "is not counted right among the uses of %x"),
    "uses counted wrong": (wrong_count, "@main, add: is not counted right among the uses of %sum"),
    "a stale use of a parameter": (stale_use, "@main: %x counts a use by return, which does not read it"),
    "a stale use of a result": (
        stale_use_of_result,
        "@main, constant: a value of type bool[] counts a use by call, which does not read it",
    ),
    "result's owner": (
        lambda g: setattr(g.neg.result, "owner", g.add),
        "@main, neg: does not own its result %in",
    ),
    "value's name": (
        lambda g: setattr(g.add.result, "name", "sum:0"),
        "model.py:3: the name 'sum:0' of a result is no identifier",
    ),
    # types
    "result's type": (
        lambda g: retyped(g.same, T("f32", (symbol("B"), 4))),
        "@main, add: its result is f32[B, 4], its type rule gives f32[B, 3]",
    ),
    "operands' types": (
        lambda g: setattr(g.w.value, "type", T("i32", (3,))),
        "model.py:3: add needs operands of one dtype, not float32 and int32",
    ),
    "too many results": (
        lambda g: setattr(g.same, "results", (*g.same.results, Value(T("f32"), g.same, 1))),
        "@main, add: has 2 results, its type rule gives 1",
    ),
    "an operand that is not optional": (
        lambda g: setattr(g.same, "operands", (g.add.result, None)),
        "@main, add: add misses the operand y",
    ),
    "attributes": (lambda g: setattr(g.constant, "attributes", ()), "@main, constant: has 0 attributes, it declares 2"),
    "attributes of another kind": (
        lambda g: setattr(g.constant, "attributes", (True, 7)),
        "@main, constant: its type rule does not take its operands and attributes",
    ),
    "type in a region": (
        lambda g: retyped(g.neg, T("i32", (symbol("B"), 3))),
        "@main, neg: its result is i32[B, 3], its type rule gives f32[B, 3]",
    ),
    "no such callee": (lambda g: g.module.functions.pop("block"), "@main, call: calls @block, which there is not"),
    "callee's parameters": (
        lambda g: setattr(g.block.parameters[0].value, "type", T("f32", (symbol("N"), 4))),
        "@main, call: input 'y' of @block has shape [B, 3]; it must be [N, 4]",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rules_are_reported(name: str):
    breaks, message = BROKEN[name]
    graph = Graph()
    breaks(graph)
    with pytest.raises(VerifyError) as caught:
        graph.module.verify()
    assert message in str(caught.value)


def test_symbols_are_bound_by_linear_sizes_and_by_ops():
    parse("""
func @f(%x: f32[2*S + 1] input, %y: f32[S*T] input) -> f32[T] {
  %0 = iota {shape = [T], dtype = f32} : f32[T]
  return %0
}
""").verify()
    used_above = parse("""
func @f(%x: f32[B] input, %n: i32[] input) -> f32[K] {
  %0 = assume_dim %x, %n {axis = 0, size = K} : f32[K]
  %1 = neg %0 : f32[K]
  return %1
}
""")
    used_above.verify()
    first, second, _ = used_above.main.block
    first.attributes, first.result.type = first.definition.make_attributes(axis=0, size=4), T("f32", (4,))
    with pytest.raises(VerifyError, match="@f, neg: the symbol K in "):
        used_above.verify()
    assert second.result.type.shape == (symbol("K"),)


GUARDED = """
func @f(%x: f32[A, 3] input, %y: f32[C, 3] input) -> f32[A, 3] {
  %0 = add %x, %y : f32[A, 3]
  %1 = neg %0 : f32[A, 3]
  return %1
}
"""


def test_sizes_that_differ_need_a_guard_that_makes_them_equal():
    module = parse(GUARDED)
    _, neg, _ = module.main.block
    neg.result.type = T("f32", (symbol("C"), 3))
    module.verify()  # A == C was left by the addition
    neg.result.type = T("f32", (symbol("C") * 2 - symbol("A"), 3))
    module.verify()
    module.main.guards.clear()
    with pytest.raises(VerifyError) as caught:
        module.verify()
    assert "@f, add: needs A == C, which no guard of the function says" in str(caught.value)
    assert "@f, neg: its result is f32[2*C - A, 3], its type rule gives f32[A, 3]" in str(caught.value)


def test_guards_may_say_the_same_in_other_words():
    module = parse(GUARDED)
    a, b, c = (symbol(name) for name in "ABC")
    module.main.add_parameter(T("f32", (b,)), "z")
    for guards, right in (
        ([Guard("==", c, a)], True),
        ([Guard("==", a, b), Guard("==", b, c)], True),
        ([Guard("==", a, 2 * b), Guard("==", c, 2 * b)], True),
        ([Guard("==", a, b)], False),
        ([Guard("<=", a, c)], False),
    ):
        module.main.guards = dict.fromkeys(guards)
        if right:
            module.verify()
        else:
            with pytest.raises(VerifyError, match="needs A == C"):
                module.verify()


def test_many_problems_are_counted():
    module = Module()
    function = module.add_function("f")
    x = function.add_parameter(T("f32"), "x")
    with Builder(function.block) as builder:
        value = x
        for _ in range(50):
            value = ops.neg(value)
        builder.finish([value])
    function.results = [Result()]
    module.verify()
    for op in function.block:
        for value in op.results:
            value.name = "a b"
    with pytest.raises(VerifyError, match="and 30 more") as caught:
        module.verify()
    assert str(caught.value).count("\n") == 21


def test_a_function_of_no_ops_is_reported():
    module = Module()
    assert isinstance(module.add_function("f"), Function)
    with pytest.raises(VerifyError, match="@f: the block does not end with return"):
        module.verify()
