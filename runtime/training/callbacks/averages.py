"""`SwapEMAWeights`: evaluates with the running averages of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.runtime.training.callbacks.callback import Callback, State


class SwapEMAWeights(Callback):
    """Lets the averages that an optimizer with `use_ema=True` keeps take the weights' place in `evaluate`, `predict`
    and the validation of `fit`; then the weights are put back.

    With `swap_on_epoch` they are there from the end of an epoch to the beginning of the next too, for callbacks that
    come after this one, such as `ModelCheckpoint`. Before the first step there are no averages, and nothing is done.
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._weights: list[np.ndarray[Any, Any]] | None = None
        """The weights, while averages are in their place."""

    def _optimizer(self) -> Any:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if not getattr(optimizer, "use_ema", False):
            raise GraphcError("SwapEMAWeights needs an optimizer that keeps averages of weights: use_ema=True")
        return optimizer

    def _swap(self) -> None:
        optimizer = self._optimizer()
        if self._weights is None and optimizer.built and int(optimizer._iterations.numpy()):
            trained = optimizer._trainable_variables
            self._weights = [variable.numpy().copy() for variable in trained]
            optimizer.finalize_variable_values(trained)

    def _put_back(self) -> None:
        if self._weights is not None:
            for variable, array in zip(self._optimizer()._trainable_variables, self._weights, strict=True):
                variable.assign(array)
            self._weights = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._weights = None
        self._optimizer()  # told before the first step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._put_back()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.swap_on_epoch:
            self._swap()

    def on_train_end(self, logs: Any = None) -> None:
        self._weights = None  # `fit` has put the averages in their place for good

    def on_test_begin(self, logs: Any = None) -> None:
        self._swap()

    def on_test_end(self, logs: Any = None) -> None:
        self._put_back()

    def on_predict_begin(self, logs: Any = None) -> None:
        self._swap()

    def on_predict_end(self, logs: Any = None) -> None:
        self._put_back()

    def get_state(self) -> State | None:
        """The weights, where a run is saved while the averages are in their place."""
        return None if self._weights is None else {str(i): array for i, array in enumerate(self._weights)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._weights = [np.asarray(state[str(i)]) for i in range(len(state))]


__all__ = ["SwapEMAWeights"]
