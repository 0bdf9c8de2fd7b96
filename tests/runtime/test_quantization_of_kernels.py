"""Kernels of heads and of depthwise convolutions, whose outputs lie along several axes: each output is a channel."""

from typing import Any

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, layers, losses, quantizers
from graphc.ir.formats import parse_format
from graphc.passes import run_passes
from graphc.passes.quantization.sizes import stored_sizes

TARGETS = ["numpy", "torch", "onnx", "jax"]
QUICK = ["numpy", "torch", "onnx", pytest.param("jax", marks=pytest.mark.slow)]
"""Where JAX takes long to compile."""
HEADS = ("query", "key", "value")


def attention(seed: int = 0) -> Model:
    """One layer of attention, whose heads differ in size as those of trained models do."""
    graphc.utils.set_random_seed(seed)
    x = Input((6, 24), name="x")
    model = Model(x, layers.MultiHeadAttention(4, 8, output_shape=20, name="att")(x, x))
    for name in HEADS:
        kernel = next(v for v in model.weights if v.path.endswith(f"{name}/kernel"))
        kernel.assign(kernel.numpy() * np.float32([0.1, 1, 3, 10])[:, None])
    return model


def depthwise() -> Model:
    """Depthwise convolutions with and without a multiplier, a pointwise one behind them, and a product."""
    graphc.utils.set_random_seed(0)
    image = Input((8, 8, 4), name="image")
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(6, 1, activation="relu", name="point")(x)
    x = layers.DepthwiseConv2D(3, strides=2, activation="relu", name="again")(x)
    return Model(image, layers.Dense(3, name="out")(layers.Flatten()(x)), name="separable")


def drawn(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def kernel_of(model: Model, name: str) -> Any:
    return next(v for v in model.weights if v.path.endswith(f"{name}/kernel"))


# --- heads ------------------------------------------------------------------------------------------------------------

WAYS: dict[str, Any] = {
    "bare pass": lambda model, x, text: run_passes(graphc.lower(model), f"quantize{{format={text}}}"),
    "quantize": lambda model, x, text: graphc.quantize(model, text),
    "gptq": lambda model, x, text: graphc.quantize(model, text, method="gptq", data=x),
    "awq": lambda model, x, text: graphc.quantize(model, text, method="awq", data=x),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", ["int8", "int4{block=16}"])
def test_every_head_has_scales_of_its_own(way: str, text: str) -> None:
    model, x = attention(), drawn(32, 6, 24)
    module = WAYS[way](model, x, text)
    blocks = () if text == "int8" else (2,)
    for name in HEADS:
        assert module.weights[f"att/{name}/kernel_scales"].shape == (32, *blocks), name  # heads × places
    assert module.weights["att/attention_output/kernel_scales"].shape == (20, *blocks)  # inputs: heads × places
    executable = graphc.compile(module, target="numpy")
    for name in HEADS:
        kernel = kernel_of(model, name).numpy()
        found = executable.weights[f"att/{name}/kernel"]
        assert found.shape == kernel.shape  # the source's layout
        form, matrix = parse_format(text), kernel.reshape(24, 32)
        if way in ("bare pass", "quantize"):
            wanted = form.dequantize(*form.quantize(matrix), shape=matrix.shape).reshape(kernel.shape)
            np.testing.assert_array_equal(found, wanted.astype(np.float32))
        of_places = form.dequantize(*form.quantize(kernel), shape=kernel.shape)  # a scale for a place of all heads
        off, before = np.abs(found - kernel), np.abs(of_places - kernel)
        assert off[:, 0].mean() < 0.5 * before[:, 0].mean()  # the head of small weights
        if way != "awq" or name != "value":
            assert np.square(off).sum() < np.square(before).sum()


@pytest.mark.parametrize(
    ("mode", "target"),
    [
        *((mode, target) for mode in ("int8", "int4{block=16}") for target in QUICK[:3]),
        *(("gptq", target) for target in TARGETS),
        ("int4", "numpy"),
        ("awq", "numpy"),
        pytest.param("int8", "jax", marks=pytest.mark.slow),
    ],
)
def test_models_with_heads_in_place(mode: str, target: str, tmp_path: Any) -> None:
    needs(target)
    model, x = attention(), drawn(8, 6, 24)
    wanted = graphc.compile(model, target="numpy")(x)
    config = {"gptq": quantizers.GPTQConfig, "awq": quantizers.AWQConfig}.get(mode)
    model.quantize(mode, config=None if config is None else config(drawn(40, 6, 24), group_size=16))
    module = graphc.lower(model)
    for name in HEADS:
        assert module.weights[f"att/{name}/kernel_scales"].shape[0] == 32
        assert kernel_of(model, name).shape == (24, 4, 8)
    found = graphc.compile(model, target=target)(x)
    share = 0.02 if mode == "int8" else 0.2
    assert np.abs(found - wanted).mean() < share * np.abs(wanted).mean()
    np.testing.assert_allclose(found, graphc.interpret(module, x), rtol=1e-3, atol=0.02 if mode == "int8" else 1e-3)
    model.save(tmp_path / "heads.graphc")
    again = graphc.models.load_model(tmp_path / "heads.graphc")
    for name in HEADS:
        assert kernel_of(again, name).storage.shape == (24, 32)
    np.testing.assert_array_equal(graphc.compile(again, target="numpy")(x), graphc.compile(model, target="numpy")(x))
    kernel_of(model, "query").assign(np.ones((24, 4, 8), np.float32))  # rounded to nearest
    np.testing.assert_allclose(kernel_of(model, "query").numpy(), 1, rtol=1e-2)


def test_products_of_heads_read_integers() -> None:
    """As Keras's EinsumDense does in int8."""
    model = attention()
    model.quantize("int8")
    module = run_passes(graphc.lower(model), "canonicalize")
    assert [op.name for op in module.main.block].count("integer_linear") == 4


@pytest.mark.parametrize("text", ["int8", "int4{block=16}"])
def test_heads_trained_with_rounding(text: str, tmp_path: Any) -> None:
    model, x = attention(), drawn(16, 6, 24)
    model.compile("adam", "mse")
    model.quantize_aware(text, activations=x)
    model.fit(x, drawn(16, 6, 20), verbose=0)
    wanted = graphc.compile(model, target="numpy")(x)
    model.save(tmp_path / "aware.graphc")
    again = graphc.models.load_model(tmp_path / "aware.graphc")
    for each in (model, again):
        each.quantize("trained")
        assert graphc.lower(each).weights["att/query/kernel_scales"].shape[0] == 32
        np.testing.assert_array_equal(graphc.compile(each, target="numpy")(x), wanted)


@pytest.mark.parametrize("target", QUICK)
def test_adapters_over_heads_of_integers(target: str) -> None:
    needs(target)
    model, x = attention(), drawn(8, 6, 24)
    model.quantize("int4")
    model.add_adapter("task", r=2, targets="*query,*value")
    model.compile("adam", "mse", target=target)
    y = drawn(8, 6, 20)
    assert model.fit(x, y, epochs=3, verbose=0).history["loss"][-1] < model.evaluate(x, y, verbose=0) * 2
    module = graphc.lower(model)
    np.testing.assert_allclose(
        graphc.compile(model, target=target)(x), graphc.interpret(module, x), rtol=1e-4, atol=1e-4
    )
    model.merge_adapter(lossy=True)
    assert kernel_of(model, "query").storage.shape == (24, 32)


def test_plans_count_the_scales_of_heads() -> None:
    model, x = attention(), drawn(8, 6, 24)
    plan = graphc.quantization_plan(model, x, 5.5, formats=("int3", "int4"), loss="mse")
    module = graphc.quantize(model, plan.formats, method="gptq", data=x)
    assert plan.bytes == sum(size.bytes for size in stored_sizes(module) if "kernel" in size.name)


def test_a_regularizer_reads_the_kernel_as_it_is() -> None:
    graphc.utils.set_random_seed(0)
    x = Input((6, 24))
    model = Model(x, layers.MultiHeadAttention(4, 8, kernel_regularizer="l2", name="att")(x, x))
    model.quantize("int8", filters="query")
    model.compile("adam", "mse")
    data = drawn(8, 6, 24)
    kept = kernel_of(model, "query").numpy()
    model.fit(data, data, verbose=0)
    np.testing.assert_array_equal(kernel_of(model, "query").numpy(), kept)


# --- convolutions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", QUICK)
def test_depthwise_convolutions(target: str) -> None:
    needs(target)
    x = drawn(16, 8, 8, 4)
    wanted = graphc.compile(depthwise(), target="numpy")(x)
    scale = np.abs(wanted).mean()
    for mode in ("int8", "int4{block=16}"):
        model = depthwise()
        model.quantize(mode)
        module = graphc.lower(model)
        assert module.weights["deep/kernel_scales"].shape[0] == 8  # in · multiplier
        assert module.weights["again/kernel_scales"].shape[0] == 6
        found = graphc.compile(model, target=target)(x)
        assert np.abs(found - wanted).mean() < (0.03 if mode == "int8" else 0.3) * scale
        np.testing.assert_allclose(found, graphc.interpret(module, x), rtol=1e-3, atol=0.05 * scale)
    static = graphc.quantize(depthwise(), "int8", data=x)
    assert {op.attribute_dict["groups"] for op in static.walk() if op.name == "conv"} == {1, 4, 6}
    assert "norm/gamma" not in static.weights  # folded into the depthwise kernel
    found = graphc.compile(static, target=target)(x)
    assert np.abs(found - wanted).mean() < 0.05 * scale


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_depthwise_convolutions_by_what_they_read(method: Any) -> None:
    model, x = depthwise(), drawn(32, 8, 8, 4)
    wanted = graphc.compile(model)(x)
    plain, careful = (
        np.mean(np.square(graphc.compile(graphc.quantize(model, "int3{block=16}", **options))(x) - wanted))
        for options in ({}, {"method": method, "data": x})
    )
    assert careful < plain


def test_depthwise_convolutions_trained_with_rounding() -> None:
    model, x = depthwise(), drawn(32, 8, 8, 4)
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True))
    model.quantize_aware("int8", activations=x)
    model.fit(x, np.arange(32) % 3, verbose=0)
    wanted = graphc.compile(model, target="numpy")(x)
    model.quantize("trained")
    assert graphc.lower(model).weights["deep/kernel_scales"].shape == (8,)
    np.testing.assert_array_equal(graphc.compile(model, target="numpy")(x), wanted)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("layer", "shape", "channels"),
    [
        (layers.Conv1D(6, 3, name="conv"), (8, 4), 6),
        (layers.DepthwiseConv1D(3, depth_multiplier=2, name="conv"), (8, 4), 8),
        (layers.Conv3D(6, 2, name="conv"), (4, 4, 4, 2), 6),
    ],
    ids=["Conv1D", "DepthwiseConv1D", "Conv3D"],
)
def test_convolutions_of_other_ranks(layer: Any, shape: tuple[int, ...], channels: int, target: str) -> None:
    needs(target)
    graphc.utils.set_random_seed(0)
    x = Input(shape)
    model = Model(x, type(layer).from_config(layer.get_config())(x))
    data = drawn(4, *shape)
    wanted = graphc.compile(model, target="numpy")(data)
    model.quantize("int8")
    assert graphc.lower(model).weights["conv/kernel_scales"].shape == (channels,)
    np.testing.assert_allclose(graphc.compile(model, target=target)(data), wanted, atol=0.05)
