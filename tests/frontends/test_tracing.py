"""Python functions over arrays as modules: NumPy functions, operators, layers, nesting, names, lines."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import GraphcError, Spec, layers, ops

A = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp_log": lambda x: np.log(np.exp(x) + np.sqrt(x)),
    "trigonometry": lambda x: np.sin(x) * np.cos(x) - np.tan(x) + np.arcsin(x) + np.arctan2(x, 2.0),
    "hyperbolic": lambda x: np.tanh(x) + np.sinh(x) - np.arccosh(x + 1),
    "rounding": lambda x: np.floor(x * 7) + np.ceil(x) - np.round(x * 3) + np.trunc(x * 5) + np.rint(x),
    "sum_axis": lambda x: np.sum(x, axis=1),
    "mean_keepdims": lambda x: x - np.mean(x, axis=0, keepdims=True),
    "var_std": lambda x: np.var(x, axis=-1) + np.std(x),
    "max_min": lambda x: np.max(x, axis=1) - np.min(x, 1) + np.amax(x),
    "prod": lambda x: np.prod(x, axis=0),
    "argmax": lambda x: np.argmax(x, axis=1).astype(np.int32),
    "where": lambda x: np.where(x > 0.5, x, -x),
    "clip": lambda x: np.clip(x, 0.2, 0.8),
    "maximum_of_array": lambda x: np.maximum(np.full(4, 0.5, np.float32), x),
    "matmul_array_left": lambda x: np.float32(np.ones((2, 3))) @ x,
    "matmul_array_right": lambda x: x @ W,
    "dot": lambda x: np.dot(x, W),
    "einsum": lambda x: np.einsum("ij,jk->ki", x, W),
    "tensordot": lambda x: np.tensordot(x, W, axes=1),
    "concatenate": lambda x: np.concatenate([x, x * 2, np.ones((1, 4), np.float32)], axis=0),
    "stack": lambda x: np.stack([x, x + 1], axis=1),
    "split": lambda x: np.split(x, 2, axis=1)[1],
    "reshape": lambda x: np.reshape(x, (2, -1)),
    "transpose": lambda x: np.transpose(x) + x.T,
    "swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "expand_squeeze": lambda x: np.squeeze(np.expand_dims(x, 1) + x[:, None], axis=1),
    "broadcast": lambda x: np.broadcast_to(x[0], (2, 4)),
    "pad": lambda x: np.pad(x, ((1, 0), (0, 2))),
    "tile": lambda x: np.tile(x, (2, 1)),
    "repeat": lambda x: np.repeat(x, 2, axis=1),
    "flip": lambda x: np.flip(x, 1),
    "take": lambda x: np.take(x, np.array([2, 0, -1]), axis=1),
    "tril": lambda x: np.tril(x) + np.triu(x, 1),
    "cumsum": lambda x: np.cumsum(x, axis=1),
    "indexing": lambda x: x[1:, ::-1][..., 0] + x[0, 1],
    "array_operators": lambda x: 2 - x / np.float32(3) + x**2 // 0.3 % 0.2,
    "reversed_operators": lambda x: np.ones(4, np.float32) - x * np.float32(2),
    "comparisons": lambda x: (x > 0.3) & ~(x >= 0.7) | (x == 0),
    "logic": lambda x: np.logical_and(x > 0.3, np.logical_not(x > 0.6)),
    "finite": lambda x: np.isfinite(x / 0) | np.isnan(x) | np.isinf(x / 0),
    "reduce_method": lambda x: np.add.reduce(x, axis=0) + np.maximum.reduce(x),
    "norm": lambda x: np.linalg.norm(x, axis=1),
    "zeros_like": lambda x: np.zeros_like(x) + np.ones_like(x),
    "methods": lambda x: x.sum(axis=1, keepdims=True) / x.max() - x.mean(0) + x.std(axis=-1)[:, None] * x.argmin(),
    "shape_methods": lambda x: (
        x.transpose(1, 0).flatten() + x.transpose().ravel() - x.copy().clip(0.2, 0.4).reshape(-1)
    ),
    "shape": lambda x: x * x.shape[0] + np.shape(x)[1] + x.ndim + len(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_functions_mean_what_they_mean(name: str) -> None:
    function = FUNCTIONS[name]
    module = graphc.trace(function, Spec((3, 4)))
    module.verify()
    with np.errstate(all="ignore"):
        want = function(A)
    found = graphc.interpret(module, A)
    assert found.shape == np.shape(want)
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=1e-5)


def test_names_symbols_and_lines() -> None:
    def attention(q: Any, k: Any, v: Any) -> Any:
        scores = q @ np.swapaxes(k, 1, 2)
        return ops.softmax(scores) @ v

    module = graphc.trace(attention, Spec(("B", "S", 8)), Spec(("B", "T", 8)), Spec(("B", "T", 8), name="values"))
    function = module.main
    assert function.name == "attention"
    assert [f"{p.name}: {p.type}" for p in function.inputs] == [
        "q: f32[B, S, 8]",
        "k: f32[B, T, 8]",
        "values: f32[B, T, 8]",
    ]
    assert str(function.result_types[0]) == "f32[B, S, 8]"
    first = attention.__code__.co_firstlineno
    assert [op.location.line - first for op in function.block if op.next is not None] == [1, 1, 2, 2]
    assert function.block.first is not None and function.block.first.location.file.endswith("test_tracing.py")


def test_open_sizes_are_fresh_and_numbers_of_other_dtypes_stay() -> None:
    module = graphc.trace(lambda x, y: (x, y * 2), Spec((None, 2), "int32"), Spec((None,), "float64"))
    assert [str(p.type) for p in module.main.inputs] == ["i32[N, 2]", "f64[N1]"]
    x, y = graphc.interpret(module, np.ones((3, 2), np.int32), np.ones(5))
    assert x.dtype == np.int32 and y.dtype == np.float64


def test_nested_arguments_and_results() -> None:
    def step(state: Any, xs: Any) -> Any:
        return {"state": [s + x for s, x in zip(state, xs.values(), strict=True)], "count": np.float32(2)}

    module = graphc.trace(step, [Spec((2,)), Spec((3,))], {"a": Spec((2,)), "b": Spec((3,))})
    assert [p.name for p in module.main.inputs] == ["state_0", "state_1", "xs_a", "xs_b"]
    assert [r.name for r in module.main.results] == ["count", "state_0", "state_1"]
    count, first, _ = graphc.interpret(module, np.ones(2), np.ones(3), np.ones(2), np.ones(3))
    assert count == 2 and first.tolist() == [2, 2]


def test_layers_in_a_traced_function_bring_their_weights() -> None:
    dense = layers.Dense(3, name="dense")
    module = graphc.trace(lambda x: dense(dense(x)) + dense.bias, Spec(("B", 3)))
    assert list(module.weights) == ["dense/kernel", "dense/bias"]
    scopes = [str(op.location.scope) for op in module.main.block if op.name == "linear"]
    assert scopes == ["dense", "dense#1"]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(graphc.interpret(module, x), dense(dense(x)), rtol=1e-6)


def test_large_arrays_become_weights_of_the_module() -> None:
    table = np.arange(100, dtype=np.float32)
    module = graphc.trace(lambda x: x + table, Spec((100,)))
    assert [w.type.shape for w in module.weights.entries()] == [(100,)]
    np.testing.assert_array_equal(graphc.interpret(module, table), table * 2)


def test_sizes_are_numbers_in_the_dtype_of_what_they_meet() -> None:
    def centred(x: Any, n: Any) -> Any:
        return x - x.sum(axis=0) / x.shape[0], n * x.shape[0], 2 * x.shape[0] + n

    module = graphc.trace(centred, Spec(("B", 4)), Spec((3,), "int8"))
    module.verify()
    assert [str(t.dtype) for t in module.main.result_types] == ["float32", "int8", "int8"]
    n = np.int8([1, 2, 3])
    for found, want in zip(graphc.interpret(module, A, n), centred(A, n), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_scopes_in_a_traced_function() -> None:
    def f(x: Any) -> Any:
        for _ in range(2):
            with graphc.name_scope("stage"):
                x = x * x
        return x

    module = graphc.trace(f, Spec((2,)))
    assert [str(op.location.scope) for op in module.main.block if op.name == "mul"] == ["stage", "stage_1"]


def test_errors_name_the_line() -> None:
    def f(x: Any, y: Any) -> Any:
        return x @ y

    with pytest.raises(graphc.ShapeError) as caught:
        graphc.trace(f, Spec((2, 3)), Spec((4, 5)))
    assert f"test_tracing.py:{f.__code__.co_firstlineno + 1}" in str(caught.value)
    with pytest.raises(GraphcError, match=r"np\.cumprod is not supported"):
        graphc.trace(lambda x: np.cumprod(x), Spec((2,)))
    with pytest.raises(GraphcError, match=r"np\.add on traced values: .*unexpected keyword argument 'out'"):
        graphc.trace(lambda x: np.add(x, x, out=np.zeros(2, np.float32)), Spec((2,)))
    with pytest.raises(GraphcError, match=r"np\.sum on traced values: got an unexpected keyword argument 'where'"):
        graphc.trace(lambda x: np.sum(x, where=[True, False]), Spec((2,)))
    with pytest.raises(
        GraphcError, match="the method sum on traced values: got an unexpected keyword argument 'initial'"
    ):
        graphc.trace(lambda x: x.sum(initial=1.0), Spec((2,)))
    with pytest.raises(GraphcError, match="ddof=1 is not supported"):
        graphc.trace(lambda x: np.var(x, ddof=1), Spec((2,)))


def test_control_flow() -> None:
    def power(x: Any, n: Any) -> Any:
        _, y = ops.while_loop(lambda i, y: i < n, lambda i, y: (i + 1, y * x), (np.int32(0), ops.ones_like(x)))
        total, partial = ops.scan(lambda carry, row: (carry + row, carry), np.float32(0), x)
        return ops.cond(total > 1, lambda: (y, partial), lambda: (-y, partial * 0))

    module = graphc.trace(power, Spec((3,)), Spec((), "int32"))
    module.verify()
    for x in (np.float32([1, 2, 3]), np.float32([0.1, 0.2, 0.3])):
        found, want = graphc.interpret(module, x, np.int32(3)), power(x, np.int32(3))
        np.testing.assert_allclose(found[0], want[0], rtol=1e-6)
        np.testing.assert_allclose(found[1], want[1], rtol=1e-6)
