"""How a model is compiled, as JSON, and what its optimizer keeps: what a saved model needs for `fit` to go on."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from graphc.frontends import serialization
from graphc.frontends.layer_paths import layer_paths
from graphc.frontends.naming import Names
from graphc.frontends.variable import Variable
from graphc.frontends.warning import warn
from graphc.ir.errors import FormatError, GraphcError
from graphc.runtime.training.optimizers.optimizer import COUNT

Array = np.ndarray[Any, Any]
ADVICE = (
    "give a named function in place of a lambda, or a class with `get_config`, and register it by "
    "graphc.saving.register_keras_serializable"
)


def serialized(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `compile` as JSON. Raises `GraphcError` that names what cannot be written."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        try:
            found[name] = serialization.serialize(value)
        except GraphcError as error:
            raise GraphcError(f"compile({name}=…): {error.message}") from error
    return found


def training_state(model: Any) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    """What `save` keeps of a compiled model beside its weights: a config, and the optimizer's arrays by name.

    None for a model that is not compiled, and, with a warning, for one compiled with what cannot be written.
    """
    if not model.compiled:
        return None, {}
    try:
        config: dict[str, Any] = {"config": serialization.serialize(model.get_compile_config())}
        kept, arrays = _optimizer_state(model)
    except GraphcError as error:
        warn(f"the model {model.name!r} is saved without how it is compiled: {error.message}; {ADVICE}")
        return None, {}
    return config | {"optimizer": kept}, arrays


def _optimizer_state(model: Any) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    optimizer = model.optimizer
    if optimizer is None:
        return None, {}
    names = layer_paths(model).names
    strange = [v.path for v in optimizer._trainable_variables if id(v) not in names]
    if strange:
        raise GraphcError(f"the optimizer trains {strange[0]!r}, which is no weight of the model")
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    kept = {
        "trained": [names[id(variable)] for variable in optimizer._trainable_variables] if optimizer.built else None,
        "no_weight_decay": sorted(name for key, name in names.items() if key in inner._excluded),
        "no_weight_decay_names": list(inner._excluded_names),
    }
    return kept, {name: variable.numpy() for name, variable in _named(optimizer, names).items()}


def restore_training(model: Any, config: Any, arrays: Mapping[str, Array]) -> None:
    """Compile the model as `training_state` said, and set what its optimizer keeps.

    Raises `FormatError` for a config that does not say it, or arrays that are not those of the optimizer.
    """
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise FormatError("it does not say how the model is compiled")
    model.compile_from_config(config["config"])
    kept, optimizer = config.get("optimizer"), model.optimizer
    if optimizer is None or kept is None:
        return
    names = layer_paths(model).names
    by_name = {names[id(variable)]: variable for variable in model.weights}
    try:
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        excluded, excluded_names = [by_name[name] for name in kept["no_weight_decay"]], kept["no_weight_decay_names"]
        if excluded or excluded_names:
            inner.exclude_from_weight_decay(excluded, excluded_names)
        if kept["trained"] is not None:
            optimizer.build([by_name[name] for name in kept["trained"]])
            inner.make_accumulators(sum(name.rpartition("/")[2].startswith(COUNT) for name in arrays))
    except (KeyError, TypeError) as error:
        raise FormatError(f"the optimizer is for weights that the model does not have: {error}") from error
    variables = _named(optimizer, names)
    wrong = [name for name in {*variables, *arrays} if not _fits(variables.get(name), arrays.get(name))]
    if wrong:
        raise FormatError(f"what the optimizer keeps does not fit it: {', '.join(sorted(wrong))}")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def copy_training(model: Any, copied: Any, memo: dict[int, Any]) -> None:
    """Compile the copy of a model as the model is, and let its optimizer keep what the model's keeps. `memo` is that of
    `copy.deepcopy`, which has copied the weights."""
    from graphc.runtime.training.trainer import Trainer

    old, given = model.optimizer, model._compiled.given | model._compiled.settings | {"optimizer": None}
    new = deepcopy(old, memo)
    Trainer.compile(copied, **deepcopy(given, memo) | {"optimizer": new})
    if old is None:
        return
    inside = getattr(old, "inner_optimizer", old), getattr(new, "inner_optimizer", new)
    inside[1]._excluded = {id(memo[key]) for key in inside[0]._excluded if key in memo}
    if old.built:
        new.build([deepcopy(variable, memo) for variable in old._trainable_variables])
        inside[1].make_accumulators(len(inside[0]._gradient_accumulators))
    for to, variable in zip(new.variables, old.variables, strict=True):
        to.assign(variable.numpy())


def _fits(variable: Variable | None, array: Array | None) -> bool:
    return (
        variable is not None
        and array is not None
        and (tuple(variable.shape), variable.dtype.numpy) == (array.shape, array.dtype)
    )


def _named(optimizer: Any, names: Mapping[int, str]) -> dict[str, Variable]:
    """What the optimizer keeps, by names like those in the weight table of training."""
    taken = Names()
    found: dict[str, Variable] = {}
    for variable in optimizer.variables:
        weight = "" if variable.slot_of is None else names.get(id(variable.slot_of), variable.slot_of.path)
        found[taken.new(variable.path_beside(weight))] = variable
    return found


__all__ = ["copy_training", "restore_training", "serialized", "training_state"]
