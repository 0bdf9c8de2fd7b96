"""Losses against what they are by definition, with weights and reductions; their names and configuration."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

import graphc
from graphc import losses

RNG = np.random.default_rng(3)
SCORES = RNG.normal(size=(5, 4)).astype(np.float32)
CHANCES = softmax(SCORES, -1)
OTHER = RNG.uniform(0.1, 2, size=(5, 4)).astype(np.float32)
CLASSES = np.array([0, 3, 1, 2, 2])
ONE_HOT = np.eye(4, dtype=np.float32)[CLASSES]
BITS = (RNG.uniform(size=(5, 4)) > 0.5).astype(np.float32)
ERROR = (SCORES - OTHER).astype(np.float64)
ALL = np.arange(5)
LOGS = log_softmax(SCORES.astype(np.float64), -1)
SMOOTH = ONE_HOT * 0.9 + 0.1 / 4
EDGE = 1e-7

CASES = [
    (losses.MeanSquaredError(), OTHER, SCORES, (ERROR**2).mean(-1)),
    (losses.MeanAbsoluteError(), OTHER, SCORES, np.abs(ERROR).mean(-1)),
    (losses.MeanAbsolutePercentageError(), OTHER, SCORES, 100 * np.abs(ERROR / OTHER).mean(-1)),
    (
        losses.MeanSquaredLogarithmicError(),
        OTHER,
        SCORES,
        ((np.log(np.maximum(SCORES, EDGE) + 1) - np.log(OTHER + 1)) ** 2).mean(-1),
    ),
    (
        losses.Huber(delta=0.5),
        OTHER,
        SCORES,
        np.where(np.abs(ERROR) <= 0.5, ERROR**2 / 2, 0.5 * np.abs(ERROR) - 0.125).mean(-1),
    ),
    (losses.LogCosh(), OTHER, SCORES, np.log(np.cosh(ERROR)).mean(-1)),
    (losses.KLDivergence(), CHANCES[::-1], CHANCES, (CHANCES[::-1] * np.log(CHANCES[::-1] / CHANCES)).sum(-1)),
    (losses.Poisson(), OTHER, CHANCES, (CHANCES - OTHER * np.log(CHANCES + EDGE)).mean(-1)),
    (losses.Hinge(), BITS, SCORES, np.maximum(1 - (2 * BITS - 1) * SCORES, 0).mean(-1)),
    (losses.SquaredHinge(), 2 * BITS - 1, SCORES, (np.maximum(1 - (2 * BITS - 1) * SCORES, 0) ** 2).mean(-1)),
    (
        losses.CategoricalHinge(),
        ONE_HOT,
        SCORES,
        np.maximum(((1 - ONE_HOT) * SCORES).max(-1) - (ONE_HOT * SCORES).sum(-1) + 1, 0),
    ),
    (
        losses.CosineSimilarity(),
        OTHER,
        SCORES,
        -(OTHER * SCORES).sum(-1) / np.linalg.norm(OTHER, axis=-1) / np.linalg.norm(SCORES, axis=-1),
    ),
    (losses.SparseCategoricalCrossentropy(from_logits=True), CLASSES, SCORES, -LOGS[ALL, CLASSES]),
    (losses.SparseCategoricalCrossentropy(), CLASSES[:, None], CHANCES, -LOGS[ALL, CLASSES]),
    (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT, SCORES, -LOGS[ALL, CLASSES]),
    (losses.CategoricalCrossentropy(label_smoothing=0.1), ONE_HOT, CHANCES, -(SMOOTH * LOGS).sum(-1)),
    (
        losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2),
        BITS,
        SCORES,
        (np.logaddexp(0, SCORES) - (BITS * 0.8 + 0.1) * SCORES).mean(-1),
    ),
    (losses.BinaryCrossentropy(), BITS, expit(SCORES), (np.logaddexp(0, SCORES) - BITS * SCORES).mean(-1)),
]


@pytest.mark.parametrize(("loss", "y_true", "y_pred", "each"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_a_loss_is_what_it_is_by_definition(loss, y_true, y_pred, each):
    np.testing.assert_allclose(loss(y_true, y_pred), each.mean(), rtol=2e-5)
    weights = np.array([1.0, 0.0, 2.0, 0.5, 3.0], np.float32)
    np.testing.assert_allclose(loss(y_true, y_pred, weights), (each * weights).mean(), rtol=2e-5)
    loss.reduction = "sum"
    np.testing.assert_allclose(loss(y_true, y_pred, weights), (each * weights).sum(), rtol=2e-5)
    loss.reduction = "mean_with_sample_weight"
    np.testing.assert_allclose(loss(y_true, y_pred, weights), (each * weights).sum() / weights.sum(), rtol=2e-5)
    loss.reduction = "none"
    np.testing.assert_allclose(loss(y_true, y_pred), each, rtol=2e-4, atol=1e-6)
    loss.reduction = "sum_over_batch_size"


def test_probabilities_near_0_are_taken_as_a_little_more():
    certain = np.array([[1.0, 0.0]], np.float32)
    loss = losses.SparseCategoricalCrossentropy()
    np.testing.assert_allclose(loss(np.array([1]), certain), -np.log(1e-7), rtol=1e-6)


def test_an_ignored_class_does_not_count():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    labels = np.array([0, -1, 1, -1, 2])
    np.testing.assert_allclose(loss(labels, SCORES), -LOGS[[0, 2, 4], [0, 1, 2]].mean(), rtol=1e-6)


def test_sequences_and_their_weights():
    scores = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    labels = RNG.integers(0, 4, (2, 3))
    each = -np.take_along_axis(log_softmax(scores, -1), labels[..., None], -1)[..., 0]
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    np.testing.assert_allclose(loss(labels, scores), each.mean(), rtol=1e-6)
    np.testing.assert_allclose(loss(labels, scores, weights), (each * weights).mean(), rtol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].name)
def test_configuration_makes_an_equal_loss(case):
    loss, y_true, y_pred, _ = case
    again = losses.deserialize(losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    np.testing.assert_array_equal(again(y_true, y_pred), loss(y_true, y_pred))


def test_names_and_mistakes():
    assert losses.get("mse") is losses.mean_squared_error and losses.get(None) is None
    assert isinstance(losses.get("MeanSquaredError"), losses.MeanSquaredError)
    with pytest.raises(graphc.GraphcError, match="no loss is called 'crossentropi'"):
        losses.get("crossentropi")
    with pytest.raises(graphc.GraphcError, match="a reduction is one of"):
        losses.MeanSquaredError(reduction="average")
    with pytest.raises(graphc.ShapeError, match="more axes than the losses"):
        losses.MeanSquaredError()(OTHER, SCORES, np.ones((5, 4, 2)))


@pytest.mark.parametrize("batch", [3, 5])
def test_weights_of_examples_weigh_all_steps_of_their_sequences(batch):
    """Also where there are as many examples as steps, so that weights would fit the wrong axis."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(batch, 5, 4)).astype(np.float32), random.integers(0, 3, (batch, 5))
    weights = np.arange(1.0, batch + 1)
    found = {}
    for name, given in (("whole", weights), ("steps", np.repeat(weights[:, None], 5, axis=1))):
        for loss in (losses.SparseCategoricalCrossentropy(True), losses.SparseCategoricalCrossentropy(True, 2)):
            graphc.utils.set_random_seed(0)
            model = graphc.Sequential([graphc.Input((5, 4)), graphc.layers.Dense(3)])
            model.compile("sgd", loss)
            found[name, loss.ignore_class] = model.evaluate(x, y, sample_weight=given, verbose=0)
    assert found["whole", None] == pytest.approx(found["steps", None], rel=1e-6)
    assert found["whole", 2] == pytest.approx(found["steps", 2], rel=1e-6)


def test_a_dtype_is_part_of_the_configuration():
    loss = losses.Huber(dtype="float64")
    assert losses.deserialize(losses.serialize(loss)).dtype == "float64"
    assert "dtype" not in losses.Huber().get_config()  # as in Keras: one's own subclasses may not take it
