"""Normalization layers."""

from __future__ import annotations

from typing import Any

from graphc.frontends import initializers, ops, regularizers
from graphc.frontends.input_spec import InputSpec
from graphc.frontends.layer import Layer
from graphc.frontends.layers.core import add_described, described, known_size
from graphc.ir import ops as ir
from graphc.ir.dtypes import f32
from graphc.ir.errors import GraphcError, ShapeError, UnsupportedError


class _ScaledAndCentered(Layer):
    """A layer with a `gamma` to multiply by and a `beta` to add, each on request."""

    def _set_affine(
        self,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
    ) -> None:
        self.center, self.scale = center, scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint, self.gamma_constraint = beta_constraint, gamma_constraint
        self.supports_masking = True
        self.gamma: Any = None
        self.beta: Any = None

    def _add_affine(self, shape: tuple[int, ...]) -> None:
        for name, wanted in (("gamma", self.scale), ("beta", self.center)):
            if wanted:
                setattr(self, name, add_described(self, name, shape, autocast=False))

    def _affine_config(self) -> dict[str, Any]:
        return {"center": self.center, "scale": self.scale, **described(self, "beta", "gamma")}


class BatchNormalization(_ScaledAndCentered):
    """Normalizes each channel: by moving averages at inference, by the batch's own statistics in training."""

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if renorm or synchronized:
            raise UnsupportedError("BatchNormalization: renorm and synchronized are not supported")
        self.axis, self.momentum, self.epsilon = int(axis), float(momentum), float(epsilon)
        self._set_affine(
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
        )
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)

    def build(self, input_shape: Any) -> None:
        channels = known_size(input_shape, self.axis, f"axis {self.axis}")
        self._add_affine((channels,))
        self.moving_mean = self.add_weight(
            (channels,), self.moving_mean_initializer, trainable=False, autocast=False, name="moving_mean"
        )
        self.moving_variance = self.add_weight(
            (channels,), self.moving_variance_initializer, trainable=False, autocast=False, name="moving_variance"
        )
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: channels})

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None:
            raise UnsupportedError("BatchNormalization with a mask is not supported")
        if not training or not self.trainable:
            mean, variance = self.moving_mean, self.moving_variance
            return ir.batch_norm(inputs, mean, variance, self.gamma, self.beta, axis=self.axis, epsilon=self.epsilon)
        if inputs.dtype in ("float16", "bfloat16"):
            axes = tuple(i for i in range(inputs.ndim) if i != self.axis % inputs.ndim)
            mean, variance = ops.moments(ops.cast(inputs, f32), axes)
            y = ir.batch_norm(inputs, mean, variance, self.gamma, self.beta, axis=self.axis, epsilon=self.epsilon)
        else:
            y, mean, variance = ir.batch_norm_training(
                inputs, self.gamma, self.beta, axis=self.axis, epsilon=self.epsilon
            )
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance)
        return y

    def _move(self, average: Any, value: Any) -> None:
        average.assign(average * self.momentum + ops.cast(value, average.dtype) * (1.0 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            **self._affine_config(),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
        }


class LayerNormalization(_ScaledAndCentered):
    """Normalizes over `axis` within each example."""

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = list(axis) if isinstance(axis, (list, tuple)) else int(axis)
        self.epsilon = epsilon
        self._set_affine(
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
        )

    def _axes(self) -> list[int]:
        return sorted(self.axis) if isinstance(self.axis, list) else [self.axis]

    def build(self, input_shape: Any) -> None:
        self._add_affine(tuple(known_size(input_shape, axis, f"axis {axis}") for axis in self._axes()))

    def call(self, inputs: Any) -> Any:
        return ir.layer_norm(inputs, self.gamma, self.beta, axes=self._axes(), epsilon=self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon, **self._affine_config()}


class GroupNormalization(_ScaledAndCentered):
    """Normalizes over all axes but the first, for groups of neighbouring channels; -1 makes each channel a group."""

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(groups, int) or (groups <= 0 and groups != -1):
            raise GraphcError(f"GroupNormalization: groups is a positive integer or -1, not {groups!r}")
        super().__init__(**kwargs)
        self.groups, self.axis, self.epsilon = groups, axis, epsilon
        self._set_affine(
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
        )

    def build(self, input_shape: Any) -> None:
        channels = known_size(input_shape, self.axis, f"axis {self.axis}")
        groups = channels if self.groups == -1 else self.groups
        if channels % groups:
            raise ShapeError(f"the {channels} channels of the input do not divide into {groups} groups")
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: channels})
        self._add_affine((channels,))

    def call(self, inputs: Any) -> Any:
        groups = inputs.shape[self.axis] if self.groups == -1 else self.groups
        return ir.group_norm(inputs, self.gamma, self.beta, groups=groups, axis=self.axis, epsilon=self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "groups": self.groups,
            "axis": self.axis,
            "epsilon": self.epsilon,
            **self._affine_config(),
        }


class RMSNormalization(Layer):
    """Divides by the root mean square over `axis`, and multiplies by a trained `scale`."""

    def __init__(self, axis: Any = -1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = list(axis) if isinstance(axis, (list, tuple)) else int(axis)
        self.epsilon = epsilon

    def _axes(self) -> list[int]:
        return sorted(self.axis) if isinstance(self.axis, list) else [self.axis]

    def build(self, input_shape: Any) -> None:
        shape = tuple(known_size(input_shape, axis, f"axis {axis}") for axis in self._axes())
        self.scale = self.add_weight(shape, "ones", name="scale")

    def call(self, inputs: Any) -> Any:
        return ir.rms_norm(inputs, self.scale, axes=self._axes(), epsilon=self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}
