"""dot_general, matmul, linear and einsum against NumPy and torch, on symbolic sizes, and their messages."""

import numpy as np
import pytest
import torch

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.errors import ShapeError
from graphc.ir.graph import Function
from graphc.ir.opdef import OPS
from graphc.ir.types import TensorType

rng = np.random.default_rng(0)


def drawn(*shape, complex=False):
    return rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex else 0)


def agrees_with_torch(function, result, cotangents, *operands):
    """Whether `function` of torch tensors gives `result`, and its gradients are what `cotangents(dy)` gives."""
    tensors = [torch.tensor(x, requires_grad=True) for x in operands]
    want = function(*tensors)
    np.testing.assert_allclose(result, want.detach().numpy(), atol=1e-12)
    dy = drawn(*result.shape, complex=np.iscomplexobj(result))
    want.backward(torch.tensor(dy))
    for got, tensor in zip(cotangents(dy), tensors, strict=True):
        np.testing.assert_allclose(got, tensor.grad.numpy(), atol=1e-12)
        assert got.shape == tuple(tensor.shape)


DOTS = [
    ((2, 3), (3, 4), ((1, 0),), (), "ij,jk->ik"),
    ((2, 3, 4), (4, 2, 5), ((2, 0),), ((0, 1),), "bij,jbk->bik"),
    ((2, 3, 4, 5), (4, 3, 2, 5), ((1, 1), (2, 0)), ((3, 3), (0, 2)), "aijb,jiab->ba"),
    ((2, 3, 4), (4, 5, 3), ((2, 0), (1, 2)), (), "aij,jbi->ab"),
    ((2, 3), (4,), (), (), "ij,k->ijk"),
    ((2, 0), (0, 3), ((1, 0),), (), "ij,jk->ik"),
]


@pytest.mark.parametrize("x_shape, y_shape, contract, batch, equation", DOTS)
@pytest.mark.parametrize("complex", [False, True])
def test_dot_general(x_shape, y_shape, contract, batch, equation, complex):
    x, y = drawn(*x_shape, complex=complex), drawn(*y_shape, complex=complex)
    z = ops.dot_general(x, y, contract=contract, batch=batch)
    np.testing.assert_allclose(z, np.einsum(equation, x, y), atol=1e-12)
    vjp = OPS["dot_general"].vjp_rule
    agrees_with_torch(
        lambda a, b: torch.einsum(equation, a, b), z, lambda dz: vjp(dz, z, x, y, contract=contract, batch=batch), x, y
    )


MATMULS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((7, 1, 2, 3), (5, 3, 4)),
    ((7, 1, 2, 3), (1, 5, 3, 4)),
    ((1, 1, 2, 3), (1, 3, 4)),
    ((2, 0), (0, 3)),
    ((0, 2, 3), (1, 3, 4)),
]


@pytest.mark.parametrize("x_shape, y_shape", MATMULS)
@pytest.mark.parametrize("complex", [False, True])
def test_matmul(x_shape, y_shape, complex):
    x, y = drawn(*x_shape, complex=complex), drawn(*y_shape, complex=complex)
    z = ops.matmul(x, y)
    assert z.shape == np.matmul(x, y).shape
    agrees_with_torch(torch.matmul, z, lambda dz: OPS["matmul"].vjp_rule(dz, z, x, y), x, y)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (0, 3)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear(shape, with_bias):
    operands = [drawn(*shape), drawn(3, 5), *([drawn(5)] if with_bias else [])]
    y = ops.linear(*operands)
    whole = (*operands, None)[:3]
    agrees_with_torch(
        lambda x, kernel, bias=None: torch.nn.functional.linear(x, kernel.T, bias),
        y,
        lambda dy: [d for d in OPS["linear"].vjp_rule(dy, y, *whole) if d is not None],
        *operands,
    )


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ji,kj", [(3, 2), (4, 3)]),
        ("ij->ji", [(2, 3)]),
        ("ijk->j", [(2, 3, 4)]),
        ("ij,ij->", [(2, 3), (2, 3)]),
        ("...ij,...jk->...ik", [(5, 6, 2, 3), (5, 6, 3, 4)]),
        ("...ij,...jk->...ik", [(5, 2, 3), (3, 4)]),
        ("b...i,ij->b...j", [(2, 5, 6, 3), (3, 4)]),
        ("bqhd,bkhd->bhqk", [(2, 5, 3, 4), (2, 6, 3, 4)]),
        ("i,j,k->kji", [(2,), (3,), (4,)]),
        ("ab,bc,cd->da", [(2, 3), (3, 4), (4, 5)]),
        ("ai,bi,ci->abc", [(2, 5), (3, 5), (4, 5)]),
        ("il,jk->i", [(2, 3), (4, 5)]),
        (" i j , j -> i ", [(2, 3), (3,)]),
    ],
)
def test_einsum(equation, shapes):
    xs = [drawn(*shape) for shape in shapes]
    np.testing.assert_allclose(ops.einsum(*xs, equation=equation), np.einsum(equation, *xs), atol=1e-12)


def test_integers_wrap():
    x = np.full((2, 200), 100, np.int16)
    assert ops.matmul(x, x.T).tolist() == [[2_000_000 - 2_031_616] * 2] * 2  # modulo 2^16


def test_a_thousand_ones_in_bfloat16_sum_to_a_thousand():
    ones = ops.full((1000,), 1.0, "bfloat16")
    assert float(ops.matmul(ones, ones)) == 1000


def recorded(*shapes):
    function = Function("f")
    return function, Builder(function.block), [function.add_parameter(TensorType.of("f32", s)) for s in shapes]


def test_symbolic_sizes():
    b, s, t = symbol("B"), symbol("S"), symbol("T")
    function, builder, (x, y, kernel) = recorded((b, 1, s, 4), (t, 4, s), (s, 8))
    with builder:
        z = ops.matmul(x, y)
        w = ops.linear(z, kernel)
        gradients = OPS["matmul"].vjp_rule(z, z, x, y)
    assert [str(v.type) for v in (z, w)] == ["f32[B, T, S, S]", "f32[B, T, S, 8]"]
    assert [d.type for d in gradients] == [x.type, y.type]
    assert not function.guards


def test_unlike_symbols_that_must_agree_leave_a_guard():
    s, t = symbol("S"), symbol("T")
    function, builder, (x, kernel) = recorded((2, s), (t, 8))
    with builder:
        ops.linear(x, kernel)
        ops.matmul(x, kernel)
    assert [str(guard) for guard in function.guards] == ["S == T"]


def test_plain_matmul_is_one_dot():
    _, _, (x, y) = recorded((2, 3, 4), (4, 5))
    body = OPS["matmul"].decomposition((x.type, y.type), OPS["matmul"].make_attributes())
    assert [op.name for op in body.block] == ["dot_general", "return"]


@pytest.mark.parametrize(
    "op, shapes, attributes, message",
    [
        ("matmul", [(2, 3), (4, 5)], {}, "[2, 3] @ [4, 5]: the columns on the left must be as many as the rows on the"),
        ("matmul", [(2, 2, 3), (3, 3, 5)], {}, "must be of one size: 2 is not 3"),
        ("matmul", [(), (3,)], {}, "matmul takes tensors of one axis or more, not [] and [3]"),
        ("linear", [(2, 3), (4, 5)], {}, "x [2, 3] and kernel [4, 5] do not agree in features: 3 is not 4"),
        ("linear", [(2, 3), (3,)], {}, "linear takes x [..., in] and kernel [in, out], not [2, 3] and [3]"),
        ("linear", [(2, 3), (3, 5), (4,)], {}, "bias [4] and kernel [3, 5] do not agree in features: 4 is not 5"),
        ("linear", [(2, 3), (3, 5), (1, 5)], {}, "the bias must have one axis"),
        (
            "dot_general",
            [(2, 3), (3, 4)],
            {"contract": ((0, 0),)},
            "axis 0 of f32[2, 3] and axis 0 of f32[3, 4] must be",
        ),
        ("dot_general", [(2, 3), (3, 4)], {"contract": ((-1, 0),)}, "[-1, 0] is not a pair of an axis of f32[2, 3]"),
        ("dot_general", [(3, 3), (3, 3)], {"contract": ((1, 0), (1, 1))}, "an axis of f32[3, 3] is named twice"),
        ("einsum", [(2, 3)], {"equation": "ij,jk->ik"}, "has 2 terms for 1 operand"),
        ("einsum", [(2, 3)], {"equation": "ijk->i"}, "'ijk' does not fit an operand of 2 axes"),
        ("einsum", [(3, 3)], {"equation": "ii->i"}, "'ii' takes a diagonal"),
        ("einsum", [(2, 3)], {"equation": "ij->k"}, "the result's 'k' is not one axis of the operands"),
        ("einsum", [(2, 3)], {"equation": "i1->i"}, "'i1' is not made of letters"),
        ("einsum", [(2, 3)], {"equation": "...j->j"}, "the result must have the axes of '...' too"),
        ("einsum", [(2, 3), (4, 5)], {"equation": "ij,jk->ik"}, "must be of one size: 3 is not 4"),
    ],
)
def test_what_does_not_fit_is_said_with_the_shapes(op, shapes, attributes, message):
    _, builder, values = recorded(*shapes)
    with builder, pytest.raises(ShapeError) as error:
        OPS[op](*values, **attributes)
    assert message in str(error.value)
