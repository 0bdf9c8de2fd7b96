"""Layers and models of one's own: building, weights, tracking, training, subclassed models."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import GraphcError, Input, Layer, Model, layers, ops


class Scale(Layer):
    """Multiplies by a trained vector and counts its calls in training."""

    def __init__(self, start: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight(
            (input_shape[-1],), initializer=graphc.initializers.Constant(self.start), name="factor"
        )
        self.calls = self.add_weight((), "zeros", trainable=False, name="calls")

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.calls.assign_add(1.0)
        return x * self.factor


def test_unbuilt_until_the_first_call() -> None:
    layer = Scale(3.0)
    assert not layer.built and layer.weights == []
    np.testing.assert_array_equal(layer(np.float32([[1, 2]])), [[3, 6]])
    assert layer.built
    assert [v.name for v in layer.trainable_weights] == ["factor"]
    assert [v.name for v in layer.non_trainable_weights] == ["calls"]


def test_state_changes_at_once_on_arrays_and_by_a_result_in_a_module() -> None:
    x = Input((2,))
    layer = Scale(2.0, name="scale")
    model = Model(x, layer(x))
    model(np.ones((1, 2)), training=True)
    assert layer.calls.numpy() == 1
    y, calls = graphc.interpret(graphc.lower(model, training=True), np.float32([[1, 1]]))
    assert calls == 2 and layer.calls.numpy() == 1
    assert graphc.interpret(graphc.lower(model), np.float32([[1, 1]])).tolist() == y.tolist()


def test_default_config_repeats_the_arguments() -> None:
    layer = Scale(4.0, name="mine")
    config = layer.get_config()
    assert config["start"] == 4.0 and config["name"] == "mine"
    assert Scale.from_config(config).start == 4.0


def test_layers_in_lists_and_dicts_are_tracked_in_order_of_addition() -> None:
    class Stack(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.parts: list[Layer] = []
            self.last = layers.Dense(2, name="last")
            for i in range(2):
                self.parts.append(layers.Dense(2, name=f"part{i}"))
            self.named = {"a": layers.Dense(2, name="named")}

        def call(self, x: Any) -> Any:
            for part in self.parts:
                x = part(x)
            return self.last(self.named["a"](x))

    layer = Stack()
    layer(np.ones((1, 3)))
    assert [v.shape for v in layer.weights[::2]] == [(2, 2), (3, 2), (2, 2), (2, 2)]
    layer.trainable = False
    assert layer.trainable_weights == [] and not layer.parts[0].trainable
    removed = layer.parts.pop()
    assert len(layer.weights) == 6 and removed.name == "part1"


def test_sublayers_of_one_name_are_told_apart() -> None:
    class Twins(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.pair = [layers.Dense(2, name="twin"), layers.Dense(2, name="twin")]

        def call(self, x: Any) -> Any:
            return self.pair[1](self.pair[0](x))

    x = Input((2,))
    names = list(graphc.lower(Model(x, Twins()(x))).weights)
    assert names[::2] == ["twins/twin/kernel", "twins/twin_1/kernel"]


def test_build_takes_shapes_by_name() -> None:
    class Pair(Layer):
        def build(self, left_shape: Any, right_shape: Any) -> None:
            self.kernel = self.add_weight((left_shape[-1], right_shape[-1]), name="kernel")

        def call(self, left: Any, right: Any) -> Any:
            return ops.sum(ops.matmul(left, self.kernel) * right, axis=-1)

    layer = Pair()
    x, y = Input((3,)), Input((5,))
    assert layer(x, right=y).shape == (None,)
    assert layer.kernel.shape == (3, 5)


def test_training_reaches_inner_layers() -> None:
    seen: list[Any] = []

    class Inner(Layer):
        def call(self, x: Any, training: bool | None = None) -> Any:
            seen.append(training)
            return x

    class Outer(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def call(self, x: Any) -> Any:
            return self.inner(x)

    x = Input((2,))
    model = Model(x, Outer()(x))
    seen.clear()
    model(np.ones((1, 2)), training=True)
    graphc.lower(model)
    assert seen == [True, False]


def test_a_subclassed_model_is_lowered_as_it_was_called() -> None:
    class Net(Model):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.hidden = layers.Dense(units, activation="relu")
            self.out = layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.out(self.hidden(x))

    model = Net(5)
    with pytest.raises(GraphcError, match="has not seen an input yet"):
        graphc.lower(model)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    y = model(x)
    module = graphc.lower(model)
    assert str(module.main.inputs[0].type) == "f32[B, 3]"
    assert list(module.weights) == ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]
    np.testing.assert_allclose(graphc.interpret(module, x[:2]), y[:2], rtol=1e-5)
    built = Net(5)
    built.build((None, 3))
    assert str(graphc.lower(built).main) == str(module.main)


def test_a_subclassed_model_with_several_inputs() -> None:
    class Both(Model):
        def call(self, inputs: Any) -> Any:
            return {"sum": inputs["a"] + inputs["b"], "a": inputs["a"]}

    model = Both()
    model({"a": np.ones((2, 3), np.float32), "b": np.ones((2, 3), np.float32)})
    function = graphc.lower(model).main
    assert [p.name for p in function.inputs] == ["a", "b"]
    assert [r.name for r in function.results] == ["a", "sum"]


def test_a_model_subclass_with_a_functional_constructor() -> None:
    class Named(Model):
        def __init__(self, units: int, **kwargs: Any) -> None:
            x = Input((3,))
            super().__init__(x, layers.Dense(units)(x), **kwargs)
            self.units = units

    model = Named(4, name="named")
    assert model(np.ones((2, 3))).shape == (2, 4)
    assert Named.from_config(model.get_config()).units == 4


def test_forgetting_super_init_is_explained() -> None:
    class Careless(Layer):
        def __init__(self) -> None:
            self.inner = layers.Dense(2)

    with pytest.raises(GraphcError, match=r"Careless.__init__ must call super\(\).__init__\(\)"):
        Careless()(np.ones((1, 2)))


def test_variables_know_their_path() -> None:
    layer = layers.Dense(2, name="stem")
    layer.build((None, 3))
    assert [v.path for v in layer.weights] == ["stem/kernel", "stem/bias"]


def test_a_variable_of_a_layer_calculates_like_an_array() -> None:
    layer = layers.Dense(2, kernel_initializer="ones", bias_initializer="ones")
    layer.build((None, 3))
    np.testing.assert_array_equal(np.float32([[1, 2, 3]]) @ layer.kernel + layer.bias, [[7, 7]])
    np.testing.assert_array_equal(np.asarray(layer.kernel * 2), np.full((3, 2), 2))
    assert float(ops.sum(layer.kernel)) == 6
