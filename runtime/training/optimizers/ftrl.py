"""Ftrl. McMahan et al., "Ad click prediction: a view from the trenches", 2013."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends import initializers, ops
from graphc.frontends.variable import Variable
from graphc.ir.errors import GraphcError
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.optimizer import Optimizer

STRENGTHS = ("l1_regularization_strength", "l2_regularization_strength", "l2_shrinkage_regularization_strength")


class Ftrl(Optimizer):
    """Follows the regularized leader, which keeps weights of rare inputs at 0 (with `l1_regularization_strength` λ₁).

    With p = `learning_rate_power`: n′ ← n + g², z ← z + g − (n′⁻ᵖ − n⁻ᵖ) / rate · w, and then
    w ← (clip(z, −λ₁, λ₁) − z) / (n′⁻ᵖ / rate + 2 λ₂ + `beta` / rate). With `l2_shrinkage_regularization_strength` λ,
    g + 2 λ w takes the place of g in z.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.learning_rate_power = check.number(self, "learning_rate_power", learning_rate_power)
        if self.learning_rate_power > 0:
            raise GraphcError(f"learning_rate_power of Ftrl is a number of 0 or less, not {learning_rate_power!r}")
        start = check.not_negative(self, "initial_accumulator_value", initial_accumulator_value)
        self.initial_accumulator_value = start
        self.l1_regularization_strength = check.not_negative(self, STRENGTHS[0], l1_regularization_strength)
        self.l2_regularization_strength = check.not_negative(self, STRENGTHS[1], l2_regularization_strength)
        shrinkage = check.not_negative(self, STRENGTHS[2], l2_shrinkage_regularization_strength)
        self.l2_shrinkage_regularization_strength = shrinkage
        self.beta = check.not_negative(self, "beta", beta)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        start = [initializers.Constant(self.initial_accumulator_value), "zeros"]
        self._accumulators, self._linears = self.add_optimizer_variables(variables, ["accumulator", "linear"], start)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        index, power = self._get_variable_index(variable), -self.learning_rate_power
        total, linear = self._accumulators[index], self._linears[index]
        rate = ops.cast(learning_rate, variable.dtype)
        new = total + ops.square(gradient)
        shrunk = gradient + ops.multiply(variable, 2 * self.l2_shrinkage_regularization_strength)
        grown = ops.power(new, power)
        linear.assign(linear + (shrunk - (grown - ops.power(total, power)) / rate * variable))
        limit = self.l1_regularization_strength
        quadratic = grown / rate + (2 * self.l2_regularization_strength + self.beta / rate)
        variable.assign((ops.clip(linear, -limit, limit) - linear) / quadratic)
        total.assign(new)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "learning_rate_power": self.learning_rate_power,
            "initial_accumulator_value": self.initial_accumulator_value,
            **{name: getattr(self, name) for name in STRENGTHS},
            "beta": self.beta,
        }


__all__ = ["Ftrl"]
