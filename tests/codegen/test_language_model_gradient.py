"""The gradient of a small language model (embedding, rope, grouped attention, dropout, cross-entropy), as IR: against
central differences, and on every target against the reference."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

from graphc.codegen import targets
from graphc.codegen.compiler import write_artifact
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import DType, f32, f64, i32, u32
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.types import TensorType
from graphc.passes.autodiff import differentiate

VOCABULARY, WIDTH, HEADS, GROUPS, SIZE = 11, 8, 4, 2, 4
WEIGHTS = {"table": (VOCABULARY, WIDTH), "wq": (WIDTH, 16), "wk": (WIDTH, 8), "wv": (WIDTH, 8), "wo": (16, WIDTH)}
KEY = np.array([3, 2**31 + 9], np.uint32)
RNG = np.random.default_rng(0)
ARRAYS = {name: 0.5 * RNG.standard_normal(shape) for name, shape in WEIGHTS.items()}
IDS = RNG.integers(0, VOCABULARY, (3, 6)).astype(np.int32)
LABELS = np.where(RNG.random((3, 6)) < 0.2, -100, np.roll(IDS, -1, 1)).astype(np.int32)


@cache
def model(dtype: DType = f32) -> Module:
    """`main` returns the loss, `value_and_grad` its gradients too. Weights are inputs, the head is the table."""
    module = Module()
    function = module.add_function("main")
    batch, places = symbol("B"), symbol("T")
    ids, labels = (function.add_parameter(TensorType.of(i32, (batch, places)), name) for name in ("ids", "labels"))
    key = function.add_parameter(TensorType.of(u32, (2,)), "key")
    w = {name: function.add_parameter(TensorType.of(dtype, shape), name) for name, shape in WEIGHTS.items()}
    with Builder(function.block) as builder:
        x = ops.dropout(ops.embedding(w["table"], ids), key, rate=0.2)
        cos, sin = ops.rope_tables(ops.iota(shape=(places,)), size=SIZE)

        def heads(kernel, count):
            return ops.reshape(ops.linear(x, kernel), shape=(batch, places, count, SIZE))

        q = ops.rope(heads(w["wq"], HEADS), cos, sin)
        k = ops.rope(heads(w["wk"], GROUPS), cos, sin)
        y = ops.attention(q, k, heads(w["wv"], GROUPS), causal=True)
        x = x + ops.linear(ops.reshape(y, shape=(batch, places, HEADS * SIZE)), w["wo"])
        logits = ops.linear(ops.rms_norm(x), ops.transpose(w["table"], permutation=(1, 0)))
        losses = ops.sparse_cross_entropy(logits, labels, ignore_index=-100)
        loss = ops.reduce_mean(losses, axes=(0, 1))
        function.results.append(Result("loss"))
        builder.finish([loss])
    differentiate(module, wrt=list(WEIGHTS))
    module.verify()
    return module


def arrays(dtype: type = np.float64) -> list[np.ndarray]:
    return [IDS, LABELS, KEY, *(array.astype(dtype) for array in ARRAYS.values())]


def test_the_gradient_is_the_derivative() -> None:
    _, *gradients = interpret(model(f64), *arrays(), entry="value_and_grad")
    for trial in range(3):
        directions = [np.random.default_rng(trial).standard_normal(shape) for shape in WEIGHTS.values()]

        def loss(step: float, directions=directions) -> float:
            moved = [a + step * d for a, d in zip(ARRAYS.values(), directions, strict=True)]
            return float(interpret(model(f64), IDS, LABELS, KEY, *moved, entry="main"))

        measured = (loss(1e-5) - loss(-1e-5)) / 2e-5
        declared = sum(float(np.sum(g * d)) for g, d in zip(gradients, directions, strict=True))
        assert abs(measured - declared) <= 1e-7 * (1 + abs(measured))


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "onnx"])
def test_targets_agree(name: str, tmp_path: Path) -> None:
    needs(name)
    wanted = interpret(model(), *arrays(), dtype="float64", entry="value_and_grad")
    write_artifact(model(), name, tmp_path / "artifact", passes="canonicalize,cse,dce")
    found = targets()[name].load(tmp_path / "artifact").entries["value_and_grad"](*arrays(np.float32))
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6)
