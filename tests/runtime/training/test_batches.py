"""Steps on single batches go on from call to call as if each were prepared anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Sequential, layers
from graphc.runtime.training import batches

X = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
Y = np.arange(8, dtype=np.float32)[:, None]


def model(**options: Any) -> Any:
    graphc.utils.set_random_seed(0)
    made = Sequential([Input((3,)), layers.Dense(4, name="hidden"), layers.Dense(1, name="out")])
    made.compile(**{"optimizer": graphc.optimizers.SGD(0.05), "loss": "mse", "target": "numpy"} | options)
    return made


def moved(made: Any) -> list[str]:
    """The variables that a step on the batch changes."""
    before = [v.numpy().copy() for v in made.weights]
    made.train_on_batch(X, Y)
    return [v.path for v, old in zip(made.weights, before, strict=True) if not np.array_equal(v.numpy(), old)]


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the steps that were prepared."""
    found: list[str] = []
    init = batches.BatchStep.__init__

    def counted(self: Any, model: Any, name: str, batch: Any) -> None:
        found.append(name)
        init(self, model, name, batch)

    monkeypatch.setattr(batches.BatchStep, "__init__", counted)
    return found


def test_equal_batches_are_prepared_for_once(prepared: list[str]) -> None:
    made = model()
    losses = [made.train_on_batch(X, Y) for _ in range(4)]
    assert prepared == ["train_step"]
    assert losses == sorted(losses, reverse=True)
    made.test_on_batch(X, Y)
    made.test_on_batch(X, Y)
    made.train_on_batch(X[:5], Y[:5])
    made.train_on_batch(X, Y.astype(np.float64))
    made.train_on_batch(X, Y)
    assert prepared == ["train_step", "test_step", "train_step", "train_step"]


def test_frozen_layers_and_variables() -> None:
    made = model()
    everything = ["kernel", "bias"]
    assert len(moved(made)) == 4
    made.layers[0].trainable = False
    assert len(moved(made)) == 2
    made.layers[1].bias.trainable = False
    assert [path.split("/")[-1] for path in moved(made)] == ["kernel"]
    made.layers[1].bias.trainable = True
    made.layers[0].trainable = True
    assert [path.split("/")[-1] for path in moved(made)] == everything * 2


def test_what_a_class_says_is_trained_is_asked_each_time() -> None:
    class Choosy(Sequential):
        only: int | None = None

        @property
        def trainable_weights(self) -> Any:
            found = super().trainable_weights
            return found if self.only is None else found[self.only :]

    graphc.utils.set_random_seed(0)
    made = Choosy([Input((3,)), layers.Dense(4), layers.Dense(1)])
    made.compile(optimizer=graphc.optimizers.SGD(0.05), loss="mse", target="numpy")
    assert len(moved(made)) == 4
    made.only = 2
    assert len(moved(made)) == 2


def test_compile_and_a_new_optimizer() -> None:
    made = model()
    made.train_on_batch(X, Y)
    made.compile(optimizer=graphc.optimizers.SGD(0.0), loss="mae", target="numpy")
    before = [v.numpy().copy() for v in made.weights]
    assert made.train_on_batch(X, Y) == pytest.approx(np.abs(made.predict_on_batch(X) - Y).mean(), rel=1e-6)
    made.optimizer = graphc.optimizers.SGD(0.05)
    made.train_on_batch(X, Y)
    assert not np.array_equal(made.weights[0].numpy(), before[0])


def test_a_layer_more() -> None:
    made = model()
    made.test_on_batch(X, Y)
    made.add(layers.Dense(1, kernel_initializer="zeros", bias_initializer="zeros"))
    assert made.test_on_batch(X, Y) == pytest.approx(np.square(Y).mean())


def test_metrics_start_anew_also_those_of_ones_own() -> None:
    class Counted(graphc.metrics.Sum):
        resets = 0

        def reset_state(self) -> None:
            Counted.resets += 1
            super().reset_state()

    made = model(optimizer=graphc.optimizers.SGD(0.0), metrics=["mae"])
    first = made.train_on_batch(X, Y)
    assert made.train_on_batch(X, Y) == first
    assert made.test_on_batch(X[:4], Y[:4]) == pytest.approx(
        [np.square(made.predict_on_batch(X[:4]) - Y[:4]).mean(), np.abs(made.predict_on_batch(X[:4]) - Y[:4]).mean()],
        rel=1e-6,
    )
    made.seen = Counted()
    made.train_on_batch(X, Y)
    made.train_on_batch(X, Y)
    assert Counted.resets == 2


def test_other_programs_take_turns_with_the_values() -> None:
    """What was trained in between by `fit`, on another kind of batch or by hand, is what the next step starts from."""

    def run(fresh: bool) -> list[Any]:
        made = model(optimizer=graphc.optimizers.SGD(0.05, momentum=0.9))
        kinds = [(X, Y), (X.astype(np.float64), Y[:, 0]), (X, Y), (X[:3], Y[:3])]
        found = []
        for x, y in kinds * 2:
            if fresh:
                made._compiled.steps.clear()
            found.append(made.train_on_batch(x, y))
        made.weights[0].assign(np.ones_like(made.weights[0].numpy()))
        found.append(made.train_on_batch(X, Y))
        made.fit(X, Y, batch_size=4, epochs=1, shuffle=False, verbose=0)
        found.append(made.train_on_batch(X, Y))
        return [*found, *(v.numpy() for v in made.weights)]

    for one, other in zip(run(False), run(True), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("target", ["torch", "jax", "onnx"])
def test_metrics_start_anew_in_the_target(target: str) -> None:
    needs(target)
    made = model(optimizer=graphc.optimizers.SGD(0.0), metrics=["mae"], target=target)
    first = made.train_on_batch(X, Y)
    assert made.train_on_batch(X, Y) == first


def test_labels_are_looked_at_in_each_batch() -> None:
    made = Sequential([Input((3,)), layers.Dense(4)])
    made.compile(optimizer="sgd", loss=graphc.losses.SparseCategoricalCrossentropy(from_logits=True), target="numpy")
    made.train_on_batch(X, np.zeros(8, np.int32))
    with pytest.raises(graphc.GraphcError, match="label 4"):
        made.train_on_batch(X, np.full(8, 4, np.int32))


def test_inputs_that_are_fitted_are_fitted_each_time() -> None:
    graphc.utils.set_random_seed(0)
    made = Sequential([Input((1,)), layers.Dense(1)])
    made.compile(optimizer=graphc.optimizers.SGD(0.0), loss="mse", target="numpy")
    first = made.train_on_batch(X[:, 0], Y)
    assert made.train_on_batch(X[:, 0], Y) == first == made.train_on_batch(X[:, :1], Y)
