"""The progress of `fit`, `evaluate` and `predict`: a bar on a terminal, a line for each epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.ir.errors import GraphcError
from graphc.runtime.training.callbacks.callback import Callback

INTERVAL = 0.1
"""Seconds between two updates of the bar."""
SEPARATOR = " - "
INDENT = "    "
"""Of the lines that the one of an epoch goes on in."""


def verbosity(verbose: Any, quiet_elsewhere: bool = False) -> int:
    """0 for nothing, 1 for a bar, 2 for lines. "auto" is a bar on a terminal, elsewhere lines, or nothing if
    `quiet_elsewhere`. A bar needs a terminal: elsewhere 1 is lines too. Raises `GraphcError` for anything else."""
    if verbose not in ("auto", 0, 1, 2):
        raise GraphcError(f"verbose is 'auto', 0, 1 or 2, not {verbose!r}")
    if sys.stdout is not None and sys.stdout.isatty():
        return 1 if verbose == "auto" else int(verbose)
    if verbose == "auto":
        return 0 if quiet_elsewhere else 2
    return min(int(verbose), 1) * 2


class ProgbarLogger(Callback):
    """Shows how far `fit`, `evaluate` or `predict` is, and the logs."""

    def __init__(self) -> None:
        super().__init__()
        self._fitting = False
        self._bar: Any = None
        self._task: Any = None
        self._shown = self._began = 0.0
        self._steps: int | None = None
        self._title = ""

    # --- fit -----------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        self._fitting = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        epochs = self.params.get("epochs")
        self._title = f"Epoch {epoch + 1}/{epochs}"
        if self._verbose == 1:
            print(self._title)
        self._start(self.params.get("steps"))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._show(batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._finish(logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._fitting = False
        self.close()

    # --- evaluate and predict ------------------------------------------------------------------------------------

    def on_test_begin(self, logs: Any = None) -> None:
        if not self._fitting:
            self._start(self.params.get("steps"))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._fitting:
            self._show(batch + 1, logs)

    def on_test_end(self, logs: Any = None) -> None:
        if not self._fitting:
            self._finish(logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._start(self.params.get("steps"))

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._show(batch + 1, None)

    def on_predict_end(self, logs: Any = None) -> None:
        self._finish(None)

    # --- what is shown -------------------------------------------------------------------------------------------

    @property
    def _verbose(self) -> int:
        return int(self.params.get("verbose", 0))

    def _start(self, steps: int | None) -> None:
        self._steps, self._seen = steps, 0
        self._began = time.perf_counter()
        self._shown = 0.0
        if self._verbose != 1:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
        from rich.table import Column
        from rich.text import Text

        class Logs(ProgressColumn):
            """The logs, cut off where the line ends: of what is shown they alone give way."""

            def render(self, task: Task) -> Text:
                return Text(task.fields["logs"], no_wrap=True, overflow="ellipsis")

        console = Console()
        self._bar = Progress(
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(min(20, console.width // 4), table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[time]}"),
            Logs(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=steps, time="", logs="")

    def _show(self, seen: int, logs: Mapping[str, Any] | None) -> None:
        self._seen = seen
        if self._bar is None:
            return
        now = time.perf_counter()
        if now - self._shown >= INTERVAL:
            self._shown = now
            self._update(logs)

    def _update(self, logs: Mapping[str, Any] | None) -> None:
        self._bar.update(
            self._task,
            completed=self._seen,
            time=self._time(),
            logs=SEPARATOR.join(log_texts(logs)),
            refresh=True,
        )

    def _time(self) -> str:
        spent = time.perf_counter() - self._began
        each = spent / max(self._seen, 1)
        return f"{spent:.0f}s {step_time(each)}/step"

    @contextmanager
    def show_compiling(self, target: str) -> Iterator[None]:
        """Say on a terminal that a target compiles: in the bar until there are logs, or in a line that goes again."""
        text = f"compiling for {target}…"
        if self._bar is not None:
            self._bar.update(self._task, logs=text, refresh=True)
            yield
        elif self._verbose == 1:
            from rich.console import Console

            with Console().status(text):
                yield
        else:
            yield

    def _finish(self, logs: Mapping[str, Any] | None) -> None:
        """Leave a line in the bar's place. On a terminal that is too narrow it goes on in the next ones."""
        bar = self._bar is not None
        self.close()
        if self._verbose:
            total = self._seen if bar or self._steps is None else self._steps
            title = f"{self._seen}/{total}" if bar or not self._fitting else self._title
            parts = [title, *self._time().split(" "), *log_texts(logs)]
            print("\n".join(broken(parts, terminal_width())), flush=True)

    def close(self) -> None:
        """Leave the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def log_texts(logs: Mapping[str, Any] | None) -> list[str]:
    """The logs as `accuracy: 0.9812`, `loss: 0.0613`; small numbers with an exponent."""
    return [f"{name}: {number(float(value))}" for name, value in (logs or {}).items()]


def terminal_width() -> int | None:
    """The columns of the terminal; None where the output is none, so that each line is for programs to read."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console().width


def broken(parts: Sequence[str], width: int | None) -> list[str]:
    """The parts in a line, or in several that break between parts and fit the width as far as a part alone does."""
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]}{SEPARATOR}{part}"
        if width is None or len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(f"{INDENT}{part}")
    return lines


def number(value: float) -> str:
    """A number with four decimals, or with an exponent where these would say little."""
    return f"{value:.4f}" if value == 0 or abs(value) > 1e-3 else f"{value:.4e}"


def step_time(seconds: float) -> str:
    """Seconds in whole units: `3s`, `12ms`, `85us`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1e6:.0f}us"
