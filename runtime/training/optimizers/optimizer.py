"""`Optimizer`: what all optimizers share. A subclass says how one variable is updated, with `graphc.ops`.

The update is recorded: variables that keep something between steps are entries of the module's weight table below
`optimizer/`, and the learning rate is an input, so that changing it compiles nothing. Names, arguments, defaults and
numerics are those of Keras 3 (`keras.optimizers.Optimizer`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.frontends import ops
from graphc.frontends.copying import refuse_pickle
from graphc.frontends.naming import automatic_name, snake_case
from graphc.frontends.recording import current_recording
from graphc.frontends.variable import Variable, changes
from graphc.ir.builder import Builder
from graphc.ir.dtypes import f32, i32
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType
from graphc.runtime.training import constraints
from graphc.runtime.training.accumulation import CONSTANT, Accumulator, Part, parts
from graphc.runtime.training.optimizers import clipping
from graphc.runtime.training.optimizers import hyperparameters as check
from graphc.runtime.training.optimizers.branches import scope, when
from graphc.runtime.training.schedules import LearningRateSchedule

SCALAR = TensorType.of(f32, ())


COUNT = "weight_accumulator"
"""The name of the variable that says what was accumulated so far counts for; one for each part of a loss."""


@dataclass(frozen=True)
class LaterRate:
    """The rate of a schedule after `ahead` more updates than were made when a step begins."""

    optimizer: Optimizer
    ahead: int

    def __call__(self) -> Any:
        return self.optimizer._rate_of(int(self.optimizer._iterations.numpy()) + self.ahead)


class LearningRate(Variable):
    """A number that the host passes to each step, rather than a weight. `compute` gives what it passes."""

    compute: Callable[[], Any]

    def __graphc_value__(self, builder: Builder) -> Any:
        recording = current_recording()
        if recording is None:
            return super().__graphc_value__(builder)
        return recording.host_input("learning_rate", SCALAR, self.compute)


class Optimizer:
    """Base class of optimizers. Subclasses define `build` (their variables), `update_step` and `get_config`.

    `learning_rate` is a number, a schedule, or a function without arguments. Of `clipnorm` (of each gradient),
    `global_clipnorm` (of all together) and `clipvalue` one may be given. `weight_decay` subtracts that share of each
    weight times the learning rate before the update, so it is decoupled, in every optimizer.

    With `gradient_accumulation_steps` k, the gradients of k batches are put together and applied on the k-th: the same
    update, but for rounding, as one batch of all their examples gives. Each term of the loss counts for what it was
    taken over: a mean for its examples, with `ignore_class` or "mean_with_sample_weight" for what it was divided by; a
    sum is summed, penalties on weights count once. A Python loss that returns a scalar and what `add_loss` is given are
    taken for means over examples. Terms of one loss that count differently have a backward pass each. What a layer
    finds out of a whole batch, such as the statistics of batch normalization, and random numbers are those of the small
    batches. A schedule goes on with each batch, as in Keras, not with each update.

    `use_ema` keeps running averages of the weights, taken after each batch, which take the weights' place every
    `ema_overwrite_frequency` updates, and when `fit` ends; in the first update the average is the weight.

    Raises `GraphcError` for an argument that is out of range or not known.
    """

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise check.unknown(self, kwargs)
        clips = {"clipnorm": clipnorm, "global_clipnorm": global_clipnorm, "clipvalue": clipvalue}
        clips = {name: check.positive(self, name, value) for name, value in clips.items() if value is not None}
        if len(clips) > 1:
            raise GraphcError(f"{type(self).__name__} clips gradients in one way, not several: {' and '.join(clips)}")
        if name is not None and not isinstance(name, str):
            raise check.wrong(self, "name", "a text", name)
        self.name = name or automatic_name(snake_case(type(self).__name__))
        self.weight_decay = None if weight_decay is None else check.not_negative(self, "weight_decay", weight_decay)
        self.clipnorm, self.clipvalue = clips.get("clipnorm"), clips.get("clipvalue")
        self.global_clipnorm = clips.get("global_clipnorm")
        self.use_ema = check.flag(self, "use_ema", use_ema)
        self.ema_momentum = check.share(self, "ema_momentum", ema_momentum)
        self.ema_overwrite_frequency = self._count_or_none("ema_overwrite_frequency", ema_overwrite_frequency, 1)
        self.loss_scale_factor = None
        if loss_scale_factor is not None:
            self.loss_scale_factor = check.positive(self, "loss_scale_factor", loss_scale_factor)
        self.gradient_accumulation_steps = self._count_or_none(
            "gradient_accumulation_steps", gradient_accumulation_steps, 2
        )
        self.built = False
        self._variables: list[Variable] = []
        self._index: dict[int, int] = {}
        self._trainable_variables: list[Variable] = []
        self._excluded: set[int] = set()
        self._excluded_names: tuple[str, ...] = ()
        self._iterations = self.add_variable((), dtype=i32, name="iteration")
        self.skips_steps = False
        """Whether a call of the target makes no step, or several, so that only the target knows how many there were."""
        self._next_step, self._counted_at = 0, -1
        self._gradient_accumulators: list[Accumulator] = []
        self._learning_rate: Any = None
        self.learning_rate = learning_rate

    def _count_or_none(self, name: str, value: Any, least: int) -> int | None:
        return None if value is None else check.count(self, name, value, least)

    # --- the learning rate ---------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> Any:
        """A variable, where it is a number; of a schedule, its value now. While a step is recorded, its input."""
        if isinstance(self._learning_rate, LearningRate):
            return self._learning_rate
        recording = current_recording() if Builder.current() is not None else None
        if recording is not None:
            ahead = recording.applied[id(self)]
            counted = recording.training and not ahead
            return recording.host_input("learning_rate", SCALAR, self._next_rate if counted else LaterRate(self, ahead))
        return float(self._rate_of(int(self._iterations.numpy())))

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        is_function = callable(value) and not isinstance(value, type) and not hasattr(value, "__array__")
        self._counted_at = -1
        if isinstance(value, LearningRateSchedule) or is_function:
            self._learning_rate = value
        elif isinstance(self._learning_rate, LearningRateSchedule):
            raise GraphcError("the learning rate follows a schedule, so it cannot be set; give a number instead of one")
        else:
            number: Any = self._checked_rate(value)
            if isinstance(self._learning_rate, LearningRate):
                self._learning_rate.assign(number)
            else:
                self._learning_rate = LearningRate(number, name="learning_rate", trainable=False)
                self._learning_rate.compute = self._next_rate

    def _checked_rate(self, value: Any) -> Any:
        rate = np.float32(value) if check.is_number(value) else None
        if rate is None or not 0 <= rate < np.inf:
            wanted = "a number of 0 or more, a schedule or a function without arguments"
            raise check.wrong(self, "learning_rate", wanted, value)
        return rate

    def _rate_of(self, step: int) -> Any:
        """The rate of a step: a schedule computes it in float64."""
        given = self._learning_rate
        found: Any = given(step) if isinstance(given, LearningRateSchedule) else given()
        if not check.is_number(found) or not 0 <= found < np.inf:
            raise GraphcError(f"{given!r} gives the learning rate {found!r} for step {step}, not a number of 0 or more")
        return np.float32(found)

    def _next_rate(self) -> Any:
        """The rate of the step that comes next, for which this is called once.

        The steps are counted here; where a variable was set meanwhile, the target is asked how many there were.
        """
        if isinstance(self._learning_rate, LearningRate):
            return self._learning_rate.numpy()
        if self._counted_at != changes() or self.skips_steps:
            self._next_step, self._counted_at = int(self._iterations.numpy()), changes()
        self._next_step += 1
        return self._rate_of(self._next_step - 1)

    @property
    def iterations(self) -> Any:
        """How many updates were made."""
        steps = self.gradient_accumulation_steps
        return ops.floor_divide(self._iterations, steps) if steps else self._iterations

    # --- variables -----------------------------------------------------------------------------------------------

    @property
    def variables(self) -> list[Variable]:
        """What the optimizer keeps between steps."""
        return list(self._variables)

    def add_variable(
        self, shape: Any, initializer: Any = "zeros", dtype: Any = None, aggregation: str = "none", name: Any = None
    ) -> Variable:
        """A new variable of the optimizer, `optimizer/<name>` in the weight table."""
        variable = Variable(initializer, shape, dtype, trainable=False, aggregation=aggregation, name=name)
        variable.path = f"optimizer/{variable.name}"
        self._variables.append(variable)
        return variable

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """A new variable like a weight, `optimizer/<path of the weight>/<name>` in the weight table."""
        return self.add_variable_of(reference_variable, reference_variable.shape, name or "slot", initializer)

    def add_variable_of(self, weight: Variable, shape: Any, name: str, initializer: Any = "zeros") -> Variable:
        """A new variable that is kept for a weight, of the weight's dtype and a shape of its own."""
        variable = self.add_variable(shape, initializer, weight.dtype, name=name)
        variable.slot_of = weight
        return variable

    def add_optimizer_variables(
        self, trainable_variables: Iterable[Variable], name: str | Sequence[str], initializer: Any = "zeros"
    ) -> Any:
        """One such variable for each weight; for several names a list for each of them, whose `initializer` may be a
        list too."""
        names = [name] if isinstance(name, str) else list(name)
        starts = list(initializer) if isinstance(initializer, (list, tuple)) else [initializer] * len(names)
        if len(starts) != len(names):
            raise GraphcError(
                f"of {number_of(len(starts), 'initializer')} each is for one of the variables {', '.join(names)}"
            )
        made = [
            [self.add_variable_from_reference(weight, *each) for each in zip(names, starts, strict=True)]
            for weight in trainable_variables
        ]
        columns = [[row[i] for row in made] for i in range(len(names))]
        return columns[0] if isinstance(name, str) else columns

    def build(self, variables: Sequence[Variable]) -> None:
        """Make the variables that are kept for these weights."""
        self._trainable_variables = list(variables)
        self._index = {id(variable): i for i, variable in enumerate(variables)}
        if self.use_ema:
            self._averages = self.add_optimizer_variables(variables, "average")
        if self.gradient_accumulation_steps:
            self._gradient_accumulators = []
            self.make_accumulators(1)
        self.built = True

    def make_accumulators(self, count: int) -> None:
        """Make the variables that keep sums of gradients, for so many parts of a loss."""
        while len(self._gradient_accumulators) < count:
            number = f"_{len(self._gradient_accumulators)}" if self._gradient_accumulators else ""
            sums = self.add_optimizer_variables(self._trainable_variables, f"gradient_accumulator{number}")
            weight = self.add_variable((), name=f"{COUNT}{number}")
            by_id = {id(variable): kept for variable, kept in zip(self._trainable_variables, sums, strict=True)}
            self._gradient_accumulators.append(Accumulator(by_id, weight))

    def _get_variable_index(self, variable: Variable) -> int:
        return self._index[id(variable)]

    # --- a step --------------------------------------------------------------------------------------------------

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        """Assign the new value of one variable, and of what is kept for it."""
        raise GraphcError(f"{type(self).__name__} defines no update_step")

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Any:
        """`apply` for pairs of a gradient and a variable."""
        pairs = list(grads_and_vars)
        self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])
        return self._iterations

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None) -> None:
        """Update the variables by their gradients; a gradient of None leaves its variable alone.

        The variables are those that the optimizer was built for, where none are given. Raises `GraphcError` when there
        is no gradient at all, or a variable is another than those it was built for.
        """
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        variables = list(trainable_variables)
        if len(grads) != len(variables):
            raise GraphcError(
                f"{number_of(len(grads), 'gradient was', 'gradients were')} given for "
                f"{number_of(len(variables), 'variable')}"
            )
        if not self.built:
            self.build(variables)
        unknown = [variable for variable in variables if id(variable) not in self._index]
        if unknown:
            raise GraphcError(
                f"the optimizer {self.name!r} was built for other variables than {unknown[0].path!r}; "
                "make a new optimizer, as `compile` does from a name, also after another adapter is set"
            )
        if all(gradient is None for gradient in grads):
            raise GraphcError("there is no gradient for any variable")
        self._apply_parts(self._parts(grads, variables), variables)

    def _parts(self, grads: Sequence[Any], variables: list[Variable]) -> list[Part]:
        """The gradients apart for what is accumulated apart."""
        return parts(grads, variables) if self.gradient_accumulation_steps else [Part(list(grads), 1.0)]

    def _apply_parts(self, found: list[Part], variables: list[Variable]) -> None:
        """One step, with gradients that are the sums of these."""
        reached = [any(part.gradients[i] is not None for part in found) for i in range(len(variables))]
        chosen = [i for i, is_reached in enumerate(reached) if is_reached]
        variables = [variables[i] for i in chosen]
        with scope("optimizer"):
            found = [
                Part(
                    [self._unscaled(part.gradients[i], v) for i, v in zip(chosen, variables, strict=True)], part.weight
                )
                for part in found
            ]
            if self.gradient_accumulation_steps:
                self._accumulate(found, variables)
            else:
                self._update(found[0].gradients, variables)
            if self.use_ema:
                self._average(variables)
            self._constrain(variables)
            self._iterations.assign_add(1)
        recording = current_recording()
        if recording is not None:
            recording.applied[id(self)] += 1
            self.skips_steps = self.skips_steps or recording.applied[id(self)] > 1

    def _unscaled(self, gradient: Any, variable: Variable) -> Any:
        if gradient is None:
            return None
        gradient = ops.cast(gradient, variable.dtype)
        return gradient if self.loss_scale_factor is None else gradient / self.loss_scale_factor

    def _accumulate(self, found: list[Part], variables: list[Variable]) -> None:
        summed = [part for part in found if part.weight is not CONSTANT]
        constant = [part for part in found if part.weight is CONSTANT]
        self.make_accumulators(len(summed))
        pairs = list(zip(self._gradient_accumulators, summed, strict=False))
        position = ops.mod(self._iterations, self.gradient_accumulation_steps)
        for accumulator, part in pairs:
            accumulator.add(part, variables, ops.equal(position, 0))

        def update() -> None:
            columns = [accumulator.mean(part, variables) for accumulator, part in pairs]
            columns += [part.gradients for part in constant]
            self._update([_sum(row) for row in zip(*columns, strict=True)], variables)

        last: int = self.gradient_accumulation_steps - 1  # type: ignore[operator]
        when(ops.equal(position, last), update)

    def _update(self, grads: list[Any], variables: list[Variable]) -> None:
        grads = self._clip_gradients(grads)
        rate = self.learning_rate
        for variable in variables:
            decay = self._weight_decay_of(variable)
            if decay is not None and self._use_weight_decay(variable):
                with self._update_of(variable):
                    share = decay * ops.cast(rate, variable.dtype)
                    variable.assign(variable - ops.multiply(variable, share))
        self.prepare(rate)
        for gradient, variable in zip(grads, variables, strict=True):
            with self._update_of(variable):
                self.update_step(gradient, variable, rate)

    def _constrain(self, variables: list[Variable]) -> None:
        for variable in variables:
            constraint = constraints.get(variable.constraint)
            if constraint is not None:
                with self._update_of(variable):
                    variable.assign(constraint(variable))

    def _update_of(self, variable: Variable) -> AbstractContextManager[Any]:
        """The scope of all that is done to one variable: source targets make it the call of a function."""
        recording = current_recording()
        path = variable.path if recording is None else recording.name_of(variable)
        return scope(f"{self._rule_of(variable)}/{path}")

    def _rule_of(self, variable: Variable) -> str:
        """What updates a variable, by which source targets call the function."""
        return type(self).__name__.lower()

    def prepare(self, learning_rate: Any) -> None:
        """Compute what the updates of all variables share, once a step."""

    def _average(self, updated: list[Variable]) -> None:
        """Bring the averages up to date, and let those of `updated` take the weights' place where that is due.

        All weights are averaged, also those that are frozen by now; as in Keras before constraints are applied.
        """
        momentum = ops.cast(ops.not_equal(self.iterations, 0), "float32") * self.ema_momentum
        for variable, average in zip(self._trainable_variables, self._averages, strict=True):
            with self._update_of(variable):
                share = ops.cast(momentum, variable.dtype)
                average.assign(share * average + (1 - share) * variable)
        frequency = self.ema_overwrite_frequency
        if frequency:
            due = ops.equal(ops.mod(self.iterations + 1, frequency), 0)
            averages = [self._averages[self._get_variable_index(variable)] for variable in updated]
            when(due, lambda: [v.assign(average + 0) for v, average in zip(updated, averages, strict=True)])

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if self.clipnorm is not None:
            return [clipping.by_norm(gradient, self.clipnorm) for gradient in grads]
        if self.global_clipnorm is not None:
            return clipping.by_global_norm(grads, self.global_clipnorm)
        if self.clipvalue is not None:
            return [ops.clip(gradient, -self.clipvalue, self.clipvalue) for gradient in grads]
        return grads

    def scale_loss(self, loss: Any) -> Any:
        """The loss whose gradients `apply` takes: scaled up, where small gradients would vanish in float16."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Let the running averages take the place of the weights, with `use_ema`, where one was taken."""
        if self.use_ema and self.built and int(self._iterations.numpy()):
            for variable in var_list:
                if id(variable) in self._index:
                    variable.assign(self._averages[self._get_variable_index(variable)].numpy())

    # --- weight decay --------------------------------------------------------------------------------------------

    def exclude_from_weight_decay(
        self, var_list: Iterable[Variable] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Leave out these variables, and those whose name has one of these words in it, such as `bias`."""
        if self.built:
            raise GraphcError("exclude_from_weight_decay comes before the optimizer is built")
        self._excluded = {id(variable) for variable in var_list or ()}
        self._excluded_names = tuple(var_names or ())

    def _weight_decay_of(self, variable: Variable) -> float | None:
        """The rate at which this variable decays, unless it is left out."""
        return self.weight_decay

    def _use_weight_decay(self, variable: Variable) -> bool:
        named = any(re.search(word, variable.name) for word in self._excluded_names)
        return id(variable) not in self._excluded and not named

    # --- configuration -------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        rate = self._learning_rate
        if isinstance(rate, LearningRate):
            rate = float(rate.numpy())
        elif isinstance(rate, LearningRateSchedule):
            rate = rate.serialized()
        return {
            "name": self.name,
            "learning_rate": rate,
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The optimizer that `get_config` described."""
        from graphc.frontends.serialization import custom_object_scope, deserialize_nested

        with custom_object_scope(custom_objects or {}):
            return cls(**{key: deserialize_nested(value) for key, value in config.items()})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """An optimizer of equal arguments that was built for no variables yet, as in Keras."""
        memo[id(self)] = copied = type(self).from_config(self.get_config())
        copied._excluded, copied._excluded_names = set(self._excluded), self._excluded_names
        return copied

    def __copy__(self) -> Any:
        return deepcopy(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise refuse_pickle(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def _sum(gradients: Iterable[Any]) -> Any:
    total: Any = None
    for gradient in gradients:
        if gradient is not None:
            total = gradient if total is None else total + gradient
    return total


__all__ = ["COUNT", "LearningRate", "Optimizer"]
