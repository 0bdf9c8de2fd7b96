"""Checks of what optimizers are given. Each returns the value, and raises a `GraphcError` that names it otherwise."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest

RENAMED = {
    "lr": "learning_rate", "alpha": "learning_rate", "decay": "weight_decay", "eps": "epsilon", "beta1": "beta_1",
    "beta2": "beta_2", "ema": "use_ema", "clip_norm": "clipnorm", "clip_value": "clipvalue", "max_norm": "clipnorm",
}  # fmt: skip
"""What other libraries and earlier versions of Keras call an argument."""


def is_number(value: Any) -> bool:
    """Whether the value is one real number: no bool, no text, no array with axes."""
    if isinstance(value, (str, bytes, bool, np.bool_)) or value is None:
        return False
    if isinstance(value, (int, float, np.number)):
        return not isinstance(value, np.complexfloating)
    return hasattr(value, "__array__") and np.shape(value) == () and np.asarray(value).dtype.kind in "iuf"


def number(owner: Any, name: str, value: Any) -> float:
    """A finite number."""
    if not is_number(value) or not math.isfinite(float(value)):
        raise wrong(owner, name, "a finite number", value)
    return float(value)


def positive(owner: Any, name: str, value: Any) -> float:
    """A finite number above 0."""
    if not is_number(value) or not 0 < float(value) < math.inf:
        raise wrong(owner, name, "a number above 0", value)
    return float(value)


def not_negative(owner: Any, name: str, value: Any) -> float:
    """A finite number of 0 or more."""
    if not is_number(value) or not 0 <= float(value) < math.inf:
        raise wrong(owner, name, "a number of 0 or more", value)
    return float(value)


def share(owner: Any, name: str, value: Any) -> float:
    """A number from 0 to 1, both included."""
    if not is_number(value) or not 0 <= float(value) <= 1:
        raise wrong(owner, name, "a number from 0 to 1", value)
    return float(value)


def decay_rate(owner: Any, name: str, value: Any) -> float:
    """A number from 0 to below 1: at 1 an average would never change."""
    if not is_number(value) or not 0 <= float(value) < 1:
        raise wrong(owner, name, "a number of at least 0 and below 1", value)
    return float(value)


def count(owner: Any, name: str, value: Any, least: int = 1) -> int:
    """An integer that is large enough."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise wrong(owner, name, f"an integer of {least} or more", value)
    return int(value)


def flag(owner: Any, name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)) and not (is_number(value) and value in (0, 1)):
        raise wrong(owner, name, "True or False", value)
    return bool(value)


def wrong(owner: Any, name: str, wanted: str, value: Any) -> GraphcError:
    """The error for an argument that is not what is wanted."""
    return GraphcError(f"{name} of {_title(owner)} is {wanted}, not {value!r}")


def unknown(owner: Any, names: Iterable[str]) -> GraphcError:
    """The error for arguments that there are not, with what was meant."""
    wrong_names = list(names)
    known = arguments(type(owner))
    meant = RENAMED.get(wrong_names[0])
    hint = f"; did you mean {meant}?" if meant in known else nearest(wrong_names[0], known)
    return GraphcError(f"{_title(owner)} has no argument {', '.join(map(repr, wrong_names))}{hint}")


def arguments(cls: type) -> list[str]:
    """The names of all arguments that the class and those above it take."""
    found: list[str] = []
    for each in cls.__mro__:
        if "__init__" in vars(each) and each is not object:
            parameters = list(inspect.signature(each.__init__).parameters.values())[1:]
            found += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return list(dict.fromkeys(found))


def _title(owner: Any) -> str:
    return owner if isinstance(owner, str) else type(owner).__name__


__all__ = [
    "arguments", "count", "decay_rate", "flag", "is_number", "not_negative", "number", "positive", "share", "unknown",
    "wrong",
]  # fmt: skip
