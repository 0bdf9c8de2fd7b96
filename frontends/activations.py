"""Activation functions by Keras's names, for the `activation` argument of layers."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.frontends.symbolic import SymbolicTensor
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest


def linear(x: Any) -> Any:
    """`x` itself."""
    return x


def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Any:
    """`max(x, 0)`; with other arguments as Keras's ReLU layer."""
    if threshold == 0.0 and max_value is None:
        return ops.relu(x) if negative_slope == 0.0 else ops.leaky_relu(x, negative_slope=negative_slope)
    if threshold == 0.0 and max_value == 6 and negative_slope == 0.0:
        return ops.relu6(x)
    below = negative_slope * (x - threshold) if negative_slope else 0.0
    kept = ops.where(x >= threshold, x, below)
    return kept if max_value is None else ops.minimum(kept, max_value)


def softmax(x: Any, axis: int = -1) -> Any:
    """Exponentials normalised along `axis`."""
    return ops.softmax(x, axis=axis)


def gelu(x: Any, approximate: bool = False) -> Any:
    """`x` times the normal distribution function, or nearly so by tanh."""
    return ops.gelu(x, approximate=approximate)


def exponential(x: Any) -> Any:
    """e to the `x`."""
    return ops.exp(x)


def mish(x: Any) -> Any:
    """`x * tanh(softplus(x))`."""
    return x * ops.tanh(ops.softplus(x))


elu, silu, selu, softplus, softsign = ops.elu, ops.silu, ops.selu, ops.softplus, ops.softsign
sigmoid, hard_sigmoid, hard_silu, tanh = ops.sigmoid, ops.hard_sigmoid, ops.hard_silu, ops.tanh
leaky_relu, relu6, log_softmax, log_sigmoid = ops.leaky_relu, ops.relu6, ops.log_softmax, ops.log_sigmoid
swish, hard_swish = silu, hard_silu

_BY_NAME: dict[str, Any] = {
    "linear": linear, "relu": relu, "softmax": softmax, "exponential": exponential, "mish": mish, "gelu": gelu,
    "elu": elu, "silu": silu, "swish": silu, "selu": selu, "softplus": softplus, "softsign": softsign,
    "sigmoid": sigmoid, "hard_sigmoid": hard_sigmoid, "hard_silu": hard_silu, "hard_swish": hard_silu, "tanh": tanh,
    "leaky_relu": leaky_relu, "relu6": relu6, "log_softmax": log_softmax, "log_sigmoid": log_sigmoid,
}  # fmt: skip
_NAMES = {id(function): name for name, function in reversed(_BY_NAME.items())}


def get(identifier: Any) -> Any:
    """The function of a name, config or function; `linear` for None."""
    from graphc.frontends import serialization

    if identifier is None:
        return linear
    if isinstance(identifier, dict):
        return serialization.deserialize(identifier)
    if isinstance(identifier, str):
        found = _BY_NAME.get(identifier) or serialization.registered_object(identifier)
        if found is None:
            raise GraphcError(f"no activation is called {identifier!r}{nearest(identifier, _BY_NAME)}")
        return found
    if callable(identifier) and not isinstance(identifier, SymbolicTensor):
        return identifier
    raise GraphcError(f"an activation is a name or a function, not {identifier!r}")


def serialize(activation: Any) -> Any:
    """The name of an activation of graphc's, or the config of another function or layer."""
    from graphc.frontends import serialization

    return _NAMES.get(id(activation)) or serialization.serialize(activation)


def deserialize(config: Any) -> Any:
    """The activation of a config."""
    return get(config)


def by_name(name: str) -> Any:
    """graphc's own activation of this name, or None."""
    return _BY_NAME.get(name)
