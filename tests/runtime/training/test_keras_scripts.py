"""Scripts in the manner of Keras's guides, of which the import is changed and nothing else."""

import numpy as np
import pytest

import graphc as keras
from graphc import layers, ops
from graphc.layers import Dense, Dropout
from graphc.models import Sequential
from graphc.utils import to_categorical

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 16)).astype("float32")
Y = X[:, :3].argmax(1)


def test_a_perceptron():
    keras.utils.set_random_seed(0)
    model = Sequential()
    model.add(Dense(32, activation="relu", input_shape=(16,)))
    model.add(Dropout(0.1))
    model.add(Dense(3, activation="softmax"))
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.RMSprop(0.01), metrics=["accuracy"])
    history = model.fit(X, to_categorical(Y, 3), batch_size=16, epochs=8, verbose=0, validation_split=0.1)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.history["loss"][-1] < history.history["loss"][0]
    score = model.evaluate(X, to_categorical(Y, 3), verbose=0)
    assert len(score) == 2 and score[1] > 0.6 and model.loss == "categorical_crossentropy"


def test_two_inputs_and_two_outputs():
    title, tags = keras.Input((None,), name="title"), keras.Input((12,), name="tags")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(50, 8)(title))
    x = layers.concatenate([x, tags])
    outputs = {"priority": layers.Dense(1, name="priority")(x), "department": layers.Dense(4, name="department")(x)}
    model = keras.Model(inputs=[title, tags], outputs=outputs)
    model.compile(
        optimizer="adam",
        loss={
            "priority": keras.losses.BinaryCrossentropy(from_logits=True),
            "department": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
        loss_weights={"priority": 1.0, "department": 0.2},
    )
    data = {"tags": RNG.integers(2, size=(64, 12)), "title": RNG.integers(50, size=(64, 7))}
    targets = {"priority": RNG.random((64, 1)), "department": RNG.integers(2, size=(64, 4))}
    logs = model.fit(data, targets, epochs=1, batch_size=32, verbose=0).history
    assert sorted(logs) == ["department_loss", "loss", "priority_loss"]
    np.testing.assert_allclose(logs["loss"][0], logs["priority_loss"][0] + 0.2 * logs["department_loss"][0], rtol=1e-5)


def test_a_frozen_base_and_fine_tuning():
    i = keras.Input((16,))
    base = keras.Model(i, layers.BatchNormalization()(layers.Dense(8, activation="relu")(i)), name="base")
    base.trainable = False
    inputs = keras.Input((16,))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.2)(base(inputs, training=False))))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss, metrics=[keras.metrics.BinaryAccuracy()])
    before = base.get_weights()
    model.fit(X, Y[:, None] > 0, epochs=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, base.get_weights(), strict=True))
    base.trainable = True
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(X, Y[:, None] > 0, epochs=1, verbose=0)
    after = base.get_weights()
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [True, True, True, True, False, False]  # called with training=False: statistics stay


class CustomModel(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.mae_metric = keras.metrics.MeanAbsoluteError(name="mae")

    def train_step(self, data):
        x, y = data
        y_pred = self(x, training=True)
        loss = ops.mean(ops.square(y - y_pred))
        gradients = keras.gradients(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        self.loss_tracker.update_state(loss)
        self.mae_metric.update_state(y, y_pred)
        return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

    @property
    def metrics(self):
        return [self.loss_tracker, self.mae_metric]


def test_a_step_of_ones_own():
    inputs = keras.Input((16,))
    model = CustomModel(inputs, layers.Dense(1)(inputs))
    model.compile(optimizer="adam")
    logs = model.fit(X, X[:, :1], epochs=5, verbose=0).history
    assert list(logs) == ["loss", "mae"] and logs["mae"][-1] < logs["mae"][0]


class StepOverMetrics(keras.Model):
    """A step that updates whatever metrics there are."""

    def train_step(self, data):
        x, y = data
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        self.optimizer.apply(keras.gradients(loss, self.trainable_variables), self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def test_a_step_over_the_metrics_that_compile_was_given():
    inputs = keras.Input((16,))
    found = []
    for cls in (keras.Model, StepOverMetrics):
        keras.utils.set_random_seed(0)
        model = cls(inputs, layers.Dense(1)(inputs))
        model.compile("sgd", "mse", metrics=["mae", keras.metrics.RootMeanSquaredError(name="root")])
        assert [metric.name for metric in model.metrics] == ["loss", "compile_metrics"]
        found.append(model.fit(X, X[:, :1], epochs=2, batch_size=16, verbose=0).history)
    assert list(found[1]) == ["loss", "mae", "root"] and found[0] == found[1]


class Spread(layers.Layer):
    """A layer that reports how far its outputs are from 0."""

    def __init__(self, name):
        super().__init__(name=name)
        self.sizes = [keras.metrics.Mean(name=f"{name}_size")]

    def call(self, x):
        self.sizes[0].update_state(ops.mean(ops.abs(x)))
        return x


class Reporting(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.dense, self.second = Spread("first"), layers.Dense(1), Spread("second")
        self.largest = keras.metrics.Mean(name="largest")

    def call(self, x):
        return self.second(self.dense(self.first(x)))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        super().compute_metrics(x, y, y_pred, sample_weight)
        self.largest.update_state(ops.max(y_pred))
        return self.get_metrics_result()


def test_metrics_of_models_and_layers_are_among_the_logs():
    model = Reporting()
    model.compile("sgd", "mse", metrics=["mae"])
    y = X[:, :1]
    history = model.fit(X, y, batch_size=64, epochs=2, verbose=0).history
    assert list(history) == ["loss", "mae", "largest", "first_size", "second_size"]
    logs = model.evaluate(X, y, batch_size=64, verbose=0, return_dict=True)
    found = model.predict(X, verbose=0)
    wanted = {"largest": found.max(), "first_size": np.abs(X).mean(), "second_size": np.abs(found).mean()}
    assert {name: logs[name] for name in wanted} == pytest.approx(wanted)
    again = model.test_on_batch(X, y, return_dict=True)  # all of them start anew
    assert again == pytest.approx(logs)


class EarlyStoppingAtMinLoss(keras.callbacks.Callback):
    def __init__(self, patience=0):
        super().__init__()
        self.patience, self.best_weights = patience, None

    def on_train_begin(self, logs=None):
        self.wait, self.best, self.stopped_epoch = 0, np.inf, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.05 if epoch < 2 else 1e4

    def on_epoch_end(self, epoch, logs=None):
        if np.less(logs.get("loss"), self.best):
            self.best, self.wait, self.best_weights = logs.get("loss"), 0, self.model.get_weights()
            return
        self.wait += 1
        if self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True
            self.model.set_weights(self.best_weights)


def test_callbacks():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mean_squared_error")
    stopping = EarlyStoppingAtMinLoss(patience=1)
    history = model.fit(X, X[:, :1], epochs=20, verbose=0, callbacks=[stopping])
    assert 2 <= stopping.stopped_epoch < 19 and len(history.epoch) == stopping.stopped_epoch + 1
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), stopping.best_weights, strict=True))
