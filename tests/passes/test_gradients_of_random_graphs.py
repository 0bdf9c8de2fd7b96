"""Random float64 graphs with branches, loops, scans and calls: the IR's gradient against torch's autograd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from random_graphs import Generator
from torch_autograd import torch_gradients

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dtypes import DType, bool_, f64, i32
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.graph import Function, Result, Value
from graphc.ir.interpreter import interpret
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes.autodiff import differentiate

torch = pytest.importorskip("torch")


class Smooth(Generator):
    """Graphs whose values are moderate float64 numbers, mostly: what is differentiated has derivatives to compare."""

    block_dtype = f64
    specials = 0.0
    bound = 2

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.dtypes = [f64, f64, f64]
        self.block_name = f"block_{seed}"

    def weight(self, function: Function) -> None:
        function.add_parameter(TensorType.of(f64, (self.random.choice((1, 2, 3)), 2)), "kernel")

    def constant(self, kind: DType) -> Value:
        if not kind.is_float:
            return super().constant(kind)
        builder = Builder.current()
        assert builder is not None
        return builder.scalar(self.random.choice((1.0, 2.0, 0.5, -1.5)), kind)

    def unary(self, values: list[Value]) -> Any:
        names = ("neg", "abs", "tanh", "sigmoid", "sin", "cos", "erf", "relu", "silu", "softplus", "square", "floor")
        return OPS[self.random.choice(names)](self.pick(values, lambda v: v.dtype is f64))

    def binary(self, values: list[Value]) -> Any:
        x = self.pick(values)
        y = self.pick(values, lambda v: v.dtype is x.dtype)
        names = ("add", "sub", "mul", "maximum", "minimum", "lt", "ge", "add", "mul")
        return OPS[self.random.choice(names)](x, y)

    def neutral(self, values: list[Value]) -> Any:
        x = self.pick(values, lambda v: v.dtype is f64)
        return self.random.choice((ops.add, ops.mul, ops.sub, ops.div))(x, self.constant(f64))

    def converted(self, values: list[Value]) -> Any:
        x = ops.convert(self.pick(values), dtype=self.random.choice((bool_, i32)))
        return [x, ops.convert(x, dtype=f64)]

    def loss(self) -> tuple[list[str], frozenset[str]] | None:
        """Let the graph return a scalar; the parameters to differentiate by, and what the graph holds."""
        found = self.graph()
        function = self.module.main
        floats = [value for value in dict.fromkeys(function.outputs) if value.dtype is f64]
        if not floats:
            return None
        terminator = function.block.terminator
        with Builder(function.block, terminator):
            terms = [ops.reduce_sum(ops.tanh(value) * value, axes=range(value.ndim)) for value in floats]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
        Rewriter().set_operands(terminator, [total])
        function.results = [Result()]
        self.inputs = found.inputs
        return [p.name for p in function.parameters if p.type.dtype is f64], found.held


def compared(seeds: range, wanted: int) -> tuple[int, Counter[str], int]:
    """Compare `wanted` graphs of the seeds; returns how many, what they held, and how many had no finite gradient."""
    losses: list[Any] = []
    held: list[frozenset[str]] = []
    ours: list[list[Any]] = []
    used: list[int] = []
    unlike = 0
    for seed in seeds:
        if len(losses) == wanted:
            break
        generator = Smooth(seed)
        made = generator.loss()
        if made is None or not {"region", "call"} & made[1]:
            continue
        wrt, holds = made
        with np.errstate(all="ignore"):
            forward = generator.module.clone()
            differentiate(generator.module, wrt=wrt)
            generator.module.verify()
            value, *gradients = interpret(generator.module, *generator.inputs, dtype="float64", entry="value_and_grad")
        if not np.isfinite(value) or not all(
            np.isfinite(g).all() and np.abs(g).max(initial=0) < 1e8 for g in gradients
        ):
            unlike += 1
            continue
        losses.append((forward, generator.inputs, wrt))
        held.append(holds)
        used.append(seed)
        ours.append(gradients)
    counted: Counter[str] = Counter()
    wrong: list[str] = []
    for start in range(0, len(losses), 40):
        part = slice(start, start + 40)
        theirs = torch_gradients(losses[part])
        for seed, (_, _, wrt), one, other, holds in zip(
            used[part], losses[part], ours[part], theirs, held[part], strict=True
        ):
            if isinstance(other, UnsupportedError):
                counted["refused by the target"] += 1
                continue
            if isinstance(other, Exception):
                wrong.append(f"seed {seed}: {type(other).__name__}: {other}")
                continue
            counted.update(holds)
            counted["a gradient that is not zero"] += any(np.any(g) for g in one)
            for name, a, b in zip(wrt, one, other, strict=True):
                scale = max(1.0, float(np.abs(a).max(initial=0)))
                if a.shape != b.shape or not np.allclose(a, b, rtol=1e-7, atol=1e-8 * scale):
                    wrong.append(f"seed {seed}, {name}: {a.ravel()[:6]} here, {b.ravel()[:6]} in torch")
                    break
    assert not wrong, f"{len(wrong)} differ\n" + "\n".join(wrong[:20])
    return len(losses), counted, unlike


def announced(found: tuple[int, Counter[str], int], announce: Callable[[str], None]) -> None:
    count, held, unlike = found
    shown = ", ".join(
        f"{name} {held[name]}"
        for name in (
            "cond",
            "while",
            "scan",
            "call",
            "symbolic size",
            "a gradient that is not zero",
            "refused by the target",
        )
    )
    announce(f"gradients: {count} random graphs with regions against torch autograd: {shown}; {unlike} not finite")


def test_random_graphs_against_torch_autograd(announce: Callable[[str], None]) -> None:
    found = compared(range(2000), 200)
    assert found[0] == 200
    announced(found, announce)


@pytest.mark.slow
def test_more_random_graphs_against_torch_autograd(announce: Callable[[str], None]) -> None:
    found = compared(range(2000, 20_000), 2000)
    assert found[0] == 2000
    announced(found, announce)


def test_a_graph_that_cannot_be_drawn_is_an_error() -> None:
    with pytest.raises(GraphcError):
        Smooth(0).pick([])
