"""`copy.copy` and `copy.deepcopy` of what users hold, and pickling, which is refused."""

import copy
import pickle

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, Spec, layers, losses, metrics, ops, optimizers
from graphc.ir.dims import symbol
from graphc.ir.dtypes import DTYPES
from graphc.ir.types import TensorType

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4)).astype(np.float32)
Y = RNG.normal(size=(16, 2)).astype(np.float32)
COPIES = [copy.copy, copy.deepcopy]


def functional():
    x = Input((4,))
    shared = layers.Dense(4, activation="tanh", name="shared")
    y = shared(ops.sin(shared(x)) + 1.0)
    return Model(x, layers.Dense(2, name="out")(layers.BatchNormalization()(y)), name="mine")


def sequential():
    return Sequential([Input((4,)), layers.Dense(3, activation=lambda x: ops.maximum(x, 0.1)), layers.Dense(2)])


class Own(Model):
    """Its arguments cannot be repeated."""

    def __init__(self, *sizes):
        super().__init__()
        self.hidden = [layers.Dense(size) for size in sizes]
        self.named = {"out": layers.Dense(2)}

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.named["out"](x)


def nested():
    x = Input((4,))
    return Model(x, sequential()(layers.Reshape((4,))(x)))


MAKE = {"functional": functional, "sequential": sequential, "own": lambda: Own(5, 3), "nested": nested}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("name", MAKE)
def test_a_model_that_trains_goes_on_alike_and_apart(name, copied):
    model = MAKE[name]()
    model.compile(optimizers.Adam(0.1), losses.MeanSquaredError(), metrics=["mae", metrics.RootMeanSquaredError()])
    model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    other = copied(model)
    assert type(other) is type(model) and other.name == model.name and other.compiled
    assert int(other.optimizer.iterations) == int(model.optimizer.iterations) == 2
    before = model.get_weights()
    assert len(before) == len(other.get_weights())
    assert not {id(v) for v in model.weights} & {id(v) for v in other.weights}
    other.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), model.get_weights(), strict=True))
    assert model.evaluate(X, Y, verbose=0) == other.evaluate(X, Y, verbose=0)


def test_a_copied_graph_has_the_same_names(tmp_path):
    model = functional()
    other = copy.deepcopy(model)
    assert str(graphc.lower(other)) == str(graphc.lower(model))
    assert [v.path for v in other.weights] == [v.path for v in model.weights]
    other.save(tmp_path / "m.graphc")
    np.testing.assert_array_equal(
        graphc.models.load_model(tmp_path / "m.graphc").predict(X, verbose=0), model.predict(X)
    )


def test_a_model_that_is_not_built_is_copied():
    model = Sequential([layers.Dense(3), layers.Dense(2)])
    other = copy.deepcopy(model)
    other.build((None, 4))
    assert other.built and not model.built and len(other.weights) == 4


def test_lists_in_a_copied_layer_track_what_comes_later():
    other = copy.deepcopy(Own(5))
    other.hidden.append(layers.Dense(3))
    other(X)
    assert len(other.weights) == 6


@pytest.mark.parametrize("optimizer", [
    lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1, momentum=0.9)),
    lambda: optimizers.AdamW(0.1, gradient_accumulation_steps=2, use_ema=True),
    lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 10)),
    lambda: optimizers.Adafactor(0.1),
])  # fmt: skip
def test_what_optimizers_keep_is_copied(optimizer):
    model = sequential()
    model.compile(optimizer(), "mse")
    model.train_on_batch(X, Y)
    other = copy.deepcopy(model)
    kept = [(v.path, v.numpy()) for v in model.optimizer.variables]
    assert len(kept) > 1 or isinstance(model.optimizer, optimizers.SGD)
    for (path, value), own in zip(kept, other.optimizer.variables, strict=True):
        assert own.path == path and np.array_equal(value, own.numpy())
    for each in (model, other):
        each.train_on_batch(X, Y)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))


def test_what_is_excluded_from_decay_stays_so():
    model = sequential()
    optimizer = optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay([model.weights[0]])
    model.compile(optimizer, "mse")
    other = copy.deepcopy(model)
    for each in (model, other):
        each.train_on_batch(X, Y)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))


def test_adapters_and_integers_are_copied():
    model = sequential()
    model.add_adapter("mine", r=2)
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    other = copy.deepcopy(model)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    assert [v.path for v in other.trainable_weights] == [v.path for v in model.trainable_weights]
    whole = sequential()
    whole.quantize("int8")
    np.testing.assert_array_equal(whole.predict(X), copy.deepcopy(whole).predict(X))


@pytest.mark.parametrize("copied", COPIES)
def test_a_layer_has_weights_of_its_own(copied):
    model = functional()
    layer = model.get_layer("shared")
    other = copied(layer)
    assert other.name == "shared" and other.built and other.inbound_nodes == []
    np.testing.assert_array_equal(other(X), layer(X))
    other.set_weights([w + 1 for w in other.get_weights()])
    assert not np.array_equal(other(X), layer(X))
    assert other(Input((4,))).shape == (None, 4)


@pytest.mark.parametrize("copied", COPIES)
def test_an_optimizer_is_as_new(copied):
    model = functional()
    model.compile(optimizers.Adam(0.25, clipnorm=1.0), "mse")
    model.fit(X, Y, verbose=0)
    other = copied(model.optimizer)
    assert other.get_config() == model.optimizer.get_config()
    assert not other.built and int(other.iterations) == 0 and int(model.optimizer.iterations) == 1


@pytest.mark.parametrize("copied", COPIES)
def test_what_there_is_one_of_stays_one(copied):
    assert all(copied(dtype) is dtype for dtype in DTYPES)
    type = TensorType.of("float32", (symbol("B"), 3))
    assert copied(type) is type and copied(type.shape[0]) == type.shape[0]
    tensor = Input((3,))
    assert copied(tensor) is tensor
    assert copied(Spec((None, 3), "int32")).dtype is Spec((None, 3), "int32").dtype


def test_pickles_are_refused_or_safe():
    model = functional()
    model.compile("adam", "mse")
    for each in (model, model.layers[1], model.weights[0], model.optimizer):
        with pytest.raises(graphc.GraphcError, match="is not pickled: save"):
            pickle.dumps(each)
    for dtype in DTYPES:
        assert pickle.loads(pickle.dumps(dtype)) is dtype
    type = TensorType.of("float32", (2, 3))
    assert pickle.loads(pickle.dumps(type)) is type


def test_functions_that_read_a_models_tensors_are_not_copied():
    x = Input((4,))
    model = Model(x, ops.cond(ops.sum(x) > 0, lambda: x + 1.0, lambda: x))
    with pytest.raises(graphc.GraphcError, match="is not copied"):
        copy.deepcopy(model)
