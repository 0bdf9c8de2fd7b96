"""Training by the framework's own gradient is training by the IR's: dropout, averages, custom gradients and all."""

import numpy as np
import pytest

import graphc
from graphc import layers, losses, ops

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4))
Y = (np.arange(20) % 3).astype(np.int32)


@graphc.custom_gradient
def stable(x):
    e = ops.exp(x)
    return ops.log(1 + e), lambda dy: dy * (1 - 1 / (1 + e))


class Network(graphc.Model):
    def __init__(self):
        super().__init__()
        self.wide = layers.Dense(8, name="wide")
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.Dropout(0.5, name="drop")
        self.narrow = layers.Dense(3, name="narrow")

    def call(self, x, training=False):
        hidden = graphc.remat(lambda x: stable(self.norm(self.wide(x), training=training)))(x)
        return self.narrow(self.drop(hidden, training=training))


def trained(target, gradients):
    graphc.utils.set_random_seed(3)
    model = Network()
    model(X[:1])
    rng = np.random.default_rng(1)
    model.set_weights([w + 0.1 * rng.normal(size=w.shape) ** 2 for w in model.get_weights()])
    kernel = np.random.default_rng(2).normal(size=(4, 8))
    model.wide.kernel.assign(kernel)
    model.narrow.kernel.assign(kernel.reshape(8, 4)[:, :3])
    loss = losses.SparseCategoricalCrossentropy(dtype="float64")
    model.compile("sgd", loss, target=target, gradients=gradients)
    history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0)  # the last batch is smaller
    return history.history["loss"], model.get_weights()


@pytest.fixture
def doubles():
    """Layers that are made have float64 weights and compute in float64."""
    graphc.config.set_dtype_policy("float64")
    yield
    graphc.config.set_dtype_policy("float32")


@pytest.mark.parametrize("target", ["torch", "jax"])
def test_the_same_run(target, doubles):
    own_means, own = trained(target, "ir")
    means, weights = trained(target, "native")
    assert {weight.dtype for weight in weights} == {np.dtype(np.float64)}
    np.testing.assert_allclose(means, own_means, rtol=1e-5)
    for one, other in zip(weights, own, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_mistakes():
    with pytest.raises(graphc.UnsupportedError, match=r"only torch and jax have a gradient of their own"):
        trained("numpy", "native")
    with pytest.raises(graphc.GraphcError, match=r"not by 'torch'"):
        Network().compile("sgd", gradients="torch")
