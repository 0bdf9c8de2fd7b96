"""Normalizations and their gradients against torch, narrow floats, symbolic sizes and messages."""

import ml_dtypes
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


def agrees_with_torch(name, function, *operands, **attributes):
    """Value and gradients of an op against a function of torch tensors; operands may be None."""
    op = OPS[name]
    tensors = [None if x is None else torch.tensor(x, requires_grad=True) for x in operands]
    want = function(*tensors)
    y = op(*operands, **attributes)
    np.testing.assert_allclose(y, want.detach().numpy(), atol=1e-10)
    dy = rng.normal(size=y.shape)
    want.backward(torch.tensor(dy))
    types = tuple(None if x is None else TensorType.of("f64", x.shape) for x in operands)
    made = op.infer(types, op.make_attributes(**attributes)).attributes
    found = op.vjp_rule(dy, y, *operands, **dict(zip(op.attribute_names, made, strict=True)))
    for got, tensor in zip(found, tensors, strict=True):
        if tensor is None:
            assert got is None
        else:
            np.testing.assert_allclose(got, tensor.grad.numpy(), atol=1e-10)


@pytest.mark.parametrize("axes, shape", [((-1,), (4,)), ((-2, -1), (3, 4)), ((1, 2), (3, 4)), ((2, 1), (3, 4))])
@pytest.mark.parametrize("affine", ["both", "scale", "offset", "none"])
def test_layer_norm(axes, shape, affine):
    x = rng.normal(size=(2, 3, 4)) * 3 + 1
    scale = rng.normal(size=shape) if affine in ("both", "scale") else None
    offset = rng.normal(size=shape) if affine in ("both", "offset") else None
    agrees_with_torch("layer_norm", lambda x, s, o: F.layer_norm(x, shape, s, o, eps=1e-3), x, scale, offset, axes=axes)


def test_layer_norm_over_an_axis_in_the_middle():
    x, scale, offset = rng.normal(size=(2, 5, 3)), rng.normal(size=5), rng.normal(size=5)

    def want(x, s, o):
        return F.layer_norm(x.movedim(1, -1), (5,), s, o, eps=1e-5).movedim(-1, 1)

    agrees_with_torch("layer_norm", want, x, scale, offset, axes=(1,), epsilon=1e-5)


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
@pytest.mark.parametrize("scaled", [True, False])
def test_rms_norm(shape, scaled):
    x, scale = rng.normal(size=(2, 3, 4)) + 1, rng.normal(size=shape) if scaled else None
    axes = tuple(range(-len(shape), 0))
    agrees_with_torch("rms_norm", lambda x, s: F.rms_norm(x, shape, s, eps=1e-6), x, scale, axes=axes)


@pytest.mark.parametrize("affine", ["both", "scale", "offset", "none"])
@pytest.mark.parametrize("axis", [1, -1])
def test_batch_norm(affine, axis):
    x = rng.normal(size=(2, 3, 4, 5))
    channels = x.shape[axis]
    mean, variance = rng.normal(size=channels), rng.uniform(0.5, 2, channels)
    scale = rng.normal(size=channels) if affine in ("both", "scale") else None
    offset = rng.normal(size=channels) if affine in ("both", "offset") else None

    def want(x, mean, variance, s, o):
        # torch's own does not differentiate mean and variance
        shape = [1, -1, 1, 1] if axis == 1 else [1, 1, 1, -1]
        y = (x - mean.reshape(shape)) / torch.sqrt(variance.reshape(shape) + 1e-3)
        y = y if s is None else y * s.reshape(shape)
        return y if o is None else y + o.reshape(shape)

    agrees_with_torch("batch_norm", want, x, mean, variance, scale, offset, axis=axis)
    if axis == 1:
        t = [None if a is None else torch.tensor(a) for a in (x, mean, variance, scale, offset)]
        native = F.batch_norm(*t, eps=1e-3).numpy()
        np.testing.assert_allclose(ops.batch_norm(x, mean, variance, scale, offset, axis=1), native, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("axis", [1, -1])
def test_group_norm(groups, affine, axis):
    x = rng.normal(size=(2, 6, 3, 6)) * 2 + 1
    scale, offset = (rng.normal(size=6), rng.normal(size=6)) if affine else (None, None)

    def want(x, s, o):
        return F.group_norm(x.movedim(axis, 1), groups, s, o, eps=1e-5).movedim(1, axis)

    agrees_with_torch("group_norm", want, x, scale, offset, groups=groups, axis=axis, epsilon=1e-5)


@pytest.mark.parametrize("name, attributes", [("layer_norm", {}), ("rms_norm", {}), ("group_norm", {"groups": 2})])
def test_narrow_floats_are_normalized_in_float32(name, attributes):
    """400² is no float16, and a mean in bfloat16 would be off by percents."""
    for dtype, eps in ((np.float16, 2**-10), (ml_dtypes.bfloat16, 2**-7)):
        x = (rng.normal(size=(2, 64)) * 400).astype(dtype)
        op = OPS[name]
        body = op.decomposition(
            (TensorType.of(np.dtype(dtype).name, x.shape), *[None] * (op.arity - 1)), op.make_attributes(**attributes)
        )
        assert {o.results[0].dtype for o in body.block if o.name in ("rsqrt", "mul")} == {"float32"}
        wide = op(x.astype(np.float64), **attributes)
        narrow = op(x, **attributes)
        assert narrow.dtype == dtype
        np.testing.assert_allclose(narrow.astype(np.float64), wide, rtol=eps, atol=eps / 100)


def recorded(*shapes):
    function = Function("f")
    return function, Builder(function.block), [function.add_parameter(TensorType.of("f32", s)) for s in shapes]


def test_symbolic_sizes():
    b, s, c = symbol("B"), symbol("S"), symbol("C")
    function, builder, (x, vector, eight) = recorded((b, s, c), (c,), (b, s, 8))
    with builder:
        made = [
            ops.layer_norm(x, vector, vector),
            ops.rms_norm(x, vector),
            ops.batch_norm(x, vector, vector, vector, vector),
            ops.group_norm(eight, groups=4),
        ]
        for y in made:
            for d, operand in zip(
                OPS[y.op.name].vjp_rule(y, y, *y.op.operands, **y.op.attribute_dict), y.op.operands, strict=True
            ):
                assert d is operand is None or d.type is operand.type
    assert [str(y.type) for y in made] == ["f32[B, S, C]"] * 3 + ["f32[B, S, 8]"]
    assert not function.guards


@pytest.mark.parametrize(
    "name, shapes, attributes, message",
    [
        ("layer_norm", [(2, 4), (3,)], {}, "scale [3] and x [2, 4] do not agree along axes [1]"),
        ("layer_norm", [(2, 4)], {"axes": (2,)}, "axis 2 is out of range for x [2, 4]"),
        ("layer_norm", [(2, 4)], {"axes": (1, -1)}, "axes = [1, -1] must name at least one axis, and none twice"),
        ("layer_norm", [(2, 4)], {"axes": ()}, "must name at least one axis"),
        ("rms_norm", [(2, 4), (1, 4)], {}, "scale [1, 4] and x [2, 4] do not agree along axes [1]"),
        ("batch_norm", [(2, 4), (4,), (3,)], {}, "variance [3] and x [2, 4] do not agree along axes [1]: 3 is not 4"),
        ("group_norm", [(2, 6)], {"groups": 4}, "6 channels of x [2, 6] do not divide into 4 groups"),
        ("group_norm", [(2, symbol("C"))], {"groups": 2}, "C channels of x [2, C] do not divide into 2 groups"),
        ("group_norm", [(2, 6)], {"groups": 2, "axis": 0}, "another axis than the first, the batch"),
    ],
)
def test_what_does_not_fit_is_said_with_the_shapes(name, shapes, attributes, message):
    _, builder, values = recorded(*shapes)
    with builder, pytest.raises(ShapeError) as error:
        OPS[name](*values, **attributes)
    assert message in str(error.value)
