"""`quantize`, `fold_batch_norm`, and what products with integers become."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, layers
from graphc.ir.errors import GraphcError
from graphc.ir.formats import parse_format
from graphc.ir.module import Module
from graphc.passes import find_pass, run_passes
from graphc.passes.quantization.activations import points, quantize_activations, quantize_dynamically, scale_of
from graphc.passes.quantization.matching import match_linear

RNG = np.random.default_rng(0)


def small(**dense: Any) -> Model:
    image = Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="rectified")(x)
    y = layers.Conv2D(8, 3, padding="same", name="inner")(x)
    x = layers.ReLU(name="sum")(x + y)
    x = layers.Flatten()(x)
    model = Model(image, layers.Dense(5, name="out", **dense)(x))
    for weight in model.weights:
        if "moving_variance" not in weight.path:
            weight.assign(RNG.standard_normal(weight.shape).astype(np.float32) * 0.5)
    return model


def text_model() -> Model:
    ids = Input(("T",), dtype="int32", name="ids")
    return Model(ids, layers.Dense(4, name="head")(layers.Embedding(11, 40, name="table")(ids)))


def passed(model: Any, passes: str) -> Module:
    return run_passes(graphc.lower(model), f"canonicalize,{passes}")


def names(module: Module) -> list[str]:
    return [op.name for op in module.main.block]


# --- weights --------------------------------------------------------------------------------------------------------


def test_weights_become_the_arrays_of_the_format() -> None:
    model = small()
    module = passed(model, "quantize{format=int4{block=32},targets=out}")
    kernel = next(w for w in model.weights if w.path.endswith("out/kernel")).numpy()
    found = [name for name in module.weights if name.startswith("out/")]
    assert found == ["out/kernel_values", "out/kernel_scales", "out/bias"]
    for name, array in zip(found, parse_format("int4").quantize(kernel), strict=False):
        np.testing.assert_array_equal(module.weights[name], array)
        assert not module.weights.info(name).trainable
    module.verify()
    x = RNG.standard_normal((3, 6, 6, 3)).astype(np.float32)
    rounded = graphc.lower(model)
    rounded.weights.set(
        "out/kernel", parse_format("int4").dequantize(*parse_format("int4").quantize(kernel), shape=kernel.shape)
    )
    np.testing.assert_allclose(graphc.interpret(module, x), graphc.interpret(rounded, x), rtol=1e-5, atol=1e-5)


def test_text_round_trips() -> None:
    text = str(passed(small(), "quantize{format=uint4{block=16}}"))
    assert str(graphc.parse(text)) == text
    assert 'quantize["uint4{block=16}", [128, 5], f32, 2]' in text


def test_every_kind_of_kernel_is_found_and_its_channels() -> None:
    module = passed(text_model(), "quantize{format=int8}")
    forms = {op.attribute_dict["format"] for op in module.walk() if op.name == "dequantize"}
    assert forms == {"int8", "int8{axis=0}"}
    ops = names(module)
    assert ops.index("embedding") < ops.index("dequantize")  # rows are taken, then dequantized
    ids = np.array([[0, 3, 10]], np.int32)
    plain = graphc.interpret(graphc.lower(text_model()), ids)
    assert plain.shape == graphc.interpret(module, ids).shape


def test_tied_weights_stay_tied() -> None:
    text = """graphc-ir 1

weight "table" : f32[8, 32]
weight "head" : f32[8, 32] tied "table"

func @main(%ids: i32[B] input, %table: f32[8, 32] param "table", %head: f32[8, 32] param "head") -> f32[B, 8] {
  %0 = embedding %table, %ids : f32[B, 32]
  %1 = transpose %head {permutation = [1, 0]} : f32[32, 8]
  %2 = linear %0, %1, _ : f32[B, 8]
  return %2
}
"""
    module = graphc.parse(text)
    table = RNG.standard_normal((8, 32)).astype(np.float32)
    module.weights.set("table", table)
    exe = graphc.compile(module, target="numpy", passes="quantize{format=int8}")
    assert list(exe.weights) == ["table"]
    np.testing.assert_array_equal(exe.weights["head"], exe.weights["table"])
    ids = np.array([1, 7], np.int32)
    rounded = exe.weights["table"]
    np.testing.assert_allclose(exe(ids), rounded[ids] @ rounded.T, rtol=1e-5)
    exe.weights["head"] = table * 2
    np.testing.assert_allclose(exe.weights["table"], rounded * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("targets=ot", "matches nothing; did you mean out"),
        ("targets=norm", "matches only norm/gamma"),
        ('targets="*/kernel",exclude=outt', "exclude matches nothing"),
        ("exclude=*", "no weight is left"),
        ("format=int5", "there is no format 'int5'"),
        ("formt=int8", "has no option 'formt'"),
    ],
)
def test_patterns_and_options_that_do_not_fit(options: str, problem: str) -> None:
    with pytest.raises(GraphcError, match=problem.replace("*", ".")):
        passed(small(), f"quantize{{{options}}}")


@pytest.mark.parametrize(
    ("form", "problem"),
    [("q4_0", "q4_0 has whole blocks of 32"), ("int8", "int8 cannot hold NaN or infinities: 1 of 8")],
)
def test_what_a_format_cannot_hold_is_told_with_the_weight(form: str, problem: str) -> None:
    model = Sequential([Input((4,)), layers.Dense(2, use_bias=False, name="out")])
    model.set_weights([np.array([[1, 2], [3, np.nan], [5, 6], [7, 8]], np.float32)])
    with pytest.raises(GraphcError, match=f"^{problem}.*\n  in the weight 'out/kernel'"):
        passed(model, f"quantize{{format={form}}}")


def test_quantizing_twice_is_refused_for_the_same_weight_only() -> None:
    module = passed(small(), "quantize{format=int8,targets=out},quantize{format=int4,targets=conv}")
    assert {op.attribute_dict["format"] for op in module.walk() if op.name == "dequantize"} == {"int8", "int4"}
    with pytest.raises(GraphcError, match="matches 'conv/kernel', which is quantized already, as int4"):
        run_passes(module, "quantize{format=int4}")


def test_a_weight_that_is_trained_is_refused() -> None:
    model = Sequential([Input((4,)), layers.Dense(2, name="out")])
    model.compile(optimizer="sgd", loss="mse")
    step = model.training_module(np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32))
    with pytest.raises(GraphcError, match="'out/kernel' is trained"):
        run_passes(step, "quantize")


def test_check_takes_it_for_what_it_is() -> None:
    """It changes results, and later passes are compared with what it left."""
    assert find_pass("quantize").approximate
    run_passes(graphc.lower(small()), "canonicalize,quantize{format=int4},canonicalize,fold_weights", check=True)


# --- batch normalization --------------------------------------------------------------------------------------------


def test_batch_normalization_is_folded() -> None:
    model = small()
    module = passed(model, "fold_batch_norm")
    assert "batch_norm" not in names(module)
    assert [name for name in module.weights if name.startswith("conv")] == ["conv/folded_kernel", "conv/folded_bias"]
    x = RNG.standard_normal((2, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(
        graphc.interpret(module, x), graphc.interpret(graphc.lower(model), x), rtol=1e-4, atol=1e-4
    )
    run_passes(graphc.lower(model), "fold_batch_norm", check=True)


def test_batch_normalization_that_trains_is_not_folded() -> None:
    module = run_passes(graphc.lower(small(), training=True), "fold_batch_norm")
    assert "conv/kernel" in module.weights


# --- activations ----------------------------------------------------------------------------------------------------


def test_points_are_inputs_and_results_of_integer_kernels() -> None:
    module = passed(small(), "fold_batch_norm,quantize")
    assert list(points(module.main)) == ["image", "rectified/relu", "inner/conv", "sum/relu", "flatten/reshape"]


def test_values_are_quantized_where_they_stand() -> None:
    module = passed(small(), "fold_batch_norm,quantize")
    ranges = dict.fromkeys(points(module.main), (-4.0, 4.0))
    quantize_activations(module, ranges)
    module.verify()
    assert names(module).count("quantize") == 5
    with pytest.raises(GraphcError, match="no value to quantize; did you mean image"):
        quantize_activations(passed(small(), "quantize"), {"imag": (0.0, 1.0)})
    with pytest.raises(GraphcError, match="the lower one first"):
        quantize_activations(passed(small(), "quantize"), {"image": (1.0, 0.0)})


def test_a_range_has_zero() -> None:
    for low, high in ((0.5, 2.0), (-3.0, -1.0), (-1.0, 2.0), (0.0, 0.0)):
        scale, zero = scale_of(low, high)
        assert scale > 0
        ends = (np.array([0, 255]) - float(zero)) * float(scale)
        assert ends[0] - scale / 2 <= min(low, 0)
        assert ends[1] + scale / 2 >= max(high, 0) or high == 0


def test_products_of_integers_are_matched() -> None:
    module = passed(small(), "fold_batch_norm,quantize{targets=out}")
    quantize_activations(module, {"flatten/reshape": (-4.0, 4.0)})
    match_linear(module)
    assert "integer_linear" in names(module)
    dynamic = passed(small(), "quantize")
    assert quantize_dynamically(dynamic) == 1
    dynamic.verify()
    assert names(dynamic)[-2:] == ["integer_linear", "return"]


def test_products_with_a_dequantized_kernel_are_matched_where_nothing_else_reads_it() -> None:
    for form in ("nf4", "nf4{double=256}"):
        module = passed(small(), f"quantize{{format={form},targets=out}}")
        match_linear(module)
        assert names(module)[-2:] == ["quantized_linear", "return"]


def test_transposes_are_done_to_the_integers() -> None:
    text = """graphc-ir 1

weight "w" : f32[5, 32]

func @main(%x: f32[B, 32] input, %w: f32[5, 32] param "w") -> f32[B, 5] {
  %0 = transpose %w {permutation = [1, 0]} : f32[32, 5]
  %1 = linear %x, %0, _ : f32[B, 5]
  return %1
}
"""
    for form, wanted in (("int4", (32, 5)), ("int8", (32, 5)), ("nf4", (32, 5))):
        module = graphc.parse(text)
        module.weights.set("w", RNG.standard_normal((5, 32)).astype(np.float32))
        found = run_passes(module, f"quantize{{format={form}}},fold_weights")
        op = next(op for op in found.walk() if op.name == "dequantize")
        assert op.attribute_dict["shape"] == wanted
        assert op.attribute_dict["format"] == form  # outputs are the last axis again
        assert "transpose" not in names(found)
        x = RNG.standard_normal((2, 32)).astype(np.float32)
        np.testing.assert_allclose(
            graphc.interpret(found, x), graphc.interpret(run_passes(module, f"quantize{{format={form}}}"), x), rtol=1e-6
        )
