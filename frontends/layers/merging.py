"""Layers that take several tensors and give one, and the functions of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from graphc.frontends import ops
from graphc.frontends.layer import Layer
from graphc.frontends.structures import flatten
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.inference import shape_text


class Merge(Layer):
    """What the elementwise merging layers have in common. Tensors of fewer axes get axes of size 1 after the batch."""

    fewest = 1

    def build(self, input_shape: Any) -> None:
        if (
            not isinstance(input_shape, (list, tuple))
            or not input_shape
            or not isinstance(input_shape[0], (list, tuple))
        ):
            raise GraphcError(f"{type(self).__name__} is called on a list of tensors")

    def call(self, inputs: Any) -> Any:
        tensors = self._tensors(inputs)
        rank = max(tensor.ndim for tensor in tensors)
        tensors = [_to_rank(tensor, rank) for tensor in tensors]
        for tensor in tensors[1:]:
            _check_broadcast(tensors[0].shape, tensor.shape)
        return self.merge(tensors)

    def _tensors(self, inputs: Any) -> list[Any]:
        if not isinstance(inputs, (list, tuple, dict)):
            raise GraphcError(f"{type(self).__name__} is called on a list of tensors, not on one")
        tensors = flatten(inputs)
        if len(tensors) < self.fewest:
            raise GraphcError(f"{type(self).__name__} takes at least {self.fewest} tensors, {len(tensors)} were given")
        return tensors

    def merge(self, tensors: list[Any]) -> Any:
        """The result for tensors of one rank."""
        raise GraphcError(f"{type(self).__name__} has no method `merge`")


def _to_rank(tensor: Any, rank: int) -> Any:
    missing = rank - tensor.ndim
    return ops.expand_dims(tensor, tuple(range(1, missing + 1))) if missing else tensor


def _check_broadcast(first: Any, other: Any) -> None:
    """In a merge the sizes agree or are 1; said here in the layer's terms."""
    for a, b in zip(first[1:], other[1:], strict=True):
        if isinstance(a, int) and isinstance(b, int) and a != b and 1 not in (a, b):
            raise ShapeError(
                f"the inputs have shapes {shape_text(first)} and {shape_text(other)}, which do not merge elementwise"
            )


class Add(Merge):
    """The sum."""

    def merge(self, tensors: list[Any]) -> Any:
        return reduce(ops.add, tensors)


class Subtract(Merge):
    """The first minus the second."""

    def merge(self, tensors: list[Any]) -> Any:
        if len(tensors) != 2:
            raise GraphcError(f"Subtract takes two tensors, {len(tensors)} were given")
        return ops.subtract(*tensors)


class Multiply(Merge):
    """The product."""

    def merge(self, tensors: list[Any]) -> Any:
        return reduce(ops.multiply, tensors)


class Average(Merge):
    """The mean of the tensors."""

    def merge(self, tensors: list[Any]) -> Any:
        return reduce(ops.add, tensors) / float(len(tensors))


class Maximum(Merge):
    """The greatest, elementwise."""

    def merge(self, tensors: list[Any]) -> Any:
        return reduce(ops.maximum, tensors)


class Minimum(Merge):
    """The least, elementwise."""

    def merge(self, tensors: list[Any]) -> Any:
        return reduce(ops.minimum, tensors)


class Concatenate(Merge):
    """The tensors one after another along `axis`."""

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Any) -> Any:
        return ops.concatenate(self._tensors(inputs), axis=self.axis)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


class Dot(Merge):
    """Products of two tensors summed over an axis of each, for each example; of unit vectors with `normalize`."""

    fewest = 2

    def __init__(self, axes: Any, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes, self.normalize = axes, normalize

    def call(self, inputs: Any) -> Any:
        x, y = self._tensors(inputs)
        first, second = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        a, b = first % x.ndim, second % y.ndim
        if not a or not b:
            raise GraphcError("Dot sums over axes of the examples, not over the batch")
        if self.normalize:
            x, y = ops.normalize(x, axis=a), ops.normalize(y, axis=b)
        labels = "abcdefghijklmnopqrstuvwxyz"
        left = ["z", *labels[: x.ndim - 1]]
        right = ["z", *labels[x.ndim - 1 : x.ndim + y.ndim - 2]]
        right[b] = left[a]
        result = [label for label in left if label != left[a]] + [label for label in right[1:] if label != left[a]]
        found = ops.einsum(f"{''.join(left)},{''.join(right)}->{''.join(result)}", x, y)
        return ops.expand_dims(found, 1) if found.ndim == 1 else found

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axes": self.axes, "normalize": self.normalize}


def add(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Add(**kwargs)(inputs)`."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Subtract(**kwargs)(inputs)`."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Multiply(**kwargs)(inputs)`."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Average(**kwargs)(inputs)`."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Maximum(**kwargs)(inputs)`."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """`Minimum(**kwargs)(inputs)`."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Sequence[Any], axis: int = -1, **kwargs: Any) -> Any:
    """`Concatenate(axis, **kwargs)(inputs)`."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: Sequence[Any], axes: Any = -1, **kwargs: Any) -> Any:
    """`Dot(axes, **kwargs)(inputs)`."""
    return Dot(axes=axes, **kwargs)(inputs)
