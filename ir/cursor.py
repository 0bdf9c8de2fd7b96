"""A place in IR text, and the small pieces that can be read there: types, attribute values, locations."""

from __future__ import annotations

import re
from typing import Any

from graphc.ir.attributes import FunctionRef
from graphc.ir.dims import Guard, Size, SizeSyntaxError, parse_guard, parse_size
from graphc.ir.dtypes import DTYPES, DType
from graphc.ir.errors import GraphcError, ParseError
from graphc.ir.location import ROOT, Location, Scope
from graphc.ir.types import TensorType

NAME = r"[^\W\d]\w*"
VALUE = r"%[\w.]+"
STRING = r'"(?:[^"\\]|\\.)*"'
TYPE = r"[a-z]\w*\[[^\]]*\]"
MAX_NESTING = 32
"""Lists in lists; NumPy has no more axes than about this either."""

_PLAIN_TYPE = re.compile(r"[a-z]\w*\[(?:[0-9]+(?:, [0-9]+)*)?\]")
_PLAIN_TYPES: dict[str, TensorType] = {}


def plain_type(text: str) -> TensorType | None:
    """The type of a text met before, for readers that are in a hurry; None for a text that needs a cursor."""
    return _PLAIN_TYPES.get(text)


"""Types without symbols by their text, which weights repeat; as many as there are interned types."""
_SPACE = re.compile(r"\s*")
_NUMBER = r"-?(?:inf|nan|[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)"
_LONE_NUMBER = re.compile(rf"{_NUMBER}(?=\s*(?:[,\])]|$))")
_INTEGER = re.compile(r"-?[0-9]+")
_LONE_WORD = re.compile(r"(?:true|false|none)(?=\s*(?:[,\]]|$))")
_ESCAPE = re.compile(r"\\(u[0-9a-f]{6}|.)", re.DOTALL)
_ESCAPED = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}
_BY_SHORT: dict[str, DType] = {d.short: d for d in DTYPES}


class Cursor:
    """Reads `text`, which starts at `line` (from 1) and `column` (from 0) of the whole; errors say line and column."""

    def __init__(self, text: str, line: int, column: int = 0, minimums: dict[str, int] | None = None) -> None:
        self.text = text
        self.at = 0
        self.line = line
        self.column = column
        self.minimums: dict[str, int] = {} if minimums is None else minimums
        self.skip()

    def skip(self) -> None:
        if not self.text[self.at : self.at + 1].isspace():
            return
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def at_end(self) -> bool:
        return self.at >= len(self.text)

    def error(self, wanted: str) -> ParseError:
        """What was wanted here, and what is there instead."""
        found = self.text[self.at :].split("\n")[0][:24]
        return self.failure(f"expected {wanted}, found {found!r}" if found else f"expected {wanted} here")

    def failure(self, problem: str) -> ParseError:
        """`problem`, at this place."""
        before = self.text[: self.at]
        newlines = before.count("\n")
        column = self.at - before.rfind("\n") - 1 if newlines else self.at + self.column
        return ParseError(problem, self.line + newlines, column + 1)

    def looking_at(self, literal: str) -> bool:
        return self.text.startswith(literal, self.at)

    def matches(self, pattern: str) -> bool:
        """Whether the regular expression matches here."""
        return re.compile(pattern).match(self.text, self.at) is not None

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

    def more(self, end: str) -> bool:
        """In a list: whether another item follows; takes the comma before it, or `end` after the last."""
        if self.try_take(end):
            return False
        self.expect(",")
        return not self.try_take(end)

    def string(self) -> str:
        start = self.at
        text = self.take(STRING, "a string in double quotes")
        try:
            return _ESCAPE.sub(_unescaped, text[1:-1]) if "\\" in text else text[1:-1]
        except (KeyError, ValueError):
            self.at = start
            raise self.error("a string with valid escapes") from None

    def integer(self, what: str) -> int:
        return int(self._number(_INTEGER.pattern, what))

    def natural(self, what: str) -> int:
        if self.looking_at("-"):
            raise self.error(what)
        return self.integer(what)

    def integers(self) -> tuple[int, ...]:
        """`[1, 2]`"""
        self.expect("[")
        items: list[int] = []
        if not self.try_take("]"):
            items.append(self.integer("an integer"))
            while self.more("]"):
                items.append(self.integer("an integer"))
        return tuple(items)

    def dtype(self) -> DType:
        start = self.at
        name = self.take(NAME, "a dtype")
        if name not in _BY_SHORT:
            self.at = start
            raise self.error(f"a dtype ({', '.join(_BY_SHORT)})")
        return _BY_SHORT[name]

    def type(self) -> TensorType:
        plain = _PLAIN_TYPE.match(self.text, self.at)
        if plain is None:
            return self._type()
        type = _PLAIN_TYPES.get(plain[0])
        if type is None:
            type = _PLAIN_TYPES[plain[0]] = self._type()
        else:
            self.at = plain.end()
            self.skip()
        return type

    def _type(self) -> TensorType:
        start = self.at
        if not self.matches(rf"{NAME}\["):
            raise self.error("a type such as f32[B, 3]")
        dtype = self.dtype()
        self.expect("[")
        sizes: list[Size] = []
        if not self.try_take("]"):
            sizes.append(self.size())
            while self.more("]"):
                sizes.append(self.size())
        try:
            return TensorType.of(dtype, sizes)
        except GraphcError as error:
            self.at = start
            raise self.failure(error.message) from None

    def types(self) -> tuple[TensorType, ...]:
        """One or more types, to the end of the text."""
        types = [self.type()]
        while self.try_take(","):
            types.append(self.type())
        if not self.at_end():
            raise self.error("`,` or the end of the types")
        return tuple(types)

    def size(self) -> Size:
        start = self.at
        text = self._balanced(",])")
        try:
            return parse_size(text, self.minimums)
        except SizeSyntaxError as error:
            self.at = start + error.column - 1
            raise self.failure(error.problem) from None

    def guard(self) -> Guard:
        start = self.at
        text = self._balanced(",{")
        try:
            return parse_guard(text, self.minimums)
        except SizeSyntaxError as error:
            self.at = start + error.column - 1
            raise self.failure(error.problem) from None

    def _balanced(self, stops: str) -> str:
        """The text up to one of `stops` outside of parentheses."""
        text, at, depth = self.text, self.at, 0
        while at < len(text) and (depth or text[at] not in stops):
            depth += (text[at] == "(") - (text[at] == ")")
            at += 1
        taken = text[self.at : at]
        self.at = at
        return taken.rstrip()

    def attribute(self, depth: int = 0) -> Any:
        """An attribute value other than a dtype, as `attribute_text` writes it."""
        if self.looking_at('"'):
            return self.string()
        if self.looking_at("["):
            if depth == MAX_NESTING:
                raise self.error(f"lists nested at most {MAX_NESTING} deep")
            self.expect("[")
            items: list[Any] = []
            if not self.try_take("]"):
                items.append(self.attribute(depth + 1))
                while self.more("]"):
                    items.append(self.attribute(depth + 1))
            return tuple(items)
        if self.try_take("@"):
            return FunctionRef(self.take(NAME, "a function name"))
        if self.try_take("complex("):
            real = self._number(_NUMBER, "a number")
            self.expect(",")
            imaginary = self._number(_NUMBER, "a number")
            self.expect(")")
            return complex(real, imaginary)
        if _LONE_NUMBER.match(self.text, self.at) is not None:
            return self._number(_NUMBER, "a number")
        if _LONE_WORD.match(self.text, self.at) is not None:
            return _WORDS[self.take(NAME, "a word")]
        return self.size()

    def dtype_attribute(self) -> DType | None:
        """The value of an attribute that is a dtype."""
        return None if self.try_take("none") else self.dtype()

    def _number(self, pattern: str, what: str) -> int | float:
        start = self.at
        text = self.take(pattern, what)
        try:
            return int(text) if _INTEGER.fullmatch(text) else float(text)
        except ValueError:  # Python converts no integer of thousands of digits
            self.at = start
            raise self.failure(f"a number of {len(text)} digits is too long") from None

    def location(self) -> Location:
        """`"scope" file.py:12 from "a" "b"`, each part optional, to the end of the text."""
        scope, file, line = ROOT, "", 0
        if self.looking_at('"'):
            scope = self._scope()
        if not self.at_end() and not self.matches(r'from\s+"'):
            if self.try_take("file "):  # a name that could be taken for something else is quoted
                file = self.string()
            else:
                file = self.take(r'[^\s"]+(?=:[0-9]+(?:\s|$))', "file:line")
            self.expect(":")
            line = self.integer("a line")
        origins: list[Scope] = []
        if self.try_take("from "):
            origins.append(self._scope())
            while self.looking_at('"'):
                origins.append(self._scope())
        if not self.at_end():
            raise self.error("the end of the location")
        return Location.of(scope, file, line, tuple(origins))

    def _scope(self) -> Scope:
        start = self.at
        path = self.string()
        try:
            return Scope.parse(path)
        except GraphcError as error:
            self.at = start
            raise self.failure(error.message) from None


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    return chr(int(escape[1:], 16)) if len(escape) > 1 else _ESCAPED[escape]
