"""The drawn calls of ops (`op.sample(...)`) as modules and arrays: what the generated tests of ops and targets run on.

`cases(op)` are the samples of one op, `all_cases()` those of all. A case says in which dtypes it can be drawn, and
gives for one of them its operands as arrays, their types, and a module of that one op.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.ir.ops  # noqa: F401  declares the ops
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, Guard, symbol
from graphc.ir.dtypes import ALL, BOOL, DTYPES, INTEGERS, DType, dtype, f32
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Result
from graphc.ir.interpreter import round_to
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Draw, Inferred, OpDef, Sample
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]

WITHOUT_SAMPLE = {
    "assume_dim": "its result has a symbolic size, bound when it runs",
    "call": "it needs another function",
    "cond": "it has regions",
    "custom_gradient": "it needs other functions",
    "native_gradient": "it needs another function",
    "return": "it ends a function and has no results",
    "scan": "it has regions",
    "while": "it has regions",
    "yield": "it ends a region and has no results",
}
"""Ops that no generated test covers, and why. Their tests are written by hand."""


@dataclass(frozen=True)
class Case:
    """One sample of an op."""

    op: OpDef[..., Any]
    sample: Sample
    number: int

    @property
    def id(self) -> str:
        return f"{self.op.name}-{self.number}"

    @property
    def operands(self) -> tuple[Any, ...]:
        """The sample's operands, None for optional ones that it leaves out."""
        given = self.sample.operands
        return given if self.op.variadic else given + (None,) * (self.op.arity - len(given))

    @property
    def attributes(self) -> Any:
        """The attributes, canonical and interned, as ops carry them."""
        return self.op.make_attributes(**self.sample.attributes)

    @property
    def named_attributes(self) -> dict[str, Any]:
        """The attributes as its rules get them: completed and normalised by the type rule, in the first dtype."""
        inferred = self.op.infer(self.types(self.dtypes[0]), self.attributes)
        return dict(zip(self.op.attribute_names, inferred.attributes, strict=True))

    def _is_drawn(self, index: int) -> bool:
        """Whether the operand has the dtype under test."""
        operand = self.operands[index]
        if operand is None or (isinstance(operand, Draw) and operand.dtype is not None):
            return False
        return self.op.kind_of(index) == "Tensor" or isinstance(operand, (Draw, tuple))

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """What it can be drawn in; only float32 where no operand depends on it."""
        kinds = {self.op.kind_of(i) for i in range(len(self.operands)) if self._is_drawn(i)}
        if not kinds:
            return (f32,)
        allowed = {"Tensor": self.op.dtypes, "IndexTensor": INTEGERS, "BoolTensor": BOOL, "AnyTensor": ALL}
        return tuple(d for d in DTYPES if all(d in allowed[kind] for kind in kinds) and self._infers(d))

    def _infers(self, dtype: DType) -> bool:
        """Whether the op takes this dtype with these attributes: convert does not take complex to real."""
        try:
            self.op.infer(self.types(dtype), self.attributes)
        except GraphcError:
            return False
        return True

    def types(self, of: DType) -> tuple[TensorType | None, ...]:
        """The operands' types when drawn in this dtype."""
        return tuple(self._type(i, of) for i in range(len(self.operands)))

    def _type(self, index: int, of: DType) -> TensorType | None:
        operand = self.operands[index]
        if operand is None:
            return None
        if self._is_drawn(index):
            return TensorType.of(of, operand if isinstance(operand, tuple) else operand.shape)
        return TensorType.of(operand.dtype if isinstance(operand, Draw) else dtype(operand.dtype), operand.shape)

    def infer(self, of: DType) -> Inferred:
        return self.op.infer(self.types(of), self.attributes)

    def arrays(self, of: DType, rng: np.random.Generator) -> list[Array | None]:
        """The operands, drawn in this dtype."""
        return [self._array(i, of, rng) for i in range(len(self.operands))]

    def _array(self, index: int, of: DType, rng: np.random.Generator) -> Array | None:
        operand = self.operands[index]
        if operand is None:
            return None
        if isinstance(operand, tuple):
            operand = Draw(operand)
        if isinstance(operand, Draw):
            return draw(operand, operand.dtype or of, rng)
        return round_to(operand, of) if self._is_drawn(index) else np.asarray(operand)

    def module(self, of: DType) -> Module:
        """A module whose main function is this op on parameters of this dtype."""
        return self._module(self.types(of))

    def symbolic_types(self, of: DType) -> tuple[tuple[TensorType | None, ...], int] | None:
        """The types with the leading size n of the first operand made a symbol B wherever another operand leads with
        it, and n; None where that size is not above 1, or the op with its attributes wants just this number."""
        types = self.types(of)
        first = next((t for t in types if t is not None), None)
        if first is None or not first.shape or first.shape[0] in (0, 1):
            return None
        size = first.shape[0]
        found = tuple(
            t.with_shape((BATCH, *t.shape[1:])) if t is not None and self._leads(i, size) else t
            for i, t in enumerate(types)
        )
        try:
            self.op.infer(found, self.attributes)
        except GraphcError:
            return None
        return found, size

    def _leads(self, index: int, size: int) -> bool:
        shape = self._type(index, f32).shape
        return bool(shape) and shape[0] == size and isinstance(self.operands[index], (tuple, Draw))

    def symbolic_module(self, of: DType) -> Module | None:
        """The module with a symbolic batch size, where shapes and attributes allow it; see `symbolic_types`."""
        found = self.symbolic_types(of)
        return None if found is None else self._module(found[0])

    def _module(self, types: tuple[TensorType | None, ...]) -> Module:
        module = Module()
        function = module.add_function("main")
        values = [None if t is None else function.add_parameter(t, self._operand_name(i)) for i, t in enumerate(types)]
        with Builder(function.block) as builder:
            op = self.op.build(builder, values, self.attributes)
            function.results.extend(Result() for _ in op.results)
            builder.finish(op.results)
        return module

    def _operand_name(self, index: int) -> str:
        last = self.op.arity - 1
        name = self.op.operands[min(index, last)].name
        return f"{name}{index - last}" if self.op.variadic and index >= last else name


BATCH: Dim = symbol("B")


def cases(op: OpDef[..., Any] | str) -> list[Case]:
    """The samples of an op."""
    op = OPS[op] if isinstance(op, str) else op
    return [Case(op, sample, i) for i, sample in enumerate(op.samples)]


def all_cases() -> Iterator[Case]:
    """The samples of every op that has some."""
    for op in OPS.values():
        yield from cases(op)


def draw(what: Draw, of: DType, rng: np.random.Generator) -> Array:
    """An array in [low, high) of this dtype; in that square of the plane when complex."""
    if of.is_bool:
        return rng.integers(0, 2, what.shape).astype(bool)
    if of.is_complex:
        parts = rng.uniform(what.low, what.high, (2, *what.shape))
        return round_to(parts[0] + 1j * parts[1], of)
    if of.is_float:
        return round_to(rng.uniform(what.low, what.high, what.shape), of)
    limit = 2**of.bits if of.kind == "u" else 2 ** (of.bits - 1)
    low = max(math.ceil(what.low), 0 if of.kind == "u" else -limit)
    high = min(max(math.ceil(what.high), low + 1), limit)
    return round_to(rng.integers(low, high, what.shape), of)


def guards_hold(guards: tuple[Guard, ...], size: int) -> bool:
    """Whether the guards hold with this batch size."""
    return all(guard.check({BATCH.name: size}) for guard in guards)
