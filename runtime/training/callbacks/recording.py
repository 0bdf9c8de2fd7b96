"""Callbacks that write down what happens, or do what a function says."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graphc.frontends.arguments import no_argument
from graphc.ir.errors import GraphcError
from graphc.runtime.training.callbacks.callback import HOOKS, OLD_HOOKS, Callback, State
from graphc.runtime.training.callbacks.places import writing

LISTENED = (*HOOKS, *OLD_HOOKS.values(), "on_epoch_begin", "on_epoch_end")
"""All that a callback can be called at."""


class CSVLogger(Callback):
    """Writes the logs of each epoch as a row of a file, whose folder is there. With `append`, to the end of one that is
    there too."""

    def __init__(self, filename: Any, separator: str = ",", append: bool = False) -> None:
        super().__init__()
        self.filename, self.separator, self.append = os.fspath(filename), separator, append
        self._keys: list[str] | None = None
        self._new = True

    def on_train_begin(self, logs: Any = None) -> None:
        self._keys, self._new = None, not self.append
        path = self.filename  # told at once if it cannot be written
        with writing("CSVLogger", Path(path)), open(path, "a+", newline="", encoding="utf-8") as file:
            if self.append and file.tell():
                file.seek(0)
                self._keys = next(csv.reader(file, delimiter=self.separator))[1:]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = dict(logs or {})
        rows: list[list[Any]] = []
        if self._keys is None:
            self._keys = sorted(logs)
            if self.params.get("validation"):  # which may come in later epochs only
                plain = [key for key in self._keys if not key.startswith("val_") and key != "learning_rate"]
                self._keys += [f"val_{key}" for key in plain if f"val_{key}" not in logs]
            rows.append(["epoch", *self._keys])
        rows.append([epoch, *(logs.get(key, "NA") for key in self._keys)])
        path, mode = self.filename, "w" if self._new else "a"
        with writing("CSVLogger", Path(path)), open(path, mode, newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=self.separator, lineterminator="\n").writerows(rows)
        self._new = False

    def get_state(self) -> State:
        """How far the file is written, so that a run that is resumed strikes what came after."""
        written = not self._new and os.path.isfile(self.filename)
        return {"keys": self._keys, "size": os.path.getsize(self.filename) if written else 0}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._keys, self._new = state["keys"], state["size"] == 0
        if os.path.isfile(self.filename):
            os.truncate(self.filename, min(state["size"], os.path.getsize(self.filename)))


class LambdaCallback(Callback):
    """Calls the functions it is given: `on_epoch_end=lambda epoch, logs: …` and so on for every hook."""

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        hooks = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        for name, function in (hooks | kwargs).items():
            if name not in LISTENED:
                raise no_argument("LambdaCallback", [name], LISTENED)
            if function is not None:
                if not callable(function):
                    raise GraphcError(f"LambdaCallback: {name} is a function, not {function!r}")
                setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Ends training when the loss of a batch is NaN or infinite."""

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            print(f"Batch {batch}: Invalid loss, terminating training")
            self.model.stop_training = True
