"""Lamb. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.frontends.variable import Variable
from graphc.runtime.training.optimizers.adam import Moments, one_less_power
from graphc.runtime.training.optimizers.branches import called


class Lamb(Moments):
    """Adam whose step for each weight is scaled by ‖w‖ / ‖step‖: w ← w − rate · ‖w‖ / ‖s‖ · s, where
    s = m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε); not scaled where one of the norms is 0."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)

    def prepare(self, learning_rate: Any) -> None:
        step = called(ops.cast(self.iterations + 1, "float32"), "step")
        self._of_momentum = called(one_less_power(self.beta_1, step), "momentum_correction")
        self._of_velocity = called(one_less_power(self.beta_2, step), "velocity_correction")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        m, v = self.averaged(gradient, variable)
        dtype = variable.dtype
        spread = ops.sqrt(v / ops.cast(self._of_velocity, dtype)) + self.epsilon
        step = m / ops.cast(self._of_momentum, dtype) / spread
        size, length = ops.sqrt(ops.sum(ops.square(variable))), ops.sqrt(ops.sum(ops.square(step)))
        scaled = ops.logical_and(size > 0, length > 0)
        ratio = ops.where(scaled, size / ops.where(scaled, length, ops.ones_like(length)), ops.ones_like(size))
        variable.assign(variable - step * (ratio * ops.cast(learning_rate, dtype)))


__all__ = ["Lamb"]
