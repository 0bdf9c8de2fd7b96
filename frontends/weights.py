"""The weights of a layer or model: which there are, in Keras's order, and reading and setting them all."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from graphc.frontends.tracking import Tracker
from graphc.frontends.variable import Variable, rearranged
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.suggestions import number_of


class WeightOwner:
    """What `Layer` has to do with weights. A layer's own come first, trainable before others, then its sublayers'."""

    name: str
    built: bool
    _tracker: Tracker
    _trainable: bool

    @property
    def _layers(self) -> list[Any]:
        """The sublayers in the order of their weights."""
        return self._tracker.layers

    @property
    def own_variables(self) -> list[Variable]:
        """The variables of the layer itself: those made trainable, then the others."""
        variables = self._tracker.variables
        meant = {id(v): v.trainable or v.frozen for v in variables}  # an adapter leaves the order as it is
        return [v for v in variables if meant[id(v)]] + [v for v in variables if not meant[id(v)]]

    @property
    def weights(self) -> list[Variable]:
        """All variables, each once."""
        found = {id(v): v for v in self.own_variables}
        for layer in self._layers:
            for variable in layer.weights:
                found.setdefault(id(variable), variable)
        return list(found.values())

    @property
    def variables(self) -> list[Variable]:
        """The same as `weights`."""
        return self.weights

    @property
    def trainable(self) -> bool:
        """Whether training changes the layer. Setting it sets it for all sublayers."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        rearranged()
        for layer in self._layers:
            layer.trainable = value

    @property
    def trainable_weights(self) -> list[Variable]:
        """The variables that training changes."""
        if not self.trainable:
            return []
        found = {id(v): v for v in self.own_variables if v.trainable}
        for layer in self._layers:
            for variable in layer.trainable_weights:
                found.setdefault(id(variable), variable)
        return list(found.values())

    @property
    def trainable_variables(self) -> list[Variable]:
        """The same as `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The variables that training leaves alone, or changes other than by gradients."""
        trainable = {id(v) for v in self.trainable_weights}
        return [v for v in self.weights if id(v) not in trainable]

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """The same as `non_trainable_weights`."""
        return self.non_trainable_weights

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Copies of the arrays, in the order of `weights`."""
        return [variable.numpy().copy() for variable in self.weights]

    def set_weights(self, weights: Iterable[Any]) -> None:
        """Set all arrays, in the order of `weights`. Raises `ShapeError` and sets none if one does not fit."""
        arrays = [np.asarray(array) for array in weights]
        variables = self.weights
        if len(arrays) != len(variables):
            hint = "" if self.built else "; it has none before it is built: call it on an input first"
            raise ShapeError(
                f"{self.name!r} has {number_of(len(variables), 'weight')}, "
                f"{number_of(len(arrays), 'array was', 'arrays were')} given{hint}"
            )
        for index, (variable, array) in enumerate(zip(variables, arrays, strict=True)):
            if tuple(variable.shape) != array.shape:
                raise ShapeError(
                    f"array {index} has shape {array.shape}; weight {variable.name!r} of {self.name!r} "
                    f"has shape {tuple(variable.shape)}"
                )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def count_params(self) -> int:
        """How many numbers the weights have."""
        if not self.built:
            raise GraphcError(f"layer {self.name!r} has no weights yet: build it, or call it on an input, first")
        return sum(prod(variable.shape) for variable in self.weights)
