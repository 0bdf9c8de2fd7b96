"""What optimizers are given is checked when they are made, and when a learning rate is set."""

import numpy as np
import pytest

import graphc
from graphc import Input, Sequential, layers, optimizers

NAMES = [
    name
    for name in optimizers.__all__
    if isinstance(getattr(optimizers, name), type) and name not in ("Optimizer", "LossScaleOptimizer")
]
RATE = "a number of 0 or more, a schedule or a function without arguments"

OF_ALL = [
    ({"learning_rate": -1.0}, f"learning_rate of {{}} is {RATE}, not -1.0"),
    ({"learning_rate": "fast"}, f"learning_rate of {{}} is {RATE}, not 'fast'"),
    ({"learning_rate": None}, f"learning_rate of {{}} is {RATE}, not None"),
    ({"learning_rate": True}, f"learning_rate of {{}} is {RATE}, not True"),
    ({"learning_rate": float("nan")}, f"learning_rate of {{}} is {RATE}, not nan"),
    ({"learning_rate": float("inf")}, f"learning_rate of {{}} is {RATE}, not inf"),
    ({"learning_rate": np.ones(2)}, f"learning_rate of {{}} is {RATE}, not array([1., 1.])"),
    ({"learning_rate": optimizers.SGD}, f"learning_rate of {{}} is {RATE}, not {optimizers.SGD!r}"),
    ({"weight_decay": -0.1}, "weight_decay of {} is a number of 0 or more, not -0.1"),
    ({"weight_decay": "some"}, "weight_decay of {} is a number of 0 or more, not 'some'"),
    ({"clipnorm": 0.0}, "clipnorm of {} is a number above 0, not 0.0"),
    ({"clipvalue": -1.0}, "clipvalue of {} is a number above 0, not -1.0"),
    ({"global_clipnorm": "1"}, "global_clipnorm of {} is a number above 0, not '1'"),
    ({"clipnorm": 1.0, "clipvalue": 1.0}, "{} clips gradients in one way, not several: clipnorm and clipvalue"),
    ({"use_ema": "yes"}, "use_ema of {} is True or False, not 'yes'"),
    ({"ema_momentum": 1.5}, "ema_momentum of {} is a number from 0 to 1, not 1.5"),
    ({"ema_overwrite_frequency": 0}, "ema_overwrite_frequency of {} is an integer of 1 or more, not 0"),
    ({"ema_overwrite_frequency": 1.5}, "ema_overwrite_frequency of {} is an integer of 1 or more, not 1.5"),
    ({"loss_scale_factor": 0.0}, "loss_scale_factor of {} is a number above 0, not 0.0"),
    ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps of {} is an integer of 2 or more, not 0"),
    ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps of {} is an integer of 2 or more, not 1"),
    ({"gradient_accumulation_steps": 2.5}, "gradient_accumulation_steps of {} is an integer of 2 or more, not 2.5"),
    ({"gradient_accumulation_steps": True}, "gradient_accumulation_steps of {} is an integer of 2 or more, not True"),
    ({"name": 3}, "name of {} is a text, not 3"),
    ({"lr": 0.1}, "{} has no argument 'lr'; did you mean learning_rate?"),
    ({"learning_rat": 0.1}, "{} has no argument 'learning_rat'; did you mean learning_rate"),
    ({"decay": 0.1}, "{} has no argument 'decay'; did you mean weight_decay?"),
    ({"clip_norm": 0.1}, "{} has no argument 'clip_norm'; did you mean clipnorm?"),
]
ABOVE = "is a number above 0"
BELOW = "is a number of at least 0 and below 1"
OF_SOME = [
    *((name, {"momentum": m}, "is a number from 0 to 1") for name in ("SGD", "RMSprop") for m in (-0.1, 1.5, "a")),
    *(
        (name, {beta: value}, BELOW)
        for name in ("Adam", "AdamW", "Nadam", "Adamax", "Lamb")
        for beta in ("beta_1", "beta_2")
        for value in (-0.1, 1.0, 1.5, None)
    ),
    *((name, {"epsilon": e}, ABOVE) for name in ("Adam", "AdamW", "Nadam", "Adamax", "Lamb") for e in (0.0, -1e-7)),
    *((name, {"epsilon": e}, ABOVE) for name in ("RMSprop", "Adadelta") for e in (0.0, -1e-7)),
    *((name, {"rho": value}, BELOW) for name in ("RMSprop", "Adadelta") for value in (-0.1, 1.0)),
    ("Lion", {"beta_1": 0.0}, "is a number above 0 and at most 1"),
    ("Lion", {"beta_2": 1.0}, BELOW),
    ("Adagrad", {"initial_accumulator_value": -0.1}, "is a number of 0 or more"),
    ("Adagrad", {"epsilon": -1e-7}, "is a number of 0 or more"),
    ("Ftrl", {"learning_rate_power": 0.5}, "is a number of 0 or less"),
    ("Ftrl", {"initial_accumulator_value": -0.1}, "is a number of 0 or more"),
    ("Ftrl", {"l1_regularization_strength": -0.1}, "is a number of 0 or more"),
    ("Ftrl", {"l2_regularization_strength": -0.1}, "is a number of 0 or more"),
    ("Ftrl", {"l2_shrinkage_regularization_strength": -0.1}, "is a number of 0 or more"),
    ("Ftrl", {"beta": -0.1}, "is a number of 0 or more"),
    ("SGD", {"nesterov": "yes"}, "is True or False"),
    ("Adam", {"amsgrad": 3}, "is True or False"),
    ("RMSprop", {"centered": None}, "is True or False"),
]


def message_of(make):
    with pytest.raises(graphc.GraphcError) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_all_take_is_checked(name):
    for options, wanted in OF_ALL:
        found = message_of(lambda options=options: getattr(optimizers, name)(**options))
        assert found.startswith(wanted.format(name))


@pytest.mark.parametrize(("name", "options", "wanted"), OF_SOME)
def test_what_one_takes_is_checked(name, options, wanted):
    ((argument, value),) = options.items()
    found = message_of(lambda: getattr(optimizers, name)(**options))
    assert found == f"{argument} of {name} {wanted}, not {value!r}"


def test_nothing_to_divide_by_is_refused():
    assert "epsilon of Adagrad" in message_of(lambda: optimizers.Adagrad(initial_accumulator_value=0, epsilon=0))
    optimizers.Adagrad(epsilon=0)


def test_the_loss_scale_is_checked():
    inner = optimizers.SGD()
    wrap = optimizers.LossScaleOptimizer
    assert "is an optimizer that does not scale its loss, not 'sgd'" in message_of(lambda: wrap("sgd"))
    assert "is an optimizer that does not scale its loss, not <Loss" in message_of(lambda: wrap(wrap(inner)))
    assert "initial_scale" in message_of(lambda: wrap(inner, initial_scale=0.0))
    assert "dynamic_growth_steps" in message_of(lambda: wrap(inner, dynamic_growth_steps=1.5))
    assert "has no argument 'initial'; did you mean initial_scale" in message_of(lambda: wrap(inner, initial=1.0))
    assert "takes no clipnorm: give it to the inner" in message_of(lambda: wrap(inner, clipnorm=1.0))


@pytest.mark.parametrize("value", ["fast", None, -1.0, float("nan"), [0.1], True, np.ones(1)])
@pytest.mark.parametrize("wrap", [lambda o: o, optimizers.LossScaleOptimizer])
def test_a_learning_rate_that_is_none_is_not_taken(value, wrap):
    optimizer = wrap(optimizers.SGD(0.5))
    wanted = f"learning_rate of SGD is {RATE}, not {value!r}"
    assert message_of(lambda: setattr(optimizer, "learning_rate", value)) == wanted
    assert float(optimizer.learning_rate) == 0.5


@pytest.mark.parametrize("value", [0, 1, 0.25, np.float32(0.25), np.float64(0.25), np.array(0.25), np.int64(1)])
def test_numbers_of_all_kinds_are_learning_rates(value):
    optimizer = optimizers.SGD(value)
    assert float(optimizer.learning_rate) == value
    optimizer.learning_rate = value
    assert float(optimizer.learning_rate) == value and float(optimizer.get_config()["learning_rate"]) == value


def stepped(optimizer, changes):
    """The kernel after a step at each of the rates, which starts at 0 and has a gradient of −1."""
    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, lambda y, p: graphc.ops.mean(y * p))
    found = []
    for change in changes:
        if change is not None:
            model.optimizer.learning_rate = change
        model.train_on_batch(np.ones((4, 1), np.float32), -np.ones((4, 1), np.float32))
        found.append(float(model.get_weights()[0].item()))
    return np.diff([0.0, *found])


def test_a_number_may_be_followed_by_a_schedule_or_a_function():
    schedule = optimizers.schedules.PiecewiseConstantDecay([2], [1.0, 8.0])
    found = stepped(optimizers.SGD(0.5), [None, None, schedule, None, lambda: 4.0, 0.25])
    np.testing.assert_allclose(found, [0.5, 0.5, 1.0, 8.0, 4.0, 0.25])


def test_a_rate_that_a_function_or_schedule_gives_is_checked():
    assert "gives the learning rate -1.0 for step 0" in message_of(
        lambda: stepped(optimizers.SGD(lambda: -1.0), [None])
    )
    schedule = optimizers.schedules.ExponentialDecay(1.0, 1, 1e400)
    assert "for step 1, not a number of 0 or more" in message_of(lambda: stepped(optimizers.SGD(schedule), [None] * 2))


@pytest.mark.parametrize("wrong", [None, 3, 0.1, ["adam"]])
def test_what_is_no_optimizer_is_refused(wrong):
    assert "an optimizer is a name, a config, a class or an object" in message_of(lambda: optimizers.get(wrong))
