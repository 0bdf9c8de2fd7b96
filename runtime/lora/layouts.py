"""What PyTorch and PEFT call weights, and how they lie there: `[out, in, *window]`, where here `[*window, in, out]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from graphc.ir.adapting import Form
from graphc.ir.errors import GraphcError
from graphc.passes.lora.settings import layer_of

Array = np.ndarray[Any, Any]
Names: TypeAlias = Mapping[str, str] | Callable[[str], str] | None
"""What the modules of another framework are called, by the paths of layers: a function, or a dict whose keys may have
`*`, which stands for a part of the path in key and value; None: the path with dots."""

LEAVES = {
    "kernel": "weight",
    "embeddings": "weight",
    "scale": "weight",
    "gamma": "weight",
    "offset": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""What PyTorch calls the weights of layers, where it is another name."""


def module_name(names: Names, layer: str) -> str:
    """The name of the module of a layer. Raises `GraphcError` for a layer that a dict of names does not have."""
    found = named_module(names, layer)
    if found is None:
        known = ", ".join(map(repr, names)) if isinstance(names, Mapping) else ""
        raise GraphcError(f"the names say nothing of the layer {layer!r}; they have {known}")
    return found


def named_module(names: Names, layer: str) -> str | None:
    """The name of the module of a layer, None for one that a dict of names does not have."""
    if names is None:
        return layer.replace("/", ".")
    if callable(names):
        return names(layer)
    if not isinstance(names, Mapping):
        raise GraphcError(f"names are a dict of modules' names by paths of layers, or a function, not {names!r}")
    for pattern, name in names.items():
        parts = [re.escape(part) for part in pattern.split("*")]
        found = re.fullmatch("([^/]+)".join(parts), layer)
        if found is not None:
            for part in found.groups():
                name = name.replace("*", part, 1)
            return name
    return None


def tensor_name(names: Names, weight: str) -> str:
    """The name of a weight in PyTorch: of its module, and its leaf there."""
    leaf = weight.rpartition("/")[2]
    return f"{module_name(names, layer_of(weight))}.{LEAVES.get(leaf, leaf)}"


def flat(weight: str, array: Array) -> Array:
    """A weight without products as PyTorch has it: a bias of heads has one axis there."""
    leaf = weight.rpartition("/")[2]
    return array.reshape(-1) if LEAVES.get(leaf, leaf) == "bias" else array


def to_torch(array: Array, form: Form | None) -> Array:
    """A weight as PyTorch has it; `form` is how an adapter would lie beside it, None for one without products."""
    if form is None or form.kind == "embedding" or form.transposed:
        return array
    array = array.reshape(form.shape)
    return np.ascontiguousarray(np.moveaxis(array, (-1, -2), (0, 1)))


def from_torch(array: Array, form: Form | None, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_torch` and of `flat`, for a weight of this shape. Raises ValueError where sizes do not fit."""
    if form is None and array.ndim == 1 and array.size == np.prod(shape, dtype=int):
        return array.reshape(shape)
    if form is None or form.kind == "embedding" or form.transposed:
        return array.reshape(shape) if array.shape == shape else _misfit(array, shape)
    if array.ndim != len(form.shape):
        return _misfit(array, shape)
    found = np.moveaxis(array, (0, 1), (-1, -2))
    return found.reshape(shape) if found.shape == form.shape else _misfit(array, shape)


def _misfit(array: Array, shape: tuple[int, ...]) -> Array:
    raise ValueError(f"{list(array.shape)} does not lie like {list(shape)}")


def factors_to_torch(a: Array, b: Array, form: Form) -> tuple[Array, Array]:
    """A and B as PEFT has them: [r, in, *window] and [out, r, …]; of embeddings [r, rows] and [size, r]."""
    if form.kind != "conv":
        return np.ascontiguousarray(a.reshape(-1, a.shape[-1]).T), np.ascontiguousarray(b.T)
    window = len(form.shape) - 2
    return to_torch(a, Form("conv", a.shape)), np.ascontiguousarray(b.T).reshape(*b.T.shape, *(1,) * window)


def factors_from_torch(a: Array, b: Array, form: Form) -> tuple[Array, Array]:
    """The inverse of `factors_to_torch`. Raises ValueError where the sizes do not fit."""
    rank = a.shape[0]
    a_shape, b_shape = form.factor_shapes(rank)
    if form.kind == "conv":
        found_a = from_torch(a, Form("conv", a_shape), a_shape)
        found_b = b.reshape(b.shape[:2]).T
    else:
        found_a, found_b = a.T, b.T
        if a.ndim != 2 or a.shape[1] != form.inputs:
            _misfit(a, (rank, form.inputs))
        found_a = found_a.reshape(a_shape)
    if found_b.shape != b_shape:
        _misfit(b, b_shape[::-1])
    return np.ascontiguousarray(found_a), np.ascontiguousarray(found_b)


def magnitude_to_torch(magnitude: Array, form: Form) -> Array:
    """The magnitudes of DoRA as PEFT has them: [out], of convolutions [1, out, 1, …]."""
    return magnitude.reshape(1, -1, *(1,) * (len(form.shape) - 2)) if form.kind == "conv" else magnitude


__all__ = [
    "LEAVES",
    "Names",
    "factors_from_torch",
    "factors_to_torch",
    "flat",
    "from_torch",
    "magnitude_to_torch",
    "module_name",
    "named_module",
    "tensor_name",
    "to_torch",
]
