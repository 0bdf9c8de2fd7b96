"""A place in IR text, and the small pieces that can be read there: types, attribute values, locations."""

from __future__ import annotations

import json
import re
from typing import Any

from graphc.ir.attributes import FunctionRef
from graphc.ir.dims import parse_size
from graphc.ir.dtypes import DTYPES, DType
from graphc.ir.errors import ParseError, ShapeError
from graphc.ir.location import ROOT, Location, Scope
from graphc.ir.types import TensorType

NAME = r"[A-Za-z_]\w*"
STRING = r'"(?:[^"\\]|\\.)*"'
TYPE = r"[a-z]\w*\[[^\]]*\]"
_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"-?(?:inf|nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)(?![\w.(])")
_SIZE = re.compile(r"(?:[\w+\-*/% .]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))+")
_BY_SHORT: dict[str, DType] = {d.short: d for d in DTYPES}
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}
_MAX_NESTING = 32


class Cursor:
    """Reads `text`, which starts at `line` and `column` (from 0) of the whole; errors say line and column."""

    def __init__(self, text: str, line: int, column: int = 0, minimums: dict[str, int] | None = None) -> None:
        self.text = text
        self.at = 0
        self.line = line
        self.column = column
        self.minimums: dict[str, int] = {} if minimums is None else minimums
        self.skip()

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def at_end(self) -> bool:
        return self.at >= len(self.text)

    def error(self, wanted: str) -> ParseError:
        before = self.text[: self.at]
        line = self.line + before.count("\n")
        column = self.at - (before.rfind("\n") + 1) if "\n" in before else self.at + self.column
        found = self.text[self.at :].split("\n")[0][:24]
        return ParseError(
            f"expected {wanted}, found {found!r}" if found else f"expected {wanted} here", line, column + 1
        )

    def looking_at(self, pattern: str) -> bool:
        """Whether `pattern` (a regular expression; brackets alone stand for themselves) comes next."""
        return re.compile(re.escape(pattern) if len(pattern) == 1 else pattern).match(self.text, self.at) is not None

    def try_take(self, literal: str) -> bool:
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            self.skip()
            return True
        return False

    def expect(self, literal: str) -> None:
        if not self.try_take(literal):
            raise self.error(f"`{literal.strip()}`")

    def take(self, pattern: str, what: str) -> str:
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            raise self.error(what)
        self.at = match.end()
        self.skip()
        return match[0]

    def string(self) -> str:
        start = self.at
        text = self.take(STRING, "a string in double quotes")
        try:
            return _unquoted(text)
        except (ValueError, OverflowError):
            self.at = start
            raise self.error("a string with valid escapes") from None

    def type(self) -> TensorType:
        start = self.at
        name = self.take(r"[a-z]\w*", "a type such as f32[B, 3]")
        if name not in _BY_SHORT:
            self.at = start
            raise self.error(f"a dtype ({', '.join(_BY_SHORT)})")
        self.expect("[")
        sizes: list[Any] = []
        while not self.try_take("]"):
            sizes.append(self.size())
            if not self.looking_at("]"):
                self.expect(",")
        return TensorType.of(_BY_SHORT[name], sizes)

    def size(self) -> Any:
        start = self.at
        text = self.take(_SIZE.pattern, "a size").strip()
        try:
            return int(text) if text.isdigit() else parse_size(text, self.minimums)
        except (ValueError, ShapeError) as error:
            self.at = start
            raise self.error(f"a size ({error})") from None

    def attribute(self, depth: int = 0) -> Any:
        """An attribute value, as `attribute_text` writes it."""
        if self.looking_at('"'):
            return self.string()
        if self.try_take("["):
            if depth == _MAX_NESTING:
                raise self.error(f"lists nested at most {_MAX_NESTING} deep")
            items: list[Any] = []
            while not self.try_take("]"):
                items.append(self.attribute(depth + 1))
                if not self.looking_at("]"):
                    self.expect(",")
            return tuple(items)
        if self.try_take("@"):
            return FunctionRef(self.take(NAME, "a function name"))
        if self.try_take("complex("):
            real = self._number()
            self.expect(",")
            imaginary = self._number()
            self.expect(")")
            return complex(real, imaginary)
        number = _NUMBER.match(self.text, self.at)
        if number is not None and re.match(r"\s*(?:[,\]})]|$)", self.text[number.end() : number.end() + 8]):
            return self._number()
        word = re.compile(rf"{NAME}(?=\s*(?:[,\]}}]|$))").match(self.text, self.at)
        if word is not None and (word[0] in _WORDS or word[0] in _BY_SHORT):
            self.take(NAME, "a word")
            return _WORDS[word[0]] if word[0] in _WORDS else _BY_SHORT[word[0]]
        return self.size()

    def _number(self) -> int | float:
        text = self.take(_NUMBER.pattern, "a number")
        return int(text) if text.lstrip("-").isdigit() else float(text)

    def location(self) -> Location:
        """`"scope" file.py:12 from "a" "b"`, each part optional."""
        scope, file, line, origins = ROOT, "", 0, []
        if self.looking_at('"'):
            scope = Scope.parse(self.string())
        if not self.at_end() and not self.looking_at(r'from "'):
            text = self.take(r"(?:(?! from \").)+", "a file and line")
            file, _, number = text.rstrip().rpartition(":")
            if not number.isdigit():
                raise self.error("file:line")
            line = int(number)
        if self.try_take("from "):
            origins: list[Scope] = []
            while self.looking_at('"'):
                origins.append(Scope.parse(self.string()))
        if not self.at_end():
            raise self.error("the end of the line")
        return Location.of(scope, file, line, tuple(origins))


def _unquoted(text: str) -> str:
    """The string of a literal that `attributes.quoted` wrote."""
    body = re.sub(r"\\u([0-9a-f]{6})", lambda match: chr(int(match[1], 16)), text[1:-1])
    if "\\" not in body:
        return body
    return json.loads(f'"{body}"', strict=False)
