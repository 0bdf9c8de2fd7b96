"""`graphc.utils`: the DSL's, and what reads data."""

from graphc.frontends.utils import (
    CustomObjectScope,
    clear_session,
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    register_keras_serializable,
    serialize_keras_object,
    set_random_seed,
    to_categorical,
)
from graphc.runtime.training.data import PyDataset, Sequence
from graphc.runtime.training.data import packed as pack_x_y_sample_weight
from graphc.runtime.training.data import unpacked as unpack_x_y_sample_weight

__all__ = [
    "CustomObjectScope",
    "PyDataset",
    "Sequence",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "pack_x_y_sample_weight",
    "register_keras_serializable",
    "serialize_keras_object",
    "set_random_seed",
    "to_categorical",
    "unpack_x_y_sample_weight",
]
