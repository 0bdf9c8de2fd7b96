"""Reads the ops of a function from IR text.

Ops are read by one regular expression, with what follows a name looked up by its text, so that repeated types,
attributes and locations cost a dict hit. When the expression does not match, the line is read again piece by piece to
say which column is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphc.ir.attributes import Attributes
from graphc.ir.builder import Builder
from graphc.ir.cursor import NAME, STRING, TYPE, VALUE, Cursor
from graphc.ir.dims import equal
from graphc.ir.errors import GraphcError, ParseError
from graphc.ir.graph import Block, Function, Op, Region, Value
from graphc.ir.location import UNKNOWN, Location, Scope
from graphc.ir.opdef import OPS, REQUIRED, Attribute, Inferred, OpDef
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType

MAX_REGION_NESTING = 64
"""Regions in regions; what walks a graph recurses into them."""

_OPERAND = rf"(?:{VALUE}|_\b)"
_TAIL = rf"""(?:\ *:\ *({TYPE}(?:\ *,\ *{TYPE})*))?  # types
    (?:\ *@\ (.*)|\s*)"""  # location
_LINE = re.compile(
    rf"""\s*(?:({VALUE}(?:\ *,\ *{VALUE})*)\ *=\ *)?  # 1: results
    ([a-z_]\w*)                                     # 2: op
    (?:\ +({_OPERAND}(?:\ *,\ *{_OPERAND})*))?      # 3: operands
    (?:\ *\{{((?:[^"{{}}]|{STRING})*)\}})?          # 4: attributes
    (?:\ *(\(.*\)\ *\{{))?                          # 5: parameters of a first region
    {_TAIL}""",  # 6: types, 7: location
    re.VERBOSE,
)
_REGION_END = re.compile(rf"\s*\}}{_TAIL}", re.VERBOSE)
_REGION_NEXT = re.compile(r"\s*\},\s*(\(.*\)\s*\{)\s*")
_PLAIN_SCOPE = re.compile(r'"(\w+(?:/\w+)*)"')
_PLAIN_LOCATION = re.compile(r'("[^"\\]*")\ ([^\s"]+):([0-9]{1,9})')
_SUFFIXED = re.compile(rf"({NAME})\.[0-9]+")

RULE_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What a type rule may raise besides `GraphcError`, given operands or attributes that no caller would pass."""


@dataclass(frozen=True, slots=True)
class Call:
    """A `call` in the text, to be checked when all functions are read."""

    function: Function
    op: Op
    line: int
    column: int


def value_name(label: str, failure: Cursor) -> str | None:
    """The name that `%name` or `%name.2` gives its value; None for a number. `failure` stands behind the label."""
    text = label[1:]
    if text.isdecimal():
        return None
    if not text.isidentifier():
        match = _SUFFIXED.fullmatch(text)
        if match is None:
            raise failure.failure(f"{label} is neither a number nor a name")
        return match[1]
    return text


class BodyReader:
    """Reads ops from `lines`, from line `number` (from 0) on, into the blocks of `function`.

    `values` are the values that can be named now: the function's parameters, or in a region only what the region
    defines. `calls` collects the calls that were read.
    """

    def __init__(
        self,
        function: Function,
        labels: dict[str, Value],
        minimums: dict[str, int],
        lines: list[str],
        number: int,
        calls: list[Call],
    ) -> None:
        self.function = function
        self.values: dict[str, Value | None] = {"_": None, **labels}
        self.minimums = minimums
        self.lines = lines
        self.number = number
        self.calls = calls
        self.nesting = 0
        self.types: dict[str | None, tuple[TensorType, ...]] = {None: ()}
        self.attributes: dict[tuple[str, str | None], Attributes] = {}
        self.locations: dict[str | None, Location] = {None: UNKNOWN}

    def read(self, block: Block) -> None:
        """Read ops into `block` through the line that starts with its `}`."""
        builder = Builder(block, function=self.function)
        lines, match_line = self.lines, _LINE.fullmatch
        count = len(lines)
        while self.number < count:
            line = lines[self.number]
            match = match_line(line)
            if match is not None:
                self._op(builder, match, line)
                continue
            stripped = line.strip()
            if stripped.startswith("}"):
                wanted = "return" if isinstance(block.owner, Function) else "yield"
                if block.last is None or block.last.name != wanted:
                    raise Cursor(line, self.number + 1).failure(f"the block ends without `{wanted}`")
                self.number += 1
                return
            if stripped and not stripped.startswith("//"):
                raise self._explain(line)
            self.number += 1
        raise ParseError("the text ends inside a function; `}` is missing", count, len(lines[-1]) + 1)

    def _op(self, builder: Builder, match: re.Match[str], line: str) -> None:
        results, name, operand_text, attribute_text, region_text, type_text, location_text = match.groups()
        number = self.number + 1
        definition = OPS.get(name)
        if definition is None:
            raise ParseError(f"there is no op {name!r}", number, match.start(2) + 1)
        values = self.values
        operands: list[Value | None] = []
        if operand_text is not None:
            try:
                operands = [values[label] for label in operand_text.replace(" ", "").split(",")]
            except KeyError as error:
                raise _at_label(match, 3, error.args[0], number, "is not defined before") from None
        if len(operands) < definition.arity and not definition.variadic:  # optional ones may be left out by hand
            operands += [None] * (definition.arity - len(operands))
        attributes = self.attributes.get((name, attribute_text))
        if attributes is None:
            attributes = self._attributes(definition, attribute_text, match)
            self.attributes[name, attribute_text] = attributes
        self.number = number
        regions: tuple[Region, ...] = ()
        tail, first = match, 6
        if region_text is not None:
            regions, tail = self._regions(match)
            first = 1
            type_text, location_text = tail.groups()
        types = self.types.get(type_text)
        if types is None:
            types = self.types[type_text] = Cursor(tail[first], self.number, tail.start(first), self.minimums).types()
        location = self.locations.get(location_text)
        if location is None:
            location = self.locations[location_text] = self._location(tail, first + 1)
        try:
            op = self._insert(builder, definition, operands, attributes, regions, types, location)
        except GraphcError as error:
            raise ParseError(str(error), number, match.start(2) + 1) from error
        except RULE_ERRORS as error:
            problem = f"{name} does not take these operands and attributes ({error})"
            raise ParseError(problem, number, match.start(2) + 1) from error
        if definition.call_rule is not None:
            self.calls.append(Call(self.function, op, number, match.start(2) + 1))
        if results is None:
            if op.results:
                raise ParseError(f"the results of {name} have no names", number, match.start(2) + 1)
            return
        labels = results.replace(" ", "").split(",") if "," in results else (results,)
        if len(labels) != len(op.results):
            problem = f"{name} has {number_of(len(op.results), 'result')}, {number_of(len(labels), 'is', 'are')} named"
            raise ParseError(problem, number, match.start(1) + 1)
        for label, value in zip(labels, op.results, strict=True):
            if label in values:
                raise _at_label(match, 1, label, number, "is defined twice", labels[: value.index].count(label))
            values[label] = value
            text = label[1:]
            if not text.isdecimal():
                value.name = text if text.isidentifier() else value_name(label, Cursor(line, number))

    def _insert(
        self,
        builder: Builder,
        definition: OpDef[..., Any],
        operands: list[Value | None],
        attributes: Attributes,
        regions: tuple[Region, ...],
        types: tuple[TensorType, ...],
        location: Location,
    ) -> Op:
        operand_types = tuple([v if v is None else v.type for v in operands])
        if definition.call_rule is not None:  # its types are checked when all functions are read
            definition.check_operands(operand_types)
            inferred = Inferred(attributes, types, ())
        else:
            inferred = definition.infer(operand_types, attributes, regions)
            if inferred.types != types:
                check_types(definition.name, inferred.types, types)
                inferred = Inferred(inferred.attributes, types, inferred.guards)
        return builder.insert(definition.op_class, tuple(operands), inferred, regions, location)

    def _attributes(self, definition: OpDef[..., Any], text: str | None, match: re.Match[str]) -> Attributes:
        cursor = Cursor(text or "", self.number + 1, max(match.start(4), 0), self.minimums)
        known = {declared.name: declared for declared in definition.attributes}
        named: dict[str, Any] = {}
        while not cursor.at_end():
            start = cursor.at
            name = cursor.take(NAME, "an attribute")
            if name not in known or name in named:
                cursor.at = start
                if name in named:
                    raise cursor.failure(f"the attribute {name} is given twice")
                raise cursor.failure(
                    f"{definition.name} has no attribute {name!r}; it has {', '.join(known) or 'none'}"
                )
            cursor.expect("=")
            named[name] = _attribute(cursor, known[name])
            if not cursor.at_end():
                cursor.expect(",")
        missing = [each.name for each in definition.attributes if each.default is REQUIRED and each.name not in named]
        if missing:
            problem = f"{definition.name} misses the attribute {', '.join(missing)}"
            raise ParseError(problem, self.number + 1, match.start(2) + 1)
        return definition.make_attributes(**named)

    def _location(self, match: re.Match[str], group: int) -> Location:
        if (alone := _PLAIN_SCOPE.fullmatch(match[group])) is not None:
            return Location.of(Scope.parse(alone[1]))
        plain = _PLAIN_LOCATION.fullmatch(match[group])  # each op of a traced model may have a line of its own
        scope = None if plain is None else self.locations.get(plain[1])
        if plain is None or scope is None:
            location = Cursor(match[group], self.number, match.start(group)).location()
            if plain is not None:
                self.locations[plain[1]] = Location.of(location.scope)
            return location
        return Location.of(scope.scope, plain[2], int(plain[3]))

    def _regions(self, match: re.Match[str]) -> tuple[tuple[Region, ...], re.Match[str]]:
        """The regions that start with group 5 of `match`, and the match of the line that ends the last."""
        if self.nesting == MAX_REGION_NESTING:
            problem = f"regions are nested more than {MAX_REGION_NESTING} deep"
            raise ParseError(problem, self.number, match.start(5) + 1)
        self.nesting += 1
        outer = self.values
        regions: list[Region] = []
        following: re.Match[str] | None = match
        group = 5
        while following is not None:
            region = Region()
            regions.append(region)
            self.values = {"_": None}  # a region sees nothing of what surrounds it
            self._region_parameters(region.block, Cursor(following[group], self.number, following.start(group)))
            self.read(region.block)
            following = _REGION_NEXT.fullmatch(self.lines[self.number - 1])
            group = 1
        self.values = outer
        self.nesting -= 1
        last = self.lines[self.number - 1]
        end = _REGION_END.fullmatch(last)
        if end is None:
            cursor = Cursor(last, self.number)
            cursor.expect("}")
            raise cursor.error("`: types`, `@ location` or `, (parameters) {`")
        return tuple(regions), end

    def _region_parameters(self, block: Block, cursor: Cursor) -> None:
        cursor.minimums = self.minimums
        cursor.expect("(")
        for start, label, type in parameters(cursor):
            name = value_name(label, cursor)
            if label in self.values:
                cursor.at = start
                raise cursor.failure(f"{label} is defined twice")
            self.values[label] = block.add_parameter(type, name)
        cursor.expect("{")

    def _explain(self, line: str) -> ParseError:
        """Why a line is no op: read it piece by piece until a piece is missing."""
        cursor = Cursor(line, self.number + 1, 0, self.minimums)
        if cursor.looking_at("%"):
            cursor.take(VALUE, "a result")
            while cursor.try_take(","):
                cursor.take(VALUE, "a result")
            cursor.expect("=")
        cursor.take(r"[a-z_]\w*", "the name of an op")
        if cursor.matches(_OPERAND):
            cursor.take(_OPERAND, "an operand")
            while cursor.try_take(","):
                cursor.take(_OPERAND, "an operand")
        if cursor.try_take("{"):
            cursor.take(rf"(?:[^\"{{}}]|{STRING})*", "attributes")
            cursor.expect("}")
        if cursor.try_take("("):
            for _ in parameters(cursor):
                pass
            cursor.expect("{")
        elif cursor.try_take(":"):
            cursor.type()
            while cursor.try_take(","):
                cursor.type()
        if cursor.try_take("@"):
            cursor.location()
        return cursor.error("operands, `{`, `(`, `:`, `@` or the end of the line")


def _attribute(cursor: Cursor, declared: Attribute) -> Any:
    start = cursor.at
    value = cursor.dtype_attribute() if declared.annotation.startswith("DType") else cursor.attribute()
    try:
        return declared.convert(value)
    except (TypeError, ValueError, OverflowError):
        cursor.at = start
        raise cursor.error(f"a value of the kind {declared.annotation} for {declared.name}") from None


def _at_label(match: re.Match[str], group: int, label: str, line: int, problem: str, skip: int = 0) -> ParseError:
    """The error at a label in a group of `match`, after as many equal ones as `skip` says."""
    places = [found.start() for found in re.finditer(rf"{re.escape(label)}(?![\w.])", match[group])]
    return ParseError(f"{label} {problem}", line, match.start(group) + places[skip] + 1)


def parameters(cursor: Cursor) -> Iterator[tuple[int, str, TensorType]]:
    """Places, labels and types of `%x: f32[2], %y: i32[])`, the parenthesis included."""
    if cursor.try_take(")"):
        return
    while True:
        start = cursor.at
        label = cursor.take(VALUE, "a parameter")
        cursor.expect(":")
        yield start, label, cursor.type()
        if not cursor.more(")"):
            return


def check_types(name: str, inferred: tuple[TensorType, ...], written: tuple[TensorType, ...]) -> None:
    """Raise `GraphcError` where a written type contradicts the inferred one; sizes equal under a guard may differ."""
    if len(inferred) != len(written):
        raise GraphcError(f"{name} has {number_of(len(inferred), 'result')}, not {len(written)}")
    for have, want in zip(inferred, written, strict=True):
        if not same_type(have, want):
            raise GraphcError(f"the result of {name} is {have}, not {want}")


def same_type(a: TensorType, b: TensorType) -> bool:
    """Whether two types agree, up to sizes that only a guard makes equal."""
    return a is b or (
        a.dtype is b.dtype
        and a.ndim == b.ndim
        and all(equal(p, q) is not False for p, q in zip(a.shape, b.shape, strict=True))
    )
