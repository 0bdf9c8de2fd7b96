"""Convolutions. Kernels are [*window, in / groups, filters]."""

from __future__ import annotations

from typing import Any

from graphc.frontends import activations, initializers, ops, regularizers
from graphc.frontends.adapters import Adaptable
from graphc.frontends.input_spec import InputSpec
from graphc.frontends.layer import Layer
from graphc.frontends.layers.core import add_described, described, known_size
from graphc.frontends.ops.nn import is_channels_last, per_axis
from graphc.ir import ops as ir
from graphc.ir.adapting import Form
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.suggestions import number_of


class BaseConv(Adaptable, Layer):
    """What the convolutions of all ranks have in common."""

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
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
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        name = type(self).__name__
        self.rank = rank
        if not isinstance(filters, int) or filters <= 0:
            raise GraphcError(f"{name}: filters is a positive integer, not {filters!r}")
        if not isinstance(groups, int) or groups <= 0 or filters % groups:
            raise GraphcError(f"{name}: groups is a positive integer that divides filters = {filters}, not {groups!r}")
        self.filters, self.groups = filters, groups
        self.kernel_size = per_axis(kernel_size, rank, "kernel_size")
        self.strides = per_axis(strides, rank, "strides")
        self.dilation_rate = per_axis(dilation_rate, rank, "dilation_rate")
        self.padding = padding.lower()
        allowed = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
        if self.padding not in allowed:
            raise GraphcError(f"{name}: padding is {' or '.join(map(repr, allowed))}, not {padding!r}")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise GraphcError(f"{name}: strides and dilation_rate cannot both be more than 1")
        self.data_format = "channels_last" if is_channels_last(data_format) else "channels_first"
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = kernel_constraint
        self.bias_constraint = bias_constraint
        self.input_spec = InputSpec(ndim=rank + 2)
        self._take_lora_options(lora_rank, lora_alpha)

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        """The shape of the kernel for so many input channels."""
        if channels % self.groups:
            raise ShapeError(
                f"the {number_of(channels, 'channel')} of the input do not divide into groups = {self.groups}"
            )
        return (*self.kernel_size, channels // self.groups, self.filters)

    def build(self, input_shape: Any) -> None:
        channels = known_size(input_shape, self.channel_axis, "the axis of channels")
        self.kernel = add_described(self, "kernel", self.kernel_shape(channels))
        self.bias = add_described(self, "bias", (self.filters,)) if self.use_bias else None
        self.input_spec = InputSpec(ndim=self.rank + 2, axes={self.channel_axis: channels})
        self.built = True
        self._enable_lora_if_asked()

    def _lora_form(self) -> Form:
        return Form("conv", tuple(self.kernel.shape))

    def window_padding(self) -> Any:
        """The padding as the IR has it."""
        if self.padding == "causal":
            return ((self.dilation_rate[0] * (self.kernel_size[0] - 1), 0),)
        return self.padding

    def call(self, inputs: Any) -> Any:
        return self.activation(
            ir.conv(
                inputs,
                self.kernel,
                self.bias,
                strides=self.strides,
                padding=self.window_padding(),
                dilation=self.dilation_rate,
                groups=self.groups,
                channels_last=self.data_format == "channels_last",
            )
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **described(self, "kernel", "bias"),
            **self._lora_config(),
        }


class Conv1D(BaseConv):
    """Convolution along one axis; padding may be "causal"."""

    def __init__(self, filters: int, kernel_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(1, filters, kernel_size, *args, **kwargs)


class Conv2D(BaseConv):
    """Convolution over two axes."""

    def __init__(self, filters: int, kernel_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(2, filters, kernel_size, *args, **kwargs)


class Conv3D(BaseConv):
    """Convolution over three axes."""

    def __init__(self, filters: int, kernel_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(3, filters, kernel_size, *args, **kwargs)


class BaseDepthwiseConv(Layer):
    """Convolution of each channel by itself into `depth_multiplier` many; the kernel is [*window, in, multiplier]."""

    def __init__(
        self,
        rank: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        name = type(self).__name__
        if not isinstance(depth_multiplier, int) or depth_multiplier <= 0:
            raise GraphcError(f"{name}: depth_multiplier is a positive integer, not {depth_multiplier!r}")
        if padding.lower() not in ("valid", "same"):
            raise GraphcError(f"{name}: padding is 'valid' or 'same', not {padding!r}")
        self.rank, self.depth_multiplier, self.padding = rank, depth_multiplier, padding.lower()
        self.kernel_size = per_axis(kernel_size, rank, "kernel_size")
        self.strides = per_axis(strides, rank, "strides")
        self.dilation_rate = per_axis(dilation_rate, rank, "dilation_rate")
        self.data_format = "channels_last" if is_channels_last(data_format) else "channels_first"
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.depthwise_constraint = depthwise_constraint
        self.bias_constraint = bias_constraint
        self.input_spec = InputSpec(ndim=rank + 2)

    def build(self, input_shape: Any) -> None:
        axis = -1 if self.data_format == "channels_last" else 1
        channels = known_size(input_shape, axis, "the axis of channels")
        self.kernel = add_described(
            self, "kernel", (*self.kernel_size, channels, self.depth_multiplier), options="depthwise"
        )
        self.bias = add_described(self, "bias", (channels * self.depth_multiplier,)) if self.use_bias else None
        self.input_spec = InputSpec(ndim=self.rank + 2, axes={axis: channels})

    def call(self, inputs: Any) -> Any:
        *window, channels, multiplier = self.kernel.shape
        y = ir.conv(
            inputs,
            ops.reshape(self.kernel, (*window, 1, channels * multiplier)),
            self.bias,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=channels,
            channels_last=self.data_format == "channels_last",
        )
        return self.activation(y)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "depth_multiplier": self.depth_multiplier,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **described(self, "depthwise", "bias"),
        }


class DepthwiseConv1D(BaseDepthwiseConv):
    """Convolution of each channel by itself along one axis."""

    def __init__(self, kernel_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(1, kernel_size, *args, **kwargs)


class DepthwiseConv2D(BaseDepthwiseConv):
    """Convolution of each channel by itself over two axes."""

    def __init__(self, kernel_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(2, kernel_size, *args, **kwargs)


Convolution1D, Convolution2D, Convolution3D = Conv1D, Conv2D, Conv3D
