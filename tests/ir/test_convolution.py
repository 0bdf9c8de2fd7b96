"""Convolution and its gradients against torch, the types on symbolic sizes, and the messages of what does not fit."""

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
from graphc.ir.sliding import padding_pairs, window_counts
from graphc.ir.types import TensorType

rng = np.random.default_rng(0)
FORWARD = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# rank, groups, strides, dilation, padding of every axis
GEOMETRIES = [
    (1, 1, (1,), (1,), (0, 0)),
    (1, 3, (2,), (2,), (3, 1)),
    (2, 1, (1, 1), (1, 1), (1, 1)),
    (2, 2, (2, 1), (1, 2), (0, 2)),
    (2, 6, (3, 2), (1, 1), (2, 0)),
    (3, 1, (1, 1, 1), (1, 1, 1), (0, 0)),
    (3, 2, (2, 1, 2), (1, 2, 1), (1, 1)),
]

SAME_CASES = list(itertools.product([1, 2, 5, 6, 7], [1, 2, 3, 4], [1, 2, 3], [1, 2]))


def last(array):
    """[B, C, *spatial] as [B, *spatial, C]."""
    return np.moveaxis(array, 1, -1)


def torch_convolution(x, kernel, strides, dilation, padding, groups):
    """On channels-first tensors; torch pads symmetrically only, so the padding is made before."""
    rank = x.ndim - 2
    padded = F.pad(x, list(padding) * rank)
    weight = kernel.permute(rank + 1, rank, *range(rank))
    return FORWARD[rank](padded, weight, stride=strides, dilation=dilation, groups=groups)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_convolution_and_its_gradients_are_those_of_torch(geometry, channels_last):
    rank, groups, strides, dilation, padding = geometry
    x = rng.normal(size=(2, 6, *(7, 8, 6)[:rank]))
    kernel = rng.normal(size=(*(3, 2, 2)[:rank], 6 // groups, 12))
    tx, tk = (torch.tensor(a, requires_grad=True) for a in (x, kernel))
    ty = torch_convolution(tx, tk, strides, dilation, padding, groups)
    dy = rng.normal(size=ty.shape)
    ty.backward(torch.tensor(dy))

    layout = last if channels_last else np.asarray
    attributes = {
        "strides": strides,
        "padding": (padding,) * rank,
        "dilation": dilation,
        "groups": groups,
        "channels_last": channels_last,
    }
    y = ops.convolution(layout(x), kernel, **attributes)
    np.testing.assert_allclose(y, layout(ty.detach().numpy()), atol=1e-12)
    dx, dk = OPS["convolution"].vjp_rule(layout(dy), y, layout(x), kernel, **attributes)
    np.testing.assert_allclose(dx, layout(tx.grad.numpy()), atol=1e-12)
    np.testing.assert_allclose(dk, tk.grad.numpy(), atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # of torch, about speed
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_at_stride_1_is_that_of_torch(rank, dilation):
    x, kernel = rng.normal(size=(2, 3, *(5, 6, 4)[:rank])), rng.normal(size=(*(3, 2, 4)[:rank], 3, 4))
    y = ops.conv(last(x), kernel, padding="same", dilation=(dilation,) * rank)
    weight = torch.tensor(np.moveaxis(kernel, (-1, -2), (0, 1)))
    want = FORWARD[rank](torch.tensor(x), weight, padding="same", dilation=dilation)
    np.testing.assert_allclose(y, last(want.numpy()), atol=1e-12)


@pytest.mark.parametrize("size, k, stride, d", SAME_CASES)
def test_same_padding_has_the_odd_element_on_the_high_side(size, k, stride, d):
    """TensorFlow's formula, which gives ceil(size / stride) windows."""
    count = -(-size // stride)
    total = max((count - 1) * stride + (k - 1) * d + 1 - size, 0)
    assert padding_pairs((size,), (k,), (stride,), "same", (d,)) == ((total // 2, total - total // 2),)
    assert window_counts((size,), (k,), (stride,), "same", (d,)) == (count,)
    explicit = padding_pairs((size,), (k,), (stride,), "same", (d,))
    x, kernel = rng.normal(size=(1, size, 2)), rng.normal(size=(k, 2, 3))
    at = {"strides": (stride,), "dilation": (d,)}
    whole = ops.conv(x, kernel, padding=explicit, **at)
    np.testing.assert_array_equal(ops.conv(x, kernel, padding="same", **at), whole[:, :count])


def test_second_derivatives_are_those_of_torch():
    x, kernel = rng.normal(size=(2, 5, 4)), rng.normal(size=(3, 2, 6))
    attributes = {"strides": (2,), "padding": ((1, 2),), "dilation": (1,), "groups": 2, "channels_last": True}
    y = ops.convolution(x, kernel, **attributes)
    dy, gx, gk = rng.normal(size=y.shape), rng.normal(size=x.shape), rng.normal(size=kernel.shape)

    tensors = [torch.tensor(a, requires_grad=True) for a in (x, kernel, dy)]
    tx, tk, tdy = tensors
    ty = torch_convolution(tx.permute(0, 2, 1), tk, (2,), (1,), (1, 2), 2).permute(0, 2, 1)
    first = torch.autograd.grad(ty, [tx, tk], tdy, create_graph=True)
    want = torch.autograd.grad(first, tensors, [torch.tensor(gx), torch.tensor(gk)])

    of_input, of_kernel = OPS["convolution_input_gradient"], OPS["convolution_kernel_gradient"]
    dx, dk = OPS["convolution"].vjp_rule(dy, y, x, kernel, **attributes)
    d_dy, d_k = of_input.vjp_rule(gx, dx, dy, kernel, shape=x.shape, **attributes)
    d_dy_too, d_x = of_kernel.vjp_rule(gk, dk, dy, x, shape=kernel.shape, **attributes)
    for got, wanted in zip((d_x, d_k, d_dy + d_dy_too), want, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-12)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_bias_is_added_to_the_filters(channels_last):
    x, kernel, bias = rng.normal(size=(2, 3, 3, 3)), rng.normal(size=(2, 2, 3, 4)), rng.normal(size=4)
    y = ops.conv(x, kernel, bias, channels_last=channels_last)
    plain = ops.conv(x, kernel, channels_last=channels_last)
    np.testing.assert_allclose(y, plain + (bias if channels_last else bias[:, None, None]), atol=1e-12)


def test_integers_wrap():
    x, kernel = np.full((1, 3, 1), 100, np.int8), np.full((2, 1, 1), 2, np.int8)
    np.testing.assert_array_equal(ops.conv(x, kernel).ravel(), np.full(2, 400 - 512, np.int8))


def test_sizes_of_0():
    kernel = np.ones((3, 2, 4), np.float32)
    assert ops.conv(np.ones((0, 5, 2), np.float32), kernel).shape == (0, 3, 4)
    assert ops.conv(np.ones((2, 0, 2), np.float32), kernel, padding="same").shape == (2, 0, 4)
    assert ops.conv(np.ones((2, 0, 2), np.float32), kernel[:1]).shape == (2, 0, 4)
    assert (
        ops.conv(np.ones((2, 5, 0), np.float32), np.ones((3, 0, 4), np.float32)).tolist()
        == np.zeros((2, 3, 4)).tolist()
    )


def recorded(*shapes):
    function = Function("f")
    values = [function.add_parameter(TensorType.of("f32", shape)) for shape in shapes]
    return function, Builder(function.block), values


def test_symbolic_sizes_and_the_guard_that_the_window_fits():
    b, s, t = symbol("B"), symbol("S"), symbol("T")
    function, builder, (x, kernel) = recorded((b, s, t, 3), (3, 3, 3, 8))
    with builder:
        y = ops.conv(x, kernel, strides=(2, 1), padding=((1, 1), (0, 0)), dilation=(2, 1))
        z = ops.conv(x, kernel, strides=(2, 2), padding="same")
    assert str(y.type) == "f32[B, (S + 1)//2 - 1, T - 2, 8]"
    assert str(z.type) == "f32[B, (S + 1)//2, (T + 1)//2, 8]"
    assert z.op.padding == "same"
    assert [str(guard) for guard in function.guards] == ["3 <= S", "3 <= T"]
    for n in range(3, 9):  # what the type says is what the reference gives
        array = ops.conv(
            np.ones((1, n, n, 1)), np.ones((3, 3, 1, 1)), strides=(2, 1), padding=((1, 1), (0, 0)), dilation=(2, 1)
        )
        assert array.shape[1:3] == ((n + 1) // 2 - 1, n - 2)


def test_the_gradients_have_the_operands_types_on_symbolic_sizes():
    _, builder, (x, kernel, bias) = recorded((symbol("B"), symbol("S"), 4), (3, 2, 6), (6,))
    with builder:
        y = ops.conv(x, kernel, bias, strides=(2,), padding="same", groups=2)
        found = OPS["conv"].vjp_rule(y, y, *y.op.operands, **y.op.attribute_dict)
    assert [d.type for d in found] == [x.type, kernel.type, bias.type]


def test_strides_and_dilation_of_1_are_filled_in():
    _, builder, (x, kernel) = recorded((1, 4, 4, 3), (2, 2, 3, 8))
    with builder:
        first, second = ops.conv(x, kernel), ops.conv(x, kernel, strides=(1, 1), dilation=[1, 1])
    assert first.op.attributes is second.op.attributes
    assert first.op.strides == (1, 1)


@pytest.mark.parametrize(
    "shapes, attributes, message",
    [
        (((1, 8, 8, 3), (3, 3, 4, 8)), {}, "x [1, 8, 8, 3] (channels last) and kernel [3, 3, 4, 8] with 1 group"),
        (((1, 3, 8, 8), (3, 3, 3, 8)), {}, "do not agree in channels: 8 is not 3"),
        (((1, 8, 8, 4), (3, 3, 2, 7)), {"groups": 2}, "7 filters of kernel [3, 3, 2, 7] do not divide into 2 groups"),
        (((1, 8, 3), (3, 3, 3, 8)), {}, "as many axes as x, 3; it is f32[3, 3, 3, 8]"),
        (((8, 3), (3, 8)), {}, "3 to 5 axes (batch, 1 to 3 spatial ones, channels), not f32[8, 3]"),
        (((1, 8, 8, 3), (3, 3, 3, 8)), {"strides": (2,)}, "strides = [2] has 1 entry, but there are 2 spatial axes"),
        (((1, 8, 8, 3), (3, 3, 3, 8)), {"dilation": (0, 1)}, "dilation = [0, 1] must be at least 1 everywhere"),
        (((1, 8, 3), (3, 3, 8)), {"padding": ((-1, 0),)}, "padding (-1, 0) is negative"),
        (((1, 2, 3), (3, 3, 8)), {}, "a window that covers 3 elements does not fit an axis of 2"),
        (((1, 8, 3), (3, 3, 8), (7,)), {}, "bias [7] and kernel [3, 3, 8] do not agree in filters: 7 is not 8"),
        (((1, 8, 3), (3, 3, 8), (1, 8)), {}, "the bias must have one axis, not 2"),
    ],
)
def test_what_does_not_fit_is_said_with_the_shapes(shapes, attributes, message):
    _, builder, values = recorded(*shapes)
    with builder, pytest.raises(ShapeError) as error:
        ops.conv(*values, **attributes)
    assert message in str(error.value)
    assert f"in conv({', '.join(str(v.type) for v in values)}" in str(error.value)


def test_a_gradient_checks_its_cotangent():
    with pytest.raises(ShapeError, match=r"dy f64\[1, 5, 2\] must be of the convolution's type"):
        ops.convolution_input_gradient(np.ones((1, 5, 2)), np.ones((3, 3, 2)), shape=(1, 8, 3))
