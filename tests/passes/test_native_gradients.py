"""`gradients="native"` against the IR's own gradient on torch and jax: a training forward pass with dropout and batch
normalization, whose masks have the same bits, and whose new averages are handed out and kept. In float64, where a
wrong term cannot hide in rounding."""

import numpy as np
import pytest

import graphc
from graphc import layers, ops
from graphc.ir.builder import Builder
from graphc.ir.graph import Result
from graphc.ir.rewriter import Rewriter
from graphc.passes.autodiff import differentiate

X = np.linspace(-2, 2, 8 * 6 * 6 * 3).reshape(8, 6, 6, 3)
LABELS = np.arange(8, dtype=np.int32) % 5
KEY = np.array([3, 4], np.uint32)


def network():
    x = graphc.Input((6, 6, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.MaxPooling2D(2)(y)
    y = layers.Dropout(0.5, name="drop")(y)
    y = layers.Flatten()(y)
    y = layers.Dense(8, activation="gelu", name="dense")(y)
    y = layers.Dropout(0.25, name="drop_2")(y)
    return graphc.Model(x, layers.Dense(5, name="logits")(y))


def tokens():
    x = graphc.Input((7,), dtype="int32", name="tokens")
    y = layers.Embedding(11, 8, name="embedding")(x)
    y = y + layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(y, y, use_causal_mask=True)
    y = layers.LayerNormalization(name="norm")(y)
    y = layers.Dropout(0.5, name="drop")(y)
    return graphc.Model(x, layers.Dense(5, name="logits")(ops.mean(y, axis=1)))


def step(model, gradients):
    """A module that returns the loss, the gradients of the trainable weights, the logits, and new averages."""
    module = graphc.lower(model, training=True)
    function = module.main
    labels = function.add_parameter(
        graphc.trace(lambda y: y, graphc.Spec(("B",), "int32")).main.parameters[0].type, "y"
    )
    terminator = function.block.terminator
    with Builder(function.block, terminator):
        losses = ops.sparse_categorical_crossentropy(labels, function.outputs[0], from_logits=True)
        loss = ops.mean(losses)
    Rewriter().set_operands(terminator, [loss, *function.outputs])
    function.results = [Result("loss"), *function.results]
    names = [p.weight for p in function.parameters if p.role == "param"]
    found = differentiate(module, wrt=names, name="step", gradients=gradients)
    del module.functions["forward"]
    assert found.public
    module.verify()
    return module


@pytest.fixture
def doubles():
    """Layers that are made have float64 weights and compute in float64."""
    graphc.config.set_dtype_policy("float64")
    yield
    graphc.config.set_dtype_policy("float32")


@pytest.mark.parametrize("target", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("make", "x"), [(network, X), (tokens, np.arange(56, dtype=np.int32).reshape(8, 7) % 11)])
def test_a_training_step_with_dropout(make, x, target, doubles):
    model = make()
    assert {str(weight.dtype) for weight in model.weights} == {"float64"}
    exes = [graphc.compile(step(model, gradients), target) for gradients in ("ir", "native")]
    assert "value_and_grad(" in exes[1].source and "value_and_grad(" not in exes[0].source
    names = [port.name for port in exes[0].inputs] if hasattr(exes[0], "inputs") else None
    for key in (KEY, KEY + np.uint32(1)):  # the second call reads the averages that the first left
        arguments = {"key": key, "y": LABELS, next(iter(step(model, "ir").main.inputs)).name: x}
        own, native = (exe(**arguments) for exe in exes)
        assert len(own) == len(native) == len(model.trainable_weights) + 2, names
        for one, other in zip(native, own, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert any(np.any(g) for g in own[1:-1])
