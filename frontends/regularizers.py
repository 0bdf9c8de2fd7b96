"""Penalties on weights, under Keras's names. Layers keep them for training; inference does not use them."""

from __future__ import annotations

import math
from typing import Any

from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest, number_of


class Regularizer:
    """`regularizer(x)` is a scalar to add to the loss."""

    def __call__(self, x: Any) -> Any:
        return 0.0

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Regularizer:
        return cls(**config)


class L1L2(Regularizer):
    """`l1` times the sum of absolute values plus `l2` times the sum of squares."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = _checked("l1", 0.0 if l1 is None else l1)
        self.l2 = _checked("l2", 0.0 if l2 is None else l2)

    def __call__(self, x: Any) -> Any:
        from graphc.frontends import ops

        penalty: Any = 0.0
        if self.l1:
            penalty = penalty + self.l1 * ops.sum(ops.absolute(x))
        if self.l2:
            penalty = penalty + self.l2 * ops.sum(ops.square(x))
        return penalty

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2}


class L1(Regularizer):
    """`l1` times the sum of absolute values."""

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = _checked("l1", 0.01 if l1 is None else l1)

    def __call__(self, x: Any) -> Any:
        from graphc.frontends import ops

        return self.l1 * ops.sum(ops.absolute(x))

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1}


class L2(Regularizer):
    """`l2` times the sum of squares."""

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = _checked("l2", 0.01 if l2 is None else l2)

    def __call__(self, x: Any) -> Any:
        from graphc.frontends import ops

        return self.l2 * ops.sum(ops.square(x))

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean absolute cosine between rows (or columns) of a matrix."""

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        if mode not in ("rows", "columns"):
            raise GraphcError(f"OrthogonalRegularizer: mode is rows or columns, not {mode!r}")
        self.factor, self.mode = _checked("factor", factor), mode

    def __call__(self, x: Any) -> Any:
        from graphc.frontends import ops

        if x.ndim != 2:
            raise GraphcError(
                f"OrthogonalRegularizer takes a matrix, not a tensor of {number_of(x.ndim, 'axis', 'axes')}"
            )
        axis = 1 if self.mode == "rows" else 0
        unit = x / ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-12))
        product = (
            ops.matmul(unit, ops.transpose(unit)) if self.mode == "rows" else ops.matmul(ops.transpose(unit), unit)
        )
        size = x.shape[1 - axis]
        pairs = size * (size - 1) / 2
        diagonal = ops.sum(ops.sum(ops.square(unit), axis=axis))
        return self.factor * 0.5 * (ops.sum(ops.absolute(product)) - diagonal) / pairs

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor, "mode": self.mode}


def _checked(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise GraphcError(f"a regularizer's {name} is a finite number, not {value!r}")
    return float(value)


_BY_NAME: dict[str, Any] = {
    "L1": L1, "l1": L1, "L2": L2, "l2": L2, "L1L2": L1L2, "l1_l2": L1L2, "l1l2": L1L2,
    "OrthogonalRegularizer": OrthogonalRegularizer, "orthogonal_regularizer": OrthogonalRegularizer,
}  # fmt: skip


def get(identifier: Any) -> Any:
    """The regularizer of a name, config or object; None stays None."""
    from graphc.frontends import serialization

    if identifier is None or (callable(identifier) and not isinstance(identifier, type)):
        return identifier
    if isinstance(identifier, dict):
        return serialization.deserialize(identifier)
    if isinstance(identifier, type):
        return identifier()
    found = _BY_NAME.get(identifier) or serialization.registered_object(identifier)
    if found is None:
        raise GraphcError(f"no regularizer is called {identifier!r}{nearest(identifier, _BY_NAME)}")
    return found() if isinstance(found, type) else found


def serialize(regularizer: Any) -> Any:
    """The regularizer's config, which `get` takes."""
    from graphc.frontends import serialization

    return serialization.serialize(regularizer)


def deserialize(config: Any) -> Any:
    """The regularizer of a config."""
    return get(config)


l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer
