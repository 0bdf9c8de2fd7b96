"""Training by the framework's own gradient is training by the IR's: dropout, averages, custom gradients and all."""

import numpy as np
import pytest

import graphc
from graphc import layers, ops

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype(np.float32)
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
    model.set_weights([w + 0.1 * rng.normal(size=w.shape).astype(np.float32) ** 2 for w in model.get_weights()])
    kernel = np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32)
    model.wide.kernel.assign(kernel)
    model.narrow.kernel.assign(kernel.reshape(8, 4)[:, :3])
    model.compile("sgd", "sparse_categorical_crossentropy", target=target, gradients=gradients)
    history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0)  # the last batch is smaller
    return history.history["loss"], model.get_weights()


@pytest.mark.parametrize("target", ["torch", "jax"])
def test_the_same_run(target):
    own_losses, own = trained(target, "ir")
    losses, weights = trained(target, "native")
    np.testing.assert_allclose(losses, own_losses, rtol=1e-5)
    for one, other in zip(weights, own, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_mistakes():
    with pytest.raises(graphc.UnsupportedError, match=r"only torch and jax have a gradient of their own"):
        trained("numpy", "native")
    with pytest.raises(graphc.GraphcError, match=r"not by 'torch'"):
        Network().compile("sgd", gradients="torch")
