"""Products by weights of 3, 4 and 8 bits as they are: `MatMulNBits`, which reads them without making floats first.

It computes in float32 with weights of 4 bits, which those of 3 become; of 8 bits it would make floats of the whole
weight at each call. So bytes go in as two weights of 4 bits: (16 h + l − z) s = (h − z / 16) 16 s + (l − z % 16) s.
What is made of constants here the runtime folds when it loads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.ir.dtypes import f32, i8, u8
from graphc.ir.formats import Q4_0, Q8_0, BlockFormat, Int3, Int8, parse_format
from graphc.ir.formats.gguf import BLOCK
from graphc.ir.graph import Op

CHANNEL_BLOCK = 128
"""The blocks in which a channel with one scale is read; less where it is shorter."""

SIGN = -128
"""The bit that makes a signed byte the unsigned one 128 above it."""


def is_n_bits(op: Op) -> bool:
    """Whether it is a product by a kernel of few bits whose outputs are its channels."""
    form, shape = parse_format(op.attribute_dict["format"]), op.attribute_dict["shape"]
    x = op.operands[0]
    assert x is not None
    has_scales = isinstance(form, (BlockFormat, Q4_0, Q8_0)) or (isinstance(form, Int8) and not form.tensor)
    return has_scales and form.channel_axis(2) == 1 and x.dtype is f32 and x.ndim > 1 and all(shape)


def quantized_linear(
    graph: GraphWriter,
    op: Op,
    x: Tensor,
    bias: Tensor | None,
    values: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
) -> Tensor:
    form, (inputs, outputs) = parse_format(op.attribute_dict["format"]), op.attribute_dict["shape"]
    product = Product(graph, x, inputs, outputs, block_of(form, inputs, outputs))
    scales = graph.cast(scales, f32)
    match form:
        case BlockFormat():
            if form.block is None:
                scales = product.spread(scales)
                zero_points = None if zero_points is None else product.pairs(zero_points)
            if isinstance(form, Int3):
                values = _low_halves(graph, _three_bits(graph, values, outputs, -(-inputs // 8)), inputs)
                zero_points = zero_points or product.zeros(form.middle)
            y = product.of_nibbles(values, scales, zero_points)
        case Q4_0():
            halves = [graph.compute("BitwiseAnd", values, graph.constant(15, u8)), _high(graph, values)]
            whole = graph.reshape(graph.compute("Concat", *halves, axis=2), (outputs, inputs))
            y = product.of_nibbles(_low_halves(graph, whole, inputs), scales)
        case Q8_0():
            y = product.of_bytes(graph.reshape(values, (outputs, inputs)), scales)
        case _:
            y = product.of_bytes(graph.transpose(values, (1, 0)), product.spread(scales), zero_points)
    return y if bias is None else graph.compute("Add", y, bias)


def block_of(form: Any, inputs: int, outputs: int) -> int:
    """The inputs that share a scale in the kernel: a power of two from 16 on."""
    if isinstance(form, (Q4_0, Q8_0)):
        return BLOCK
    if isinstance(form, BlockFormat) and form.block is not None:
        return form.size((inputs, outputs))
    return min(CHANNEL_BLOCK, max(16, 1 << (inputs - 1).bit_length()))


class Product:
    """The product of `x` with a kernel in blocks of inputs."""

    def __init__(self, graph: GraphWriter, x: Tensor, inputs: int, outputs: int, block: int) -> None:
        self.graph, self.x, self.inputs, self.outputs, self.block = graph, x, inputs, outputs, block
        self.blocks = -(-inputs // block)

    def spread(self, channels: Tensor) -> Tensor:
        """An element for each output as one for each of its blocks."""
        column = self.graph.reshape(channels, (self.outputs, 1))
        return self.graph.compute("Expand", column, self.graph.integers(self.outputs, self.blocks))

    def pairs(self, channels: Tensor) -> Tensor:
        """Four bits for each output as those of each of its blocks, two a byte."""
        graph = self.graph
        twice = graph.compute(
            "BitwiseOr", channels, graph.compute("BitShift", channels, graph.constant(4, u8), direction="LEFT")
        )
        column = graph.reshape(twice, (self.outputs, 1))
        return graph.compute("Expand", column, graph.integers(self.outputs, -(-self.blocks // 2)))

    def zeros(self, value: int) -> Tensor:
        """The zero points of all blocks, two a byte, where they are the same."""
        return self.graph.full((self.outputs, -(-self.blocks // 2)), value << 4 | value, u8)

    def of_nibbles(self, values: Tensor, scales: Tensor, zero_points: Tensor | None = None) -> Tensor:
        """With values u8[outputs, ⌈inputs / 2⌉] of two each, less their zero points, two a byte as well (None: 8)."""
        graph = self.graph
        missing = self.blocks * self.block // 2 - -(-self.inputs // 2)
        if missing:
            values = graph.compute("Pad", values, graph.integers(0, 0, 0, missing))
        values = graph.reshape(values, (self.outputs, self.blocks, self.block // 2))
        names = [self.x.name, values.name, scales.name, *([] if zero_points is None else [zero_points.name])]
        sizes = {"K": self.inputs, "N": self.outputs, "bits": 4, "block_size": self.block}
        return graph.contrib("MatMulNBits", names, f32, **sizes)

    def of_bytes(self, values: Tensor, scales: Tensor, zero_points: Tensor | None = None) -> Tensor:
        """With values [outputs, inputs] of 8 bits, less the zero point of their output."""
        graph = self.graph
        values = _unsigned(graph, values)
        high, low = _high_halves(graph, values, self.inputs), _low_halves(graph, values, self.inputs)
        zeros = [None, self.zeros(0)]  # that of signed bytes is 8 · 16 + 0
        if zero_points is not None:
            whole = _unsigned(graph, zero_points)
            low_bits = graph.compute("BitwiseAnd", whole, graph.constant(15, u8))
            zeros = [self.pairs(_high(graph, whole)), self.pairs(low_bits)]
        sixteen = graph.compute("Mul", scales, graph.constant(16, f32))
        return graph.compute("Add", self.of_nibbles(high, sixteen, zeros[0]), self.of_nibbles(low, scales, zeros[1]))


def _unsigned(graph: GraphWriter, x: Tensor) -> Tensor:
    """Signed bytes moved up by 128."""
    return x if x.dtype is u8 else graph.cast(graph.compute("BitwiseXor", x, graph.constant(SIGN, i8)), u8)


def _high(graph: GraphWriter, x: Tensor) -> Tensor:
    return graph.compute("BitShift", x, graph.constant(4, u8), direction="RIGHT")


def _three_bits(graph: GraphWriter, values: Tensor, outputs: int, width: int) -> Tensor:
    """The values [outputs, 8 · width] of which these u8[outputs, 3, width] are the bits."""
    places, weights = graph.constant(np.arange(8), u8), graph.constant([[0], [1], [2]], u8)
    column = graph.reshape(values, (outputs, 3, width, 1))
    bits = graph.compute(
        "BitwiseAnd", graph.compute("BitShift", column, places, direction="RIGHT"), graph.constant(1, u8)
    )
    bits = graph.compute("BitShift", graph.reshape(bits, (outputs, 3, 8 * width)), weights, direction="LEFT")
    one, two, four = graph.several("Split", [bits.name], [u8, u8, u8], axis=1, num_outputs=3)
    whole = graph.compute("BitwiseOr", graph.compute("BitwiseOr", one, two), four)
    return graph.reshape(whole, (outputs, 8 * width))


def _pairs(graph: GraphWriter, x: Tensor, width: int) -> list[Tensor]:
    """The columns of even and of odd number of bytes [n, width], as many of each."""
    if width % 2:
        x = graph.compute("Pad", x, graph.integers(0, 0, 0, 1))
    ends = graph.integers(width + width % 2)
    return [graph.slice(x, graph.integers(start), ends, [1], [2]) for start in (0, 1)]


def _low_halves(graph: GraphWriter, x: Tensor, width: int) -> Tensor:
    """The low four bits of bytes [n, width], two a byte."""
    first, second = _pairs(graph, x, width)
    low = graph.compute("BitwiseAnd", first, graph.constant(15, u8))
    return graph.compute("BitwiseOr", low, graph.compute("BitShift", second, graph.constant(4, u8), direction="LEFT"))


def _high_halves(graph: GraphWriter, x: Tensor, width: int) -> Tensor:
    """The high four bits of bytes [n, width], two a byte."""
    first, second = _pairs(graph, x, width)
    return graph.compute("BitwiseOr", _high(graph, first), graph.compute("BitwiseAnd", second, graph.constant(240, u8)))


SPELLING = {"quantized_linear": quantized_linear}
WHEN = {"quantized_linear": is_n_bits}
