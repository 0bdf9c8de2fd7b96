"""What a recorded step does: the loss and what is added to it, states, frozen layers, keys, mixed precision."""

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, Sequential, layers, losses, ops, optimizers
from graphc.runtime.training.keys import StepKeys

RNG = np.random.default_rng(5)
X = RNG.normal(size=(16, 3)).astype(np.float32)
Y = RNG.normal(size=(16, 2)).astype(np.float32)
LABELS = RNG.integers(0, 2, 16)
RATE = 0.1


def dense(**options):
    graphc.utils.set_random_seed(1)
    return Sequential([Input((3,)), layers.Dense(2, name="dense", **options)])


def step(model, x=X, y=Y, loss="mse", optimizer=None, **options):
    model.compile(optimizer or optimizers.SGD(RATE), loss, **options)
    return model.train_on_batch(x, y, return_dict=True)


# --- the loss -----------------------------------------------------------------------------------------------------


def test_penalties_are_part_of_the_loss():
    model = dense(kernel_regularizer=graphc.regularizers.L1L2(0.1, 0.2), activity_regularizer="l2")
    kernel, bias = model.get_weights()
    outputs = X @ kernel + bias
    wanted = (
        ((outputs - Y) ** 2).mean()
        + 0.1 * np.abs(kernel).sum()
        + 0.2 * (kernel**2).sum()
        + 0.01 * (outputs**2).sum() / len(X)
    )
    np.testing.assert_allclose(step(model)["loss"], wanted, rtol=1e-5)


def test_layers_add_to_the_loss():
    class Penalty(layers.Layer):
        def call(self, inputs):
            self.add_loss(0.5 * ops.mean(ops.square(inputs)))
            return inputs

    model = Sequential([Input((3,)), Penalty(), layers.Dense(2)])
    kernel, bias = model.get_weights()
    wanted = ((X @ kernel + bias - Y) ** 2).mean() + 0.5 * (X**2).mean()
    np.testing.assert_allclose(step(model)["loss"], wanted, rtol=1e-5)


def test_several_outputs_have_their_losses_and_weights():
    x = Input((3,), name="x")
    model = Model(x, {"a": layers.Dense(2, name="a")(x), "b": layers.Dense(1, name="b")(x)})
    y = {"a": LABELS, "b": Y[:, :1]}
    model.compile(
        optimizers.SGD(RATE),
        {"a": losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"},
        loss_weights={"a": 2.0, "b": 0.5},
    )
    logs = model.train_on_batch(X, y, return_dict=True)
    np.testing.assert_allclose(logs["loss"], 2 * logs["a_loss"] + 0.5 * logs["b_loss"], rtol=1e-6)


def test_sample_weights():
    weights = RNG.uniform(size=16).astype(np.float32)
    model = dense()
    kernel, bias = model.get_weights()
    model.compile(optimizers.SGD(RATE), "mse")
    logs = model.train_on_batch(X, Y, weights, return_dict=True)
    np.testing.assert_allclose(logs["loss"], (((X @ kernel + bias - Y) ** 2).mean(-1) * weights).mean(), rtol=1e-5)


def test_a_function_is_a_loss():
    logs = step(dense(), loss=lambda y_true, y_pred: ops.sum(ops.absolute(y_true - y_pred), axis=-1))
    assert logs["loss"] > 0


def test_the_last_smaller_batch_counts_for_its_examples():
    model = dense()
    kernel, bias = model.get_weights()
    model.compile(optimizers.SGD(0.0), "mse", metrics=["mae"])
    history = model.fit(X, Y, batch_size=5, verbose=0).history
    np.testing.assert_allclose(history["loss"], [((X @ kernel + bias - Y) ** 2).mean()], rtol=1e-5)
    np.testing.assert_allclose(history["mae"], [np.abs(X @ kernel + bias - Y).mean()], rtol=1e-5)
    assert len(model._compiled.programs) == 1


# --- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "holds"),
    [
        ("non_neg", lambda w: (w >= 0).all()),
        (graphc.constraints.MaxNorm(0.5), lambda w: (np.linalg.norm(w, axis=0) <= 0.5001).all()),
        (graphc.constraints.UnitNorm(axis=1), lambda w: np.allclose(np.linalg.norm(w, axis=1), 1)),
        (
            graphc.constraints.MinMaxNorm(0.3, 0.6),
            lambda w: ((np.linalg.norm(w, axis=0) - 0.45) ** 2 <= 0.151**2).all(),
        ),
    ],
    ids=["non_neg", "max_norm", "unit_norm", "min_max_norm"],
)
def test_constraints_hold_after_the_update(constraint, holds):
    model = dense(kernel_constraint=constraint)
    step(model)
    assert holds(model.get_weights()[0])


def test_frozen_layers_stay_and_have_no_slots():
    model = Sequential(
        [Input((3,)), layers.Dense(4, name="first"), layers.BatchNormalization(name="bn"), layers.Dense(2)]
    )
    model.layers[0].trainable = model.layers[1].trainable = False
    before = model.get_weights()
    step(model, optimizer=optimizers.Adam(RATE))
    after = model.get_weights()
    for a, b in zip(before[:6], after[:6], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(before[6], after[6])
    assert len(model.optimizer.variables) == 1 + 2 * 2
    normal = (X @ before[0] + before[1]) / np.sqrt(1 + 1e-3)  # the moving averages are 0 and 1
    for on_batch in (model.test_on_batch, model.train_on_batch):
        model.reset_metrics()
        loss = on_batch(X, normal @ after[6] + after[7])
        np.testing.assert_allclose(loss, 0, atol=1e-10)  # frozen, it normalizes as at inference


def test_batch_normalization_moves_its_averages():
    model = Sequential([Input((3,)), layers.BatchNormalization(momentum=0.5), layers.Dense(2)])
    step(model)
    _, _, mean, variance = model.get_weights()[:4]
    np.testing.assert_allclose(mean, X.mean(0) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, 0.5 + X.var(0) / 2, rtol=1e-4)


def test_weights_are_seen_and_set_while_the_target_has_them():
    model = dense()
    model.compile(optimizers.SGD(RATE), "mse")
    model.train_on_batch(X, Y)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(model.predict(X), X @ kernel + bias, rtol=1e-5, atol=1e-6)
    model.set_weights([kernel * 0, bias * 0 + 1])
    np.testing.assert_array_equal(model.predict(X), np.ones((16, 2)))
    model.reset_metrics()
    np.testing.assert_allclose(model.test_on_batch(X, np.ones((16, 2), np.float32)), 0)
    np.testing.assert_array_equal(np.asarray(model(X)), np.ones((16, 2)))


def test_two_models_train_the_layer_they_share():
    shared = layers.Dense(2)
    first, second = Sequential([Input((3,)), shared]), Sequential([Input((3,)), shared, layers.Dense(2)])
    for model in (first, second):
        model.compile(optimizers.SGD(RATE), "mse")
    seen = [first.get_weights()[0]]
    for model in (first, second, first):
        model.train_on_batch(X, Y)
        seen.append(first.get_weights()[0])
        np.testing.assert_array_equal(seen[-1], second.get_weights()[0])
        assert not np.array_equal(seen[-1], seen[-2])
    np.testing.assert_allclose(first.predict(X), X @ seen[-1] + first.get_weights()[1], rtol=1e-5, atol=1e-6)


def test_dropout_draws_anew_in_every_step_and_the_same_from_a_seed():
    def run():
        graphc.utils.set_random_seed(4)
        model = Sequential([Input((3,)), layers.Dropout(0.5), layers.Dense(2)])
        model.compile(optimizers.SGD(0.0), "mse")
        return [model.train_on_batch(X, Y, return_dict=True)["loss"] for _ in range(3)], model

    (first, model), (second, _) = run(), run()
    assert first == second
    model.reset_metrics()
    assert len({round(float(loss), 6) for loss in first}) == 3


def test_another_kind_of_batch_goes_on_where_the_first_stopped():
    """Weights, slots and metrics move to what is compiled for it."""
    weights = np.ones(16, np.float32)

    def run(second):
        model = dense()
        model.compile(optimizers.SGD(RATE, momentum=0.9), "mse")
        model.train_on_batch(X, Y)
        model.train_on_batch(X, Y, second)
        return model

    plain, weighted = run(None), run(weights)
    assert len(weighted._compiled.programs) == 2 and int(weighted.optimizer.iterations) == 2
    for a, b in zip(plain.get_weights(), weighted.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_keys_of_steps_are_those_of_the_ops():
    root = np.array([3, 5], np.uint32)
    wanted = graphc.random.split(graphc.random.fold_in(root, 2 * 7 + 1), 300)
    keys = StepKeys(root, 7)
    for step in (0, 1, 255, 256, 299, 4):
        np.testing.assert_array_equal(keys[step], wanted[step])


# --- precision ----------------------------------------------------------------------------------------------------


@pytest.fixture
def policy():
    yield graphc.config.set_dtype_policy
    graphc.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "target", ["numpy", "onnx", *(pytest.param(t, marks=pytest.mark.slow) for t in ("torch", "jax"))]
)
@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, name, target):
    """Weights and slots stay in float32; layers compute in the narrow dtype; the losses are near those of float32."""
    needs(target)
    found = {}
    for each in ("float32", name):
        policy(each)
        graphc.utils.set_random_seed(1)
        model = Sequential(
            [Input((3,)), layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dense(2)]
        )
        loss = losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizers.Adam(0.01), loss, target=target if each != "float32" else "numpy")
        found[each] = model.fit(X, LABELS, batch_size=8, epochs=3, verbose=0).history["loss"]
    np.testing.assert_allclose(found[name], found["float32"], rtol=2e-2)
    assert all(str(variable.dtype) == "float32" for variable in model.weights)
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer) == (name == "mixed_float16")
    assert str(model.predict(X).dtype) == name.removeprefix("mixed_")


def test_loss_scaling_can_be_left_to_oneself(policy):
    policy("mixed_float16")
    model = dense()
    model.compile("sgd", "mse", auto_scale_loss=False)
    assert isinstance(model.optimizer, optimizers.SGD)


def test_a_layer_that_is_frozen_after_a_fit_is_no_longer_trained():
    model = Sequential([Input((3,)), layers.Dense(2, name="first"), layers.Dense(1)])
    model.compile(optimizers.Adam(RATE), "mse")
    target = Y.sum(axis=-1, keepdims=True)
    model.fit(X, target, verbose=0)
    before = model.get_weights()
    model.layers[0].trainable = False
    model.fit(X, target, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(after[0], before[0])
    assert (after[2] != before[2]).all()
    model.layers[0].trainable = True
    model.fit(X, target, verbose=0)
    assert (model.get_weights()[0] != before[0]).all()
