"""What gives batches: of arrays, of a `PyDataset` or another sequence of batches, of what can be iterated.

`adapter(...)` makes one; `start(epoch, step)` gives the batches of an epoch from any step on, so that a run that was
interrupted goes on where it stopped. Where data can be read again, `steps_per_epoch` cuts an endless sequence of passes
into epochs. Pass p is shuffled by the permutation of the key `fold_in(key, 2p)`, whatever the target.
"""

from __future__ import annotations

import inspect
import itertools
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.ir.errors import GraphcError
from graphc.runtime.training.data.arrays import (
    Array,
    Batch,
    as_arrays,
    check_finite,
    class_weights,
    length,
    take,
)
from graphc.runtime.training.data.base import Adapter, Options
from graphc.runtime.training.data.dataset import PyDataset


class Passes(Adapter):
    """Data that can be read again and again."""

    def __init__(self, options: Options, count: int | None) -> None:
        super().__init__(options)
        self.count = count
        """How many batches a pass has, where that is known."""
        if self.steps is None:
            self.steps = count
        self._stream: tuple[int, Iterator[Any]] | None = None

    @abstractmethod
    def read(self, number: int, first: int) -> Iterator[Any]:
        """The batches of pass `number` from the batch `first` on."""

    def items(self, epoch: int, step: int) -> Iterator[Any]:
        if self.options.steps_per_epoch is None:
            yield from self.read(epoch, step)
            return
        wanted = self.options.steps_per_epoch - step
        if not self.options.repeat:
            yield from itertools.islice(self.read(epoch, step), wanted)
            return
        at = (epoch - self.options.initial_epoch) * self.options.steps_per_epoch + step
        # The passes go on from epoch to epoch; elsewhere is gone only after a resume.
        where, stream = self._stream or (None, None)
        if stream is None or where != at:
            stream = self._passes_from(at)
        for item in itertools.islice(stream, wanted):
            at += 1
            self._stream = at, stream
            yield item

    def position(self, epoch: int, step: int) -> tuple[int, int]:
        """The pass, and the batch of it, that this step reads, where a pass has a known number of them."""
        steps = self.options.steps_per_epoch
        if steps is None or not self.options.repeat:
            return epoch, step
        assert self.count is not None
        passes, batch = divmod((epoch - self.options.initial_epoch) * steps + step, self.count)
        return self.options.initial_epoch + passes, batch

    def _passes_from(self, at: int) -> Iterator[Any]:
        """All batches from number `at` of the endless sequence on."""
        numbers = itertools.count(self.options.initial_epoch)
        if self.count:
            skipped, at = divmod(at, self.count)
            numbers = itertools.count(self.options.initial_epoch + skipped)
        for number in numbers:
            seen = 0
            first = at if self.count else 0
            for item in self.read(number, first):
                seen += 1
                if not self.count and at:
                    at -= 1
                    continue
                yield item
            if not seen:
                return
            if self.count:
                at = 0


class ArrayAdapter(Passes):
    """Batches of arrays in memory, or in memory-mapped files: only what is in a batch is read."""

    what = "the data"

    def __init__(self, x: Any, y: Any, sample_weight: Any, options: Options) -> None:
        x, y, sample_weight = (as_arrays(a, n) for a, n in ((x, "x"), (y, "y"), (sample_weight, "sample_weight")))
        if options.inputs is not None:
            x = options.inputs(x)
        self.size = length(x, y, sample_weight)
        if options.class_weight is not None:
            if sample_weight is not None:
                raise GraphcError("give either class_weight or sample_weight")
            sample_weight = class_weights(y, options.class_weight)
        self.arrays: Batch = x, y, sample_weight
        super().__init__(options, int(ceil_div(self.size, options.batch_size)))  # type: ignore[arg-type]
        self._order: tuple[int, Array] | None = None

    def example(self) -> Batch:
        return self._at(slice(0, self.options.batch_size))

    def read(self, number: int, first: int) -> Iterator[Batch]:
        size = self.options.batch_size
        order = self._ordered(number)
        for start in range(first * size, self.size, size):
            yield self._at(slice(start, start + size) if order is None else order[start : start + size])

    def origin(self, epoch: int, step: int, index: int) -> tuple[int, str]:
        number, batch = self.position(epoch, step)
        order, at = self._ordered(number), batch * self.options.batch_size + index
        return at if order is None else int(order[at]), self.what

    def prepared(self, item: Any, place: str) -> Batch:
        if self.options.check_finite:
            check_finite(item, place)
        return item

    def _at(self, index: slice | Array) -> Batch:
        x, y, sample_weight = self.arrays
        return take(x, index), take(y, index), take(sample_weight, index)

    def _ordered(self, number: int) -> Array | None:
        """The order of the examples in pass `number`."""
        if not self.options.shuffle:
            return None
        if self._order is None or self._order[0] != number:
            if self.options.shuffle == "batch":
                size = self.options.batch_size
                assert self.count is not None
                starts = self.options.order(number, self.count) * size
                order = (starts[:, None] + np.arange(size)).ravel()
                order = order[order < self.size]
            else:
                order = self.options.order(number, self.size)
            self._order = number, order
        return self._order[1]


class DatasetAdapter(Passes):
    """Batches of a `PyDataset`, or of another object with `__getitem__` and `__len__`; shuffled batch by batch."""

    def __init__(self, data: Any, options: Options) -> None:
        self.data = data
        self.what = f"{type(data).__name__}"
        count = data.num_batches if hasattr(data, "num_batches") else len(data)
        if count is None and options.steps_per_epoch is None:
            raise GraphcError(f"{self.what} has no end (num_batches is None): give steps_per_epoch")
        if count == 0:
            raise GraphcError(f"{self.what} has no batches")
        super().__init__(options, count)
        self._passed = options.initial_epoch

    def resume(self, key: Array, initial_epoch: int) -> None:
        super().resume(key, initial_epoch)
        self._passed = initial_epoch

    def example(self) -> Batch:
        return self.prepared(self.first(lambda: self.data[0]), "as batch 0")

    def read(self, number: int, first: int) -> Iterator[Any]:
        while self._passed < number:  # after a resume: what the data set does to itself between epochs
            self._call("on_epoch_begin")
            self._call("on_epoch_end")
            self._passed += 1
        self._call("on_epoch_begin")
        yield from self._ahead(self._numbers(number, first))
        self._call("on_epoch_end")
        self._passed += 1

    def origin(self, epoch: int, step: int, index: int) -> tuple[int, str] | None:
        if self.count is None:
            return None
        number, batch = self.position(epoch, step)
        if self.options.shuffle:
            batch = int(self.options.order(number, self.count)[batch])
        return index, f"batch {batch} of {self.what}"

    def _call(self, hook: str) -> None:
        getattr(self.data, hook, lambda: None)()

    def _numbers(self, number: int, first: int) -> Iterator[int]:
        if self.count is None:
            return itertools.count(first)
        if not self.options.shuffle:
            return iter(range(first, self.count))
        return iter(self.options.order(number, self.count)[first:].tolist())

    def _ahead(self, numbers: Iterator[int]) -> Iterator[Any]:
        """The items of these numbers in order, read ahead by threads where the data set has workers."""
        workers = getattr(self.data, "workers", 1)
        if workers <= 1:
            yield from map(self.data.__getitem__, numbers)
            return
        with ThreadPoolExecutor(workers) as pool:
            waiting = deque(
                pool.submit(self.data.__getitem__, number)
                for number in itertools.islice(numbers, max(workers, getattr(self.data, "max_queue_size", 10)))
            )
            try:
                while waiting:
                    item = waiting.popleft().result()
                    waiting.extend(
                        pool.submit(self.data.__getitem__, number) for number in itertools.islice(numbers, 1)
                    )
                    yield item
            finally:
                for future in waiting:
                    future.cancel()


class IterableAdapter(Passes):
    """Batches of what can be iterated again, such as torch's `DataLoader`."""

    def __init__(self, data: Any, options: Options) -> None:
        self.data = data
        self.what = type(data).__name__
        try:
            count: int | None = len(data)
        except TypeError:
            count = None
        super().__init__(options, count)

    def example(self) -> Batch:
        items = self.first(lambda: list(itertools.islice(self.data, 1)))
        if not items:
            raise GraphcError(f"{self.what} gives no batches")
        return self.prepared(items[0], "as batch 0")

    def read(self, number: int, first: int) -> Iterator[Any]:
        return itertools.islice(iter(self.data), first, None)


class GeneratorAdapter(Adapter):
    """Batches of a generator or another iterator, which can be read once."""

    def __init__(self, data: Iterator[Any], options: Options) -> None:
        super().__init__(options)
        self.data = data
        self.what = "the generator"
        self._taken = 0
        self._waiting: list[Any] = []

    def example(self) -> Batch:
        if not self._waiting:
            self._waiting += self.first(lambda: list(itertools.islice(self.data, 1)))
        if not self._waiting:
            raise GraphcError(f"{self.what} gives no batches")
        return self.prepared(self._waiting[0], "as the first batch")

    def items(self, epoch: int, step: int) -> Iterator[Any]:
        steps = self.options.steps_per_epoch
        if self.options.repeat:
            at = step if steps is None else (epoch - self.options.initial_epoch) * steps + step
            for _ in range(self._taken, at):  # after a resume: what the run before had taken
                if next(self._all(), None) is None:
                    return
        yield from itertools.islice(self._all(), None if steps is None else steps - step)

    def _all(self) -> Iterator[Any]:
        while True:
            if self._waiting:
                item = self._waiting.pop()
            else:
                try:
                    item = next(self.data)
                except StopIteration:
                    return
            self._taken += 1
            yield item


def adapter(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: bool | str = False,
    class_weight: Mapping[int, float] | None = None,
    steps_per_epoch: int | None = None,
    key: Any = (0, 0),
    initial_epoch: int = 0,
    repeat: bool = True,
    check_finite: bool = False,
    inputs: Callable[[Any], Any] | None = None,
    steps_name: str = "steps_per_epoch",
) -> Adapter:
    """The adapter for data as `fit` takes it.

    `x` is an array, or a list, tuple or dict of them; a `PyDataset` or another object with `__getitem__` and `__len__`
    that gives batches; what can be iterated over batches; or a generator of them. `key`, uint32[2], is the run's: it
    orders the examples. `initial_epoch` is where the run began. Without `repeat`, as for evaluation, each start reads
    from the front, and `steps_per_epoch` beyond the data's end is warned of. `check_finite` refuses NaN and infinities.
    `inputs` makes a model's inputs of x, arrays; `steps_name` is what messages call `steps_per_epoch`.

    Raises `GraphcError`, `ShapeError` or `DTypeError` for what is no data: arrays that differ in length or are empty,
    Python objects, labels beside data that brings its own.
    """
    options = Options(
        batch_size, shuffle, class_weight, steps_per_epoch, key, initial_epoch, repeat, check_finite, inputs, steps_name
    )
    if isinstance(x, Adapter):
        return x
    if x is None:
        raise GraphcError("there is no data: x is None")
    if isinstance(x, (list, tuple, dict, str, bytes, int, float)) or hasattr(x, "__array__"):
        return ArrayAdapter(x, y, sample_weight, options)
    make: Callable[[Any, Options], Adapter]
    if isinstance(x, type) or inspect.isroutine(x):
        raise GraphcError(f"data is {x!r}, which has to be called: pass what it gives")
    if isinstance(x, PyDataset) or (hasattr(x, "__getitem__") and hasattr(x, "__len__")):
        make = DatasetAdapter
    elif hasattr(x, "__next__"):
        make = GeneratorAdapter
    elif hasattr(x, "__iter__"):
        make = IterableAdapter
    else:
        raise GraphcError(f"data is arrays, a PyDataset, a generator or another iterable of batches, not {x!r}")
    if y is not None or sample_weight is not None:
        raise GraphcError(f"{type(x).__name__} gives y and sample weights itself, as (x, y, sample_weight)")
    data: Any = x
    return make(data, options)
