"""Metrics and losses whose numbers are pinned: those of Keras 3.15, two batches, with and without weights.

Its torch and JAX backends agree in them to six digits.
"""

from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Sequential, layers, losses, metrics

RANDOM = np.random.default_rng(7)
DATA = {
    "chances": RANDOM.random((9, 4)).astype(np.float32),
    "bits": (RANDOM.random((9, 4)) < 0.45).astype(np.float32),
    "numbers": RANDOM.normal(size=(9, 4)).astype(np.float32),
}
DATA["near"] = (DATA["numbers"] + RANDOM.normal(size=(9, 4)) * 0.5).astype(np.float32)
DATA["classes"], DATA["guesses"] = (RANDOM.integers(0, 4, 9).astype(np.int32) for _ in range(2))
DATA["one_hot"] = np.eye(4, dtype=np.float32)[DATA["classes"]]
WEIGHTS = RANDOM.random(9).astype(np.float32)
COUNTS = RANDOM.integers(0, 5, 9).astype(np.int32)
DATA["shares"] = (DATA["chances"] / DATA["chances"].sum(1, keepdims=True)).astype(np.float32)
DATA["units"] = (DATA["numbers"] / np.linalg.norm(DATA["numbers"], axis=1, keepdims=True)).astype(np.float32)
DATA["bit"], DATA["chance"] = DATA["bits"][:, 0], DATA["chances"][:, :1]
DATA["label"], DATA["number"] = DATA["near"][:, 0], DATA["numbers"][:, :1]

# The class, its arguments, targets, predictions, and the result: plain, and with a weight for each example.
METRICS = [
    ("TruePositives", {}, "bits", "chances", 10.0, 3.83648),
    (
        "TruePositives",
        {"thresholds": [0.2, 0.5, 0.9]},
        "bits",
        "chances",
        [16.0, 10.0, 3.0],
        [7.49603, 3.83648, 0.847255],
    ),
    ("FalsePositives", {}, "bits", "chances", 8.0, 4.44965),
    ("FalsePositives", {"thresholds": [0.2, 0.5, 0.9]}, "bits", "chances", [14.0, 8.0, 0.0], [7.31175, 4.44965, 0.0]),
    ("TrueNegatives", {}, "bits", "chances", 10.0, 4.6608),
    ("TrueNegatives", {"thresholds": [0.2, 0.5, 0.9]}, "bits", "chances", [4.0, 10.0, 18.0], [1.7987, 4.6608, 9.11045]),
    ("FalseNegatives", {}, "bits", "chances", 8.0, 4.77793),
    (
        "FalseNegatives",
        {"thresholds": [0.2, 0.5, 0.9]},
        "bits",
        "chances",
        [2.0, 8.0, 15.0],
        [1.11838, 4.77793, 7.76715],
    ),
    ("Precision", {}, "bits", "chances", 0.555556, 0.463),
    (
        "Precision",
        {"thresholds": [0.2, 0.5, 0.9]},
        "bits",
        "chances",
        [0.533333, 0.555556, 1.0],
        [0.506222, 0.463, 1.0],
    ),
    ("Precision", {"thresholds": [0.0, 0.5, 1.0]}, "bits", "chances", [0.5, 0.555556, 0.0], [0.486007, 0.463, 0.0]),
    ("Precision", {"top_k": 2}, "bits", "chances", 0.444444, 0.365397),
    ("Precision", {"class_id": 1}, "bits", "chances", 0.6, 0.661293),
    ("Precision", {"top_k": 3, "class_id": 2}, "bits", "chances", 0.428571, 0.445786),
    ("Precision", {"top_k": 1, "thresholds": 0.8}, "bits", "chances", 0.75, 0.64937),
    ("Precision", {}, "bit", "chance", 0.75, 0.577551),
    ("Recall", {}, "bits", "chances", 0.555556, 0.445356),
    (
        "Recall",
        {"thresholds": [0.2, 0.5, 0.9]},
        "bits",
        "chances",
        [0.888889, 0.555556, 0.166667],
        [0.870174, 0.445356, 0.0983533],
    ),
    ("Recall", {"thresholds": [0.0, 0.5, 1.0]}, "bits", "chances", [1.0, 0.555556, 0.0], [1.0, 0.445356, 0.0]),
    ("Recall", {"top_k": 2}, "bits", "chances", 0.444444, 0.375917),
    ("Recall", {"class_id": 1}, "bits", "chances", 0.6, 0.542894),
    ("Recall", {"top_k": 3, "class_id": 2}, "bits", "chances", 0.75, 0.792069),
    ("Recall", {"top_k": 1, "thresholds": 0.8}, "bits", "chances", 0.166667, 0.135362),
    ("Recall", {}, "bit", "chance", 0.75, 0.678418),
    ("SensitivityAtSpecificity", {"specificity": 0.6}, "bits", "chances", 0.444444, 0.22783),
    ("SensitivityAtSpecificity", {"specificity": 0.3, "num_thresholds": 7}, "bits", "chances", 0.611111, 0.470071),
    ("SensitivityAtSpecificity", {"specificity": 0.6, "class_id": 2}, "bits", "chances", 0.25, 0.0),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6}, "bits", "chances", 0.555556, 0.362864),
    ("SpecificityAtSensitivity", {"sensitivity": 0.3, "num_thresholds": 7}, "bits", "chances", 0.555556, 0.511588),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6, "class_id": 2}, "bits", "chances", 0.4, 0.250268),
    ("PrecisionAtRecall", {"recall": 0.6}, "bits", "chances", 0.578947, 0.540897),
    ("PrecisionAtRecall", {"recall": 0.3, "num_thresholds": 7}, "bits", "chances", 0.555556, 0.534972),
    ("PrecisionAtRecall", {"recall": 0.6, "class_id": 2}, "bits", "chances", 0.5, 0.503848),
    ("RecallAtPrecision", {"precision": 0.6}, "bits", "chances", 0.444444, 0.181596),
    ("RecallAtPrecision", {"precision": 0.3, "num_thresholds": 7}, "bits", "chances", 1.0, 1.0),
    ("RecallAtPrecision", {"precision": 0.6, "class_id": 2}, "bits", "chances", 0.0, 0.0),
    ("AUC", {"curve": "ROC", "summation_method": "interpolation"}, "bits", "chances", 0.594136, 0.488207),
    ("AUC", {"curve": "ROC", "summation_method": "minoring"}, "bits", "chances", 0.592593, 0.488139),
    ("AUC", {"curve": "ROC", "summation_method": "majoring"}, "bits", "chances", 0.595679, 0.488276),
    ("AUC", {"curve": "ROC", "thresholds": [0.1, 0.35, 0.8]}, "bits", "chances", 0.57716, 0.494144),
    ("AUC", {"curve": "ROC", "multi_label": True}, "bits", "chances", 0.56875, 0.424663),
    (
        "AUC",
        {
            "curve": "ROC",
            "num_thresholds": 11,
            "multi_label": True,
            "num_labels": 4,
            "label_weights": [0.1, 0.2, 0.5, 0.3],
        },
        "bits",
        "chances",
        0.5,
        0.400945,
    ),
    ("AUC", {"curve": "PR", "summation_method": "interpolation"}, "bits", "chances", 0.646132, 0.558319),
    ("AUC", {"curve": "PR", "summation_method": "minoring"}, "bits", "chances", 0.580768, 0.497117),
    ("AUC", {"curve": "PR", "summation_method": "majoring"}, "bits", "chances", 0.655493, 0.57253),
    ("AUC", {"curve": "PR", "thresholds": [0.1, 0.35, 0.8]}, "bits", "chances", 0.569817, 0.48929),
    ("AUC", {"curve": "PR", "multi_label": True}, "bits", "chances", 0.62299, 0.530084),
    (
        "AUC",
        {
            "curve": "PR",
            "num_thresholds": 11,
            "multi_label": True,
            "num_labels": 4,
            "label_weights": [0.1, 0.2, 0.5, 0.3],
        },
        "bits",
        "chances",
        0.530485,
        0.453494,
    ),
    ("AUC", {"curve": "PRGAIN", "summation_method": "interpolation"}, "bits", "chances", 0.130351, -0.0783685),
    ("AUC", {"curve": "PRGAIN", "summation_method": "minoring"}, "bits", "chances", 0.09434, -0.15821),
    ("AUC", {"curve": "PRGAIN", "summation_method": "majoring"}, "bits", "chances", 0.166361, 0.00147349),
    ("AUC", {"curve": "PRGAIN", "thresholds": [0.1, 0.35, 0.8]}, "bits", "chances", 0.161616, -0.0789849),
    ("AUC", {"curve": "PRGAIN", "multi_label": True}, "bits", "chances", 0.0428472, -0.239592),
    (
        "AUC",
        {
            "curve": "PRGAIN",
            "num_thresholds": 11,
            "multi_label": True,
            "num_labels": 4,
            "label_weights": [0.1, 0.2, 0.5, 0.3],
        },
        "bits",
        "chances",
        -0.0895707,
        -0.356776,
    ),
    ("AUC", {"label_weights": [0.1, 0.2, 0.5, 0.3]}, "bits", "chances", 0.527347, 0.427087),
    ("AUC", {"from_logits": True}, "bits", "numbers", 0.350309, 0.373015),
    ("AUC", {}, "bit", "chance", 0.85, 0.687091),
    (
        "F1Score",
        {"average": None},
        "one_hot",
        "chances",
        [0.285714, 0.8, 0.0, 0.666667],
        [0.252865, 0.926743, 0.0, 0.929191],
    ),
    (
        "F1Score",
        {"average": None, "threshold": 0.4},
        "bits",
        "chances",
        [0.75, 0.5, 0.545454, 0.444444],
        [0.623934, 0.461246, 0.397797, 0.242317],
    ),
    (
        "FBetaScore",
        {"average": None, "beta": 2.0, "threshold": 0.4},
        "bits",
        "chances",
        [0.75, 0.555556, 0.652174, 0.416667],
        [0.655521, 0.506996, 0.449814, 0.212002],
    ),
    ("F1Score", {"average": "micro"}, "one_hot", "chances", 0.444444, 0.46887),
    ("F1Score", {"average": "micro", "threshold": 0.4}, "bits", "chances", 0.55, 0.438521),
    ("FBetaScore", {"average": "micro", "beta": 2.0, "threshold": 0.4}, "bits", "chances", 0.585106, 0.456922),
    ("F1Score", {"average": "macro"}, "one_hot", "chances", 0.438095, 0.5272),
    ("F1Score", {"average": "macro", "threshold": 0.4}, "bits", "chances", 0.559975, 0.431324),
    ("FBetaScore", {"average": "macro", "beta": 2.0, "threshold": 0.4}, "bits", "chances", 0.593599, 0.456083),
    ("F1Score", {"average": "weighted"}, "one_hot", "chances", 0.467725, 0.485379),
    ("F1Score", {"average": "weighted", "threshold": 0.4}, "bits", "chances", 0.550224, 0.425802),
    ("FBetaScore", {"average": "weighted", "beta": 2.0, "threshold": 0.4}, "bits", "chances", 0.581656, 0.449467),
    ("IoU", {"num_classes": 4, "target_class_ids": [0, 2]}, "classes", "guesses", 0.0, 0.0),
    ("IoU", {"num_classes": 4, "target_class_ids": [0, 2], "ignore_class": 2}, "classes", "guesses", 0.0, 0.0),
    (
        "IoU",
        {"num_classes": 4, "target_class_ids": [0, 3], "sparse_y_pred": False},
        "classes",
        "chances",
        0.333333,
        0.107143,
    ),
    ("MeanIoU", {"num_classes": 3}, "classes", "guesses", 0.0, 0.0),
    ("MeanIoU", {"num_classes": 6}, "classes", "guesses", 0.0, 0.0),
    ("OneHotIoU", {"num_classes": 4, "target_class_ids": [1, 3]}, "one_hot", "chances", 0.583333, 0.4),
    ("OneHotMeanIoU", {"num_classes": 4}, "one_hot", "chances", 0.333333, 0.253571),
    ("OneHotMeanIoU", {"num_classes": 4, "sparse_y_pred": True}, "one_hot", "guesses", 0.0, 0.0),
    ("BinaryIoU", {}, "bit", "chance", 0.633333, 0.569231),
    ("BinaryIoU", {"threshold": 0.3, "target_class_ids": [1], "dtype": "float32"}, "bit", "chance", 0.8, 0.866667),
    ("R2Score", {}, "near", "numbers", 0.661601, 0.593181),
    (
        "R2Score",
        {"class_aggregation": None},
        "near",
        "numbers",
        [0.818806, 0.351996, 0.827726, 0.647876],
        [0.852058, -0.000493526, 0.825194, 0.695967],
    ),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, "near", "numbers", 0.744147, 0.767026),
    ("R2Score", {"num_regressors": 2}, "near", "numbers", 0.641092, 0.568526),
    ("R2Score", {"num_regressors": 35}, "near", "numbers", 0.661601, 0.593181),
    ("R2Score", {"num_regressors": 40}, "near", "numbers", 0.661601, 0.593181),
    ("R2Score", {}, "label", "number", 0.818806, 0.852058),
    ("PearsonCorrelation", {}, "near", "numbers", 0.93809, 0.937303),
    ("ConcordanceCorrelation", {}, "near", "numbers", 0.85754, 0.877656),
    ("CosineSimilarity", {}, "near", "numbers", 0.908433, 0.913933),
    ("LogCoshError", {}, "near", "numbers", 0.0945645, 0.0804921),
    ("MeanAbsolutePercentageError", {}, "near", "numbers", 61.0026, 55.2818),
    ("RootMeanSquaredError", {}, "near", "numbers", 0.453358, 0.415976),
    ("Hinge", {}, "bits", "numbers", 1.27972, 1.26213),
    ("SquaredHinge", {}, "bits", "numbers", 2.36022, 2.38268),
    ("CategoricalHinge", {}, "one_hot", "numbers", 1.64454, 1.79977),
]

# The same; the weighted mean over examples, and that over weights.
LOSSES = [
    ("BinaryFocalCrossentropy", {}, "bits", "chances", 0.37268, 0.233274, 0.47379),
    (
        "BinaryFocalCrossentropy",
        {"alpha": 0.4, "gamma": 1.5, "apply_class_balancing": True},
        "bits",
        "chances",
        0.216246,
        0.134607,
        0.273394,
    ),
    ("BinaryFocalCrossentropy", {"label_smoothing": 0.1}, "bits", "chances", 0.338619, 0.210224, 0.426975),
    ("BinaryFocalCrossentropy", {"from_logits": True}, "bits", "numbers", 0.424631, 0.212525, 0.431648),
    ("CategoricalFocalCrossentropy", {}, "one_hot", "shares", 0.362891, 0.186854, 0.379509),
    ("CategoricalFocalCrossentropy", {"alpha": 0.4, "gamma": 1.5}, "one_hot", "shares", 0.617997, 0.316893, 0.643624),
    (
        "CategoricalFocalCrossentropy",
        {"alpha": [0.1, 0.2, 0.3, 0.4]},
        "one_hot",
        "shares",
        0.206643,
        0.114909,
        0.233384,
    ),
    ("CategoricalFocalCrossentropy", {"label_smoothing": 0.1}, "one_hot", "shares", 0.35647, 0.18341, 0.372514),
    ("CategoricalFocalCrossentropy", {"from_logits": True}, "one_hot", "numbers", 0.236392, 0.137204, 0.278668),
    ("CategoricalGeneralizedCrossEntropy", {}, "classes", "shares", 1.11495, 0.552471, 1.12209),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.7}, "classes", "shares", 0.946839, 0.467483, 0.949479),
    ("Dice", {}, "bits", "chances", 0.4581, None, None),
    ("Tversky", {"alpha": 0.3, "beta": 0.9}, "bits", "chances", 0.499532, None, None),
    ("Dice", {"axis": -1}, "bits", "chances", 0.554615, 0.302706, 0.61481),
    ("Tversky", {"axis": -1, "alpha": 0.3, "beta": 0.9}, "bits", "chances", 0.57825, 0.313001, 0.63572),
    ("Circle", {}, "classes", "units", 201.226, 104.54, 234.021),
    ("Circle", {"gamma": 5.0, "margin": 0.2}, "classes", "units", 14.5918, 7.40163, 16.5692),
    ("Circle", {"remove_diagonal": False}, "classes", "units", 162.309, 86.9432, 176.586),
]


def measured(metric, y_true, y_pred, weights=None):
    """The result after two batches."""
    for part in (slice(0, 5), slice(5, 9)):
        weight = None if weights is None else weights[part]
        metric.update_state(DATA[y_true][part], DATA[y_pred][part], sample_weight=weight)
    return np.asarray(metric.result())


def case_id(case):
    return f"{case[0]}-{'-'.join(f'{key}={value}' for key, value in case[1].items())}-{case[3]}"


@pytest.mark.parametrize("case", METRICS, ids=case_id)
def test_a_metric_is_what_it_is_in_keras(case):
    name, options, y_true, y_pred, plain, weighted = case
    make = getattr(metrics, name)
    weights = COUNTS if "IoU" in name else WEIGHTS
    np.testing.assert_allclose(measured(make(**options), y_true, y_pred), plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(measured(make(**options), y_true, y_pred, weights), weighted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", LOSSES, ids=case_id)
def test_a_loss_is_what_it_is_in_keras(case):
    name, options, y_true, y_pred, plain, weighted, by_weight = case
    make = getattr(losses, name)
    arrays = DATA[y_true], DATA[y_pred]
    np.testing.assert_allclose(make(**options)(*arrays), plain, rtol=1e-5)
    if weighted is not None:
        np.testing.assert_allclose(make(**options)(*arrays, WEIGHTS), weighted, rtol=1e-5)
        loss = make(**options, reduction="mean_with_sample_weight")
        np.testing.assert_allclose(loss(*arrays, WEIGHTS), by_weight, rtol=1e-5)


@pytest.mark.parametrize("case", METRICS[::3] + LOSSES, ids=case_id)
def test_configuration_makes_an_equal_one(case):
    name, options, y_true, y_pred = case[:4]
    room = metrics if hasattr(metrics, name) else losses
    given = getattr(room, name)(**options, name="mine")
    again = room.deserialize(room.serialize(given))
    assert type(again) is type(given) and again.get_config() == given.get_config()
    np.testing.assert_array_equal(again(DATA[y_true], DATA[y_pred]), given(DATA[y_true], DATA[y_pred]))


# --- recorded -----------------------------------------------------------------------------------------------------


def of_scores():
    """Metrics of bits and chances that give one number."""
    return [
        metrics.Precision(),
        metrics.Recall(top_k=2, name="recall_top"),
        metrics.Precision(class_id=1, thresholds=0.3, name="of_one_class"),
        metrics.TrueNegatives(thresholds=0.4),
        metrics.SensitivityAtSpecificity(0.5),
        metrics.AUC(),
        metrics.AUC(curve="PR", name="pr", thresholds=[0.2, 0.45, 0.6]),
        metrics.AUC(multi_label=True, name="labels", label_weights=[0.1, 0.2, 0.5, 0.3]),
        metrics.AUC(multi_label=True, name="few", thresholds=[0.4, 0.5, 0.7], curve="PRGAIN"),
        metrics.F1Score("macro"),
        metrics.FBetaScore("micro", beta=2.0, threshold=0.5),
        metrics.R2Score("variance_weighted_average", num_regressors=2),
        metrics.OneHotMeanIoU(4, dtype="float32"),
        metrics.ConcordanceCorrelation(),
    ]


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_metrics_are_recorded_on_every_target(target):
    needs(target)
    x = DATA["numbers"]
    model = Sequential([Input((4,)), layers.Dense(4, activation="sigmoid")])
    weighted = [metrics.Recall(name="w_recall"), metrics.AUC(name="w_auc"), metrics.F1Score("weighted", name="w_f1")]
    model.compile(loss="mse", metrics=of_scores(), weighted_metrics=weighted, target=target)
    for _ in range(2):  # the state starts anew
        found = model.evaluate(x, DATA["bits"], sample_weight=WEIGHTS, batch_size=5, return_dict=True, verbose=0)
    y = model.predict(x)
    for metric in of_scores():
        metric.update_state(DATA["bits"], y)
        assert found[metric.name] == pytest.approx(float(metric.result()), rel=2e-4, abs=1e-5), metric.name
    for metric in (type(each).from_config(each.get_config()) for each in weighted):
        metric.update_state(DATA["bits"], y, sample_weight=WEIGHTS)
        assert found[metric.name] == pytest.approx(float(metric.result()), rel=2e-4, abs=1e-5), metric.name


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_losses_are_differentiated_on_every_target(target):
    """The first step of gradient descent is that of the interpreter."""
    needs(target)
    cases = [
        (losses.BinaryFocalCrossentropy(apply_class_balancing=True), "bits"),
        (losses.CategoricalFocalCrossentropy(), "one_hot"),
        (losses.CategoricalGeneralizedCrossEntropy(), "classes"),
        (losses.Dice(axis=-1), "bits"),
        (losses.Tversky(alpha=0.3, beta=0.7), "bits"),
        (losses.Circle(gamma=5.0), "classes"),
    ]
    for loss, y in cases if target != "jax" else cases[3:]:
        model = Sequential([Input((4,)), layers.Dense(4, activation="softmax", kernel_initializer="ones")])
        start = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
        steps = {}
        for where in dict.fromkeys(["numpy", target]):
            model.set_weights([start, np.zeros(4, np.float32)])
            model.compile("sgd", loss, target=where)
            first = model.train_on_batch(DATA["numbers"], DATA[y])
            assert first == pytest.approx(float(loss(DATA[y], model_of(start))), rel=1e-5)
            steps[where] = model.get_weights()[0]
        assert np.abs(steps["numpy"] - start).max() > 1e-6
        np.testing.assert_allclose(steps[target], steps["numpy"], rtol=1e-4, atol=1e-6)


def model_of(kernel):
    scores = np.exp(DATA["numbers"] @ kernel)
    return (scores / scores.sum(1, keepdims=True)).astype(np.float32)


# --- mistakes and names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.Precision(thresholds=1.5), "Precision: thresholds are numbers from 0 to 1, not 1.5"),
        (lambda: metrics.Recall(top_k=0), "Recall: top_k is an integer of 1 or more, not 0"),
        (lambda: metrics.AUC(curve="P"), "AUC: curve is one of 'ROC', 'PR', 'PRGAIN', not 'P'"),
        (lambda: metrics.AUC(num_thresholds=1), "AUC: num_thresholds is an integer of 2 or more, not 1"),
        (lambda: metrics.AUC(num_labels=2), "num_labels goes with multi_label"),
        (lambda: metrics.F1Score("mean"), "F1Score: average is None, 'micro', 'macro' or 'weighted', not 'mean'"),
        (lambda: metrics.FBetaScore(beta=2), "FBetaScore: beta is a float above 0, not 2"),
        (lambda: metrics.IoU(2, [2]), "IoU: target_class_ids are classes from 0 to 1"),
        (lambda: metrics.R2Score("mean"), "R2Score: class_aggregation is"),
        (lambda: metrics.PrecisionAtRecall(2), "PrecisionAtRecall: recall is a number from 0 to 1, not 2"),
        (lambda: losses.CategoricalGeneralizedCrossEntropy(1.0), "q is a number between 0 and 1, not 1.0"),
        (lambda: metrics.F1Score().result(), "'f1_score' has seen no predictions yet"),
    ],
)
def test_arguments_that_mean_nothing(make, message):
    with pytest.raises(graphc.GraphcError, match=message):
        make()


def test_a_class_that_there_is_not():
    for y_pred in (DATA["bits"], DATA["bit"]):
        with pytest.raises(graphc.ShapeError, match=r"class_id=4 is one of the classes.* the shape \(9,"):
            metrics.Recall(class_id=4).update_state(y_pred, y_pred)


def test_weights_that_are_cut_off_are_warned_of():
    metric = metrics.MeanIoU(4)
    with pytest.warns(UserWarning, match="sums integers, and cuts sample weights off"):
        metric.update_state(DATA["classes"], DATA["guesses"], sample_weight=WEIGHTS)
    assert not metric.total_cm.numpy().any()


@pytest.mark.parametrize(
    "make",
    [
        metrics.Precision,
        metrics.AUC,
        lambda: metrics.F1Score("macro"),
        metrics.R2Score,
        lambda: metrics.MeanIoU(2, dtype="float32"),
    ],
)
def test_weights_of_examples_are_those_of_all_their_values(make):
    expected, one, other = make(), make(), make()
    expected.update_state(DATA["bits"], DATA["bits"][::-1], sample_weight=np.tile(WEIGHTS[:, None], 4))
    one.update_state(DATA["bits"], DATA["bits"][::-1], sample_weight=WEIGHTS)
    other.update_state(DATA["bits"], DATA["bits"][::-1], sample_weight=WEIGHTS[:, None])
    assert float(one.result()) == float(other.result()) == float(expected.result())
    for wrong in (np.ones((9, 4, 2), np.float32), np.ones(7, np.float32)):
        with pytest.raises(graphc.ShapeError):
            make().update_state(DATA["bits"], DATA["bits"], sample_weight=wrong)


def test_names_of_the_new_ones():
    assert isinstance(metrics.get("auc"), metrics.AUC) and isinstance(metrics.get("f1_score"), metrics.F1Score)
    assert isinstance(metrics.get("precision"), metrics.Precision) and isinstance(metrics.get("AUC"), metrics.AUC)
    assert losses.get("dice") is losses.dice and isinstance(losses.get("Circle"), losses.Circle)


def test_the_guide_lists_all_of_them():
    guide = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    lists = guide.split("## Losses and metrics")[1].split("## ")[0]
    bases = {"Loss", "LossFunctionWrapper", "Metric"}
    for part, room in zip(lists.split("`CTC` is missing"), (losses, metrics), strict=True):
        classes = {name for name in dir(room) if isinstance(getattr(room, name), type)} - bases
        assert {name for name in classes if f"`{name}`" not in part} == set()


def test_only_what_is_public_is_listed():
    for room in (losses, metrics):
        names = dir(room)
        assert names == sorted(names) and not {"annotations", "ops", "Any", "graphc", "loss_functions"} & set(names)
        for name in names:
            assert getattr(room, name).__module__.startswith("graphc.runtime.training"), name
    assert {"Loss", "get", "mean_squared_error", "Dice"} < set(dir(losses))
    assert {"Metric", "get", "AUC", "binary_accuracy", "deserialize"} < set(dir(metrics))
