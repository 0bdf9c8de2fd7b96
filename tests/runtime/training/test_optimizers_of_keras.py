"""Optimizers whose numbers are pinned: ten steps of Keras 3.15 on two weights (its JAX and torch backends agree)."""

import json

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Sequential, layers, optimizers

RNG = np.random.default_rng(7)
X = RNG.normal(size=(24, 3)).astype(np.float32)
Y = RNG.normal(size=(24, 2)).astype(np.float32)
START = RNG.normal(size=(3, 2)).astype(np.float32), RNG.normal(size=2).astype(np.float32)
TARGETS = ["numpy", "onnx", "torch", "jax"]
NAMES = [
    name
    for name in optimizers.__all__
    if isinstance(getattr(optimizers, name), type) and name not in ("Optimizer", "LossScaleOptimizer")
]


def fitted(optimizer, target="numpy", steps=10):
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.set_weights(START)
    model.compile(optimizer, "mse", target=target)
    model.fit(X, Y, batch_size=24, epochs=steps, verbose=0)
    return np.concatenate([each.ravel() for each in model.get_weights()])


KERAS = [
    ("Nadam", {}, [-0.266268, -0.245236, 0.198354, -1.61841, -1.022948, 0.173337, -1.76136, 0.504498]),
    (
        "Nadam",
        {"weight_decay": 0.1},
        [-0.258692, -0.22891, 0.191606, -1.532121, -0.982648, 0.158303, -1.669359, 0.474742],
    ),
    (
        "Nadam",
        {"gradient_accumulation_steps": 2},
        [-0.100211, -0.403557, 0.062871, -1.80217, -1.127307, 0.265027, -1.936729, 0.660445],
    ),
    ("Adamax", {}, [-0.32947, -0.187636, 0.241558, -1.522164, -1.008974, 0.131159, -1.68929, 0.451106]),
    (
        "Adamax",
        {"weight_decay": 0.1},
        [-0.318488, -0.174602, 0.232879, -1.440695, -0.959383, 0.117619, -1.601329, 0.424204],
    ),
    (
        "Adamax",
        {"gradient_accumulation_steps": 2},
        [-0.142199, -0.362503, 0.099655, -1.752879, -1.167757, 0.268058, -1.893181, 0.619902],
    ),
    ("Adadelta", {}, [0.088577, -0.590299, -0.11788, -1.997016, -1.132133, 0.362136, -2.127837, 0.845879]),
    (
        "Adadelta",
        {"weight_decay": 0.1},
        [0.084239, -0.561433, -0.112111, -1.899374, -1.076837, 0.344305, -2.0238, 0.804516],
    ),
    (
        "Adadelta",
        {"gradient_accumulation_steps": 2},
        [0.088946, -0.590668, -0.11825, -1.997386, -1.131767, 0.362489, -2.128207, 0.846248],
    ),
    ("Ftrl", {}, [-0.158897, -0.18801, 0.106711, -1.395506, -0.247339, 0.069903, -1.492846, 0.31168]),
    (
        "Ftrl",
        {"weight_decay": 0.1},
        [-0.158312, -0.186699, 0.105867, -1.381393, -0.246303, 0.069113, -1.477639, 0.309366],
    ),
    (
        "Ftrl",
        {"gradient_accumulation_steps": 2},
        [-0.085514, -0.239265, 0.05908, -1.478524, -0.164363, 0.050497, -1.572676, 0.351124],
    ),
    ("Lamb", {}, [-0.391023, -0.12112, 0.315529, -1.495924, -0.924764, 0.025212, -1.438387, 0.21005]),
    (
        "Lamb",
        {"weight_decay": 0.1},
        [-0.372574, -0.115203, 0.299707, -1.421255, -0.883592, 0.022555, -1.368092, 0.199742],
    ),
    (
        "Lamb",
        {"gradient_accumulation_steps": 2},
        [-0.168638, -0.33399, 0.135255, -1.737013, -1.132735, 0.166842, -1.756116, 0.479351],
    ),
    (
        "Ftrl",
        {
            "learning_rate_power": -0.7,
            "l1_regularization_strength": 0.2,
            "l2_regularization_strength": 0.1,
            "l2_shrinkage_regularization_strength": 0.05,
            "beta": 0.3,
        },
        [-0.104444, -0.163068, 0.073355, -1.415182, -0.149122, 0.023709, -1.505526, 0.254096],
    ),
    ("Adafactor", {}, [-0.511341, -0.336915, 0.059495, -1.567917, -0.851538, 0.121177, -1.52796, 0.329036]),
    (
        "Adafactor",
        {"weight_decay": 0.1},
        [-0.481882, -0.323422, 0.054513, -1.493762, -0.82601, 0.113709, -1.458691, 0.316064],
    ),
    (
        "Adafactor",
        {"gradient_accumulation_steps": 2},
        [-0.261401, -0.446538, -0.017532, -1.764974, -1.032254, 0.226717, -1.778121, 0.517656],
    ),
    (
        "Adafactor",
        {"clip_threshold": 0.5, "epsilon_2": 0.1, "relative_step": False},
        [-0.286163, -0.436688, -0.010606, -1.748664, -1.009004, 0.205333, -1.750023, 0.49436],
    ),
    ("Muon", {}, [-0.08808, -0.542019, -0.050117, -1.882813, -1.129537, 0.357912, -1.632679, 0.373455]),
    (
        "Muon",
        {"weight_decay": 0.1},
        [-0.089482, -0.515386, -0.045801, -1.791992, -1.079492, 0.34125, -1.632354, 0.37244],
    ),
    (
        "Muon",
        {"gradient_accumulation_steps": 2},
        [-0.000147, -0.566227, -0.082626, -1.941125, -1.134247, 0.361504, -1.877528, 0.59894],
    ),
    (
        "Muon",
        {"nesterov": False, "rms_rate": None, "ns_steps": 3},
        [-0.409503, -0.44583, 0.075691, -1.657907, -1.124846, 0.34997, -1.635711, 0.373748],
    ),
    (
        "Muon",
        {"weight_decay": None, "adam_weight_decay": 0.3, "adam_lr_ratio": 0.5},
        [-0.087054, -0.542706, -0.048935, -1.886623, -1.130598, 0.359547, -1.600429, 0.502143],
    ),
]


@pytest.mark.parametrize(("name", "options", "wanted"), KERAS)
def test_ten_steps_are_those_of_keras(name, options, wanted):
    found = fitted(getattr(optimizers, name)(0.05, **options))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("Adafactor", {}, [-0.23676, 0.88998, -2.56018, -1.65688, -0.06207, 0.3528]),
        ("Muon", {"exclude_layers": ["out"]}, [-0.31069, 1.19968, -1.85508, -1.84654, 0.08728, 0.25848]),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_weights_of_several_ranks_are_updated_as_in_keras(name, options, wanted, target):
    """A kernel of three axes, wide and tall matrices, biases: six steps."""
    needs(target)
    optimizer = getattr(optimizers, name)(0.05, **options)
    stack = [
        layers.Reshape((3, 1)),
        layers.Conv1D(4, 2, activation="tanh"),
        layers.Flatten(),
        layers.Dense(3, activation="tanh"),
        layers.Dense(2, name="out"),
    ]
    model = Sequential([Input((3,)), *stack])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=v.shape) for v in model.weights])
    model.compile(optimizer, "mse", target=target)
    model.fit(X, Y, batch_size=24, epochs=6, verbose=0)
    found = [float(np.sum(w * np.cos(np.arange(w.size)).reshape(w.shape))) for w in model.get_weights()]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-5)


def test_adafactor_keeps_no_array_as_large_as_a_matrix():
    model = Sequential([Input((30,)), layers.Dense(20)])
    model.compile("adafactor", "mse")
    model.train_on_batch(np.zeros((2, 30)), np.zeros((2, 20)))
    assert sorted(v.shape for v in model.optimizer.variables) == [(), (20,), (20,), (30,)]


def test_what_an_optimizer_keeps_is_told_apart_by_path():
    model = Sequential([Input((3,)), layers.Dense(2, name="out")])
    model.compile("adam", "mse")
    model.train_on_batch(np.zeros((2, 3)), np.zeros((2, 2)))
    kept = [f"optimizer/out/{weight}/{slot}" for weight in ("kernel", "bias") for slot in ("momentum", "velocity")]
    assert sorted(v.path for v in model.optimizer.variables) == sorted(["optimizer/iteration", *kept])


def test_what_muon_gives_to_adam():
    stack = [layers.Embedding(5, 4), layers.Flatten(), layers.Dense(3, name="hidden"), layers.Dense(2, name="out_1")]
    model = Sequential([Input((5,)), *stack])
    muon = optimizers.Muon(exclude_layers=["out_[0-9]/"])
    muon.build(model.trainable_variables)
    own = [v.slot_of.shape for v in muon.variables if v.name == "velocity"]
    assert own == [(5, 4), (3,), (3, 2), (2,)]
    with pytest.raises(graphc.GraphcError, match="exclude_layers of Muon is a list of expressions, not 'out'"):
        optimizers.Muon(exclude_layers="out")


def test_an_expression_that_muon_finds_nowhere_is_warned_of():
    model = Sequential([Input((3,)), layers.Dense(2, name="out")])
    with pytest.warns(UserWarning, match="finds 'ouut' in the path of no weight that is trained, as 'out/bias' is one"):
        optimizers.Muon(exclude_layers=["out", "ouut"]).build(model.trainable_variables)


def test_source_calls_what_muon_gives_to_adam_adamw():
    model = Sequential([Input((3,), name="x"), layers.Dense(3, name="hidden"), layers.Dense(2, name="out")])
    model.compile(optimizers.Muon(exclude_layers=["out"]), "mse")
    source = graphc.compile(model.training_module(np.zeros((2, 3)), np.zeros((2, 2))), target="numpy").source
    called = {line.split("(")[0] for line in source.splitlines() if line.startswith("def ")}
    assert {"def muon", "def adamw"} <= called and not {"def muon_1", "def adamw_1"} & called


@pytest.mark.parametrize("target", TARGETS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_takes_the_same_steps_on_every_target(name, target):
    needs(target)
    make = getattr(optimizers, name)
    np.testing.assert_allclose(fitted(make(0.05), target, 4), fitted(make(0.05), steps=4), rtol=1e-5, atol=1e-6)


DEFAULTS = {
    "Nadam": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "Adamax": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "Lamb": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "Adafactor": {
        "learning_rate": 0.001,
        "beta_2_decay": -0.8,
        "epsilon_1": 1e-30,
        "epsilon_2": 1e-3,
        "clip_threshold": 1.0,
        "relative_step": True,
    },
    "Muon": {
        "learning_rate": 0.001,
        "adam_beta_1": 0.9,
        "adam_beta_2": 0.999,
        "adam_weight_decay": 0.004,
        "epsilon": 1e-7,
        "weight_decay": 0.004,
        "exclude_layers": [],
        "exclude_embeddings": True,
        "muon_a": 3.4445,
        "muon_b": -4.7750,
        "muon_c": 2.0315,
        "adam_lr_ratio": 1,
        "momentum": 0.95,
        "ns_steps": 5,
        "nesterov": True,
        "rms_rate": 0.2,
    },
    "Adadelta": {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-7},
    "Ftrl": {
        "learning_rate": 0.001,
        "learning_rate_power": -0.5,
        "initial_accumulator_value": 0.1,
        "l1_regularization_strength": 0.0,
        "l2_regularization_strength": 0.0,
        "l2_shrinkage_regularization_strength": 0.0,
        "beta": 0.0,
    },
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_keras(name):
    config = getattr(optimizers, name)().get_config()
    for key, value in DEFAULTS[name].items():
        assert config[key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_is_found_by_name_and_config(name):
    cls = getattr(optimizers, name)
    for spelled in (name, name.lower(), name.upper()):
        assert type(optimizers.get(spelled)) is cls
    made = cls(0.25, clipnorm=1.0, use_ema=True)
    for spelled in (name, name.lower()):
        config = json.loads(json.dumps(optimizers.serialize(made))) | {"class_name": spelled}
        for again in (optimizers.get(config), optimizers.deserialize(config)):
            assert type(again) is cls and again.get_config() == made.get_config()


@pytest.mark.parametrize("name", NAMES)
def test_small_batches_accumulated_are_the_big_one_for_every_optimizer(name):
    cls, weights = getattr(optimizers, name), []
    for optimizer, parts in (
        (cls(0.05), [slice(0, 24)]),
        (cls(0.05, gradient_accumulation_steps=2), [slice(0, 15), slice(15, 24)]),
    ):
        model = Sequential([Input((3,)), layers.Dense(2)])
        model.set_weights(START)
        model.compile(optimizer, "mse")
        for _ in range(3):
            for part in parts:
                model.train_on_batch(X[part], Y[part])
        weights.append(np.concatenate([each.ravel() for each in model.get_weights()]))
    np.testing.assert_allclose(*weights, rtol=2e-5, atol=2e-6)


def test_the_namespace_shows_what_is_public():
    assert dir(graphc.optimizers) == sorted(optimizers.__all__)
    assert {"get", "schedules", "when", *NAMES} <= set(dir(graphc.optimizers))
