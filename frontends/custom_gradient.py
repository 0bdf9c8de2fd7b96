"""`custom_gradient`: functions that say themselves what their gradient is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from graphc.frontends.nodes import Closure, is_symbolic, record
from graphc.frontends.recording import current_recording
from graphc.frontends.structures import flatten, map_structure, pack
from graphc.frontends.symbolic import SymbolicTensor
from graphc.frontends.variable import Variable
from graphc.ir import ops as ir
from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_op
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Block, Function, Op, Region, Result, Value
from graphc.ir.location import ROOT, Location
from graphc.ir.module import Module
from graphc.ir.ops.functions import inexact
from graphc.ir.outlining import size_arguments, take_guards
from graphc.ir.suggestions import number_of

Tensors = (Value, SymbolicTensor, Variable, np.ndarray, np.generic)


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: `f` returns its outputs and a function that computes its gradient, in place of the derived one.

    That function gets the cotangents of the outputs that are floats, in order, or by keyword if it has `upstream` as
    one, and returns those of the arguments of `f`, in order (a single one alone); None where there is none. It may use
    values that `f` computed, is differentiated itself for gradients of gradients, and may be nested. No gradient flows
    to what `f` reads besides its positional arguments. On arrays the outputs are computed at once.
    """

    @wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        builder = Builder.current()
        if builder is not None:
            return _Recorded(f, builder, args, kwargs).outputs()
        if is_symbolic(args, kwargs):
            return record(Closure("custom_gradient", call), args, kwargs)
        return _pair(f, f(*args, **kwargs))[0]

    return call


def _pair(f: Callable[..., Any], found: Any) -> tuple[Any, Callable[..., Any]]:
    if not isinstance(found, tuple) or len(found) != 2 or not callable(found[1]):
        raise GraphcError(f"{_name(f)}, a custom_gradient, must return its outputs and a function for their gradient")
    return found


def _name(f: Callable[..., Any]) -> str:
    name = getattr(f, "__name__", "")
    return name if name.isidentifier() else "function"


class _Recorded:
    """A call while something is recorded: both functions are recorded into blocks, and then become functions."""

    def __init__(self, f: Callable[..., Any], builder: Builder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.f = f
        self.builder = builder
        leaves = flatten(args)
        self.tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensors)]
        self.leaf_count = len(leaves)
        self.arguments: list[Value] = [self._value(leaves[i]) for i in self.tensors]
        self.forward, self.backward = Region().block, Region().block
        inner: list[Any] = list(leaves)
        for i, value in zip(self.tensors, self.arguments, strict=True):
            inner[i] = self.forward.add_parameter(value.type, value.name)
        with self._builder(self.forward, builder.location) as recorder:
            found, gradient = _pair(f, f(*pack(args, inner), **kwargs))
            self.structure = map_structure(recorder.value, found)
        self.results: list[Value] = flatten(self.structure)
        self.cotangents = [self.backward.add_parameter(value.type) for value in inexact(self.results)]
        with self._builder(self.backward, Location.of(ROOT)) as recorder:
            found = _called(gradient, self.cotangents)
            self.gradients = self._gradients([each if each is None else recorder.value(each) for each in found])

    def _value(self, leaf: Any) -> Value:
        value = self.builder.value(leaf)
        assert value is not None
        return value

    def _builder(self, block: Block, location: Location) -> Builder:
        return Builder(block, None, location, self.builder.trace_lines, self.builder.function)

    def _gradients(self, found: Sequence[Value | None]) -> dict[int, Value]:
        """The gradients by the number of the argument."""
        if len(found) == self.leaf_count != len(self.tensors):
            found = [found[i] for i in self.tensors]
        if len(found) != len(self.tensors):
            raise GraphcError(
                f"the gradient of {_name(self.f)} returned {number_of(len(found), 'value')} for "
                f"{number_of(len(self.tensors), 'argument')}"
            )
        exact = set(inexact(self.arguments))
        pairs = zip(found, self.arguments, strict=True)
        return {i: each for i, (each, value) in enumerate(pairs) if each is not None and value in exact}

    def outputs(self) -> Any:
        """Make the functions, record the op, and return its outputs."""
        module, owner = self._module(), self.builder.function
        ends = (self.results, list(self.gradients.values()))
        captures = dict.fromkeys(
            value
            for block, end in zip((self.forward, self.backward), ends, strict=True)
            for value in _read(block, end)
            if value.block is not self.forward and value.block is not self.backward
        )
        arguments = [*self.arguments, *captures]
        sizes = size_arguments([*self.forward, *self.backward], arguments, owner)
        captures.update(dict.fromkeys(sizes))
        arguments += sizes
        handed_out = set(self.results)
        residuals = [
            value
            for value in dict.fromkeys(_read(self.backward, ends[1]))
            if value.block is self.forward and value.op is not None and value not in handed_out
        ]
        inner = [*self.forward.parameters, *captures]
        function = self._function(module, _name(self.f), self.forward, inner, [*self.results, *residuals])
        taken = [*inner, *self.results, *residuals, *self.cotangents]
        gradient = self._function(module, f"{function.name}_gradient", self.backward, taken, ends[1])
        attributes = ir.custom_gradient.make_attributes(
            function=function.name, gradient=gradient.name, outputs=len(self.results), wrt=list(self.gradients)
        )
        assert ir.custom_gradient.call_rule is not None
        types = tuple(value.type for value in arguments)
        inferred = ir.custom_gradient.call_rule(module.functions, types, attributes)
        op = self.builder.insert(ir.custom_gradient.op_class, tuple(arguments), inferred)
        return pack(self.structure, op.results[: len(self.results)])

    def _module(self) -> Module:
        recording, function = current_recording(), self.builder.function
        module = function.module if function is not None else None
        if module is None and recording is not None:
            module = recording.module
        if module is None:
            raise GraphcError("custom_gradient is recorded in `graphc.trace`, `graphc.lower` and functional models")
        return module

    def _function(
        self, module: Module, name: str, block: Block, taken: Sequence[Value], results: Sequence[Value]
    ) -> Function:
        """A private function of the ops of `block`, which takes and hands out these values."""
        function = module.add_function(module.free_name(name), public=False)
        values: dict[Value, Value] = {}
        for value, argument in zip(taken, function.add_arguments(taken), strict=True):
            values.setdefault(value, argument)
        for op in block:
            function.block.append(clone_op(op, values))
        take_guards(function, self.builder.function)
        with Builder(function.block) as builder:
            builder.finish([values[value] for value in results])
        function.results = [Result() for _ in results]
        return function


def _read(block: Iterable[Op], ends: Iterable[Value]) -> list[Value]:
    return [*(value for op in block for value in op.operands if value is not None), *ends]


def _called(gradient: Callable[..., Any], cotangents: Sequence[Value]) -> list[Any]:
    try:
        parameters = inspect.signature(gradient).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    by_keyword = any(p.name == "upstream" and p.kind is p.KEYWORD_ONLY for p in parameters)
    if by_keyword and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        found = gradient(upstream=cotangents[0] if len(cotangents) == 1 else tuple(cotangents))
    else:
        found = gradient(*cotangents)
    return list(found) if isinstance(found, (tuple, list)) else [found]


__all__ = ["custom_gradient"]
