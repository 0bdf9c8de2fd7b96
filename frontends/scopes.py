"""Who called a layer: the chain of Python functions and `name_scope` blocks around a call in a functional model.

Each invocation of a user's function that calls layers is a scope of its own, and so is each `with name_scope(…)`. An
invocation is recognised by its frame: the frames of the previous call are kept, and as long as they are, a frame that
is the same object belongs to the same invocation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Literal

from graphc.frontends.naming import snake_case
from graphc.ir.builder import Builder, in_graphc, short_path
from graphc.ir.errors import GraphcError


class Invocation:
    """One run of a user's function, or one `name_scope` block. Compared by identity."""

    __slots__ = ("kind", "name")

    def __init__(self, name: str, kind: Literal["function", "name_scope"]) -> None:
        self.name = name
        self.kind: Literal["function", "name_scope"] = kind

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


Chain = tuple[Invocation, ...]
"""Invocations from the outermost in."""

_last: list[tuple[FrameType, Invocation | None]] = []
_given_site: ContextVar[tuple[Chain, str, int] | None] = ContextVar("graphc_call_site", default=None)
_open_scopes: list[tuple[FrameType, Invocation]] = []


def user_frames() -> list[FrameType]:
    """The frames outside graphc, innermost first."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not in_graphc(frame.f_code.co_filename):
            frames.append(frame)
        frame = frame.f_back
    return frames


@contextmanager
def call_site(chain: Chain, file: str, line: int) -> Iterator[None]:
    """Let calls inside be ones made in this chain, at this line: for models that are read from files."""
    token = _given_site.set((chain, file, line))
    try:
        yield
    finally:
        _given_site.reset(token)


def current_chain() -> Chain:
    """The chain of the call that is being made."""
    given = _given_site.get()
    if given is not None:
        return given[0]
    frames = forget_finished()
    for frame in frames[len(_last) :]:
        name = _function_name(frame)
        _last.append((frame, None if name is None else Invocation(name, "function")))
    chain: list[Invocation] = []
    scopes = list(_open_scopes)
    for frame, invocation in _last:
        if invocation is not None:
            chain.append(invocation)
        chain += [scope for opened_in, scope in scopes if opened_in is frame]
    return tuple(chain)


def saved_chain(scope: tuple[str, ...], invocations: dict[tuple[str, ...], Invocation]) -> Chain:
    """The chain of a call whose scope was read from a file; `invocations` are those of the model's other calls."""
    prefixes = [scope[:end] for end in range(1, len(scope) + 1)]
    return tuple(invocations.setdefault(prefix, Invocation(prefix[-1], "name_scope")) for prefix in prefixes)


def forget_finished() -> list[FrameType]:
    """Let go of frames of the previous call that are not in the present stack, which is returned, outermost first."""
    frames = user_frames()
    frames.reverse()
    kept = 0
    while kept < len(frames) and kept < len(_last) and frames[kept] is _last[kept][0]:
        kept += 1
    del _last[kept:]
    return frames


def forget_frames() -> None:
    """Let go of all frames of the previous call."""
    _last.clear()


def _function_name(frame: FrameType) -> str | None:
    """The name that the frame's function gives a scope; none for modules, lambdas and comprehensions."""
    code = frame.f_code
    if code.co_name.startswith("<"):
        return None
    if code.co_name in ("__call__", "__init__", "forward", "call", "build"):
        *_, owner, _ = ["", *code.co_qualname.split(".")]
        return snake_case(owner) or code.co_name.strip("_")
    return code.co_name.strip("_") or None


def user_line() -> tuple[str, int]:
    """File and line of the nearest caller outside graphc."""
    given = _given_site.get()
    if given is not None:
        return given[1:]
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and in_graphc(frame.f_code.co_filename):
        frame = frame.f_back
    return ("", 0) if frame is None else (short_path(frame.f_code.co_filename), frame.f_lineno)


@contextmanager
def name_scope(name: str) -> Iterator[None]:
    """Layers and ops called inside are in the scope `name`, a module of the emitted code.

    Two blocks of the same name beside each other are two scopes, `name` and `name_1`.
    """
    if not name or "/" in name or "#" in name:
        raise GraphcError(f"a scope's name is a word without '/' and '#', not {name!r}")
    builder = Builder.current()
    if builder is not None:
        from graphc.frontends.recording import numbered_scope

        with builder.scope(numbered_scope(builder, name)):
            yield
        return
    frames = [frame for frame in user_frames() if frame.f_code.co_filename != _CONTEXTLIB]
    entry = (frames[0], Invocation(name, "name_scope"))
    _open_scopes.append(entry)
    try:
        yield
    finally:
        _open_scopes.remove(entry)


_CONTEXTLIB = contextmanager.__code__.co_filename
