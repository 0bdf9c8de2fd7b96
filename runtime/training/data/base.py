"""What all adapters share: how batches are checked and started, and what was asked for beside the data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from graphc.frontends.warning import warn
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import number_of
from graphc.runtime.training.data.arrays import (
    Array,
    Batch,
    as_arrays,
    check_finite,
    class_weights,
    length,
    named_leaves,
)
from graphc.runtime.training.data.order import fold_in, permutation

BATCH_SIZE = 32
"""How many examples a batch has when nothing is said, as in Keras."""


class Adapter(ABC):
    """Data as batches `(x, y, sample_weight)`."""

    what: str
    """What the data is, in messages."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.steps: int | None = options.steps_per_epoch
        """How many steps an epoch has; None where only the data's end tells."""
        self.exhausted = False
        """Whether the data ended before an epoch did: there is no more."""
        self._parts: tuple[Any, ...] | None = None

    def resume(self, key: Array, initial_epoch: int) -> None:
        """Let the run that starts here be one that was interrupted: the one of this key, which began at this epoch."""
        self.options.key, self.options.initial_epoch = key, initial_epoch

    @abstractmethod
    def example(self) -> Batch:
        """A batch, to see what the data is like; it will come again."""

    def origin(self, epoch: int, step: int, index: int) -> tuple[int, str] | None:
        """The row that example `index` of this step's batch is, and of what, where that is known."""
        return None

    @abstractmethod
    def items(self, epoch: int, step: int) -> Iterator[Any]:
        """The batches of an epoch from `step` on, as they come from the data."""

    def start(self, epoch: int, step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `step` on, to be read to its end before another epoch starts.

        Raises `GraphcError` that names epoch and step, counted from 1, when the data itself raises (the error is its
        cause), and for what is no batch. Data that ends too early is warned of, and then `exhausted`.
        """
        items, given = self.items(epoch, step), step
        while True:
            place = f"epoch {epoch + 1}, step {given + 1}"
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:
                raise GraphcError(f"{self.what} raised {type(error).__name__} at {place}: {error}") from error
            yield self.prepared(item, f"at {place}")
            given += 1
        if self.steps is None:
            self.exhausted = given == 0
        else:
            self.exhausted = given < self.steps
        if self.exhausted:
            wanted = "a batch" if self.steps is None else f"{self.steps} batches"
            if not self.options.repeat:
                asked = number_of(self.steps or 1, "batch was", "batches were")
                warn(f"{self.what} ran out: {asked} asked for, {given or 'none'} came")
                return
            warn(
                f"{self.what} ran out: epoch {epoch + 1} needs {wanted}, {given} came. It stops here; "
                f"give a generator that goes on, or data that can be read again, such as a PyDataset"
            )

    def prepared(self, item: Any, place: str) -> Batch:
        """An item as a batch of arrays, checked."""
        batch = unpacked(item, self.what)
        arrays = tuple(as_arrays(a, n) for a, n in zip(batch, ("x", "y", "sample_weight"), strict=True))
        x, y, sample_weight = arrays
        if self.options.inputs is not None:
            try:
                x = self.options.inputs(x)
            except GraphcError as error:
                raise error.at(f"what {self.what} gave {place}") from None
        try:
            length(x, y, sample_weight)
        except GraphcError as error:
            raise error.at(f"what {self.what} gave {place}") from None
        if self.options.class_weight is not None:
            if sample_weight is not None:
                raise GraphcError("give either class_weight or sample_weight")
            sample_weight = class_weights(y, self.options.class_weight)
        self._check_parts((x, y, sample_weight), place)
        if self.options.check_finite:
            check_finite((x, y, sample_weight), place)
        return x, y, sample_weight

    def _check_parts(self, batch: Batch, place: str) -> None:
        """Raise `GraphcError` for a batch that is not made of what the first one is."""
        parts = tuple(named_leaves(*batch))
        if self._parts is None:
            self._parts = parts
        if parts != self._parts:
            raise GraphcError(
                f"the batch that {self.what} gave {place} is made of {', '.join(parts)}; the first one was of "
                f"{', '.join(self._parts)}"
            )

    def first(self, read: Callable[[], Any]) -> Any:
        """The first item, which `read` reads; what that raises says so, as in `start`."""
        try:
            return read()
        except GraphcError:
            raise
        except Exception as error:
            raise GraphcError(f"{self.what} raised {type(error).__name__} at the first batch: {error}") from error


class Options:
    """What was asked for beside the data."""

    def __init__(
        self,
        batch_size: int | None,
        shuffle: bool | str,
        class_weight: Mapping[int, float] | None,
        steps_per_epoch: int | None,
        key: Array,
        initial_epoch: int,
        repeat: bool,
        check_finite: bool,
        inputs: Callable[[Any], Any] | None = None,
        steps_name: str = "steps_per_epoch",
    ) -> None:
        for name, count in (("batch_size", batch_size), (steps_name, steps_per_epoch)):
            if count is not None and (not _is_whole(count) or count < 1):
                raise GraphcError(f"{name} is an integer of 1 or more, not {count!r}")
        if shuffle not in (True, False, "batch"):
            raise GraphcError(f"shuffle is True, False or 'batch', not {shuffle!r}")
        self.batch_size = BATCH_SIZE if batch_size is None else int(batch_size)
        self.shuffle = shuffle
        self.class_weight = class_weight
        self.steps_per_epoch = None if steps_per_epoch is None else int(steps_per_epoch)
        self.key = np.asarray(key, np.uint32)
        self.initial_epoch = initial_epoch
        self.repeat = repeat
        self.check_finite = check_finite
        self.inputs = inputs
        """What makes a model's inputs of x."""

    def order(self, number: int, size: int) -> Array:
        """The order of `size` things in pass `number`."""
        return permutation(fold_in(self.key, 2 * number), size)


def _is_whole(count: Any) -> bool:
    if isinstance(count, (bool, np.bool_)) or not isinstance(count, (int, float, np.number)):
        return False
    return math.isfinite(count) and int(count) == count


def packed(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """What a step is given, as in Keras: `(x, y)`, with `sample_weight` if there is one, and x alone without y."""
    if sample_weight is not None:
        return x, y, sample_weight
    if y is not None:
        return x, y
    return (x,) if isinstance(x, (tuple, list)) else x


def unpacked(item: Any, what: str = "data") -> Batch:
    """An item of data as `(x, y, sample_weight)`: it is x, or a tuple or list of one to three."""
    if not isinstance(item, (tuple, list)):
        return item, None, None
    if not 1 <= len(item) <= 3:
        raise GraphcError(
            f"{what} gives tuples of {len(item)}; a batch is x, (x, y) or (x, y, sample_weight), where x and y may be "
            f"lists or dicts of arrays"
        )
    x, y, sample_weight = (*item, None, None)[:3]
    return x, y, sample_weight
