"""Reads the text form that `printer` writes. One op a line; a line that starts with `//` is a comment.

Ops are read by one regular expression, with what follows a name looked up by its text, so that repeated types,
attributes and locations cost a dict hit. When the expression does not match, the line is read again piece by piece to
say which column is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.ir.attributes import Attributes
from graphc.ir.builder import Builder
from graphc.ir.cursor import NAME, STRING, TYPE, Cursor
from graphc.ir.dims import Guard, parse_guard
from graphc.ir.errors import GraphcError, ParseError
from graphc.ir.graph import Block, Function, Op, Region, Result, Value
from graphc.ir.location import UNKNOWN, Location
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Inferred, OpDef
from graphc.ir.ops.control import infer_call
from graphc.ir.printer import VERSION_LINE
from graphc.ir.types import TensorType
from graphc.ir.weights_text import parse_weight

_VALUE = r"%[\w.]+"
_OPERAND = rf"(?:{_VALUE}|_)"
_LINE = re.compile(
    rf"""\s*(?:({_VALUE}(?:,\ {_VALUE})*)\ =\ )?   # 1: results
    ([a-z_]\w*)                                    # 2: op
    (?:\ ({_OPERAND}(?:,\ ?{_OPERAND})*))?         # 3: operands
    (?:\ \{{((?:[^"{{}}]|{STRING})*)\}})?          # 4: attributes
    (?:\ (\(.*\)\ \{{))?                           # 5: parameters of a first region
    (?:\ :\ ({TYPE}(?:,\ {TYPE})*))?               # 6: types
    (?:\ @\ (.*?))?\s*""",  # 7: location
    re.VERBOSE,
)
_REGION_END = re.compile(rf"\s*\}}(?:\ :\ ({TYPE}(?:,\ {TYPE})*))?(?:\ @\ (.*?))?\s*")
_REGION_NEXT = re.compile(r"\s*\}, (\(.*\) \{)\s*")
_SUFFIX = re.compile(r"\.\d+$")
_FUNCTION = re.compile(r"(private )?func @")

Array = np.ndarray[Any, Any]


def parse(text: str, weights: Mapping[str, Array] | None = None) -> Module:
    """The module that `text` describes. `weights` holds arrays that the text only refers to.

    Raises `ParseError` with line and column; it derives from `GraphcError`, as do the errors of wrong types.
    """
    module = Module()
    lines = text.split("\n")
    number = _version(lines)
    while number < len(lines):
        line = lines[number]
        stripped = line.strip()
        if not stripped or stripped.startswith("//"):
            number += 1
        elif stripped.startswith("weight "):
            parse_weight(module.weights, Cursor(line, number + 1), weights)
            number += 1
        elif _FUNCTION.match(stripped):
            function, results, minimums, number = _parse_head(module, lines, number)
            reader = _BodyReader(function, minimums, lines, number)
            number = reader.read(function.block)
            _finish_function(function, results, reader)
        else:
            raise Cursor(line, number + 1).error("`weight`, `func` or `private func`")
    _check_calls(module)
    return module


def _version(lines: list[str]) -> int:
    """The line after the version line; text without one is read as this version."""
    for number, line in enumerate(lines):
        stripped = line.strip()
        if not stripped or stripped.startswith("//"):
            continue
        if stripped == VERSION_LINE:
            return number + 1
        if stripped.startswith("graphc-ir"):
            raise ParseError(f"this is {stripped!r}; this release reads {VERSION_LINE!r}", number + 1, 1)
        return number
    return len(lines)


# --- the head of a function -------------------------------------------------------------------------------------

_Updates = tuple[str | None, TensorType, str | None]


def _parse_head(module: Module, lines: list[str], number: int) -> tuple[Function, list[_Updates], dict[str, int], int]:
    """The function of the head at line `number`, its declared results, its symbols' minimums, and the next line."""
    start = number
    while not lines[number].rstrip().endswith("{"):
        number += 1
        if number == len(lines):
            raise ParseError("the head of the function has no `{`", start + 1, len(lines[start]) + 1)
    cursor = Cursor("\n".join(lines[start : number + 1]), start + 1)
    public = not cursor.try_take("private ")
    cursor.expect("func @")
    name = cursor.take(NAME, "a function name")
    if name in module.functions:
        raise cursor.error(f"another name than @{name}, which is defined above")
    function = module.add_function(name, public)
    if cursor.try_take("<"):
        while True:
            symbol = cursor.take(NAME, "a symbol")
            cursor.expect(">=")
            cursor.minimums[symbol] = int(cursor.take(r"\d+", "a number"))
            if not cursor.try_take(","):
                break
        cursor.expect(">")
    _parse_parameters(module, function, cursor)
    cursor.expect("->")
    results = _parse_results(cursor)
    if cursor.try_take("where "):
        while True:
            function.add_guard(_parse_guard(cursor))
            if not cursor.try_take(","):
                break
    cursor.expect("{")
    return function, results, cursor.minimums, number + 1


def _parse_parameters(module: Module, function: Function, cursor: Cursor) -> None:
    cursor.expect("(")
    while not cursor.try_take(")"):
        name = cursor.take(_VALUE, "a parameter")
        cursor.expect(":")
        type = cursor.type()
        role = cursor.take(r"input|param|state|key", "a role (input, param, state or key)")
        weight = cursor.string() if cursor.looking_at('"') else None
        if weight is not None and weight not in module.weights:
            raise cursor.error(f"the name of a weight declared above, not {weight!r},")
        function.add_parameter(type, _value_name(name), role, weight)  # type: ignore[arg-type]
        if not cursor.looking_at(")"):
            cursor.expect(",")


def _parse_results(cursor: Cursor) -> list[_Updates]:
    if not cursor.try_take("("):
        return [(None, cursor.type(), None)]
    results: list[_Updates] = []
    while not cursor.try_take(")"):
        name = None
        if cursor.looking_at(rf"{NAME}:"):
            name = cursor.take(NAME, "a name")
            cursor.expect(":")
        type = cursor.type()
        updates = cursor.take(_VALUE, "a parameter") if cursor.try_take("updates ") else None
        results.append((name, type, updates))
        if not cursor.looking_at(")"):
            cursor.expect(",")
    return results


def _parse_guard(cursor: Cursor) -> Guard:
    text = cursor.take(r"(?:[^,{(]|\((?:[^()]|\([^()]*\))*\))+", "a guard").strip()
    try:
        return parse_guard(text, cursor.minimums)
    except ValueError as error:
        raise cursor.error(f"a guard ({error})") from None


def _value_name(label: str) -> str | None:
    name = label[1:]
    return None if name.isdigit() else _SUFFIX.sub("", name)


# --- bodies -----------------------------------------------------------------------------------------------------


class _BodyReader:
    def __init__(self, function: Function, minimums: dict[str, int], lines: list[str], number: int) -> None:
        self.function = function
        self.lines = lines
        self.number = number
        self.minimums = minimums
        self.values: dict[str, Value] = {}
        self.types: dict[str, tuple[TensorType, ...]] = {}
        self.attributes: dict[tuple[str, str], Attributes] = {}
        self.locations: dict[str | None, Location] = {None: UNKNOWN}
        labels = _labels([p.value for p in function.parameters])
        self.values.update(zip(labels, function.block.parameters, strict=True))

    def read(self, block: Block) -> int:
        """Read ops into `block` until its `}`; returns the number of the line after it."""
        builder = Builder(block, function=self.function)
        lines, match_line = self.lines, _LINE.fullmatch
        while self.number < len(lines):
            line = lines[self.number]
            match = match_line(line)
            if match is None:
                stripped = line.strip()
                if not stripped or stripped.startswith("//"):
                    self.number += 1
                    continue
                if stripped.startswith("}"):
                    self._check_end(block)
                    self.number += 1
                    return self.number
                raise self._explain(line)
            self._op(builder, match, line)
        raise ParseError("the text ends inside a function; `}` is missing", len(lines), 1)

    def _check_end(self, block: Block) -> None:
        wanted = "return" if isinstance(block.owner, Function) else "yield"
        if block.last is None or block.last.name != wanted:
            raise ParseError(f"the block ends without `{wanted}`", self.number + 1, 1)

    def _op(self, builder: Builder, match: re.Match[str], line: str) -> None:
        results, name, operand_text, attribute_text, region_text, type_text, location_text = match.groups()
        definition = OPS.get(name)
        if definition is None:
            raise ParseError(f"there is no op {name!r}", self.number + 1, match.start(2) + 1)
        values = self.values
        operands: list[Value | None] = []
        if operand_text is not None:
            try:
                operands = [
                    None if label == "_" else values[label] for label in operand_text.replace(" ", "").split(",")
                ]
            except KeyError as error:
                label = error.args[0]
                raise ParseError(f"{label} is not defined before", self.number + 1, line.index(label) + 1) from None
        key = (name, attribute_text or "")
        attributes = self.attributes.get(key)
        if attributes is None:
            attributes = self._attributes(definition, attribute_text, match.start(4))
            self.attributes[key] = attributes
        first_line = self.number + 1
        self.number += 1
        regions: tuple[Region, ...] = ()
        if region_text is not None:
            regions, type_text, location_text = self._regions(region_text)
        types = self._types(type_text, match, first_line)
        location = self.locations.get(location_text)
        if location is None:
            location = self._location(location_text or "", match.start(7) + 1, first_line)
        try:
            op = self._insert(builder, definition, operands, attributes, regions, types, location)
        except GraphcError as error:
            raise ParseError(str(error), first_line, match.start(2) + 1) from error
        if results is not None:
            labels = results.split(", ") if "," in results else (results,)
            if len(labels) != len(op.results):
                raise ParseError(f"{name} has {len(op.results)} results, {len(labels)} are named", first_line, 1)
            for label, value in zip(labels, op.results, strict=True):
                if label in values:
                    raise ParseError(f"{label} is defined twice", first_line, line.index(label) + 1)
                values[label] = value
                text = label[1:]
                if not text.isdigit():
                    value.name = _SUFFIX.sub("", text) if "." in text else text
        elif op.results:
            raise ParseError(f"the results of {name} have no names", first_line, match.start(2) + 1)

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
        if definition.name == "call":  # checked when all functions are read
            inferred = Inferred(attributes, types, ())
        else:
            inferred = definition.infer(tuple([v if v is None else v.type for v in operands]), attributes, regions)
            if inferred.types != types:
                check_types(definition.name, inferred.types, types)
                inferred = Inferred(inferred.attributes, types, inferred.guards)
        return builder.insert(definition.op_class, tuple(operands), inferred, regions, location)

    def _types(self, text: str | None, match: re.Match[str], line: int) -> tuple[TensorType, ...]:
        if text is None:
            return ()
        found = self.types.get(text)
        if found is None:
            cursor = Cursor(text, line, max(match.start(6), 0), self.minimums)
            types = [cursor.type()]
            while cursor.try_take(","):
                types.append(cursor.type())
            found = self.types[text] = tuple(types)
        return found

    def _attributes(self, definition: OpDef[..., Any], text: str | None, column: int) -> Attributes:
        cursor = Cursor(text or "", self.number + 1, max(column, 0), self.minimums)
        named: dict[str, Any] = {}
        while not cursor.at_end():
            name = cursor.take(NAME, "an attribute")
            if name not in definition.attribute_names:
                raise cursor.error(
                    f"an attribute of {definition.name} ({', '.join(definition.attribute_names)}), not {name!r},"
                )
            cursor.expect("=")
            named[name] = cursor.attribute()
            if not cursor.at_end():
                cursor.expect(",")
        try:
            return definition.make_attributes(**named)
        except (GraphcError, TypeError) as error:
            raise ParseError(str(error), self.number + 1, column + 1 if column >= 0 else 1) from None

    def _regions(self, head: str) -> tuple[tuple[Region, ...], str | None, str | None]:
        regions: list[Region] = []
        while True:
            region = Region()
            regions.append(region)
            cursor = Cursor(head, self.number, 0, self.minimums)
            cursor.expect("(")
            while not cursor.try_take(")"):
                label = cursor.take(_VALUE, "a parameter")
                cursor.expect(":")
                self.values[label] = region.block.add_parameter(cursor.type(), _value_name(label))
                if not cursor.looking_at(")"):
                    cursor.expect(",")
            self.read(region.block)
            last = self.lines[self.number - 1]
            following = _REGION_NEXT.fullmatch(last)
            if following is not None:
                head = following[1]
                continue
            end = _REGION_END.fullmatch(last)
            if end is None:
                raise Cursor(last, self.number).error("`} : types` or `}, (parameters) {`")
            return tuple(regions), end[1], end[2]

    def _location(self, text: str, column: int, line: int) -> Location:
        found = self.locations[text] = Cursor(text, line, column - 1).location()
        return found

    def _explain(self, line: str) -> ParseError:
        """Why a line is no op: read it piece by piece until a piece is missing."""
        cursor = Cursor(line, self.number + 1, 0, self.minimums)
        if cursor.looking_at("%"):
            cursor.take(_VALUE, "a result")
            while cursor.try_take(","):
                cursor.take(_VALUE, "a result")
            cursor.expect("=")
        cursor.take(r"[a-z_]\w*", "the name of an op")
        while cursor.looking_at(_OPERAND):
            cursor.take(_OPERAND, "an operand")
            if not cursor.try_take(","):
                break
            if not cursor.looking_at(_OPERAND):
                return cursor.error("an operand")
        if cursor.try_take("{"):
            cursor.take(rf"(?:[^\"{{}}]|{STRING})*", "attributes")
            cursor.expect("}")
        if cursor.try_take(":"):
            cursor.type()
            while cursor.try_take(","):
                cursor.type()
        if cursor.try_take("@"):
            cursor.location()
        return cursor.error("the end of the line" if not cursor.at_end() else "one space between the parts of an op")


def check_types(name: str, inferred: tuple[TensorType, ...], written: tuple[TensorType, ...]) -> None:
    """Raise `GraphcError` where a written type contradicts the inferred one; sizes equal under a guard may differ."""
    from graphc.ir.dims import equal

    if len(inferred) != len(written):
        raise GraphcError(f"{name} has {len(inferred)} results, not {len(written)}")
    for have, want in zip(inferred, written, strict=True):
        if have is want:
            continue
        fits = have.dtype is want.dtype and have.ndim == want.ndim
        if not fits or any(equal(a, b) is False for a, b in zip(have.shape, want.shape, strict=True)):
            raise GraphcError(f"the result of {name} is {have}, not {want}")


def _labels(values: list[Value]) -> list[str]:
    """The labels the printer gives a function's parameters."""
    taken: dict[str, int] = {}
    labels: list[str] = []
    numbered = 0
    for value in values:
        if value.name is None:
            labels.append(f"%{numbered}")
            numbered += 1
            continue
        seen = taken.get(value.name)
        taken[value.name] = 0 if seen is None else seen + 1
        labels.append(f"%{value.name}" if seen is None else f"%{value.name}.{seen + 1}")
    return labels


def _finish_function(function: Function, results: list[_Updates], reader: _BodyReader) -> None:
    outputs = function.outputs
    if len(outputs) != len(results):
        raise ParseError(
            f"@{function.name} returns {len(outputs)} values, its head declares {len(results)}", reader.number, 1
        )
    parameters = dict(zip(_labels([p.value for p in function.parameters]), function.parameters, strict=True))
    for value, (name, type, updates) in zip(outputs, results, strict=True):
        if value.type is not type:
            raise ParseError(f"@{function.name} returns {value.type} where its head declares {type}", reader.number, 1)
        if updates is not None and updates not in parameters:
            raise ParseError(f"@{function.name} updates {updates}, which is no parameter", reader.number, 1)
        function.results.append(Result(name, None if updates is None else parameters[updates]))
    if all(r.name is None and r.updates is None for r in function.results):
        function.results = [Result() for _ in outputs]


def _check_calls(module: Module) -> None:
    for function in module.functions.values():
        for op in function.walk():
            if op.name != "call":
                continue
            callee = module.functions.get(op.attributes[0])
            if callee is None:
                raise ParseError(f"@{function.name} calls @{op.attributes[0]}, which is not defined")
            inferred = infer_call(callee, tuple(v.type for v in op.operands if v is not None))
            check_types(f"call @{callee.name}", inferred.types, tuple(r.type for r in op.results))
            for guard in inferred.guards:
                function.add_guard(guard)
