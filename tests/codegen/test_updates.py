"""What an optimizer does to a weight is a function in emitted code where that changes nothing, else it is inline."""

import numpy as np
import pytest

import graphc

HEAD = """
weight "a/w" : f32[2] = [1.0, 2.0]
weight "b/w" : f32[2] = [3.0, 4.0]

func @step(%x: f32[2] input, %rate: f32[] input, %a: f32[2] param "a/w", %b: f32[2] param "b/w") -> (
"""

PLAIN = """    f32[2], f32[2] updates %a, f32[2] updates %b) {
  %0 = mul %a, %b : f32[2]
  %1 = mul %x, %rate : f32[2] @ "optimizer/sgd/a/w"
  %2 = sub %a, %1 : f32[2] @ "optimizer/sgd/a/w"
  %3 = mul %x, %rate : f32[2] @ "optimizer/sgd/b/w"
  %4 = sub %b, %3 : f32[2] @ "optimizer/sgd/b/w"
  return %0, %2, %4
}
"""

READ_AFTERWARDS = """    f32[2], f32[2] updates %a) {
  %1 = mul %x, %rate : f32[2] @ "optimizer/sgd/a/w"
  %2 = sub %a, %1 : f32[2] @ "optimizer/sgd/a/w"
  %3 = mul %a, %2 : f32[2]
  return %3, %2
}
"""

RETURNED = """    f32[2], f32[2] updates %a) {
  %1 = mul %x, %rate : f32[2] @ "optimizer/sgd/a/w"
  %2 = sub %a, %1 : f32[2] @ "optimizer/sgd/a/w"
  return %a, %2
}
"""

NEW_RETURNED = """    f32[2, 1], f32[2] updates %a) {
  %1 = mul %x, %rate : f32[2] @ "optimizer/sgd/a/w"
  %2 = sub %a, %1 : f32[2] @ "optimizer/sgd/a/w"
  %3 = reshape %2 {shape = [2, 1]} : f32[2, 1]
  return %3, %2
}
"""

VIEWED = """    f32[2], f32[2] updates %a) {
  %0 = reverse %a {axes = [0]} : f32[2]
  %1 = reshape %a {shape = [2, 1]} : f32[2, 1]
  %2 = mul %x, %rate : f32[2] @ "optimizer/sgd/a/w"
  %3 = sub %a, %2 : f32[2] @ "optimizer/sgd/a/w"
  %4 = reshape %1 {shape = [1, 2]} : f32[1, 2]
  %5 = reduce_sum %4 {axes = [0]} : f32[2]
  %6 = add %5, %0 : f32[2]
  return %6, %3
}
"""

OF_ANOTHER = """    f32[2], f32[2] updates %a, f32[2] updates %b) {
  %1 = mul %b, %rate : f32[2] @ "optimizer/swap/a/w"
  %2 = sub %a, %1 : f32[2] @ "optimizer/swap/a/w"
  %3 = mul %a, %rate : f32[2] @ "optimizer/swap/b/w"
  %4 = sub %b, %3 : f32[2] @ "optimizer/swap/b/w"
  return %x, %2, %4
}
"""

TWO_STEPS = """    f32[2], f32[2] updates %a) {
  %1 = mul %a, %rate : f32[2] @ "optimizer/sgd/a/w"
  %2 = sub %a, %1 : f32[2] @ "optimizer/sgd/a/w"
  %3 = mul %a, %x : f32[2] @ "optimizer/sgd/a/w"
  %4 = sub %2, %3 : f32[2] @ "optimizer/sgd/a/w"
  return %x, %4
}
"""

CASES = {
    "plain": (PLAIN, 2),
    "read afterwards": (READ_AFTERWARDS, 0),
    "returned": (RETURNED, 0),
    "the new one returned": (NEW_RETURNED, 0),
    "a view read afterwards": (VIEWED, 0),
    "of another weight": (OF_ANOTHER, 1),
    "read between": (TWO_STEPS, 1),
}


@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("case", CASES)
def test_updates(case, target):
    """The results and the weights after three steps, and how many calls there are (which define nothing anew)."""
    text, calls = CASES[case]
    module = graphc.parse(HEAD + text)
    executable = graphc.compile(module, target=target, passes="")
    weights = {name: np.array(module.weights[name]) for name in ("a/w", "b/w")}
    x, rate = np.float32([0.5, -2.0]), np.float32(0.25)
    seen = []
    for _ in range(3):
        for name, array in weights.items():
            module.weights.set(name, array)
        wanted, *new = graphc.interpret(module, x, rate)
        updated = [result.updates.weight for result in module.main.results if result.updates is not None]
        weights |= dict(zip(updated, new, strict=True))
        found = executable(x, rate)
        seen.append((found, np.array(wanted)))
    for found, wanted in seen:
        np.testing.assert_array_equal(found, wanted)
    for name, array in weights.items():
        np.testing.assert_array_equal(executable.weights[name], array)
    source = executable.source
    assert source.count("sgd(") + source.count("swap(") == calls + (calls > 0)


def test_one_function_for_all_weights_and_in_place_in_torch():
    source = graphc.compile(graphc.parse(HEAD + PLAIN), target="torch", passes="").source
    assert "    parameter.addcmul_(gradient, rate, value=-1)\n" in source
    assert source.count("def sgd") == 1
    assert "copy_" not in source
