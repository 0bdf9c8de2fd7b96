"""Legalisation: what is kept, what is decomposed, what is inlined, and what is reported."""

from __future__ import annotations

import pytest

from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.graph import Op
from graphc.ir.parser import parse
from graphc.passes.legalize import legalize

TEXT = """
func @main(%x: f32[B, 4] input, %w: f32[4, 4] input) -> f32[B, 4] {
  %0 = linear %x, %w, _ : f32[B, 4] @ "dense"
  %h = silu %0 : f32[B, 4] @ "dense/activation"
  %1 = call %h {callee = @block} : f32[B, 4] @ "block"
  return %1
}

private func @block(%y: f32[N, 4] input) -> f32[N, 4] {
  %0 = softmax %y : f32[N, 4] @ "attention"
  %1 = call %0 {callee = @inner} : f32[N, 4]
  return %1
}

private func @inner(%y: f32[N, 4] input) -> f32[N, 4] {
  %0 = erf %y : f32[N, 4]
  return %0
}
"""


def but(*names: str):
    return lambda op: op.name not in names


def test_what_is_supported_stays() -> None:
    module = parse(TEXT)
    before = str(module)
    legalize(module, lambda op: True)
    assert str(module) == before


def test_composites_are_decomposed_from_the_top() -> None:
    module = parse("""
func @main(%x: f32[B, 4] input) -> f32[B, 4] {
  %0 = layer_norm %x, _, _ : f32[B, 4] @ "norm"
  return %0
}
""")
    legalize(module, but("layer_norm"))
    module.verify()
    names = [op.name for op in module.main.walk()]
    assert "reduce_mean" in names and "reduce_sum" not in names  # what is supported is not looked into
    legalize(module, but("reduce_mean"))
    assert "reduce_sum" in [op.name for op in module.main.walk()]
    assert {str(op.location) for op in module.main.block if op.next is not None} == {'"norm"'}


def test_unsupported_calls_are_inlined_and_unreached_functions_go() -> None:
    module = parse(TEXT)
    legalize(module, but("call"))
    module.verify()
    assert list(module.functions) == ["main"]
    scopes = {op.name: str(op.location) for op in module.main.block}
    assert scopes["softmax"] == '"block/attention"'


def test_everything_that_is_lacking_is_listed_at_once() -> None:
    module = parse(TEXT)
    with pytest.raises(UnsupportedError) as error:
        legalize(module, but("erf", "silu", "sigmoid"), "the target 'toy'")
    message = str(error.value)
    assert message.startswith("the target 'toy' lacks these ops, which do not decompose; `graphc ops ")
    assert 'sigmoid(f32[B, 4]) -> f32[B, 4] in silu at "dense/activation"' in message
    assert "erf(f32[N, 4]) -> f32[N, 4]" in message


def test_support_may_depend_on_types_and_attributes() -> None:
    def last_axis_only(op: Op) -> bool:
        return op.name != "softmax" or op.attribute_dict["axis"] in (-1, op.results[0].ndim - 1)

    module = parse("""
func @main(%x: f32[B, 4] input) -> f32[B, 4] {
  %0 = softmax %x : f32[B, 4]
  %1 = softmax %0 {axis = 0} : f32[B, 4]
  return %1
}
""")
    legalize(module, last_axis_only)
    assert [op.name for op in module.main.walk()].count("softmax") == 1


def test_regions_are_legalised() -> None:
    module = parse("""
func @main(%c: bool[] input, %x: f32[B] input) -> f32[B] {
  %0 = cond %c, %x (%a: f32[B]) {
    %1 = silu %a : f32[B]
    yield %1
  }, (%a: f32[B]) {
    yield %a
  } : f32[B]
  return %0
}
""")
    legalize(module, but("silu"))
    module.verify()
    assert "sigmoid" in str(module) and "silu" not in str(module)


def test_recursion_is_refused() -> None:
    module = parse(TEXT.replace("%0 = erf %y : f32[N, 4]", "%0 = call %y {callee = @inner} : f32[N, 4]"))
    with pytest.raises(GraphcError, match="functions call each other in a circle: @inner → @inner"):
        legalize(module, lambda op: True)
