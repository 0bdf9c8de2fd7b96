"""How things are timed: the minimum of several runs, each on a fresh subject, with the collector frozen.

What is measured is processor time, of this process and of those it waits for (the formatter), so that other work on a
shared machine disturbs it least; everything measured runs on one thread.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def best_time(prepare: Callable[[], T], run: Callable[[T], object], repeat: int) -> float:
    """Processor seconds that `run(prepare())` takes at best, without `prepare`."""
    best = float("inf")
    for _ in range(repeat):
        subject = prepare()
        with _collector_off():
            start = processor_seconds()
            kept = run(subject)
            best = min(best, processor_seconds() - start)
        del subject, kept  # freeing what was made is not timed
    return best


def processor_seconds() -> float:
    """Processor time so far, of this process and of those it has waited for."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


@contextmanager
def heap_frozen() -> Iterator[None]:
    """What there is when a benchmark begins is never collected in it: each collection would walk all of it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _collector_off() -> Iterator[None]:
    """Python's generational collector doubles the build time of large graphs, and by how much depends on what else
    there is: nothing of it is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
