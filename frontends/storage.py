"""How a quantized variable is stored: integers in a format, of which the variable's array is what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from graphc.frontends.layer_paths import LayerPaths, layer_paths
from graphc.frontends.rounding import RANGES, InputRange, RunningRange, VariableRounding
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.formats import Format, parse_format
from graphc.ir.module import Module

Array = np.ndarray[Any, Any]

QUANTIZED = "quantized"
"""Why what is quantized is frozen."""


@dataclass(frozen=True, eq=False)
class Storage:
    """The arrays of a format, and the `values` that they stand for, in the variable's dtype. With `rows`, products read
    integers beside it, each row by its own scale. `shape` is that in which it is read and stored: of a kernel of heads
    a matrix."""

    format: Format
    arrays: tuple[Array, ...]
    values: Array
    shape: tuple[int, ...]
    rows: bool = False

    @staticmethod
    def of(
        format: Format,
        array: Array,
        rows: bool = False,
        arrays: Sequence[Array] | None = None,
        shape: Sequence[int] | None = None,
    ) -> Storage:
        """`array` rounded to nearest; or given `arrays`, which stand for something like it. It is stored in its own
        shape unless another one is given."""
        own = tuple(array.shape if shape is None else shape)
        found = format.quantize(array.reshape(own)) if arrays is None else tuple(arrays)
        values = format.dequantize(*found, shape=own).reshape(array.shape).astype(array.dtype)
        return Storage(format, found, values, own, rows)

    def like(self, array: Array) -> Storage:
        """Another array, rounded to nearest and stored as this one."""
        return Storage.of(self.format, array, self.rows, shape=self.shape)

    def holds(self, array: Array) -> bool:
        """Whether it stands for this array."""
        return np.array_equal(array, self.values)

    def rounded(self, array: Array) -> Storage:
        """What stands for another array: this one if it does, else that rounded to nearest."""
        return self if self.holds(array) else self.like(array)

    def named(self, name: str) -> dict[str, Array]:
        """The arrays by names as weight tables have them: `dense/kernel_values`, `dense/kernel_scales`."""
        parts = self.format.parts(self.shape)
        return {f"{name}_{part.name}": array for part, array in zip(parts, self.arrays, strict=True)}


def storage_of(entry: Mapping[str, Any], like: Any, arrays: dict[str, Array]) -> Storage:
    """The storage of the variable `like` by its entry in a file, from the arrays of its names, which are taken out.

    Raises `FormatError` for arrays that are missing or not of the format, `KeyError` for an entry that lacks something.
    """
    names, shape = entry["arrays"], _shape_in(entry, like)
    try:
        format = parse_format(str(entry["format"]))
        parts = format.parts(shape)
        found = [arrays.pop(name) for name in names]
    except KeyError as error:
        raise FormatError(f"{error.args[0]!r} is missing, a part of what is stored as {entry['format']}") from error
    except GraphcError as error:
        raise FormatError(error.message) from error
    have = [(array.shape, array.dtype) for array in found]
    if have != [(part.type.shape, part.type.dtype.numpy) for part in parts]:
        wanted = ", ".join(str(part.type) for part in parts)
        raise FormatError(f"{', '.join(names)} are not {wanted}, as {format} has a weight of shape {shape}")
    return Storage.of(format, np.empty(like.shape, like.dtype.numpy), bool(entry["rows"]), found, shape)


def _shape_in(entry: Mapping[str, Any], like: Any) -> tuple[int, ...]:
    """The shape in which a variable is stored. Raises `FormatError` for one of other elements."""
    shape = tuple(int(size) for size in entry.get("shape") or like.shape)
    if prod(shape) != prod(like.shape):
        raise FormatError(f"a weight of shape {tuple(like.shape)} is not stored as {shape}")
    return shape


# --- in files -------------------------------------------------------------------------------------------------------

STORED, ROUNDED = "stored", "rounded"
"""What a file's configuration has of quantized weights, and of those that are rounded in training, by their names."""


def entry_of(storage: Storage, names: list[str]) -> dict[str, Any]:
    """What a file says of a weight whose arrays have these names in it."""
    own = {} if storage.shape == storage.values.shape else {"shape": list(storage.shape)}
    return {"format": str(storage.format), "rows": storage.rows, "arrays": names, **own}


def storage_config(model: Any, module: Module, paths: LayerPaths) -> dict[str, Any]:
    """What a file says of a model's quantized weights, stored as in this module, and of those rounded in training."""
    parts: dict[str, list[str]] = {}
    for weight in module.weights.entries():
        if weight.alias is None and weight.recipe is not None and weight.recipe.quantized is not None:
            parts.setdefault(weight.recipe.sources[0], []).append(weight.name)
    stored: dict[str, Any] = {}
    rounded: dict[str, Any] = {}
    for variable in model.weights:
        name, rounding = paths.names[id(variable)], variable.rounding
        if variable.storage is not None:
            stored[name] = entry_of(variable.storage, parts[name])
        if rounding is not None:
            said = _said_of(rounding.inputs)
            form = None if rounding.format is None else str(rounding.format)
            rounded[name] = {"format": form, "inputs": said, "shape": rounding.shape and list(rounding.shape)}
    return ({STORED: stored} if stored else {}) | ({ROUNDED: rounded} if rounded else {})


def storages_in(model: Any, stored: Any, arrays: dict[str, Array]) -> dict[str, Storage]:
    """The quantized weights of a file by name, of whose `arrays` each takes the place of its own.

    Raises `FormatError` for what is broken, or of weights that the model does not have.
    """
    names = layer_paths(model).names
    variables = {names[id(variable)]: variable for variable in model.weights}
    found: dict[str, Storage] = {}
    try:
        for name, entry in (stored or {}).items():
            like = variables[name]
            found[name] = storage_of(entry, like, arrays)
            arrays[name] = found[name].values
    except (AttributeError, TypeError, KeyError) as error:
        raise FormatError(f"what the file says of quantized weights does not fit the model: {error}") from error
    return found


def restore_storage(model: Any, config: Mapping[str, Any], arrays: dict[str, Array]) -> None:
    """Quantize the weights of a new model as a file has them, and round in training as it says."""
    names = layer_paths(model).names
    variables = {names[id(variable)]: variable for variable in model.weights}
    for name, storage in storages_in(model, config.get(STORED), arrays).items():
        variables[name].store(storage)
        variables[name].freeze(QUANTIZED)
    try:
        ends = ranges_in(config.get(ROUNDED), arrays)
        for name, entry in (config.get(ROUNDED) or {}).items():
            form, found = entry["format"], _range_of(variables[name], entry["inputs"], ends.get(name, ()))
            shape = _shape_in(entry, variables[name]) if entry.get("shape") else None
            variables[name].rounding = VariableRounding(None if form is None else parse_format(form), found, shape)
    except (AttributeError, TypeError, KeyError, IndexError, ValueError, OverflowError, GraphcError) as error:
        raise FormatError(f"what the file says of rounding does not fit the model: {error}") from error


def _said_of(inputs: InputRange | RunningRange | None) -> Any:
    """What a file says of a range; the ends of one that goes with the batches are among its arrays."""
    if isinstance(inputs, RunningRange):
        return {"high": inputs.high, "momentum": inputs.momentum}
    return None if inputs is None else [float(inputs.scale), int(inputs.zero_point), inputs.high]


def _range_of(kernel: Any, said: Any, ends: Sequence[Array]) -> InputRange | RunningRange | None:
    """The range that a file says of a kernel."""
    if isinstance(said, Mapping):
        least, most = map(float, ends)
        return RunningRange.of(kernel, least, most, int(said["high"]), float(said["momentum"]))
    return None if said is None else InputRange(np.float32(said[0]), np.uint8(said[1]), int(said[2]))


def ranges_in(rounded: Any, arrays: dict[str, Array]) -> dict[str, list[Array]]:
    """The ends of ranges that go with the batches, by their kernels: taken out of a file's arrays. Raises `FormatError`
    for one that is missing."""
    running = [name for name, entry in (rounded or {}).items() if isinstance(entry["inputs"], Mapping)]
    try:
        return {name: [arrays.pop(f"{RANGES}/{name}/{end}") for end in ("least", "most")] for name in running}
    except KeyError as error:
        raise FormatError(f"{error.args[0]!r} is missing, the end of a range") from error


def copy_storage(model: Any, source: Any) -> None:
    """Quantize the weights of a clone as its source's are, rounded to nearest."""
    for variable, other in zip(model.weights, source.weights, strict=True):
        rounding = other.rounding
        if rounding is not None and isinstance(rounding.inputs, RunningRange):
            rounding = replace(rounding, inputs=rounding.inputs.copied(variable))
        variable.rounding = rounding
        if other.storage is not None:
            variable.store(other.storage.like(variable.numpy()))
            variable.freeze(QUANTIZED)


__all__ = [
    "QUANTIZED",
    "ROUNDED",
    "STORED",
    "Storage",
    "copy_storage",
    "entry_of",
    "ranges_in",
    "restore_storage",
    "storage_config",
    "storage_of",
    "storages_in",
]
