"""`del` statements that let go of arrays after their last use, where names would hold them to the end of a function.

Most names are soon used again, and short bodies end soon. A training step is one long body, whose plan of memory counts
on every array being freed where it is read last.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from graphc.ir.graph import Value

FEW = 1024
"""Arrays of so many elements are not worth a `del`, nor those of one for each example."""


class Line(str):
    """A line of a body that says which of the names it assigns hold but a few numbers from there on."""

    small: frozenset[str] = frozenset()

    @classmethod
    def of(cls, text: str, names: Mapping[str, Value]) -> Line:
        """The line of a statement that assigns the values to these names."""
        line = cls(text)
        line.small = frozenset(name for name, value in names.items() if not worth_freeing(value))
        return line


def worth_freeing(value: Value) -> bool:
    """Whether the array is more than a few numbers, or one for each example."""
    count, unknown = 1, 0
    for size in value.type.shape:
        if isinstance(size, int):
            count *= size
        else:
            unknown += 1
    return count > FEW or unknown > 1 or (unknown == 1 and count > 1)


def with_deletions(lines: Sequence[str], names: AbstractSet[str]) -> list[str]:
    """The statements of a body, each followed by a `del` of those of `names` that are read there for the last time.

    A name that the same statement assigns again is left; so is everything from the first `return` or `with` on, where
    the body ends. Nested blocks count as one statement. Linear.
    """
    statements = ast.parse("\n".join(lines)).body
    count = next((i for i, each in enumerate(statements) if isinstance(each, ast.Return | ast.With)), len(statements))
    last: dict[str, int] = {}
    deleted: list[list[str]] = [[] for _ in statements]
    held: set[str] = set()
    for i, statement in enumerate(statements):
        stored, loaded = _names(statement)
        for name in loaded & held:
            last[name] = i
        if i >= count:
            continue
        line = lines[statement.lineno - 1]
        for name in stored & held & (line.small if isinstance(line, Line) else set()):
            if last[name] < i:
                deleted[last[name]].append(name)
            held.discard(name)
        for name in stored & names - (line.small if isinstance(line, Line) else set()):
            if name in held and last[name] < i:
                deleted[last[name]].append(name)
            held.add(name)
            last[name] = i
    for name in sorted(held):
        if last[name] < count - 1:
            deleted[last[name]].append(name)
    out: list[str] = []
    for i, (statement, gone) in enumerate(zip(statements, deleted, strict=True)):
        start = statement.lineno - 1 if i else 0
        end = statements[i + 1].lineno - 1 if i + 1 < len(statements) else len(lines)
        behind = end  # where comments on what follows begin
        while behind > start + 1 and lines[behind - 1].lstrip()[:1] in ("", "#"):
            behind -= 1
        out += lines[start:behind]
        if gone:
            out.append(f"del {', '.join(sorted(gone))}")
        out += lines[behind:end]
    return out


def _names(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """The names that a statement surely assigns, and those it reads: what a nested block assigns it also keeps."""
    stored: set[str] = set()
    loaded: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else stored).add(node.id)
    if not isinstance(statement, ast.Assign):
        loaded |= stored
        stored = _surely(statement)
    return stored, loaded


def _surely(statement: ast.stmt) -> set[str]:
    """What a statement assigns whichever branch is taken; a loop may run no times."""
    if isinstance(statement, ast.Assign):
        return _names(statement)[0]
    if isinstance(statement, ast.If):
        branches = [set[str]().union(*map(_surely, branch)) for branch in (statement.body, statement.orelse)]
        return branches[0] & branches[1]
    return set()
