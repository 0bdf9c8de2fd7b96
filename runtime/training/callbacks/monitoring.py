"""Callbacks that watch one of the logs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.frontends.warning import warn
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest
from graphc.runtime.training.callbacks.callback import Callback, State

Array = np.ndarray[Any, Any]


class Monitor(Callback):
    """Watches the log `monitor`. `mode` says whether less (`min`) or more (`max`) is better; with `auto` the metric of
    this name tells, which has to know: one of graphc's, a loss, or one of one's own that sets `_direction`."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise GraphcError(f"{type(self).__name__}: mode is 'auto', 'min' or 'max', not {mode!r}")
        self.monitor, self.mode = monitor, mode
        self.min_delta = abs(min_delta)
        self._direction: str | None = None
        self._warned = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Find out what is better, now that the metrics of the model are known."""
        self._direction = None
        _ = self.rising

    @property
    def rising(self) -> bool:
        """Whether more is better. Raises `GraphcError` where `mode` leaves it to a metric that does not know."""
        if self._direction is None:
            known = {"min": "down", "max": "up"}.get(self.mode) or direction_of(self.model, self.monitor)
            if known is None:
                raise GraphcError(self._unknown())
            self._direction = known
        return self._direction == "up"

    def _unknown(self) -> str:
        """Why it is not known whether more or less is better, and what to do."""
        name = type(self).__name__
        watched = self.monitor.removeprefix("val_")
        logs = {log for log, _ in directions(self.model)}
        if watched not in logs:
            prefix = "val_" if self.monitor.startswith("val_") else ""
            meant = nearest(self.monitor, {f"{prefix}{log}" for log in logs})
            return (
                f"{name}: no loss or metric of the model is called {watched!r}; pass mode='max' or mode='min' to say "
                f"whether more or less of {self.monitor!r} is better{meant}"
            )
        return (
            f"{name}: whether more or less of {self.monitor!r} is better is not known: its metric has no `_direction`; "
            f"pass mode='max' or mode='min'"
        )

    @property
    def worst(self) -> float:
        """What anything is better than."""
        return -math.inf if self.rising else math.inf

    def better(self, value: float, than: float | None) -> bool:
        """Whether `value` is better, by more than `min_delta`; None is the worst there is."""
        than = self.worst if than is None else than
        return value - self.min_delta > than if self.rising else value + self.min_delta < than

    def watched(self, logs: Mapping[str, float] | None) -> float | None:
        """The value now; a log that is not there is warned of once."""
        value = (logs or {}).get(self.monitor)
        if value is None and not self._warned:
            self._warned = True
            meant = nearest(self.monitor, logs) if logs else "; there are none"
            warn(f"{type(self).__name__} watches {self.monitor!r}, which is not among the logs{meant}")
        return None if value is None else float(value)


def directions(model: Any) -> list[tuple[str, str | None]]:
    """The logs of a model that has been compiled and recorded: "up" where more is better, "down" where less is, None
    where that is not known. More than one log may have a name."""
    compiled = getattr(model, "_compiled", None)
    found: list[tuple[str, str | None]] = [("loss", "down")]
    if compiled is not None:
        found += [(name, "down") for name in compiled.losses]
        found += [(use.name, use.metric._direction) for use in compiled.metrics.uses]
    tracked = {id(metric) for metric in (compiled.losses.values() if compiled is not None else ())}
    own = [metric for metric in getattr(model, "metrics", ()) if id(metric) not in tracked]
    return found + [(metric.name, getattr(metric, "_direction", None)) for metric in own]


def direction_of(model: Any, log: str) -> str | None:
    """Whether more ("up") or less ("down") of a log is better, as far as the model's losses and metrics know."""
    name = log.removeprefix("val_")
    return next((direction for known, direction in directions(model) if known == name and direction), None)


class EarlyStopping(Monitor):
    """Ends training when `monitor` has not got better by `min_delta` for `patience` epochs.

    Nothing is counted before `start_from_epoch`, nor while it is worse than `baseline`; with `restore_best_weights` the
    model ends with the weights of its best epoch.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self._reset()

    def _reset(self) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best: float | None = None
        self.best_weights: list[Array] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        current = self.watched(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.better(current, self.best):
            self.best, self.best_epoch = current, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.better(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)

    def get_state(self) -> State:
        numbers = {name: getattr(self, name) for name in ("wait", "stopped_epoch", "best_epoch", "best")}
        return numbers | {f"weight_{i}": array for i, array in enumerate(self.best_weights or [])}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for name in ("wait", "stopped_epoch", "best_epoch", "best"):
            setattr(self, name, state[name])
        arrays = [state[f"weight_{i}"] for i in range(len(state) - 4)]
        self.best_weights = arrays or None


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when `monitor` has not got better by `min_delta` for `patience` epochs,
    then waits `cooldown` epochs; not below `min_lr`."""

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if factor >= 1.0:
            raise GraphcError(f"ReduceLROnPlateau: factor is a number below 1, not {factor}")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if isinstance(logs, dict):
            logs["learning_rate"] = _learning_rate(self)
        current = self.watched(logs)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.better(current, self.best):
            self.best, self.wait = current, 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        old = _learning_rate(self)
        if old > np.float32(self.min_lr):
            new = max(old * self.factor, self.min_lr)
            self.model.optimizer.learning_rate = new
            if self.verbose > 0:
                print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {new}.")
            self.cooldown_counter, self.wait = self.cooldown, 0

    def get_state(self) -> State:
        best = None if self.best is None or math.isinf(self.best) else self.best
        return {"best": best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.best, self.wait, self.cooldown_counter = state["best"], state["wait"], state["cooldown_counter"]


def _learning_rate(callback: Callback) -> float:
    """The optimizer's learning rate now."""
    if getattr(callback.model, "optimizer", None) is None:
        raise GraphcError(f"{type(callback).__name__} needs a model with an optimizer: call compile(optimizer=…) first")
    return float(callback.model.optimizer.learning_rate)


def _takes_two(schedule: Any) -> bool:
    """Whether a schedule can be called with the epoch and the learning rate; one without a signature is taken to."""
    try:
        signature = inspect.signature(schedule)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(0, 0.0)
    except TypeError:
        return False
    return True


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch to `schedule(epoch, learning_rate)`, or `schedule(epoch)`."""

    def __init__(self, schedule: Any, verbose: int = 0) -> None:
        super().__init__()
        if not callable(schedule):
            raise GraphcError(f"LearningRateScheduler takes a function of the epoch, not {schedule!r}")
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        rate = _learning_rate(self)
        rate = self.schedule(epoch, rate) if _takes_two(self.schedule) else self.schedule(epoch)
        if not isinstance(rate, (int, float, np.number, np.ndarray)) or not math.isfinite(float(rate)):
            raise GraphcError(f"the schedule gives a finite number for epoch {epoch}, not {rate!r}")
        self.model.optimizer.learning_rate = float(rate)
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {float(rate)}.")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if isinstance(logs, dict):
            logs["learning_rate"] = _learning_rate(self)
