"""Losses against torch's, and their edges."""

import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.errors import GraphcError, ShapeError

nan, inf = np.nan, np.inf
RNG = np.random.default_rng(0)


def sparse_gradient(logits, labels, dy, ignore_index=None, label_smoothing=0.0):
    rule = ops.sparse_cross_entropy.vjp_rule
    with np.errstate(all="ignore"):
        return rule(dy, None, logits, labels, ignore_index=ignore_index, label_smoothing=label_smoothing)[0]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [None, -100, 2])
def test_sparse_cross_entropy_is_that_of_torch(ignore_index: int | None, label_smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    logits, labels = 5 * RNG.standard_normal((4, 6, 5)), RNG.integers(0, 5, (4, 6))
    if ignore_index is not None:
        labels[0, :3] = ignore_index
    dy = RNG.standard_normal((4, 6))
    tensor = torch.tensor(logits, requires_grad=True)
    wanted = torch.nn.functional.cross_entropy(
        tensor.movedim(-1, 1),
        torch.tensor(labels),
        reduction="none",
        label_smoothing=label_smoothing,
        ignore_index=-1 if ignore_index is None else ignore_index,
    )
    wanted.backward(torch.tensor(dy))
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    found = ops.sparse_cross_entropy(logits, labels, **options)
    np.testing.assert_allclose(found, wanted.detach(), rtol=1e-12)
    np.testing.assert_allclose(sparse_gradient(logits, labels, dy, **options), tensor.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_torch(label_smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    logits, targets = 5 * RNG.standard_normal((4, 5)), RNG.random((4, 5))
    targets /= targets.sum(-1, keepdims=True)
    dy = RNG.standard_normal(4)
    tensors = [torch.tensor(x, requires_grad=True) for x in (logits, targets)]
    loss = torch.nn.functional.cross_entropy(*tensors, reduction="none", label_smoothing=label_smoothing)
    loss.backward(torch.tensor(dy))
    found = ops.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    np.testing.assert_allclose(found, loss.detach(), rtol=1e-12)
    for g, t in zip(
        ops.cross_entropy.vjp_rule(dy, found, logits, targets, label_smoothing=label_smoothing), tensors, strict=True
    ):
        np.testing.assert_allclose(g, t.grad, rtol=1e-10, atol=1e-14)


def test_binary_cross_entropy_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    logits, targets = 30 * RNG.standard_normal((4, 5)), RNG.random((4, 5))
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(targets), reduction="none"
    )
    np.testing.assert_allclose(ops.binary_cross_entropy(logits, targets), wanted, rtol=1e-12, atol=1e-13)


# --- edges --------------------------------------------------------------------------------------------------------


def test_cross_entropy_does_not_overflow() -> None:
    logits = np.array([[1e4, 0, -1e4]], np.float32)
    for label, wanted in ((0, 0), (1, 1e4), (2, 2e4)):
        assert ops.sparse_cross_entropy(logits, np.array([label])) == wanted
        g = sparse_gradient(logits.astype(float), np.array([label]), np.ones(1))
        np.testing.assert_array_equal(g, np.eye(3)[:1] - np.eye(3)[label : label + 1])


def test_labels_that_are_no_class_give_nan() -> None:
    logits, labels = np.zeros((4, 3)), np.array([0, 3, -1, -100])
    found = ops.sparse_cross_entropy(logits, labels, ignore_index=-100)
    np.testing.assert_array_equal(np.isnan(found), [False, True, True, False])
    assert found[3] == 0
    g = sparse_gradient(logits, labels, np.ones(4), ignore_index=-100)
    np.testing.assert_array_equal(np.isnan(g).all(-1), [False, True, True, False])


def test_ignored_examples_do_not_matter_whatever_their_logits() -> None:
    logits = np.array([[0.0, 1, 2], [nan, inf, 0]])
    labels = np.array([1, -1])
    found = ops.sparse_cross_entropy(logits, labels, ignore_index=-1)
    assert np.isfinite(found[0])
    assert found[1] == 0
    g = sparse_gradient(logits, labels, np.array([1.0, 1.0]), ignore_index=-1)
    assert np.isfinite(g[0]).all()
    np.testing.assert_array_equal(g[1], 0)


def test_classes_beyond_a_narrow_label_dtype() -> None:
    logits = RNG.standard_normal((2, 300))
    found = ops.sparse_cross_entropy(logits, np.array([7, 255], np.uint8))
    np.testing.assert_allclose(found, ops.sparse_cross_entropy(logits, np.array([7, 255])))


def test_targets_of_zero_count_nothing() -> None:
    logits = np.array([[0, -inf, 0]])
    np.testing.assert_allclose(ops.cross_entropy(logits, np.array([[1.0, 0, 0]])), [np.log(2)])
    assert np.isinf(ops.cross_entropy(logits, np.array([[0.5, 0.5, 0]])))


def test_nan_propagates() -> None:
    logits = np.array([[nan, 0.0]])
    assert np.isnan(ops.sparse_cross_entropy(logits, np.array([1])))
    assert np.isnan(ops.cross_entropy(logits, np.array([[0.0, 1.0]])))
    assert np.isnan(ops.mean_squared_error(logits, np.zeros((1, 2))))


def test_mistakes_are_explained() -> None:
    with pytest.raises(ShapeError, match=r"logits \[2, 3\] and labels \[2, 1\] must agree but for the classes"):
        ops.sparse_cross_entropy(np.ones((2, 3)), np.zeros((2, 1), int))
    with pytest.raises(ShapeError, match="must agree but for the classes: 2 is not 4"):
        ops.sparse_cross_entropy(np.ones((2, 3)), np.zeros(4, int))
    with pytest.raises(ShapeError, match="must be of one shape: 3 is not 4"):
        ops.cross_entropy(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ShapeError, match="must be of one shape"):
        ops.mean_squared_error(np.ones((2, 3)), np.ones((2, 1)))
    with pytest.raises(GraphcError, match="label_smoothing is a number from 0 to 1"):
        ops.cross_entropy(np.ones((2, 3)), np.ones((2, 3)), label_smoothing=2.0)
