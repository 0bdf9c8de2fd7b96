"""Learning rate schedules under Keras's names: functions of the step, evaluated by the host in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import number_of


class LearningRateSchedule:
    """`schedule(step)` is the learning rate of the step of this number, counted from 0."""

    def __call__(self, step: int) -> float:
        raise GraphcError(f"{type(self).__name__} defines no __call__")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal schedule."""
        raise GraphcError(f"{type(self).__name__} defines no get_config")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The schedule that `get_config` described."""
        return cls(**config)

    def serialized(self) -> dict[str, Any]:
        """The class and configuration."""
        return serialize(self)


class ConstantSchedule(LearningRateSchedule):
    """The same rate for all steps."""

    def __init__(self, learning_rate: float, name: str = "ConstantSchedule") -> None:
        self.learning_rate, self.name = learning_rate, name

    def __call__(self, step: int) -> float:
        return float(self.learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "name": self.name}


class ExponentialDecay(LearningRateSchedule):
    """initial_learning_rate · decay_rate^(step / decay_steps); with `staircase` the exponent is rounded down."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps, self.decay_rate = _positive("decay_steps", decay_steps), decay_rate
        self.staircase, self.name = staircase, name

    def __call__(self, step: int) -> float:
        exponent = step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (math.floor(exponent) if self.staircase else exponent)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


class InverseTimeDecay(LearningRateSchedule):
    """initial_learning_rate / (1 + decay_rate · step / decay_steps); with `staircase` the quotient is rounded down."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps, self.decay_rate = _positive("decay_steps", decay_steps), decay_rate
        self.staircase, self.name = staircase, name

    def __call__(self, step: int) -> float:
        share = step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (math.floor(share) if self.staircase else share))

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


class PiecewiseConstantDecay(LearningRateSchedule):
    """`values[i]` up to and with the step `boundaries[i]`, the last value after the last boundary."""

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        if len(boundaries) != len(values) - 1:
            raise GraphcError(
                f"{number_of(len(boundaries), 'boundary needs', 'boundaries need')} {len(boundaries) + 1} values, "
                f"not {len(values)}"
            )
        self.boundaries, self.values, self.name = list(boundaries), list(values), name

    def __call__(self, step: int) -> float:
        return float(self.values[sum(step > boundary for boundary in self.boundaries)])

    def get_config(self) -> dict[str, Any]:
        return {"boundaries": self.boundaries, "values": self.values, "name": self.name}


class PolynomialDecay(LearningRateSchedule):
    """From initial to end learning rate by (1 − step / decay_steps)^power, where it stays. With `cycle`, `decay_steps`
    is then multiplied by 2, 3, …, so that the rate rises and falls again."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate, self.end_learning_rate = initial_learning_rate, end_learning_rate
        self.decay_steps = _positive("decay_steps", decay_steps)
        self.power, self.cycle, self.name = power, cycle, name

    def __call__(self, step: int) -> float:
        steps = self.decay_steps
        if self.cycle:
            steps *= max(math.ceil(step / steps), 1)
        share = 1 - min(step, steps) / steps
        return (self.initial_learning_rate - self.end_learning_rate) * share**self.power + self.end_learning_rate

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "end_learning_rate": self.end_learning_rate,
            "power": self.power,
            "cycle": self.cycle,
            "name": self.name,
        }


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate down to `alpha` times it, over `decay_steps`.

    With `warmup_target` the rate first rises in a line from the initial one to the target, over `warmup_steps`, and the
    cosine falls from there. Loshchilov and Hutter, "SGDR", 2017.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, _positive("decay_steps", decay_steps)
        self.alpha, self.name = alpha, name
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def __call__(self, step: int) -> float:
        if self.warmup_target is None:
            return self._decayed(step, self.initial_learning_rate)
        if step < self.warmup_steps:
            share = step / self.warmup_steps
            return self.initial_learning_rate + share * (self.warmup_target - self.initial_learning_rate)
        return self._decayed(step - self.warmup_steps, self.warmup_target)

    def _decayed(self, step: int, top: float) -> float:
        share = min(step, self.decay_steps) / self.decay_steps
        return top * ((1 - self.alpha) * 0.5 * (1 + math.cos(math.pi * share)) + self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "alpha": self.alpha,
            "name": self.name,
            "warmup_target": self.warmup_target,
            "warmup_steps": self.warmup_steps,
        }


class CosineDecayRestarts(LearningRateSchedule):
    """Half a cosine from the initial rate down to `alpha` times it, over `first_decay_steps`; then again from `m_mul`
    times the rate over `t_mul` times the steps, and so on. Loshchilov and Hutter, "SGDR", 2017."""

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = _positive("first_decay_steps", first_decay_steps)
        self.t_mul, self.m_mul, self.alpha, self.name = _positive("t_mul", t_mul), m_mul, alpha, name

    def __call__(self, step: int) -> float:
        share, length, restarts = step / self.first_decay_steps, 1.0, 0
        if self.t_mul == 1:
            restarts = math.floor(share)
            share -= restarts
        elif self.t_mul < 1 and share * (1 - self.t_mul) >= 1:
            raise GraphcError(f"with t_mul={self.t_mul} restarts come closer and closer, and end before step {step}")
        else:
            while share >= length:
                share, length, restarts = share - length, length * self.t_mul, restarts + 1
        decayed = 0.5 * self.m_mul**restarts * (1 + math.cos(math.pi * share / length))
        return self.initial_learning_rate * ((1 - self.alpha) * decayed + self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "first_decay_steps": self.first_decay_steps,
            "t_mul": self.t_mul,
            "m_mul": self.m_mul,
            "alpha": self.alpha,
            "name": self.name,
        }


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise GraphcError(f"{name} is more than 0, not {value!r}")
    return value


CLASSES = {
    cls.__name__: cls
    for cls in (
        ConstantSchedule,
        CosineDecay,
        CosineDecayRestarts,
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
    )
}


def serialize(schedule: LearningRateSchedule) -> dict[str, Any]:
    """The schedule's class and config, which `deserialize` takes."""
    from graphc.frontends import serialization

    return serialization.serialize(schedule)


def deserialize(config: dict[str, Any], custom_objects: Any = None) -> Any:
    """The schedule of a class and config."""
    from graphc.frontends import serialization

    found = CLASSES.get(str(config.get("class_name")))
    if found is not None:
        return found.from_config(config.get("config", {}))
    with serialization.custom_object_scope(custom_objects or {}):
        return serialization.deserialize(config)
