"""Ops that name functions besides `call`: their types, in text and in the verifier."""

import pytest

import graphc
from graphc.ir.errors import ParseError, VerifyError

CUSTOM = """
private func @g(%x: f32[N, 2] input) -> (f32[N, 2], f32[N]) {{
  %y = sin %x : f32[N, 2]
  %r = reduce_sum %x {{axes = [1]}} : f32[N]
  return %y, %r
}}
private func @g_gradient(
    %x: f32[N, 2] input, %y: f32[N, 2] input, %r: f32[N] input, %dy: f32[N, 2] input
) -> f32[{size}] {{
  return %{returned}
}}
func @f(%x: f32[B, 2] input) -> f32[B, 2] {{
  %y, %r = custom_gradient %x {{{attributes}, outputs = {outputs}, wrt = [{wrt}]}} : f32[B, 2], f32[B]
  return %y
}}
"""
GOOD = {"size": "N, 2", "returned": "dy", "outputs": 1, "wrt": 0, "attributes": "function = @g, gradient = @g_gradient"}


def test_text_both_ways():
    module = graphc.parse(CUSTOM.format(**GOOD))
    module.verify()
    assert str(graphc.parse(str(module))) == str(module)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attributes": "function = @g, gradient = @h"}, r"there is no function @h"),
        ({"size": "N", "returned": "r"}, r"@g_gradient returns f32\[B\] for an argument that is f32\[B, 2\]"),
        ({"outputs": 3}, r"@g has 2 results, 3 of them cannot be its outputs"),
        ({"outputs": 2}, r"@g_gradient takes 4 arguments, 5 were passed"),
        ({"wrt": "0, 0"}, r"@g_gradient returns 1 cotangent for 2 arguments"),
        ({"wrt": 1}, r"@g has 1 argument; there is no number 1"),
    ],
)
def test_what_does_not_fit_is_said(changed, message):
    with pytest.raises(ParseError, match=message):
        graphc.parse(CUSTOM.format(**(GOOD | changed)))


def test_the_verifier_follows_both_functions():
    module = graphc.parse(CUSTOM.format(**GOOD))
    del module.functions["g_gradient"]
    with pytest.raises(VerifyError, match=r"calls @g_gradient, which there is not"):
        module.verify()


NATIVE = """
private func @loss(%x: {type} input, %n: i32[] input) -> {result} {{
  %y = reduce_sum %x {{axes = [0]}} : {result}
  return %y
}}
func @f(%x: {type} input, %n: i32[] input) -> {type} {{
  %y, %dx = native_gradient %x, %n {{function = @loss, wrt = [{wrt}]}} : {result}, {type}
  return %dx
}}
"""


@pytest.mark.parametrize(
    ("type", "result", "wrt", "message"),
    [
        ("f32[B, 2]", "f32[2]", 0, r"a gradient is of a real scalar, @loss returns f32\[2\]"),
        ("i32[B]", "i32[]", 0, r"a gradient is of a real scalar, @loss returns i32\[\]"),
        ("f32[B]", "f32[]", 1, r"argument 1 of @loss is i32\[\]; a gradient is by floats"),
    ],
)
def test_native_gradients_are_typed(type, result, wrt, message):
    with pytest.raises(ParseError, match=message):
        graphc.parse(NATIVE.format(type=type, result=result, wrt=wrt))
    graphc.parse(NATIVE.format(type="f32[B]", result="f32[]", wrt=0)).verify()
