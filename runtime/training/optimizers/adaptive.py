"""RMSprop, Adagrad and Adadelta: steps divided by the size of gradients so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends import initializers, ops
from graphc.frontends.variable import Variable
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.optimizer import Optimizer


class RMSprop(Optimizer):
    """v ← ρ v + (1 − ρ) g², w ← w − rate · g / √(v + ε). With `momentum` the steps are summed up with decay; with
    `centered` the square of the gradients' average is taken from v. Hinton's lecture 6e, 2012."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.rho = check.decay_rate(self, "rho", rho)
        self.momentum = check.share(self, "momentum", momentum)
        self.epsilon = check.positive(self, "epsilon", epsilon)
        self.centered = check.flag(self, "centered", centered)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._momentums = self.add_optimizer_variables(variables, "momentum") if self.momentum > 0 else []
        self._averages_of_gradients = (
            self.add_optimizer_variables(variables, "average_gradient") if self.centered else []
        )

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        index, rho = self._get_variable_index(variable), self.rho
        v = self._velocities[index]
        v.assign(v * rho + ops.square(gradient) * (1 - rho))
        spread = v + self.epsilon
        if self.centered:
            average = self._averages_of_gradients[index]
            average.assign(average * rho + gradient * (1 - rho))
            spread = v - ops.square(average) + self.epsilon
        step = gradient * ops.cast(learning_rate, variable.dtype) / ops.sqrt(spread)
        if self.momentum > 0:
            momentum = self._momentums[index]
            momentum.assign(momentum * self.momentum + step)
            step = momentum
        variable.assign(variable - step)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


class Adagrad(Optimizer):
    """v ← v + g², w ← w − rate · g / √(v + ε). Duchi, Hazan and Singer, 2011."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        start = check.not_negative(self, "initial_accumulator_value", initial_accumulator_value)
        self.initial_accumulator_value = start
        # What is divided by must not be 0.
        self.epsilon = (check.not_negative if start else check.positive)(self, "epsilon", epsilon)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        start = initializers.Constant(self.initial_accumulator_value)
        self._accumulators = self.add_optimizer_variables(variables, "accumulator", start)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        total = self._accumulators[self._get_variable_index(variable)]
        total.assign(total + ops.square(gradient))
        step = gradient * ops.cast(learning_rate, variable.dtype) / ops.sqrt(total + self.epsilon)
        variable.assign(variable - step)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "initial_accumulator_value": self.initial_accumulator_value,
            "epsilon": self.epsilon,
        }


class Adadelta(Optimizer):
    """v ← ρ v + (1 − ρ) g², s = √(d + ε) / √(v + ε) · g, d ← ρ d + (1 − ρ) s², w ← w − rate · s: Zeiler, 2012.

    In the paper the rate is 1; Keras's default is 0.001.
    """

    def __init__(self, learning_rate: Any = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self.rho = check.decay_rate(self, "rho", rho)
        self.epsilon = check.positive(self, "epsilon", epsilon)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        names = ["accumulated_grad", "accumulated_delta_var"]
        self._of_gradients, self._of_steps = self.add_optimizer_variables(variables, names)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        index, rho = self._get_variable_index(variable), self.rho
        v, d = self._of_gradients[index], self._of_steps[index]
        v.assign(v * rho + ops.square(gradient) * (1 - rho))
        step = ops.sqrt(d + self.epsilon) * gradient / ops.sqrt(v + self.epsilon)
        d.assign(d * rho + ops.square(step) * (1 - rho))
        variable.assign(variable - step * ops.cast(learning_rate, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}


__all__ = ["Adadelta", "Adagrad", "RMSprop"]
