"""`graphc.models`: what Keras keeps there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from graphc.frontends import serialization
from graphc.frontends.saving import build_like, load_model, save_model
from graphc.frontends.storage import copy_storage
from graphc.ir.errors import FormatError, GraphcError
from graphc.runtime.lora.saving import adapters_config, copy_adapters
from graphc.runtime.model import Model, Sequential


def clone_model(model: Any) -> Any:
    """A model of equal layers under the same names, with weights of its own, drawn anew; it is not compiled.

    It has the adapters that the model has, and weights are quantized that are quantized there, rounded to nearest.
    """
    if not isinstance(model, Model):
        raise GraphcError(f"clone_model takes a model, not {type(model).__name__}")
    classes = {type(layer).__name__: type(layer) for layer in model.all_layers() if type(layer).__name__ != "Model"}
    with serialization.custom_object_scope(classes):
        clone = serialization.deserialize(serialization.serialize(model))
    if adapters_config(model)[0] is not None or any(v.storage or v.rounding for v in model.weights):
        build_like(clone, model)
        copy_adapters(clone, model)
        copy_storage(clone, model)
    return clone


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model that `to_json` described, with new weights. Raises `FormatError` for text that describes none."""
    try:
        config = json.loads(json_string)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"this is no JSON: {error}") from error
    found = serialization.deserialize(config, custom_objects)
    if not isinstance(found, Model):
        raise FormatError("the JSON does not describe a model")
    return found


__all__ = ["Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]
