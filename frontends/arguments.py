"""Arguments that a function or a class does not have: which is meant is said."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest

P = ParamSpec("P")
R = TypeVar("R")
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

ALIKE = {"rank": ("r",), "lora_rank": ("r",), "r": ("rank",), "lora_alpha": ("alpha",), "target_modules": ("targets",)}
"""Other frameworks' names for what ours have under names that are not near."""


def no_argument(owner: str, unknown: Iterable[str], known: Iterable[str]) -> GraphcError:
    """The error for arguments that `owner` does not have; `known` are those it has."""
    names = list(unknown)
    alike = ALIKE.get(names[0], ())
    meant = [each for each in known if each in alike]
    hint = f"; did you mean {' or '.join(meant)}?" if meant else nearest(names[0], known)
    return GraphcError(f"{owner} has no argument {', '.join(map(repr, names))}{hint}")


def suggests_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: an argument by a name that the function does not have is a `GraphcError` with the nearest one."""
    known = tuple(name for name in _named(function) if name != "self")
    owner = f"{function.__name__}()"

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise no_argument(owner, [each for each in kwargs if each not in known], known)
        return function(*args, **kwargs)

    return checked


@cache
def constructor_arguments(cls: type) -> tuple[str, ...]:
    """The names that may be given to a class: those of its `__init__`, and of those this passes others on to."""
    found: dict[str, None] = {}
    for each in cls.__mro__:
        initializer = each.__dict__.get("__init__")
        if initializer is not None and initializer is not object.__init__:
            found.update(dict.fromkeys(_named(initializer)))
            if not takes_any(initializer):
                break
    found.pop("self", None)
    return tuple(found)


def takes_any(function: Callable[..., Any]) -> bool:
    """Whether a function takes arguments of any name."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _named(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(name for name, p in inspect.signature(function).parameters.items() if p.kind in NAMED)
