"""What a layer demands of its inputs, checked before it is called."""

from __future__ import annotations

from typing import Any

from graphc.frontends.structures import flatten
from graphc.frontends.symbolic import keras_shape
from graphc.ir.errors import DTypeError, ShapeError
from graphc.ir.suggestions import number_of


class InputSpec:
    """Demands on one input: its rank (`ndim`, `min_ndim`, `max_ndim`), sizes (`axes`: axis → size), dtype."""

    def __init__(
        self,
        dtype: Any = None,
        shape: Any = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: dict[int, int | None] | None = None,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.dtype = dtype
        self.shape = None if shape is None else tuple(shape)
        self.ndim = len(self.shape) if self.shape is not None else ndim
        self.max_ndim = max_ndim
        self.min_ndim = min_ndim
        self.axes = {int(axis): size for axis, size in (axes or {}).items()}
        self.name = name
        self.optional = optional

    def check(self, tensor: Any) -> None:
        """Raise `ShapeError` or `DTypeError` if `tensor` is not as demanded."""
        shape = keras_shape(tuple(tensor.shape))
        rank = len(shape)
        if self.ndim is not None and rank != self.ndim:
            raise ShapeError(
                f"the input must have {number_of(self.ndim, 'axis', 'axes')}; it has {rank}: shape {_text(shape)}"
            )
        if self.min_ndim is not None and rank < self.min_ndim:
            raise ShapeError(f"the input must have at least {self.min_ndim} axes; it has {rank}: shape {_text(shape)}")
        if self.max_ndim is not None and rank > self.max_ndim:
            raise ShapeError(f"the input must have at most {self.max_ndim} axes; it has {rank}: shape {_text(shape)}")
        if self.dtype is not None and str(tensor.dtype) != str(self.dtype):
            raise DTypeError(f"the input must be {self.dtype}; it is {tensor.dtype}")
        demanded = dict(enumerate(self.shape)) if self.shape is not None else {}
        for axis, size in (demanded | self.axes).items():
            if size is None:
                continue
            if not -rank <= axis < rank:
                raise ShapeError(f"the input must have an axis {axis}; its shape is {_text(shape)}")
            if isinstance(shape[axis], int) and shape[axis] != size:
                raise ShapeError(f"the input must have size {size} on axis {axis}; its shape is {_text(shape)}")


def _text(shape: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def check_inputs(spec: Any, inputs: Any) -> None:
    """Check a structure of inputs against one spec or a list of them."""
    if spec is None:
        return
    specs = flatten(spec)
    tensors = [leaf for leaf in flatten(inputs) if leaf is not None]
    if len(specs) != len(tensors):
        raise ShapeError(
            f"the layer takes {number_of(len(specs), 'input')}, {number_of(len(tensors), 'was', 'were')} given"
        )
    for one, tensor in zip(specs, tensors, strict=True):
        if not hasattr(tensor, "shape"):
            raise DTypeError(f"a layer is called on arrays or tensors, not on {tensor!r}")
        one.check(tensor)
