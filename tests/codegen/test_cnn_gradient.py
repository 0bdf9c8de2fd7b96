"""Gradients of convolutional networks in training: against torch autograd in float64, and on every target."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from artifacts import needs

from graphc import layers
from graphc.codegen import targets
from graphc.codegen.compiler import write_artifact
from graphc.frontends.lowering import lower
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dtypes import i32
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes import run_passes
from graphc.passes.autodiff import differentiate

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
RNG = np.random.default_rng(0)
IMAGES = {"digits": RNG.standard_normal((3, 8, 8, 1)), "resnet": RNG.standard_normal((4, 64, 64, 3))}
LABELS = np.array([3, 0, 9, 4], np.int32)


@cache
def model(name: str) -> Module:
    """`value_and_grad` of a network with the mean cross-entropy of its labels, without dropout."""
    if name == "digits":
        from digits_cnn import digits_cnn

        network = digits_cnn()
    else:
        from resnet18 import resnet18

        network = resnet18(width=2)
    for layer in network.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    module = lower(network, training=True)
    function = module.main
    logits = function.outputs[0]
    labels = function.add_parameter(TensorType.of(i32, (logits.shape[0],)), "labels")
    terminator = function.block.terminator
    with Builder(function.block, terminator):
        loss = ops.reduce_mean(ops.sparse_cross_entropy(logits, labels), axes=(0,))
    with Rewriter() as rewriter:
        rewriter.set_operands(terminator, [loss, *terminator.operands[1:]])
    function.results = [Result("loss"), *function.results[1:]]
    differentiate(module)
    module.verify()
    return module


def inputs(name: str, dtype: type) -> list[np.ndarray]:
    images = IMAGES[name]
    keys = [np.array([1, 2], np.uint32)] if any(p.role == "key" for p in model(name).main.parameters) else []
    return [images.astype(dtype), *keys, LABELS[: len(images)]]


class Torch:
    """The same networks written with torch, in float64, on the weights of the module."""

    def __init__(self, module: Module) -> None:
        names = [p.weight for p in module.main.parameters if p.role == "param"]
        arrays = {"/".join(name.split("/")[-2:]): module.weights[name] for name in names}
        self.weights = {n: torch.tensor(a, dtype=torch.float64, requires_grad=True) for n, a in arrays.items()}

    def conv(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.weights.get(f"{name}/bias"), stride, kernel.shape[2] // 2)

    def norm(self, x: torch.Tensor, name: str, epsilon: float = 1e-5) -> torch.Tensor:
        scale, offset = self.weights[f"{name}/gamma"], self.weights[f"{name}/beta"]
        return F.batch_norm(x, None, None, scale, offset, True, 0.0, epsilon)

    def dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ self.weights[f"{name}/kernel"] + self.weights[f"{name}/bias"]

    def digits(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x, "stem"), "stem_bn", 1e-3))
        x = F.relu(x + self.conv(F.relu(self.conv(x, "block_conv1")), "block_conv2"))
        return self.dense(F.relu(self.conv(F.max_pool2d(x, 2), "head_conv")).mean((2, 3)), "logits")

    def resnet(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv(x, "stem_conv", 2), "stem_bn")), 3, 2, 1)
        for stage in range(4):
            for block in range(2):
                name, stride = f"stage{stage + 1}_block{block + 1}", 2 if stage and not block else 1
                y = F.relu(self.norm(self.conv(x, f"{name}_1_conv", stride), f"{name}_1_bn"))
                y = self.norm(self.conv(y, f"{name}_2_conv"), f"{name}_2_bn")
                if f"{name}_shortcut_conv/kernel" in self.weights:
                    x = self.norm(self.conv(x, f"{name}_shortcut_conv", stride), f"{name}_shortcut_bn")
                x = F.relu(x + y)
        return self.dense(x.mean((2, 3)), "logits")


@cache
def wanted(name: str) -> list[np.ndarray]:
    """The loss and its gradients, by torch autograd."""
    network, images = Torch(model(name)), torch.tensor(IMAGES[name]).permute(0, 3, 1, 2)
    loss = F.cross_entropy(getattr(network, name)(images), torch.tensor(LABELS[: len(images)]).long())
    gradients = torch.autograd.grad(loss, list(network.weights.values()))
    return [loss.detach().numpy(), *(gradient.numpy() for gradient in gradients)]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("passes", ["", "canonicalize,layout,canonicalize,fold_weights"])
def test_against_autograd(name: str, passes: str) -> None:
    module = run_passes(model(name), passes) if passes else model(name)
    found = interpret(module, *inputs(name, np.float64), dtype="float64", entry="value_and_grad")
    for got, want in zip(found, wanted(name), strict=False):
        # The module's own numbers, such as the norms' epsilon, are those of float32.
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_targets_agree(target: str, name: str, tmp_path: Path) -> None:
    needs(target)
    write_artifact(model(name), target, tmp_path / "artifact")
    entry = targets()[target].load(tmp_path / "artifact").entries["value_and_grad"]
    for got, want in zip(entry(*inputs(name, np.float32)), wanted(name), strict=False):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("name", IMAGES)
def test_only_the_image_is_transposed(name: str) -> None:
    """Gradients take part in the layout: between the image and the results nothing of an image's size is."""
    module = run_passes(model(name), "canonicalize,layout,canonicalize,fold_weights")
    transposes = [op for op in module.functions["value_and_grad"].block if op.name == "transpose"]
    batch = IMAGES[name].ndim
    assert sum(op.operands[0].ndim == batch and "B" in str(op.operands[0].type) for op in transposes) == 1
