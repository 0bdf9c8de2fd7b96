"""Values at which ONNX Runtime's own kernels go wrong: every elementwise op on every pair of edge values, reductions of
rows of them, casts between all dtypes, and the float64 functions that are spelled by others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from artifacts import loaded
from scipy import special

import graphc.ir.ops  # noqa: F401  declares the ops
from graphc.codegen.onnx import TARGET
from graphc.ir.builder import Builder
from graphc.ir.dtypes import DType, bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.types import TensorType

pytest.importorskip("onnxruntime")

Array = np.ndarray[Any, Any]
DTYPES = (bool_, i8, i16, i32, i64, u8, u16, u32, u64, bf16, f16, f32, f64)
UNARY = (
    "neg", "sign", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sigmoid", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "floor", "ceil", "round_even",
    "is_finite", "is_nan", "not", "relu", "relu6", "leaky_relu", "elu", "silu", "softplus", "square",
)  # fmt: skip
BINARY = (
    "add", "sub", "mul", "div", "rem", "pow", "atan2", "maximum", "minimum", "and", "or", "xor", "shift_left",
    "shift_right", "eq", "ne", "lt", "le", "gt", "ge", "floor_div", "mod",
)  # fmt: skip
REDUCTIONS = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "argmax", "argmin", "cumulative_sum")
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1, -1, 0.5, -2.5, 3, -3, 1e-6, -1e-6, 88, -30, 20, -7, 1e4, 2.5, 1.5)
DIVISIONS = ("div", "rem", "floor_div", "mod")


def values(dtype: DType) -> Array:
    """The edge values of a dtype."""
    if dtype.is_bool:
        return np.array([True, False])
    if dtype.is_float:
        return np.array(FLOATS).astype(dtype.numpy)
    high = 2**dtype.bits - 1 if dtype.kind == "u" else 2 ** (dtype.bits - 1) - 1
    low = 0 if dtype.kind == "u" else -high - 1
    listed = (low, low + 1, high, high - 1, high // 2, 0, 1, 2, 3, 7, 8, 31, 32, 40, 63, 64, -1, -2, -7)
    return np.array([n for n in listed if low <= n <= high], object).astype(dtype.numpy)


def together(calls: Sequence[tuple[str, list[Array], dict[str, Any]]]) -> tuple[Module, list[Array], list[str]]:
    """A module of all calls that are legal, its inputs, and the name of each result."""
    module = Module()
    function = module.add_function("main")
    inputs: list[Array] = []
    names = []
    with Builder(function.block) as builder:
        results = []
        for name, arrays, attributes in calls:
            definition = OPS[name]
            if dtype_of(arrays[0].dtype) not in definition.dtypes:
                continue
            values = [function.add_parameter(TensorType.of(dtype_of(a.dtype), a.shape)) for a in arrays]
            operands = [*values, *[None] * (definition.arity - len(values))]
            inputs += arrays
            results.append(definition.build(builder, operands, definition.make_attributes(**attributes)).result)
            names.append(f"{name} {attributes or ''}")
        function.results.extend(Result() for _ in results)
        builder.finish(results)
    return module, inputs, names


def wrong(got: Array, want: Array, dtype: DType, roundings: int = 64) -> str:
    if not dtype.is_float:
        differ = got != want
    else:
        got, want = got.astype(np.float64), np.asarray(want, np.float64)
        info = ml_dtypes.finfo(dtype.numpy)
        with np.errstate(invalid="ignore"):
            near = np.abs(got - want) <= roundings * float(info.eps) * np.abs(want) + float(info.tiny)
        differ = ~((got == want) | (np.isnan(got) & np.isnan(want)) | near)
    return "" if not differ.any() else f"{got[differ][:4]} in place of {want[differ][:4]}"


def check(calls: Sequence[tuple[str, list[Array], dict[str, Any]]], folder: Any) -> None:
    module, inputs, names = together(calls)
    found = loaded(module, "onnx", folder, "")["main"](*inputs)
    wanted: Any = interpret(module, *inputs)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    dtypes = [value.dtype for value in module.main.outputs]
    problems = {
        name: problem
        for name, got, want, dtype in zip(names, found, wanted, dtypes, strict=True)
        if (problem := wrong(got, np.asarray(want), dtype))
    }
    assert problems == {}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_elementwise_ops(tmp_path, dtype):
    each = values(dtype)
    x, y = np.repeat(each, each.size), np.tile(each, each.size)
    kept = y != 0  # division by the integer 0 is unspecified
    calls: list[tuple[str, list[Array], dict[str, Any]]] = [(name, [each], {}) for name in UNARY]
    for name in BINARY:
        both = [x[kept], y[kept]] if dtype.is_integer and name in DIVISIONS else [x, y]
        calls.append((name, both, {}))
    check(calls, tmp_path / "a")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reductions(tmp_path, dtype):
    rng = np.random.default_rng(1)
    each = values(dtype)
    calls: list[tuple[str, list[Array], dict[str, Any]]] = []
    for name in REDUCTIONS:
        few = each
        if dtype.is_float and name in ("reduce_sum", "reduce_prod", "cumulative_sum"):
            few = np.array([np.nan, np.inf, 1, 0.5, 2, 0.25, 1, 4]).astype(dtype.numpy)
        for shape in ((40, 7), (60, 1), (30, 2)):
            attributes = {"axes": (1,)} if name.startswith("reduce") else {"axis": 1}
            calls.append((name, [rng.choice(few, shape)], attributes))
    check(calls, tmp_path / "a")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_casts(tmp_path, dtype):
    more = [1e30, -1e30, 3e9, -3e9, 2.0**31, 2.0**63, 254.7, -128.9] if dtype.is_float else []
    with np.errstate(over="ignore"):
        each = np.concatenate([values(dtype), np.array(more).astype(dtype.numpy)]).astype(dtype.numpy)
    module = Module()
    function = module.add_function("main")
    x = function.add_parameter(TensorType.of(dtype, each.shape), "x")
    with Builder(function.block) as builder:
        results = [OPS["convert"](x, dtype=to) for to in DTYPES]
        function.results.extend(Result() for _ in results)
        builder.finish(results)
    found = loaded(module, "onnx", tmp_path / "a", "")["main"](each)
    wanted: Any = interpret(module, each)
    assert {
        str(to): problem
        for to, got, want in zip(DTYPES, found, wanted, strict=True)
        if (problem := wrong(got, want, to, roundings=1))
    } == {}


def test_division_by_zero_does_not_end_the_run(tmp_path):
    """What a select drops may be anything, but must not raise, nor end the process as ONNX Runtime's own does."""
    low = -(2**31)
    x, y = np.array([7, low, 5], np.int32), np.array([0, -1, -1], np.int32)
    module, inputs, _ = together([("div", [x, y], {}), ("rem", [x, y], {})])
    quotient, rest = loaded(module, "onnx", tmp_path / "a", "")["main"](*inputs)
    assert quotient[1:].tolist() == [low, -5] and rest[1:].tolist() == [0, 0]


UNIT = np.concatenate([np.linspace(-1, 1, 2001), 10.0 ** np.linspace(-30, 0, 99), [np.nan, np.inf, -np.inf, 0, 2, -2]])
REAL = np.concatenate([UNIT, np.linspace(-30, 30, 3001), 10.0 ** np.linspace(0, 300, 99), [709.9, -709.9, -(10.0**99)]])


@pytest.mark.parametrize(
    ("name", "function", "domain"),
    [
        ("tan", np.tan, UNIT),
        ("asin", np.arcsin, UNIT),
        ("acos", np.arccos, UNIT),
        ("atan", np.arctan, REAL),
        ("sinh", np.sinh, REAL),
        ("cosh", np.cosh, REAL),
        ("asinh", np.arcsinh, REAL),
        ("acosh", np.arccosh, REAL),
        ("atanh", np.arctanh, UNIT),
        ("erf", special.erf, REAL),
        ("erf_inv", special.erfinv, UNIT),
        ("sigmoid", special.expit, REAL),
        ("expm1", np.expm1, REAL),
        ("log1p", np.log1p, REAL),
    ],
)
def test_float64_functions(tmp_path, name, function, domain):
    module, inputs, _ = together([(name, [domain], {})])
    (found,) = loaded(module, "onnx", tmp_path / "a", "")["main"](*inputs)
    with np.errstate(all="ignore"):
        assert wrong(found, function(domain), f64, roundings=4) == ""


def test_group_norm_of_a_large_mean_keeps_its_digits(tmp_path):
    """ONNX Runtime's own GroupNormalization has an error of 0.1 here."""
    x = (1000 + np.random.default_rng(0).standard_normal((2, 8, 16))).astype(np.float32)
    module, inputs, _ = together([("group_norm", [x], {"groups": 2, "axis": 1})])
    (found,) = loaded(module, "onnx", tmp_path / "a", "")["main"](*inputs)
    np.testing.assert_allclose(found, np.asarray(interpret(module, *inputs, dtype="float64")), atol=2e-4)


def test_the_target_has_what_its_graphs_need():
    assert TARGET.available()
