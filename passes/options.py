"""Pipelines as text: `canonicalize,remat{budget=512MiB}` into names with typed options.

A pass states its options as keyword parameters; their annotations say how text becomes a value: `int`, `float`,
`bool` (`true`, `false`; the name alone is true), `str`, `Literal[...]`, `ByteSize` (`512MiB`, `2GB`, `4096`), `Sizes`
(`{B:8, T:128}`), each also `| None` (`none`). A text may end in braces of its own (`format=int4{block=32}`), and stands
in quotes where it has commas elsewhere.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NewType, Union, get_args, get_origin

from graphc.ir.errors import GraphcError

ByteSize = NewType("ByteSize", int)
"""Annotation of an option that is a number of bytes: `512MiB` in text."""

Sizes = NewType("Sizes", dict[str, int])
"""Annotation of an option that gives symbols sizes: `{B:8, T:128}` in text."""

UNITS = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 10 ** (3 * n) for n, prefix in enumerate("kMGT", 1)},
    **{f"{prefix}iB": 2 ** (10 * n) for n, prefix in enumerate("KMGT", 1)},
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a pass: its name, the kind of value it takes, and its default."""

    name: str
    kind: Any
    default: Any

    @property
    def takes(self) -> str:
        """What may be written for it, in words."""
        return _describe(self.kind)

    def read(self, text: str) -> Any:
        """The value that `text` stands for. Raises ValueError."""
        return _read(self.kind, text)

    def __str__(self) -> str:
        return f"{self.name}={_shown(self.default)} ({self.takes})"


def _shown(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join("none" if part is type(None) else _describe(part) for part in get_args(kind))
    if kind is Sizes:
        return "sizes such as {B:8, T:128}"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    return "a size such as 512MiB" if kind is ByteSize else words[kind]


def check_kind(kind: Any) -> None:
    """Raise TypeError for an annotation that is no kind of option."""
    try:
        _describe(kind)
    except KeyError:
        raise TypeError(f"an option cannot be annotated {kind!r}") from None


def _read(kind: Any, text: str) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(text)
        return text
    if get_origin(kind) in (Union, types.UnionType):
        if text == "none" and type(None) in get_args(kind):
            return None
        return _read(next(part for part in get_args(kind) if part is not type(None)), text)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if kind is ByteSize:
        return read_size(text)
    if kind is Sizes:
        return read_sizes(text)
    return kind(text)


def read_sizes(text: str) -> Sizes:
    """Sizes by the names of symbols: `{B:8, T:128}`. Raises ValueError."""
    found = re.fullmatch(r"\{([^{}]*)\}", text)
    if found is None:
        raise ValueError(text)
    sizes: dict[str, int] = {}
    for part in filter(None, map(str.strip, found[1].split(","))):
        name, colon, size = part.partition(":")
        if not colon or name.strip() in sizes:
            raise ValueError(text)
        sizes[name.strip()] = int(size)
    return Sizes(sizes)


def read_size(text: str) -> ByteSize:
    """A number of bytes: `4096`, `1.5GiB`, `512 MB`. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if found is None or found[2] not in UNITS:
        raise ValueError(text)
    return ByteSize(int(float(found[1]) * UNITS[found[2]]))


def size_text(count: int) -> str:
    """A number of bytes for people: `1536` is `1.5 KiB`."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    size, unit = float(count), 0
    while size >= 1024 and unit + 1 < len(units):
        size, unit = size / 1024, unit + 1
    return f"{size:.4g} {units[unit]}"


# --- pipelines ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of a pipeline, with its options still as text."""

    name: str
    options: Mapping[str, str]


_NAME = re.compile(r"\s*([A-Za-z_][\w-]*)\s*")
_OPTION = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*("[^"]*"|[^,{}"]*(?:\{[^{}"]*\})?)')
_FLAG = re.compile(r"\s*([A-Za-z_]\w*)\s*(?=[,}])")
"""An option alone, which is `true`."""


def parse_pipeline(text: str) -> list[Step]:
    """The steps of a pipeline. Raises `GraphcError` that shows where the text stops making sense."""
    steps: list[Step] = []
    at = 0
    if not text.strip():
        return steps
    while True:
        name = _NAME.match(text, at)
        if name is None:
            raise _broken(text, at, "the name of a pass")
        at = name.end()
        options: dict[str, str] = {}
        if text[at : at + 1] == "{":
            at = _parse_options(text, at + 1, options)
        steps.append(Step(name[1], options))
        if at == len(text):
            return steps
        if text[at] != ",":
            raise _broken(text, at, "`,` or `{` or the end")
        at += 1


def _parse_options(text: str, at: int, options: dict[str, str]) -> int:
    while True:
        option = _OPTION.match(text, at) or _FLAG.match(text, at)
        if option is None:
            raise _broken(text, at, "an option as `name=value`")
        if option[1] in options:
            raise GraphcError(f"the option {option[1]!r} is given twice in the pipeline {text!r}")
        options[option[1]] = "true" if option.re is _FLAG else option[2].strip().strip('"')
        at = option.end()
        at += len(text[at:]) - len(text[at:].lstrip())
        if text[at : at + 1] == "}":
            rest = re.compile(r"\s*").match(text, at + 1)
            return at + 1 if rest is None else rest.end()
        if text[at : at + 1] != ",":
            raise _broken(text, at, "`,` or `}`")
        at += 1


def _broken(text: str, at: int, wanted: str) -> GraphcError:
    found = f"{text[at:]!r}" if at < len(text) else "the end"
    return GraphcError(f"the pipeline {text!r} needs {wanted} at column {at + 1}, where {found} stands")


def read_options(name: str, given: Mapping[str, str], options: Sequence[Option]) -> dict[str, Any]:
    """Typed values for what is given. Raises `GraphcError` that says which options the pass takes."""
    by_name = {option.name: option for option in options}
    values: dict[str, Any] = {}
    for key, text in given.items():
        option = by_name.get(key)
        if option is None:
            known = "; it takes " + ", ".join(map(str, options)) if options else "; it takes none"
            raise GraphcError(f"the pass {name!r} has no option {key!r}{known}")
        try:
            values[key] = option.read(text)
        except ValueError:
            raise GraphcError(f"{name}{{{key}={text}}}: {key} is {option.takes}") from None
    return values
