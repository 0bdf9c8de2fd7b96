"""Every declared gradient against central differences, in float64 and complex128, along random directions.

The convention for complex tensors is torch's: with dL = Re(conj(dy)·Δy) the cotangent g of x gives dL = Re(conj(g)·Δx).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampling import Case, cases

from graphc.ir.builder import Builder
from graphc.ir.dims import equal
from graphc.ir.dtypes import DType, c128, f64
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.types import TensorType

STEP = 1e-6

WITHOUT_GRADIENT = {
    "assume_dim": "it would pad by a size that is known only when it runs",
    "call": "the gradient of the callee is another function",
    "cond": "the gradient of a branch is another region",
    "custom_gradient": "it names its gradient",
    "native_gradient": "the framework's own gradient has none here",
    "scan": "the gradient of its body is another region, run in reverse",
    "while": "with a bound it becomes a scan, else the number of steps is not known",
}
"""Primitives with floating operands and results that declare no gradient by a rule, and why."""

NOT_ITS_DERIVATIVE = {
    "dora_norm": "counts as a constant, as in the paper",
    "fake_quantize": "goes straight through the rounding, which has none",
    "fake_quantize_weight": "goes straight through the rounding, which has none",
    "stop_gradient": "declares no gradient although it is the identity",
}
"""Ops whose declared gradient is meant to differ from the derivative, and why."""


def differentiable(type: TensorType | None) -> bool:
    return type is not None and (type.dtype.is_float or type.dtype.is_complex)


def in_dtypes(case: Case) -> list[DType]:
    """What the case is differentiated in: those of float64 and complex128 in which an operand and a result count."""
    return [
        dtype
        for dtype in (f64, c128)
        if dtype in case.dtypes
        and any(map(differentiable, case.types(dtype)))
        and any(map(differentiable, case.infer(dtype).types))
        and all(t.dtype in (f64, c128) for t in case.infer(dtype).types if differentiable(t))
    ]


COUNTED = [name for name in OPS if any(map(in_dtypes, cases(name)))]


def cotangents(case: Case, dy: tuple[Any, ...], y: tuple[Any, ...], operands: list[Any], named: Any) -> list[Any]:
    """What the op's rule gives for each operand."""
    several = len(y) != 1
    with np.errstate(all="ignore"):
        found = case.op.vjp_rule(dy if several else dy[0], y if several else y[0], *operands, **named)
    return list(found) if isinstance(found, (tuple, list)) else [found]


def attributes_of(case: Case, dtype: DType) -> dict[str, Any]:
    return dict(zip(case.op.attribute_names, case.infer(dtype).attributes, strict=True))


def results(case: Case, operands: list[Any]) -> tuple[Any, ...]:
    found = case.op(*operands, **case.sample.attributes)
    return found if isinstance(found, tuple) else (found,)


def draw_like(array: Any, rng: np.random.Generator) -> Any:
    """A direction to move an operand in, zero for what does not move."""
    if array is None or array.dtype.kind not in "fc":
        return None
    direction = rng.standard_normal(array.shape)
    return direction + 1j * rng.standard_normal(array.shape) if array.dtype.kind == "c" else direction


def moved(operands: list[Any], directions: list[Any], step: float) -> list[Any]:
    return [x if v is None else x + step * v for x, v in zip(operands, directions, strict=True)]


def inner(a: Any, b: Any) -> float:
    return float(np.sum((np.conj(a) * b).real))


@pytest.mark.parametrize("name", [name for name in COUNTED if OPS[name].vjp_rule and name not in NOT_ITS_DERIVATIVE])
def test_gradient_is_the_derivative(name: str) -> None:
    for case in cases(name):
        for dtype in in_dtypes(case):
            rng = np.random.default_rng(case.number)
            operands = case.arrays(dtype, rng)
            y = results(case, operands)
            finite = [np.isfinite(array) for array in y]  # the maximum of nothing has no derivative
            dy = tuple(np.where(at, draw_like(array, rng), 0) for at, array in zip(finite, y, strict=True))
            found = cotangents(case, dy, y, operands, attributes_of(case, dtype))
            assert len(found) == len(operands), case.id
            for dx, x in zip(found, operands, strict=True):
                assert dx is None or (dx.shape == x.shape and dx.dtype == x.dtype), (case.id, dtype, dx, x)
            for _ in range(2):
                directions = [draw_like(x, rng) for x in operands]
                above = results(case, moved(operands, directions, STEP))
                below = results(case, moved(operands, directions, -STEP))
                measured = sum(
                    inner(d[at], (a[at] - b[at]) / (2 * STEP))
                    for at, d, a, b in zip(finite, dy, above, below, strict=True)
                )
                pairs = [(g, v) for g, v in zip(found, directions, strict=True) if g is not None and v is not None]
                declared = sum(inner(g, v) for g, v in pairs)
                scale = 1 + sum(float(np.sum(np.abs(g * v))) for g, v in pairs)
                assert abs(declared - measured) <= 1e-7 * scale, (case.id, dtype, declared, measured)


@pytest.mark.parametrize("name", [name for name in COUNTED if OPS[name].vjp_rule])
def test_recorded_gradient_is_the_gradient_on_arrays(name: str) -> None:
    for case in cases(name):
        for dtype in in_dtypes(case):
            rng = np.random.default_rng(case.number)
            operands = case.arrays(dtype, rng)
            y = results(case, operands)
            dy = tuple(draw_like(array, rng) for array in y)
            at_once = [g for g in cotangents(case, dy, y, operands, attributes_of(case, dtype)) if g is not None]
            module = gradient_module(case, case.types(dtype))
            if module is None:
                assert not at_once, case.id
                continue
            inputs = [a for a in (*operands, *dy) if a is not None]
            found = interpret(module, *inputs, dtype="float64")
            for one, other in zip(at_once, found if isinstance(found, tuple) else (found,), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12, err_msg=case.id)


@pytest.mark.parametrize("name", [name for name in COUNTED if OPS[name].vjp_rule])
def test_gradient_has_the_operand_types_with_a_symbolic_batch(name: str) -> None:
    for case in cases(name):
        for dtype in in_dtypes(case):
            found = case.symbolic_types(dtype)
            if found is not None:
                gradient_module(case, found[0])


def gradient_module(case: Case, types: tuple[TensorType | None, ...]) -> Module | None:
    """The gradient as a module of the operands and the results' cotangents; None where there is none."""
    module = Module()
    function = module.add_function("main")
    values = [None if t is None else function.add_parameter(t, f"x{i}") for i, t in enumerate(types)]
    with Builder(function.block) as builder:
        op = case.op.build(builder, values, case.attributes)
        dy = tuple(function.add_parameter(y.type, f"dy{i}") for i, y in enumerate(op.results))
        found = cotangents(case, dy, op.results, values, op.attribute_dict)
        for dx, x in zip(found, values, strict=True):
            assert dx is None or may_be(dx.type, x.type), (case.id, dx, x)
        kept = [dx for dx in found if dx is not None]
        function.results.extend(Result() for _ in kept)
        builder.finish(kept)
    module.verify()
    return module if kept else None


def may_be(have: TensorType, want: TensorType) -> bool:
    """Whether the types are one, perhaps by the guards: B where the operand has the 3 that B must be."""
    sizes = zip(have.shape, want.shape, strict=True)
    return have.dtype is want.dtype and all(equal(a, b) is not False for a, b in sizes)


def test_ops_without_gradient_are_known(announce: Callable[[str], None]) -> None:
    ends = {"return", "yield"}  # without results
    unsampled = {name for name, op in OPS.items() if not op.samples and op.vjp_rule is None} - ends
    sampled = {name for name in COUNTED if OPS[name].vjp_rule is None and not OPS[name].is_composite}
    primitives = sampled | unsampled
    through = sorted(name for name in COUNTED if OPS[name].vjp_rule is None and OPS[name].is_composite)
    declared = [name for name in COUNTED if OPS[name].vjp_rule is not None]
    assert primitives == set(WITHOUT_GRADIENT)
    announce(
        f"gradients: {len(declared)} declared and checked, {len(through)} by decomposition ({', '.join(through)}), "
        f"{len(primitives)} lacking ({', '.join(sorted(primitives))})"
    )
