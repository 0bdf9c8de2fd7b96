"""Weights are stored as the target's layers take them: what only moves a weight is done once, not in every call."""

import numpy as np
import pytest

import graphc
from graphc import Input, Model, layers


def depthwise():
    graphc.utils.set_random_seed(1)
    x = Input((8, 8, 3))
    return Model(x, layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, name="depthwise")(x))


def test_a_depthwise_convolution_is_a_layer_of_torch():
    executable = graphc.compile(depthwise(), target="torch")
    assert "self.depthwise = nn.Conv2d(3, 6, 3, stride=2, groups=3)" in executable.source
    assert ".reshape" not in executable.source
    assert executable.manifest.weights["depthwise.weight"].sources == ("depthwise/kernel",)


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_it_computes_the_same(target):
    model = depthwise()
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    wanted = graphc.interpret(graphc.lower(model), x, dtype="float64")
    np.testing.assert_allclose(graphc.compile(model, target=target)(x), wanted, atol=1e-5)


UPDATED = """
weight "w" : f32[2, 3] = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]

func @step(%x: f32[3, 2] input, %w: f32[2, 3] param "w") -> (f32[3, 2], new: f32[2, 3] updates %w) {
  %0 = transpose %w {permutation = [1, 0]} : f32[3, 2]
  %1 = add %0, %x : f32[3, 2]
  %2 = transpose %1 {permutation = [1, 0]} : f32[2, 3]
  return %1, %2
}
"""


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_a_weight_that_is_updated_in_another_layout(target):
    executable = graphc.compile(graphc.parse(UPDATED), target=target)
    first, one = np.float32([[1, 4], [2, 5], [3, 6]]), np.ones((3, 2), np.float32)
    for step in (1, 2, 3):
        np.testing.assert_array_equal(executable(one), first + step)


KERNEL = """
weight "k" : f32[2, 2, 1, 3] = [[[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]], [[[7.0, 8.0, 9.0]], [[10.0, 11.0, 12.0]]]]
weight "m" : f32[2, 2, 1, 3] = [[[[0.5, 0.0, 0.0]], [[0.0, 0.0, 0.0]]], [[[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.25]]]]

func @step(%x: f32[1, 3, 3, 1] input, %dy: f32[1, 2, 2, 3] input, %k: f32[2, 2, 1, 3] param "k",
    %m: f32[2, 2, 1, 3] param "m") -> (f32[1, 2, 2, 3], f32[], f32[2, 2, 1, 3] updates %k, f32[2, 2, 1, 3] updates %m) {
  %y = convolution %x, %k : f32[1, 2, 2, 3]
  %g = convolution_kernel_gradient %dy, %x {shape = [2, 2, 1, 3]} : f32[2, 2, 1, 3]
  %v = add %m, %g : f32[2, 2, 1, 3]
  %n = sub %k, %v : f32[2, 2, 1, 3]
  %s = reduce_sum %v {axes = [0, 1, 2, 3]} : f32[]
  return %y, %s, %n, %v
}
"""


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_an_updated_kernel_and_its_slot_keep_the_layout_of_the_source_outside(target):
    module = graphc.parse(KERNEL)
    executable, rng = graphc.compile(module, target=target), np.random.default_rng(0)
    kernel, slot = (module.weights[name].copy() for name in "km")
    for _ in range(2):
        x, dy = (rng.integers(-2, 3, shape).astype(np.float32) for shape in ((1, 3, 3, 1), (1, 2, 2, 3)))
        windows = np.lib.stride_tricks.sliding_window_view(x[0, :, :, 0], (2, 2))
        y, total = executable(x, dy)
        np.testing.assert_array_equal(y[0], np.einsum("hwij,ijf->hwf", windows, kernel[:, :, 0]))
        slot = slot + np.einsum("hwij,hwf->ijf", windows, dy[0])[:, :, None]
        kernel = kernel - slot
        assert total == slot.sum()
        np.testing.assert_array_equal(executable.weights["k"], kernel)
        np.testing.assert_array_equal(executable.weights["m"], slot)
    executable.weights["k"] = kernel = np.ascontiguousarray(kernel[::-1])
    np.testing.assert_array_equal(executable(x, dy)[0][0], np.einsum("hwij,ijf->hwf", windows, kernel[:, :, 0]))


def test_torch_steps_rearrange_no_kernel():
    assert ".permute(3, 2, 0, 1)" not in graphc.compile(graphc.parse(KERNEL), target="torch").source


ALIASES = """
weight "a" : f32[2] = [1.0, 2.0]
weight "b" : f32[2] = [3.0, 4.0]
weight "c" : f32[2] = [5.0, 6.0]

func @step(%x: f32[] input, %a: f32[2] param "a", %b: f32[2] param "b", %c: f32[2] param "c") -> (
    f32[2], f32[2] updates %a, f32[2] updates %b, f32[2], f32[2] updates %c) {
  %0 = add %a, %x : f32[2]
  return %0, %0, %0, %c, %b
}
"""


CROSSED = """
weight "a" : f32[2, 2] = [[1.0, 2.0], [3.0, 4.0]]
weight "b" : f32[2, 2] = [[5.0, 6.0], [7.0, 8.0]]
weight "c" : f32[2, 2] = [[0.0, 1.0], [2.0, 3.0]]

func @step(%x: f32[] input, %a: f32[2, 2] param "a", %b: f32[2, 2] param "b", %c: f32[2, 2] param "c") -> (
    f32[2, 2] updates %a, f32[2, 2] updates %b, f32[2, 2] updates %c, f32[2, 2]) {
  %0 = transpose %a {permutation = [1, 0]} : f32[2, 2]
  %1 = sub %a, %0 : f32[2, 2]
  %2 = mul %a, %x : f32[2, 2]
  %3 = add %b, %2 : f32[2, 2]
  %4 = mul %0, %x : f32[2, 2]
  %5 = add %3, %4 : f32[2, 2]
  %6 = sub %c, %5 : f32[2, 2]
  return %1, %3, %6, %5
}
"""


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_new_values_read_the_old_ones_of_other_weights(target):
    module = graphc.parse(CROSSED)
    executable = graphc.compile(module, target=target)
    two = np.float32(2)
    for _ in range(3):
        *wanted, result = graphc.interpret(module, two)
        np.testing.assert_array_equal(executable(two), result)
        for name, want in zip("abc", wanted, strict=True):
            module.weights.set(name, want)
            np.testing.assert_array_equal(executable.weights[name], want)


def test_torch_updates_weights_in_place():
    source = graphc.compile(graphc.parse(CROSSED), target="torch").source
    assert "self.c.sub_(" in source
    assert "self.a.copy_(" in source  # what is subtracted lies in its memory


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_results_and_weights_that_are_one_value_are_arrays_apart(target):
    """What a call returned stays as it was, though weights are donated or written in place in later calls."""
    executable = graphc.compile(graphc.parse(ALIASES), target=target)
    returned = [executable(np.float32(1)) for _ in range(3)]
    np.testing.assert_array_equal([new for new, _ in returned], [[2, 3], [3, 4], [4, 5]])
    np.testing.assert_array_equal([c for _, c in returned], [[5, 6], [3, 4], [2, 3]])
    for name, want in {"a": [4, 5], "b": [4, 5], "c": [3, 4]}.items():
        np.testing.assert_array_equal(executable.weights[name], want)
