"""Pooling: the largest element or the mean of windows, or of everything."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.frontends.input_spec import InputSpec
from graphc.frontends.layer import Layer
from graphc.frontends.ops.nn import is_channels_last, per_axis
from graphc.ir.errors import GraphcError


class BasePooling(Layer):
    """What the poolings of windows have in common."""

    rank: int
    pool: Any

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if padding.lower() not in ("valid", "same"):
            raise GraphcError(f"{type(self).__name__}: padding is 'valid' or 'same', not {padding!r}")
        self.pool_size = per_axis(pool_size, self.rank, "pool_size")
        self.strides = per_axis(self.pool_size if strides is None else strides, self.rank, "strides")
        self.padding = padding.lower()
        self.data_format = "channels_last" if is_channels_last(data_format) else "channels_first"
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def call(self, inputs: Any) -> Any:
        return type(self).pool(
            inputs, self.pool_size, strides=self.strides, padding=self.padding, data_format=self.data_format
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "padding": self.padding,
            "strides": self.strides,
            "data_format": self.data_format,
        }


class MaxPooling1D(BasePooling):
    """The largest element of each window along one axis."""

    rank, pool = 1, staticmethod(ops.max_pool)


class MaxPooling2D(BasePooling):
    """The largest element of each window over two axes."""

    rank, pool = 2, staticmethod(ops.max_pool)

    def __init__(self, pool_size: Any = (2, 2), *args: Any, **kwargs: Any) -> None:
        super().__init__(pool_size, *args, **kwargs)


class MaxPooling3D(BasePooling):
    """The largest element of each window over three axes."""

    rank, pool = 3, staticmethod(ops.max_pool)

    def __init__(self, pool_size: Any = (2, 2, 2), *args: Any, **kwargs: Any) -> None:
        super().__init__(pool_size, *args, **kwargs)


class AveragePooling1D(BasePooling):
    """The mean of each window along one axis."""

    rank, pool = 1, staticmethod(ops.average_pool)

    def __init__(self, pool_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(pool_size, *args, **kwargs)


class AveragePooling2D(BasePooling):
    """The mean of each window over two axes."""

    rank, pool = 2, staticmethod(ops.average_pool)

    def __init__(self, pool_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(pool_size, *args, **kwargs)


class AveragePooling3D(BasePooling):
    """The mean of each window over three axes."""

    rank, pool = 3, staticmethod(ops.average_pool)

    def __init__(self, pool_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(pool_size, *args, **kwargs)


class BaseGlobalPooling(Layer):
    """What the poolings over all spatial axes have in common."""

    rank: int
    reduce: Any

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = "channels_last" if is_channels_last(data_format) else "channels_first"
        self.keepdims = keepdims
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def call(self, inputs: Any) -> Any:
        first = 1 if self.data_format == "channels_last" else 2
        axes = tuple(range(first, first + self.rank))
        return type(self).reduce(inputs, axis=axes, keepdims=self.keepdims)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format, "keepdims": self.keepdims}


class GlobalMaxPooling1D(BaseGlobalPooling):
    """The largest element along the spatial axis."""

    rank, reduce = 1, staticmethod(ops.max)


class GlobalMaxPooling2D(BaseGlobalPooling):
    """The largest element over both spatial axes."""

    rank, reduce = 2, staticmethod(ops.max)


class GlobalMaxPooling3D(BaseGlobalPooling):
    """The largest element over the three spatial axes."""

    rank, reduce = 3, staticmethod(ops.max)


class GlobalAveragePooling1D(BaseGlobalPooling):
    """The mean along the spatial axis; with a mask, of the steps it keeps."""

    rank, reduce = 1, staticmethod(ops.mean)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            return super().call(inputs)
        axis = 1 if self.data_format == "channels_last" else 2
        weights = ops.expand_dims(ops.cast(mask, inputs.dtype), 2 if axis == 1 else 1)
        total = ops.sum(inputs * weights, axis=axis, keepdims=self.keepdims)
        return total / ops.sum(weights, axis=axis, keepdims=self.keepdims)


class GlobalAveragePooling2D(BaseGlobalPooling):
    """The mean over both spatial axes."""

    rank, reduce = 2, staticmethod(ops.mean)


class GlobalAveragePooling3D(BaseGlobalPooling):
    """The mean over the three spatial axes."""

    rank, reduce = 3, staticmethod(ops.mean)


MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D, GlobalAvgPool3D = (
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
)
