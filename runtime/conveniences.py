"""`graphc.utils`, what Keras keeps there: seeds, registered classes, rows of ones and noughts, sources of batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontends.serialization import (
    CustomObjectScope,
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    register_keras_serializable,
    serialize_keras_object,
)
from graphc.frontends.session import clear_session, set_random_seed
from graphc.runtime.training.data import PyDataset, Sequence
from graphc.runtime.training.data import packed as pack_x_y_sample_weight
from graphc.runtime.training.data import unpacked as unpack_x_y_sample_weight


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray[Any, Any]:
    """Class numbers as rows with a 1 at the class."""
    labels = np.asarray(x, dtype=np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    return np.eye(num_classes or int(labels.max()) + 1)[labels]


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
