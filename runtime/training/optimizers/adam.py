"""Adam and AdamW. Kingma and Ba, "Adam: a method for stochastic optimization", 2015."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends import ops
from graphc.frontends.variable import Variable
from graphc.ir.errors import GraphcError
from graphc.runtime.training.optimizers.branches import called
from graphc.runtime.training.optimizers.optimizer import Optimizer


class Adam(Optimizer):
    """m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², w ← w − α m / (√v + ε).

    In step t, counted from 1, α is rate · √(1 − β₂ᵗ) / (1 − β₁ᵗ). `epsilon` is the ε̂ of the paper's section 2.1, as in
    Keras. With `amsgrad` the largest v so far takes v's place.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = beta_1, beta_2, epsilon, amsgrad

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])
        self._maxima = self.add_optimizer_variables(variables, "velocity_hat") if self.amsgrad else []

    def prepare(self, learning_rate: Any) -> None:
        step = called(ops.cast(self.iterations + 1, "float32"), "step")
        correction = ops.sqrt(1.0 - ops.power(self.beta_2, step)) / (1.0 - ops.power(self.beta_1, step))
        self._alpha = called(ops.cast(learning_rate, "float32") * correction, "alpha")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        m.assign(ops.lerp(m, gradient, weight=1 - self.beta_1))
        v.assign(ops.lerp(v, ops.square(gradient), weight=1 - self.beta_2))
        if self.amsgrad:
            self._maxima[index].assign(ops.maximum(self._maxima[index], v))
            v = self._maxima[index]
        variable.assign(variable - m * ops.cast(self._alpha, variable.dtype) / (ops.sqrt(v) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
        }


class AdamW(Adam):
    """Adam with weight decay, which is decoupled from the gradient: Loshchilov and Hutter, 2019."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        if weight_decay is None:
            raise GraphcError("AdamW needs a weight_decay; without one it is Adam")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **kwargs)


__all__ = ["Adam", "AdamW"]
