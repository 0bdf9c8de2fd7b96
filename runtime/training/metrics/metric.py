"""The base of metrics: variables that `update_state` adds to, and a `result` made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from graphc.frontends import initializers
from graphc.frontends.naming import snake_case
from graphc.frontends.variable import Variable
from graphc.ir.dtypes import DType, f32
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError
from graphc.runtime.training.target_shapes import Fit, Shape, one_each


class Metric:
    """A quantity over all batches since `reset_state`.

    Subclasses make variables by `add_variable`, and define `update_state(y_true, y_pred, sample_weight=None)` and
    `result()` with `graphc.ops` and `Variable.assign`. On arrays both run at once; in a training step they are
    recorded, so that a metric of one's own runs on every target and its state stays there.
    """

    _direction: Literal["up", "down"] | None = None
    """Whether it is better the greater it is, or the less; callbacks with `mode="auto"` go by it, as in Keras."""

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        self.name = name or snake_case(type(self).__name__)
        self._dtype = f32 if dtype is None else dtype_of(getattr(dtype, "variable_dtype", dtype))
        self._variables: list[Variable] = []
        self._metrics: list[Metric] = []

    @property
    def dtype(self) -> DType:
        """What the metric computes in: float32, unless said otherwise."""
        return self._dtype

    @property
    def variables(self) -> list[Variable]:
        """The state: the metric's own variables in order, then those of metrics among its attributes."""
        return [*self._variables, *(variable for metric in self._metrics for variable in metric.variables)]

    def add_variable(
        self,
        shape: Any = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str = "sum",
        name: str | None = None,
    ) -> Variable:
        """A variable of the state."""
        self._check_made()
        name = name or f"variable_{len(self._variables)}"
        variable = Variable(
            initializers.get(initializer),
            tuple(shape) if np.iterable(shape) else shape,
            dtype_of(dtype or self.dtype),
            trainable=False,
            aggregation=aggregation,
            name=name,
        )
        variable.path = f"metrics/{self.name}/{name}"
        if not any(known is variable for known in self._variables):
            self._variables.append(variable)
        return variable

    def add_weight(self, shape: Any = (), initializer: Any = "zeros", dtype: Any = None, name: Any = None) -> Variable:
        """The same as `add_variable`."""
        if isinstance(shape, str):  # add_weight("total") was Keras 2's order
            shape, name = (), shape
        return self.add_variable(shape, "zeros" if initializer is None else initializer, dtype, name=name)

    def parts(self) -> Iterator[Metric]:
        """The metric itself, and those that it is made of."""
        yield self
        for metric in self._metrics:
            yield from metric.parts()

    def reset_state(self) -> None:
        """Set all variables to 0."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype.numpy))

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take a batch into account. Subclasses define it."""
        raise GraphcError(f"{type(self).__name__} has no method `update_state`")

    def result(self) -> Any:
        """The value now, a scalar or a dict of scalars. Subclasses define it."""
        raise GraphcError(f"{type(self).__name__} has no method `result`")

    def build_for(self, y_true: Any, y_pred: Any) -> None:
        """Make the variables whose shapes follow from those of targets and predictions, where there are such."""

    def fit_of(self, target: Shape, prediction: Shape) -> Fit | None:
        """The shape that targets have to have for such predictions, and the one they have; None where any will do."""
        return None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Update the state, then give the result."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        """The arguments that make such a metric."""
        return {"name": self.name, "dtype": str(self.dtype)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """The metric that `get_config` described, its state new."""
        return cls(**config)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            for item in _found(value):
                self._check_made()
                known: list[Any] = self._metrics if isinstance(item, Metric) else self._variables
                if not any(each is item for each in known):
                    known.append(item)
        super().__setattr__(name, value)

    def _check_made(self) -> None:
        if "_variables" not in self.__dict__:
            raise GraphcError(f"{type(self).__name__}: call `super().__init__()` before variables are made")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class ElementwiseMetric(Metric):
    """A metric that has a target for each number of the predictions."""

    def fit_of(self, target: Shape, prediction: Shape) -> Fit | None:
        return one_each(target, prediction)


def metrics_of(owner: Any) -> list[Metric]:
    """The metrics among the attributes of an object, also those in lists and dicts."""
    lists = (Metric, list, tuple, dict)
    values = [value for name, value in vars(owner).items() if name[0] != "_" and isinstance(value, lists)]
    return [found for value in values for found in _found(value) if isinstance(found, Metric)]


def _found(value: Any) -> Iterator[Any]:
    """The variables and metrics that are `value` or in it."""
    if isinstance(value, (Variable, Metric)):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _found(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _found(item)
