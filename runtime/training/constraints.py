"""`graphc.constraints`: what a weight is made to be after each update, under Keras's names."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops, serialization
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest

EPSILON = 1e-7


class Constraint:
    """`constraint(w)` is the weight as it may be."""

    def __call__(self, w: Any) -> Any:
        raise GraphcError(f"{type(self).__name__} defines no __call__")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal constraint."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The constraint that `get_config` described."""
        return cls(**config)


class NonNeg(Constraint):
    """No number below 0."""

    def __call__(self, w: Any) -> Any:
        return w * ops.cast(ops.greater_equal(w, 0.0), w.dtype)


class MaxNorm(Constraint):
    """Norms along `axis` of `max_value` at most."""

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        self.max_value, self.axis = max_value, axis

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        return w * (ops.clip(norms, 0, self.max_value) / (norms + EPSILON))

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "axis": self.axis}


class UnitNorm(Constraint):
    """Norms along `axis` of 1."""

    def __init__(self, axis: Any = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        return w / (_norms(w, self.axis) + EPSILON)

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis}


class MinMaxNorm(Constraint):
    """Norms along `axis` between two values, towards which they go at this `rate`."""

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0) -> None:
        self.min_value, self.max_value, self.rate, self.axis = min_value, max_value, rate, axis

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        wanted = ops.clip(norms, self.min_value, self.max_value) * self.rate + norms * (1 - self.rate)
        return w * (wanted / (norms + EPSILON))

    def get_config(self) -> dict[str, Any]:
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


def _norms(w: Any, axis: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(w), axis=axis, keepdims=True))


CLASSES: dict[str, type[Constraint]] = {cls.__name__: cls for cls in (MaxNorm, MinMaxNorm, NonNeg, UnitNorm)}
_BY_NAME = CLASSES | {
    "max_norm": MaxNorm, "min_max_norm": MinMaxNorm, "non_neg": NonNeg, "nonneg": NonNeg, "unit_norm": UnitNorm,
    "unitnorm": UnitNorm, "maxnorm": MaxNorm, "minmaxnorm": MinMaxNorm,
}  # fmt: skip
max_norm, min_max_norm, non_neg, unit_norm = MaxNorm, MinMaxNorm, NonNeg, UnitNorm


def get(identifier: Any) -> Any:
    """The constraint of a name, class, config or object; None stays None."""
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        found = _BY_NAME.get(identifier) or serialization.registered_object(identifier)
        if found is None:
            raise GraphcError(f"no constraint is called {identifier!r}{nearest(identifier, CLASSES)}")
        identifier = found
    return identifier() if isinstance(identifier, type) else identifier


def serialize(constraint: Any) -> Any:
    """The constraint's class and config, which `deserialize` takes."""
    return serialization.serialize(constraint)


def deserialize(config: Any, custom_objects: Any = None) -> Any:
    """The constraint of a class and config."""
    found = CLASSES.get(str(config.get("class_name"))) if isinstance(config, dict) else None
    if found is not None:
        return found.from_config(config.get("config", {}))
    with serialization.custom_object_scope(custom_objects or {}):
        return serialization.deserialize(config)
