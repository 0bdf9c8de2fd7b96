"""Optimizers: twenty steps against formulas in float64 and against torch.optim, what all share, configuration."""

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Sequential, layers, losses, optimizers

RATE = 0.05
STEPS = 20
RNG = np.random.default_rng(7)
X = RNG.normal(size=(24, 3)).astype(np.float32)
Y = RNG.normal(size=(24, 2)).astype(np.float32)
START = RNG.normal(size=(3, 2)).astype(np.float32), RNG.normal(size=2).astype(np.float32)


def trained(optimizer, steps=STEPS, target="numpy", loss="mse", **options):
    """The kernel and bias after so many steps on all the data."""
    model = Sequential([Input((3,)), layers.Dense(2, **options)])
    model.set_weights(START)
    model.compile(optimizer, loss, target=target)
    for _ in range(steps):
        model.train_on_batch(X, Y)
    return model.get_weights()


def gradients(kernel, bias):
    error = X.astype(np.float64) @ kernel + bias - Y
    return [X.T.astype(np.float64) @ error * 2 / error.size, error.sum(0) * 2 / error.size]


def by_formula(update, steps=STEPS):
    """The same in float64. `update(w, g, state, t)` gives the new weight."""
    weights = [array.astype(np.float64) for array in START]
    states = [{}, {}]
    for step in range(1, steps + 1):
        found = gradients(*weights)
        weights = [update(w, g, s, step) for w, g, s in zip(weights, found, states, strict=True)]
    return weights


def assert_close(found, wanted, tolerance=2e-5):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- formulas -----------------------------------------------------------------------------------------------------


def sgd(momentum=0.0, nesterov=False):
    def update(w, g, state, step):
        v = state["v"] = momentum * state.get("v", 0) - RATE * g
        return w + (momentum * v - RATE * g if nesterov else v)

    return update


def adam(amsgrad=False, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    def update(w, g, state, step):
        w = w - RATE * decay * w
        m = state["m"] = beta_1 * state.get("m", 0) + (1 - beta_1) * g
        v = state["v"] = beta_2 * state.get("v", 0) + (1 - beta_2) * g * g
        if amsgrad:
            v = state["hat"] = np.maximum(state.get("hat", 0), v)
        alpha = RATE * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        return w - alpha * m / (np.sqrt(v) + epsilon)

    return update


def lion(decay=0.0, beta_1=0.9, beta_2=0.99):
    def update(w, g, state, step):
        w = w - RATE * decay * w
        m = state.get("m", 0)
        state["m"] = beta_2 * m + (1 - beta_2) * g
        return w - RATE * np.sign(beta_1 * m + (1 - beta_1) * g)

    return update


def rmsprop(rho=0.9, momentum=0.0, centered=False, epsilon=1e-7):
    def update(w, g, state, step):
        v = state["v"] = rho * state.get("v", 0) + (1 - rho) * g * g
        if centered:
            a = state["a"] = rho * state.get("a", 0) + (1 - rho) * g
            v = v - a * a
        m = state["m"] = momentum * state.get("m", 0) + RATE * g / np.sqrt(v + epsilon)
        return w - m

    return update


def adagrad(epsilon=1e-7):
    def update(w, g, state, step):
        v = state["v"] = state.get("v", 0.1) + g * g
        return w - RATE * g / np.sqrt(v + epsilon)

    return update


CASES = [
    (lambda: optimizers.SGD(RATE), sgd()),
    (lambda: optimizers.SGD(RATE, momentum=0.9), sgd(0.9)),
    (lambda: optimizers.SGD(RATE, momentum=0.9, nesterov=True), sgd(0.9, True)),
    (lambda: optimizers.Adam(RATE), adam()),
    (lambda: optimizers.Adam(RATE, amsgrad=True), adam(True)),
    (lambda: optimizers.AdamW(RATE, weight_decay=0.1), adam(decay=0.1)),
    (lambda: optimizers.Lion(RATE, weight_decay=0.1), lion(0.1)),
    (lambda: optimizers.RMSprop(RATE, momentum=0.5, centered=True), rmsprop(momentum=0.5, centered=True)),
    (lambda: optimizers.RMSprop(RATE), rmsprop()),
    (lambda: optimizers.Adagrad(RATE), adagrad()),
]
NAMES = ["sgd", "momentum", "nesterov", "adam", "amsgrad", "adamw", "lion", "centered", "rmsprop", "adagrad"]


@pytest.mark.parametrize(("make", "update"), CASES, ids=NAMES)
def test_twenty_steps_are_those_of_the_formula(make, update):
    assert_close(trained(make()), by_formula(update))


@pytest.mark.parametrize("target", ["onnx", "torch", "jax"])
def test_other_targets_take_the_same_steps(target):
    needs(target)
    assert_close(trained(optimizers.AdamW(RATE, weight_decay=0.1), target=target), by_formula(adam(decay=0.1)))


@pytest.mark.parametrize("target", ["numpy", "onnx", "torch", "jax"])
def test_steps_of_adam_are_as_long_as_they_should_be(target):
    """Along a constant gradient of 1 each is the learning rate: 1 − β₂ᵗ is not off by what float32 loses near 1."""
    needs(target)
    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizers.Adam(1.0, epsilon=1e-12), lambda y, predictions: predictions, target=target)
    for step in range(1, 4):
        model.train_on_batch(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
        assert abs(model.get_weights()[0].item() / -step - 1) < 1e-6


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: optimizers.SGD(RATE, momentum=0.9, nesterov=True), ("SGD", {"momentum": 0.9, "nesterov": True})),
        (
            lambda: optimizers.AdamW(RATE, weight_decay=0.1, epsilon=1e-12),
            ("AdamW", {"weight_decay": 0.1, "eps": 1e-12}),
        ),
        (
            lambda: optimizers.Adagrad(RATE, epsilon=1e-12),
            ("Adagrad", {"initial_accumulator_value": 0.1, "eps": 1e-12}),
        ),
    ],
    ids=["sgd", "adamw", "adagrad"],
)
def test_torch_takes_the_same_steps(ours, theirs):
    """With ε so small that where it stands does not matter."""
    torch = pytest.importorskip("torch")
    name, options = theirs
    weights = [torch.tensor(array.astype(np.float64), requires_grad=True) for array in START]
    optimizer = getattr(torch.optim, name)(weights, lr=RATE, **options)
    for _ in range(STEPS):
        optimizer.zero_grad()
        ((torch.tensor(X.astype(np.float64)) @ weights[0] + weights[1] - torch.tensor(Y)) ** 2).mean().backward()
        optimizer.step()
    assert_close(trained(ours()), [w.detach().numpy() for w in weights])


# --- what all share -----------------------------------------------------------------------------------------------


def clipped(clip):
    weights = [array.astype(np.float64) for array in START]
    for _ in range(STEPS):
        weights = [w - RATE * g for w, g in zip(weights, clip(gradients(*weights)), strict=True)]
    return weights


@pytest.mark.parametrize(
    ("options", "clip"),
    [
        ({"clipvalue": 0.1}, lambda gs: [np.clip(g, -0.1, 0.1) for g in gs]),
        ({"clipnorm": 0.1}, lambda gs: [g * 0.1 / max(np.linalg.norm(g), 0.1) for g in gs]),
        (
            {"global_clipnorm": 0.1},
            lambda gs: [g * 0.1 / max(np.sqrt(sum((h * h).sum() for h in gs)), 0.1) for g in gs],
        ),
    ],
)
def test_gradients_are_clipped(options, clip):
    assert_close(trained(optimizers.SGD(RATE, **options)), clipped(clip))


def test_weight_decay_leaves_out_what_is_excluded():
    optimizer = optimizers.SGD(RATE, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel, bias = trained(optimizer, steps=1)
    (of_kernel, of_bias) = gradients(*(a.astype(np.float64) for a in START))
    assert_close([kernel, bias], [START[0] * (1 - RATE * 0.5) - RATE * of_kernel, START[1] - RATE * of_bias])
    with pytest.raises(graphc.GraphcError, match="comes before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])


def test_averages_of_weights_take_their_place():
    optimizer = optimizers.SGD(RATE, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    weights, averages = [a.astype(np.float64) for a in START], None
    for step in range(4):
        weights = [w - RATE * g for w, g in zip(weights, gradients(*weights), strict=True)]
        averages = weights if averages is None else [0.5 * a + 0.5 * w for a, w in zip(averages, weights, strict=True)]
        if step % 2:
            weights = averages
    assert_close(trained(optimizer, steps=4), weights)


@pytest.mark.parametrize("target", ["numpy", "onnx", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_small_batches_accumulated_are_the_big_one(target):
    """Also where they differ in size: each counts by the number of its examples."""
    needs(target)
    model = Sequential([Input((3,)), layers.Dense(2, kernel_regularizer="l2")])
    model.set_weights(START)
    model.compile(optimizers.Adam(RATE, gradient_accumulation_steps=3), "mse", target=target)
    for _ in range(4):
        for part in (slice(0, 4), slice(4, 15), slice(15, 24)):
            model.train_on_batch(X[part], Y[part])
    assert int(model.optimizer.iterations) == 4
    assert_close(model.get_weights(), trained(optimizers.Adam(RATE), steps=4, kernel_regularizer="l2"), 1e-5)


def test_accumulation_counts_what_the_loss_was_divided_by():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (24, 1))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)

    def run(optimizer, parts):
        model = Sequential([Input((3,)), layers.Dense(2)])
        model.set_weights(START)
        model.compile(optimizer, loss)
        for part in parts:
            model.train_on_batch(X[part], labels[part])
        return model.get_weights()

    whole = run(optimizers.SGD(RATE), [slice(0, 24)])
    assert_close(run(optimizers.SGD(RATE, gradient_accumulation_steps=2), [slice(0, 7), slice(7, 24)]), whole, 1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
        losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction="mean_with_sample_weight"),
    ],
)
def test_a_window_in_which_nothing_counts_changes_no_weight(loss):
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.set_weights(START)
    model.compile(optimizers.SGD(RATE, gradient_accumulation_steps=2), loss)
    model.fit(X, -np.ones(24, int), batch_size=12, verbose=0)
    assert_close(model.get_weights(), START, 0)


def test_sums_that_are_accumulated_are_sums():
    def run(optimizer, parts):
        model = Sequential([Input((3,)), layers.Dense(2)])
        model.set_weights(START)
        model.compile(optimizer, losses.MeanSquaredError(reduction="sum"))
        for part in parts:
            model.train_on_batch(X[part], Y[part])
        return model.get_weights()

    whole = run(optimizers.SGD(RATE), [slice(0, 24)])
    assert_close(run(optimizers.SGD(RATE, gradient_accumulation_steps=2), [slice(0, 7), slice(7, 24)]), whole, 1e-5)


@pytest.mark.parametrize(("frequency", "steps"), [(None, 4), (2, 3)])
def test_averages_are_the_weights_when_fit_ends(frequency, steps):
    optimizer = optimizers.SGD(RATE, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=frequency)
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.set_weights(START)
    model.compile(optimizer, "mse")
    model.fit(X, Y, batch_size=len(X), epochs=steps, verbose=0)
    weights, averages = [a.astype(np.float64) for a in START], None
    for step in range(steps):
        weights = [w - RATE * g for w, g in zip(weights, gradients(*weights), strict=True)]
        averages = weights if averages is None else [0.5 * a + 0.5 * w for a, w in zip(averages, weights, strict=True)]
        if frequency and step % frequency:
            weights = averages
    assert_close(model.get_weights(), averages)


def test_the_learning_rate_changes_without_compiling():
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.set_weights(START)
    model.compile(optimizers.SGD(RATE), "mse")
    model.train_on_batch(X, Y)
    executable = model.executable()
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()
    model.train_on_batch(X, Y)
    assert model.executable() is executable
    assert_close(model.get_weights(), before, 0)
    assert float(model.optimizer.learning_rate) == 0.0


def test_a_step_with_gradients_that_are_not_finite_changes_nothing_but_the_scale():
    optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(RATE), initial_scale=2.0**10, dynamic_growth_steps=3)
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.set_weights(START)
    model.compile(optimizer, "mse")
    broken = X.copy()
    broken[0, 0] = np.inf
    for x, scale, steps in [(X, 2**10, 1), (broken, 2**9, 1), (X, 2**9, 2), (X, 2**9, 3), (X, 2**10, 4)]:
        before = model.get_weights()
        model.train_on_batch(x, Y)
        assert float(optimizer.dynamic_scale) == scale and int(optimizer.iterations) == steps
        changed = not np.array_equal(before[0], model.get_weights()[0])
        assert changed == np.isfinite(x).all()
    assert_close(model.get_weights(), trained(optimizers.SGD(RATE), steps=4))


@pytest.mark.parametrize(
    "cls", [optimizers.SGD, optimizers.Adam, optimizers.AdamW, optimizers.Lion, optimizers.RMSprop]
)
def test_configuration_makes_an_equal_optimizer(cls):
    schedule = optimizers.schedules.CosineDecay(0.1, 100, warmup_target=0.2, warmup_steps=10)
    made = cls(schedule, clipnorm=1.0, gradient_accumulation_steps=2)
    again = optimizers.deserialize(optimizers.serialize(made))
    assert type(again) is cls and again.get_config() == made.get_config()
    assert again._learning_rate(50) == schedule(50)


def test_names_and_mistakes():
    assert type(optimizers.get("adamw")) is optimizers.AdamW and type(optimizers.get("SGD")) is optimizers.SGD
    with pytest.raises(graphc.GraphcError, match="no optimizer is called 'adem'"):
        optimizers.get("adem")
    with pytest.raises(graphc.GraphcError, match="not several"):
        optimizers.SGD(clipnorm=1.0, clipvalue=1.0)
    with pytest.raises(graphc.GraphcError, match="has no argument 'decay'"):
        optimizers.SGD(decay=0.1)
    fixed = optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 10, 0.5))
    with pytest.raises(graphc.GraphcError, match="follows a schedule"):
        fixed.learning_rate = 0.1


class Chained(optimizers.Optimizer):
    """Its new values are long expressions that begin with the weight, or with what is inlined."""

    def update_step(self, gradient, variable, learning_rate):
        step = gradient * learning_rate
        variable.assign(variable - step - step * step)
        variable.assign((variable + step) * 0.5 - 0.25 * step)


class Counting(Chained):
    """Keeps a number too, which begins with one."""

    def build(self, variables):
        super().build(variables)
        self.kept = self.add_optimizer_variables(variables, "kept")

    def update_step(self, gradient, variable, learning_rate):
        kept = self.kept[self._get_variable_index(variable)]
        kept.assign(kept * 0.5 + gradient + gradient * gradient)
        super().update_step(gradient + kept, variable, learning_rate)


@pytest.mark.parametrize("target", ["onnx", "torch", pytest.param("jax", marks=pytest.mark.slow)])
@pytest.mark.parametrize("cls", [Chained, Counting])
def test_optimizers_of_ones_own_run_on_every_target(cls, target):
    needs(target)
    assert_close(trained(cls(RATE), target=target), trained(cls(RATE)), 1e-5)
