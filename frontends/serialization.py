"""Objects as JSON: `{"module", "class_name", "config", "registered_name"}`, the form Keras writes.

Only graphc's own classes and those a caller registered or passed can be made from it: a file names classes, it never
brings code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from graphc.frontends.symbolic import SymbolicTensor
from graphc.ir.dims import Dim
from graphc.ir.dtypes import DType
from graphc.ir.errors import FormatError, GraphcError

T = TypeVar("T")

_registered: dict[str, Any] = {}
_custom: list[Mapping[str, Any]] = []
_written: ContextVar[dict[int, tuple[int, Any]] | None] = ContextVar("written", default=None)
_made: ContextVar[dict[int, Any] | None] = ContextVar("made", default=None)
MODELS: dict[str, type] = {}
"""The classes of models by the name files give them. The room above puts its own in place of these."""
CLASSES: dict[str, type] = {}
"""Further classes that files may name, which rooms above define."""
MODULES: dict[str, Mapping[str, Any]] = {}
"""Classes and functions whose names tell them apart only together with a module, as those of losses and metrics do."""


def register_serializable(package: str = "Custom", name: str | None = None) -> Callable[[T], T]:
    """Decorator: let files name this class or function, as `package>name`."""

    def register(item: T) -> T:
        registered = f"{package}>{name or item.__name__}"  # type: ignore[attr-defined]
        if isinstance(item, type) and not hasattr(item, "get_config"):
            raise GraphcError(f"{item.__name__} needs a `get_config` to be registered")
        _registered[registered] = item
        return item

    return register


register_keras_serializable = register_serializable


def registered_name(item: Any) -> str | None:
    """The name under which the class or function is registered, if it is."""
    return next((name for name, found in _registered.items() if found is item), None)


def registered_object(name: str) -> Any:
    """The class or function registered or passed under this name, if any. `package>name` or the name alone."""
    for mapping in reversed(_custom):
        if name in mapping:
            return mapping[name]
    if name in _registered:
        return _registered[name]
    return next((item for key, item in _registered.items() if key.partition(">")[2] == name), None)


@contextmanager
def custom_object_scope(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let files name these classes and functions inside."""
    _custom.append(objects)
    try:
        yield
    finally:
        _custom.pop()


CustomObjectScope = custom_object_scope


def get_custom_objects() -> dict[str, Any]:
    """The registered classes and functions by name."""
    return _registered


@contextmanager
def shared_objects() -> Iterator[None]:
    """Let an object that is met twice inside be one again after reading: a layer that another layer holds, say."""
    if _written.get() is not None:
        yield
        return
    tokens = _written.set({}), _made.set({})
    try:
        yield
    finally:
        _written.reset(tokens[0])
        _made.reset(tokens[1])


def serialize(item: Any) -> Any:
    """`item` as JSON: numbers, text, lists and dicts as they are, objects by class and config."""
    return written_together(lambda: _serialize(item))


def written_together(write: Callable[[], Any]) -> Any:
    """What `write` makes; an object it meets twice or more has a `shared_object_id`."""
    if _written.get() is not None:
        return write()
    with shared_objects():
        config = write()
    met: Counter[int] = Counter()

    def each(value: Any, visit: Callable[[dict[str, Any]], None]) -> None:
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            each(inner, visit)
        if isinstance(value, dict) and "shared_object_id" in value:
            visit(value)

    each(config, lambda entry: met.update([entry["shared_object_id"]]))
    each(config, lambda entry: entry.pop("shared_object_id") if met[entry["shared_object_id"]] == 1 else None)
    return config


def _serialize(item: Any) -> Any:
    if item is None or isinstance(item, (bool, int, float, str)):
        return str(item) if isinstance(item, (DType, str)) else item
    if isinstance(item, (list, tuple)):
        return [_serialize(entry) for entry in item]
    if isinstance(item, dict):
        return {str(key): _serialize(value) for key, value in item.items()}
    if isinstance(item, np.generic):
        return item.item()
    if isinstance(item, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": item.tolist(), "dtype": item.dtype.name}}
    if isinstance(item, Dim):
        return str(item)
    if isinstance(item, SymbolicTensor):
        raise GraphcError(f"the symbolic tensor {item.name!r} is part of a model and cannot be saved by itself")
    if hasattr(item, "get_config"):
        return _entry(item)
    if callable(item) and getattr(item, "__name__", "<").isidentifier():
        return {
            "module": _module_among(item) or "builtins",
            "class_name": "function",
            "config": item.__name__,
            "registered_name": registered_name(item) or "function",
        }
    raise GraphcError(f"cannot save {item!r}: it has no `get_config`, nor is it a named function")


def _entry(item: Any) -> dict[str, Any]:
    written = _written.get()
    assert written is not None
    # The object is kept alive, so that no other gets its id.
    number, _ = written.setdefault(id(item), (len(written), item))
    cls = type(item)
    entry: dict[str, Any] = {
        "module": _public_module(cls),
        "class_name": _class_name(item),
        "config": _serialize(item.get_config()),
        "registered_name": registered_name(cls),
        "shared_object_id": number,
    }
    # A name nobody gave is numbered afresh in its scope, also after loading.
    automatic = getattr(item, "automatic_prefix", None)
    if automatic is not None:
        entry["automatic_name"] = automatic
    return entry


def _public_module(cls: type) -> str | None:
    return _module_among(cls) or ("graphc" if cls.__module__.startswith("graphc.") else None)


def _module_among(item: Any) -> str | None:
    """The one of `MODULES` that has the class or function."""
    return next((module for module, found in MODULES.items() if found.get(item.__name__) is item), None)


def _of_module(module: Any, name: Any) -> Any:
    return MODULES[module].get(str(name)) if isinstance(module, str) and module in MODULES else None


def _class_name(item: Any) -> str:
    for name, cls in MODELS.items():
        if type(item) is cls:
            return "Functional" if name == "Functional" else name
    return "Functional" if type(item).__name__ == "Model" else type(item).__name__


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The object that `serialize` described. Raises `FormatError` for classes that are not known."""
    with custom_object_scope(custom_objects or {}), shared_objects():
        return _deserialize(config)


def _deserialize(config: Any) -> Any:
    if isinstance(config, list):
        return [_deserialize(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    if "class_name" not in config or "config" not in config:
        return {key: _deserialize(value) for key, value in config.items()}
    name, inner = config["class_name"], config["config"]
    if name == "__numpy__":
        return np.asarray(inner["value"], inner["dtype"])
    if name == "function":
        found = (
            _of_module(config.get("module"), inner)
            or registered_object(str(config.get("registered_name")))
            or registered_object(str(inner))
            or _own_function(inner)
        )
        if found is None:
            raise FormatError(f"the function {inner!r} is not known; pass it in custom_objects, or register it")
        return found
    made, number = _made.get(), config.get("shared_object_id")
    if made is not None and isinstance(number, int) and number in made:
        return made[number]
    cls = _class(config)
    if not isinstance(inner, dict):
        raise FormatError(f"the config of {name} is not an object")
    try:
        item = cls.from_config(inner) if hasattr(cls, "from_config") else cls(**inner)
    except (TypeError, KeyError) as error:
        raise FormatError(f"{name} cannot be made from its config: {error}") from error
    if isinstance(config.get("automatic_name"), str) and hasattr(item, "automatic_prefix"):
        item.automatic_prefix = config["automatic_name"]
    if made is not None and isinstance(number, int):
        made[number] = item
    return item


def _class(config: dict[str, Any]) -> Any:
    name, registered = str(config["class_name"]), config.get("registered_name")
    found = registered_object(str(registered)) if registered else None
    found = found or _of_module(config.get("module"), name) or registered_object(name) or _own_class(name)
    if not isinstance(found, type):
        raise FormatError(
            f"the class {name!r} is not known; pass it in custom_objects, or register it with register_serializable"
        )
    return found


def _own_class(name: str) -> Any:
    from graphc.frontends import initializers, layers, regularizers
    from graphc.frontends.dtype_policy import DTypePolicy

    if name in MODELS or name in CLASSES:
        return MODELS.get(name) or CLASSES[name]
    if name == "DTypePolicy":
        return DTypePolicy
    for module in (layers, initializers, regularizers):
        found = getattr(module, name, None)
        if isinstance(found, type):
            return found
    return None


def _own_function(name: Any) -> Any:
    from graphc.frontends import activations

    return activations.by_name(name) if isinstance(name, str) else None


def deserialize_nested(value: Any) -> Any:
    """An entry of a config, with objects inside it made."""
    if isinstance(value, dict) and "class_name" in value and "config" in value:
        return deserialize(value)
    if isinstance(value, list) and any(isinstance(entry, dict) and "class_name" in entry for entry in value):
        return [deserialize_nested(entry) for entry in value]
    return value


serialize_keras_object, deserialize_keras_object = serialize, deserialize
