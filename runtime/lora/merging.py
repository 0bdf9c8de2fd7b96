"""Adapters merged into a model's weights, and the certificate of what rounding did to them.

Merging keeps the arrays from before, so that unmerging gives them back bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from graphc.frontends.adapters import Adapter
from graphc.frontends.storage import Storage
from graphc.frontends.structures import flatten, paths
from graphc.frontends.variable import Variable
from graphc.frontends.whole_files import check_writable, ready_folder, write_whole
from graphc.ir.adapting import Form
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, FormatError, GraphcError, UnsupportedError
from graphc.runtime.lora.adapters import (
    ModelAdapter,
    activate,
    candidates,
    deactivate,
    find_adapter,
    require_unmerged,
    state_of,
)
from graphc.runtime.lora.bounds import ROUNDOFF, Merged, merge
from graphc.runtime.lora.layouts import Names, flat, tensor_name, to_torch

Array = np.ndarray[Any, Any]
FORMAT = "graphc-merge-certificate 1"


@dataclass(frozen=True)
class Certificate:
    """What is known of a merge: for each tensor the identity used, the bound of rounding and what was measured of it;
    for the inputs that were named, their digests and how far the outputs moved."""

    adapter: str
    base: str | None
    tensors: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The certificate as JSON has it."""
        found: dict[str, Any] = {"format": FORMAT, "adapter": self.adapter, "base_sha256": self.base}
        return found | {"tensors": {k: dict(v) for k, v in self.tensors.items()}, "outputs": self.outputs}

    def save(self, path: Any) -> None:
        """Write it as JSON."""
        write_whole(Path(path), (json.dumps(self.to_json(), indent=1) + "\n").encode(), overwrite=True)


@dataclass(eq=False)
class MergeRecord:
    """What was merged into a model, and the weights from before."""

    name: str
    before: dict[str, Array] = field(default_factory=dict[str, Array])
    after: dict[str, Array] = field(default_factory=dict[str, Array])
    storages: dict[str, Storage] = field(default_factory=dict[str, Storage])
    """How quantized weights were stored before."""
    variables: dict[str, Variable] = field(default_factory=dict[str, Variable])


def merged_arrays(
    found: ModelAdapter, dtype: Any = None, storages: dict[str, Storage] | None = None
) -> tuple[dict[str, Merged], dict[str, dict[str, Any]]]:
    """The weights with the adapter in their own dtype, or in `dtype`, and what the certificate says of each.

    With `storages`, what is quantized is rounded to its format again, and how it is stored then is written there.
    """
    kind = None if dtype is None else dtype_of(dtype)
    if kind is not None and str(kind) not in ROUNDOFF:
        raise DTypeError(f"an adapter is merged into {', '.join(ROUNDOFF)}, not into {kind}")
    arrays: dict[str, Merged] = {}
    said: dict[str, dict[str, Any]] = {}
    for weight, (variable, adapter) in found.parts.items():
        if not variable.dtype.is_float:
            raise UnsupportedError(f"{weight!r} is {variable.dtype}; an adapter is merged into weights of floats")
        wanted = variable.dtype if kind is None else kind
        again = None
        if storages is not None and variable.storage is not None:
            again = _Again(variable.storage, tuple(variable.shape), adapter.form.transposed)
        arrays[weight] = one = _merged(weight, variable.numpy(), adapter, wanted, again)
        if again is not None and storages is not None:
            storages[weight] = again.storage
        said[weight] = {
            "identity": "W + s·A·B" if adapter.magnitude is None else "(W + s·A·B) · m / ‖W + s·A·B‖",
            "s": adapter.scaling,
            "rank": adapter.rank,
            "shape": list(one.array.shape),
            "dtype": str(wanted),
            "from": {"weight": str(variable.dtype), "factors": str(adapter.a.dtype)},
            "computed_in": "float64",
            **({} if again is None else {"quantized_to": str(again.storage.format)}),
            "bound": one.bound,
            "measured": one.measured,
            "outputs_measured": one.outputs,
            "largest": float(np.abs(one.array.astype(np.float64)).max(initial=0.0)),
            "sha256": _digest(one.array),
        }
    return arrays, said


@dataclass
class _Again:
    """Rounds what is merged to the format that the weight was stored in, and keeps how it is stored then."""

    storage: Storage
    shape: tuple[int, ...]
    transposed: bool

    def __call__(self, array: Array) -> Array:
        whole = array.T if self.transposed else array.reshape(self.shape)
        self.storage = self.storage.like(np.ascontiguousarray(whole))
        values = self.storage.values
        return values.T if self.transposed else values.reshape(array.shape)


def _merged(weight: str, kernel: Array, adapter: Adapter, dtype: Any, again: _Again | None) -> Merged:
    form = adapter.form
    a, b = adapter.a.numpy(), adapter.b.numpy()
    magnitude = None if adapter.magnitude is None else adapter.magnitude.numpy()
    matrix = np.ascontiguousarray(kernel.T) if form.transposed else kernel.reshape(form.shape)
    found = merge(matrix, a, b, adapter.scaling, dtype, magnitude, repr(weight), again)
    array = np.ascontiguousarray(found.array.T) if form.transposed else found.array.reshape(kernel.shape)
    return Merged(array, found.bound, found.measured, found.outputs)


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def merge_adapter(
    model: Any, name: str | None = None, inputs: Any = None, path: Any = None, lossy: bool = False
) -> Certificate:
    """See `Model.merge_adapter`."""
    require_unmerged(model)
    found = find_adapter(model, name)
    for weight, (variable, _) in found.parts.items():
        if variable.storage is not None and not lossy:
            raise GraphcError(
                f"{weight!r} is stored as {variable.storage.format}, to which a merged weight would be rounded again; "
                "lossy=True does that, save_merged writes floats"
            )
    if path is not None:
        check_writable(Path(path))
    storages: dict[str, Storage] = {}
    arrays, said = merged_arrays(found, None, storages)
    state = state_of(model)
    active = state.active
    activate(model, found.name)
    before = None if inputs is None else flatten(model.predict(inputs, verbose=0))
    kept = {weight: variable.numpy().copy() for weight, variable in found.trained.items()}
    deactivate(model)
    record = MergeRecord(found.name)
    changed = {weight: (found.parts[weight][0], one.array) for weight, one in arrays.items()}
    changed |= {weight: (found.trained[weight], array) for weight, array in kept.items()}
    for weight, (variable, array) in changed.items():
        record.variables[weight] = variable
        record.before[weight] = variable.numpy().copy()
        if weight in storages and variable.storage is not None:
            record.storages[weight] = variable.storage
            variable.store(storages[weight])
        else:
            variable.assign(array)
        record.after[weight] = array
    state.merged = record
    try:
        outputs = None if before is None else _differences(model, inputs, before)
        certificate = Certificate(found.name, found.base, said, outputs)
        if path is not None:
            certificate.save(path)
    except BaseException:  # a merge without the certificate that was asked for is none
        unmerge_adapter(model)
        activate(model, active)
        raise
    return certificate


def _differences(model: Any, inputs: Any, before: list[Array]) -> dict[str, Any]:
    after = flatten(model.predict(inputs, verbose=0))
    hashes: dict[str, Any] = {}
    for place, leaf in zip(paths(inputs), flatten(inputs), strict=True):
        array = np.asarray(leaf)
        hashes[place or "input"] = {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "sha256": _digest(array),
        }
    pairs = [(one.astype(np.float64), other.astype(np.float64)) for one, other in zip(before, after, strict=True)]
    return {
        "inputs": hashes,
        "target": model.executable().target,
        "largest_difference": max(float(np.abs(one - other).max(initial=0.0)) for one, other in pairs),
        "largest_output": max(float(np.abs(one).max(initial=0.0)) for one, _ in pairs),
    }


def unmerge_adapter(model: Any) -> str:
    """See `Model.unmerge_adapter`."""
    state = state_of(model)
    record = state.merged
    if record is None:
        raise GraphcError(f"no adapter is merged into model {model.name!r}")
    for weight, variable in record.variables.items():
        if not np.array_equal(variable.numpy(), record.after[weight], equal_nan=True):
            raise GraphcError(
                f"{weight!r} is not what the merge of {record.name!r} left: it was changed since and stays; "
                f"delete_adapter({record.name!r}) forgets the adapter and leaves all weights as they are"
            )
    for weight, variable in record.variables.items():
        storage = record.storages.get(weight)
        if storage is None:
            variable.assign(record.before[weight])
        else:
            variable.store(storage)
    state.merged = None
    activate(model, record.name)
    return record.name


def save_merged(
    model: Any,
    folder: Path,
    name: str | None = None,
    names: Names = None,
    dtype: Any = None,
    config: Any = None,
) -> Certificate:
    """See `Model.save_merged`."""
    require_unmerged(model)
    described = None if config is None else _described(config)
    found = find_adapter(model, name)
    arrays, said = merged_arrays(found, dtype)
    forms, variables = candidates(model)
    tensors: dict[str, Array] = {}
    state = state_of(model)
    for weight, variable in variables.items():
        if weight in arrays:
            array = arrays[weight].array
        elif weight in found.trained:
            array = found.value_of(weight)
        else:
            array = state.originals.get(weight, variable.numpy())
        key = tensor_name(names, weight)
        if key in tensors:
            raise GraphcError(f"two weights would be written as {key!r}: give names that tell them apart")
        tensors[key] = flat(weight, _laid_out(array, forms.get(weight), variable, dtype))
    certificate = Certificate(found.name, found.base, {tensor_name(names, w): each for w, each in said.items()})
    ready_folder(folder)
    write_whole(folder / "model.safetensors", save(tensors, {"format": "pt"}), overwrite=True)
    if described is not None:
        write_whole(folder / "config.json", described, overwrite=True)
    certificate.save(folder / "merge_certificate.json")
    return certificate


def _described(config: Any) -> bytes:
    """A `config.json` of a dict or of such a file. Raises `FormatError` for what is neither."""
    try:
        data = config if isinstance(config, Mapping) else json.loads(Path(config).read_bytes())
        if not isinstance(data, Mapping):
            raise TypeError(f"{config} has no object, but {type(data).__name__}")
        return (json.dumps(dict(data), indent=2) + "\n").encode()
    except (OSError, TypeError, ValueError) as error:
        raise FormatError(f"config is a dict for JSON or the path of a config.json: {error}") from error


def _laid_out(array: Array, form: Form | None, variable: Variable, dtype: Any) -> Array:
    if dtype is not None and variable.dtype.is_float:
        kind = dtype_of(dtype).numpy
        array = array if array.dtype == kind else array.astype(np.float32).astype(kind)
    return np.ascontiguousarray(to_torch(array, form))


__all__ = ["Certificate", "merge_adapter", "merged_arrays", "save_merged", "unmerge_adapter"]
