"""Gradient descent, with momentum if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends import ops
from graphc.frontends.variable import Variable
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.optimizer import Optimizer


class SGD(Optimizer):
    """w ← w − rate · g. With `momentum` μ: v ← μ v − rate · g, w ← w + v; with `nesterov`: w ← w + μ v − rate · g."""

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum = check.share(self, "momentum", momentum)
        self.nesterov = check.flag(self, "nesterov", nesterov)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum") if self.momentum else []

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        step = gradient * ops.cast(learning_rate, variable.dtype)
        if not self.momentum:
            variable.assign(variable - step)
            return
        velocity = self.momentums[self._get_variable_index(variable)]
        velocity.assign(velocity * self.momentum - step)
        variable.assign(variable + (velocity * self.momentum - step if self.nesterov else velocity))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


__all__ = ["SGD"]
