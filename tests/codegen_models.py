"""Models and modules that several tests of the source targets share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.frontends import Input, layers, lower
from graphc.frontends.model import Model
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.graph import Result
from graphc.ir.module import Module
from graphc.ir.types import TensorType

B = symbol("B")
Array = np.ndarray[Any, Any]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def module_of(
    body: Callable[..., Any],
    inputs: Sequence[tuple[str, str, tuple[Any, ...]]],
    weights: Mapping[str, Array] | None = None,
    results: Sequence[str | None] = (),
) -> Module:
    """A module whose main function is `body` on values for the inputs (name, dtype, shape), then for the weights."""
    module = Module()
    function = module.add_function("main")
    values = [function.add_parameter(TensorType.of(dtype, shape), name) for name, dtype, shape in inputs]
    for name, array in (weights or {}).items():
        info = module.weights.add(name, array)
        values.append(function.add_parameter(info.type, name.replace("/", "_"), "param", name))
    with Builder(function.block) as builder:
        found = body(*values)
        outputs = found if isinstance(found, (tuple, list)) else (found,)
        builder.finish(outputs)
    function.results.extend(Result(name) for name in (*results, *[None] * (len(outputs) - len(results))))
    return module


def residual(x: Any) -> Any:
    """One block of the residual network."""
    y = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    y = layers.ReLU()(y)
    y = layers.Conv2D(16, 3, padding="same", use_bias=False)(y)
    y = layers.BatchNormalization()(y)
    return layers.ReLU()(x + y)


def residual_network(depth: int = 12) -> Module:
    """A residual network, written with a Python function for each block and no scopes."""
    image = Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", name="stem")(image)
    for _ in range(depth):
        x = residual(x)
    x = layers.GlobalAveragePooling2D()(x)
    return with_drawn_weights(lower(Model(image, layers.Dense(10, name="logits")(x))))


class Attention(layers.Layer):
    """Attention over the axis before the last, in several heads."""

    def __init__(self, heads: int, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads

    def build(self, shape: Any) -> None:
        width = shape[-1]
        self.q, self.k, self.v, self.out = (layers.Dense(width, name=name) for name in ("q", "k", "v", "out"))

    def call(self, x: Any) -> Any:
        b, s, width = x.shape
        size = width // self.heads

        def heads(y: Any) -> Any:
            return ops.transpose(ops.reshape(y, shape=(b, s, self.heads, size)), permutation=(0, 2, 1, 3))

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        scores = ops.softmax(ops.matmul(q, ops.transpose(k, permutation=(0, 1, 3, 2))) * size**-0.5)
        y = ops.transpose(ops.matmul(scores, v), permutation=(0, 2, 1, 3))
        return self.out(ops.reshape(y, shape=(b, s, width)))


class Block(layers.Layer):
    """A block of a transformer."""

    def build(self, shape: Any) -> None:
        self.norm1 = layers.LayerNormalization(name="norm1")
        self.attention = Attention(2, name="attention")
        self.norm2 = layers.LayerNormalization(name="norm2")
        self.up = layers.Dense(4 * shape[-1], activation="gelu", name="up")
        self.down = layers.Dense(shape[-1], name="down")

    def call(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.up(self.norm2(x)))


def transformer(depth: int = 3) -> Module:
    """Blocks of attention and a feed-forward network over sequences of any length."""
    hidden = Input(("S", 16), name="hidden")
    x = hidden
    for i in range(depth):
        x = Block(name=f"block_{i}")(x)
    x = layers.LayerNormalization(name="norm")(x)
    return with_drawn_weights(lower(Model(hidden, layers.Dense(5, name="head")(x))))


def with_drawn_weights(module: Module) -> Module:
    """The module with weights that do not depend on initialisers."""
    draw = rng()
    for weight in list(module.weights.entries()):
        if weight.alias is None:
            array = draw.normal(size=weight.type.shape) * 0.2
            if weight.name.endswith("variance"):
                array = np.abs(array) + 1
            module.weights.set(weight.name, array.astype(np.float32))
    return module


def training_step() -> Module:
    """A step of gradient descent on a linear layer by hand, and a second entry that predicts."""
    inputs = [("x", "float32", (B, 3)), ("y", "float32", (B, 2))]

    def step(x: Any, y: Any, kernel: Any) -> tuple[Any, ...]:
        distance = ops.matmul(x, kernel) - y
        loss = ops.reduce_mean(ops.square(distance), axes=(0, 1))
        gradient = ops.matmul(ops.transpose(x, permutation=(1, 0)), distance)
        return loss, kernel - gradient * 0.1, kernel

    module = module_of(step, inputs, {"dense/kernel": rng().normal(size=(3, 2)).astype(np.float32)})
    main = module.main
    main.results = [Result("loss"), Result(None, main.parameters[2]), Result("before")]
    predict = module.add_function("predict")
    x = predict.add_parameter(TensorType.of("float32", (B, 3)), "x")
    kernel = predict.add_parameter(TensorType.of("float32", (3, 2)), "kernel", "param", "dense/kernel")
    with Builder(predict.block) as builder, builder.scope("dense"):
        builder.finish([ops.linear(x, kernel)])
    predict.results = [Result("y")]
    return module
