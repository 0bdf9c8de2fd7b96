"""Ranges of activations that go with the batches of training; normalizations beside kernels that are rounded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, callbacks, layers, losses, optimizers
from graphc.frontends.rounding import InputRange, RunningRange
from graphc.ir.errors import GraphcError

TARGETS = ["numpy", "torch", "onnx", "jax"]


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(target: str = "numpy", rate: float = 1e-2) -> Model:
    """Two convolutions with normalizations behind them, and a product."""
    graphc.utils.set_random_seed(0)
    image = Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(image)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name="norm")(x))
    x = layers.Conv2D(8, 3, padding="same", name="inner")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm_2")(x))
    model = Model(image, layers.Dense(4, name="out")(layers.Flatten()(x)), name="network")
    model.compile(optimizers.SGD(rate), losses.SparseCategoricalCrossentropy(from_logits=True), target=target)
    return model


def running(model: Model, layer: str) -> RunningRange:
    found = model.get_layer(layer).kernel.rounding.inputs
    assert isinstance(found, RunningRange)
    return found


def ends(model: Model, layer: str) -> tuple[float, float]:
    found = running(model, layer)
    return float(found.least.numpy()), float(found.most.numpy())


@pytest.mark.parametrize("target", TARGETS)
def test_ranges_go_with_the_batches(target: str) -> None:
    needs(target)
    model, x, y = network(target), drawn(32, 6, 6, 3), np.arange(32) % 4
    model.quantize_aware("int8", activations=x, momentum=0.75)
    wanted = [x.min(), x.max()]
    np.testing.assert_allclose(ends(model, "conv"), wanted)
    for factor in (2, 5, 1):
        batch = x[:8] * np.float32(factor)
        model.train_on_batch(batch, y[:8])
        wanted = [v + (now - v) * 0.25 for v, now in zip(wanted, (batch.min(), batch.max()), strict=True)]
        np.testing.assert_allclose(ends(model, "conv"), wanted, rtol=1e-6)
    before = ends(model, "conv")
    model.evaluate(x * 9, y, verbose=0)
    model.predict(x * 9, verbose=0)
    assert ends(model, "conv") == before
    assert ends(model, "inner")[0] == 0  # behind a rectifier


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("text", ["int8", pytest.param("int4{block=16}", marks=pytest.mark.slow)])
def test_normalizations_stay_as_they_are_and_outputs_are_equal(text: str, target: str) -> None:
    """They are trained as floats beside rounded kernels and are stored as such: nothing is folded."""
    needs(target)
    model, x, y = network(target), drawn(32, 6, 6, 3), np.arange(32) % 4
    model.quantize_aware(text, activations=x)
    statistics = model.get_layer("norm").moving_mean.numpy().copy()
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    assert np.any(model.get_layer("norm").moving_mean.numpy() != statistics)
    wanted = graphc.compile(model, target="numpy")(x)
    np.testing.assert_array_equal(model.predict(x, verbose=0) if target == "numpy" else wanted, wanted)
    model.quantize("trained")
    module = graphc.lower(model)
    assert [op.name for op in module.main.block].count("batch_norm") == 2
    assert not any("input_range" in name for name in module.weights)  # ranges are constants now
    assert [op.name for op in module.main.block].count("quantize") == 3
    np.testing.assert_array_equal(graphc.compile(module, target="numpy")(x), wanted)
    found = graphc.compile(model, target=target)(x)
    off = np.abs(found - wanted)
    assert np.median(off) < 1e-4  # what lies between two integers may go to either
    assert off.max() < 0.1 * np.abs(wanted).max()


def test_ranges_are_frozen_and_kept(tmp_path: Path) -> None:
    model, x, y = network(), drawn(32, 6, 6, 3), np.arange(32) % 4
    model.quantize_aware("int8", activations=x)
    model.fit(x * 2, y, verbose=0)
    wanted, seen = graphc.compile(model)(x), ends(model, "conv")
    model.save(tmp_path / "model.graphc")
    plain = network()
    plain.load_weights(tmp_path / "model.graphc")  # what is a weight there, not ranges
    np.testing.assert_array_equal(plain.get_layer("out").kernel.numpy(), model.get_layer("out").kernel.numpy())
    for other in (graphc.models.load_model(tmp_path / "model.graphc"), graphc.models.clone_model(model)):
        other.set_weights(model.get_weights())
        assert ends(other, "conv") == seen
        np.testing.assert_array_equal(graphc.compile(other)(x), wanted)
        other.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
        other.fit(x * 9, y, verbose=0)
        assert ends(other, "conv") != seen
    assert ends(model, "conv") == seen  # a clone has its own
    model.freeze_ranges()
    assert isinstance(model.get_layer("conv").kernel.rounding.inputs, InputRange)
    np.testing.assert_array_equal(graphc.compile(model)(x), wanted)
    model.fit(x * 9, y, verbose=0)
    scale = model.get_layer("conv").kernel.rounding.inputs.scale
    assert float(scale) == np.float32((np.float32(seen[1]) - np.float32(seen[0])) / 255)
    with pytest.raises(GraphcError, match="no ranges that go"):
        model.freeze_ranges()


def test_a_resumed_run_goes_on_with_its_ranges(tmp_path: Path) -> None:
    x, y = drawn(32, 6, 6, 3), np.arange(32) % 4
    begun: list[int] = []

    class Until(callbacks.Callback):
        def __init__(self, last: int) -> None:
            super().__init__()
            self.last = last

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch > self.last:
                raise KeyboardInterrupt
            begun.append(epoch)

    def run(folder: str, last: int) -> Model:
        model = network()
        model.quantize_aware("int8", activations=x / 2)
        backup = callbacks.BackupAndRestore(tmp_path / folder)
        model.fit(x, y, batch_size=8, epochs=4, verbose=0, callbacks=[backup, Until(last)])
        return model

    whole = run("whole", 3)
    with pytest.raises(KeyboardInterrupt):
        run("killed", 1)
    resumed = run("killed", 3)
    assert begun == [0, 1, 2, 3, 0, 1, 2, 3]
    assert ends(whole, "conv") == ends(resumed, "conv")
    np.testing.assert_array_equal(whole.predict(x, verbose=0), resumed.predict(x, verbose=0))


def test_ranges_that_stay(tmp_path: Path) -> None:
    model, x, y = network(), drawn(32, 6, 6, 3), np.arange(32) % 4
    model.quantize_aware("int8", activations=x, momentum=None)
    before = model.get_layer("conv").kernel.rounding
    model.fit(x * 3, y, verbose=0)
    assert model.get_layer("conv").kernel.rounding is before
    with pytest.raises(GraphcError, match="momentum of ranges"):
        network().quantize_aware("int8", activations=x, momentum=1.5)


def test_a_layer_that_is_called_twice_sees_both() -> None:
    graphc.utils.set_random_seed(0)
    x = Input((16,))
    shared = layers.Dense(16, name="shared")
    model = Model(x, layers.Dense(2, name="out")(shared(layers.ReLU()(shared(x)) * 7.0)))
    model.compile("sgd", "mse")
    data = drawn(16, 16)
    model.quantize_aware("int8", activations=data, momentum=0.5, filters="shared")
    model.fit(data, drawn(16, 2), verbose=0)
    found: Any = running(model, "shared")
    assert found.most.numpy() > data.max()
    wanted = graphc.compile(model)(data)
    model.quantize("trained")
    np.testing.assert_array_equal(graphc.compile(model)(data), wanted)
