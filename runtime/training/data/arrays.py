"""What is given as data, as structures of arrays: checked, measured, split and cut into batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.frontends.structures import flatten, map_structure, pack, paths
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.suggestions import number_of

Array = np.ndarray[Any, Any]
Batch = tuple[Any, Any, Any]
"""`(x, y, sample_weight)`: structures of arrays, or None."""


def as_arrays(structure: Any, what: str) -> Any:
    """`structure` with its leaves as arrays; None stays None.

    Raises `DTypeError` for arrays of Python objects or text, and `GraphcError` for numbers that stand in lists, which
    mean several inputs.
    """
    if structure is None:
        return None
    names = [f"{what}[{path!r}]" if path else what for path in paths(structure)]
    found = [_as_array(leaf, name, what) for leaf, name in zip(flatten(structure), names, strict=True)]
    return pack(structure, found)


def _as_array(leaf: Any, name: str, what: str) -> Any:
    if leaf is None or isinstance(leaf, np.memmap):
        return leaf
    if isinstance(leaf, (bool, int, float, complex, str, bytes)) and name != what:
        raise GraphcError(
            f"{what} has {leaf!r} in a list, and lists stand for several arrays; give numbers as np.asarray({what})"
        )
    given: Any = leaf
    if hasattr(given, "detach") and hasattr(given, "cpu"):  # a tensor of torch's
        given = given.detach().cpu()
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise GraphcError(f"{name} cannot be read as an array: {error}") from error
    if array.dtype == object:
        kind = type(array.flat[0]).__name__ if array.size else "nothing"
        raise DTypeError(
            f"{name} is an array of Python objects (the first is {kind}); rows of unequal length are to be padded, and "
            f"columns of unlike kinds to be given as arrays of numbers"
        )
    try:
        dtype_of(array.dtype)
    except DTypeError:
        raise DTypeError(f"{name} has the dtype {array.dtype}, which is no number") from None
    return array


def named_leaves(x: Any, y: Any, sample_weight: Any) -> dict[str, Array]:
    """The arrays there are, by what to call them in messages."""
    found: dict[str, Array] = {}
    for what, structure in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        if structure is not None:
            alone = isinstance(structure, (list, tuple)) and len(structure) == 1
            for path, leaf in zip(paths(structure), flatten(structure), strict=True):
                if leaf is not None:
                    index = path if path.isdigit() else repr(path)
                    found[what if not path or (alone and path == "0") else f"{what}[{index}]"] = leaf
    return found


def length(x: Any, y: Any = None, sample_weight: Any = None) -> int:
    """How many examples the arrays hold. Raises `ShapeError` when they differ in it, have no axis of examples, or are
    empty."""
    arrays = named_leaves(x, y, sample_weight)
    scalars = [name for name, array in arrays.items() if array.ndim == 0]
    if scalars:
        raise ShapeError(f"{scalars[0]} is a single number; data has an axis of examples in front")
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ShapeError("data differs in length: " + ", ".join(f"{name} has {n}" for name, n in lengths.items()))
    if not lengths:
        raise GraphcError("there is no data: x is None")
    count = next(iter(lengths.values()))
    if count == 0:
        raise ShapeError("there are no examples: " + ", ".join(f"{name} is {a.shape}" for name, a in arrays.items()))
    return count


def take(structure: Any, index: slice | Array) -> Any:
    """The examples at `index` of all arrays."""
    if structure is None:
        return None
    if isinstance(index, slice):
        return map_structure(lambda a: None if a is None else a[index], structure)
    # `take` is several times faster than indexing with an array where examples are small.
    return map_structure(lambda a: None if a is None else a.take(index, axis=0), structure)


def split_off(arrays: Batch, share: float) -> tuple[Batch, Batch]:
    """The first examples, and the last ones, which are this share of all, as Keras's `validation_split`."""
    if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0 < share < 1:
        raise GraphcError(f"validation_split is a share between 0 and 1, not {share!r}")
    if not (isinstance(arrays[0], (list, tuple, dict)) or hasattr(arrays[0], "__array__")):
        kind = type(arrays[0]).__name__
        raise GraphcError(f"validation_split splits arrays; with a {kind} give validation_data instead")
    x, y, sample_weight = (as_arrays(a, n) for a, n in zip(arrays, ("x", "y", "sample_weight"), strict=True))
    count = length(x, y, sample_weight)
    at = math.floor(count * (1 - share))
    if at in (0, count):
        raise GraphcError(
            f"validation_split={share} of {number_of(count, 'example')} leaves {at} to train on and {count - at} to "
            "validate with"
        )
    first, last = slice(0, at), slice(at, count)
    return (
        (take(x, first), take(y, first), take(sample_weight, first)),
        (take(x, last), take(y, last), take(sample_weight, last)),
    )


def class_weights(y: Any, weights: Mapping[int, float]) -> Array:
    """The weight of each example by its class, f32[examples]: `y` has classes or one-hot rows; a class that is not
    named weighs 1."""
    if isinstance(y, (dict, list, tuple)):
        raise GraphcError("class_weight is for models of one output; give sample_weight for each output instead")
    if y is None:
        raise GraphcError("class_weight needs the classes, y")
    if not isinstance(weights, Mapping):
        raise GraphcError(f"class_weight is a dict from class to weight, not {weights!r}")
    for label, weight in weights.items():
        if not isinstance(label, (int, np.integer)) or not isinstance(weight, (int, float, np.number)):
            raise GraphcError(f"class_weight is a dict from class to weight, both numbers, not {label!r}: {weight!r}")
    labels = np.asarray(y)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    elif labels.ndim > 1 and not (labels > 1).any():
        labels = labels.argmax(-1)
    if labels.ndim != 1:
        raise ShapeError(f"class_weight needs one class or one-hot row for each example; y has the shape {np.shape(y)}")
    classes, inverse = np.unique(np.round(labels).astype(np.int64), return_inverse=True)
    found = np.array([float(weights.get(int(each), 1.0)) for each in classes], np.float32)
    return found[inverse]


def check_finite(batch: Batch, where: str) -> None:
    """Raise `GraphcError` that names the array, the example and how many values are NaN or infinite."""
    for name, array in named_leaves(*batch).items():
        if not dtype_of(array.dtype).is_float:
            continue
        wrong = ~np.isfinite(array)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise GraphcError(
                f"{name} has {number_of(int(wrong.sum()), 'value that is', 'values that are')} NaN or infinite "
                f"{where}, the first ({array[at]}) at {list(at)} of the batch"
            )
