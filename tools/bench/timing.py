"""How things are timed: the minimum of several runs, each on a fresh subject, with the collector frozen."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def best_time(prepare: Callable[[], T], run: Callable[[T], object], repeat: int) -> float:
    """Seconds that `run(prepare())` takes at best, without `prepare`."""
    best = float("inf")
    for _ in range(repeat):
        subject = prepare()
        with frozen_collector():
            start = time.perf_counter()
            kept = run(subject)
            best = min(best, time.perf_counter() - start)
        del subject, kept  # freeing what was made is not timed
    return best


@contextmanager
def frozen_collector() -> Iterator[None]:
    """Python's generational collector doubles the build time of large graphs, and by how much depends on what else
    there is: nothing of it is measured."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
