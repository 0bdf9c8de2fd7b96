"""Reading the text of sizes and guards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, cast

from graphc.ir.dims.expression import MAXIMAL_WEIGHT, Size, symbol
from graphc.ir.dims.guards import Guard
from graphc.ir.dims.operations import MAXIMAL_DEPTH, floor_div, maximum, minimum, mod
from graphc.ir.errors import ShapeError

DEFAULT_MINIMUMS: Mapping[str, int] = MappingProxyType({})


class SizeSyntaxError(ValueError):
    """Text that is no size or guard: `problem` at `column` (from 1)."""

    def __init__(self, column: int, problem: str) -> None:
        super().__init__(f"column {column}: {problem}")
        self.column = column
        self.problem = problem


_TOKEN = re.compile(r"\s*(?:(\d+)|([^\W\d]\w*)|(//|[-+*%(),])|(\S)|$)")


def parse_size(text: str, minimums: Mapping[str, int] = DEFAULT_MINIMUMS) -> Size:
    """The size that `text` spells, as `str` does or otherwise; a symbol's minimum is 1 if `minimums` does not have it.

    SizeSyntaxError, a ValueError, if the text is not a size.
    """
    return _Parser(text, minimums).parse()


class _Parser:
    """Recursive descent with Python's precedences."""

    def __init__(self, text: str, minimums: Mapping[str, int]):
        if len(text) > 16 * MAXIMAL_WEIGHT:
            raise SizeSyntaxError(16 * MAXIMAL_WEIGHT + 1, "the size is too long")
        self.text, self.minimums, self.depth = text, minimums, 0
        self.end = 0
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.end)
        assert match is not None
        self.match, self.token, self.end = match, match[match.lastindex] if match.lastindex else "", match.end()

    def error(self, wanted: str) -> SizeSyntaxError:
        column = (self.match.start(self.match.lastindex) if self.match.lastindex else len(self.text)) + 1
        found = repr(self.token) if self.token else "the end"
        return SizeSyntaxError(column, f"expected {wanted}, found {found}")

    def take(self, token: str) -> None:
        if self.token != token:
            raise self.error(repr(token))
        self.advance()

    def parse(self) -> Size:
        try:
            size = self.sum()
        except ShapeError as error:
            raise self.error(f"a size ({error})") from error
        if self.token:
            raise self.error("an operator or the end")
        return size

    def sum(self) -> Size:
        total = self.product()
        while (sign := self.token) in ("+", "-"):
            self.advance()
            other = self.product()
            total = total + other if sign == "+" else total - other
        return total

    def product(self) -> Size:
        result = self.factor()
        while (sign := self.token) in ("*", "//", "%"):
            self.advance()
            other = self.factor()
            result = result * other if sign == "*" else floor_div(result, other) if sign == "//" else mod(result, other)
        return result

    def factor(self) -> Size:
        negative = False
        while self.token == "-":
            negative = not negative
            self.advance()
        number, name, _, _ = self.match.groups()
        if number is not None and len(number) <= 40:
            result: Size = int(number)
            self.advance()
        elif name in ("min", "max"):
            self.advance()
            result = (minimum if name == "min" else maximum)(*self.group())
        elif name is not None:
            result = symbol(name, self.minimums.get(name, 1))
            self.advance()
        elif self.token == "(":
            (result,) = self.group(1)
        else:
            raise self.error("a number, a symbol or '('")
        return -result if negative else result

    def group(self, count: int | None = None) -> list[Size]:
        self.depth += 1
        if self.depth > 2 * MAXIMAL_DEPTH:
            raise self.error("less nesting")
        self.take("(")
        sizes = [self.sum()]
        while self.token == "," and count is None:
            self.advance()
            sizes.append(self.sum())
        self.take(")")
        self.depth -= 1
        return sizes


_GUARD = re.compile(r"==|<=|\bdivides\b")


def parse_guard(text: str, minimums: Mapping[str, int] = DEFAULT_MINIMUMS) -> Guard:
    """The guard that `text` spells. SizeSyntaxError, a ValueError, if it spells none."""
    match = _GUARD.search(text)
    if match is None:
        raise SizeSyntaxError(1, f"expected '==', '<=' or 'divides' between two sizes in the guard {text!r}")
    left = parse_size(text[: match.start()], minimums)
    try:
        right = parse_size(text[match.end() :], minimums)
    except SizeSyntaxError as error:
        raise SizeSyntaxError(match.end() + error.column, error.problem) from None
    return Guard(cast('Literal["==", "<=", "divides"]', match[0]), left, right)
