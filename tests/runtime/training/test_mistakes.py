"""What training refuses, and what it says."""

import warnings

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, Sequential, layers, losses, ops, optimizers

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
LABELS = np.arange(12) % 4


def classifier(**options):
    model = Sequential([Input((3,)), layers.Dense(8, activation="relu", name="hidden"), layers.Dense(4, name="scores")])
    model.compile(optimizers.SGD(0.1), losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


def test_a_model_that_is_not_compiled():
    model = Sequential([Input((3,)), layers.Dense(2)])
    with pytest.raises(graphc.GraphcError, match=r"is not compiled: call compile\(optimizer"):
        model.fit(X, LABELS)


def test_a_model_without_a_loss():
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.compile("sgd")
    with pytest.raises(graphc.GraphcError, match="has no loss: give one to `compile`"):
        model.fit(X, LABELS, verbose=0)


@pytest.mark.parametrize(("label", "dtype"), [(4, np.int64), (-1, np.int32), (200, np.uint8)])
def test_labels_out_of_range(label, dtype):
    labels = LABELS.astype(dtype)
    labels[9] = label
    with pytest.raises(graphc.GraphcError, match=f"y has the label {label} at 9 of the data; .* 0 to 3") as error:
        classifier().fit(X, labels, batch_size=5, shuffle=False, verbose=0)
    assert "epoch 1, step 2" in str(error.value)


def test_labels_of_sequences_name_their_place():
    model = Sequential([Input((5,), dtype="int32"), layers.Embedding(6, 4), layers.Dense(6)])
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    labels = np.zeros((2, 5), np.int32)
    labels[1, 3], labels[0, 0] = 6, -1
    with pytest.raises(graphc.GraphcError, match=r"label 6 at \[1, 3\] of the batch; .* 0 to 5, and -1 for none"):
        model.train_on_batch(np.zeros((2, 5), np.int32), labels)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        ("mse", np.zeros((12, 1))),
        ("mse", np.zeros((12, 3))),
        ("sparse_categorical_crossentropy", np.zeros((12, 2), int)),
    ],
)
def test_targets_of_another_shape(loss, y):
    model = Sequential([Input((3,)), layers.Dense(4, name="scores")])
    model.compile("sgd", loss)
    with pytest.raises(graphc.ShapeError, match=r"of the output 'scores' wants targets of shape \(B.*y has the shape"):
        model.fit(X, y, verbose=0)


def test_a_loss_that_is_no_scalar():
    class Vector(Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, inputs):
            return self.dense(inputs)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y_pred), axis=-1)

    model = Vector()
    model.compile("sgd")
    with pytest.raises(graphc.ShapeError, match=r"a gradient is of a real scalar; the loss is f32\[B\]"):
        model.fit(X, verbose=0)
    plain = Sequential([Input((3,)), layers.Dense(4)])
    plain.compile("sgd", losses.MeanSquaredError(reduction="none"))
    with pytest.raises(graphc.ShapeError, match="not a scalar: its reduction is 'none'"):
        plain.fit(X, np.zeros((12, 4)), verbose=0)


def test_a_loss_that_reaches_no_weight():
    model = Sequential([Input((3,)), layers.Dense(4)])
    model.compile("sgd", lambda y_true, y_pred: ops.mean(ops.stop_gradient(y_pred), -1))
    with pytest.raises(graphc.GraphcError, match="does not depend on any of the weights"):
        model.fit(X, LABELS, verbose=0)


def test_weights_that_the_loss_does_not_reach_are_named_once():
    x = Input((3,), name="x")
    model = Model(x, {"a": layers.Dense(2, name="a")(x), "b": layers.Dense(2, name="b")(x)})
    model.compile("sgd", {"a": "mse"})
    with pytest.warns(UserWarning, match="the loss does not depend on .*b/kernel, b/bias"):
        model.fit(X, {"a": np.zeros((12, 2))}, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, {"a": np.zeros((12, 2))}, verbose=0)


@pytest.mark.parametrize("target", ["numpy", "onnx", pytest.param("jax", marks=pytest.mark.slow)])
def test_what_is_not_finite_is_named(target):
    needs(target)
    model = classifier(check_finite=True, target=target)
    kernel, bias, last, last_bias = model.get_weights()
    model.fit(X, LABELS, batch_size=4, verbose=0)
    model.set_weights([kernel, bias + 5, last * 0 + np.float32(3e38), last_bias])
    with pytest.raises(graphc.GraphcError, match=r"(?s)the output of layer 'scores'.* is not finite.*epoch 1, step 1"):
        model.fit(X, LABELS, batch_size=4, verbose=0)


def test_a_gradient_that_is_not_finite_is_named():
    model = Sequential([Input((3,)), layers.Dense(4, use_bias=False, name="scores")])
    model.compile("sgd", lambda y_true, y_pred: ops.mean(ops.sqrt(ops.absolute(y_pred)), -1), check_finite=True)
    with pytest.raises(graphc.GraphcError, match="the gradient of 'scores/kernel' is not finite"):
        model.train_on_batch(np.zeros((2, 3), np.float32), np.zeros(2))


def test_nan_in_the_data_is_named():
    broken = X.copy()
    broken[7, 1] = np.nan
    with pytest.raises(graphc.GraphcError, match="x has 1 value that is NaN or infinite at epoch 1, step 2"):
        classifier(check_finite=True).fit(broken, LABELS, batch_size=6, shuffle=False, verbose=0)


def test_variables_keep_their_dtype():
    class Counting(layers.Layer):
        def build(self, input_shape):
            self.seen = self.add_weight((), "zeros", dtype="float16", trainable=False, name="seen")

        def call(self, inputs):
            self.seen.assign(ops.cast(self.seen, "float32") + 1.0)
            return inputs

    with pytest.raises(graphc.GraphcError, match=r"variable 'seen' is f16\[\], it cannot become f32\[\]"):
        Sequential([Input((3,)), Counting(), layers.Dense(4)])


def test_an_optimizer_of_other_variables():
    optimizer = optimizers.SGD(0.1, momentum=0.9)
    for model in (Sequential([Input((3,)), layers.Dense(4)]), Sequential([Input((3,)), layers.Dense(4, name="other")])):
        model.compile(optimizer, "mse")
        if not optimizer.built:
            model.train_on_batch(X, np.zeros((12, 4)))
    with pytest.raises(graphc.GraphcError, match="was built for other variables than 'other/kernel'"):
        model.train_on_batch(X, np.zeros((12, 4)))


def test_a_step_returns_scalars_by_name():
    class Odd(Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, inputs):
            return self.dense(inputs)

        def train_step(self, data):
            return {"all": self(data[0])}

    model = Odd()
    model.compile("sgd", "mse")
    with pytest.raises(graphc.ShapeError, match="the log 'all' of type"):
        model.fit(X, LABELS, verbose=0)


def test_gradients_outside_of_a_step():
    with pytest.raises(graphc.GraphcError, match="of a function there is graphc\\.grad"):
        graphc.gradients(np.float32(1), [])


def test_openvino_has_no_steps_of_training():
    """It is a probe of inference: it has no uint32, of which keys are, nor the ops of a loss."""
    needs("openvino")
    layer = layers.Dropout(0.5)
    for hidden, message in (([layer], r"does not take 'key' of @train_step \(u32"), ([], "lacks these ops.*exp")):
        model = Sequential([Input((3,)), *hidden, layers.Dense(4)])
        model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), target="openvino")
        with pytest.raises(graphc.UnsupportedError, match=rf"(?s){message}"):
            model.fit(X, LABELS, verbose=0)


class Idle(Sequential):
    def train_step(self, data):
        x, y = data[:2]
        return {"loss": self.compute_loss(x, y, self(x, training=True))}


def test_a_step_that_trains_nothing_is_warned_of_once():
    model = Idle([Input((3,)), layers.Dense(4)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="train_step of Idle changes no trainable weight") as found:
        model.fit(X, np.zeros((len(X), 4), np.float32), epochs=2, verbose=0)
        model.fit(X, np.zeros((len(X), 4), np.float32), verbose=0)
    assert len(found) == 1
