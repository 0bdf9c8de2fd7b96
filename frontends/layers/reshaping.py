"""Layers that change shapes."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.frontends.input_spec import InputSpec
from graphc.frontends.layer import Layer
from graphc.frontends.ops.nn import is_channels_last
from graphc.ir.dims import product
from graphc.ir.errors import GraphcError, ShapeError


class Flatten(Layer):
    """All axes but the first as one."""

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = "channels_last" if is_channels_last(data_format) else "channels_first"
        self.input_spec = InputSpec(min_ndim=1)

    def call(self, inputs: Any) -> Any:
        if self.data_format == "channels_first" and inputs.ndim > 2:
            inputs = ops.transpose(inputs, (0, *range(2, inputs.ndim), 1))
        return ops.reshape(inputs, (inputs.shape[0], product(inputs.shape[1:])))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


class Reshape(Layer):
    """The elements of each example under another shape; one size may be -1."""

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(-1 if size is None else size for size in target_shape)
        if self.target_shape.count(-1) > 1:
            raise GraphcError(f"Reshape: only one size of target_shape can be -1, not {self.target_shape}")

    def call(self, inputs: Any) -> Any:
        return ops.reshape(inputs, (inputs.shape[0], *self._sizes(inputs)))

    def _sizes(self, inputs: Any) -> tuple[Any, ...]:
        """The target, with -1 worked out where the input's sizes are known (the batch may then be anything)."""
        if -1 not in self.target_shape:
            return self.target_shape
        count = product(inputs.shape[1:])
        known = product(size for size in self.target_shape if not (isinstance(size, int) and size == -1))
        if isinstance(count, int) and isinstance(known, int) and (not known or count % known):
            raise ShapeError(f"an example of shape {tuple(inputs.shape[1:])} cannot be reshaped to {self.target_shape}")
        return tuple(count // known if isinstance(size, int) and size == -1 else size for size in self.target_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target_shape": self.target_shape}


class Permute(Layer):
    """The axes of each example in another order; they are counted from 1."""

    def __init__(self, dims: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise GraphcError(f"Permute: dims must hold each of 1 to {len(self.dims)} once, not {self.dims}")
        self.input_spec = InputSpec(ndim=len(self.dims) + 1)

    def call(self, inputs: Any) -> Any:
        return ops.transpose(inputs, (0, *self.dims))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dims": self.dims}


class RepeatVector(Layer):
    """Each example so many times along a new axis."""

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(n, int):
            raise GraphcError(f"RepeatVector: n is an integer, not {n!r}")
        self.n = n
        self.input_spec = InputSpec(ndim=2)

    def call(self, inputs: Any) -> Any:
        return ops.broadcast_to(ops.expand_dims(inputs, 1), (inputs.shape[0], self.n, inputs.shape[1]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n": self.n}


class _ZeroPadding(Layer):
    """What the zero paddings have in common."""

    rank: int

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = "channels_last" if is_channels_last(data_format) else "channels_first"
        self.padding = _pairs(padding, self.rank, type(self).__name__)
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def call(self, inputs: Any) -> Any:
        none = ((0, 0),)
        pairs = (*none, *self.padding, *none) if self.data_format == "channels_last" else (*none, *none, *self.padding)
        return ops.pad(inputs, pairs)

    def get_config(self) -> dict[str, Any]:
        padding = self.padding[0] if self.rank == 1 else self.padding
        return {**super().get_config(), "padding": padding, "data_format": self.data_format}


def _pairs(padding: Any, rank: int, name: str) -> tuple[tuple[int, int], ...]:
    if isinstance(padding, int):
        return ((padding, padding),) * rank
    entries = tuple(padding)
    if rank == 1 and len(entries) == 2 and all(isinstance(entry, int) for entry in entries):
        return ((entries[0], entries[1]),)
    pairs = tuple((entry, entry) if isinstance(entry, int) else tuple(entry) for entry in entries)
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        raise GraphcError(f"{name}: padding is an integer, or {rank} integers or pairs of them, not {padding!r}")
    return pairs  # type: ignore[return-value]


class ZeroPadding1D(_ZeroPadding):
    """Zeros before and after the spatial axis."""

    rank = 1

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding2D(_ZeroPadding):
    """Zeros around both spatial axes."""

    rank = 2

    def __init__(self, padding: Any = (1, 1), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding3D(_ZeroPadding):
    """Zeros around the three spatial axes."""

    rank = 3

    def __init__(self, padding: Any = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)
