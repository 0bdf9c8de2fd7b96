"""Initial values: distributions, determinism, names and configs; regularizers."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import initializers, layers, regularizers


@pytest.mark.parametrize(
    ("initializer", "limit", "deviation"),
    [
        ("glorot_uniform", np.sqrt(6 / 300), np.sqrt(2 / 300)),
        ("glorot_normal", 2 * np.sqrt(2 / 300) / 0.8796, np.sqrt(2 / 300)),
        ("he_uniform", np.sqrt(6 / 100), np.sqrt(2 / 100)),
        ("he_normal", 2 * np.sqrt(2 / 100) / 0.8796, np.sqrt(2 / 100)),
        ("lecun_uniform", np.sqrt(3 / 100), np.sqrt(1 / 100)),
        ("lecun_normal", 2 * np.sqrt(1 / 100) / 0.8796, np.sqrt(1 / 100)),
        ("random_uniform", 0.05, 0.1 / np.sqrt(12)),
        ("truncated_normal", 0.1, 0.05 * 0.8796),
        ("random_normal", 1.0, 0.05),
    ],
)
def test_distributions(initializer: str, limit: float, deviation: float) -> None:
    values = initializers.get(initializer)((100, 200), dtype="float32")
    assert values.dtype == np.float32
    assert np.abs(values).max() <= limit * 1.0001
    assert abs(values.std() / deviation - 1) < 0.03
    assert abs(values.mean()) < 0.1 * deviation


def test_fans_of_a_convolution_kernel() -> None:
    assert initializers.fans((3, 3, 16, 32)) == (144, 288)


def test_constants_identity_and_orthogonal() -> None:
    assert initializers.get("zeros")((2,)).tolist() == [0, 0]
    assert initializers.Constant(3)((2,), "int32").tolist() == [3, 3]
    np.testing.assert_array_equal(initializers.Identity(2.0)((2, 3)), [[2, 0, 0], [0, 2, 0]])
    q = initializers.Orthogonal(seed=1)((6, 4))
    np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-6)


def test_the_same_seed_gives_the_same_weights() -> None:
    def kernel() -> Any:
        layer = layers.Dense(3)
        layer.build((None, 4))
        return layer.get_weights()[0]

    first, second = kernel(), kernel()
    assert not np.array_equal(first, second)
    graphc.utils.clear_session()
    np.testing.assert_array_equal(kernel(), first)
    graphc.utils.set_random_seed(7)
    seventh = kernel()
    assert not np.array_equal(seventh, first)
    graphc.utils.set_random_seed(7)
    np.testing.assert_array_equal(kernel(), seventh)
    seeded = initializers.HeNormal(seed=3)
    np.testing.assert_array_equal(seeded((2, 2)), initializers.HeNormal(seed=3)((2, 2)))


@pytest.mark.parametrize(
    "initializer",
    [initializers.Constant(2.0), initializers.RandomNormal(1.0, 2.0, seed=4), initializers.HeUniform(seed=1),
     initializers.VarianceScaling(2.0, "fan_out", "uniform", seed=3), initializers.Orthogonal(2.0, seed=5)],
)  # fmt: skip
def test_configs(initializer: Any) -> None:
    copy = initializers.get(initializers.serialize(initializer))
    np.testing.assert_array_equal(copy((3, 4)), initializer((3, 4)))


def test_functions_and_arrays_as_initializers() -> None:
    layer = layers.Dense(2, kernel_initializer=lambda shape, dtype: np.full(shape, 5), use_bias=False)
    layer.build((None, 2))
    assert layer.get_weights()[0].tolist() == [[5, 5], [5, 5]]


def test_regularizers() -> None:
    x = np.float32([[1, -2]])
    assert regularizers.get("l2")(x) == pytest.approx(0.05)
    assert regularizers.L1(0.1)(x) == pytest.approx(0.3)
    assert regularizers.L1L2(0.1, 0.2)(x) == pytest.approx(1.3)
    assert regularizers.OrthogonalRegularizer(1.0)(np.eye(2, dtype=np.float32)) == pytest.approx(0)
    layer = layers.Dense(2, kernel_regularizer=regularizers.L2(0.3))
    layer.build((None, 3))
    assert layer.kernel.regularizer.l2 == 0.3
    assert layers.Dense.from_config(layer.get_config()).kernel_regularizer.l2 == 0.3
