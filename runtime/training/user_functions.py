"""Losses and metrics that users write: whether they can be called, and what they raise, said with their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from graphc.frontends.symbolic import BATCH
from graphc.frontends.warning import warn
from graphc.ir.builder import Builder
from graphc.ir.dims import Guard
from graphc.ir.errors import GraphcError


def check_signature(what: str, fn: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise `GraphcError` for a function that cannot be called with targets, predictions and these options."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # one that does not say what it takes
        return
    try:
        signature.bind(None, None, **options)
    except TypeError as error:
        given = "".join(f", {name}" for name in options)
        raise GraphcError(f"{what} is called with (y_true, y_pred{given}); it takes {signature}: {error}") from None


@contextmanager
def explained(what: str) -> Iterator[None]:
    """While a step is recorded, let what a user's code raises be a `GraphcError` that names it.

    What holds for batches of one size only, as where targets are broadcast along another axis, is warned of.
    """
    builder = Builder.current()
    function = None if builder is None else builder.function
    known = set[Guard]() if function is None else set(function.guards)
    try:
        yield
    except GraphcError as error:
        raise error.at(what) from error.__cause__
    except Exception as error:
        if builder is None:
            raise
        raise GraphcError(
            f"{what} raised {type(error).__name__}: {error}. It is called once, while the step is recorded, and its "
            "tensors have no numbers yet: write it with `graphc.ops`"
        ) from error
    if function is not None:
        for guard in function.guards:
            if guard not in known and guard.kind == "==" and BATCH in (guard.left, guard.right):
                size = guard.left if guard.right is BATCH else guard.right
                warn(
                    f"{what} holds for batches of {size} examples only: something is broadcast along the axis of the "
                    "examples, such as targets (B,) beside predictions (B, 3)"
                )


def check_returned(what: str, found: Any, wanted: str) -> None:
    """Raise `GraphcError` for what is no tensor and no number."""
    if not hasattr(found, "shape") and (isinstance(found, bool) or not isinstance(found, (int, float))):
        shown = repr(found) if found is None or isinstance(found, str) else f"a {type(found).__name__}"
        raise GraphcError(f"{what} returns {shown}; it has to return {wanted}")
