"""`LossScaleOptimizer`: training in float16, whose small gradients vanish unless the loss is scaled up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends import initializers, ops
from graphc.frontends.variable import Variable
from graphc.ir.dtypes import f32, i32
from graphc.ir.errors import GraphcError
from graphc.runtime.training.accumulation import Part
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.branches import scope, when
from graphc.runtime.training.optimizers.optimizer import Optimizer


class LossScaleOptimizer(Optimizer):
    """Wraps an optimizer. The loss is multiplied by `dynamic_scale`, gradients are divided by it.

    Where a gradient is not finite the step changes no weight, and the scale is halved; after `dynamic_growth_steps`
    steps without that it is doubled. Micikevicius et al., "Mixed precision training", 2018.
    """

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            inside = [name for name in kwargs if name in check.arguments(Optimizer)]
            if inside:
                raise GraphcError(f"LossScaleOptimizer takes no {inside[0]}: give it to the inner optimizer")
            raise check.unknown(self, kwargs)
        if not isinstance(inner_optimizer, Optimizer) or isinstance(inner_optimizer, LossScaleOptimizer):
            raise check.wrong(self, "inner_optimizer", "an optimizer that does not scale its loss", inner_optimizer)
        self.inner_optimizer: Optimizer = inner_optimizer
        super().__init__(0.0, name=name)
        self._variables.clear()  # steps are counted by the optimizer inside
        self.initial_scale = check.positive(self, "initial_scale", initial_scale)
        self.dynamic_growth_steps = check.count(self, "dynamic_growth_steps", dynamic_growth_steps)
        self.inner_optimizer.loss_scale_factor = None
        self.inner_optimizer.skips_steps = True

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if hasattr(self, "initial_scale"):
            self.inner_optimizer.learning_rate = value

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @property
    def variables(self) -> list[Variable]:
        return [*self._variables, *self.inner_optimizer.variables]

    def build(self, variables: Sequence[Variable]) -> None:
        self._make_scale()
        self.inner_optimizer.build(variables)
        self._trainable_variables = list(variables)
        self.built = True

    def _make_scale(self) -> None:
        """The scale is needed for the loss, before the variables to train are known."""
        if not self._variables:
            start = initializers.Constant(self.initial_scale)
            self.step_counter = self.add_variable((), dtype=i32, name="step_counter")
            self.dynamic_scale = self.add_variable((), start, dtype=f32, name="dynamic_scale")

    def scale_loss(self, loss: Any) -> Any:
        self._make_scale()
        return loss * ops.cast(self.dynamic_scale, loss.dtype)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None) -> None:
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if not self.built:
            self.build(variables)
        inner = self.inner_optimizer
        found = inner._parts(grads, variables)
        with scope("optimizer"):
            wide = [[None if g is None else ops.cast(g, v.dtype) for g, v in _pairs(part, variables)] for part in found]
            finite = self.check_finite([gradient for gradients in wide for gradient in gradients])
            scale = ops.convert_to_tensor(self.dynamic_scale)
            unscaled = [
                Part([None if g is None else g / ops.cast(scale, g.dtype) for g in gradients], part.weight)
                for gradients, part in zip(wide, found, strict=True)
            ]
        when(finite, lambda: inner._apply_parts(unscaled, variables))
        with scope("optimizer"):
            steps = ops.add(self.step_counter, 1)
            grown = ops.equal(steps, self.dynamic_growth_steps)
            factor = ops.where(finite, ops.where(grown, 2.0, 1.0), 0.5)
            self.step_counter.assign(ops.where(ops.logical_and(finite, ops.logical_not(grown)), steps, 0))
            self.dynamic_scale.assign(scale * factor)

    def check_finite(self, grads: Sequence[Any]) -> Any:
        """Whether all gradients are finite."""
        found = [ops.all(ops.isfinite(gradient)) for gradient in grads if gradient is not None]
        finite = found[0]
        for each in found[1:]:
            finite = ops.logical_and(finite, each)
        return finite

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        from graphc.frontends import serialization

        return {
            "name": self.name,
            "inner_optimizer": serialization.serialize(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }


def _pairs(part: Part, variables: list[Variable]) -> zip[tuple[Any, Variable]]:
    return zip(part.gradients, variables, strict=True)


__all__ = ["LossScaleOptimizer"]
