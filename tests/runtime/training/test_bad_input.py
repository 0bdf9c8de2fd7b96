"""Bad input to training, on every target: what is wrong is said, with the place, and the model stays as it was."""

import re
import warnings

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, callbacks, layers, losses, ops, optimizers
from graphc.ir.errors import GraphcError, ShapeError

TARGETS = ["numpy", "onnx", "torch", pytest.param("jax", marks=pytest.mark.slow)]
"""JAX compiles for seconds each time."""

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = (np.arange(12) % 4).astype(np.int32)


def classifier(target="numpy", **options):
    model = Sequential([Input((3,)), layers.Dense(8, activation="relu", name="hidden"), layers.Dense(4, name="scores")])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.Adam(0.1), loss, target=target, **options)
    return model


def refused(model, message, x=X, y=Y, error=GraphcError, changed=False, **options):
    """`fit` raises this, no weight is changed, and the model trains on with good input."""
    before = [w.tobytes() for w in model.get_weights()]
    with pytest.raises(error, match=message):
        model.fit(x, y, batch_size=5, shuffle=False, verbose=0, **options)
    assert changed or [w.tobytes() for w in model.get_weights()] == before


def with_label(label, kind=np.int32):
    labels = Y.astype(kind)
    labels[2] = label
    return labels


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("label", [4, -1])
def test_labels_out_of_range(target, label):
    model = classifier(target)
    refused(model, rf"(?s)label {label} at 2 of the data; .* 0 to 3.*epoch 1, step 1", y=with_label(label))
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()


def test_labels_out_of_range_in_validation():
    begun = []
    watch = graphc.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    with pytest.raises(GraphcError, match=r"(?s)label 7 at 2 of validation_data; .* 0 to 3"):
        classifier().fit(X, Y, validation_data=(X, with_label(7)), verbose=0, callbacks=[watch])
    assert not begun
    with pytest.raises(GraphcError, match=r"label 7 at 2 of the data"):
        classifier().evaluate(X, with_label(7), verbose=0)


@pytest.mark.parametrize("label", [1.5, np.nan])
def test_labels_that_are_no_classes(label):
    """Numbers that are no integers are not cut off to a class in silence."""
    labels = with_label(label, kind=np.float32)
    refused(classifier(), f"label {label} at 2 of the data; the loss takes the classes 0 to 3", y=labels)
    assert np.isfinite(classifier().fit(X, Y.astype(np.float32), verbose=0).history["loss"]).all()


# --- numbers that are not finite ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_nan_in_the_data_is_found_on_demand(target):
    broken = X.copy()
    broken[7, 1] = np.nan
    message = r"x has 1 value that is NaN or infinite at epoch 1, step 2, the first \(nan\) at \[2, 1\] of the batch"
    refused(classifier(target, check_finite=True), message, x=broken, changed=True)
    model = classifier(target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = model.fit(broken, Y, verbose=0, epochs=3, callbacks=[callbacks.TerminateOnNaN()])
    assert len(history.epoch) == 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden/kernel": np.inf}, r"the output of layer 'hidden'.* is not finite"),
        ({"scores/bias": np.nan}, r"the output of layer 'scores'.* is not finite"),
    ],
)
def test_a_layer_that_is_not_finite_is_named(target, change, message):
    model = classifier(target, check_finite=True)
    model.fit(X, Y, batch_size=5, verbose=0)
    for variable in model.weights:
        for name, value in change.items():
            if variable.path.endswith(name.split("/")[1]) and name.split("/")[0] in layer_of(model, variable):
                variable.assign(np.full(variable.shape, value, np.float32))
    refused(model, rf"(?s){message}.*epoch 1, step 1", changed=True)


def layer_of(model, variable):
    return next(layer.name for layer in model.layers if any(v is variable for v in layer.weights))


@pytest.mark.parametrize("target", TARGETS)
def test_a_loss_or_gradient_that_is_not_finite_is_named(target):
    def model(loss):
        made = Sequential([Input((3,)), layers.Dense(2, use_bias=False, name="scores")])
        made.compile("sgd", loss, target=target, check_finite=True)
        return made

    zeros = {"x": X * 0, "y": np.zeros((12, 2), np.float32)}
    undefined = model(lambda y_true, y_pred: ops.mean(ops.log(y_pred - 1.0), -1))
    refused(undefined, r"(?s)the loss is not finite.*epoch 1, step 1", **zeros, changed=True)
    steep = model(lambda y_true, y_pred: ops.mean(ops.sqrt(ops.absolute(y_pred)), -1))
    refused(steep, r"(?s)the gradient of 'scores/kernel' is not finite.*epoch 1, step 1", **zeros, changed=True)


# --- losses -------------------------------------------------------------------------------------------------------


class Own(Model):
    """A model whose loss is a function of its two outputs."""

    def __init__(self, loss):
        super().__init__()
        self.near, self.far = layers.Dense(2, name="near"), layers.Dense(2, name="far")
        self.own_loss = loss

    def call(self, inputs):
        return self.near(inputs), self.far(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = self.own_loss(*y_pred)
        super().compute_loss(y_pred=y_pred) if loss is None else self.add_loss(0.0)
        return loss


def train_own(loss, times=1):
    class Plain(Own):
        def train_step(self, data):
            found = self.own_loss(*self(data, training=True))
            gradients = graphc.gradients(found, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": found}

    model = Plain(loss)
    model.compile("sgd")
    for _ in range(times):
        model.fit(X, verbose=0)


@pytest.mark.parametrize(
    "loss",
    [
        lambda near, far: ops.square(near),
        lambda near, far: ops.mean(near, axis=-1),
        lambda near, far: ops.argmax(ops.mean(near, axis=0)),
    ],
)
def test_a_loss_that_is_no_scalar(loss):
    with pytest.raises(ShapeError, match=r"a gradient is of a real scalar; the loss is .*reduce it, by a mean for one"):
        train_own(loss)


def test_a_loss_that_reaches_no_weight():
    for loss in (
        lambda near, far: ops.mean(ops.stop_gradient(near)),
        lambda near, far: ops.convert_to_tensor(np.float32(1)),
    ):
        with pytest.raises(GraphcError, match="does not depend on any of the weights"):
            train_own(loss)


def test_a_loss_that_misses_some_weights():
    """A warning, once, which names them."""
    with pytest.warns(UserWarning, match="far/kernel, far/bias") as caught:
        train_own(lambda near, far: ops.mean(ops.square(near)), times=3)
    assert len(caught) == 1


def test_a_loss_that_returns_nothing():
    model = classifier()
    model.compile("sgd", lambda y_true, y_pred: None)
    with pytest.raises(GraphcError, match=r"the loss .* returns None; it has to return the loss of each example"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("weights", [{"first": 1.0}, {0: "heavy"}, {0.5: 1.0}])
def test_class_weights_of_no_class(weights):
    with pytest.raises(GraphcError, match="class_weight is a dict from class to weight, both numbers, not"):
        classifier().fit(X, Y, class_weight=weights, verbose=0)


@pytest.mark.parametrize(("x", "message"), [(None, "x is None"), (np.float32(1), "is a single number")])
def test_a_batch_that_is_none(x, message):
    with pytest.raises(GraphcError, match=message):
        classifier().train_on_batch(x, Y)


# --- generators ---------------------------------------------------------------------------------------------------


def batches(count, then=None):
    for number in range(count):
        yield X[number % 8 : number % 8 + 4], Y[number % 8 : number % 8 + 4]
    if then is not None:
        raise then


def test_a_generator_that_raises():
    with pytest.raises(GraphcError, match="raised ZeroDivisionError at epoch 2, step 2: by nought") as caught:
        classifier().fit(batches(4, ZeroDivisionError("by nought")), steps_per_epoch=3, epochs=3, verbose=0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(KeyboardInterrupt):
        classifier().fit(batches(4, KeyboardInterrupt()), steps_per_epoch=3, epochs=3, verbose=0)


def test_a_generator_that_is_too_short():
    with pytest.warns(UserWarning, match="ran out: epoch 2 needs 3 batches, 1 came"):
        history = classifier().fit(batches(4), steps_per_epoch=3, epochs=3, verbose=0)
    assert history.epoch == [0, 1]
    with pytest.raises(GraphcError, match="gives no batches"):
        classifier().fit(batches(0), steps_per_epoch=3, verbose=0)


def test_a_generator_of_validation_data():
    with pytest.raises(GraphcError, match="the generator of validation_data raised ValueError at epoch 1, step 2: no"):
        classifier().fit(X, Y, validation_data=batches(1, ValueError("no")), validation_steps=3, verbose=0)
    with pytest.warns(UserWarning, match="the generator of validation_data ran out: 3 batches were asked for, 1 came"):
        classifier().fit(X, Y, validation_data=batches(1), validation_steps=3, verbose=0)


def test_a_generator_whose_batches_change():
    def changing():
        yield X[:4], Y[:4]
        yield X[:4, :2], Y[:4]

    with pytest.raises(GraphcError, match=r"(?s)3.*epoch 1, step 2"):
        classifier().fit(changing(), steps_per_epoch=2, verbose=0)


# --- mixed precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["numpy", "torch", "onnx"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_dtypes_that_meet_under_mixed_precision(target, policy):
    """float32 labels, weights and results meet narrow ones: they are cast where they meet, and losses are float32."""

    class Scaled(layers.Layer):
        def build(self, input_shape):
            self.scale = self.add_weight((int(input_shape[-1]),), "ones", autocast=False, name="scale")

        def call(self, inputs):
            return inputs * self.scale

    inputs = Input((3,))
    x = layers.Dense(8, activation="relu", dtype=policy)(inputs)
    x = Scaled(dtype=policy)(x)
    x = layers.Concatenate()([x, inputs])
    model = Model(inputs, layers.Dense(1, dtype="float32")(x))
    model.compile(optimizers.SGD(0.1), "mse", target=target)
    history = model.fit(X, X[:, :1].astype(np.float64), epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert all(str(variable.dtype) == "float32" for variable in model.weights)


def test_dtypes_that_do_not_fit_under_mixed_precision():
    class Running(layers.Layer):
        def build(self, input_shape):
            self.mean = self.add_weight((int(input_shape[-1]),), "zeros", trainable=False, name="mean")

        def call(self, inputs):
            self.mean.assign(ops.mean(inputs, axis=0))
            return inputs

    with pytest.raises(GraphcError, match=r"variable 'mean' is f32\[3\], it cannot become f16\[3\]"):
        model = Sequential([Input((3,)), Running(dtype="mixed_float16"), layers.Dense(4)])
        model.compile("sgd", "mse")
        model.fit(X, np.zeros((12, 4)), verbose=0)


# --- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["numpy", "torch"])
def test_a_budget_below_what_is_possible(target):
    """The error says what is possible, and that is enough."""
    message = r"@train_step cannot keep a peak of 100 B .*; the least possible is \S+ \S+, \d+ bytes$"
    with pytest.raises(GraphcError, match=message) as caught:
        classifier(target, memory_budget=100).fit(X, Y, verbose=0)
    least = re.search(r"(\d+) bytes$", str(caught.value))
    assert least is not None
    classifier(target, memory_budget=int(least[1])).fit(X, Y, verbose=0)


@pytest.mark.parametrize("budget", ["much", -1, 1.5])
def test_a_budget_that_is_no_size(budget):
    with pytest.raises(GraphcError, match="is not a size"):
        classifier(memory_budget=budget).fit(X, Y, verbose=0)
