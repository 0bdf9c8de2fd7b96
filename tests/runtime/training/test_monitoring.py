"""Callbacks that watch a log: the direction that its metric knows, and schedules of one or two arguments."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, callbacks, layers, metrics, ops

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
LABELS = np.arange(12) % 2


def own(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.abs(y_true - y_pred), -1)


class Lowest(metrics.Metric):
    """A metric of one's own that knows what is better."""

    _direction = "down"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen = self.add_variable(name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.seen.assign(ops.min(y_pred))

    def result(self) -> Any:
        return self.seen


def compiled(**options: Any) -> Any:
    model = Sequential([Input((3,)), layers.Dense(1, activation="sigmoid")])
    given: list[Any] = ["accuracy", "mse", own, metrics.AUC(name="dice"), Lowest(name="my_accuracy"), metrics.Hinge()]
    model.compile("sgd", "binary_crossentropy", metrics=given, **options)
    return model


def makers() -> list[Callable[..., Any]]:
    return [
        callbacks.EarlyStopping,
        callbacks.ReduceLROnPlateau,
        lambda monitor, **options: callbacks.ModelCheckpoint("m.graphc", monitor, save_best_only=True, **options),
    ]


def rising(make: Callable[..., Any], name: str, model: Any = None) -> bool:
    """What a callback that watches this log takes for better, in a run."""
    callback = make(name)
    (model or compiled()).fit(X, LABELS, validation_data=(X, LABELS), callbacks=[callback], verbose=0)
    return callback.rising


@pytest.mark.parametrize("make", makers())
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", False),
        ("val_loss", False),
        ("accuracy", True),
        ("val_mse", False),
        ("val_dice", True),
        ("my_accuracy", False),
        ("val_hinge", False),
    ],
)
def test_the_metric_knows_what_is_better(
    make: Callable[..., Any], name: str, expected: bool, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rising(make, name) is expected


@pytest.mark.parametrize("make", makers())
def test_where_no_metric_knows_it_has_to_be_said(make: Callable[..., Any], tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model, trained = compiled(), callbacks.History()
    with pytest.raises(graphc.GraphcError, match=r"more or less of 'val_own' is better is not known.*pass mode='max'"):
        model.fit(X, LABELS, validation_data=(X, LABELS), callbacks=[make("val_own"), trained], verbose=0)
    assert not trained.history  # told before the first epoch
    model.fit(X, LABELS, validation_data=(X, LABELS), callbacks=[make("val_own", mode="max")], verbose=0)
    assert rising(lambda name: make(name, mode="min"), "val_dice", model) is False


@pytest.mark.parametrize("make", makers())
@pytest.mark.parametrize(
    ("name", "meant"), [("val_los", "val_loss"), ("acuracy", "accuracy or my_accuracy"), ("val_ms", "val_mse")]
)
def test_a_monitor_that_is_not_there_names_the_nearest(
    make: Callable[..., Any], name: str, meant: str, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(graphc.GraphcError, match=f"no loss or metric of the model is called .*; did you mean {meant}"):
        compiled().fit(X, LABELS, validation_data=(X, LABELS), callbacks=[make(name)], verbose=0)
    with pytest.warns(UserWarning, match=f"watches '{name}', which is not among the logs; did you mean {meant}"):
        compiled().fit(X, LABELS, validation_data=(X, LABELS), callbacks=[make(name, mode="min")], verbose=0)


def test_the_loss_of_an_output_falls_and_its_metrics_know() -> None:
    x = Input((3,))
    model = Model(x, {"a": layers.Dense(1, name="a")(x), "b": layers.Dense(1, name="b")(x)})
    model.compile("sgd", "mse", metrics={"a": ["mae"], "b": [metrics.R2Score(name="loss_of_it")]})
    y = {"a": LABELS, "b": LABELS}
    stops = [callbacks.EarlyStopping(name) for name in ("val_a_loss", "a_mae", "val_b_loss_of_it")]
    model.fit(X, y, validation_data=(X, y), callbacks=stops, verbose=0)
    assert [stop.rising for stop in stops] == [False, False, True]


def test_a_type_error_of_the_schedule_is_the_users_to_see() -> None:
    calls: list[Any] = []

    def schedule(epoch: int, rate: float = 0.1) -> float:
        calls.append(epoch)
        return rate + None  # type: ignore[operator]

    scheduler = callbacks.LearningRateScheduler(schedule)
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1))
    scheduler.set_model(model)
    with pytest.raises(TypeError, match="unsupported operand"):
        scheduler.on_epoch_begin(3)
    assert calls == [3]


def test_a_schedule_of_the_epoch_alone_is_called_with_it() -> None:
    scheduler = callbacks.LearningRateScheduler(lambda epoch: 0.5 + epoch)
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1))
    scheduler.set_model(model)
    scheduler.on_epoch_begin(3)
    assert model.optimizer.learning_rate == 3.5
