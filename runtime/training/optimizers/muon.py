"""Muon. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, with the step sizes of Liu et
al., "Muon is scalable for LLM training", 2025."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import sqrt
from typing import Any

from graphc.frontends import ops
from graphc.frontends.variable import Variable
from graphc.frontends.warning import warn
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.adam import one_less_power
from graphc.runtime.training.optimizers.branches import called
from graphc.runtime.training.optimizers.optimizer import Optimizer


class Muon(Optimizer):
    """m ← μ m + g, w ← w − rate · `rms_rate` √max(rows, columns) · orthogonal(g + μ m), for matrices of hidden layers.

    What is orthogonal to a matrix is found by `ns_steps` steps of a Newton–Schulz iteration, x ← a x + (b A + c A²) x
    with A = x xᵀ, of the coefficients `muon_a`, `muon_b` and `muon_c`. Without `nesterov` it is taken of m. With
    `rms_rate=None` the step is rate times it.

    Weights that are no matrices, with `exclude_embeddings` those with "embedding" in their path, and those whose path
    (`dense/kernel`: the layer's name and the weight's own) one of the expressions `exclude_layers` is found in, take
    the steps of AdamW, with `adam_lr_ratio` times the rate and `adam_weight_decay`. The last layer is to be excluded.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: float | None = 0.004,
        epsilon: float = 1e-7,
        weight_decay: float | None = 0.004,
        exclude_layers: Sequence[str] | None = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.7750,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.adam_beta_1 = check.decay_rate(self, "adam_beta_1", adam_beta_1)
        self.adam_beta_2 = check.decay_rate(self, "adam_beta_2", adam_beta_2)
        self.adam_weight_decay = (
            None if adam_weight_decay is None else check.not_negative(self, "adam_weight_decay", adam_weight_decay)
        )
        self.epsilon = check.positive(self, "epsilon", epsilon)
        words = [] if exclude_layers is None else exclude_layers
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            raise check.wrong(self, "exclude_layers", "a list of expressions", exclude_layers)
        self.exclude_layers = list(words)
        self.exclude_embeddings = check.flag(self, "exclude_embeddings", exclude_embeddings)
        self.muon_a = check.number(self, "muon_a", muon_a)
        self.muon_b = check.number(self, "muon_b", muon_b)
        self.muon_c = check.number(self, "muon_c", muon_c)
        self.adam_lr_ratio = check.not_negative(self, "adam_lr_ratio", adam_lr_ratio)
        self.momentum = check.share(self, "momentum", momentum)
        self.ns_steps = check.count(self, "ns_steps", ns_steps)
        self.nesterov = check.flag(self, "nesterov", nesterov)
        self.rms_rate = None if rms_rate is None else check.positive(self, "rms_rate", rms_rate)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        paths = [variable.path for variable in variables]
        unused = [word for word in self.exclude_layers if not any(re.search(word, path) for path in paths)]
        if unused:
            found = f"exclude_layers of Muon finds {', '.join(map(repr, unused))}"
            warn(f"{found} in the path of no weight that is trained, as {paths[-1]!r} is one")
        self._momentums = self.add_optimizer_variables(variables, "momentum")
        others = [variable for variable in variables if self._takes_adam(variable)]
        velocities = self.add_optimizer_variables(others, "velocity")
        self._velocities = {self._get_variable_index(v): each for v, each in zip(others, velocities, strict=True)}

    def _takes_adam(self, variable: Variable) -> bool:
        path = variable.path
        return (
            variable.ndim != 2
            or (self.exclude_embeddings and "embedding" in path.lower())
            or any(re.search(word, path) for word in self.exclude_layers)
        )

    def _weight_decay_of(self, variable: Variable) -> float | None:
        return self.adam_weight_decay if self._takes_adam(variable) else self.weight_decay

    def _rule_of(self, variable: Variable) -> str:
        return "adamw" if self._takes_adam(variable) else "muon"

    def prepare(self, learning_rate: Any) -> None:
        if not self._velocities:
            return
        step = called(ops.cast(self.iterations + 1, "float32"), "step")
        correction = ops.sqrt(one_less_power(self.adam_beta_2, step)) / one_less_power(self.adam_beta_1, step)
        self._alpha = called(ops.cast(learning_rate, "float32") * self.adam_lr_ratio * correction, "alpha")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        m, v, dtype = self._momentums[index], self._velocities.get(index), variable.dtype
        if v is not None:
            m.assign(ops.lerp(m, gradient, weight=1 - self.adam_beta_1))
            v.assign(ops.lerp(v, ops.square(gradient), weight=1 - self.adam_beta_2))
            variable.assign(variable - m * ops.cast(self._alpha, dtype) / (ops.sqrt(v) + self.epsilon))
            return
        m.assign(m * self.momentum + gradient)
        update = self._orthogonal(gradient + m * self.momentum if self.nesterov else ops.convert_to_tensor(m))
        scale = 1.0 if self.rms_rate is None else self.rms_rate * sqrt(max(variable.shape))
        variable.assign(variable - update * (ops.cast(learning_rate, dtype) * scale))

    def _orthogonal(self, x: Any) -> Any:
        """About U Vᵀ, where x is U S Vᵀ: singular values near 1."""
        tall = x.shape[0] > x.shape[1]
        x = ops.transpose(x) if tall else x
        x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)
        for _ in range(self.ns_steps):
            products = ops.matmul(x, ops.transpose(x))
            mixed = products * self.muon_b + ops.matmul(products, products) * self.muon_c
            x = x * self.muon_a + ops.matmul(mixed, x)
        return ops.transpose(x) if tall else x

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "adam_beta_1": self.adam_beta_1,
            "adam_beta_2": self.adam_beta_2,
            "adam_weight_decay": self.adam_weight_decay,
            "epsilon": self.epsilon,
            "exclude_layers": self.exclude_layers,
            "exclude_embeddings": self.exclude_embeddings,
            "muon_a": self.muon_a,
            "muon_b": self.muon_b,
            "muon_c": self.muon_c,
            "adam_lr_ratio": self.adam_lr_ratio,
            "momentum": self.momentum,
            "ns_steps": self.ns_steps,
            "nesterov": self.nesterov,
            "rms_rate": self.rms_rate,
        }


__all__ = ["Muon"]
