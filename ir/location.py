"""Where an op comes from: source line, scope path, and the ops it was made from. All interned."""

from __future__ import annotations

import re

from graphc.ir.attributes import quoted
from graphc.ir.errors import GraphcError

_PART = re.compile(r"([^/]+?)(?:#([1-9][0-9]{0,8}))?")
_PLAIN_FILE = re.compile(r'[^\s"]+')


class Scope:
    """A path such as `encoder/block_3/attention#1`: named parts, each with the index of the call it stands for.

    The same name under two call indices is one layer called twice; different names are different layers. A name has no
    `/`, and no `#` with a number at its end: `GraphcError`.
    """

    __slots__ = ("call", "depth", "name", "parent", "path")

    parent: Scope | None
    name: str
    call: int
    depth: int
    path: str

    _interned: dict[tuple[Scope | None, str, int], Scope] = {}

    @staticmethod
    def of(parent: Scope | None, name: str, call: int = 0) -> Scope:
        key = (parent, name, call)
        found = Scope._interned.get(key)
        if found is None:
            match = _PART.fullmatch(name)
            if parent is not None and (match is None or match[2] is not None):
                raise GraphcError(f"{name!r} is no name of a scope: it is empty, has a `/` or ends in a call index")
            found = Scope.__new__(Scope)
            found.parent, found.name, found.call = parent, name, call
            part = f"{name}#{call}" if call else name
            found.path = part if parent is None or not parent.path else f"{parent.path}/{part}"
            found.depth = 0 if parent is None else parent.depth + 1
            Scope._interned[key] = found
        return found

    @staticmethod
    def parse(path: str) -> Scope:
        """The scope of a path as `str` prints it, the root for an empty one. Raises `GraphcError` for anything else."""
        scope = ROOT
        for part in path.split("/") if path else ():
            match = _PART.fullmatch(part)
            if match is None:
                raise GraphcError(f"{path!r} is no path of scopes: a part of it is empty")
            scope = Scope.of(scope, match[1], int(match[2] or 0))
        return scope

    def child(self, name: str, call: int = 0) -> Scope:
        return Scope.of(self, name, call)

    @property
    def parts(self) -> tuple[Scope, ...]:
        """The scopes from the first below the root down to this one."""
        out: list[Scope] = []
        scope = self
        while scope.parent is not None:
            out.append(scope)
            scope = scope.parent
        return tuple(reversed(out))

    @property
    def owner(self) -> str:
        """The path without call indices: the layer, whichever of its calls this is."""
        return "/".join(part.name for part in self.parts)

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"Scope({self.path!r})"


ROOT = Scope.of(None, "")


def common_scope(a: Scope, b: Scope) -> Scope:
    """The nearest scope that contains both."""
    while a is not b:
        if a.depth >= b.depth:
            a = a.parent or ROOT
        else:
            b = b.parent or ROOT
    return a


class Location:
    """Scope, source file and line, and (for a fused or cloned op) the scopes of the ops it was made from."""

    __slots__ = ("file", "line", "origins", "scope")

    file: str
    line: int
    scope: Scope
    origins: tuple[Scope, ...]

    _interned: dict[tuple[Scope, str, int, tuple[Scope, ...]], Location] = {}

    @staticmethod
    def of(scope: Scope = ROOT, file: str = "", line: int = 0, origins: tuple[Scope, ...] = ()) -> Location:
        """A line without a file says nothing and is dropped."""
        key = (scope, file, line, origins)
        found = Location._interned.get(key)
        if found is None:
            if line and not file:
                return Location._interned.setdefault(key, Location.of(scope, "", 0, origins))
            found = Location.__new__(Location)
            found.scope, found.file, found.line, found.origins = key
            Location._interned[key] = found
        return found

    def __str__(self) -> str:
        """As IR text writes it after `@`: `"block/attention" model.py:12 from "a" "b"`; empty when nothing is known."""
        parts = [quoted(self.scope.path)] if self.scope is not ROOT else []
        if self.file:
            plain = _PLAIN_FILE.fullmatch(self.file) is not None
            parts.append(f"{self.file if plain else f'file {quoted(self.file)}'}:{self.line}")
        if self.origins:
            parts.append("from " + " ".join(quoted(scope.path) for scope in self.origins))
        return " ".join(parts)

    def __repr__(self) -> str:
        return f"Location({self})"


UNKNOWN = Location.of()


def fused(a: Location, b: Location) -> Location:
    """The location of an op that replaces both: the nearest common scope, the source line of the first."""
    if a is b:
        return a
    origins = dict.fromkeys((*(a.origins or (a.scope,)), *(b.origins or (b.scope,))))
    source = a if a.file else b
    return Location.of(common_scope(a.scope, b.scope), source.file, source.line, tuple(origins))
