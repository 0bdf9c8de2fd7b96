"""Ranges of activations from calibration data: each method, and data that are refused."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Input, Model, layers
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.runtime.quantization.calibration import BINS, Histogram, by_entropy, by_error, by_percentile


def convolutional() -> Model:
    graphc.utils.set_random_seed(0)
    image = Input((8, 8, 4), name="image")
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(8, 3, use_bias=False, name="conv")(image))
    x = layers.MaxPooling2D(2, name="pool")(layers.ReLU()(x))
    return Model(image, layers.Dense(10, name="out")(layers.Flatten()(x)))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 8, 8, 4)).astype(np.float32)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_calibration(method: Any) -> None:
    x = images(64)
    module = graphc.quantize(convolutional(), "int8", data=x, method=method)
    plain = graphc.interpret(graphc.lower(convolutional()), x)
    error = graphc.interpret(module, x) - plain
    assert np.sqrt(np.mean(error**2)) < 0.05 * plain.std()


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_nearly_equal(method: Any, dtype: str) -> None:
    """Between 1 and the next number there is no room for bins."""
    x = np.ones((8, 4), dtype)
    x[0] = np.nextafter(x[0], 2, dtype=dtype)
    inputs = Input((4,), dtype=dtype)
    model = Model(inputs, layers.Dense(3, dtype=dtype)(inputs))
    module = graphc.quantize(model, "int8", data=x, method=method)
    plain = graphc.interpret(graphc.lower(model), x)
    np.testing.assert_allclose(graphc.interpret(module, x), plain, atol=0.02)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
@pytest.mark.parametrize("options", [{"data": np.ones((4, 4), "f4")}, {"activations": "dynamic"}])
def test_activations_of_other_floats_are_not_left_out_without_a_word(policy: str, options: Any) -> None:
    inputs = Input((4,))
    model = Model(inputs, layers.Dense(3, dtype=policy)(inputs))
    with pytest.raises(UnsupportedError, match="no product or convolution reads float32 beside a kernel of int8"):
        graphc.quantize(model, "int8", **options)


def histogram(values: np.ndarray) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, np.histogram(values, BINS, (low, high))[0])


def test_ranges_leave_out_what_is_rare() -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    values[0] = 60
    found = histogram(values)
    for find in (lambda h: by_percentile(h, 99.9), by_entropy):
        low, high = find(found)
        assert -6 < low < -2
        assert 2 < high < 40
    tails = np.random.default_rng(0).standard_t(3, 100_000)
    low, high = by_error(histogram(tails))
    assert 6 < high - low < tails.max() - tails.min()
    assert by_percentile(found, 100) == pytest.approx((found.low, 60))
    even = histogram(np.random.default_rng(0).uniform(0, 1, 100_000))
    assert by_error(even)[1] > 0.97
    assert by_entropy(even)[1] > 0.9


def test_ranges_can_be_given() -> None:
    module = graphc.quantize(convolutional(), "int8", ranges={"image": (-4, 4)}, exclude="norm*")
    assert sum(op.name == "quantize" for op in module.walk()) == 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (images(0), "calibration data is empty"),
        ([], "calibration data is empty"),
        (np.where(np.arange(4 * 256).reshape(4, 8, 8, 4) == 300, np.nan, images(4)), "1 of 1024 elements of 'image'"),
        (images(4)[:, :7], "image"),
        ([images(2), images(2)[..., :3]], "batch 1 of the calibration data"),
        ({"picture": images(4)}, "picture"),
        (["a"], "not str"),
        ({"image": images(4), "other": images(3)}, "as many each"),
    ],
)
def test_bad_calibration_data_is_told(data: Any, problem: str) -> None:
    with pytest.raises(GraphcError, match=problem):
        graphc.quantize(convolutional(), "int8", data=data)
