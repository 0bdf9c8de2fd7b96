"""What is installed here, and which ops each target has: by itself, through a decomposition, or not at all."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Literal

import numpy as np

import graphc.ir.ops as _declares_all_ops  # noqa: F401
from graphc import codegen
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.dtypes import DTYPES, DType, bool_, f32, i32
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, ShapeError, UnsupportedError
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Composite, Draw, OpDef, Sample
from graphc.ir.parser import parse
from graphc.ir.types import TensorType

Level = Literal["native", "decomposed"]

WRITTEN = {
    "call": """
        private func @g(%x: f32[2] input) -> f32[2] {
          return %x
        }
        func @f(%x: f32[2] input) -> f32[2] {
          %y = call %x {callee = @g} : f32[2]
          return %y
        }""",
    "cond": """
        func @f(%p: bool[] input, %x: f32[2] input) -> f32[2] {
          %y = cond %p, %x (%a: f32[2]) {
            yield %a
          }, (%a: f32[2]) {
            %b = neg %a : f32[2]
            yield %b
          } : f32[2]
          return %y
        }""",
    "custom_gradient": """
        private func @g(%x: f32[2] input) -> f32[2] {
          %y = sin %x : f32[2]
          return %y
        }
        private func @g_gradient(%x: f32[2] input, %y: f32[2] input, %dy: f32[2] input) -> f32[2] {
          return %dy
        }
        func @f(%x: f32[2] input) -> f32[2] {
          %y = custom_gradient %x {function = @g, gradient = @g_gradient, outputs = 1, wrt = [0]} : f32[2]
          return %y
        }""",
    "native_gradient": """
        private func @loss(%x: f32[] input) -> f32[] {
          %y = sin %x : f32[]
          return %y
        }
        func @f(%x: f32[] input) -> (f32[], f32[]) {
          %y, %dx = native_gradient %x {function = @loss, wrt = [0]} : f32[], f32[]
          return %y, %dx
        }""",
    "while": """
        func @f(%x: f32[] input, %n: f32[] input) -> f32[] {
          %y = while %x, %n {carried = 1} (%a: f32[], %b: f32[]) {
            %p = lt %a, %b : bool[]
            yield %p
          }, (%a: f32[], %b: f32[]) {
            %c = add %a, %a : f32[]
            yield %c
          } : f32[]
          return %y
        }""",
    "scan": """
        func @f(%s: f32[] input, %xs: f32[4] input) -> (f32[], f32[4]) {
          %y, %ys = scan %s, %xs {carried = 1, sliced = 1, length = 4} (%a: f32[], %x: f32[]) {
            %b = add %a, %x : f32[]
            yield %b, %a
          } : f32[], f32[4]
          return %y, %ys
        }""",
    "assume_dim": """
        func @f(%x: f32[8] input, %n: i32[] input) -> f32[K] {
          %y = assume_dim %x, %n {axis = 0, size = K} : f32[K]
          return %y
        }""",
}
"""A use of each op whose samples cannot be made operand by operand."""

TERMINATORS = ("return", "yield")
"""Every target has these; they are not asked for."""


@dataclass(frozen=True)
class TargetInfo:
    """A target as it is here: whether it is installed, in which versions, and which ops it has."""

    name: str
    extra: str
    """The pip extra that installs it; empty when graphc itself does."""
    installed: bool
    versions: Mapping[str, str]
    """Versions of the packages it needs, of those that are installed."""

    @property
    def ops(self) -> dict[str, Level]:
        """Every op that the target takes in float32 (or, where the op has none, in its first dtype).

        Raises `TargetError` when it is not installed.
        """
        target = codegen.target(self.name)
        levels = {name: support(target, definition) for name, definition in all_ops().items()}
        return {name: next(iter(found.values())) for name, found in levels.items() if found}

    def __str__(self) -> str:
        if not self.installed:
            return f"{self.name}: not installed (pip install 'graphc[{self.extra}]')"
        return f"{self.name}: {', '.join(f'{name} {version}' for name, version in self.versions.items())}"


def targets() -> dict[str, TargetInfo]:
    """Every target by name: what is installed here, and what each supports (`.ops`)."""
    return {
        name: TargetInfo(name, target.extra, target.available(), _versions(target))
        for name, target in sorted(codegen.targets().items())
    }


def _versions(target: Target) -> dict[str, str]:
    found: dict[str, str] = {}
    for module in target.modules:
        try:
            found[module] = metadata.version(module)
        except metadata.PackageNotFoundError:
            continue
    return found


def all_ops() -> dict[str, OpDef[..., Any]]:
    """Every declared op by name, sorted."""
    return {name: OPS[name] for name in sorted(OPS) if name not in TERMINATORS}


def support(target: Target, definition: OpDef[..., Any]) -> dict[DType, Level]:
    """How the target takes the op in each dtype; dtypes it cannot take are left out. float32 comes first."""
    found: dict[DType, Level] = {}
    for dtype, op in sample_ops(definition).items():
        level = _level(target, op) or _level_prepared(target, op)
        if level is not None:
            found[dtype] = level
    return found


def _level(target: Target, op: Op) -> Level | None:
    if target.supports(op):
        return "native"
    if op.name in ("call", "custom_gradient"):  # the function is inlined
        return "decomposed"
    if not isinstance(op.definition, Composite):
        return None
    types = tuple([None if value is None else value.type for value in op.operands])
    inner = op.definition.decomposition(types, op.attributes).block
    levels = [_level(target, each) for each in inner if each.name not in TERMINATORS]
    return None if None in levels else "decomposed"


def _level_prepared(target: Target, op: Op) -> Level | None:
    """How the target takes the op once its own passes ran: torch has convolutions with channels first only."""
    if op.definition.name in WRITTEN:
        return None
    module = Module()
    function = module.add_function("sample")
    values = [None if value is None else function.add_parameter(value.type) for value in op.operands]
    with Builder(function.block) as builder:
        builder.finish(op.definition.build(builder, values, op.attributes).results)
    try:
        prepared = target.prepare(module).main.block
    except UnsupportedError:  # a target may refuse a dtype wherever it stands
        return None
    levels = {_level(target, each) for each in prepared if each.name not in TERMINATORS}
    return None if None in levels else "native" if levels == {"native"} else "decomposed"


@cache
def sample_ops(definition: OpDef[..., Any]) -> dict[DType, Op]:
    """The op, built from its first fitting sample in each dtype it takes; float32 comes first."""
    found: dict[DType, Op] = {}
    if definition.name in WRITTEN:
        module = parse(textwrap.dedent(WRITTEN[definition.name]))
        return {f32: next(op for op in module.walk() if op.definition is definition)}
    for dtype in sorted(DTYPES, key=lambda each: each is not f32):
        for sample in definition.samples:
            try:
                found[dtype] = sample_op(definition, sample, dtype)
            except (DTypeError, ShapeError):  # the op does not take this dtype, or not in this sample
                continue
            break
    return found


def sample_op(definition: OpDef[..., Any], sample: Sample, dtype: DType) -> Op:
    """A call of the op as the sample has it, in a function of its own. `DTypeError` where it takes no `dtype`."""
    function = Module().add_function("sample")
    kinds = [definition.kind_of(i) for i in range(len(sample.operands))] if definition.operands else []
    operands = [
        None if operand is None else function.add_parameter(_type(operand, kind, dtype))
        for operand, kind in zip(sample.operands, kinds, strict=True)
    ]
    operands += [None] * (0 if definition.variadic else definition.arity - len(operands))
    attributes = definition.make_attributes(**sample.attributes)
    return definition.build(Builder(function.block), operands, attributes)


def _type(operand: Any, kind: str, dtype: DType) -> TensorType:
    if isinstance(operand, tuple):
        operand = Draw(operand)
    fixed = operand.dtype if isinstance(operand, Draw) else dtype_of(np.asarray(operand).dtype)
    if kind == "Tensor" or fixed is None:
        usual = {"IndexTensor": i32, "BoolTensor": bool_}
        fixed = usual.get(kind, dtype)
    return TensorType.of(fixed, operand.shape)
