"""What is given as x, as the model takes it; and what is wrong with it, told before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.frontends.structures import flatten, pack
from graphc.frontends.symbolic import keras_shape
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.suggestions import nearest, number_of
from graphc.runtime.lora.adapters import state_of

Array = np.ndarray[Any, Any]


def fitted_inputs(model: Any, x: Any) -> Any:
    """`x`, a structure of arrays, in the structure of the model's inputs, where the model knows them.

    A dict goes by the names of the inputs, and may have more in it, as in Keras; all else goes by order. A last axis of
    size 1 is added or left out where that makes an array fit. Raises `GraphcError` for inputs that are missing or too
    many, `ShapeError` for an array of another shape than its input's.
    """
    if not model.is_functional:
        return _known(model, x) if isinstance(x, Mapping) and isinstance(model._input_types, Mapping) else x
    declared, tensors = model.input, model.inputs
    if isinstance(x, Mapping):
        flat = _by_name(model, x)
    else:
        flat = flatten(x)
        if len(flat) != len(tensors):
            pair = isinstance(x, tuple) and len(flat) == 2 and len(tensors) == 1
            raise GraphcError(
                f"model {model.name!r} takes {number_of(len(tensors), 'input')} ({', '.join(model.input_names)}), "
                f"{number_of(len(flat), 'was', 'were')} given"
                + ("; the targets are an argument of their own, y" if pair else "")
            )
    return pack(declared, [_fitted(model, tensor, leaf) for tensor, leaf in zip(tensors, flat, strict=True)])


def _by_name(model: Any, x: Mapping[str, Any]) -> list[Any]:
    declared = model.input
    named = isinstance(declared, Mapping)
    names = list(declared) if named else model.input_names
    _check_names(model, x, names)
    return flatten({name: x[name] for name in names}) if named else [x[name] for name in names]


def _known(model: Any, x: Mapping[str, Any]) -> dict[str, Any]:
    """What a subclassed model was called on before, of a dict that may have more in it."""
    _check_names(model, x, list(model._input_types))
    return {name: x[name] for name in model._input_types}


def _check_names(model: Any, x: Mapping[str, Any], names: list[str]) -> None:
    missing = [name for name in names if name not in x]
    if missing:
        raise GraphcError(
            f"the data has nothing for the input {missing[0]!r} of model {model.name!r}: it is given by name, and has "
            f"{', '.join(map(repr, x))}{nearest(missing[0], x) if len(x) > 1 else ''}"
        )


def _fitted(model: Any, tensor: Any, leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray) or leaf.ndim == 0:  # single numbers are refused with y and sample weights
        return leaf
    wanted: tuple[Any, ...] = tensor.tensor_type.shape
    found: Array = leaf
    if leaf.ndim == len(wanted) - 1 and wanted[-1] == 1:
        found = leaf[..., None]
    elif leaf.ndim == len(wanted) + 1 and leaf.shape[-1] == 1:
        found = leaf[..., 0]
    fits = found.ndim == len(wanted) and all(
        not isinstance(want, int) or want == have for want, have in zip(wanted[1:], found.shape[1:], strict=True)
    )
    if not fits:
        example = leaf.ndim == len(wanted) - 1 and all(
            not isinstance(want, int) or want == have for want, have in zip(wanted[1:], leaf.shape, strict=True)
        )
        raise ShapeError(
            f"the input {tensor.node.name!r} of model {model.name!r} takes arrays of the shape {keras_shape(wanted)}; "
            f"x has the shape {leaf.shape}"
            + ("; a single example is given as x[None], a batch of one" if example else "")
        )
    return found


def nothing_to_train(model: Any) -> GraphcError:
    """The error for a step that has no weights to train: why there are none, and what to do."""
    if not model.weights:
        return GraphcError(f"model {model.name!r} has no weights, so there is nothing to train")
    adapters = state_of(model)
    if adapters.merged is not None:
        return GraphcError(
            f"all weights of model {model.name!r} are frozen, for its adapter {adapters.merged.name!r} is merged into "
            "them: call unmerge_adapter() to train it on"
        )
    if adapters.adapters and adapters.active is None:
        return GraphcError(
            f"all weights of model {model.name!r} are frozen, for it has adapters and none is active: call set_adapter "
            f"with one of {', '.join(adapters.adapters)}, and compile again"
        )
    if not model.trainable:
        return GraphcError(
            f"all weights of model {model.name!r} are frozen, for its `trainable` is False: there is nothing to train. "
            "Set model.trainable = True, and that of layers to stay frozen to False again"
        )
    frozen = [layer.name for layer in model.layers if layer.weights and not layer.trainable]
    which = f", for `trainable` is False of {', '.join(frozen)}" if frozen else ""
    return GraphcError(
        f"all weights of model {model.name!r} are frozen{which}: there is nothing to train. Set `trainable = True` of "
        "the layers to train"
    )


__all__ = ["fitted_inputs", "nothing_to_train"]
