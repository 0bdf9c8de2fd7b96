"""Windows and pooling: against torch, NaN and ties, padding that does not count, and the transposes of each other."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.errors import ShapeError
from graphc.ir.graph import Function
from graphc.ir.opdef import OPS
from graphc.ir.types import TensorType

rng = np.random.default_rng(0)
nan, inf = np.nan, np.inf


def last(array):
    return np.moveaxis(array, 1, -1)


def vjp(op, dy, y, *operands, **attributes):
    """The gradient rule with attributes as the op carries them."""
    types = tuple(TensorType.of("f64", x.shape) for x in operands)
    made = op.infer(types, op.make_attributes(**attributes)).attributes
    return op.vjp_rule(dy, y, *operands, **dict(zip(op.attribute_names, made, strict=True)))


POOLS = [
    (1, (2,), (2,), 0, (1,)),
    (2, (3, 2), (2, 1), 1, (1, 1)),
    (2, (2, 2), (1, 2), 1, (2, 1)),
    (3, (2, 3, 2), (1, 2, 2), 1, (1, 1, 1)),
]


@pytest.mark.parametrize("rank, window, strides, padding, dilation", POOLS)
@pytest.mark.parametrize("channels_last", [True, False])
def test_max_pool_and_its_gradient_are_those_of_torch(rank, window, strides, padding, dilation, channels_last):
    x = rng.normal(size=(2, 3, *(7, 6, 8)[:rank]))
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[rank]
    tx = torch.tensor(x, requires_grad=True)
    ty = pool(tx, window, strides, padding, dilation)
    dy = rng.normal(size=ty.shape)
    ty.backward(torch.tensor(dy))

    layout = last if channels_last else np.asarray
    attributes = {
        "window": window,
        "strides": strides,
        "padding": ((padding, padding),) * rank,
        "dilation": dilation,
        "channels_last": channels_last,
    }
    y = ops.max_pool(layout(x), **attributes)
    np.testing.assert_array_equal(y, layout(ty.detach().numpy()))
    dx = vjp(ops.max_pool, layout(dy), y, layout(x), **attributes)
    np.testing.assert_allclose(dx, layout(tx.grad.numpy()), atol=1e-12)


@pytest.mark.parametrize("rank, window, strides, padding", [pool[:4] for pool in POOLS])
def test_avg_pool_and_its_gradient_are_those_of_torch(rank, window, strides, padding):
    x = rng.normal(size=(2, 3, *(7, 6, 8)[:rank]))
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]
    tx = torch.tensor(x, requires_grad=True)
    ty = pool(tx, window, strides, padding, count_include_pad=False)
    dy = rng.normal(size=ty.shape)
    ty.backward(torch.tensor(dy))
    attributes = {"window": window, "strides": strides, "padding": ((padding, padding),) * rank}
    y = ops.avg_pool(last(x), **attributes)
    np.testing.assert_allclose(y, last(ty.detach().numpy()), atol=1e-12)
    np.testing.assert_allclose(vjp(ops.avg_pool, last(dy), y, last(x), **attributes), last(tx.grad.numpy()), atol=1e-12)


def test_padding_does_not_count_in_an_average():
    x = np.array([[[2.0], [4.0], [6.0]]])
    assert ops.avg_pool(x, window=(2,), strides=(1,), padding="same").ravel().tolist() == [3, 5, 6]
    assert ops.avg_pool(x, window=(3,), strides=(1,), padding="same").ravel().tolist() == [3, 4, 5]
    assert ops.avg_pool(x, window=(1,), strides=(1,), padding=((1, 0),)).ravel().tolist()[1:] == [2, 4, 6]
    assert np.isnan(ops.avg_pool(x, window=(1,), strides=(1,), padding=((1, 0),)).ravel()[0])


def test_nan_propagates_and_padding_never_wins():
    x = np.array([[[-3.0], [nan], [-1.0], [-2.0]]])
    np.testing.assert_array_equal(
        ops.max_pool(x, window=(2,), strides=(1,), padding="same").ravel(), [nan, nan, -1, -2]
    )
    y = ops.reduce_window(-x, kind="min", window=(1, 3, 1), padding=((0, 0), (2, 2), (0, 0)))
    np.testing.assert_array_equal(y.ravel(), [3, nan, nan, nan, 1, 2])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
@pytest.mark.parametrize("kind", ["max", "min"])
def test_a_window_of_padding_alone_is_the_identity(dtype, kind):
    y = ops.reduce_window(np.ones(2, dtype), kind=kind, window=(1,), padding=((1, 0),))
    limits = (-inf, inf) if "float" in dtype else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert y[0] == limits[kind == "min"]


def brute(x, reduction, window, strides, padding, dilation, identity):
    padded = np.pad(x, padding, constant_values=identity)
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    counts = [(n - r) // s + 1 for n, r, s in zip(padded.shape, reach, strides, strict=True)]
    y = np.empty(counts)
    for at in np.ndindex(*counts):
        cut = tuple(slice(i * s, i * s + r, d) for i, s, r, d in zip(at, strides, reach, dilation, strict=True))
        y[at] = reduction(padded[cut])
    return y


@pytest.mark.parametrize("kind, reduction, identity", [("max", np.max, -inf), ("min", np.min, inf), ("sum", np.sum, 0)])
def test_the_axes_of_a_window_are_reduced_together(kind, reduction, identity):
    for window, strides, padding, dilation in itertools.product(
        [(1, 2), (3, 2)], [(1, 1), (2, 3)], [((0, 0), (0, 0)), ((2, 0), (1, 3))], [(1, 1), (1, 2)]
    ):
        x = rng.normal(size=(5, 6))
        y = ops.reduce_window(x, kind=kind, window=window, strides=strides, padding=padding, dilation=dilation)
        np.testing.assert_allclose(y, brute(x, reduction, window, strides, padding, dilation, identity), atol=1e-12)


@pytest.mark.parametrize("padding", [((0, 0),), ((1, 1),), ((4, 0),), ((0, 5),), ((6, 6),), "same"])
@pytest.mark.parametrize("window, stride, dilation", [(1, 1, 1), (3, 1, 1), (2, 3, 1), (3, 2, 2)])
def test_the_gradient_of_a_sum_is_its_transpose(padding, window, stride, dilation):
    """Also where windows lie wholly in the padding."""
    attributes = {"kind": "sum", "window": (window,), "strides": (stride,), "padding": padding, "dilation": (dilation,)}
    matrix = np.stack([ops.reduce_window(row, **attributes) for row in np.eye(7)], axis=1)
    columns = [vjp(ops.reduce_window, dy, None, np.zeros(7), **attributes) for dy in np.eye(len(matrix))]
    np.testing.assert_array_equal(np.stack(columns, axis=1), matrix.T)


def test_overlapping_windows_add_up_and_the_first_of_equals_is_taken():
    at = {"kind": "max", "window": (2,)}
    dx = ops.select_and_scatter(np.array([1.0, 3, 2, 2]), np.array([1.0, 10, 100]), **at)
    assert dx.tolist() == [0, 11, 100, 0]
    dx = ops.select_and_scatter(np.array([nan, 3, nan, nan]), np.array([1.0, 10, 100]), **at)
    assert dx.tolist() == [1, 0, 110, 0]
    x = np.full(3, -inf)
    dx = ops.select_and_scatter(x, np.array([1.0, 10, 100, 1000]), kind="max", window=(2,), padding=((1, 1),))
    assert dx.tolist() == [11, 100, 1000]  # the padding is -inf as well, and not taken
    x = np.array([1, 1], np.int32)
    assert ops.select_and_scatter(
        x, np.array([5, 7, 9], np.int32), kind="min", window=(1,), padding=((1, 0),)
    ).tolist() == [7, 9]


@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize("padding", ["valid", "same", ((2, 1), (0, 3))])
def test_gather_is_the_transpose_of_scatter_and_agrees_with_its_decomposition(kind, padding):
    x = rng.integers(0, 3, (5, 6)).astype(float)
    x[1, 2], x[4, 4], x[0] = nan, nan, -inf
    at = {"kind": kind, "window": (2, 3), "strides": (2, 1), "padding": padding, "dilation": (1, 2)}
    values = rng.normal(size=x.shape)
    found = ops.select_and_gather(x, values, **at)
    dy = rng.normal(size=found.shape)
    np.testing.assert_allclose(np.sum(found * dy), np.sum(values * ops.select_and_scatter(x, dy, **at)), atol=1e-12)

    # On x itself it is the reduction, but for windows of padding alone.
    real = ops.reduce_window(np.ones_like(x), **(at | {"kind": "sum"})) > 0
    np.testing.assert_array_equal(ops.select_and_gather(x, x, **at)[real], ops.reduce_window(x, **at)[real])
    assert not found[~real].any()

    op = OPS["select_and_gather"]
    rule, op.reference_rule = op.reference_rule, None
    try:
        np.testing.assert_array_equal(op(x, values, **at), found)
    finally:
        op.reference_rule = rule


def recorded(*shapes):
    function = Function("f")
    return function, Builder(function.block), [function.add_parameter(TensorType.of("f32", s)) for s in shapes]


def test_symbolic_sizes():
    b, s = symbol("B"), symbol("S")
    function, builder, (x,) = recorded((b, s, 3))
    with builder:
        valid, same = ops.max_pool(x, window=(3,)), ops.avg_pool(x, window=(3,), strides=(2,), padding="same")
        gradients = [
            OPS[y.op.name].vjp_rule(y, y, x, **y.op.attribute_dict)
            for y in (valid, same, ops.avg_pool(x, window=(3,), strides=(2,)))
        ]
    assert [str(y.type) for y in (valid, same)] == ["f32[B, S//3, 3]", "f32[B, (S + 1)//2, 3]"]
    assert [str(guard) for guard in function.guards] == ["3 <= S"]
    assert all(dx.type is x.type for dx in gradients)


def test_strides_are_the_window_where_not_given():
    _, builder, (x,) = recorded((1, 8, 8, 3))
    with builder:
        assert ops.max_pool(x, window=(2, 4)).op.strides == (2, 4)


def test_sizes_of_0():
    for kind in ("max", "sum"):
        y = ops.reduce_window(np.ones((2, 0), np.float32), kind=kind, window=(1, 3), strides=(1, 2), padding="same")
        assert y.shape == (2, 0)
        dx = vjp(ops.reduce_window, y, y, np.ones((2, 0)), kind=kind, window=(1, 3), strides=(1, 2), padding="same")
        assert dx.shape == (2, 0)
    x = np.ones((0, 4, 2), np.float32)
    assert ops.max_pool(x, window=(2,)).shape == (0, 2, 2)
    assert vjp(ops.avg_pool, np.ones((0, 2, 2)), None, np.ones((0, 4, 2)), window=(2,)).shape == (0, 4, 2)
    assert vjp(ops.max_pool, np.ones((0, 2, 2)), None, np.ones((0, 4, 2)), window=(2,)).shape == (0, 4, 2)


@pytest.mark.parametrize(
    "shape, attributes, message",
    [
        ((1, 8, 8, 3), {"window": (2,)}, "window = [2] has 1 entry, but there are 2 spatial axes"),
        ((1, 8, 8, 3), {"window": (2, 0)}, "must be at least 1 everywhere"),
        ((8, 3), {"window": (2,)}, "pooling takes x of 3 axes or more (batch, spatial ones, channels), not 2"),
        ((1, 2, 3), {"window": (4,)}, "a window that covers 4 elements does not fit an axis of 2"),
        ((1, 2, 3), {"window": (2,), "padding": ((0, 0), (0, 0))}, "padding = [(0, 0), (0, 0)] has 2 entries"),
    ],
)
def test_what_does_not_fit_is_said(shape, attributes, message):
    _, builder, (x,) = recorded(shape)
    with builder, pytest.raises(ShapeError) as error:
        ops.max_pool(x, **attributes)
    assert message in str(error.value)


def test_what_is_selected_by_has_the_shape_of_what_is_selected_from():
    x = np.ones((2, 5))
    with pytest.raises(ShapeError, match=r"dy must have the shape \[2, 4\], not \[2, 5\]"):
        ops.select_and_scatter(x, x, kind="max", window=(1, 2))
    with pytest.raises(ShapeError, match=r"values must have the shape \[2, 5\], not \[2, 6\]"):
        ops.select_and_gather(x, np.ones((2, 6)), kind="max", window=(1, 2))
