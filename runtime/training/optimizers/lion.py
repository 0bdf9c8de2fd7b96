"""Lion. Chen et al., "Symbolic discovery of optimization algorithms", 2023."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends import ops
from graphc.frontends.variable import Variable
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.optimizer import Optimizer


class Lion(Optimizer):
    """w ← w − rate · sign(β₁ m + (1 − β₁) g), then m ← β₂ m + (1 − β₂) g."""

    def __init__(self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        if not check.is_number(beta_1) or not 0 < beta_1 <= 1:
            raise check.wrong(self, "beta_1", "a number above 0 and at most 1", beta_1)
        self.beta_1, self.beta_2 = float(beta_1), check.decay_rate(self, "beta_2", beta_2)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        m = self._momentums[self._get_variable_index(variable)]
        direction = ops.sign(m * self.beta_1 + gradient * (1 - self.beta_1))
        variable.assign(variable - direction * ops.cast(learning_rate, variable.dtype))
        m.assign(m * self.beta_2 + gradient * (1 - self.beta_2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2}


__all__ = ["Lion"]
