"""Attention against torch's, rows that see nothing, and rotations against the formula."""

from typing import Any

import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.errors import GraphcError, ShapeError

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def gradients(dy: np.ndarray, operands: tuple, **attributes: Any) -> list:
    named = {"causal": False, "scale": None, "softcap": None, "window": None} | attributes
    return list(ops.attention.vjp_rule(dy, ops.attention(*operands, **named), *operands, **named))


CASES = {
    "plain": {},
    "causal": {"causal": True},
    "scaled": {"scale": 0.4},
    "mask": {"mask": True},
    "bias": {"bias": True},
    "causal and mask": {"causal": True, "mask": True},
    "window": {"window": 2},
    "causal window": {"window": 3, "causal": True},
}


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("name", CASES)
def test_attention_is_that_of_torch(name: str, groups: int) -> None:
    torch = pytest.importorskip("torch")
    given = dict(CASES[name])
    q, k, v = draw(2, 5, 4, 3), draw(2, 6, groups, 3), draw(2, 6, groups, 2)
    bias = draw(2, 1, 5, 6) if given.pop("bias", False) else None
    mask = RNG.random((2, 4, 5, 6)) < 0.6 if given.pop("mask", False) else None
    distance = np.arange(5)[:, None] - np.arange(6)
    seen = np.ones((2, 4, 5, 6), bool) if mask is None else mask
    if given.get("causal"):
        seen = seen & (distance >= 0)
    if "window" in given:
        seen = seen & (abs(distance) < given["window"])
    tensors = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    added = torch.zeros(2, 4, 5, 6, dtype=torch.float64).masked_fill(~torch.tensor(seen), -torch.inf)
    torch_bias = None if bias is None else torch.tensor(bias, requires_grad=True)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in tensors),
        attn_mask=added if torch_bias is None else added + torch_bias,
        scale=given.get("scale"),
        enable_gqa=True,
    ).transpose(1, 2)
    dy = draw(2, 5, 4, 2)
    operands = (q, k, v, bias, mask)
    np.testing.assert_allclose(ops.attention(*operands, **given), wanted.detach(), rtol=1e-10, atol=1e-12)
    wanted.backward(torch.tensor(dy))
    found = gradients(dy, operands, **given)
    for g, t in zip(found, [*tensors, torch_bias], strict=False):
        if t is not None:
            np.testing.assert_allclose(g, t.grad, rtol=1e-9, atol=1e-11)


def test_queries_that_see_nothing_give_zeros() -> None:
    q, k, v = draw(1, 3, 2, 4), draw(1, 2, 2, 4), draw(1, 2, 2, 4)
    mask = np.array([[True, False], [False, False], [True, True]])
    bias = np.where(mask, 0.0, -np.inf)
    dy = np.ones((1, 3, 2, 4))
    for operands in ((q, k, v, None, mask), (q, k, v, bias, None)):
        y = ops.attention(*operands)
        assert np.isfinite(y).all()
        assert (y[:, 1] == 0).all()
        found = gradients(dy, operands)
        assert all(g is None or np.isfinite(g).all() for g in found)
        assert (found[0][:, 1] == 0).all()
    assert not np.any(ops.attention(q, k[:, :0], v[:, :0]))


def test_masked_scores_do_not_matter() -> None:
    q, k, v = draw(1, 3, 1, 4), draw(1, 4, 1, 4), draw(1, 4, 1, 4)
    mask = np.array([True, True, False, True])
    spoilt = k.copy()
    spoilt[:, 2] = np.nan
    np.testing.assert_array_equal(ops.attention(q, spoilt, v, None, mask), ops.attention(q, k, v, None, mask))


def test_causality_counts_from_the_first_place() -> None:
    q, k, v = draw(1, 2, 1, 4), draw(1, 5, 1, 4), draw(1, 5, 1, 4)
    np.testing.assert_allclose(ops.attention(q, k, v, causal=True)[:, 0], v[:, 0])


def test_softcap_bounds_scores() -> None:
    q, k = 100 * draw(1, 3, 1, 4), 100 * draw(1, 3, 1, 4)
    v = np.eye(3)[None, :, None]
    weights = ops.attention(q, k, v, softcap=0.1)
    assert np.abs(np.log(weights) - np.log(1 / 3)).max() < 0.4


@pytest.mark.parametrize(
    ("shapes", "attributes", "message"),
    [
        (((2, 3, 4, 5), (2, 3, 3, 5), (2, 3, 3, 5)), {}, "the heads of keys must divide those of queries"),
        (((2, 3, 4, 5), (2, 3, 4, 6), (2, 3, 4, 5)), {}, "as many features: 5 is not 6"),
        (((2, 3, 4, 5), (2, 3, 4, 5), (2, 4, 4, 5)), {}, "as many keys as values: 3 is not 4"),
        (((3, 4, 5), (2, 3, 4, 5), (2, 4, 4, 5)), {}, "the query of attention must have 4 axes"),
        (
            ((2, 3, 1, 5), (2, 3, 1, 5), (2, 3, 1, 5), (3, 1, 3, 3)),
            {},
            r"the bias \[3, 1, 3, 3\] .* does not broadcast",
        ),
        (((2, 3, 1, 5), (2, 3, 1, 5), (2, 3, 1, 5)), {"window": 0}, "a positive number of places"),
        (((2, 3, 1, 5), (2, 3, 1, 5), (2, 3, 1, 5)), {"softcap": 0.0}, "a positive number, not 0"),
    ],
)
def test_mistakes_are_explained(shapes: tuple, attributes: dict, message: str) -> None:
    with pytest.raises((ShapeError, GraphcError), match=message):
        ops.attention(*map(np.ones, shapes), **attributes)


# --- rope ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_multiplies_pairs_as_complex_numbers(interleaved: bool) -> None:
    x, positions = draw(2, 4, 3, 6), np.array([[0, 1, 2, 9], [5, 4, 3, 2]])
    cos, sin = ops.rope_tables(positions, size=6, base=100.0)
    assert cos.dtype == np.float32
    angles = positions[..., None] * 100.0 ** (-np.arange(3) / 3)
    turn = np.exp(1j * angles)[:, :, None]
    if interleaved:
        z = (x[..., ::2] + 1j * x[..., 1::2]) * turn
        wanted = np.stack((z.real, z.imag), -1).reshape(x.shape)
    else:
        z = (x[..., :3] + 1j * x[..., 3:]) * turn
        wanted = np.concatenate((z.real, z.imag), -1)
    found = ops.rope(x, np.cos(angles), np.sin(angles), interleaved=interleaved)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose(ops.rope(x, cos, sin, interleaved=interleaved), wanted, rtol=1e-5, atol=1e-6)


def test_scores_of_rotated_queries_and_keys_depend_on_the_distance() -> None:
    q, k = draw(1, 1, 1, 8), draw(1, 1, 1, 8)

    def score(t: int, s: int) -> float:
        turned = [ops.rope(x, *ops.rope_tables(np.array([p]), size=8)) for x, p in ((q, t), (k, s))]
        return float(np.sum(turned[0] * turned[1]))

    np.testing.assert_allclose(score(7, 3), score(14, 10), rtol=1e-5)


def test_rope_leaves_features_beyond_the_tables() -> None:
    x = draw(1, 3, 1, 5)
    cos, sin = ops.rope_tables(np.arange(3), size=2)
    y = ops.rope(x, cos, sin)
    np.testing.assert_array_equal(y[..., 2:], x[..., 2:])
    np.testing.assert_array_equal(y[:, 0], x[:, 0])
    with pytest.raises(ShapeError, match="more angles than pairs"):
        ops.rope(x, *ops.rope_tables(np.arange(3), size=6))
    with pytest.raises(ShapeError, match="angles for each place: 4 is not 3"):
        ops.rope(x, *ops.rope_tables(np.arange(4), size=2))
