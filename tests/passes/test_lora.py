"""The pass `lora` and what it is made of: which weights, seeds, dropout, what is refused."""

import numpy as np
import pytest

import graphc
from graphc import GraphcError, Input, Model, layers, ops
from graphc.frontends import lower
from graphc.ir import interpret, parse
from graphc.passes import run_passes
from graphc.passes.lora.settings import matches
from graphc.passes.options import parse_pipeline


def module():
    graphc.utils.set_random_seed(0)
    tokens = Input((5,), dtype="int32")
    x = layers.Embedding(9, 6, name="table")(tokens)
    x = layers.Conv1D(8, 3, padding="same", name="conv")(x)
    return lower(Model(tokens, layers.Dense(4, name="head")(layers.Dense(7, activation="relu", name="mid")(x))))


def trained(found) -> list[str]:
    return [weight.name for weight in found.weights.entries() if weight.trainable]


def test_every_kind_of_layer_gets_its_op() -> None:
    found = run_passes(module(), 'lora{r=2,targets="table,conv,mid"}', check=True)
    assert [op.name for op in found.walk() if op.name.startswith("lora_")] == [
        "lora_embedding",
        "lora_conv",
        "lora_linear",
    ]
    assert trained(found) == [
        f"{layer}/lora_{leaf}_{part}"
        for layer, leaf in (("table", "embeddings"), ("conv", "kernel"), ("mid", "kernel"))
        for part in "ab"
    ]
    assert found.weights["mid/lora_kernel_a"].shape == (8, 2) and found.weights["conv/lora_kernel_a"].shape == (3, 6, 2)


def test_the_factors_compute_what_they_say() -> None:
    found = run_passes(module(), 'lora{r=2,alpha=6,targets="mid",rslora}')
    a, b = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in ((8, 2), (2, 7)))
    found.weights.set("mid/lora_kernel_a", a)
    found.weights.set("mid/lora_kernel_b", b)
    plain = module()
    plain.weights.set("mid/kernel", plain.weights["mid/kernel"] + (6 / 2**0.5) * a @ b)
    x = np.array([[0, 3, 8, 1, 1]], np.int32)
    np.testing.assert_allclose(interpret(found, x), interpret(plain, x), rtol=1e-5, atol=1e-5)


def test_numbers_follow_from_the_seed_and_the_name() -> None:
    one, same, other = (run_passes(module(), f'lora{{r=2,targets="mid,head",seed={seed}}}') for seed in (0, 0, 1))
    name = "mid/lora_kernel_a"
    np.testing.assert_array_equal(one.weights[name], same.weights[name])
    assert (one.weights[name] != other.weights[name]).any()
    alone = run_passes(module(), 'lora{r=2,targets="mid"}')
    np.testing.assert_array_equal(one.weights[name], alone.weights[name])
    assert np.abs(one.weights[name]).max() <= 1 / 8**0.5 and not one.weights["mid/lora_kernel_b"].any()


def test_options_as_text() -> None:
    found = run_passes(
        module(), 'lora{r=2,targets="mid,head",rank_pattern="head:1",modules_to_save="conv",bias=lora_only,dora}'
    )
    assert found.weights["head/lora_kernel_b"].shape == (1, 4) and found.weights["mid/lora_kernel_b"].shape == (2, 7)
    assert {"conv/kernel", "conv/bias", "mid/bias", "head/bias", "mid/lora_kernel_magnitude"} <= set(trained(found))
    assert "table/embeddings" not in trained(found)
    (step,) = parse_pipeline("lora{rslora, dora , r=2}")
    assert step.options == {"rslora": "true", "dora": "true", "r": "2"}


def test_dropout_takes_a_key_of_its_own() -> None:
    found = run_passes(module(), 'lora{r=2,targets="mid,conv,head",dropout=0.5}')
    function = found.main
    assert [p.name for p in function.inputs if p.role == "key"] == ["key"]
    keys = [op.operands[1] for op in function.walk() if op.name == "dropout"]
    assert len(keys) == len(set(keys)) == 3
    folded = {key.op.operands[1].op.attributes[0] for key in keys}
    assert len(folded) == 3


def test_patterns_are_of_paths_or_their_ends() -> None:
    weight = "block_0/attention/q_proj/kernel"
    for pattern in ("q_proj", "*/q_proj", "attention/q_proj", "block_0/*", "block_*/*/q_proj", "*", weight, "q_*"):
        assert matches(pattern, weight), pattern
    for pattern in ("proj", "q_pro", "lock_0/*", "attention", "*/v_proj", "block_1/*"):
        assert not matches(pattern, weight), pattern
    assert matches("q_proj", "q_proj/kernel") and matches("*/q_proj", "q_proj/kernel") and matches("w", "w")


def test_what_does_not_fit_is_refused() -> None:
    for options, message in [
        ('targets="mit"', "did you mean mid"),
        ('targets="head/bias"', "matches only head/bias"),
        ("r=5", "the rank 5 does not fit 'head'"),
        ('targets="mid",rank_pattern="mid"', "is a list such as"),
        ('targets="mid",rank_pattern="mid:0"', "a positive integer, not 0"),
        ("r=two", "r is an integer"),
    ]:
        targets = "" if "targets" in options else ',targets="mid,head"'
        with pytest.raises(GraphcError, match=message):
            run_passes(module(), f"lora{{{options}{targets}}}")
    adapted = run_passes(module(), 'lora{r=1,targets="mid"}')
    with pytest.raises(GraphcError, match='has adapters already, the first at "mid"'):
        run_passes(adapted, 'lora{r=1,targets="head"}')
    model = graphc.Sequential([Input((4,)), layers.Dense(3)])
    model.compile("sgd", "mse")
    step = model.training_module(np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32))
    with pytest.raises(GraphcError, match="@train_step has a backward part already; adapters come before gradients"):
        run_passes(step, "lora{r=1}")


def test_kernels_that_are_captured_or_passed_on_are_merged_first() -> None:
    text = """
weight "w" : f32[4, 4] trainable = ZEROS

func @main(%x: f32[3, 4] input, %w: f32[4, 4] param "w") -> (f32[3, 4], f32[3, 4], f32[4, 4]) {
  %0 = linear %x, %w, _ : f32[3, 4]
  %1 = call %x, %w {callee = @inner} : f32[3, 4]
  %2 = transpose %w {permutation = [1, 0]} : f32[4, 4]
  %3 = add %2, %2 : f32[4, 4]
  return %0, %1, %3
}

private func @inner(%x: f32[3, 4] input, %w: f32[4, 4] input) -> f32[3, 4] {
  %0 = linear %x, %w, _ : f32[3, 4]
  return %0
}
"""
    rows = "[" + ", ".join(["[0.5, 1.0, -1.0, 2.0]"] * 4) + "]"
    plain = parse(text.replace("ZEROS", rows))
    found = run_passes(plain, "lora{r=2}")
    b = np.arange(8, dtype=np.float32).reshape(2, 4)
    found.weights.set("lora_w_b", b)
    merged = plain.weights["w"] + found.weights["lora_w_a"] @ b
    x = np.ones((3, 4), np.float32)
    first, second, third = interpret(found, x)
    np.testing.assert_allclose(first, x @ merged, rtol=1e-5)
    np.testing.assert_allclose(second, x @ merged, rtol=1e-5)
    np.testing.assert_allclose(third, 2 * merged.T, rtol=1e-5)
    with pytest.raises(GraphcError, match="an adapter with dropout needs 'w' in a product"):
        run_passes(plain, "lora{r=2,dropout=0.1}")


def test_a_frozen_base_of_any_kind_is_an_operand_like_others() -> None:
    """What computes the kernel, such as a dequantization, stays as it is: the kernel of the op may be any value."""
    weight = layers.Dense(4, use_bias=False)
    weight(np.zeros((1, 6), np.float32))

    def call(x):
        return ops.matmul(x, ops.cast(ops.cast(weight.kernel, "float64"), "float32"))

    found = run_passes(graphc.trace(call, graphc.Spec(("B", 6), "float32")), "lora{r=2}")
    (op,) = [op for op in found.walk() if op.name == "lora_linear"]
    assert op.kernel.op.name == "convert"


@pytest.mark.parametrize("target", ["numpy", "torch", "onnx", "jax"])
def test_compiled_with_the_pass_as_an_option(target: str, tmp_path) -> None:
    from artifacts import needs

    needs(target)
    plain, x = module(), np.array([[0, 3, 8, 1, 1]], np.int32)
    wanted = interpret(plain, x)
    passes = 'lora{r=2,targets="*",exclude="head",dora},canonicalize,share_random,fold_weights'
    executable = graphc.compile(plain, target=target, passes=passes)
    np.testing.assert_allclose(executable(x), wanted, rtol=1e-4, atol=1e-5)
    executable.weights["mid/lora_kernel_b"] = np.ones((2, 7), np.float32)
    assert np.abs(executable(x) - wanted).max() > 1e-3


@pytest.mark.parametrize("target", ["numpy", "torch", "onnx", "jax"])
def test_a_quantized_base_has_adapters_of_floats(target: str) -> None:
    from artifacts import needs

    needs(target)
    graphc.utils.set_random_seed(0)
    x = Input((32,))
    model = Model(x, layers.Dense(5, name="b")(layers.Dense(32, activation="relu", name="a")(x)))
    stored = run_passes(lower(model), 'quantize{format="int4{block=32}"}')
    found = run_passes(stored, 'lora{r=2,targets="a,b",dora}', check=True)
    assert [op.kernel.op.name for op in found.walk() if op.name == "lora_linear"] == ["dequantize"] * 2
    assert trained(found) == [f"{n}/lora_kernel_{part}" for n in "ab" for part in ("a", "b", "magnitude")]
    given = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    found.weights.set("b/lora_kernel_b", np.ones((2, 5), np.float32))
    np.testing.assert_allclose(
        graphc.compile(found, target=target)(given), interpret(found, given), rtol=1e-4, atol=1e-5
    )
    assert np.abs(interpret(found, given) - interpret(stored, given)).max() > 1e-2
