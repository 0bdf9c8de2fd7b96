"""One training on every target: the same losses from the same seed, with dropout and shuffling, also in a step of one's
own."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, Sequential, callbacks, layers, losses, metrics, ops, optimizers, random

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
OTHERS = ["onnx", "torch", "jax"]
WITHOUT_JAX = ["onnx", "torch", pytest.param("jax", marks=pytest.mark.slow)]
TOLERANCE = 1e-4


class EachLoss(callbacks.Callback):
    """The losses of the steps, one by one."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])


def twenty_losses(make, x, y, target):
    graphc.utils.set_random_seed(11)
    model, seen = make(target), EachLoss()
    model.fit(x, y, batch_size=32, epochs=20, verbose=0, steps_per_epoch=1, callbacks=[seen])
    assert len(seen.losses) == 20
    return np.array(seen.losses)


_on_numpy = {}


def assert_same(make, x, y, target):
    """The losses on the target are those on numpy, which are found once."""
    needs(target)
    if make not in _on_numpy:
        _on_numpy[make] = twenty_losses(make, x, y, "numpy")
    np.testing.assert_allclose(twenty_losses(make, x, y, target), _on_numpy[make], rtol=TOLERANCE)


# --- models -------------------------------------------------------------------------------------------------------


def perceptron(target):
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(32, activation="gelu"),
            layers.LayerNormalization(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    schedule = optimizers.schedules.CosineDecay(1e-3, 20, warmup_target=1e-2, warmup_steps=5)
    model.compile(optimizers.AdamW(schedule, global_clipnorm=1.0), "sparse_categorical_crossentropy", target=target)
    return model


def convolutional(target):
    spec = importlib.util.spec_from_file_location("digits_cnn", EXAMPLES / "digits_cnn.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    graphc.utils.set_random_seed(11)
    model = module.digits_cnn()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.Adam(3e-3), loss, metrics=["accuracy"], target=target)
    return model


class Autoencoder(Model):
    """A variational autoencoder: Kingma and Welling, 2014. Its step draws from what the encoder says."""

    def __init__(self):
        super().__init__()
        self.encoder = Sequential([layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dense(4)])
        self.decoder = Sequential([layers.Dense(32, activation="relu"), layers.Dense(64), layers.Reshape((8, 8, 1))])
        self.loss_tracker = metrics.Mean("loss")
        self.divergence_tracker = metrics.Mean("divergence")

    def call(self, inputs):
        return ops.sigmoid(self.decoder(self.encoder(inputs)[:, :2]))

    def train_step(self, data):
        x = data
        mean, spread = ops.split(self.encoder(x), 2, axis=-1)
        code = mean + ops.exp(0.5 * spread) * random.normal(mean.shape)
        wrong = ops.sum(losses.binary_crossentropy(x, self.decoder(code), from_logits=True), axis=(1, 2))
        divergence = -0.5 * ops.sum(1.0 + spread - ops.square(mean) - ops.exp(spread), axis=-1)
        loss = ops.mean(wrong + divergence)
        variables = self.trainable_variables
        self.optimizer.apply(graphc.gradients(loss, variables), variables)
        self.loss_tracker.update_state(loss)
        self.divergence_tracker.update_state(divergence)
        return {"loss": self.loss_tracker.result(), "divergence": self.divergence_tracker.result()}


def autoencoder(target):
    model = Autoencoder()
    model.compile(optimizers.Adam(3e-3), target=target)
    return model


@pytest.fixture(scope="module")
def digits():
    data = np.load(EXAMPLES / "digits_test.npz")
    return data["x_train"], data["y_train"]


@pytest.mark.parametrize("target", WITHOUT_JAX)
def test_a_perceptron(digits, target):
    assert_same(perceptron, *digits, target)


@pytest.mark.parametrize("target", OTHERS)
def test_a_convolutional_network(digits, target):
    assert_same(convolutional, *digits, target)


@pytest.mark.parametrize("target", WITHOUT_JAX)
def test_a_step_of_ones_own(digits, target):
    assert_same(autoencoder, digits[0], None, target)


def test_the_autoencoder_learns(digits):
    graphc.utils.set_random_seed(11)
    model = autoencoder("numpy")
    history = model.fit(digits[0], batch_size=64, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.75 * history["loss"][0] and history["divergence"][-1] > 0
    assert [metric.name for metric in model.metrics] == ["loss", "divergence"]
    assert model.predict(digits[0][:3]).shape == (3, 8, 8, 1)


class Adversaries(Model):
    """Two optimizers in one step, each with its own learning rate: Goodfellow et al., 2014."""

    def __init__(self):
        super().__init__()
        self.maker = Sequential([Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
        self.judge = Sequential([Input((3,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
        self.built = True

    def train_step(self, data):
        real, count = data, data.shape[0]
        loss = losses.BinaryCrossentropy(from_logits=True)
        first, second = self.judge(real), self.judge(self.maker(random.normal((count, 4))))
        judged = loss(ops.ones_like(first), first) + loss(ops.zeros_like(second), second)
        variables = self.judge.trainable_variables
        self.optimizers[0].apply(graphc.gradients(judged, variables), variables)
        again = self.judge(self.maker(random.normal((count, 4))))
        fooled = loss(ops.ones_like(again), again)
        variables = self.maker.trainable_variables
        self.optimizers[1].apply(graphc.gradients(fooled, variables), variables)
        return {"judged": judged, "fooled": fooled}


@pytest.mark.parametrize("target", ["onnx"])
def test_two_optimizers_in_a_step(target):
    needs(target)
    x = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    found = []
    for each in ("numpy", target):
        graphc.utils.set_random_seed(0)
        model = Adversaries()
        decay = optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
        model.optimizers = optimizers.Adam(1e-3), optimizers.SGD(decay)
        model.compile(None, target=each)
        found.append(model.fit(x, batch_size=4, epochs=3, verbose=0).history)
    for name in ("judged", "fooled"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=TOLERANCE)
    assert [int(each.iterations) for each in model.optimizers] == [18, 18]
