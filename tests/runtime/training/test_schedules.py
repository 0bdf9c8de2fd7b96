"""Learning rate schedules: values by hand, on the host, and in a step."""

import math

import numpy as np
import pytest

import graphc
from graphc import Input, Sequential, layers, optimizers

schedules = optimizers.schedules


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (schedules.ConstantSchedule(0.3), {0: 0.3, 99: 0.3}),
        (schedules.ExponentialDecay(0.1, 10, 0.5), {0: 0.1, 5: 0.1 * 0.5**0.5, 20: 0.025}),
        (schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True), {9: 0.1, 10: 0.05, 25: 0.025}),
        (schedules.InverseTimeDecay(1.0, 10, 2.0), {0: 1.0, 5: 0.5, 10: 1 / 3}),
        (schedules.PiecewiseConstantDecay([2, 5], [1.0, 0.5, 0.1]), {0: 1.0, 2: 1.0, 3: 0.5, 5: 0.5, 6: 0.1}),
        (schedules.PolynomialDecay(0.1, 10, 0.01, power=2.0), {0: 0.1, 5: 0.09 / 4 + 0.01, 10: 0.01, 50: 0.01}),
        (schedules.PolynomialDecay(0.1, 10, 0.0, cycle=True), {10: 0.0, 11: 0.1 * (1 - 11 / 20), 20: 0.0}),
        (schedules.CosineDecay(1.0, 100, alpha=0.1), {0: 1.0, 50: 0.55, 100: 0.1, 1000: 0.1}),
        (
            schedules.CosineDecay(0.0, 100, warmup_target=1.0, warmup_steps=10),
            {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.5, 110: 0.0},
        ),
        (schedules.CosineDecayRestarts(1.0, 10), {0: 1.0, 5: 0.5, 10: 1.0, 20: 0.5, 30: 1.0, 70: 1.0}),
    ],
)
def test_values(schedule, values):
    for step, value in values.items():
        assert math.isclose(schedule(step), value, rel_tol=1e-12, abs_tol=1e-15)
    again = schedules.deserialize(schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config() and again(7) == schedule(7)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({}, {9: 0.024472, 11: 0.993844, 15: 0.853553, 19: 0.578217, 35: 0.96194, 47: 0.616723, 123: 0.255689}),
        ({"t_mul": 1.0, "m_mul": 0.5, "alpha": 0.1}, {5: 0.55, 11: 0.538988, 19: 0.111012, 35: 0.15625, 123: 0.100174}),
        ({"t_mul": 1.5, "m_mul": 0.8}, {11: 0.791259, 15: 0.6, 19: 0.276393, 35: 0.375567, 47: 0.00078, 123: 0.030283}),
        ({"t_mul": 0.5}, {5: 0.5, 11: 0.904508, 15: 1.0}),
    ],
)
def test_restarts_are_those_of_keras(options, values):
    """Numbers of Keras 3.15, which computes in float32."""
    schedule = schedules.CosineDecayRestarts(1.0, 10, **options)
    for step, value in values.items():
        assert math.isclose(schedule(step), value, abs_tol=2e-6)
    with pytest.raises(graphc.GraphcError, match="restarts come closer and closer, and end before step 20"):
        schedules.CosineDecayRestarts(1.0, 10, t_mul=0.5)(20)


def test_mistakes():
    with pytest.raises(graphc.GraphcError, match="3 boundaries need 4 values, not 3"):
        schedules.PiecewiseConstantDecay([1, 2, 3], [1, 2, 3])
    with pytest.raises(graphc.GraphcError, match="decay_steps is more than 0"):
        schedules.CosineDecay(1.0, 0)


@pytest.mark.parametrize("wrap", [lambda o: o, optimizers.LossScaleOptimizer])
def test_a_step_takes_the_rate_of_its_number(wrap):
    """The gradient of the mean of x · w is 1: each step shows its rate."""
    rates = [0.5, 0.25, 0.125, 0.0625]
    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(
        wrap(optimizers.SGD(schedules.ExponentialDecay(0.5, 1, 0.5))),
        lambda y_true, y_pred: graphc.ops.mean(y_pred, -1),
    )
    x, seen = np.ones((2, 1), np.float32), [0.0]
    for _ in rates:
        model.train_on_batch(x, x)
        seen.append(-float(model.get_weights()[0][0, 0]))
    np.testing.assert_allclose(np.diff(seen), rates)
    assert model.optimizer.learning_rate == 0.03125
    model.optimizer.iterations.assign(0)
    model.train_on_batch(x, x)
    np.testing.assert_allclose(-model.get_weights()[0][0, 0] - seen[-1], rates[0])


class TwoUpdates(Sequential):
    """A step that makes two updates of one batch; both steps log the rate."""

    def train_step(self, data):
        x, y = data
        for _ in range(2):
            loss = self.compute_loss(x, y, self(x, training=True))
            variables = self.trainable_variables
            self.optimizer.apply(graphc.gradients(self.optimizer.scale_loss(loss), variables), variables)
        return {"loss": loss, "rate": self.optimizer.learning_rate}

    def test_step(self, data):
        return {"rate": self.optimizer.learning_rate}


@pytest.mark.parametrize("target", ["numpy", "torch"])
@pytest.mark.parametrize("wrap", [lambda o: o, optimizers.LossScaleOptimizer])
def test_each_update_of_a_step_takes_the_rate_of_its_number(wrap, target):
    """As in Keras, and evaluation in between counts nothing."""
    model = TwoUpdates([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    rate = optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    model.compile(wrap(optimizers.SGD(rate)), lambda y_true, y_pred: graphc.ops.mean(y_pred, -1), target=target)
    x, seen = np.ones((2, 1), np.float32), [0.0]
    for step in range(3):
        logs = model.train_on_batch(x, x, return_dict=True)
        seen.append(-float(model.get_weights()[0][0, 0]))
        assert logs["rate"] == 0.25 ** (step + 1)
        assert model.test_on_batch(x, x) == model.evaluate(x, x, verbose=0) == 0.25 ** (step + 1)
    np.testing.assert_allclose(np.diff(seen), [1.5, 0.375, 0.09375])


def test_what_evaluation_reads_is_no_step():
    class Logging(Sequential):
        def test_step(self, data):
            return {"rate": self.optimizer.learning_rate}

    model = Logging([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    rate = optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    model.compile(optimizers.SGD(rate), lambda y_true, y_pred: graphc.ops.mean(y_pred, -1))
    x = np.ones((2, 1), np.float32)
    for step in range(3):
        assert [model.test_on_batch(x, x) for _ in range(2)] == [0.5**step] * 2
        model.train_on_batch(x, x)
    np.testing.assert_allclose(model.get_weights()[0][0, 0], -1.75)


def test_messages_count_one_as_one():
    from graphc.ir.suggestions import number_of

    assert [number_of(n, "axis", "axes") for n in (0, 1, 2)] == ["0 axes", "1 axis", "2 axes"]
    with pytest.raises(graphc.GraphcError, match="1 boundary needs 2 values, not 3"):
        schedules.PiecewiseConstantDecay([1], [1, 2, 3])
