"""Adam and its family: AdamW, Nadam, Adamax. Kingma and Ba, "Adam: a method for stochastic optimization", 2015."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.frontends import initializers, ops
from graphc.frontends.variable import Variable
from graphc.ir.errors import GraphcError
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.branches import called
from graphc.runtime.training.optimizers.optimizer import Optimizer


def one_less_power(beta: float, step: Any) -> Any:
    """1 − βᵗ to float32's precision, in which 1 − 0.999 itself loses three of seven digits: as −expm1(t ln β)."""
    return -ops.expm1(step * math.log(beta)) if beta else ops.ones_like(step)


class Moments(Optimizer):
    """What these share: averages of gradients and of their squares that forget at the rates `beta_1` and `beta_2`."""

    def __init__(self, learning_rate: Any, beta_1: float, beta_2: float, epsilon: float, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = check.decay_rate(self, "beta_1", beta_1)
        self.beta_2 = check.decay_rate(self, "beta_2", beta_2)
        self.epsilon = check.positive(self, "epsilon", epsilon)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def averaged(self, gradient: Any, variable: Variable) -> tuple[Variable, Variable]:
        """The averages of the gradient and of its square, brought up to date."""
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        m.assign(ops.lerp(m, gradient, weight=1 - self.beta_1))
        v.assign(ops.lerp(v, ops.square(gradient), weight=1 - self.beta_2))
        return m, v

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class Adam(Moments):
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
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)
        self.amsgrad = check.flag(self, "amsgrad", amsgrad)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._maxima = self.add_optimizer_variables(variables, "velocity_hat") if self.amsgrad else []

    def prepare(self, learning_rate: Any) -> None:
        step = called(ops.cast(self.iterations + 1, "float32"), "step")
        correction = ops.sqrt(one_less_power(self.beta_2, step)) / one_less_power(self.beta_1, step)
        self._alpha = called(ops.cast(learning_rate, "float32") * correction, "alpha")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        m, v = self.averaged(gradient, variable)
        if self.amsgrad:
            largest = self._maxima[self._get_variable_index(variable)]
            largest.assign(ops.maximum(largest, v))
            v = largest
        variable.assign(variable - m * ops.cast(self._alpha, variable.dtype) / (ops.sqrt(v) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "amsgrad": self.amsgrad}


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


class Nadam(Moments):
    """Adam with Nesterov's momentum: Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    In step t, μₜ = β₁ (1 − 0.96ᵗ / 2), and w ← w − rate · m̂ / (√(v / (1 − β₂ᵗ)) + ε) with
    m̂ = μₜ₊₁ m / (1 − μ₁ ⋯ μₜ₊₁) + (1 − μₜ) g / (1 − μ₁ ⋯ μₜ).
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._product = self.add_variable((), initializers.Constant(1.0), name="momentum_product")

    def prepare(self, learning_rate: Any) -> None:
        step = called(ops.cast(self.iterations + 1, "float32"), "step")
        now = called(self.beta_1 * (1.0 - 0.5 * ops.power(0.96, step)), "mu")
        following = called(self.beta_1 * (1.0 - 0.5 * ops.power(0.96, step + 1.0)), "next_mu")
        self._product.assign(self._product * now)
        product = ops.convert_to_tensor(self._product)
        self._of_momentum = called(following / (1.0 - product * following), "momentum_share")
        self._of_gradient = called((1.0 - now) / (1.0 - product), "gradient_share")
        self._correction = called(one_less_power(self.beta_2, step), "correction")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        m, v = self.averaged(gradient, variable)
        dtype = variable.dtype
        ahead = m * ops.cast(self._of_momentum, dtype) + gradient * ops.cast(self._of_gradient, dtype)
        spread = ops.sqrt(v / ops.cast(self._correction, dtype)) + self.epsilon
        variable.assign(variable - ahead * ops.cast(learning_rate, dtype) / spread)


class Adamax(Optimizer):
    """m ← β₁ m + (1 − β₁) g, u ← max(β₂ u, |g|), w ← w − rate / (1 − β₁ᵗ) · m / (u + ε): section 7.1 of the paper."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = check.decay_rate(self, "beta_1", beta_1)
        self.beta_2 = check.decay_rate(self, "beta_2", beta_2)
        self.epsilon = check.positive(self, "epsilon", epsilon)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._momentums, self._norms = self.add_optimizer_variables(variables, ["momentum", "norm"])

    def prepare(self, learning_rate: Any) -> None:
        step = called(ops.cast(self.iterations + 1, "float32"), "step")
        rate = ops.cast(learning_rate, "float32") / one_less_power(self.beta_1, step)
        self._alpha = called(rate, "alpha")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        m, u = self._momentums[index], self._norms[index]
        m.assign(ops.lerp(m, gradient, weight=1 - self.beta_1))
        u.assign(ops.maximum(u * self.beta_2, ops.abs(gradient)))
        variable.assign(variable - m * ops.cast(self._alpha, variable.dtype) / (u + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


__all__ = ["Adam", "AdamW", "Adamax", "Moments", "Nadam", "one_less_power"]
