"""Functional models and Sequential: inputs and outputs of any structure, sharing, nesting, weights and their order."""

import numpy as np
import pytest

import graphc
from graphc import GraphcError, Input, Model, Sequential, layers, ops


def paths(model: Model) -> list[str]:
    return list(graphc.lower(model).weights)


def test_several_inputs_and_outputs() -> None:
    a, b = Input((3,), name="a"), Input((4,), name="b")
    h = layers.Dense(5, name="h")(layers.Concatenate()([a, b]))
    model = Model([a, b], [layers.Dense(2, name="first")(h), layers.Dense(1, name="second")(h)])
    assert model.input_shape == [(None, 3), (None, 4)]
    assert model.output_shape == [(None, 2), (None, 1)]
    assert model.output_names == ["first", "second"]
    x = [np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)]
    first, second = model(x)
    module = graphc.lower(model)
    assert [p.name for p in module.main.inputs] == ["a", "b"]
    assert [r.name for r in module.main.results] == ["first", "second"]
    found = graphc.interpret(module, b=x[1], a=x[0])
    np.testing.assert_allclose(found[0], first, rtol=1e-6)
    np.testing.assert_allclose(found[1], second, rtol=1e-6)
    np.testing.assert_allclose(model({"a": x[0], "b": x[1]})[0], first)


def test_dicts_of_inputs_and_outputs() -> None:
    inputs = {"y": Input((2,), name="in_y"), "x": Input((2,), name="in_x")}
    model = Model(inputs, {"sum": inputs["x"] + inputs["y"], "parts": [inputs["x"] * 2, inputs["y"]]})
    one, two = np.float32([[1, 1]]), np.float32([[2, 2]])
    found = model({"x": one, "y": two})
    np.testing.assert_array_equal(found["sum"], [[3, 3]])
    np.testing.assert_array_equal(found["parts"][0], [[2, 2]])
    module = graphc.lower(model)
    assert [p.name for p in module.main.inputs] == ["in_x", "in_y"]
    assert [r.name for r in module.main.results] == ["parts_0", "parts_1", "sum"]


def test_a_shared_layer_has_its_weights_once_and_its_calls_are_counted() -> None:
    a, b = Input((3,)), Input((3,))
    shared = layers.Dense(4, name="shared")
    model = Model([a, b], layers.add([shared(a), shared(b)]))
    assert len(model.get_weights()) == 2
    module = graphc.lower(model)
    assert list(module.weights) == ["shared/kernel", "shared/bias"]
    assert [str(op.location.scope) for op in module.main.block if op.name == "linear"] == ["shared", "shared#1"]
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(graphc.interpret(module, x, x), 2 * shared(x), rtol=1e-5)


def test_nested_models_are_layers_with_scopes_of_their_own() -> None:
    x = Input((4,))
    inner = Model(x, layers.Dense(4)(layers.Dense(3)(x)), name="inner")
    y = Input((4,))
    model = Model(y, layers.Dense(2)(inner(inner(y))))
    module = graphc.lower(model)
    assert list(module.weights) == [
        "inner/dense/kernel", "inner/dense/bias", "inner/dense_1/kernel", "inner/dense_1/bias",
        "dense/kernel", "dense/bias",
    ]  # fmt: skip
    scopes = [str(op.location.scope) for op in module.main.block if op.name == "linear"]
    assert scopes == ["inner/dense", "inner/dense_1", "inner#1/dense", "inner#1/dense_1", "dense"]
    assert model.get_layer("inner").layers[1] is model.get_layer("inner/dense")


def test_weights_are_in_the_order_keras_gives_them() -> None:
    """By greatest distance from the output, not by the order of the calls."""
    x = Input((4,))
    late = layers.Dense(3, name="made_first_used_last")
    a = layers.Dense(4, name="a")(x)
    b = layers.Dense(4, name="b")(x)
    c = layers.Dense(4, name="c")(b)
    model = Model(x, late(layers.add([a, c])))
    assert [layer.name for layer in model.layers] == ["input_layer", "b", "a", "c", "add", "made_first_used_last"]
    assert paths(model)[::2] == ["b/kernel", "a/kernel", "c/kernel", "made_first_used_last/kernel"]


def test_get_and_set_weights() -> None:
    x = Input((3,))
    model = Model(x, layers.Dense(2)(layers.BatchNormalization()(x)))
    arrays = [np.full(v.shape, i, np.float32) for i, v in enumerate(model.weights)]
    model.set_weights(arrays)
    for got, want in zip(model.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(got, want)
    assert [v.name for v in model.trainable_weights] == ["gamma", "beta", "kernel", "bias"]
    assert [v.name for v in model.non_trainable_weights] == ["moving_mean", "moving_variance"]
    model.get_weights()[0][:] = 9
    assert model.get_weights()[0][0] == 0


def test_a_frozen_layer_is_not_trainable_in_the_module() -> None:
    x = Input((3,))
    frozen = layers.Dense(3, name="frozen")
    model = Model(x, layers.Dense(2, name="head")(frozen(x)))
    frozen.trainable = False
    weights = graphc.lower(model).weights
    assert [weights.info(name).trainable for name in weights] == [False, False, True, True]
    assert [p.role for p in graphc.lower(model).main.parameters[1:]] == ["param"] * 4


def test_weights_tied_by_an_op_on_a_variable() -> None:
    tokens = Input((6,))
    embed = layers.Dense(3, use_bias=False, name="embed")
    h = layers.ReLU()(embed(tokens))
    model = Model(tokens, ops.matmul(h, ops.transpose(embed.kernel)))
    module = graphc.lower(model)
    assert list(module.weights) == ["embed/kernel"]
    x = np.eye(6, dtype=np.float32)
    kernel = embed.kernel.numpy()
    np.testing.assert_allclose(graphc.interpret(module, x), np.maximum(kernel, 0) @ kernel.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(x), np.maximum(kernel, 0) @ kernel.T, rtol=1e-5, atol=1e-6)


def test_a_weight_tied_by_assignment_is_an_alias() -> None:
    x = Input((3,))
    first, second = layers.Dense(3, name="first"), layers.Dense(3, name="second")
    out = second(first(x))
    second.kernel = first.kernel
    model = Model(x, out)
    assert len(model.weights) == 3
    module = graphc.lower(model)
    assert list(module.weights) == ["first/kernel", "first/bias", "second/bias", "second/kernel"]
    assert module.weights.info("second/kernel").alias == "first/kernel"
    first.kernel.assign(np.eye(3))
    np.testing.assert_allclose(graphc.interpret(graphc.lower(model), np.float32([[1, 2, 3]])), [[1, 2, 3]])


def test_operators_and_ops_on_symbolic_tensors() -> None:
    x = Input((4, 6))
    y = (1 - x) / 2 + x**2 - abs(-x) % 3
    z = ops.concatenate([y[:, 0], ops.mean(y, axis=1), y[:, -1, ::2]], axis=-1)
    assert z.shape == (None, 15) and z.dtype == "float32" and z.ndim == 2
    assert repr(z) == "<SymbolicTensor concatenate, shape=(None, 15), dtype=float32>"
    model = Model(x, z)
    array = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    want = (1 - array) / 2 + array**2 - np.abs(-array) % 3
    want = np.concatenate([want[:, 0], want.mean(1), want[:, -1, ::2]], -1)
    np.testing.assert_allclose(model(array), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(graphc.interpret(graphc.lower(model), array), want, rtol=1e-5, atol=1e-5)


def test_numpy_functions_on_symbolic_tensors() -> None:
    x = Input((3,))
    model = Model(x, np.concatenate([np.tanh(x), np.ones(3, np.float32) * x], axis=-1))
    array = np.float32([[1, 2, 3]])
    np.testing.assert_allclose(model(array), np.concatenate([np.tanh(array), array], -1), rtol=1e-6)


def test_named_and_open_sizes() -> None:
    x, y = Input(("S", 4), name="x"), Input((None, 4), name="y")
    assert str(x.shape) == "(None, S, 4)" and y.shape == (None, None, 4)
    model = Model([x, y], layers.Concatenate(axis=1)([x, y]))
    module = graphc.lower(model)
    assert [str(p.type) for p in module.main.inputs] == ["f32[B, S, 4]", "f32[B, N, 4]"]
    assert str(module.main.result_types[0]) == "f32[B, S + N, 4]" or "N + S" in str(module.main.result_types[0])


def test_open_sizes_calculate_and_are_bound_where_the_model_runs() -> None:
    x = Input((None, 4))
    batch, length, width = ops.shape(x)
    model = Model(x, ops.reshape(x, (batch, length * width)))
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(model(array), array.reshape(2, 12))
    np.testing.assert_array_equal(graphc.interpret(graphc.lower(model), array), array.reshape(2, 12))
    y = Input((3, 4))
    assert Model(y, model(y)).output_shape == (None, 12)


def test_branches_and_loops_on_symbolic_tensors() -> None:
    x = Input((3,), batch_size=1)
    dense = layers.Dense(3, name="inside")
    y = ops.cond(ops.sum(x) > 0, lambda: dense(x), lambda: x * 2)
    z = ops.while_loop(lambda v: ops.max(v) < 100, lambda v: (v * 2,), (y,))[0]
    model = Model(x, z)
    module = graphc.lower(model)
    module.verify()
    array = np.float32([[-1, -2, 1]])
    want = array * 2
    while want.max() < 100:
        want = want * 2
    np.testing.assert_allclose(graphc.interpret(module, array), want)


def test_sequential_with_and_without_an_input() -> None:
    early = Sequential([Input((3,)), layers.Dense(2), layers.ReLU()])
    assert early.built and early.output_shape == (None, 2) and len(early.layers) == 2
    late = Sequential([layers.Dense(2), layers.ReLU()])
    assert not late.built and late.weights == []
    x = np.ones((5, 3), np.float32)
    assert late(x).shape == (5, 2)
    assert late.built and late.output_shape == (None, 2)
    late.add(layers.Dense(4))
    assert late(x).shape == (5, 4)
    assert late.pop().units == 4
    assert late(x).shape == (5, 2)
    assert paths(late) == ["dense/kernel", "dense/bias"]
    built = Sequential([layers.Dense(2)])
    built.build((None, 7))
    assert built.weights[0].shape == (7, 2)


def test_models_inside_models_made_by_sequential() -> None:
    tower = Sequential([layers.Dense(4), layers.BatchNormalization()], name="tower")
    x = Input((3,))
    model = Model(x, tower(x))
    assert paths(model)[0] == "tower/dense/kernel"
    assert model.get_layer("tower").built


def test_count_params() -> None:
    x = Input((3,))
    assert Model(x, layers.Dense(2)(layers.BatchNormalization()(x))).count_params() == 12 + 8


def test_from_config_rebuilds_the_graph() -> None:
    x = Input((8, 8, 3))
    y = layers.Conv2D(4, 3, kernel_regularizer="l2", kernel_initializer="he_normal")(x)
    z = layers.Dense(2)(ops.mean(y * 2 + 1, axis=(1, 2)))
    model = Model(x, [z, layers.Flatten()(y)])
    copy = Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    array = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    for got, want in zip(copy(array), model(array), strict=True):
        np.testing.assert_array_equal(got, want)
    assert str(graphc.lower(copy)) == str(graphc.lower(model))
    assert '"class_name": "Functional"' in model.to_json()


def test_get_layer_errors_name_what_there_is() -> None:
    x = Input((3,))
    model = Model(x, layers.Dense(2, name="head")(x))
    with pytest.raises(GraphcError, match=r"no layer 'heda'; it has input_layer, head"):
        model.get_layer("heda")


def test_lowering_for_training_returns_new_states() -> None:
    x = Input((3,))
    model = Model(x, layers.BatchNormalization(name="bn", momentum=0.5)(x))
    function = graphc.lower(model, training=True).main
    updates = [None if r.updates is None else r.updates.weight for r in function.results]
    assert updates == [None, "bn/moving_mean", "bn/moving_variance"]
    _, mean, variance = graphc.interpret(graphc.lower(model, training=True), np.float32([[1, 1, 1], [3, 3, 3]]))
    np.testing.assert_allclose(mean, [1, 1, 1])
    np.testing.assert_allclose(variance, [1, 1, 1])


def test_sizes_of_inputs_are_shapes_and_numbers() -> None:
    x = Input((3,))
    tiled = ops.broadcast_to(np.float32([[1, 2, 3]]), ops.shape(x))
    model = Model(x, x * ops.shape(x)[0] - tiled)
    a = np.ones((4, 3), np.float32)
    want = np.tile(np.float32([3, 2, 1]), (4, 1))
    np.testing.assert_array_equal(graphc.interpret(graphc.lower(model), a), want)
    np.testing.assert_array_equal(model(a), want)


def test_a_sequential_takes_its_input_from_a_functional_model() -> None:
    x = Input((3,))
    model = Sequential([Model(x, layers.Dense(2)(x)), layers.Dense(1)])
    assert model.built and model.input_shape == (None, 3) and model.output_shape == (None, 1)
    assert [w.shape for w in model.weights] == [(3, 2), (2,), (2, 1), (1,)]


def test_a_graph_sees_the_dtypes_of_its_inputs() -> None:
    """Not the dtype of the model's policy, which is for the layers and models that have a `call` of their own."""
    x = Input((4,), dtype="bfloat16")
    model = Model(x, ops.softmax(x * x))
    module = graphc.lower(model)
    assert [op.name for op in module.main.block] == ["mul", "softmax", "return"]
    assert module.main.block.terminator.operands[0].dtype is model.output.dtype
    assert model(np.ones((2, 4), np.float32)).dtype == "bfloat16"


def test_a_model_called_in_another_casts_to_the_dtypes_of_its_inputs() -> None:
    x = Input((4,), dtype="bfloat16")
    inner = Model(x, x * x, name="inner")
    y = Input((4,), dtype="float16")
    model = Model(y, inner(y))
    module = graphc.lower(model)
    assert model.output.dtype == module.main.block.terminator.operands[0].dtype == "bfloat16"
    assert [op.name for op in module.main.block] == ["convert", "mul", "return"]
    assert model(np.ones((2, 4), np.float16)).dtype == "bfloat16"


def test_classes_are_also_where_keras_has_them() -> None:
    assert isinstance(Input((3,)), graphc.KerasTensor)
    assert graphc.models.Model is Model and graphc.models.Sequential is Sequential
    assert graphc.models.load_model is graphc.saving.load_model
    layer = layers.Dense(2, kernel_regularizer="l2", dtype=graphc.DTypePolicy("float16"))
    layer.build((None, 3))
    assert isinstance(layer.kernel, graphc.Variable) and layer.kernel.dtype == "float16"
    assert isinstance(layer.kernel_initializer, graphc.Initializer)
    assert isinstance(layer.kernel_regularizer, graphc.Regularizer)
    assert isinstance(layer.input_spec, graphc.InputSpec)
