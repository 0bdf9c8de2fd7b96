"""Small batches that are accumulated give the update of the big one, whatever the loss is made of."""

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, Sequential, layers, losses, ops, optimizers

RNG = np.random.default_rng(3)
X = RNG.normal(size=(22, 3)).astype(np.float32)
Y = RNG.normal(size=(22, 2)).astype(np.float32)
LABELS = RNG.integers(-1, 2, 22)
WEIGHTS = RNG.uniform(0.1, 2.0, 22).astype(np.float32)
PARTS = slice(0, 8), slice(8, 16), slice(16, 22)
TARGETS = ["numpy", "torch", "onnx", pytest.param("jax", marks=pytest.mark.slow)]


def dense(**options):
    graphc.utils.set_random_seed(5)
    return Sequential([Input((3,)), layers.Dense(4, activation="tanh", **options), layers.Dense(2)])


def penalised():
    return dense(kernel_regularizer=graphc.regularizers.L2(0.3))


def active():
    return dense(activity_regularizer=graphc.regularizers.L2(0.5))


def both():
    return dense(
        kernel_regularizer=graphc.regularizers.L2(0.3),
        bias_regularizer="l1",
        activity_regularizer=graphc.regularizers.L2(0.5),
    )


def adapted():
    model = both()
    model.layers[0].enable_lora(2)
    for variable in model.layers[0].trainable_weights:
        variable.assign(0.3 * np.random.default_rng(1).normal(size=variable.shape).astype(np.float32))
    return model


class Spread(layers.Layer):
    """Adds a mean over the examples."""

    def call(self, x):
        self.add_loss(0.2 * ops.mean(ops.square(x)))
        return x


def adding():
    graphc.utils.set_random_seed(5)
    return Sequential([Input((3,)), layers.Dense(4, activation="tanh"), Spread(), layers.Dense(2)])


def scalar(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


def by_column(y_true, y_pred):
    """Has no axis of examples left."""
    return ops.mean(ops.square(y_true - y_pred), axis=0)


def scalar_sum(y_true, y_pred):
    return ops.sum(ops.square(y_true - y_pred))


def ignoring(reduction="sum_over_batch_size"):
    return losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction=reduction)


def mse(reduction="sum_over_batch_size"):
    return losses.MeanSquaredError(reduction=reduction)


def updated(make, loss, y, weights, optimizer, parts, target, **options):
    """The weights after each of two windows."""
    model = make()
    model.compile(optimizer, loss, target=target, **options)
    found = []
    for _ in range(2):
        for part in parts:
            cut = {name: each[part] for name, each in y.items()} if isinstance(y, dict) else y[part]
            model.train_on_batch(X[part], cut, None if weights is None else weights[part])
        found += model.get_weights()
    return found


def assert_whole(make, loss, y, weights=None, target="numpy", **options):
    small = optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3)
    big = updated(make, loss, y, weights, optimizers.SGD(0.1, momentum=0.9), [slice(0, 22)], target, **options)
    for found, wanted in zip(updated(make, loss, y, weights, small, PARTS, target, **options), big, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


CASES = {
    "mean": (both, mse(), Y, None),
    "weighted": (both, mse(), Y, WEIGHTS),
    "added": (adding, mse(), Y, None),
    "sum": (dense, mse("sum"), Y, None),
    "sum, penalty": (penalised, mse("sum"), Y, None),
    "sum, activity": (active, mse("sum"), Y, None),
    "sum, both": (both, mse("sum"), Y, WEIGHTS),
    "sum, added": (adding, mse("sum"), Y, None),
    "by weight": (dense, mse("mean_with_sample_weight"), Y, WEIGHTS),
    "by weight, penalty": (penalised, mse("mean_with_sample_weight"), Y, WEIGHTS),
    "by weight, both": (both, mse("mean_with_sample_weight"), Y, WEIGHTS),
    "by weight, none": (both, mse("mean_with_sample_weight"), Y, None),
    "ignoring": (dense, ignoring(), LABELS, None),
    "ignoring, activity": (active, ignoring(), LABELS, None),
    "ignoring, both": (both, ignoring("mean_with_sample_weight"), LABELS, WEIGHTS),
    "adapted": (adapted, mse("sum"), Y, None),
    "scalar": (both, scalar, Y, None),
    "by column": (both, by_column, Y, None),
    "scalar sum": (both, losses.LossFunctionWrapper(scalar_sum, reduction="sum"), Y, None),
}
ON_TARGETS = ["sum, both", "by weight, both", "ignoring, both", "scalar"]


@pytest.mark.parametrize("case", CASES)
def test_small_batches_give_the_update_of_the_big_one(case):
    assert_whole(*CASES[case])


@pytest.mark.parametrize("target", TARGETS[1:])
@pytest.mark.parametrize("case", ON_TARGETS)
def test_and_on_other_targets(case, target):
    needs(target)
    assert_whole(*CASES[case], target=target)


def two_outputs():
    graphc.utils.set_random_seed(5)
    x = Input((3,))
    hidden = layers.Dense(4, activation="tanh", kernel_regularizer="l2")(x)
    return Model(x, {"a": layers.Dense(2)(hidden), "b": layers.Dense(2)(hidden)})


@pytest.mark.parametrize(
    "found",
    [
        {"a": mse(), "b": "mae"},
        {"a": ignoring(), "b": "mse"},
        {"a": ignoring(), "b": mse("sum")},
        {"a": ignoring("sum"), "b": mse("sum")},
        {"a": ignoring("sum"), "b": scalar},
    ],
)
def test_outputs_that_count_differently(found):
    labels = isinstance(found["a"], losses.SparseCategoricalCrossentropy)
    y = {"a": LABELS if labels else Y, "b": Y}
    assert_whole(two_outputs, found, y, loss_weights={"a": 0.3, "b": 1.7})


def test_a_penalty_counts_also_where_no_example_does():
    nothing = np.zeros(22, np.float32)
    assert_whole(both, mse("mean_with_sample_weight"), Y, nothing)
    assert_whole(penalised, ignoring(), -np.ones(22, int))


def test_the_last_batch_of_an_epoch_is_smaller():
    def run(optimizer, size):
        model = both()
        model.compile(optimizer, mse("sum"))
        model.fit(X, Y, batch_size=size, epochs=3, shuffle=False, verbose=0)
        return model.get_weights()

    small = run(optimizers.Adam(0.05, gradient_accumulation_steps=3), 8)
    for found, wanted in zip(small, run(optimizers.Adam(0.05), 22), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_model_that_is_saved_within_a_window_goes_on(tmp_path):
    def run(is_saved):
        model = both()
        model.compile(optimizers.Adam(0.1, gradient_accumulation_steps=3), mse("sum"))
        for part in PARTS:
            model.train_on_batch(X[part], Y[part])
            if is_saved:
                model.save(tmp_path / "model.graphc")
                model = graphc.saving.load_model(tmp_path / "model.graphc")
        return model.get_weights()

    for found, wanted in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("target", ["numpy", "torch"])
def test_with_a_scaled_loss(target):
    needs(target)
    small = optimizers.LossScaleOptimizer(optimizers.SGD(0.1, gradient_accumulation_steps=3), 2.0**10)
    big = updated(both, mse("sum"), Y, None, optimizers.SGD(0.1), [slice(0, 22)], target)
    for found, wanted in zip(updated(both, mse("sum"), Y, None, small, PARTS, target), big, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
    factor = optimizers.SGD(0.1, gradient_accumulation_steps=3, loss_scale_factor=16.0)
    for found, wanted in zip(updated(both, mse("sum"), Y, None, factor, PARTS, target), big, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


class Own(Model):
    """A step of one's own; `loss` and `change` are what it does to the loss and to gradients."""

    def __init__(self, loss=None, change=None, make=both):
        super().__init__()
        self.inner, self.own_loss, self.change = make(), loss, change

    def call(self, x):
        return self.inner(x)

    def train_step(self, data):
        x, y, weight = graphc.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=True)
        loss = self.compute_loss(x, y, y_pred, weight)
        if self.own_loss is not None:
            loss = self.own_loss(self, loss, y, y_pred)
        variables = self.trainable_variables
        gradients = graphc.gradients(loss, variables)
        if self.change is not None:
            gradients = [self.change(gradient) for gradient in gradients]
        self.optimizer.apply(gradients, variables)
        return self.compute_metrics(x, y, y_pred, weight)


@pytest.mark.parametrize("make", [both, dense])
@pytest.mark.parametrize(
    "own",
    [
        lambda model, loss, y, y_pred: 2.0 * loss,
        lambda model, loss, y, y_pred: ops.mean(ops.abs(y - y_pred)),
    ],
    ids=["scaled", "another"],
)
def test_a_step_of_ones_own(own, make):
    assert_whole(lambda: Own(own, make=make), mse("sum"), Y)


def test_a_step_of_ones_own_may_add_a_mean_to_a_mean():
    assert_whole(lambda: Own(lambda model, loss, y, y_pred: loss + ops.mean(ops.abs(y - y_pred))), mse(), Y)


def test_steps_of_ones_own_that_cannot_be_accumulated_say_why():
    def step(model, loss=None, **options):
        model.compile(optimizers.SGD(0.1, gradient_accumulation_steps=2), loss or mse("sum"), **options)
        model.train_on_batch(X, Y)

    for make in (both, dense):
        with pytest.raises(graphc.GraphcError, match="more was added to it; add it by `add_loss`"):
            step(Own(lambda model, loss, y, y_pred: loss + ops.mean(ops.abs(y - y_pred)), make=make))
    with pytest.raises(graphc.GraphcError, match=r"takes the gradients as graphc\.gradients gave them"):
        step(Own(change=lambda gradient: ops.clip(gradient, -1.0, 1.0)))
    step(Own(change=lambda gradient: ops.clip(gradient, -1.0, 1.0)), "mse")
    step(Own(change=lambda gradient: ops.clip(gradient, -1.0, 1.0), make=dense))


def test_gradients_of_the_framework_are_accumulated_where_all_terms_count_alike():
    needs("torch")
    assert_whole(both, mse(), Y, target="torch", gradients="native")
    with pytest.raises(graphc.GraphcError, match="gradients='native' cannot do that"):
        assert_whole(both, mse("sum"), Y, target="torch", gradients="native")
