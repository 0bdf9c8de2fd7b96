"""Adapters in a model's file: how each lies, which is active, and the arrays that are not the model's now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any, get_args

import numpy as np

from graphc.frontends.adapters import check_rank
from graphc.frontends.layer_paths import join, layer_paths
from graphc.frontends.storage import entry_of, storage_of
from graphc.frontends.variable import Variable
from graphc.ir.adapting import Form, Kind
from graphc.ir.errors import FormatError, GraphcError
from graphc.passes.lora.settings import Settings
from graphc.runtime.lora.adapters import ModelAdapter, Plan, activate, attached, begin_with, mark_active, state_of
from graphc.runtime.lora.merging import MergeRecord

Array = np.ndarray[Any, Any]


def adapters_config(model: Any) -> tuple[Any, dict[str, Array]]:
    """What `Model.save` has to say of the adapters of a model and of the models in it, by their paths; None where there
    are none. The arrays are what weights are not at the moment: what other adapters train, what was before a merge."""
    config: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for path, each in _models(model):
        state = state_of(each)
        if not state.adapters:
            continue
        config[path] = {
            "active": state.active,
            "merged": None if state.merged is None else _merged_config(state.merged, path, arrays),
            "adapters": {name: _adapter_config(found) for name, found in state.adapters.items()},
        }
        for name, found in state.adapters.items():
            arrays |= {join(path, "values", name, weight): array for weight, array in found.values.items()}
        arrays |= {join(path, "base", weight): array for weight, array in state.originals.items()}
    return config or None, arrays


def _models(model: Any) -> Iterator[tuple[str, Any]]:
    yield "", model
    for path, layer in layer_paths(model).layers.items():
        if hasattr(layer, "add_adapter"):
            yield path, layer


def _adapter_config(found: ModelAdapter) -> dict[str, Any]:
    parts = {
        weight: {
            "kind": adapter.form.kind,
            "shape": list(adapter.form.shape),
            "transposed": adapter.form.transposed,
            "rank": adapter.rank,
            "scaling": adapter.scaling,
        }
        for weight, (_, adapter) in found.parts.items()
    }
    return {"settings": asdict(found.settings), "base": found.base, "parts": parts, "trained": list(found.trained)}


def _merged_config(record: MergeRecord, path: str, arrays: dict[str, Array]) -> dict[str, Any]:
    for weight, array in record.before.items():
        storage = record.storages.get(weight)
        named = {weight: array} if storage is None else storage.named(weight)
        arrays.update({join(path, "unmerged", name): each for name, each in named.items()})
        after = record.after[weight]
        if not np.array_equal(after, record.variables[weight].numpy(), equal_nan=True):
            arrays[join(path, "merged", weight)] = after  # so that unmerging refuses, as it does now
    stored = {
        weight: entry_of(s, [join(path, "unmerged", name) for name in s.named(weight)])
        for weight, s in record.storages.items()
    }
    return {"name": record.name, "weights": list(record.before), "stored": stored}


# --- reading --------------------------------------------------------------------------------------------------------


def make_adapters(model: Any, config: Any) -> None:
    """Attach adapters as a file's configuration says, whose factors are still to be set, and freeze the base.

    Raises `FormatError` for a configuration that is broken or not of the model.
    """
    if config is None:
        return
    models = dict(_models(model))
    try:
        for path, each in config.items():
            variables = _variables(models[path])
            for name, said in each["adapters"].items():
                settings = _settings(said["settings"])
                plans = {weight: _plan(weight, part, variables) for weight, part in said["parts"].items()}
                found = attached(models[path], name, settings, plans, variables, said["trained"])
                found.base = said["base"]
    except (AttributeError, KeyError, TypeError, ValueError, GraphcError) as error:
        raise FormatError(f"what the file says of adapters does not fit the model: {error}") from error


def restore_adapters(model: Any, config: Any, arrays: Mapping[str, Array]) -> None:
    """Let the adapters that `make_adapters` attached be as they were, now that the model has its weights.

    Raises `FormatError` for arrays that are missing or of another shape.
    """
    if config is None:
        return
    models = dict(_models(model))
    try:
        for path, each in config.items():
            state, variables = state_of(models[path]), _variables(models[path])
            for name, found in state.adapters.items():
                if name != each["active"]:
                    values = [join(path, "values", name, weight) for weight in found.trained]
                    found.values = {
                        w: _like(arrays[n], found.trained[w]) for w, n in zip(found.trained, values, strict=True)
                    }
            if each["merged"] is not None:
                state.merged = _merged(each["merged"], path, variables, dict(arrays))
            elif each["active"] is not None:
                active = state.adapters[each["active"]]
                state.originals = {w: _like(arrays[join(path, "base", w)], v) for w, v in active.trained.items()}
                mark_active(state, active)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"what the file says of adapters does not fit the model: {error}") from error


def _variables(model: Any) -> dict[str, Variable]:
    names = layer_paths(model).names
    factors = {id(v) for weight in model.weights for a in weight.adapters.values() for v in a.variables}
    return {names[id(v)]: v for v in model.weights if id(v) not in factors}


def _settings(said: Mapping[str, Any]) -> Settings:
    found: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    return Settings(**found)


def _plan(weight: str, part: Mapping[str, Any], variables: Mapping[str, Variable]) -> Plan:
    form = Form(part["kind"], tuple(part["shape"]), bool(part["transposed"]))
    own, shape = tuple(variables[weight].shape), form.shape[::-1] if form.transposed else form.shape
    if form.kind not in get_args(Kind) or np.prod(shape) != np.prod(own) or (len(shape) == len(own) and shape != own):
        raise FormatError(f"an adapter of {weight!r} is for shape {shape}, used in {form.kind!r}, not {own}")
    check_rank(part["rank"], form, weight)
    scaling = float(part["scaling"])
    if not isfinite(scaling):
        raise FormatError(f"the adapter of {weight!r} has the factor {scaling}, which is not finite")
    return Plan(form, part["rank"], scaling)


def _merged(
    said: Mapping[str, Any], path: str, variables: Mapping[str, Variable], arrays: dict[str, Array]
) -> MergeRecord:
    record = MergeRecord(said["name"])
    for weight in said["weights"]:
        variable = record.variables[weight] = variables[weight]
        after = arrays.get(join(path, "merged", weight))
        record.after[weight] = variable.numpy() if after is None else _like(after, variable)
        entry = said["stored"].get(weight)
        if entry is None:
            record.before[weight] = _like(arrays[join(path, "unmerged", weight)], variable)
        else:
            storage = storage_of(entry, variable, arrays)
            record.storages[weight], record.before[weight] = storage, storage.values
    return record


def _like(array: Array, variable: Variable) -> Array:
    if (array.shape, array.dtype) != (tuple(variable.shape), variable.dtype.numpy):
        raise FormatError(f"{array.dtype}{list(array.shape)} is no value for {variable.name!r}, {variable.tensor_type}")
    return array


def copy_adapters(model: Any, source: Any) -> None:
    """Give a clone the adapters that its source has, with factors of their own, drawn anew."""
    config, _ = adapters_config(source)
    make_adapters(model, config)
    for path, each in _models(model):
        for found in state_of(each).adapters.values():
            begin_with(found)
        activate(each, config[path]["active"] if config and path in config else None)


__all__ = ["adapters_config", "copy_adapters", "make_adapters", "restore_adapters"]
