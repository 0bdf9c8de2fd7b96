"""`History`: the logs of every epoch, and a drawing of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphc.frontends.whole_files import check_writable
from graphc.ir.errors import GraphcError
from graphc.runtime.training.callbacks.callback import Callback, State


class History(Callback):
    """What `fit` returns: `history`, a dict from each log to its values, and `epoch`, the epochs they are of."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
        self.model.history = self

    def get_state(self) -> State:
        return {"history": self.history, "epoch": self.epoch}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.history = {name: list(values) for name, values in state["history"].items()}
        self.epoch = list(state["epoch"])

    def plot(self, path: Any = None) -> Any:
        """Draw the logs over the epochs, one panel for each with its validation values.

        With a `path` that ends in `.svg` a file is written, and with another ending by matplotlib (`.png`, `.pdf`).
        Without a path it is a figure of matplotlib's, which is returned, or where that is not installed a drawing in
        characters, which is printed. Raises `GraphcError` when there is nothing to draw, or the file cannot be written.
        """
        from graphc.runtime.training.callbacks import plotting

        panels = plotting.panels(self.epoch, self.history)
        if not panels:
            raise GraphcError("there is nothing to plot: no epoch has ended")
        if path is not None and Path(path).suffix.lower() == ".svg":
            plotting.write_svg(Path(path), panels)
            return None
        figure = plotting.figure(panels)
        if path is not None:
            if figure is None:
                raise GraphcError(
                    f"writing {Path(path).name!r} takes matplotlib, which is not installed; .svg does not"
                )
            check_writable(Path(path))
            try:
                figure.savefig(path)
            except ValueError as error:  # an ending that matplotlib does not know
                raise GraphcError(f"{Path(path).name!r} cannot be written: {error}") from error
        elif figure is None:
            plotting.print_drawing(panels)
        return figure

    def __repr__(self) -> str:
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history)}>"
