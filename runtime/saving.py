"""`graphc.saving`: the DSL's, which gives back models that can be compiled and run."""

import graphc.runtime.model  # noqa: F401  registers the classes that files name
from graphc.frontends.saving import (
    CustomObjectScope,
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    load_model,
    load_weights,
    register_keras_serializable,
    register_serializable,
    save_model,
    save_weights,
    serialize_keras_object,
)

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "register_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
