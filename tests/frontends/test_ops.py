"""`graphc.ops` on arrays, traced values and symbolic tensors: one meaning, Keras's results."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Spec, ops
from graphc.ir.opdef import OPS

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).normal(size=(2, 5, 6, 4)).astype(np.float32)

# fmt: off
CALLS: dict[str, tuple[np.ndarray, Callable[[Any], Any], Callable[[np.ndarray], Any] | None]] = {
    "divide_integers": (np.int32([[3, 4]]), lambda x: ops.divide(x, 2), lambda x: np.float32(x / 2)),
    "sum_of_bools": (X > 0, lambda x: ops.sum(x), lambda x: np.int32(x.sum())),
    "mean_of_integers": (np.int32([[1, 2]]), lambda x: ops.mean(x), lambda x: np.float32(1.5)),
    "moments": (X, lambda x: ops.moments(x, [0, 2])[1], lambda x: x.var((0, 2))),
    "logsumexp": (
        X,
        lambda x: ops.logsumexp(x * 100, axis=-1),
        lambda x: (x * 100).max(-1) + np.log(np.exp(x * 100 - (x * 100).max(-1, keepdims=True)).sum(-1)),
    ),
    "argmax_of_all": (X, lambda x: ops.argmax(x), lambda x: np.int32(x.argmax())),
    "any_all": (X > 1, lambda x: ops.any(x, axis=1) & ops.all(x), lambda x: x.any(1) & x.all()),
    "softmax_over_two": (
        X,
        lambda x: ops.softmax(x, axis=(1, 2)),
        lambda x: np.exp(x) / np.exp(x).sum((1, 2), keepdims=True),
    ),
    "gelu_default": (X, ops.gelu, lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    "hard_sigmoid": (X * 4, ops.hard_sigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    "leaky_relu": (X, ops.leaky_relu, lambda x: np.where(x < 0, 0.2 * x, x)),
    "normalize": (X, ops.normalize, lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)),
    "layer_normalization": (
        X,
        ops.layer_normalization,
        lambda x: (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True),
    ),
    "one_hot": (np.int32([[0, 2]]), lambda x: ops.one_hot(x, 3), lambda x: np.eye(3, dtype=np.float32)[x]),
    "take_negative": (X, lambda x: ops.take(x, np.int32([[0, -1]]), axis=1), lambda x: x[:, [[0, -1]]]),
    "split_at": (X, lambda x: ops.split(x, [1, 3], axis=2)[1], lambda x: x[:, :, 1:3]),
    "unstack": (X, lambda x: ops.stack(ops.unstack(x, axis=1)), lambda x: np.moveaxis(x, 1, 0)),
    "moveaxis": (X, lambda x: ops.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    "slice": (X, lambda x: ops.slice(x, (0, 1, 1), (2, 1, 2)), lambda x: x[0:2, 1:2, 1:3]),
    "slice_update": (X, lambda x: ops.slice_update(x, (0, 0, 0), np.zeros((1, 1, 1), np.float32)), None),
    "arange": (X, lambda x: x * ops.arange(4.0) + ops.arange(1, 9, 2), lambda x: x * np.arange(4) + np.arange(1, 9, 2)),
    "full": (X, lambda x: x + ops.full((3, 1), 2.0) + ops.zeros(4), lambda x: x + 2),
    "where": (X, lambda x: ops.where(x > 0, x, 0), lambda x: np.maximum(x, 0)),
    "nan_to_num": (X, lambda x: ops.nan_to_num(x / 0 * 0, nan=7.0), lambda x: np.full_like(x, 7)),
    "cast": (X, lambda x: ops.cast(x * 3, "int8"), lambda x: np.trunc(x * 3).astype(np.int8)),
    "logaddexp": (X, lambda x: ops.logaddexp(x, 2.0), lambda x: np.logaddexp(x, 2)),
    "max_pool": (IMAGE, lambda x: ops.max_pool(x, 2), lambda x: x[:, :4].reshape(2, 2, 2, 3, 2, 4).max((2, 4))),
    "average_pool": (IMAGE, lambda x: ops.average_pool(x, (1, 2)), lambda x: x.reshape(2, 5, 3, 2, 4).mean(3)),
    "conv": (IMAGE, lambda x: ops.conv(x, np.ones((1, 1, 4, 1), np.float32)), lambda x: x.sum(-1, keepdims=True)),
    "depthwise": (IMAGE, lambda x: ops.depthwise_conv(x, 2 * np.ones((1, 1, 4, 1), np.float32)), lambda x: x * 2),
    "getitem": (X, lambda x: x[:, -1, None, 1::2], lambda x: x[:, -1, None, 1::2]),
    "declared_by_its_own_name": (X, lambda x: ops.reduce_sum(x, axes=(0,)), lambda x: x.sum(0)),
}
# fmt: on


@pytest.mark.parametrize("name", CALLS)
def test_arrays_values_and_symbolic_tensors_agree(name: str) -> None:
    array, call, reference = CALLS[name]
    with np.errstate(all="ignore"):
        eager = call(array)
        if reference is not None:
            want = np.asarray(reference(array))
            assert np.asarray(eager).shape == want.shape
            np.testing.assert_allclose(eager, want, rtol=2e-5, atol=1e-5)
            if want.dtype != np.float64:
                assert np.asarray(eager).dtype == want.dtype
        traced = graphc.trace(call, Spec(array.shape, array.dtype))
        traced.verify()
        np.testing.assert_allclose(graphc.interpret(traced, array), eager, rtol=1e-5, atol=1e-6)
        x = Input(batch_shape=array.shape, dtype=array.dtype)
        model = Model(x, call(x))
        np.testing.assert_allclose(graphc.interpret(graphc.lower(model), array), eager, rtol=1e-5, atol=1e-6)
        copy = Model.from_config(model.get_config())
        np.testing.assert_allclose(copy(array), eager, rtol=1e-5, atol=1e-6)


def test_every_declared_op_has_its_name() -> None:
    keras_has = {"conv", "cond", "scan", "slice", "split", "pad", "reshape", "transpose", "argmax", "argmin", "clip"}
    for name, definition in OPS.items():
        if name not in keras_has:
            found = getattr(ops, name, None) or getattr(ops, f"{name}_")
            assert found is definition or callable(found), name
    assert ops.reduce_sum is OPS["reduce_sum"]
    with pytest.raises(AttributeError, match=r"graphc\.ops has no function 'fold'"):
        ops.fold  # noqa: B018


def test_python_numbers_are_weak_and_dtypes_promote() -> None:
    assert ops.add(np.float16(1), 2).dtype == np.float16
    assert ops.multiply(np.int8([1]), 2).dtype == np.int8
    assert ops.add(np.int32([1]), np.float32([1])).dtype == np.float32
    assert ops.divide(1, 2).dtype == np.float32
    assert ops.convert_to_tensor([1.5, 2]).dtype == np.float32
    assert ops.convert_to_tensor([1, 2]).dtype == np.int32


def test_shape_of_open_sizes() -> None:
    x = Input((None, 4))
    batch, length, width = ops.shape(x)
    assert width == 4 and str(batch) == "B"
    y = ops.zeros((batch, length)) + ops.ones_like(x)[..., 0] + ops.cast(ops.arange(length), "float32")
    array = np.zeros((2, 3, 4), np.float32)
    np.testing.assert_array_equal(graphc.interpret(graphc.lower(Model(x, y)), array), [[1, 2, 3]] * 2)


def test_control_flow_on_arrays() -> None:
    assert ops.cond(np.bool_(True), lambda: 1, lambda: 2) == 1
    assert ops.switch(np.int32(5), [lambda x: x, lambda x: x + 1], 1) == 2
    assert ops.while_loop(lambda i: i < 10, lambda i: i * 2, np.int32(1)) == 16
    assert ops.while_loop(lambda i: i < 10, lambda i: i * 2, np.int32(1), maximum_iterations=2) == 4
    carry, ys = ops.scan(lambda c, x: (c + x, c), np.float32(0), np.float32([1, 2, 3]), reverse=True)
    assert carry == 6 and ys.tolist() == [5, 3, 0]
