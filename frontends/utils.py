"""`graphc.utils`: what Keras keeps there."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from graphc.frontends import initializers
from graphc.frontends.naming import reset_names
from graphc.frontends.scopes import forget_frames
from graphc.frontends.serialization import (
    CustomObjectScope,
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    register_keras_serializable,
    serialize_keras_object,
)


def set_random_seed(seed: int) -> None:
    """Seed Python's and NumPy's generators and graphc's initializers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    initializers.set_global_seed(seed)


def clear_session(free_memory: bool = True) -> None:
    """Count automatic names and seeds from the start again."""
    reset_names()
    initializers.set_global_seed(0)
    forget_frames()


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray[Any, Any]:
    """Class numbers as rows with a 1 at the class."""
    labels = np.asarray(x, dtype=np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    return np.eye(num_classes or int(labels.max()) + 1)[labels]


__all__ = [
    "CustomObjectScope",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "register_keras_serializable",
    "serialize_keras_object",
    "set_random_seed",
    "to_categorical",
]
