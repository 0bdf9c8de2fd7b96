"""PyTorch's spelling of what training does: fast ways that are taken by size, layout or type give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import codegen, layers
from graphc.codegen.compiler import write_artifact
from graphc.codegen.source.loading import import_model
from graphc.codegen.torch.helpers import HELPERS
from graphc.ir import ops
from graphc.ir.analysis.liveness import live_bytes
from graphc.ir.interpreter import interpret
from graphc.tools.bench.remat import legal_step

RNG = np.random.default_rng(3)


def helper(*names: str):
    """The last of these helpers of emitted code, as a function."""
    needs("torch")
    import torch
    import torch.nn.functional as F

    space = {"torch": torch, "F": F}
    for name in names:
        exec(HELPERS[name], space)
    return space[names[-1]]


@pytest.mark.parametrize("images", [1, 8, 20])  # the first two by one product, the last by oneDNN
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"padding": (2, 1), "dilation": (2, 1)}])
def test_gradients_of_kernels_at_few_places(images: int, options: dict) -> None:
    gradient = helper("convolution_kernel_gradient")
    import torch
    from torch.nn import grad

    x, kernel = torch.randn(images, 6, 3, 4, dtype=torch.float64), torch.randn(5, 6, 2, 2, dtype=torch.float64)
    dy = torch.randn_like(torch.nn.functional.conv2d(x, kernel, **options))
    wanted = grad.conv2d_weight(x, kernel.shape, dy, **options)
    torch.testing.assert_close(gradient(dy, x, tuple(kernel.shape), **options), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"padding": (2, 1), "dilation": (2, 1)}])
def test_gradients_of_inputs_have_the_order_of_axes_of_the_cotangent(options: dict) -> None:
    gradient = helper("convolution_input_gradient")
    import torch
    from torch.nn import grad

    x, kernel = torch.randn(9, 6, 5, 4), torch.randn(3, 6, 2, 2)
    dy = torch.randn_like(torch.nn.functional.conv2d(x, kernel, **options))
    wanted = grad.conv2d_input(x.shape, kernel, dy, **options)
    for order in (torch.contiguous_format, torch.channels_last):
        found = gradient(dy.contiguous(memory_format=order), kernel, tuple(x.shape), **options)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert found.is_contiguous(memory_format=order)
    # A kernel that is larger than the cotangent stays as it is.
    found = gradient(dy[:1, :, :1, :1].contiguous(memory_format=torch.channels_last), kernel, (1, 6, 2, 2))
    assert found.is_contiguous()


@pytest.mark.parametrize("kind", ["uint8", "int32", "int64"])
def test_labels_of_few_bits_for_many_classes(kind: str) -> None:
    needs("torch")
    logits, labels = RNG.standard_normal((4, 300)).astype(np.float32), np.array([0, 7, 255, 100], kind)
    labels = np.where(labels == 100, -1 if kind != "uint8" else 100, labels).astype(kind)

    def both(x, y):
        loss = ops.sparse_cross_entropy(x, y)
        return loss, ops.sparse_cross_entropy_gradient(ops.mul(loss, 2.0), x, y)

    module = graphc.trace(both, graphc.Spec((4, 300), "float32"), graphc.Spec((4,), kind))
    for found, wanted in zip(
        graphc.compile(module, target="torch")(logits, labels), interpret(module, logits, labels), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert np.isnan(graphc.compile(module, target="torch")(logits, labels)[0]).any() == (kind != "uint8")


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 - 1])
def test_keys_of_numbers_and_of_tensors_are_the_same(number: int) -> None:
    fold_in = helper("threefry", "fold_in")
    import torch

    for words in ((0, 0), (1, 2**32 - 1), (0xDEADBEEF, 0x12345678)):
        key = torch.tensor(words, dtype=torch.uint32)
        by_tensor = fold_in(key, torch.tensor(number, dtype=torch.uint32))
        assert fold_in(key, number).tolist() == by_tensor.tolist()
        assert (
            fold_in(key, number).tolist() == ops.random_fold_in(np.array(words, np.uint32), np.uint32(number)).tolist()
        )


def test_what_is_added_to_a_weight_is_not_held() -> None:
    needs("torch")
    x = graphc.Input((4,), name="x")
    model = graphc.Model(x, graphc.layers.Dense(2)(x))
    model.compile(graphc.optimizers.AdamW(), "mse")
    module = model.training_module(np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32))
    source = graphc.compile(module, target="torch").source
    assert "addcmul_(parameter, learning_rate * 0.004, value=-1)" in source
    assert "addcdiv_(momentum * alpha, torch.sqrt(velocity) + 1e-07, value=-1)" in source


def test_a_product_with_a_number_is_subtracted_as_it_is() -> None:
    needs("torch")
    text = """
weight "a/w" : f32[2] = [1.0, 2.0]

func @step(%x: f32[2] input, %a: f32[2] param "a/w") -> (f32[2] updates %a) {
  %0 = constant {value = 0.5} : f32[]
  %1 = mul %x, %0 : f32[2] @ "optimizer/sgd/a/w"
  %2 = sub %a, %1 : f32[2] @ "optimizer/sgd/a/w"
  return %2
}
"""
    executable = graphc.compile(graphc.parse(text), target="torch")
    executable(np.array([2.0, 4.0], np.float32))
    assert executable.weights["a/w"].tolist() == [0.0, 0.0]


def test_overlapping_windows_are_pooled_in_the_fast_order_of_axes() -> None:
    needs("torch")
    image = graphc.Input((9, 9, 2), name="image")
    model = graphc.Model(image, graphc.layers.MaxPooling2D(3, 2)(image))
    executable = graphc.compile(model, target="torch")
    assert "max_pool(" in executable.source
    x = RNG.standard_normal((3, 9, 9, 2)).astype(np.float32)
    x[0, 4, 4] = np.nan
    np.testing.assert_array_equal(executable(x), model(x))
    apart = graphc.Model(image, graphc.layers.MaxPooling2D(2)(image))
    assert "F.max_pool2d(" in graphc.compile(apart, target="torch").source


def test_plans_of_memory_know_the_order_of_axes_of_overlapping_pools(tmp_path: Path) -> None:
    needs("torch")
    import torch

    from graphc.tools.bench.torch_memory import peak_of

    image = graphc.Input((65, 65, 8), name="image")
    module = graphc.lower(graphc.Model(image, graphc.layers.MaxPooling2D(3, 2)(image)))
    write_artifact(module, "torch", tmp_path / "pool", passes="")
    pool = import_model(tmp_path / "pool").load(tmp_path / "pool")
    x = torch.from_numpy(RNG.standard_normal((4, 65, 65, 8)).astype(np.float32))
    with torch.no_grad():
        measured = peak_of(lambda: pool(x))
    planned = live_bytes(legal_step(module, "torch").main, {"B": 4}, codegen.target("torch").memory).peak
    assert measured <= planned <= 1.2 * measured


def test_what_is_frozen_is_no_parameter_to_train(tmp_path) -> None:
    """So that an optimizer of PyTorch over `parameters()` trains what `fit` would."""
    needs("torch")

    def trained(model, name: str) -> dict[str, list[str]]:
        graphc.compile(model, target="torch").save(tmp_path / name)
        emitted = import_model(tmp_path / name).load()
        emitted(emitted_input)
        found = [path for path, parameter in emitted.named_parameters() if parameter.requires_grad]
        return {
            name: [path.rpartition(".")[2] for path in found if path.startswith(f"{name}.")] for name in layer_names
        }

    import torch

    emitted_input, layer_names = torch.ones(2, 8, 8, 1), ("conv", "norm", "up", "out")
    image = graphc.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(
        layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, data_format="channels_last", name="conv")(image))
    )
    model = graphc.Model(image, layers.Dense(3, name="out")(layers.Dense(6, name="up")(x)))
    both = ["weight", "bias"]
    assert trained(model, "plain") == dict.fromkeys(layer_names, both)
    model.get_layer("conv").trainable = False
    assert trained(model, "part") == {"conv": [], "norm": both, "up": both, "out": both}
    model.get_layer("conv").trainable = True
    model.add_adapter("a", r=2, targets="up", modules_to_save="out")
    factors = ["lora_a", "lora_b"]
    assert trained(model, "adapted") == {"conv": [], "norm": [], "up": factors, "out": both}
    model.delete_adapter("a")
    model.add_adapter("b", r=2, targets="up", bias="all")
    assert trained(model, "biases") == {"conv": ["bias"], "norm": ["bias"], "up": ["bias", *factors], "out": ["bias"]}
