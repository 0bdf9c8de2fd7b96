"""Optimizers under Keras's names. Start at `optimizer.py`; each of the others is the update of one variable."""

from __future__ import annotations

from typing import Any

from graphc.frontends import serialization
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest
from graphc.runtime.training import schedules
from graphc.runtime.training.optimizers.adafactor import Adafactor
from graphc.runtime.training.optimizers.adam import Adam, Adamax, AdamW, Nadam
from graphc.runtime.training.optimizers.adaptive import Adadelta, Adagrad, RMSprop
from graphc.runtime.training.optimizers.branches import scope, when
from graphc.runtime.training.optimizers.ftrl import Ftrl
from graphc.runtime.training.optimizers.lamb import Lamb
from graphc.runtime.training.optimizers.lion import Lion
from graphc.runtime.training.optimizers.loss_scale import LossScaleOptimizer
from graphc.runtime.training.optimizers.muon import Muon
from graphc.runtime.training.optimizers.optimizer import Optimizer
from graphc.runtime.training.optimizers.sgd import SGD

CLASSES: dict[str, Any] = {
    cls.__name__.lower(): cls
    for cls in (
        SGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Ftrl, Lamb, Lion, LossScaleOptimizer, Muon, Nadam,
        RMSprop,
    )
}  # fmt: skip


def get(identifier: Any) -> Optimizer:
    """The optimizer of a name, config, class or object. Raises `GraphcError` for an unknown name."""
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        make: Any = identifier
        return make()
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if not isinstance(identifier, str):
        raise GraphcError(f"an optimizer is a name, a config, a class or an object, not {identifier!r}")
    found = CLASSES.get(identifier.lower().replace("_", "")) or serialization.registered_object(identifier)
    if found is None:
        known = [cls.__name__ for cls in CLASSES.values()]
        raise GraphcError(f"no optimizer is called {identifier!r}{nearest(identifier, known)}")
    return found()


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's class and config, which `deserialize` takes."""
    return serialization.serialize(optimizer)


def deserialize(config: dict[str, Any], custom_objects: Any = None) -> Optimizer:
    """The optimizer of a class and config."""
    with serialization.custom_object_scope(custom_objects or {}):
        found = CLASSES.get(str(config.get("class_name", "")).lower())
        return found.from_config(config.get("config", {})) if found else serialization.deserialize(config)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "LossScaleOptimizer",
    "Muon", "Nadam", "Optimizer", "RMSprop", "deserialize", "get", "schedules", "serialize", "when",
]  # fmt: skip
