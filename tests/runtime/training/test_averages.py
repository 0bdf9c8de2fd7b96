"""`use_ema`: running averages of weights, against numbers of Keras 3.15 (its JAX and torch backends agree), on all
targets and for all optimizers."""

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, Sequential, callbacks, layers, optimizers

RNG = np.random.default_rng(7)
X = RNG.normal(size=(24, 3)).astype(np.float32)
Y = RNG.normal(size=(24, 2)).astype(np.float32)
START = RNG.normal(size=(3, 2)).astype(np.float32), RNG.normal(size=2).astype(np.float32)
TARGETS = ["numpy", "onnx", "torch", pytest.param("jax", marks=pytest.mark.slow)]
NAMES = [
    name
    for name in optimizers.__all__
    if isinstance(getattr(optimizers, name), type) and name not in ("Optimizer", "LossScaleOptimizer")
]
SETTINGS = {
    "plain": {},
    "overwritten": {"ema_overwrite_frequency": 2},
    "accumulated": {"gradient_accumulation_steps": 2},
    "both": {"gradient_accumulation_steps": 2, "ema_overwrite_frequency": 1},
}


def model_of(optimizer, target="numpy", **options):
    model = Sequential([Input((3,)), layers.Dense(2, **options)])
    model.set_weights(START)
    model.compile(optimizer, "mse", target=target)
    return model


def fitted(optimizer, steps, target="numpy", **options):
    model = model_of(optimizer, target, **options)
    model.fit(X, Y, batch_size=24, epochs=steps, verbose=0)
    return np.concatenate([each.ravel() for each in model.get_weights()])


def averaged(name, wrapped=False, rate=0.05, **settings):
    optimizer = getattr(optimizers, name)(rate, use_ema=True, ema_momentum=0.5, **settings)
    return optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer


KERAS = [
    ({"ema_momentum": 0.5}, 1, [0.046519, -0.5559, -0.099069, -1.913419, -1.134772, 0.362505, -2.046192, 0.816823]),
    ({"ema_momentum": 0.5}, 6, [-0.377425, -0.184601, 0.098486, -0.959926, -1.10724, 0.330357, -1.184783, 0.492051]),
    ({"ema_momentum": 0.9}, 6, [-0.087406, -0.43982, -0.036864, -1.618439, -1.129282, 0.35388, -1.776509, 0.715823]),
    (
        {"ema_momentum": 0.5, "ema_overwrite_frequency": 2},
        5,
        [-0.202057, -0.344054, 0.015788, -1.384459, -1.134121, 0.35106, -1.552942, 0.634136],
    ),
    (
        {"ema_momentum": 0.5, "ema_overwrite_frequency": 3},
        5,
        [-0.222152, -0.326043, 0.025222, -1.337187, -1.131742, 0.349031, -1.511325, 0.618226],
    ),
    (
        {"ema_momentum": 0.5, "gradient_accumulation_steps": 2},
        5,
        [-0.011904, -0.507427, -0.0723, -1.795749, -1.138056, 0.361436, -1.932784, 0.775541],
    ),
    (
        {"ema_momentum": 0.9, "gradient_accumulation_steps": 2, "ema_overwrite_frequency": 2},
        6,
        [0.027842, -0.540357, -0.090503, -1.875571, -1.135703, 0.362108, -2.009852, 0.80357],
    ),
    (
        {"ema_momentum": 0.5, "gradient_accumulation_steps": 3, "ema_overwrite_frequency": 1},
        6,
        [0.007571, -0.523584, -0.081223, -1.834972, -1.136961, 0.361792, -1.970587, 0.789302],
    ),
]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("settings", "steps", "wanted"), KERAS)
def test_averages_are_those_of_keras(settings, steps, wanted, wrapped):
    optimizer = optimizers.SGD(0.05, momentum=0.9, use_ema=True, **settings)
    found = fitted(optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer, steps)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6)


def test_constraints_come_after_the_average_as_in_keras():
    optimizer = optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    found = fitted(optimizer, 3, kernel_constraint="non_neg")[:6]
    np.testing.assert_allclose(found, KERAS_NOT_NEGATIVE, rtol=0, atol=3e-6)
    optimizer = optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    found = fitted(optimizer, 3, kernel_constraint=graphc.constraints.MaxNorm(0.5))[:6]
    np.testing.assert_allclose(found, KERAS_SHORT, rtol=0, atol=3e-6)


KERAS_NOT_NEGATIVE = [-0.226638, -0.046317, 0.095822, -0.255544, -0.528444, 0.239953]
KERAS_SHORT = [-0.323226, -0.076071, 0.085938, -0.467472, -0.745308, 0.200632]


@pytest.mark.parametrize("target", TARGETS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_averages_on_every_target(name, target):
    needs(target)
    for settings in SETTINGS.values():
        wanted = fitted(averaged(name, **settings), 4)
        assert np.isfinite(wanted).all() and not np.allclose(wanted[:6], START[0].ravel())
        np.testing.assert_allclose(fitted(averaged(name, **settings), 4, target), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS[1:])
def test_a_scaled_loss_on_every_target(target):
    needs(target)
    for settings in SETTINGS.values():
        wanted = fitted(averaged("Adam", wrapped=True, **settings), 4)
        found = fitted(averaged("Adam", wrapped=True, **settings), 4, target)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


# --- where no average was taken, weights stay as they are ---------------------------------------------------------


class StopAtOnce(callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.model.stop_training = True


def assert_unchanged(model, wanted=START):
    for found, array in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(found, array)


def test_a_run_that_is_stopped_before_its_first_step_changes_no_weight():
    model = model_of(averaged("SGD"))
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[StopAtOnce()])
    assert_unchanged(model)
    model.fit(X, Y, epochs=2, verbose=0)
    model.set_weights(START)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[StopAtOnce()])
    assert_unchanged(model)


def test_a_run_without_an_update_changes_no_weight():
    model = model_of(averaged("SGD", gradient_accumulation_steps=5))
    model.fit(X, Y, batch_size=24, epochs=4, verbose=0)
    assert_unchanged(model)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_run_whose_steps_are_all_skipped_changes_no_weight(settings):
    model = model_of(averaged("SGD", wrapped=True, **settings))
    model.fit(np.full_like(X, np.inf), Y, batch_size=24, epochs=3, verbose=0)
    assert_unchanged(model)


def test_weights_that_the_loss_does_not_reach_stay():
    x = Input((3,))
    reached, other = layers.Dense(2), layers.Dense(2, name="other")
    model = Model(x, [reached(x), other(x)])
    before = other.get_weights()
    model.compile(averaged("SGD"), ["mse", None])
    with pytest.warns(UserWarning, match="does not depend on these weights"):
        model.fit(X, [Y, Y], epochs=2, verbose=0)
    np.testing.assert_allclose(other.get_weights()[0], before[0], rtol=1e-6)
    assert np.abs(before[0]).max() > 0


def test_weights_that_were_frozen_stay():
    model = Sequential([Input((3,)), layers.Dense(3), layers.Dense(2)])
    model.compile(averaged("SGD", ema_overwrite_frequency=3), "mse")
    for _ in range(2):
        model.train_on_batch(X, Y)
    model.layers[0].trainable = False
    before = model.get_weights()
    for _ in range(4):
        model.train_on_batch(X, Y)
    model.fit(X, Y, epochs=3, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(after[0], before[0])
    assert not np.array_equal(after[2], before[2])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("swap_on_epoch", "seen"),
    [(False, [-2.880646, -2.444352, -2.082116]), (True, [-2.956889, -2.557486, -2.178742])],
)
def test_averages_are_validated_as_in_keras(swap_on_epoch, seen, target):
    """Sums of kernels that the callbacks after it see, and the losses; training is that without it."""
    needs(target)
    model = model_of(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), target)
    found = []
    noted = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: found.append(model.get_weights()[0].sum()))
    swapped = callbacks.SwapEMAWeights(swap_on_epoch)
    history = model.fit(
        X, Y, batch_size=8, shuffle=False, epochs=3, validation_data=(X, Y), verbose=0, callbacks=[swapped, noted]
    ).history
    np.testing.assert_allclose(history["loss"], [3.926724, 2.496609, 1.744276], rtol=1e-5)
    np.testing.assert_allclose(history["val_loss"], [3.042775, 2.094096, 1.512872], rtol=1e-5)
    np.testing.assert_allclose(found, seen, rtol=1e-5)
    assert model.get_weights()[0].sum() == pytest.approx(-2.178742, rel=1e-5)


def test_averages_take_the_weights_place_in_evaluate_and_predict():
    model = model_of(optimizers.LossScaleOptimizer(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)))
    swap = callbacks.SwapEMAWeights()
    plain = model.evaluate(X, Y, verbose=0)
    assert model.evaluate(X, Y, verbose=0, callbacks=[swap]) == plain  # there are none yet
    for _ in range(3):
        model.train_on_batch(X, Y)
    weights, loss = model.get_weights(), model.evaluate(X, Y, verbose=0)
    averaged = model.evaluate(X, Y, verbose=0, callbacks=[swap])
    outputs = model.predict(X, verbose=0, callbacks=[swap])
    assert averaged > loss and np.mean((outputs - Y) ** 2) == pytest.approx(averaged, rel=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))


def test_a_run_that_is_saved_with_averages_in_place_goes_on(tmp_path):
    def run(*more):
        model = model_of(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
        backup = callbacks.BackupAndRestore(tmp_path / "b")
        options = {"batch_size": 8, "epochs": 4, "verbose": 0, "shuffle": False}
        model.fit(X, Y, callbacks=[callbacks.SwapEMAWeights(swap_on_epoch=True), backup, *more], **options)
        return model.get_weights()

    def stop(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(callbacks.LambdaCallback(on_epoch_begin=stop))
    assert all(np.array_equal(a, b) for a, b in zip(whole, run(), strict=True))


def test_an_optimizer_without_averages_is_told():
    with pytest.raises(graphc.GraphcError, match=r"SwapEMAWeights needs an optimizer .* use_ema=True"):
        model_of(optimizers.SGD(0.1)).fit(X, Y, verbose=0, callbacks=[callbacks.SwapEMAWeights()])
