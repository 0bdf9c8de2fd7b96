"""Losses and metrics that users write, and targets that do not fit: aligned as Keras does, or told."""

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, Sequential, layers, losses, metrics, ops, optimizers

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=12).astype(np.float32)


def dense(units=1, **options):
    model = Sequential([Input((3,)), layers.Dense(units, name="scores")])
    model.compile("sgd", **options)
    return model


def squared(y_true, y_pred):
    return ops.square(y_true - y_pred)


# --- ranks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_a_function_gets_targets_of_the_rank_of_its_predictions(target):
    needs(target)
    model = dense(loss=squared, metrics=[squared, "mse"], weighted_metrics=[squared], target=target)
    weights = np.linspace(0, 1, 12, dtype=np.float32)
    for y in (Y, Y[:, None]):
        found = model.evaluate(X, y, sample_weight=weights, batch_size=5, return_dict=True, verbose=0)
        each = (Y - model.predict(X)[:, 0]) ** 2
        assert found["loss"] == pytest.approx((each * weights).mean(), rel=1e-5)
        assert found["squared"] == pytest.approx(each.mean(), rel=1e-5) == found["mse"]
        assert found["weighted_squared"] == pytest.approx((each * weights).sum() / weights.sum(), rel=1e-5)


@pytest.mark.parametrize("loss", ["hinge", "poisson", "kl_divergence", "binary_crossentropy"])
def test_losses_by_name_do_not_broadcast_either(loss):
    y, p = (Y > 0).astype(np.float32), np.random.default_rng(2).random((12, 1)).astype(np.float32)
    fn = losses.get(loss)
    np.testing.assert_array_equal(fn(y, p), fn(y[:, None], p))
    assert np.shape(fn(y, p)) == (12,)


def test_a_function_of_classes_gets_what_is_given():
    def sparse(y_true, y_pred):
        assert y_true.ndim == 1
        return losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)

    model = dense(4, loss=sparse, metrics=[sparse])
    found = model.evaluate(X, np.arange(12) % 4, return_dict=True, verbose=0)
    assert found["loss"] == pytest.approx(found["sparse"], rel=1e-6)


# --- shapes -------------------------------------------------------------------------------------------------------

WRONG = [
    ("mae", (12,), r"'mae' of the output 'scores' wants targets of shape \(B, 3\)"),
    ("mse", (12, 1), r"'mse' of the output 'scores' wants targets of shape \(B, 3\)"),
    (losses.MeanSquaredError(), (12,), r"'mean_squared_error' of the output 'scores' wants targets of shape \(B, 3\)"),
    (metrics.RootMeanSquaredError(), (12,), r"'root_mean_squared_error' of the output 'scores' wants targets of shape"),
    (metrics.AUC(name="auc"), (12,), r"'auc' of the output 'scores' wants targets of shape \(B, 3\)"),
    (metrics.F1Score("macro"), (12,), r"'f1_score' of the output 'scores' wants targets of shape \(B, 3\)"),
    (metrics.MeanIoU(3, name="iou"), (12,), r"'iou' of the output 'scores' wants targets of shape \(B, 3\)"),
    ("sparse_categorical_accuracy", (12, 3), r"'sparse_categorical_accuracy' of .* wants targets of shape \(B,\)"),
    ("categorical_accuracy", (12,), r"'categorical_accuracy' of the output 'scores' wants targets of shape \(B, 3\)"),
]


@pytest.mark.parametrize("examples", [12, 3])
@pytest.mark.parametrize(("metric", "shape", "message"), WRONG)
def test_targets_that_do_not_fit_a_metric(metric, shape, message, examples):
    model = dense(3, loss=lambda y_true, y_pred: ops.mean(y_pred, -1), metrics=[metric])
    y = np.zeros(shape, np.float32)[:examples]
    given = r"\(B,\)" if len(shape) == 1 else rf"\(B, {shape[1]}\)"
    with pytest.raises(
        graphc.ShapeError, match=rf"the metric {message}.*, for predictions of shape \(B, 3\); y has the shape {given}"
    ):
        model.evaluate(X[:examples], y, verbose=0)


def test_a_metric_of_several_numbers_is_no_log():
    model = dense(3, loss="mse", metrics=[metrics.F1Score()])
    with pytest.raises(
        graphc.ShapeError, match=r"the metric 'f1_score' gives numbers of shape \(3,\), and a log is one"
    ):
        model.evaluate(X, np.zeros((12, 3)), verbose=0)


# --- what users write ---------------------------------------------------------------------------------------------


def with_float(y_true, y_pred):
    return float(ops.mean(y_pred))


def with_if(y_true, y_pred):
    return y_pred if ops.mean(y_pred) > 0 else y_true


def with_numpy(y_true, y_pred):
    return y_pred.numpy()


@pytest.mark.parametrize("kind", ["loss", "metric"])
@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (with_float, r"a traced value has no number yet.*in the {} 'with_float'"),
        (with_if, r"the truth of a traced value is not known while tracing.*in the {} 'with_if'"),
        (with_numpy, r"the {} 'with_numpy' raised AttributeError: .*numpy.*write it with `graphc.ops`"),
    ],
)
def test_numbers_that_a_recorded_step_does_not_have(kind, fn, message):
    options = {"loss": fn} if kind == "loss" else {"loss": "mse", "metrics": [fn]}
    with pytest.raises(graphc.GraphcError, match="(?s)" + message.format(kind)):
        dense(**options).train_on_batch(X, Y)


def test_a_metric_class_of_the_users_that_raises_is_named():
    class Broken(metrics.Metric):
        def update_state(self, y_true, y_pred, sample_weight=None):
            raise KeyError("total")

        def result(self):
            return 0.0

    class Nothing(metrics.Metric):
        def update_state(self, y_true, y_pred, sample_weight=None):
            pass

        def result(self):
            return None

    with pytest.raises(graphc.GraphcError, match=r"the metric 'broken' raised KeyError: 'total'") as error:
        dense(loss="mse", metrics=[Broken()]).evaluate(X, Y, verbose=0)
    assert isinstance(error.value.__cause__, KeyError)
    with pytest.raises(graphc.GraphcError, match=r"`result` of the metric 'nothing' returns None"):
        dense(loss="mse", metrics=[Nothing()]).evaluate(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("found", "shown"), [(None, "None"), ("big", "'big'"), ([1.0], "a list"), ({"a": 1.0}, "a dict"), (True, "a bool")]
)
def test_what_a_loss_or_metric_returns(found, shown):
    def own(y_true, y_pred):
        return found

    with pytest.raises(graphc.GraphcError, match=f"the loss 'own' returns {shown}; it has to return the loss of each"):
        dense(loss=own).train_on_batch(X, Y)
    with pytest.raises(graphc.GraphcError, match=f"the metric 'own' returns {shown}; it has to return a value for"):
        dense(loss="mse", metrics=[own]).train_on_batch(X, Y)


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int8])
def test_narrow_targets_do_not_wrap_in_functions_of_the_users(dtype):
    def signed(y_true, y_pred):
        return ops.mean(ops.square((2 * y_true - 1) - y_pred), -1)

    class Signed(losses.Loss):
        def call(self, y_true, y_pred):
            return signed(y_true, y_pred)

    y = np.arange(12) % 2
    for loss in (signed, Signed()):
        model = dense(loss=loss, metrics=[signed])
        found = model.evaluate(X, y[:, None].astype(dtype), return_dict=True, verbose=0)
        expected = ((2.0 * y - 1 - model.predict(X)[:, 0]) ** 2).mean()
        assert found["loss"] == pytest.approx(expected, rel=1e-5) == found["signed"]


@pytest.mark.parametrize("kind", ["loss", "metric"])
def test_what_holds_for_batches_of_one_size_is_warned_of(kind):
    options = {"loss": squared} if kind == "loss" else {"loss": lambda y, p: ops.mean(p, -1), "metrics": [squared]}
    with pytest.warns(
        UserWarning, match=f"the {kind} 'squared' holds for batches of 3 examples only: something is"
    ) as told:
        dense(3, **options).evaluate(X[:3], Y[:3], verbose=0)
    assert told[0].filename == __file__


def test_a_metric_that_needs_arguments():
    with pytest.raises(graphc.GraphcError, match=r"the metric IoU needs arguments: give IoU\(num_classes=…, target_cl"):
        dense(loss="mse", metrics=["IoU"])


class OneArgument(losses.Loss):
    def call(self, y_pred):
        return y_pred


def test_functions_of_one_argument_are_told_by_compile():
    def of_one(y_pred):
        return y_pred

    message = r"the {} 'of_one' is called with \(y_true, y_pred\); it takes \(y_pred\): too many positional"
    for options, kind in (({"loss": of_one}, "loss"), ({"loss": "mse", "metrics": [of_one]}, "metric")):
        with pytest.raises(graphc.GraphcError, match=message.format(kind)):
            dense(**options)
    with pytest.raises(
        graphc.GraphcError, match=r"`call` of the loss 'one_argument.*' is called with \(y_true, y_pred\)"
    ):
        dense(loss=OneArgument())

    class Unweighted(metrics.Metric):
        def update_state(self, y_true, y_pred):
            pass

    message = r"`update_state` of the metric 'unweighted' is called with \(y_true, y_pred, sample_weight\); it takes"
    with pytest.raises(graphc.GraphcError, match=message):
        dense(loss="mse", weighted_metrics=[Unweighted()])
    dense(loss="mse", metrics=[Unweighted()])
    with pytest.raises(graphc.GraphcError, match=r"is called with \(y_true, y_pred, delta\); it takes"):
        losses.LossFunctionWrapper(squared, delta=2.0)


# --- outputs ------------------------------------------------------------------------------------------------------


def two_outputs(**options):
    x = Input((3,), name="x")
    model = Model(x, [layers.Dense(1, name="digit")(x), layers.Dense(2, name="side")(x)])
    model.compile("sgd", **options)
    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": ["mse"]}, "loss has 1 entry; the model has 2 outputs: digit, side"),
        ({"loss": {"digt": "mse"}}, "loss names the output 'digt', which the model does not have; did you mean digit"),
        ({"loss": "mse", "loss_weights": [1, 2, 3]}, "loss_weights has 3 entries; the model has 2 outputs"),
        ({"loss": "mse", "metrics": ["mae"]}, r"2 outputs \(digit, side\); metrics is a dict .* not a list of 1"),
        ({"loss": "mse", "metrics": [["mae"]] * 3}, r"a list with an entry for each output, not a list of 3"),
        ({"loss": "mse", "metrics": {"sid": "mae"}}, "metrics names the output 'sid', .* did you mean side"),
        ({"loss": "mse", "weighted_metrics": {"dig": "mae"}}, "weighted_metrics names the output 'dig'.* mean digit"),
    ],
)
def test_losses_and_metrics_for_outputs_that_there_are_not(options, message):
    with pytest.raises(graphc.GraphcError, match=message):
        two_outputs(**options)


def test_a_model_of_one_output_knows_its_name_too():
    for options in ({"metrics": {"scorse": ["mae"]}}, {"loss": {"scorse": "mse"}}):
        with pytest.raises(graphc.GraphcError, match=r"names the output 'scorse', .* did you mean scores"):
            dense(**{"loss": "mse", **options})


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_a_label_out_of_range_is_named_by_its_row_of_the_data(shuffle):
    x, y = np.tile(X, (4, 1)), np.arange(48) % 4
    y[31] = 9
    model = Sequential([Input((3,)), layers.Dense(4)])
    model.compile(optimizers.SGD(0.0), losses.SparseCategoricalCrossentropy(from_logits=True))
    for options in ({}, {"steps_per_epoch": 3}, {"initial_epoch": 2}):
        with pytest.raises(graphc.GraphcError, match=r"y has the label 9 at 31 of the data; .* 0 to 3"):
            model.fit(x, y, batch_size=5, epochs=9, shuffle=shuffle, verbose=0, **options)
    with pytest.raises(graphc.GraphcError, match=r"label 9 at 31 of the data"):
        model.evaluate(x, y, batch_size=5, verbose=0)


def test_a_label_of_a_sequence_keeps_its_other_axes():
    model = Sequential([Input((5,), dtype="int32"), layers.Embedding(6, 4), layers.Dense(6)])
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    y = np.zeros((9, 5), np.int32)
    y[7, 3] = 6
    with pytest.raises(graphc.GraphcError, match=r"label 6 at \[7, 3\] of the data"):
        model.fit(np.zeros((9, 5), np.int32), y, batch_size=2, verbose=0)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_batch_of_a_data_set_is_named_by_its_number(shuffle):
    class Batches(graphc.utils.PyDataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return X[:4], np.array([0, 1, 9 if index == 5 else 3, 2])

    model = Sequential([Input((3,)), layers.Dense(4)])
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    for options in ({}, {"steps_per_epoch": 2, "epochs": 4}):
        with pytest.raises(graphc.GraphcError, match=r"label 9 at 2 of batch 5 of Batches; .* 0 to 3"):
            model.fit(Batches(), shuffle=shuffle, verbose=0, **options)


def test_batches_that_come_from_elsewhere_are_named_by_step():
    def batches():
        for _ in range(3):
            yield X[:4], np.array([0, 1, 9, 2])

    model = Sequential([Input((3,)), layers.Dense(4)])
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(graphc.GraphcError, match=r"(?s)label 9 at 2 of the batch.*epoch 1, step 1"):
        model.fit(batches(), verbose=0)


def test_a_scalar_loss_that_is_weighed_is_told_by_name():
    def mean_square(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred))

    with pytest.raises(graphc.ShapeError, match="gives a number for each example, not one for all") as error:
        dense(loss=mean_square).fit(X, Y, sample_weight=np.ones(12), verbose=0)
    assert "in the loss 'mean_square'" in str(error.value)
