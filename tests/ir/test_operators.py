"""Python's operators and indexing on traced values, against NumPy's on arrays."""

import operator
from typing import Any

import numpy as np
import pytest

from graphc.ir import dtypes as dt
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.types import TensorType

B = symbol("B")


def trace(function: Any, *arrays: np.ndarray, batch: bool = False) -> Module:
    """A module of `function` on values of these arrays' types; `batch` makes their leading sizes the symbol B."""
    module = Module()
    main = module.add_function("main")
    values = []
    for i, array in enumerate(arrays):
        shape = (B, *array.shape[1:]) if batch else array.shape
        values.append(main.add_parameter(TensorType.of(dt.dtype(array.dtype), shape), f"x{i}"))
    with Builder(main.block) as builder:
        out = builder.values((function(*values),), None, None)
        main.results.append(Result())
        builder.finish(out)
    module.verify()
    return module


def run(function: Any, *arrays: np.ndarray, batch: bool = False) -> np.ndarray:
    return interpret(trace(function, *arrays, batch=batch), *arrays)


BINARY = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
]
BITS = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]


@pytest.mark.parametrize("function", [*BINARY, operator.pow])
def test_binary_operators_are_numpys(function: Any) -> None:
    x, y = np.float32([[1.5, 2, 7]]), np.float32([[2], [0.5]])
    for f in (function, lambda a, b: function(a, 2.0), lambda a, b: function(2.0, a), lambda a, b: function(b, a)):
        found = run(f, x, y)
        np.testing.assert_allclose(found, f(x, y), rtol=1e-6)
        assert found.dtype == f(x, y).dtype


@pytest.mark.parametrize("function", [*(f for f in BINARY if f is not operator.truediv), *BITS])
def test_binary_operators_on_integers_are_numpys(function: Any) -> None:
    x, y = np.int32([7, -7, 8]), np.int32([2, 3, 1])
    for f in (function, lambda a, b: function(a, 2), lambda a, b: function(9, b)):
        np.testing.assert_array_equal(run(f, x, y), f(x, y))


def test_true_division_of_integers_is_float() -> None:
    found = run(lambda x: x / 2, np.int32([1, 2, 3]))
    assert found.dtype == np.float32
    assert found.tolist() == [0.5, 1, 1.5]
    assert run(lambda x: 1 / x, np.int32([2])).tolist() == [0.5]


def test_unary_operators_are_numpys() -> None:
    x = np.float32([1, -2])
    assert run(lambda x: -x, x).tolist() == [-1, 2]
    assert run(lambda x: +x, x).tolist() == [1, -2]
    assert run(abs, x).tolist() == [1, 2]
    assert run(lambda x: ~(x > 0), x).tolist() == [False, True]
    assert run(lambda x: divmod(x, 2)[1], np.int32([-3])).tolist() == [1]


def test_squares_are_not_powers() -> None:
    names = [op.name for op in trace(lambda x: x**2 + x**3, np.ones(2, np.float32)).walk()]
    assert names == ["square", "constant", "pow", "add", "return"]


def test_matmul() -> None:
    x, y = np.float32([[1, 2], [3, 4]]), np.float32([[1, 1], [0, 1]])
    np.testing.assert_array_equal(run(operator.matmul, x, y), x @ y)
    np.testing.assert_array_equal(run(lambda x: y @ x, x), y @ x)


@pytest.mark.parametrize("function", BINARY)
def test_arrays_on_the_left(function: Any) -> None:
    x, y = np.float32([1, 2]), np.float32([4, 2])
    np.testing.assert_allclose(run(lambda value: function(x, value), y), function(x, y))


def test_methods() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(run(lambda x: x.T, x), x.T)
    np.testing.assert_array_equal(run(lambda x: x.reshape(3, -1), x), x.reshape(3, 2))
    np.testing.assert_array_equal(run(lambda x: x.reshape((6,)), x), x.reshape(6))
    assert run(lambda x: x.astype("int32"), x).dtype == np.int32
    np.testing.assert_array_equal(run(lambda x: sum(x), x), x.sum(0))


INDICES = [
    np.s_[1],
    np.s_[-1],
    np.s_[...],
    np.s_[:],
    np.s_[1, 2, 0],
    np.s_[..., 0],
    np.s_[0, ..., 1],
    np.s_[None],
    np.s_[:, None, 1],
    np.s_[..., None],
    np.s_[1:, :2],
    np.s_[:-1],
    np.s_[-2:],
    np.s_[5:],
    np.s_[:99],
    np.s_[2:1],
    np.s_[:, ::2],
    np.s_[:, 1::2, 1:],
    np.s_[::-1],
    np.s_[:, ::-2],
    np.s_[:, 3:0:-1],
    np.s_[:, -2::-1],
    np.s_[:, :-3:-1],
    np.s_[:, :-99:-1],
    np.s_[:, -99::-1],
    np.s_[:, 99:1:-1],
    np.s_[:, 1:99:-1],
    np.s_[np.int64(1), : np.int32(2)],
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("batch", [False, True])
def test_indexing_is_numpys(index: Any, batch: bool) -> None:
    x = np.arange(3 * 5 * 2, dtype=np.float32).reshape(3, 5, 2)
    np.testing.assert_array_equal(run(lambda x: x[index], x, batch=batch), x[index])


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("index", [np.s_[1:], np.s_[:-1], np.s_[-1], np.s_[::-1], np.s_[-4:], np.s_[:4], np.s_[::2]])
def test_one_trace_serves_every_batch(index: Any, size: int) -> None:
    module = trace(lambda x: x[index], np.zeros((5, 2), np.float32), batch=True)
    x = np.arange(size * 2, dtype=np.float32).reshape(size, 2)
    np.testing.assert_array_equal(interpret(module, x), x[index])


def test_symbolic_ends_of_slices() -> None:
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.testing.assert_array_equal(run(lambda x: x[: B - 1], x, batch=True), x[:-1])
    np.testing.assert_array_equal(run(lambda x: x[B // 2 :], x, batch=True), x[2:])
    module = trace(lambda x: x[: x.shape[0] // 2], x, batch=True)
    assert str(module.main.result_types[0]) == "f32[B//2, 2]"


def test_whole_slices_record_nothing() -> None:
    assert [op.name for op in trace(lambda x: x[:, ...], np.ones((2, 3), np.float32)).walk()] == ["return"]
    assert [op.name for op in trace(lambda x: x[:], np.ones((300, 3), np.float32)).walk()] == ["return"]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (np.s_[3], "index 3 is out of range for an axis of size 3"),
        (np.s_[-4], "index -4 is out of range"),
        (np.s_[0, 0, 0], "3 indices for 2 axes"),
        (np.s_[..., ...], "at most one"),
        (np.s_[1.5], "indices are integers, slices, None or `...`, not 1.5"),
        (np.s_[::0], "the step of a slice is not 0"),
    ],
)
def test_wrong_indices_are_explained(index: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        trace(lambda x: x[index], np.ones((3, 2), np.float32))


def test_indexing_by_data_is_refused_with_a_way() -> None:
    with pytest.raises(ShapeError, match=r"use graphc\.ops\.take"):
        trace(lambda x: x[x.astype("int32")], np.ones((3, 2), np.float32))


def test_iterating_a_symbolic_axis_is_refused() -> None:
    with pytest.raises(ShapeError, match="symbolic size B"):
        trace(lambda x: sum(x), np.ones((3, 2), np.float32), batch=True)


def test_truth_of_a_value_is_not_known() -> None:
    with pytest.raises(GraphcError, match="not known while tracing"):
        trace(lambda x: x if x > 0 else -x, np.float32(1))


def test_equality_is_identity_where_nothing_is_traced() -> None:
    main = trace(lambda x: x + 1, np.ones(2, np.float32)).main
    x, y = main.parameters[0].value, main.outputs[0]
    assert x == x
    assert x != y
    assert x in y.op.operands
    assert main.outputs != (x,)
    assert len({x, y, x}) == 2
