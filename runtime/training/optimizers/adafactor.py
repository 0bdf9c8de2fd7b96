"""Adafactor. Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends import ops
from graphc.frontends.variable import Variable
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.branches import called
from graphc.runtime.training.optimizers.optimizer import Optimizer


class Adafactor(Optimizer):
    """w ← w − α u / max(1, rms(u) / `clip_threshold`), u = g / √v, α = max(`epsilon_2`, rms(w)) · min(rate, 1 / √t).

    In step t, counted from 1, averages keep the share 1 − t^`beta_2_decay` of what they were. For a vector v averages
    g² + `epsilon_1`. For what has more axes the means r of it along the last axis and c along the one before are
    averaged, and v is r cᵀ / mean(r): no array as large as the weight is kept, where Keras keeps v too.

    `relative_step` is Keras's and changes nothing, as there: no rate is above 1 / √t in any case.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        if not check.is_number(beta_2_decay) or not float(beta_2_decay) < 0:
            raise check.wrong(self, "beta_2_decay", "a number below 0", beta_2_decay)
        self.beta_2_decay = check.number(self, "beta_2_decay", beta_2_decay)
        self.epsilon_1 = check.positive(self, "epsilon_1", epsilon_1)
        self.epsilon_2 = check.not_negative(self, "epsilon_2", epsilon_2)
        self.clip_threshold = check.positive(self, "clip_threshold", clip_threshold)
        self.relative_step = check.flag(self, "relative_step", relative_step)

    def build(self, variables: Sequence[Variable]) -> None:
        super().build(variables)
        self._averages_of_squares = [self._slots(variable) for variable in variables]

    def _slots(self, variable: Variable) -> list[Variable]:
        if variable.ndim < 2:
            return [self.add_variable_from_reference(variable, "velocity")]
        *outer, rows, columns = variable.shape
        shapes = {"velocity_of_rows": (*outer, rows), "velocity_of_columns": (*outer, columns)}
        return [self.add_variable_of(variable, shape, name) for name, shape in shapes.items()]

    def prepare(self, learning_rate: Any) -> None:
        step = called(ops.cast(self.iterations + 1, "float32"), "step")
        rate = ops.minimum(ops.cast(learning_rate, "float32"), 1.0 / ops.sqrt(step))
        self._rate = called(rate, "relative_rate")
        self._share = called(ops.power(step, self.beta_2_decay), "share")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        dtype = variable.dtype
        share = ops.cast(self._share, dtype)
        square = ops.square(gradient) + self.epsilon_1
        slots = self._averages_of_squares[self._get_variable_index(variable)]
        means = [square] if len(slots) == 1 else [ops.mean(square, axis=-1), ops.mean(square, axis=-2)]
        for slot, mean in zip(slots, means, strict=True):
            slot.assign((1 - share) * slot + share * mean)
        spread: Any = slots[0]
        if len(slots) == 2:
            rows, columns = map(ops.convert_to_tensor, slots)
            rows = rows / ops.mean(rows, axis=-1, keepdims=True)
            spread = ops.expand_dims(rows, -1) * ops.expand_dims(columns, -2)
        update = gradient / ops.sqrt(spread)
        update = update / ops.maximum(_rms(update) / self.clip_threshold, 1.0)
        variable.assign(variable - update * (ops.maximum(_rms(variable), self.epsilon_2) * ops.cast(self._rate, dtype)))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_2_decay": self.beta_2_decay,
            "epsilon_1": self.epsilon_1,
            "epsilon_2": self.epsilon_2,
            "clip_threshold": self.clip_threshold,
            "relative_step": self.relative_step,
        }


def _rms(x: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(x)))


__all__ = ["Adafactor"]
