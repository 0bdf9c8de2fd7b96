"""Layers that make data fit for a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontends import ops
from graphc.frontends.layer import Layer
from graphc.ir.errors import GraphcError


class Rescaling(Layer):
    """inputs · scale + offset, in floats: `Rescaling(1 / 255)` for images of bytes, `Rescaling(1 / 127.5, -1)` to have
    them from −1 to 1. Both are numbers, or have one for each channel (or whatever else broadcasts)."""

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.scale, self.offset = _numbers("scale", scale), _numbers("offset", offset)

    def call(self, inputs: Any) -> Any:
        dtype = self.compute_dtype
        scale, offset = (ops.cast(np.asarray(each, np.float64), dtype) for each in (self.scale, self.offset))
        return ops.cast(inputs, dtype) * scale + offset

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "offset": self.offset}


def _numbers(argument: str, given: Any) -> Any:
    """The number or nested list of numbers."""
    array = np.asarray(given)
    if array.dtype.kind not in "iuf" or not array.size:
        raise GraphcError(f"Rescaling: {argument} is a number or has numbers, not {given!r}")
    return array.tolist()
