"""Callbacks that watch a log: the direction that its name tells, and schedules of one or two arguments."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import callbacks


@pytest.mark.parametrize("name", ["val_dice", "confidence", "val_performance", "force"])
def test_a_name_that_only_ends_in_the_letters_of_a_metric_tells_no_direction(name: str) -> None:
    for make in (
        callbacks.EarlyStopping,
        callbacks.ReduceLROnPlateau,
        lambda n: callbacks.ModelCheckpoint("x.graphc", n, save_best_only=True),
    ):
        with pytest.raises(graphc.GraphcError, match="pass mode="):
            make(name)


@pytest.mark.parametrize(
    ("name", "rising"),
    [("val_loss", False), ("ce", False), ("val_ce", False), ("binary_crossentropy", False), ("val_acc", True)],
)
def test_a_whole_word_tells_the_direction(name: str, rising: bool) -> None:
    assert callbacks.EarlyStopping(name).rising is rising


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
