"""Shapes and weights of the layers, as Keras 3 has them, and what they compute."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, activations, layers

FACTS: list[tuple[Any, tuple[int, ...], tuple[int | None, ...], list[tuple[str, tuple[int, ...]]]]] = [
    (layers.Dense(5), (4,), (None, 5), [("kernel", (4, 5)), ("bias", (5,))]),
    (layers.Dense(5, use_bias=False), (3, 4), (None, 3, 5), [("kernel", (4, 5))]),
    (layers.Conv1D(6, 3), (9, 4), (None, 7, 6), [("kernel", (3, 4, 6)), ("bias", (6,))]),
    (layers.Conv1D(6, 3, padding="causal"), (9, 4), (None, 9, 6), [("kernel", (3, 4, 6)), ("bias", (6,))]),
    (layers.Conv2D(6, (3, 2), 2), (9, 8, 4), (None, 4, 4, 6), [("kernel", (3, 2, 4, 6)), ("bias", (6,))]),
    (layers.Conv2D(6, 3, 2, "same", groups=2), (9, 8, 4), (None, 5, 4, 6), [("kernel", (3, 3, 2, 6)), ("bias", (6,))]),
    (layers.Conv3D(2, 2), (4, 5, 6, 3), (None, 3, 4, 5, 2), [("kernel", (2, 2, 2, 3, 2)), ("bias", (2,))]),
    (
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        (9, 8, 4),
        (None, 7, 6, 8),
        [("kernel", (3, 3, 4, 2)), ("bias", (8,))],
    ),
    (layers.MaxPooling1D(), (9, 4), (None, 4, 4), []),
    (layers.MaxPooling2D(), (9, 8, 4), (None, 4, 4, 4), []),
    (layers.MaxPooling2D(3, 1, padding="same"), (9, 8, 4), (None, 9, 8, 4), []),
    (layers.MaxPooling3D(), (4, 5, 6, 3), (None, 2, 2, 3, 3), []),
    (layers.AveragePooling1D(2), (9, 4), (None, 4, 4), []),
    (layers.AveragePooling2D(2, padding="same"), (9, 8, 4), (None, 5, 4, 4), []),
    (layers.AveragePooling3D(2), (4, 5, 6, 3), (None, 2, 2, 3, 3), []),
    (layers.GlobalMaxPooling1D(), (9, 4), (None, 4), []),
    (layers.GlobalAveragePooling2D(keepdims=True), (9, 8, 4), (None, 1, 1, 4), []),
    (layers.GlobalAveragePooling3D(), (4, 5, 6, 3), (None, 3), []),
    (
        layers.BatchNormalization(),
        (5, 4),
        (None, 5, 4),
        [("gamma", (4,)), ("beta", (4,)), ("moving_mean", (4,)), ("moving_variance", (4,))],
    ),
    (layers.LayerNormalization(), (5, 4), (None, 5, 4), [("gamma", (4,)), ("beta", (4,))]),
    (layers.LayerNormalization(axis=[1, 2], center=False), (5, 4), (None, 5, 4), [("gamma", (5, 4))]),
    (layers.GroupNormalization(2), (5, 4), (None, 5, 4), [("gamma", (4,)), ("beta", (4,))]),
    (layers.RMSNormalization(), (5, 4), (None, 5, 4), [("scale", (4,))]),
    (layers.PReLU(shared_axes=[1]), (5, 4), (None, 5, 4), [("alpha", (1, 4))]),
    (layers.Dropout(0.5), (5, 4), (None, 5, 4), []),
    (layers.Dropout(0.5, noise_shape=(None, 1, 4), seed=3), (5, 4), (None, 5, 4), []),
    (layers.GaussianNoise(0.5), (5, 4), (None, 5, 4), []),
    (layers.GaussianDropout(0.5), (5, 4), (None, 5, 4), []),
    (
        layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d"),
        (5, 4),
        (None, 5, 6),
        [("kernel", (4, 6)), ("bias", (6,))],
    ),
    (layers.EinsumDense("...x,xy->...y", 6), (5, 4), (None, 5, 6), [("kernel", (4, 6))]),
    (layers.Flatten(), (5, 4), (None, 20), []),
    (layers.Reshape((2, -1)), (5, 4), (None, 2, 10), []),
    (layers.Permute((2, 1)), (5, 4), (None, 4, 5), []),
    (layers.ZeroPadding1D((1, 2)), (5, 4), (None, 8, 4), []),
    (layers.ZeroPadding2D(((1, 2), (0, 3))), (5, 4, 3), (None, 8, 7, 3), []),
    (layers.ZeroPadding3D(1), (5, 4, 3, 2), (None, 7, 6, 5, 2), []),
]


@pytest.mark.parametrize(("layer", "shape", "output", "weights"), FACTS, ids=lambda value: getattr(value, "name", ""))
def test_shapes_weights_and_config(
    layer: Any, shape: tuple[int, ...], output: tuple[int | None, ...], weights: list[tuple[str, tuple[int, ...]]]
) -> None:
    layer = type(layer).from_config(layer.get_config())
    x = Input(shape)
    model = Model(x, layer(x))
    assert model.output_shape == output
    assert layer.compute_output_shape((None, *shape)) == output
    assert [(v.name, v.shape) for v in layer.weights] == weights
    array = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    eager = model(array)
    assert eager.dtype == np.float32 and eager.shape == (3, *output[1:])
    np.testing.assert_allclose(graphc.interpret(graphc.lower(model), array), eager, rtol=1e-5, atol=1e-6)


def test_dense_computes() -> None:
    layer = layers.Dense(2, activation="relu")
    x = np.float32([[1, 2, 3]])
    layer.build((None, 3))
    layer.set_weights([np.float32([[1, -1], [1, -1], [1, -1]]), np.float32([0.5, 0.5])])
    np.testing.assert_array_equal(layer(x), [[6.5, 0]])


def test_depthwise_convolution_keeps_channels_apart() -> None:
    layer = layers.DepthwiseConv2D(1, depth_multiplier=2, use_bias=False)
    x = np.float32([1, 10]).reshape(1, 1, 1, 2)
    layer.build(x.shape)
    layer.set_weights([np.float32([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)])
    np.testing.assert_array_equal(layer(x).ravel(), [1, 2, 30, 40])


def test_causal_convolution_sees_only_the_past() -> None:
    layer = layers.Conv1D(1, 2, padding="causal", use_bias=False, kernel_initializer="ones")
    np.testing.assert_array_equal(layer(np.float32([[[1], [2], [3]]])).ravel(), [1, 3, 5])


def test_channels_first_is_the_same_convolution() -> None:
    last = layers.Conv2D(3, 3, strides=2, padding="same")
    first = layers.Conv2D(3, 3, strides=2, padding="same", data_format="channels_first")
    x = np.random.default_rng(1).normal(size=(2, 7, 6, 4)).astype(np.float32)
    last(x)
    first.build((None, 4, 7, 6))
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(first(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1), last(x), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Add(), [[5, 7]]),
        (layers.Subtract(), [[-3, -3]]),
        (layers.Multiply(), [[4, 10]]),
        (layers.Average(), [[2.5, 3.5]]),
        (layers.Maximum(), [[4, 5]]),
        (layers.Minimum(), [[1, 2]]),
        (layers.Concatenate(), [[1, 2, 4, 5]]),
        (layers.Dot(1), [[14]]),
    ],
)
def test_merging(layer: Any, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(layer([np.float32([[1, 2]]), np.float32([[4, 5]])]), expected)


def test_functional_merging() -> None:
    x, y = Input((3,)), Input((3,))
    both = layers.concatenate([layers.add([x, y]), layers.multiply([x, y])])
    found = Model([x, y], both)([np.float32([[1, 2, 3]]), np.float32([[2, 2, 2]])])
    np.testing.assert_array_equal(found, [[3, 4, 5, 2, 4, 6]])


def test_relu_layer_with_all_its_arguments() -> None:
    layer = layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=1.0)
    np.testing.assert_allclose(layer(np.float32([[-1, 0.5, 1, 5]])), [[-0.2, -0.05, 1, 2]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scale": 1 / 255}, [[0.0, 0.2, 1.0]]),
        ({"scale": 1 / 127.5, "offset": -1}, [[-1.0, -0.6, 1.0]]),
        ({"scale": [1, 2, 3], "offset": np.float32([1, 0, -5])}, [[1.0, 102.0, 760.0]]),
    ],
)
def test_rescaling(options: dict[str, Any], expected: list[list[float]]) -> None:
    x = np.uint8([[0, 51, 255]])
    layer = layers.Rescaling(**options)
    assert layer(x).dtype == np.float32 and layers.Rescaling(2, dtype="float64")(x).dtype == np.float64
    np.testing.assert_allclose(layer(x), expected, rtol=1e-6, atol=1e-7)
    model = Sequential([Input((3,), dtype="uint8"), layer])
    again = Sequential.from_config(model.get_config())
    np.testing.assert_array_equal(again(x), layer(x))
    np.testing.assert_allclose(graphc.compile(model, target="numpy")(x), expected, rtol=1e-6, atol=1e-7)


def test_rescaling_takes_numbers() -> None:
    with pytest.raises(graphc.GraphcError, match="Rescaling: scale is a number or has numbers, not 'big'"):
        layers.Rescaling("big")


@pytest.mark.parametrize("name", ["relu", "gelu", "swish", "softmax", "mish", "hard_sigmoid", "selu"])
def test_activations_by_name(name: str) -> None:
    x = np.linspace(-3, 3, 7, dtype=np.float32)[None]
    np.testing.assert_array_equal(layers.Activation(name)(x), activations.get(name)(x))
    assert activations.get(activations.serialize(activations.get(name))) is activations.get(name)


def test_gelu_is_exact_in_activations() -> None:
    np.testing.assert_allclose(activations.gelu(np.float32(1.0)), 0.8413447, rtol=1e-6)


def test_batch_normalization_in_training_updates_its_averages() -> None:
    layer = layers.BatchNormalization(momentum=0.5)
    x = np.float32([[1.0], [3.0]])
    y = layer(x, training=True)
    np.testing.assert_allclose(y, np.array([[-1], [1]]) / np.sqrt(1 + layer.epsilon), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_mean.numpy(), [1.0])
    np.testing.assert_allclose(layer.moving_variance.numpy(), [1.0])


def test_floats_are_brought_to_the_dtype_of_the_layer() -> None:
    assert layers.Dense(2)(np.ones((1, 3))).dtype == np.float32
    assert layers.Dense(2, dtype="float64")(np.ones((1, 3), np.float32)).dtype == np.float64
    assert layers.Dense(2, dtype="float64").dtype == "float64"


def test_automatic_names_are_kerass() -> None:
    assert [layers.Dense(1).name, layers.Dense(1).name, layers.BatchNormalization().name] == [
        "dense",
        "dense_1",
        "batch_normalization",
    ]
    assert layers.MaxPooling2D().name == "max_pooling2d"
    assert layers.ReLU().name == "re_lu"
    assert layers.Conv2D(1, 1, name="mine").name == "mine"
