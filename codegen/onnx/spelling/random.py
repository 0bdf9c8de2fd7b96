"""Random words."""

from __future__ import annotations

from typing import Any

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.ir.dtypes import i64, u32
from graphc.ir.graph import Op
from graphc.ir.ops.random import PARITY, ROTATIONS


def threefry(graph: GraphWriter, op: Op, key: Tensor, high: Tensor, low: Tensor) -> list[Tensor]:
    """Threefry-2x32 in uint32. A rotation is a product plus a shift: ONNX Runtime multiplies and adds faster than it
    shifts and joins."""

    def add(x: Tensor, y: Tensor) -> Tensor:
        return graph.compute("Add", x, y)

    def xor(x: Tensor, y: Tensor) -> Tensor:
        return graph.compute("BitwiseXor", x, y)

    def constant(value: int) -> Tensor:
        return graph.constant(value, u32)

    first, second = (graph.compute("Gather", key, graph.constant(i, i64).name, axis=0) for i in range(2))
    keys = (first, second, xor(xor(first, second), constant(PARITY)))
    x, y = add(high, keys[0]), add(low, keys[1])
    for i in range(5):
        for count in ROTATIONS[i % 2]:
            x = add(x, y)
            shifted = graph.compute("BitShift", y, constant(32 - count), direction="RIGHT")
            y = xor(add(graph.compute("Mul", y, constant(1 << count)), shifted), x)
        x = add(x, keys[(i + 1) % 3])
        y = add(y, add(keys[(i + 2) % 3], constant(i + 1)))
    return [x, y]


SPELLING: dict[str, Any] = {"threefry": threefry}

WHEN: dict[str, Any] = {}
