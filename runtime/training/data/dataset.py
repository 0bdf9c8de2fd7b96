"""`PyDataset`: data that is read a batch at a time, by number."""

from __future__ import annotations

from typing import Any

from graphc.frontends.warning import warn
from graphc.ir.errors import GraphcError


class PyDataset:
    """A sequence of batches. Subclasses define `__getitem__(index)`, which gives `(x, y)` or `(x, y, sample_weight)`,
    and `__len__` or `num_batches`.

    With `workers` above 1, so many threads read batches ahead, `max_queue_size` at most; the order stays. Where Keras
    would start processes (`use_multiprocessing`), threads are used too.
    """

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        if workers < 0 or max_queue_size < 1:
            raise GraphcError(f"workers={workers} and max_queue_size={max_queue_size}: they are counts")
        if use_multiprocessing:
            warn("PyDataset reads with threads, also where use_multiprocessing=True")
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __getitem__(self, index: int) -> Any:
        """The batch of this number."""
        raise GraphcError(f"{type(self).__name__} has no method `__getitem__`")

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has; None if there is no end."""
        if hasattr(self, "__len__"):
            return len(self)  # type: ignore[arg-type]
        raise GraphcError(f"{type(self).__name__} has neither `__len__` nor `num_batches`")

    def on_epoch_begin(self) -> None:
        """Called before each epoch."""

    def on_epoch_end(self) -> None:
        """Called after each epoch."""


Sequence = PyDataset
