"""The networks of the remat benchmark, as one training step each: ours as IR, and the same ones in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from graphc.frontends import lower
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dtypes import i32
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Result
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes import run_passes
from graphc.passes.autodiff import differentiate

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAYERS, WIDTH, HEADS, PLACES = 12, 256, 4, 512
"""Of the GPT."""
IMAGE = 64
"""Of the ResNet-18."""


def example(name: str) -> ModuleType:
    """An example of the repository as a module. Raises `GraphcError` where there is none beside the package."""
    path = EXAMPLES / f"{name}.py"
    if not path.is_file():
        raise GraphcError(f"{path} is missing: this benchmark runs in a checkout of the repository")
    spec = spec_from_file_location(f"graphc_example_{name}", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network(name: str, layers: int = LAYERS) -> Module:
    """The step of `gpt` or `resnet18`, simplified; see `step`."""
    if name == "gpt":
        return step(example("gpt").gpt(layers=layers, width=WIDTH, heads=HEADS, context=PLACES))
    return step(example("resnet18").resnet18(size=IMAGE))


def step(model: Any, rate: float = 0.01) -> Module:
    """One entry: the mean cross-entropy of integer labels, and the weights after a step of gradient descent."""
    module = lower(model, training=True)
    forward = module.main
    scores, *states = forward.outputs
    labels = forward.add_parameter(TensorType.of(i32, scores.shape[:-1]), "labels")
    with Builder(forward.block, forward.block.terminator):
        losses = ops.sparse_cross_entropy(scores, labels)
        loss = ops.reduce_mean(losses, axes=tuple(range(losses.ndim)))
    Rewriter().set_operands(forward.block.terminator, [loss, *states])
    forward.results[0] = Result("loss")
    function = differentiate(module, name="step")
    trained = [p for p in function.parameters if p.role == "param"]
    loss, *others = function.outputs
    gradients, states = others[: len(trained)], others[len(trained) :]
    with Builder(function.block, function.block.terminator):
        new = [ops.sub(p.value, ops.mul(dw, rate)) for p, dw in zip(trained, gradients, strict=True)]
    Rewriter().set_operands(function.block.terminator, [loss, *new, *states])
    updates = [Result(f"new_{p.name}", p) for p in trained]
    function.results = [Result("loss"), *updates, *function.results[1 + len(trained) :]]
    del module.functions[forward.name]
    return run_passes(module, "canonicalize,cse,dce")


def batch(module: Module, size: int) -> list[Any]:
    """A drawn batch for the entry of a step."""
    rng = np.random.default_rng(0)
    arrays: list[Any] = []
    for parameter in module.main.inputs:
        shape = [n if isinstance(n, int) else size for n in parameter.type.shape]
        floating = parameter.type.dtype.is_float
        arrays.append(rng.standard_normal(shape, np.float32) if floating else rng.integers(0, 10, shape, np.int32))
    return arrays


# --- plain PyTorch --------------------------------------------------------------------------------------------------


def torch_network(name: str, size: int, layers: int = LAYERS) -> tuple[Any, Sequence[Any], Sequence[Any]]:
    """A function `loss(parameters, x, labels)` in plain PyTorch, its parameters, and a batch."""
    return _torch_gpt(size, layers) if name == "gpt" else _torch_resnet(size)


def _torch_gpt(size: int, layers: int) -> tuple[Any, Sequence[Any], Sequence[Any]]:
    import torch
    from torch.nn import functional as F

    hidden = 8 * WIDTH // 3
    shapes = [(256, WIDTH), (WIDTH,)]
    block = [(WIDTH,), *[(WIDTH, WIDTH)] * 4, (WIDTH,), (WIDTH, hidden), (WIDTH, hidden), (hidden, WIDTH)]
    parameters = [(torch.randn(s) * 0.02).requires_grad_() for s in [*shapes, *block * layers]]

    def norm(x: Any, scale: Any) -> Any:
        return F.rms_norm(x, (WIDTH,), scale, 1e-6)

    def turned(x: Any, cos: Any, sin: Any) -> Any:
        a, b = x.view(size, PLACES, HEADS, -1).chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).transpose(1, 2)

    def loss(parameters: Sequence[Any], x: Any, labels: Any) -> Any:
        table, last, *rest = parameters
        rates = 10000.0 ** (-2 * torch.arange(WIDTH // HEADS // 2) / (WIDTH // HEADS))
        angles = torch.arange(PLACES)[:, None] * rates
        tables = angles.cos()[:, None], angles.sin()[:, None]
        x = F.embedding(x, table)
        for i in range(layers):
            n1, wq, wk, wv, wo, n2, gate, up, down = rest[9 * i : 9 * i + 9]
            h = norm(x, n1)
            v = (h @ wv).view(size, PLACES, HEADS, -1).transpose(1, 2)
            q, k = turned(h @ wq, *tables), turned(h @ wk, *tables)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + y.transpose(1, 2).reshape(size, PLACES, WIDTH) @ wo
            h = norm(x, n2)
            x = x + (F.silu(h @ gate) * (h @ up)) @ down
        return F.cross_entropy((norm(x, last) @ table.T).flatten(0, 1), labels.flatten())

    tokens = torch.randint(0, 256, (size, PLACES))
    return loss, parameters, (tokens, tokens)


def _torch_resnet(size: int, width: int = 64) -> tuple[Any, Sequence[Any], Sequence[Any]]:
    import torch
    from torch.nn import functional as F

    parameters: list[Any] = []

    def layer(depth: int, filters: int, window: int) -> None:
        for tensor in (torch.randn(filters, depth, window, window) * 0.05, torch.ones(filters), torch.zeros(filters)):
            parameters.append(tensor.requires_grad_())

    blocks: list[tuple[int, int]] = []
    layer(3, width, 7)
    depth = width
    for stage in range(4):
        for index in range(2):
            filters, strides = width * 2**stage, 2 if stage and not index else 1
            blocks.append((strides, depth != filters))
            layer(depth, filters, 3)
            layer(filters, filters, 3)
            if depth != filters:
                layer(depth, filters, 1)
            depth = filters
    parameters.append((torch.randn(10, depth) * 0.05).requires_grad_())

    def loss(parameters: Sequence[Any], x: Any, labels: Any) -> Any:
        remaining = iter(parameters)

        def convolution(x: Any, strides: int) -> Any:
            kernel, scale, offset = next(remaining), next(remaining), next(remaining)
            x = F.conv2d(x, kernel, stride=strides, padding=kernel.shape[-1] // 2)
            return F.batch_norm(x, None, None, scale, offset, True)

        x = F.max_pool2d(F.relu(convolution(x, 2)), 3, 2, 1)
        for strides, projects in blocks:
            y = convolution(F.relu(convolution(x, strides)), 1)
            x = F.relu((convolution(x, strides) if projects else x) + y)
        return F.cross_entropy(x.mean((2, 3)) @ next(remaining).T, labels)

    return loss, parameters, (torch.randn(size, 3, IMAGE, IMAGE), torch.randint(0, 10, (size,)))


__all__ = ["batch", "network", "step", "torch_network"]
