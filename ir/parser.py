"""Reads the text form that `printer` writes. One op a line; a line that starts with `//` is a comment.

Here: the module, its weights and the heads of its functions; the ops are read by `body_reader`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from graphc.ir.attributes import FunctionRef
from graphc.ir.body_reader import BodyReader, Call, check_types, value_name
from graphc.ir.cursor import NAME, VALUE, Cursor, plain_type
from graphc.ir.errors import GraphcError, ParseError
from graphc.ir.graph import Function, Parameter, Result, Role, Value
from graphc.ir.module import Module
from graphc.ir.printer import VERSION_LINE
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType
from graphc.ir.weights_text import parse_plain_weight, parse_weight

_FUNCTION = re.compile(r"(private )?func @")

# A parameter of the commonest form, which another one follows.
_PLAIN_PARAMETER = re.compile(r'(%[A-Za-z_]\w*): ([a-z]\w*\[[0-9, ]*\]) (input|param|state|key)(?: "([^"\\]+)")?,\s*')

Array = np.ndarray[Any, Any]


def parse(text: str, weights: Mapping[str, Array] | None = None) -> Module:
    """The module that `text` describes. `weights` holds arrays that the text only refers to.

    Raises `ParseError` with line and column, for the first thing that is wrong.
    """
    module = Module()
    lines = text.split("\n")
    number = _version(lines)
    calls: list[Call] = []
    while number < len(lines):
        line = lines[number]
        stripped = line.strip()
        if not stripped or stripped.startswith("//"):
            number += 1
        elif stripped.startswith("weight "):
            if not parse_plain_weight(module.weights, line, weights):
                parse_weight(module.weights, Cursor(line, number + 1), weights)
            number += 1
        elif _FUNCTION.match(stripped):
            number = _function(module, lines, number, calls)
        else:
            raise Cursor(line, number + 1).error("`weight`, `func` or `private func`")
    for call in calls:
        _check_call(module, call)
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
            raise Cursor(line, number + 1).failure(f"this is {stripped!r}; this release reads {VERSION_LINE!r}")
        return number
    return len(lines)


def _function(module: Module, lines: list[str], number: int, calls: list[Call]) -> int:
    """Read the function whose head starts at line `number`; returns the number of the line after it."""
    start = number
    while not lines[number].rstrip().endswith("{"):
        number += 1
        if number == len(lines):
            raise ParseError("the head of the function has no `{`", start + 1, len(lines[start].rstrip()) + 1)
    head = Cursor("\n".join(lines[start : number + 1]), start + 1)
    function = _named_function(module, head)
    if head.try_take("<"):
        _minimums(head)
    labels = _parameters(module, function, head)
    head.expect("->")
    results = _Results(function, {label: function.parameters[value.index] for label, value in labels.items()}, head)
    if head.try_take("where "):
        function.add_guard(head.guard())
        while head.try_take(","):
            function.add_guard(head.guard())
    head.expect("{")
    if not head.at_end():
        raise head.error("the end of the line")
    reader = BodyReader(function, labels, head.minimums, lines, number + 1, calls)
    reader.read(function.block)
    end = Cursor(lines[reader.number - 1], reader.number)
    end.expect("}")
    if not end.at_end():
        raise end.error("the end of the line")
    results.check()
    return reader.number


def _named_function(module: Module, head: Cursor) -> Function:
    public = not head.try_take("private ")
    head.expect("func @")
    start = head.at
    name = head.take(NAME, "a function name")
    if name in module.functions:
        head.at = start
        raise head.failure(f"there is a function @{name} already")
    return module.add_function(name, public)


def _minimums(head: Cursor) -> None:
    """`Z >= 0, N >= 2>`"""
    while True:
        symbol = head.take(NAME, "a symbol")
        head.expect(">=")
        head.minimums[symbol] = head.natural("the least value of the symbol")
        if not head.more(">"):
            return


def _parameters(module: Module, function: Function, head: Cursor) -> dict[str, Value]:
    labels: dict[str, Value] = {}
    head.expect("(")
    if head.try_take(")"):
        return labels
    while True:
        if (plain := _PLAIN_PARAMETER.match(head.text, head.at)) is not None:
            label, text, role, weight = plain.groups()
            type = plain_type(text)
            if type is not None and label not in labels and (weight is None or weight in module.weights):
                labels[label] = function.add_parameter(type, label[1:], cast(Role, role), weight)
                head.at = plain.end()
                continue
        start = head.at
        label = head.take(VALUE, "a parameter")
        name = value_name(label, head)
        if label in labels:
            head.at = start
            raise head.failure(f"{label} is defined twice")
        head.expect(":")
        type = head.type()
        role = cast(Role, head.take(r"(?:input|param|state|key)\b", "a role (input, param, state or key)"))
        weight, start = None, head.at
        if head.looking_at('"'):
            weight = head.string()
            if weight not in module.weights:
                head.at = start
                raise head.failure(f"there is no weight {weight!r} above")
        labels[label] = function.add_parameter(type, name, role, weight)
        if not head.more(")"):
            return labels


class _Results:
    """The results that a head declares, checked against what is returned once the body is read."""

    def __init__(self, function: Function, parameters: dict[str, Parameter], head: Cursor) -> None:
        self.function = function
        self.parameters = parameters
        self.head = head
        self.types: list[TensorType] = []
        self.places: list[int] = []
        self.start = head.at
        if not head.try_take("("):
            self._result(None)
        elif not head.try_take(")"):
            self._named_result()
            while head.more(")"):
                self._named_result()

    def _named_result(self) -> None:
        head, name = self.head, None
        if head.matches(rf"{NAME}\s*:"):
            name = head.take(NAME, "a name")
            head.expect(":")
        self._result(name)

    def _result(self, name: str | None) -> None:
        head = self.head
        self.places.append(head.at)
        self.types.append(head.type())
        result = Result(name)
        if head.try_take("updates "):
            start = head.at
            label = head.take(VALUE, "a parameter")
            if label not in self.parameters:
                head.at = start
                raise head.failure(f"{label} is no parameter of @{self.function.name}")
            result.updates = self.parameters[label]
        self.function.results.append(result)

    def check(self) -> None:
        """Raise `ParseError` where the function returns something else."""
        head, outputs = self.head, self.function.outputs
        if len(outputs) != len(self.types):
            head.at = self.start
            name = self.function.name
            found = number_of(len(outputs), "value")
            raise head.failure(f"@{name} returns {found}, its head declares {len(self.types)}")
        for value, type, place in zip(outputs, self.types, self.places, strict=True):
            if value.type is not type:
                head.at = place
                raise head.failure(f"@{self.function.name} returns {value.type} where its head declares {type}")


def _check_call(module: Module, call: Call) -> None:
    op = call.op
    for name in op.attributes:
        if isinstance(name, FunctionRef) and name not in module.functions:
            raise ParseError(f"there is no function @{name}", call.line, call.column)
    rule = op.definition.call_rule
    assert rule is not None
    try:
        inferred = rule(module.functions, tuple([v.type for v in op.operands if v is not None]), op.attributes)
        check_types(f"{op.name} @{op.attributes[0]}", inferred.types, tuple([r.type for r in op.results]))
    except GraphcError as error:
        raise ParseError(str(error), call.line, call.column) from error
    for guard in inferred.guards:
        call.function.add_guard(guard)
