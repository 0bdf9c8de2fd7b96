"""Input, Dense, activations."""

from __future__ import annotations

from typing import Any

from graphc.frontends import activations, initializers, ops, regularizers
from graphc.frontends.adapters import Adaptable
from graphc.frontends.arguments import suggests_arguments
from graphc.frontends.input_spec import InputSpec
from graphc.frontends.layer import Layer
from graphc.frontends.nodes import Node, finish
from graphc.frontends.scopes import user_line
from graphc.frontends.symbolic import BATCH, SymbolicTensor, keras_shape, size_of
from graphc.frontends.variable import Variable
from graphc.ir import ops as ir
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError, ShapeError, UnsupportedError
from graphc.ir.graph import Value
from graphc.ir.types import TensorType


class InputLayer(Layer):
    """Where a functional model begins. `Input` makes one and returns its tensor."""

    is_input = True

    def __init__(
        self,
        shape: Any = None,
        batch_size: Any = None,
        dtype: Any = None,
        batch_shape: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if (shape is None) == (batch_shape is None):
            raise GraphcError("Input takes either `shape` (without the batch) or `batch_shape`")
        if shape is not None:
            entries = (shape,) if isinstance(shape, (int, str)) else tuple(shape)
            batch_shape = (batch_size, *entries)
        self._given_shape = tuple(batch_shape)
        self._input_dtype = dtype_of(dtype or "float32")
        sizes = [BATCH if i == 0 and entry is None else size_of(entry) for i, entry in enumerate(self._given_shape)]
        file, line = user_line()
        node = Node(self, (), {}, (), file, line)
        finish(node, Value(TensorType.of(self._input_dtype, sizes), None, 0))  # type: ignore[arg-type]
        self.built = True

    @property
    def batch_shape(self) -> tuple[Any, ...]:
        """The shape with the batch, None for open sizes."""
        return keras_shape(self.output.tensor_type.shape)

    @property
    def dtype(self) -> Any:
        return self._input_dtype

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise GraphcError(f"the input {self.name!r} is not to be called")

    def get_config(self) -> dict[str, Any]:
        shape = [entry if entry is None or isinstance(entry, (int, str)) else str(entry) for entry in self._given_shape]
        return {"batch_shape": shape, "dtype": str(self._input_dtype), "name": self.name}


@suggests_arguments
def Input(
    shape: Any = None,
    batch_size: Any = None,
    dtype: Any = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
    batch_shape: Any = None,
    name: str | None = None,
    tensor: Any = None,
    optional: bool = False,
) -> SymbolicTensor:
    """A symbolic tensor for the input of a functional model.

    `shape` is without the batch. A size is a number, None (open), or a name: `Input(("S", 64))` is open too, and sizes
    of one name are equal throughout the model.
    """
    if sparse or ragged or optional:
        raise UnsupportedError("Input: sparse, ragged and optional inputs are not supported")
    if isinstance(tensor, SymbolicTensor):
        return tensor
    return InputLayer(shape, batch_size, dtype, batch_shape, name).output


class Dense(Adaptable, Layer):
    """`activation(x @ kernel + bias)` along the last axis."""

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(units, int) or isinstance(units, bool) or units <= 0:
            raise GraphcError(f"Dense: units is a positive integer, not {units!r}")
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = kernel_constraint
        self.bias_constraint = bias_constraint
        self.input_spec = InputSpec(min_ndim=2)
        self._take_lora_options(lora_rank, lora_alpha)

    def build(self, input_shape: Any) -> None:
        features = known_size(input_shape, -1, "the last axis")
        self.kernel = add_described(self, "kernel", (features, self.units))
        self.bias = add_described(self, "bias", (self.units,)) if self.use_bias else None
        self.input_spec = InputSpec(min_ndim=2, axes={-1: features})
        self.built = True
        self._enable_lora_if_asked()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.activation(ir.linear(inputs, self.kernel, self.bias))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **described(self, "kernel", "bias"),
            **self._lora_config(),
        }


def known_size(shape: Any, axis: int, what: str) -> int:
    """The size of an axis that weights depend on. Raises `ShapeError` where it is open."""
    size = shape[axis]
    if not isinstance(size, int):
        raise ShapeError(f"{what} of the input must have a known size, its shape is {tuple(shape)}")
    return size


def add_described(
    layer: Any, name: str, shape: tuple[int, ...], *, options: str | None = None, autocast: bool = True
) -> Variable:
    """A new weight of the layer, as its `…_initializer`, `…_regularizer` and `…_constraint` say, which are named after
    the weight or after `options`."""
    options = options or name
    return layer.add_weight(
        shape,
        getattr(layer, f"{options}_initializer"),
        autocast=autocast,
        regularizer=getattr(layer, f"{options}_regularizer"),
        constraint=getattr(layer, f"{options}_constraint"),
        name=name,
    )


def described(layer: Any, *weights: str) -> dict[str, Any]:
    """The config entries of initializers, regularizers and constraints of these weights."""
    found: dict[str, Any] = {}
    for weight in weights:
        found[f"{weight}_initializer"] = initializers.serialize(getattr(layer, f"{weight}_initializer"))
    for weight in weights:
        found[f"{weight}_regularizer"] = regularizers.serialize(getattr(layer, f"{weight}_regularizer"))
    for weight in weights:
        constraint = getattr(layer, f"{weight}_constraint")
        found[f"{weight}_constraint"] = None if constraint is None else initializers.serialize(constraint)
    return found


class Identity(Layer):
    """The input itself."""

    def call(self, inputs: Any) -> Any:
        return inputs


class Activation(Layer):
    """An activation function as a layer."""

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.activation = activations.get(activation)

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class ReLU(Layer):
    """max(x, 0), with a slope below `threshold` and a greatest value on request."""

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("max_value", max_value), ("negative_slope", negative_slope), ("threshold", threshold)):
            if (value is None and name != "max_value") or (value is not None and value < 0):
                raise GraphcError(f"ReLU: {name} is a number that is not negative, not {value!r}")
        self.supports_masking = True
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope, threshold

    def call(self, inputs: Any) -> Any:
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }


class LeakyReLU(Layer):
    """`x`, times `negative_slope` below 0."""

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if negative_slope is None or negative_slope < 0:
            raise GraphcError(f"LeakyReLU: negative_slope is a number that is not negative, not {negative_slope!r}")
        self.supports_masking = True
        self.negative_slope = negative_slope

    def call(self, inputs: Any) -> Any:
        return ops.leaky_relu(inputs, negative_slope=self.negative_slope)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "negative_slope": self.negative_slope}


class PReLU(Layer):
    """`x`, times a trained slope `alpha` below 0."""

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = alpha_constraint
        self.shared_axes = [shared_axes] if isinstance(shared_axes, int) else shared_axes and list(shared_axes)

    def build(self, input_shape: Any) -> None:
        shared = self.shared_axes or []
        shape = [
            1 if axis in shared else known_size(input_shape, axis, f"axis {axis}")
            for axis in range(1, len(input_shape))
        ]
        self.alpha = add_described(self, "alpha", tuple(shape))

    def call(self, inputs: Any) -> Any:
        return ops.relu(inputs) - self.alpha * ops.relu(-inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **described(self, "alpha"), "shared_axes": self.shared_axes}


class ELU(Layer):
    """`x`, and alpha · (exp(x) − 1) below 0."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.alpha = alpha

    def call(self, inputs: Any) -> Any:
        return ops.elu(inputs, alpha=self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


class Softmax(Layer):
    """Exponentials normalised along `axis`; places where `mask` is false get nothing."""

    def __init__(self, axis: Any = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.axis = axis

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is not None:
            inputs = inputs + (1.0 - ops.cast(mask, inputs.dtype)) * -3e4
        return ops.softmax(inputs, axis=self.axis)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}
