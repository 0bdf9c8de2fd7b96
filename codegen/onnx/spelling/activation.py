"""Activations; those that are not here decompose into what is."""

from __future__ import annotations

from typing import Any

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import carrier
from graphc.codegen.onnx.spelling.elementwise import logistic, number, widened
from graphc.codegen.onnx.spelling.native import native
from graphc.ir.dtypes import f16
from graphc.ir.graph import Op


def relu(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    if carrier("Relu", x.dtype) is None:
        return graph.compute("Max", x, number(graph, 0, x))
    return graph.compute("Relu", x)


def relu6(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    return graph.compute("Clip", x, number(graph, 0, x), number(graph, 6, x))


def leaky_relu(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    return graph.compute("LeakyRelu", x, alpha=op.attributes[0])


def silu(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    if x.dtype is f16:
        return graph.compute("Mul", x, graph.compute("Sigmoid", x))
    wide = widened(graph, x)
    return graph.cast(logistic(graph, wide, wide), x.dtype)


def gelu(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    return graph.compute("Gelu", x, approximate="tanh" if op.attributes[0] else "none")


def softmax(kind: str) -> Any:
    def spell(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
        return graph.compute(kind, x, axis=op.attributes[0])

    spell.kind = kind  # type: ignore[attr-defined]
    return spell


leaky_relu.kind = "LeakyRelu"  # type: ignore[attr-defined]
gelu.kind = "Gelu"  # type: ignore[attr-defined]

SPELLING: dict[str, Any] = {
    "relu": relu,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "silu": silu,
    "gelu": gelu,
    "softplus": native("Softplus"),
    "softmax": softmax("Softmax"),
    "log_softmax": softmax("LogSoftmax"),
}

WHEN: dict[str, Any] = {"relu6": lambda op: carrier("Clip", op.results[0].dtype) is not None}
