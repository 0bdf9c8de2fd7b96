"""The driver of rules and the matcher of patterns: what is tried, how often, and that it ends."""

from __future__ import annotations

from typing import Any

import pytest

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dtypes import f32
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Result
from graphc.ir.module import Module
from graphc.ir.parser import parse
from graphc.ir.rewriter import WIDE
from graphc.ir.types import TensorType
from graphc.passes.canonicalize import RULES, canonicalize
from graphc.passes.driver import Driver, apply_rules, producer, rule
from graphc.passes.patterns import fusion


@rule(ops.neg, of=[ops.neg])
def negations_cancel(op: Any, rewriter: Any) -> Any:
    inner = producer(op.x, ops.neg)
    return None if inner is None else inner.x


def chain(count: int, kinds: Any = (ops.neg,)) -> Module:
    module = Module()
    function = module.add_function("main")
    value = function.add_parameter(TensorType.of(f32, (4,)), "x")
    with Builder(function.block) as builder:
        for i in range(count):
            value = kinds[i % len(kinds)](value)
        builder.finish([value])
    function.results = [Result()]
    return module


def size(module: Module) -> int:
    return sum(1 for _ in module.walk())


def test_a_chain_cancels_in_linear_work() -> None:
    visits: list[int] = []
    for count in (1000, 2000, 4000):
        module = chain(count)
        driver = Driver([negations_cancel])
        assert driver.run(module) == count // 2
        assert size(module) == 1
        visits.append(driver.visited)
    assert visits[2] < 4.2 * visits[0]


def test_a_rule_without_matches_visits_every_op_once_and_changes_nothing() -> None:
    module = chain(500, (ops.neg, ops.exp, ops.sin))
    before = str(module)
    driver = Driver([negations_cancel, *RULES])
    assert driver.run(module) == 0
    assert driver.visited == 501
    assert str(module) == before


def test_canonicalize_applies_rules_in_proportion() -> None:
    applied: list[int] = []
    for count in (500, 1000, 2000):
        driver = Driver(RULES)
        driver.run(chain(count, (ops.exp, ops.neg, ops.neg, ops.sin)))
        applied.append(driver.applied)
    assert applied[1] == 2 * applied[0] and applied[2] == 4 * applied[0]


def test_rules_that_undo_each_other_are_named() -> None:
    @rule(ops.sin)
    def there(op: Any, rewriter: Any) -> Any:
        return ops.cos(op.x)

    @rule(ops.cos)
    def and_back(op: Any, rewriter: Any) -> Any:
        return ops.sin(op.x)

    with pytest.raises(GraphcError, match=r"applied \d+ times and go on: (there, and_back|and_back, there)"):
        apply_rules(chain(3, (ops.sin,)), [there, and_back])


def test_a_rule_that_grows_the_graph_is_stopped() -> None:
    @rule(ops.sin)
    def grows(op: Any, rewriter: Any) -> Any:
        return ops.sin(ops.sin(op.x))

    with pytest.raises(GraphcError, match="grows"):
        apply_rules(chain(2, (ops.sin,)), [grows])


def test_regions_and_private_functions_are_reached() -> None:
    module = parse("""
func @main(%c: bool[] input, %x: f32[2] input) -> f32[2] {
  %0 = cond %c, %x (%a: f32[2]) {
    %1 = neg %a : f32[2]
    %2 = neg %1 : f32[2]
    yield %2
  }, (%a: f32[2]) {
    yield %a
  } : f32[2]
  %3 = call %0 {callee = @inner} : f32[2]
  return %3
}

private func @inner(%x: f32[2] input) -> f32[2] {
  %0 = neg %x : f32[2]
  %1 = neg %0 : f32[2]
  return %1
}
""")
    assert apply_rules(module, [negations_cancel]) == 2
    module.verify()
    assert "neg" not in str(module)


def test_new_ops_take_the_location_of_what_they_replace() -> None:
    module = parse("""
func @main(%x: f32[2] input) -> f32[2] {
  %named = sin %x : f32[2] @ "layer" model.py:3
  return %named
}
""")

    @rule(ops.sin)
    def spelled(op: Any, rewriter: Any) -> Any:
        return ops.neg(ops.cos(op.x))

    apply_rules(module, [spelled])
    first, second, _ = module.main.block
    assert str(first.location) == str(second.location) == '"layer" model.py:3'
    assert second.result.name == "named" and first.result.name is None


def test_a_result_of_another_type_is_refused() -> None:
    @rule(ops.sin)
    def wrong(op: Any, rewriter: Any) -> Any:
        return ops.convert(op.x, dtype="float64")

    with pytest.raises(GraphcError, match=r"sin: a result f32\[4\] cannot be replaced by f64\[4\]"):
        apply_rules(chain(1, (ops.sin,)), [wrong])


def test_an_op_of_very_many_operands_is_rewritten_right() -> None:
    module = Module()
    function = module.add_function("main")
    x = function.add_parameter(TensorType.of(f32, (1,)), "x")
    count = 2 * WIDE
    with Builder(function.block) as builder:
        parts = [ops.neg(ops.neg(x)) for _ in range(count)]
        builder.finish([ops.concat(*parts, axis=0), *parts])
    function.results = [Result() for _ in range(count + 1)]
    canonicalize(module)
    module.verify()
    concat, _ = function.block
    assert set(concat.operands) == {x}


# --- patterns -------------------------------------------------------------------------------------------------------


def matches(text: str, *fusions: Any) -> str:
    module = parse(text)
    apply_rules(module, list(fusions))
    module.verify()
    return str(module)


SILU = fusion(lambda x: x * ops.sigmoid(x), lambda x: ops.silu(x), name="silu")


def test_a_pattern_starts_from_its_rarest_op() -> None:
    assert SILU.definitions == (ops.sigmoid,)


def test_a_guard_decides() -> None:
    text = """
func @main(%x: f32[2] input) -> f32[2] {
  %0 = sigmoid %x : f32[2]
  %1 = mul %x, %0 : f32[2]
  return %1
}
"""
    assert "silu" in matches(text, SILU)
    never = fusion(lambda x: x * ops.sigmoid(x), lambda x: ops.silu(x), guard=lambda x: x.ndim == 2)
    assert "silu" not in matches(text, never)


def test_numbers_and_attributes_match() -> None:
    half = fusion(lambda x: ops.tanh(x * 0.5) * 0.5 + 0.5, lambda x: ops.sigmoid(x), name="half")
    text = """
func @main(%x: f32[2] input) -> f32[2] {{
  %half = constant {{value = {}}} : f32[]
  %0 = mul %half, %x : f32[2]
  %1 = tanh %0 : f32[2]
  %2 = mul %1, %half : f32[2]
  %3 = add %half, %2 : f32[2]
  return %3
}}
"""
    assert "sigmoid" in matches(text.format(0.5), half)
    assert "sigmoid" not in matches(text.format(0.25), half)

    def maximum_kept(x: Any, *, axis: Any) -> Any:
        return ops.reduce_max(ops.exp(x), axes=(axis,), keepdims=True)

    kept = fusion(maximum_kept, lambda x, *, axis: ops.exp(ops.reduce_max(x, axes=(axis,), keepdims=True)))
    body = (
        "func @main(%x: f32[2, 3] input) -> f32[{}] {{\n  %0 = exp %x : f32[2, 3]\n  %1 = reduce_max %0 {} : f32[{}]\n"
    )
    body += "  return %1\n}}"
    swapped = matches(body.format("2, 1", "{axes = [1], keepdims = true}", "2, 1"), kept)
    assert swapped.index("reduce_max") < swapped.index("exp")
    for shape, attributes in (("2", "{axes = [1]}"), ("1, 1", "{axes = [0, 1], keepdims = true}")):
        same = matches(body.format(shape, attributes, shape), kept)
        assert same.index("exp") < same.index("reduce_max")


def test_fusions_inside_the_result_of_fusions() -> None:
    text = """
func @main(%x: f32[2] input) -> f32[2] {
  %0 = sigmoid %x : f32[2]
  %1 = mul %x, %0 : f32[2]
  %2 = sigmoid %1 : f32[2]
  %3 = mul %1, %2 : f32[2]
  return %3
}
"""
    assert matches(text, SILU).count("silu") == 2


def test_a_pattern_that_is_no_expression_is_refused() -> None:
    with pytest.raises(TypeError, match="expression of ops"):
        fusion(lambda x: x, lambda x: x)
    with pytest.raises(TypeError, match="does not use its parameter 'y'"):
        fusion(lambda x, y: ops.exp(x), lambda x, y: x)
    with pytest.raises(TypeError, match="says nothing of the attribute 'axes'"):
        fusion(lambda x: ops.reduce_max(x), lambda x: x)
