"""A layer called twice and weights used by two layers stay one: in the weight list, a saved file, on every target."""

import numpy as np
import pytest

import graphc
from graphc import Input, Model, layers, ops

TARGETS = ("numpy", "torch", "jax", "onnx", "openvino")


class Unembed(layers.Layer):
    """Projects back through the transposed kernel of another layer."""

    def __init__(self, source, **options):
        super().__init__(**options)
        self.source = source

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.source.kernel))


def shared_model():
    first, second = Input((6,), name="first"), Input((6,), name="second")
    encoder = layers.Dense(5, activation="relu", name="encoder")
    hidden = layers.Add(name="sum")([encoder(first), encoder(second)])
    return Model([first, second], layers.Dense(3, name="head")(hidden))


def tied_model():
    x = Input((6,), name="x")
    encoder = layers.Dense(5, name="encoder")
    return Model(x, Unembed(encoder, name="decoder")(encoder(x)))


def drawn(model, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(4, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]


def by_hand(model, arrays):
    if len(arrays) == 2:
        kernel, bias, head, head_bias = model.get_weights()
        hidden = sum(np.maximum(array @ kernel + bias, 0) for array in arrays)
        return hidden @ head + head_bias
    kernel, bias = model.get_weights()
    return (arrays[0] @ kernel + bias) @ kernel.T


@pytest.fixture(params=[shared_model, tied_model])
def model(request):
    made = request.param()
    rng = np.random.default_rng(1)
    made.set_weights([rng.normal(size=array.shape).astype(np.float32) for array in made.get_weights()])
    return made


def test_each_weight_is_listed_once(model):
    stored = [weight for weight in graphc.lower(model).weights.entries() if weight.alias is None]
    assert len(stored) == len(model.get_weights())


def test_set_weights_reaches_both_uses(model):
    arrays = drawn(model)
    before = graphc.interpret(graphc.lower(model), *arrays)
    doubled = [2 * array for array in model.get_weights()]
    model.set_weights(doubled)
    after = graphc.interpret(graphc.lower(model), *arrays)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, by_hand(model, arrays), rtol=1e-5, atol=1e-5)


def test_saving_keeps_them_one(model, tmp_path):
    model.save(tmp_path / "model.graphc")
    again = graphc.saving.load_model(tmp_path / "model.graphc", custom_objects={"Unembed": Unembed})
    assert len(again.get_weights()) == len(model.get_weights())
    arrays = drawn(model)
    again.set_weights([array + 1 for array in again.get_weights()])
    np.testing.assert_allclose(
        graphc.interpret(graphc.lower(again), *arrays), by_hand(again, arrays), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_computes_the_same(model, target):
    arrays = drawn(model)
    executable = graphc.compile(model, target=target)
    np.testing.assert_allclose(executable(*arrays), by_hand(model, arrays), rtol=1e-5, atol=1e-5)


def test_torch_holds_a_tied_weight_once(model, tmp_path):
    executable = graphc.compile(model, target="torch")
    executable.save(tmp_path / "artifact")
    from safetensors.numpy import load_file

    stored = load_file(tmp_path / "artifact" / "model.safetensors")
    assert sum(array.size for array in stored.values()) == sum(array.size for array in model.get_weights())
