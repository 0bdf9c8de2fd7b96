"""Metrics on arrays against NumPy, and in models: which one is meant, how it is called, on every target."""

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, layers, losses, metrics, ops
from graphc.runtime.training.metrics.compiled import CompiledMetrics, accuracy_for

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.random((7, 5)).astype(np.float32)
LABELS = np.array([0, 4, 2, 2, 1, 3, 0], np.int32)
ONE_HOT = np.eye(5, dtype=np.float32)[LABELS]
WEIGHTS = RANDOM.random(7).astype(np.float32)
TRUE, PREDICTED = RANDOM.normal(size=(2, 7, 3)).astype(np.float32)


def measured(metric, *arrays, weights=None):
    """The result after two batches."""
    for part in (slice(0, 4), slice(4, 7)):
        metric.update_state(*[a[part] for a in arrays], sample_weight=None if weights is None else weights[part])
    return float(metric.result())


def top(k):
    return np.array([label in np.argsort(-row)[:k] for label, row in zip(LABELS, SCORES, strict=True)])


BINARY = (SCORES[:, :1] > 0.5).astype(np.int32) ^ np.array([[0], [1], [0], [0], [1], [0], [0]])
CASES = [
    (metrics.Accuracy, LABELS, SCORES.argmax(1), SCORES.argmax(1) == LABELS),
    (metrics.BinaryAccuracy, BINARY, SCORES[:, :1], ((SCORES[:, :1] > 0.5) == BINARY)[:, 0]),
    (metrics.BinaryAccuracy, BINARY[:, 0], SCORES[:, :1], ((SCORES[:, :1] > 0.5) == BINARY)[:, 0]),
    (metrics.CategoricalAccuracy, ONE_HOT, SCORES, top(1)),
    (metrics.SparseCategoricalAccuracy, LABELS, SCORES, top(1)),
    (metrics.SparseCategoricalAccuracy, LABELS[:, None], SCORES, top(1)),
    (metrics.SparseCategoricalAccuracy, LABELS.astype(np.float32), SCORES, top(1)),
    (lambda: metrics.TopKCategoricalAccuracy(k=2), ONE_HOT, SCORES, top(2)),
    (lambda: metrics.SparseTopKCategoricalAccuracy(k=3), LABELS, SCORES, top(3)),
    (metrics.MeanSquaredError, TRUE, PREDICTED, ((TRUE - PREDICTED) ** 2).mean(1)),
    (metrics.MeanAbsoluteError, TRUE, PREDICTED, np.abs(TRUE - PREDICTED).mean(1)),
    (lambda: metrics.MeanMetricWrapper(lambda a, b: a * b), TRUE, PREDICTED, (TRUE * PREDICTED).mean(1)),
]


@pytest.mark.parametrize(("make", "y_true", "y_pred", "each"), CASES)
def test_means_over_examples(make, y_true, y_pred, each):
    assert measured(make(), y_true, y_pred) == pytest.approx(each.mean(), rel=1e-5)
    weighted = (each * WEIGHTS).sum() / WEIGHTS.sum()
    assert measured(make(), y_true, y_pred, weights=WEIGHTS) == pytest.approx(weighted, rel=1e-5)


def test_means_and_sums():
    mean, total = metrics.Mean(), metrics.Sum()
    assert float(mean.result()) == 0
    for metric in (mean, total):
        metric.update_state([1, 3, 5, 7], sample_weight=[1, 1, 0, 0])
        metric.update_state(3.0, sample_weight=2.0)
    assert float(mean.result()) == 2.5 and float(total.result()) == 10
    mean.reset_state()
    assert float(mean([2.0, 4.0])) == 3
    root = metrics.RootMeanSquaredError()
    assert measured(root, TRUE, PREDICTED) == pytest.approx(np.sqrt(((TRUE - PREDICTED) ** 2).mean()), rel=1e-5)


def test_losses_as_metrics():
    chances = SCORES / SCORES.sum(1, keepdims=True)
    each = -np.log(chances[np.arange(7), LABELS])
    for metric, y in (
        (metrics.SparseCategoricalCrossentropy(), LABELS),
        (metrics.CategoricalCrossentropy(), ONE_HOT),
    ):
        assert measured(metric, y, chances) == pytest.approx(each.mean(), rel=1e-5)
    kept = LABELS != 2
    found = measured(metrics.SparseCategoricalCrossentropy(ignore_class=2), LABELS, chances)
    assert found == pytest.approx(each[kept].mean(), rel=1e-5)
    found = measured(metrics.SparseCategoricalCrossentropy(ignore_class=2), LABELS, chances, weights=WEIGHTS)
    assert found == pytest.approx((each * WEIGHTS)[kept].sum() / WEIGHTS[kept].sum(), rel=1e-5)
    assert float(metrics.CosineSimilarity()(TRUE, 2 * TRUE)) == pytest.approx(1, rel=1e-5)


def test_sequences_of_labels():
    scores, labels = RANDOM.random((7, 3, 5)).astype(np.float32), RANDOM.integers(0, 5, (7, 3))
    each = scores.argmax(-1) == labels
    assert measured(metrics.SparseCategoricalAccuracy(), labels, scores) == pytest.approx(each.mean(), rel=1e-5)
    weights = RANDOM.random((7, 3)).astype(np.float32)
    found = measured(metrics.SparseCategoricalAccuracy(), labels, scores, weights=weights)
    assert found == pytest.approx((each * weights).sum() / weights.sum(), rel=1e-5)


def test_ties_and_what_is_no_class():
    top_2 = metrics.SparseTopKCategoricalAccuracy(k=2)
    assert float(top_2([1], [[3.0, 1.0, 1.0]])) == 1
    top_2.reset_state()
    assert float(top_2([-1, 7, 0], [[1.0, 1.0, 1.0]] * 2 + [[np.nan, 1.0, 1.0]])) == 0
    sorted_ids = metrics.SparseTopKCategoricalAccuracy(k=2, from_sorted_ids=True)
    assert float(sorted_ids([1, 2], [[0, 1, 2], [0, 1, 2]])) == 0.5


# --- names --------------------------------------------------------------------------------------------------------


def test_metrics_by_name():
    assert isinstance(metrics.get("mse"), metrics.MeanSquaredError)
    assert isinstance(metrics.get("SparseCategoricalAccuracy"), metrics.SparseCategoricalAccuracy)
    assert metrics.get("huber") is losses.huber and metrics.get(None) is None
    assert metrics.get(metrics.Mean).name == "mean"
    with pytest.raises(graphc.GraphcError, match="no metric is called 'acuracy'; did you mean accuracy"):
        metrics.get("acuracy")
    with pytest.raises(graphc.GraphcError, match="a metric is a name, a function or a Metric, not 3"):
        metrics.get(3)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.TopKCategoricalAccuracy(k=3, name="top"),
        metrics.BinaryAccuracy(threshold=0.25),
        metrics.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
        metrics.MeanMetricWrapper(losses.huber, name="h", delta=2.0),
    ],
)
def test_metrics_are_made_anew_from_their_configs(metric):
    again = metrics.deserialize(metrics.serialize(metric))
    assert type(again) is type(metric) and again.get_config() == metric.get_config()
    arrays = (np.zeros((3, 1), np.int32), SCORES[:3])
    if not isinstance(metric, metrics.TopKCategoricalAccuracy):
        np.testing.assert_array_equal(again(*arrays), metric(*arrays))


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        ((8,), (8, 1), metrics.BinaryAccuracy),
        ((8, 1), (8, 1), metrics.BinaryAccuracy),
        ((8,), (8, 5), metrics.SparseCategoricalAccuracy),
        ((8, 1), (8, 5), metrics.SparseCategoricalAccuracy),
        ((8, 5), (8, 5), metrics.CategoricalAccuracy),
        ((8, 3), (8, 3, 5), metrics.SparseCategoricalAccuracy),
    ],
)
def test_accuracy_goes_by_shapes(y_true, y_pred, expected):
    assert accuracy_for(np.zeros(y_true), np.zeros(y_pred)) is expected


def names(given, weighted=None, outputs=("a", "b")):
    compiled = CompiledMetrics(given, weighted)
    shapes = [np.zeros((4, 3), np.float32) for _ in outputs]
    compiled.build(shapes, shapes, outputs)
    return [use.name for use in compiled.uses]


def test_what_results_are_called():
    assert names(["mse", "acc"], outputs=("a",)) == ["mse", "acc"]
    assert names(["mse", "mse"], outputs=("a",)) == ["mse", "mse_1"]
    assert names(["mse"], ["mse", "mae"], outputs=("a",)) == ["mse", "weighted_mse", "mae"]
    assert names([["mse"], "mae"]) == ["a_mse", "b_mae"]
    assert names({"b": ["mse", "acc"]}, {"b": ["mse"]}) == ["b_mse", "b_acc", "b_weighted_mse"]
    assert names([None, ["mse"]]) == ["b_mse"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mse", "metrics is a list, or a dict from output to metrics, not 'mse'"),
        (["mes"], "no metric is called 'mes'; did you mean mse"),
        ({"c": "mse"}, "metrics names the output 'c'"),
        (["mse"], r"the model has 2 outputs \(a, b\); metrics is a dict"),
    ],
)
def test_metrics_that_do_not_fit(given, message):
    with pytest.raises(graphc.GraphcError, match=message):
        names(given)


# --- in models ----------------------------------------------------------------------------------------------------


class Largest(metrics.Metric):
    """The largest prediction, and how many there were."""

    def __init__(self, name="largest", **kwargs):
        super().__init__(name=name, **kwargs)
        self.largest = self.add_weight(name="largest", initializer="zeros")
        self.seen = metrics.Sum(name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.largest.assign(ops.maximum(self.largest, ops.max(y_pred)))
        self.seen.update_state(ops.ones_like(y_pred[:, 0]))

    def result(self):
        return {"largest": self.largest, "seen": self.seen.result()}


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_metrics_in_a_model(target):
    x = RANDOM.normal(size=(7, 4)).astype(np.float32)
    model = Sequential([Input((4,)), layers.Dense(5, activation="softmax")])
    wanted = ["accuracy", metrics.SparseTopKCategoricalAccuracy(k=2, name="top"), Largest()]
    model.compile(loss="sparse_categorical_crossentropy", metrics=wanted, weighted_metrics=["accuracy"], target=target)
    found = model.evaluate(x, LABELS, batch_size=4, sample_weight=WEIGHTS, return_dict=True, verbose=0)
    y = model.predict(x)
    right = y.argmax(1) == LABELS
    second = np.array([label in np.argsort(-row)[:2] for label, row in zip(LABELS, y, strict=True)])
    expected = {
        "loss": (-np.log(y[np.arange(7), LABELS]) * WEIGHTS).mean(),
        "accuracy": right.mean(),
        "top": second.mean(),
        "largest": y.max(),
        "seen": 7.0,
        "weighted_accuracy": (right * WEIGHTS).sum() / WEIGHTS.sum(),
    }
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-4)
    assert [m.name for m in model.metrics] == ["loss", "compile_metrics"]
    assert model.metrics_names == ["loss", "accuracy", "top", "largest", "weighted_accuracy"]
    model.reset_metrics()
    assert all(not v.numpy().any() for m in model.metrics for v in m.variables)


def test_metrics_of_several_outputs():
    inputs = Input((4,))
    model = Model(inputs, {"b": layers.Dense(1)(inputs), "a": layers.Dense(5)(inputs)})
    model.compile(
        loss={"a": losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"},
        metrics={"a": ["accuracy"], "b": ["mse", "mae"]},
    )
    x = RANDOM.normal(size=(7, 4)).astype(np.float32)
    found = model.evaluate(x, {"a": LABELS, "b": TRUE[:, :1]}, return_dict=True, verbose=0)
    y = model.predict(x)
    assert list(found) == ["loss", "a_loss", "b_loss", "a_accuracy", "b_mse", "b_mae"]
    assert found["a_accuracy"] == pytest.approx((y["a"].argmax(1) == LABELS).mean())
    assert found["b_mse"] == pytest.approx(((y["b"] - TRUE[:, :1]) ** 2).mean(), rel=1e-5)
    assert found["loss"] == pytest.approx(found["a_loss"] + found["b_loss"], rel=1e-5)


def test_a_metric_without_its_base():
    class Hasty(metrics.Metric):
        def __init__(self):
            self.total = self.add_weight(name="total")

    with pytest.raises(graphc.GraphcError, match=r"Hasty: call `super\(\).__init__\(\)` before variables"):
        Hasty()
    for method in ("update_state", "result"):
        with pytest.raises(graphc.GraphcError, match=f"Metric has no method `{method}`"):
            getattr(metrics.Metric(), method)()
