"""Models as files: a `.graphc` file is a zip of configuration (JSON), graph (IR text) and weights (safetensors), and
for a model that is compiled of what its optimizer keeps (safetensors). Quantized weights are stored as their integers.

Everything in it is stored uncompressed and listed with size and SHA-256 in `metadata.json`, so a file cut off or
changed is refused before anything is made of it. Nothing in a file is executed or unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graphc.frontends import serialization
from graphc.frontends.layer_paths import WeightPlace, layer_paths
from graphc.frontends.lowering import lower
from graphc.frontends.model import Model
from graphc.frontends.serialization import (
    CustomObjectScope,
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    register_keras_serializable,
    register_serializable,
    serialize_keras_object,
)
from graphc.frontends.storage import ROUNDED, STORED, entry_of, ranges_in, restore_storage, storage_config, storages_in
from graphc.frontends.tensor_files import metadata_of, tensor_bytes, tensors_of
from graphc.frontends.whole_files import write_whole
from graphc.ir.errors import FormatError, GraphcError, ShapeError
from graphc.ir.module import Module

FORMAT, TRAINING_FORMAT, ADAPTED_FORMAT = "graphc-model 1", "graphc-model 2", "graphc-model 3"
"""Of a model alone, of one that is saved with how it is compiled, and of one with adapters or integers."""
FORMATS = (FORMAT, TRAINING_FORMAT, ADAPTED_FORMAT)
MEMBERS = ("config.json", "model.gir", "weights.safetensors")
OPTIMIZER, BESIDE = "optimizer.safetensors", "beside.safetensors"
METADATA = "metadata.json"
_LARGEST_METADATA = 1 << 24
_NOTHING = tensor_bytes({})

Array = np.ndarray[Any, Any]


def save_model(
    model: Any, filepath: str | os.PathLike[str], overwrite: bool = True, include_optimizer: bool = True
) -> None:
    """Write the model to a `.graphc` file. The file appears whole or not at all.

    With `include_optimizer`, a model that is compiled is saved with the arguments of `compile` and with what its
    optimizer keeps between steps, so that training goes on where it was. Arguments that no file can hold, such as a
    lambda, are warned of, and then the model is saved without.
    """
    path = Path(filepath)
    if path.suffix != ".graphc":
        raise GraphcError(f"a model is saved to a file whose name ends in .graphc, not {path.name!r}")
    if not isinstance(model, Model):
        raise GraphcError(f"save_model takes a model, not {type(model).__name__}")
    module = lower(model)
    places = layer_paths(model)
    config = {"model": serialization.serialize(model), "input": _input_config(model), "aliases": places.aliases}
    compiled, slots = model.training_state() if include_optimizer else (None, {})
    if compiled is not None:
        config["compile"] = compiled
    kept, beside = model.kept_beside()
    more = {"adapters": kept} if kept is not None else {}
    more |= storage_config(model, module, places)
    config |= more
    members = {
        "config.json": json.dumps(config, indent=1).encode(),
        "model.gir": str(module).encode(),
        "weights.safetensors": tensor_bytes(_arrays(module)),
    }
    if compiled is not None:
        members[OPTIMIZER] = tensor_bytes(slots)
    if beside:
        members[BESIDE] = tensor_bytes(beside)
    form = ADAPTED_FORMAT if more else FORMAT if compiled is None else TRAINING_FORMAT
    listed = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()}
    members[METADATA] = json.dumps({"format": form, "files": listed}, indent=1).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in (METADATA, *listed):
            archive.writestr(zipfile.ZipInfo(name), members[name])  # a fixed date: equal models make equal files
    write_whole(path, buffer.getvalue(), overwrite)


def _arrays(module: Module) -> dict[str, Array]:
    return {weight.name: module.weights[weight.name] for weight in module.weights.entries() if weight.alias is None}


def _input_config(model: Model) -> Any:
    """What a subclassed model was called on, so that loading can build it."""
    from graphc.frontends.structures import map_structure
    from graphc.frontends.symbolic import keras_shape

    if model.is_functional or model._input_types is None:
        return None
    return map_structure(
        lambda type: (
            {"shape": [s if s is None or isinstance(s, int) else str(s) for s in keras_shape(type.shape)]}
            | {"dtype": str(type.dtype)}
        ),
        model._input_types,
    )


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """The model in a `.graphc` file. Classes of one's own are registered, or passed in `custom_objects` by name.

    A model that was saved compiled is so again, and its optimizer where it was; not with `compile=False`.

    Raises `FormatError` for a file that is broken, changed or names unknown classes. `safe_mode` is Keras's; loading is
    always safe.
    """
    path = Path(filepath)
    if path.exists() and path.suffix != ".graphc":
        raise FormatError(f"load_model reads .graphc files, which `save` writes; {path.name!r} is none")
    members = read_members(path)
    config = _json(members["config.json"], "config.json")
    arrays = tensors_of(members["weights.safetensors"], "weights.safetensors")
    with custom_object_scope(custom_objects or {}):
        try:
            model = serialization.deserialize(config.get("model"))
        except RecursionError as error:
            raise FormatError("config.json is nested too deep") from error
    if not isinstance(model, Model):
        raise FormatError("config.json does not describe a model")
    if config.get("input") is not None and not model.built:
        _build(model, config["input"])
    aliases = config.get("aliases") or {}
    if not isinstance(aliases, dict):
        raise FormatError("the aliases in config.json are not an object")
    _tie(model, aliases)
    model.expect_beside(config.get("adapters"))
    restore_storage(model, config, arrays)
    _assign(model, arrays, "the file", FormatError)
    model.restore_beside(config.get("adapters"), tensors_of(members.get(BESIDE, _NOTHING), BESIDE))
    if compile and config.get("compile") is not None:
        slots = tensors_of(members.get(OPTIMIZER, _NOTHING), OPTIMIZER)
        with custom_object_scope(custom_objects or {}):
            try:
                model.restore_training(config["compile"], slots)
            except GraphcError as error:
                raise error.at(f"how the model in {path.name} is compiled; compile=False leaves that out") from (
                    error.__cause__
                )
    return model


def build_like(model: Model, source: Model) -> None:
    """Call a new model's layers on inputs like those that `source` saw, so that it has the same weights."""
    config = _input_config(source)
    if config is not None and not model.built:
        _build(model, config)
    _tie(model, layer_paths(source).aliases)


def _build(model: Model, inputs: Any) -> None:
    """Call a subclassed model's layers on inputs like those it was saved with."""
    try:
        example = _symbolic_inputs(inputs)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"config.json does not say what the model is called on: {error}") from error
    model(example)


def _symbolic_inputs(entry: Any) -> Any:
    from graphc.frontends.layers.core import Input

    if isinstance(entry, dict):
        if set(entry) == {"shape", "dtype"}:
            return Input(batch_shape=tuple(entry["shape"]), dtype=entry["dtype"])
        return {key: _symbolic_inputs(each) for key, each in entry.items()}
    return [_symbolic_inputs(each) for each in entry]


def load_module(path: Path) -> Module:
    """The graph of a `.graphc` file with its weights, without the model."""
    from graphc.ir import parse

    members = read_members(path)
    try:
        text = members["model.gir"].decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"model.gir is not text: {error}") from error
    module = parse(text)
    module.verify()
    arrays = tensors_of(members["weights.safetensors"], "weights.safetensors")
    wanted = {weight.name for weight in module.weights.entries() if weight.alias is None}
    if wanted != set(arrays):
        raise FormatError(f"the weights do not match the graph: {', '.join(sorted(wanted ^ set(arrays)))}")
    for name in wanted:
        try:
            module.weights.set(name, arrays[name])
        except ShapeError as error:
            raise FormatError(f"weights.safetensors: {error}") from error
    return module


def read_members(path: Path) -> dict[str, bytes]:
    """The parts of a `.graphc` file, checked against its list. Raises `FormatError`."""
    if not path.is_file():
        raise FormatError(f"there is no file {str(path)!r}")
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, size)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise FormatError(f"{path.name} is not a valid .graphc file: {error}") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> dict[str, bytes]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    expected = {METADATA, *MEMBERS} | ({OPTIMIZER, BESIDE} & set(entries))
    if len(entries) != len(archive.infolist()) or set(entries) != expected:
        odd = sorted(set(entries) ^ expected) or ["a part stored twice"]
        raise FormatError(f"a .graphc file holds {', '.join(sorted(expected))}; wrong: {', '.join(map(repr, odd))}")
    for entry in entries.values():
        # Stored parts are as large as the file says they are, so no small file can ask for much memory.
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.file_size > size
            or entry.compress_size != entry.file_size
        ):
            raise FormatError(f"{entry.filename} has a size that does not fit the file")
    if entries[METADATA].file_size > _LARGEST_METADATA:
        raise FormatError("metadata.json is too large")
    metadata = _json(archive.read(METADATA), METADATA)
    if metadata.get("format") not in FORMATS:
        raise FormatError(
            f"the format is {metadata.get('format')!r}; this release reads {', '.join(map(repr, FORMATS))}"
        )
    listed = metadata.get("files")
    if not isinstance(listed, dict) or set(listed) != expected - {METADATA}:
        raise FormatError("metadata.json does not list the parts of the file")
    found: dict[str, bytes] = {}
    for name in listed:
        data = archive.read(name)
        entry = listed[name]
        if (
            not isinstance(entry, dict)
            or entry.get("sha256") != hashlib.sha256(data).hexdigest()
            or entry.get("size") != len(data)
        ):
            raise FormatError(f"{name} is not what was saved: its SHA-256 or size differs")
        found[name] = data
    return found


def _json(data: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{name} is not a JSON object")
    return found


# --- weights alone ------------------------------------------------------------------------------------------------


def save_weights(model: Any, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write the weights to a safetensors file, named by their paths in the model; quantized ones as their integers
    (`dense/kernel_values`, `dense/kernel_scales`). The file's name ends in `.safetensors`."""
    if Path(filepath).suffix != ".safetensors":
        raise GraphcError(
            f"weights are saved as safetensors, to a file whose name ends in .safetensors, not {Path(filepath).name!r}"
        )
    names = layer_paths(model).names
    arrays: dict[str, Array] = {}
    stored: dict[str, Any] = {}
    for variable in model.weights:
        name, storage = names[id(variable)], variable.storage
        found = {name: variable.numpy()} if storage is None else storage.rounded(variable.numpy()).named(name)
        if storage is not None:
            stored[name] = entry_of(storage, list(found))
        arrays |= found
    metadata = {STORED: json.dumps(stored)} if stored else None
    write_whole(Path(filepath), tensor_bytes(arrays, metadata), overwrite)


def load_weights(model: Any, filepath: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
    """Set the weights by name from a safetensors file, or from the weights in a `.graphc` file of a model.

    A weight that is quantized in the model and the file in the same way gets the file's integers. Where only the
    model's is, it is rounded to nearest; where only the file's is, it is what the integers stand for.
    Raises `ShapeError` that lists what does not fit.
    """
    path = Path(filepath)
    if not path.is_file():
        raise FormatError(f"there is no file {str(path)!r}")
    if zipfile.is_zipfile(path):
        members = read_members(path)
        config = _json(members["config.json"], "config.json")
        data, stored, rounded = members["weights.safetensors"], config.get(STORED), config.get(ROUNDED)
    else:
        data, rounded = path.read_bytes(), None
        text = metadata_of(data, path.name).get(STORED)
        stored = None if text is None else _json(text.encode(), f"the metadata of {path.name}")
    arrays = tensors_of(data, path.name)
    ranges_in(rounded, arrays)
    storages = storages_in(model, stored, arrays)
    _assign(model, arrays, path.name, ShapeError, skip_mismatch)
    names = layer_paths(model).names
    for variable in model.weights:
        found = storages.get(names[id(variable)])
        own = variable.storage
        if found is not None and own is not None and (own.format, own.shape) == (found.format, found.shape):
            variable.store(replace(found, rows=own.rows))


def _assign(
    model: Any, arrays: Mapping[str, Array], what: str, error: type[GraphcError], skip_mismatch: bool = False
) -> None:
    names = layer_paths(model).names
    variables = {names[id(variable)]: variable for variable in model.weights}
    wrong = [f"{name} is missing" for name in variables if name not in arrays]
    wrong += [f"{name} is unknown to the model" for name in sorted(arrays) if name not in variables]
    fitting = {name for name in variables if name in arrays and tuple(variables[name].shape) == arrays[name].shape}
    wrong += [
        f"{name} has shape {arrays[name].shape}, the model's has {tuple(variables[name].shape)}"
        for name in variables
        if name in arrays and name not in fitting
    ]
    if wrong and not skip_mismatch:
        factors = {id(v) for weight in model.weights for a in weight.adapters.values() for v in a.variables}
        missing = [id(variable) for name, variable in variables.items() if name not in arrays]
        of_base = missing and factors.issuperset(missing)
        hint = "; weights without an adapter's are loaded before add_adapter" if of_base else ""
        raise error(f"the weights in {what} do not fit model {model.name!r}: {'; '.join(wrong)}{hint}")
    for name in fitting:
        variables[name].assign(arrays[name])


def _tie(model: Any, aliases: Mapping[str, str]) -> None:
    """Let the weights be shared that were when the model was saved."""
    if not aliases:
        return
    paths = layer_paths(model)
    first = {paths.names[id(place.variable)]: place.variable for place in paths.places}
    places = {place.name: place for place in paths.places}
    for name, source in aliases.items():
        place, variable = places.get(name), first.get(source)
        if place is None or variable is None:
            raise FormatError(f"the weight {name!r} is tied to {source!r}, but the model does not have both")
        if place.variable is not variable:
            _replace(place, variable)


def _replace(place: WeightPlace, variable: Any) -> None:
    if place.attribute is None:
        raise FormatError(f"the tied weight {place.name!r} is not an attribute of its layer")
    if tuple(place.variable.shape) != tuple(variable.shape):
        raise FormatError(f"the tied weight {place.name!r} has another shape than the one it is tied to")
    setattr(place.layer, place.attribute, variable)


__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "load_model",
    "load_module",
    "load_weights",
    "register_keras_serializable",
    "register_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
