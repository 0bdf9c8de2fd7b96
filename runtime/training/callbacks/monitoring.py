"""Callbacks that watch one of the logs."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.runtime.training.callbacks.callback import Callback, State

Array = np.ndarray[Any, Any]
RISING = ("acc", "accuracy", "auc", "precision", "recall", "f1", "f1_score", "iou", "cosine_similarity", "r2_score")
"""Last words of the names of logs that are better the greater they are."""
FALLING = (
    *("loss", "error", "crossentropy", "divergence", "hinge", "poisson", "logcosh", "log_cosh", "huber", "perplexity"),
    *("mse", "mae", "mape", "msle", "rmse", "bce", "kld", "ce"),
)
"""Last words of the names of logs that are better the less they are."""


class Monitor(Callback):
    """Watches the log `monitor`. `mode` says whether less (`min`) or more (`max`) is better; `auto` goes by its name,
    which has to tell."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise GraphcError(f"{type(self).__name__}: mode is 'auto', 'min' or 'max', not {mode!r}")
        self.monitor, self.mode = monitor, mode
        name = "_" + monitor.lower()
        rising, falling = (name.endswith(tuple(f"_{end}" for end in ends)) for ends in (RISING, FALLING))
        if mode == "auto" and not (rising or falling):
            raise GraphcError(
                f"{type(self).__name__}: whether more or less of {monitor!r} is better does not follow from its name; "
                f"pass mode='max' or mode='min'"
            )
        self.rising = mode == "max" or (mode == "auto" and rising)
        self.min_delta = abs(min_delta)
        self._warned = False

    @property
    def worst(self) -> float:
        """What anything is better than."""
        return -math.inf if self.rising else math.inf

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is better, by more than `min_delta`."""
        return value - self.min_delta > than if self.rising else value + self.min_delta < than

    def watched(self, logs: Mapping[str, float] | None) -> float | None:
        """The value now; a log that is not there is warned of once."""
        value = (logs or {}).get(self.monitor)
        if value is None and not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(self).__name__} watches {self.monitor!r}, which is not among the logs: "
                f"{', '.join(logs or {}) or 'none'}",
                stacklevel=4,
            )
        return None if value is None else float(value)


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
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        current = self.watched(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.better(current, self.worst if self.best is None else self.best):
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
        self.best, self.wait, self.cooldown_counter = self.worst, 0, 0

    def on_train_begin(self, logs: Any = None) -> None:
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
        best = None if math.isinf(self.best) else self.best
        return {"best": best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.best = self.worst if state["best"] is None else state["best"]
        self.wait, self.cooldown_counter = state["wait"], state["cooldown_counter"]


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
