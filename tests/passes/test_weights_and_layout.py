"""Folding into weights keeps recipes that lead back; the digits network gets one transpose."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import bf16, f32
from graphc.ir.graph import Function, Result, Value
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module, Weight
from graphc.ir.types import TensorType
from graphc.passes.registry import run_passes

RNG = np.random.default_rng(0)


def weight(module: Module, function: Function, name: str, *shape: int, positive: bool = False) -> Value:
    array = RNG.normal(size=shape).astype(np.float32)
    entry = module.weights.add(name, np.abs(array) + 0.5 if positive else array)
    return function.add_parameter(entry.type, name.replace("/", "_"), "param", name)


def digits() -> Module:
    """The network of the examples, weights drawn."""
    module = Module()
    f = module.add_function("forward")
    x = f.add_parameter(TensorType.of(f32, (symbol("B"), 8, 8, 1)), "x")

    def conv(h: Value, name: str, channels: int, bias: bool = True) -> Value:
        kernel = weight(module, f, f"{name}/kernel", 3, 3, h.shape[-1], channels)
        with builder.scope(name):
            return ops.conv(h, kernel, weight(module, f, f"{name}/bias", channels) if bias else None, padding="same")

    with Builder(f.block) as builder:
        h = conv(x, "stem", 16, bias=False)
        mean, variance = weight(module, f, "bn/mean", 16), weight(module, f, "bn/variance", 16, positive=True)
        h = ops.batch_norm(h, mean, variance, weight(module, f, "bn/gamma", 16), weight(module, f, "bn/beta", 16))
        shortcut = h = ops.relu(h)
        h = conv(ops.relu(conv(h, "block_conv1", 16)), "block_conv2", 16)
        h = ops.max_pool(ops.relu(h + shortcut), window=(2, 2))
        h = ops.relu(conv(h, "head_conv", 32))
        h = ops.reduce_mean(h, axes=(1, 2))
        kernel, bias = weight(module, f, "logits/kernel", 32, 10), weight(module, f, "logits/bias", 10)
        builder.finish([ops.linear(h, kernel, bias)])
    f.results = [Result()]
    return module


def transposes(module: Module) -> list[tuple[str, str]]:
    return [(str(op.operands[0].type), str(op.location)) for op in module.walk() if op.name == "transpose"]


def test_the_digits_network_gets_one_transpose() -> None:
    module = digits()
    first = run_passes(module, "canonicalize,layout,canonicalize", check=True)
    assert transposes(first) == [("f32[B, 8, 8, 1]", "")]  # at the input, in no layer
    assert all(op.attribute_dict.get("channels_last") is not True for op in first.walk())
    images = RNG.normal(size=(3, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(interpret(first, images), interpret(module, images), rtol=1e-5, atol=1e-5)
    again = run_passes(first, "layout{channels_first=false},canonicalize", check=True)
    assert not transposes(again)


@pytest.mark.parametrize("deferred", [False, True])
def test_a_recipe_leads_from_the_stored_weight_to_the_source(deferred: bool) -> None:
    module = Module()
    f = module.add_function("main")
    array = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    if deferred:
        module.weights.declare(Weight("k", TensorType.of(f32, array.shape), load=lambda: array))
    else:
        module.weights.add("k", array)
    k = f.add_parameter(TensorType.of(f32, array.shape), "k", "param", "k")
    with Builder(f.block) as builder:
        turned = ops.reshape(ops.transpose(k, permutation=(2, 0, 1)), shape=(8, 3))
        builder.finish([ops.convert(turned, dtype=bf16)])
    f.results = [Result()]
    folded = run_passes(module, "fold_weights", check=True)
    assert [op.name for op in folded.walk()] == ["return"]
    recipe = folded.weights.info("k").recipe
    assert recipe is not None and recipe.sources == ("k",)
    stored = folded.weights["k"]
    assert stored.shape == (8, 3) and folded.weights.info("k").type is TensorType.of(bf16, (8, 3))
    np.testing.assert_array_equal(recipe.apply({"k": array}), stored)
    np.testing.assert_allclose(recipe.invert(stored)["k"], array, rtol=1e-2)
    assert module.weights["k"].shape == (2, 3, 4), "the source module keeps its weight"


def test_casts_that_round_otherwise_stay() -> None:
    module = Module()
    f = module.add_function("main")
    w = weight(module, f, "k", 3)
    with Builder(f.block) as builder:
        builder.finish([ops.convert(w, dtype="int32")])
    f.results = [Result()]
    assert "convert" in str(run_passes(module, "fold_weights"))
