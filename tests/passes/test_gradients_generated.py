"""Gradients of every op by `differentiate`: against central differences in float64 and against torch's autograd over
the forward code that the torch target emits; gradients of gradients against central differences of the gradient.

Each loss is the sum of an op's results times drawn weights; directions are random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from sampling import Case, cases
from torch_autograd import torch_gradients

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dtypes import f64
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Result, Value
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter
from graphc.passes.autodiff import differentiate

Array = np.ndarray[Any, Any]
STEP = 1e-5

STRAIGHT_THROUGH = "it goes straight through the rounding, whose derivative is zero"

NOT_ITS_DERIVATIVE = {
    "dora_norm": "it counts as a constant",
    "fake_quantize": STRAIGHT_THROUGH,
    "fake_quantize_weight": STRAIGHT_THROUGH,
    "stop_gradient": "it has none on purpose",
}

LACKING: dict[str, str] = {}
"""Ops whose gradient the IR refuses, and why."""

LACKING_TWICE: dict[str, str] = {}
"""Ops whose gradient of the gradient the IR refuses, and why."""

NO_SECOND_DERIVATIVE: dict[str, str] = {}
"""Ops left out of the gradients of gradients: their first derivative is not continuous where samples lie."""

NOT_IN_TORCH = {
    "attention_gradient": "it is spelled by torch.autograd.grad, whose result torch does not differentiate again",
    "fake_quantize": STRAIGHT_THROUGH,
    "fake_quantize_weight": STRAIGHT_THROUGH,
}
"""Ops whose emitted form torch cannot differentiate, or does otherwise, and why."""


class Subject:
    """One sample of an op in float64 as a loss: a module with `main`, and its inputs; `None` where nothing counts."""

    def __init__(self, case: Case) -> None:
        self.case = case
        rng = np.random.default_rng(case.number)
        drawn = case.arrays(f64, rng)
        self.operands = [a for a in drawn if a is not None]
        self.module = Module()
        function = self.module.add_function("main")
        values: list[Value | None] = [
            None if t is None else function.add_parameter(t, f"x{i}") for i, t in enumerate(case.types(f64))
        ]
        results = interpret(case.module(f64), *self.operands, dtype="float64")
        self.results = results if isinstance(results, tuple) else (results,)
        self.weights: list[Array] = []
        with Builder(function.block) as builder:
            found = case.op.build(builder, values, case.attributes).results
            terms: list[Value] = []
            for i, value in enumerate(found):
                if value.dtype is f64:
                    weight = function.add_parameter(value.type, f"weight{i}")
                    self.weights.append(rng.standard_normal(self.results[i].shape))
                    terms.append(ops.reduce_sum(value * weight, axes=range(value.ndim)))
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            builder.finish([total])
        function.results = [Result()]
        self.wrt = [p.name for p in function.parameters if p.type.dtype is f64 and p.name.startswith("x")]
        self.inputs = [*self.operands, *self.weights]
        self.rng = rng

    def loss(self, inputs: Sequence[Array], entry: str = "main") -> float:
        found = interpret(self.module, *inputs, dtype="float64", entry=entry)
        return float(found[0] if isinstance(found, tuple) else found)

    def directions(self) -> list[Array | None]:
        names = [p.name for p in self.module.functions["main"].parameters]
        return [
            self.rng.standard_normal(a.shape) if name in self.wrt else None
            for name, a in zip(names, self.inputs, strict=True)
        ]

    def slope(self, directions: Sequence[Array | None], entry: str = "main") -> float:
        """The central difference along the directions."""
        moved = [
            [a if v is None else a + sign * STEP * v for a, v in zip(self.inputs, directions, strict=True)]
            for sign in (1, -1)
        ]
        return (self.loss(moved[0], entry) - self.loss(moved[1], entry)) / (2 * STEP)


@cache
def subjects() -> dict[str, list[Case]]:
    """The cases by op: those in float64 with an operand and a result that count, all of it finite."""
    found: dict[str, list[Case]] = {}
    for name, op in OPS.items():
        for case in cases(op):
            if f64 not in case.dtypes or not any(t is not None and t.dtype is f64 for t in case.types(f64)):
                continue
            if not any(t.dtype is f64 for t in case.infer(f64).types) or op.introduces_symbols:
                continue
            subject = Subject(case)
            if all(np.isfinite(r).all() for r in subject.results if r.dtype.kind == "f"):
                found.setdefault(name, []).append(case)
    return found


def gradient(subject: Subject) -> list[Array]:
    differentiate(subject.module, wrt=subject.wrt)
    subject.module.verify()
    with np.errstate(all="ignore"):
        found = interpret(subject.module, *subject.inputs, dtype="float64", entry="value_and_grad")
    return list(found[1:])


def test_against_central_differences(announce: Callable[[str], None]) -> None:
    wrong: list[str] = []
    lacking: set[str] = set()
    checked = 0
    for name, each in subjects().items():
        if name in NOT_ITS_DERIVATIVE:
            continue
        for case in each:
            subject = Subject(case)
            try:
                found = gradient(subject)
            except UnsupportedError:
                lacking.add(name)
                continue
            directions = subject.directions()
            moved = [v for v in directions if v is not None]
            declared = sum(float((g * v).sum()) for g, v in zip(found, moved, strict=True))
            scale = 1 + sum(float(np.abs(g * v).sum()) for g, v in zip(found, moved, strict=True))
            measured = subject.slope(directions)
            checked += 1
            if not abs(declared - measured) <= 1e-6 * scale:
                wrong.append(f"{case.id}: {declared} declared, {measured} measured")
    assert not wrong, "\n".join(wrong)
    assert lacking == set(LACKING)
    announce(
        f"gradients by differentiate: {checked} samples of {len(subjects())} ops against central differences; "
        f"left out {', '.join(sorted({*LACKING, *NOT_ITS_DERIVATIVE}))}"
    )


def test_against_torch_autograd(announce: Callable[[str], None]) -> None:
    pytest.importorskip("torch")
    chosen = [case for name, each in subjects().items() if name not in LACKING for case in each]
    chosen = [case for case in chosen if case.op.name not in NOT_IN_TORCH]
    made = [Subject(case) for case in chosen]
    found = torch_gradients([(s.module, s.inputs, s.wrt) for s in made])
    wrong: list[str] = []
    refused: set[str] = set()
    checked = 0
    for subject, theirs in zip(made, found, strict=True):
        if isinstance(theirs, Exception):
            refused.add(f"{subject.case.op.name}: {str(theirs).splitlines()[0][:90]}")
            continue
        checked += 1
        for name, one, other in zip(subject.wrt, gradient(subject), theirs, strict=True):
            scale = float(np.max(np.abs(one), initial=1))
            if one.shape != other.shape or not np.allclose(one, other, rtol=1e-9, atol=1e-9 * scale):
                wrong.append(f"{subject.case.id}, {name}: {one.ravel()[:4]} here, {other.ravel()[:4]} in torch")
    assert not wrong, "\n".join(wrong)
    announce(
        f"gradients against torch autograd: {checked} of {len(made)} samples; torch has no float64 form or no gradient "
        f"of {', '.join(sorted({text.split(':')[0] for text in refused} | NOT_IN_TORCH.keys()))}"
    )
    assert checked >= 0.9 * len(made), "\n".join(sorted(refused))


def twice(subject: Subject) -> tuple[list[Array], list[Array]]:
    """The gradient of Σ gradient · weights, and those weights: the function `first` computes the sum."""
    first = differentiate(subject.module, wrt=subject.wrt, name="first")
    terminator = first.block.terminator
    outputs = first.outputs[1:]
    drawn: list[Array] = []
    with Builder(first.block, terminator):
        total: Value | None = None
        for i, value in enumerate(outputs):
            weight = first.add_parameter(value.type, f"direction{i}")
            array = subject.inputs[[p.name for p in first.parameters].index(subject.wrt[i])]
            drawn.append(subject.rng.standard_normal(array.shape))
            term = ops.reduce_sum(value * weight, axes=range(value.ndim))
            total = term if total is None else total + term
    assert total is not None
    Rewriter().set_operands(terminator, [total])
    first.results = [Result()]
    subject.inputs = [*subject.inputs, *drawn]
    differentiate(subject.module, entry="first", wrt=subject.wrt, name="second")
    subject.module.verify()
    with np.errstate(all="ignore"):
        found = interpret(subject.module, *subject.inputs, dtype="float64", entry="second")
    return list(found[1:]), drawn


def test_gradients_of_gradients(announce: Callable[[str], None]) -> None:
    wrong: list[str] = []
    lacking: set[str] = set()
    checked = 0
    names: set[str] = set()
    for name, each in subjects().items():
        if name in NOT_ITS_DERIVATIVE or name in NO_SECOND_DERIVATIVE or name in LACKING:
            continue
        for case in each:
            subject = Subject(case)
            directions = subject.directions()
            try:
                found, drawn = twice(subject)
            except UnsupportedError:
                lacking.add(name)
                continue
            directions = [*directions, *(None for _ in drawn)]
            moved = [v for v in directions if v is not None]
            declared = sum(float((g * v).sum()) for g, v in zip(found, moved, strict=True))
            scale = 1 + sum(float(np.abs(g * v).sum()) for g, v in zip(found, moved, strict=True))
            measured = subject.slope(directions, "first")
            checked += 1
            names.add(name)
            if not abs(declared - measured) <= 2e-5 * scale:
                wrong.append(f"{case.id}: {declared} declared, {measured} measured")
    assert not wrong, "\n".join(wrong)
    assert lacking == set(LACKING_TWICE)
    left_out = sorted({*LACKING, *LACKING_TWICE, *NO_SECOND_DERIVATIVE, *NOT_ITS_DERIVATIVE})
    announce(f"gradients of gradients: {checked} samples of {len(names)} ops; left out {', '.join(left_out)}")
