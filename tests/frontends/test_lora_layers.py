"""`enable_lora` of layers: Keras's names, weights and values, in calls on arrays, in recordings and in files."""

import numpy as np
import pytest

import graphc
from graphc import GraphcError, Input, Model, Sequential, layers, ops
from graphc.frontends import lower
from graphc.ir import interpret


def built(layer, *shape, dtype=np.float32):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    if dtype != np.float32:
        x = np.abs(x * 3).astype(dtype)
    layer(x)
    return x


def drawn(*variables) -> None:
    rng = np.random.default_rng(1)
    for variable in variables:
        variable.assign(rng.standard_normal(variable.shape).astype(np.float32))


CASES = {
    "dense": (lambda: layers.Dense(4, activation="tanh"), (3, 5), np.float32),
    "dense_on_3_axes": (lambda: layers.Dense(4), (2, 3, 5), np.float32),
    "conv1d_causal": (lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (2, 7, 3), np.float32),
    "conv2d": (lambda: layers.Conv2D(4, (2, 3), strides=2, padding="same"), (2, 5, 6, 3), np.float32),
    "conv2d_groups": (lambda: layers.Conv2D(4, 2, groups=2, data_format="channels_first"), (2, 4, 5, 5), np.float32),
    "conv3d": (lambda: layers.Conv3D(2, 2), (1, 3, 4, 3, 2), np.float32),
    "embedding": (lambda: layers.Embedding(9, 4), (2, 3), np.int32),
    "einsum_like_linear": (lambda: layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d"), (2, 3, 5), np.float32),
    "einsum_to_heads": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4)), (2, 3, 5), np.float32),
    "einsum_from_heads": (lambda: layers.EinsumDense("abde,dec->abc", (None, 3)), (2, 3, 2, 4), np.float32),
    "einsum_transposed": (lambda: layers.EinsumDense("abc,dc->adb", (4, None)), (2, 3, 5), np.float32),
}


@pytest.mark.parametrize("name", CASES)
def test_the_adapter_adds_alpha_over_rank_times_a_b(name: str) -> None:
    make, shape, dtype = CASES[name]
    layer = make()
    x = built(layer, *shape, dtype=dtype)
    stem = layer._lora_weight
    kernel = getattr(layer, stem)
    plain = layer(x)
    layer.enable_lora(2, lora_alpha=3)
    a, b = (getattr(layer, f"lora_{stem}_{part}") for part in "ab")
    assert [a.name, b.name] == [f"lora_{stem}_a", f"lora_{stem}_b"]
    assert a.shape == (*kernel.shape[:-1], 2) and b.shape == (2, kernel.shape[-1])
    assert not kernel.trainable and a.trainable and b.trainable and not np.any(b.numpy()) and np.any(a.numpy())
    np.testing.assert_allclose(layer(x), plain, rtol=1e-6, atol=1e-6)
    drawn(a, b)
    like = make()
    built(like, *shape, dtype=dtype)
    merged = kernel.numpy() + 1.5 * np.tensordot(a.numpy(), b.numpy(), 1)
    by_name = {v.name: v for v in layer.weights}
    for variable in like.weights:
        variable.assign(merged if variable.name == stem else by_name[variable.name].numpy())
    wanted = like(x)
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-5, atol=1e-5)
    inputs = Input(shape[1:], dtype=str(np.dtype(dtype)))
    module = lower(Model(inputs, layer(inputs)))
    module.verify()
    np.testing.assert_allclose(interpret(module, x), wanted, rtol=1e-5, atol=1e-5)
    kinds = {op.name for op in module.walk() if op.name.startswith("lora_")}
    fused = {"dense": "lora_linear", "conv": "lora_conv", "embe": "lora_embedding"}
    falls_back = name in ("einsum_to_heads", "einsum_transposed")
    assert kinds == {"lora_weight" if falls_back else fused.get(name[:4], fused.get(name[:5], "lora_linear"))}


def test_a_layer_made_with_lora_rank_has_its_adapter_from_the_start() -> None:
    model = Sequential([Input((6,)), layers.Dense(4, lora_rank=2, lora_alpha=5.0), layers.Dense(3)])
    first, second = model.layers
    assert first.lora_enabled and first.kernel.adapter.scaling == 2.5 and not second.lora_enabled
    assert first.get_config()["lora_rank"] == 2 and first.get_config()["lora_alpha"] == 5.0
    assert "lora_rank" not in second.get_config()
    assert [v.name for v in first.weights] == ["kernel", "bias", "lora_kernel_a", "lora_kernel_b"]
    assert [v.name for v in model.trainable_weights] == ["bias", "lora_kernel_a", "lora_kernel_b", "kernel", "bias"]


def test_saved_models_keep_the_adapters_of_layers(tmp_path) -> None:
    model = Sequential([Input((6,)), layers.Dense(4), layers.Dense(3)])
    model.layers[0].enable_lora(2, 4)
    drawn(model.layers[0].lora_kernel_a, model.layers[0].lora_kernel_b)
    x = np.ones((2, 6), np.float32)
    model.save(tmp_path / "m.graphc")
    again = graphc.saving.load_model(tmp_path / "m.graphc")
    np.testing.assert_array_equal(again(x), model(x))
    assert [v.path for v in again.trainable_weights] == [v.path for v in model.trainable_weights]


def test_attention_layers_have_dense_layers_that_take_adapters() -> None:
    layer = layers.MultiHeadAttention(2, 3)
    x = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    plain = layer(x, x)
    for dense in (layer.query_dense, layer.value_dense, layer.output_dense):
        dense.enable_lora(2)
        drawn(dense.lora_kernel_b)
    assert np.abs(layer(x, x) - plain).max() > 1e-2
    tokens = Input((4, 6))
    found = interpret(lower(Model(tokens, layer(tokens, tokens))), x)
    np.testing.assert_allclose(found, layer(x, x), rtol=1e-5, atol=1e-5)


def test_a_kernel_that_is_read_in_another_way_is_merged_first() -> None:
    class Odd(layers.Dense):
        def call(self, inputs):
            return inputs @ self.kernel + ops.sum(self.kernel * 2.0)

    layer = Odd(4)
    x = built(layer, 3, 5)
    layer.enable_lora(1)
    drawn(layer.lora_kernel_b)
    inputs = Input((5,))
    module = lower(Model(inputs, layer(inputs)))
    merged = layer.kernel.adapter.merged(layer.kernel.numpy())
    np.testing.assert_allclose(interpret(module, x), x @ merged + 2 * merged.sum(), rtol=1e-5)
    np.testing.assert_allclose(layer(x), x @ merged + 2 * merged.sum(), rtol=1e-5)
    assert [op.name for op in module.walk() if op.name.startswith("lora_")] == ["lora_linear", "lora_weight"]


def test_a_tied_table_has_its_adapter_at_both_ends() -> None:
    class Tied(layers.Embedding):
        def call(self, inputs, reverse=False):
            return ops.matmul(inputs, ops.transpose(self.embeddings)) if reverse else super().call(inputs)

    ids = Input((3,), dtype="int32")
    table = Tied(7, 4)
    model = Model(ids, table(table(ids), reverse=True))
    table.enable_lora(2)
    drawn(table.lora_embeddings_b)
    x = np.array([[0, 3, 6]], np.int32)
    merged = table.embeddings.adapter.merged(table.embeddings.numpy())
    module = lower(model)
    np.testing.assert_allclose(interpret(module, x), merged[x] @ merged.T, rtol=1e-5, atol=1e-6)
    assert sorted(op.name for op in module.walk() if op.name.startswith("lora_")) == ["lora_embedding", "lora_linear"]


def test_outside_of_calls_the_kernel_is_itself() -> None:
    layer = layers.Dense(4)
    built(layer, 3, 5)
    before = layer.kernel.numpy().copy()
    layer.enable_lora(2)
    drawn(layer.lora_kernel_b)
    np.testing.assert_array_equal(np.asarray(layer.kernel), before)
    layer.kernel.assign_add(np.ones_like(before))
    np.testing.assert_allclose(layer.kernel.numpy(), before + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda: layers.Dense(4), (9,), "the rank 9 is more than 4, the most that 'dense.*' .5 inputs, 4 outputs"),
        (lambda: layers.Dense(4), (0,), "positive integer, not 0"),
        (lambda: layers.Dense(4), (2.0,), "positive integer, not 2.0"),
        (
            lambda: layers.Dense(4, kernel_constraint=graphc.constraints.NonNeg()),
            (2,),
            "has a constraint on its kernel",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused(make, arguments, message: str) -> None:
    layer = make()
    built(layer, 3, 5)
    with pytest.raises(GraphcError, match=message):
        layer.enable_lora(*arguments)
    assert not layer.lora_enabled and layer.kernel.trainable


def test_an_adapter_comes_after_building_and_once() -> None:
    layer = layers.Dense(4)
    with pytest.raises(GraphcError, match="is not built yet"):
        layer.enable_lora(2)
    built(layer, 3, 5)
    layer.enable_lora(2)
    with pytest.raises(GraphcError, match="has an adapter already"):
        layer.enable_lora(2)


def test_depthwise_kernels_take_adapters_of_the_model() -> None:
    model = Sequential([Input((5, 5, 3)), layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")])
    model.add_adapter(r=2, targets="depthwise", dora=True)
    drawn(*model.trainable_weights)
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3)).astype(np.float32)
    module = lower(model)
    assert [op.name for op in module.walk() if op.name.startswith("lora_")] == ["lora_conv"]
    np.testing.assert_allclose(interpret(module, x), model(x), rtol=1e-5, atol=1e-5)
    adapted = model(x)
    model.merge_adapter()
    np.testing.assert_allclose(model(x), adapted, rtol=1e-5, atol=1e-5)
