"""Builds one function as an OpenVINO model: parameters, constants, named nodes, symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as opset

from graphc.ir.dims import Dim, Size, lower_with
from graphc.ir.dtypes import DType, i64
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import WeightTable
from graphc.ir.recipes import Permute, Recipe, Reshape, Step

Node = Any
"""A node of OpenVINO, or one of its outputs."""

Spelling = Callable[..., Node]
Layout = Callable[[Op, int], tuple[Step, ...]]

TYPE = openvino.Type
ELEMENT_TYPES: dict[str, Any] = {
    "bool": TYPE.boolean, "int8": TYPE.i8, "int16": TYPE.i16, "int32": TYPE.i32, "uint8": TYPE.u8, "uint16": TYPE.u16,
    "float32": TYPE.f32,
}  # fmt: skip
"""Of what is stored bit by bit; 64-bit integers are made 32-bit ones by the CPU plugin."""


class ModelBuilder:
    """The nodes of a model while it is built. A spelling gets this, the op and the nodes of its operands.

    `layout` says how an op wants a weight stored that is its operand at an index.
    """

    def __init__(self, spelling: Mapping[str, Spelling], layout: Layout) -> None:
        self.spelling = spelling
        self.layout = layout
        self.values: dict[Value, Node] = {}
        self.stored: dict[Value, tuple[Step, ...]] = {}
        self.inputs: list[Node] = []
        self.base = ""
        self._places: dict[Dim, tuple[Node, int]] = {}
        self._sizes: dict[Size, Node] = {}
        self._taken: dict[str, int] = {}
        self._weights: dict[str, Node] = {}

    def build(self, function: Function, weights: WeightTable, recipes: dict[str, Recipe]) -> Any:
        """The model of a function; notes in `recipes` how each weight is stored."""
        for parameter in function.parameters:  # first, so that each has its own name, by which it is found again
            if parameter.weight is not None:
                self._add_weight(parameter.value, weights.source(parameter.weight).name, weights, recipes)
        for parameter in function.parameters:
            if parameter.weight is None:
                self._add_input(parameter.value, parameter.name)
        for op in function.block:
            if op.next is not None:
                self._write(op)
        results: list[Any] = []
        for i, (result, value) in enumerate(zip(function.results, function.outputs, strict=True)):
            name = result.name or f"output_{i}"
            node = self._named(opset.result(self.values[value]), f"{name}/result")
            node.output(0).get_tensor().add_names({name})
            results.append(node)
        model: Any = openvino.Model  # whose own annotations contradict each other
        return model(results, self.inputs, function.name)

    def _add_input(self, value: Value, name: str) -> None:
        shape = openvino.PartialShape([size if isinstance(size, int) else -1 for size in value.shape])
        node = self._named(opset.parameter(shape, ELEMENT_TYPES[value.dtype]), name)
        node.output(0).get_tensor().set_names({name})
        self.inputs.append(node)
        self.values[value] = node
        for axis, size in enumerate(value.shape):
            if isinstance(size, Dim) and size.is_symbol:
                self._places.setdefault(size, (node, axis))

    def _add_weight(self, value: Value, name: str, weights: WeightTable, recipes: dict[str, Recipe]) -> None:
        """A constant that stands for a weight, in the layout that its readers want if they want the same."""
        wanted = {
            self.layout(op, index)
            for op in value.uses or ()
            for index, operand in enumerate(op.operands)
            if operand is value
        }
        steps = wanted.pop() if len(wanted) == 1 else ()
        recipe = Recipe((name,), steps)
        if recipes.setdefault(name, recipe) != recipe:
            raise UnsupportedError(f"entries want the weight {name!r} in different layouts, which openvino lacks yet")
        if name not in self._weights:
            array = recipe.apply({name: weights[name]})
            self._weights[name] = self._named(opset.constant(np.ascontiguousarray(array).reshape(array.shape)), name)
        self.values[value] = self._weights[name]
        self.stored[value] = steps

    def _write(self, op: Op) -> None:
        path, values = op.location.scope.path, self.values
        self.base = (f"{path}/" if path else "") + (op.results[0].name or op.name)
        operands = [v if v is None else values[v] for v in op.operands]
        found = self.spelling[op.name](self, op, *operands)
        if not any(found is operand for operand in operands):
            self._named(found, self.base)
        values[op.results[0]] = found

    def _named(self, node: Node, name: str) -> Node:
        """The node under this name, or with a number after it where that is taken."""
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        owner = node.get_node() if isinstance(node, openvino.Output) else node
        owner.set_friendly_name(f"{name}_{count}" if count else name)
        return node

    # --- what spellings are written with ------------------------------------------------------------------------

    def add(self, kind: str, *operands: Any, **attributes: Any) -> Node:
        """A node of OpenVINO's op set."""
        return self._named(getattr(opset, kind)(*operands, **attributes), f"{self.base}.{kind}")

    def constant(self, value: Any, dtype: DType) -> Node:
        return self._named(opset.constant(np.asarray(value).astype(dtype.numpy)), f"{self.base}.constant")

    def transpose(self, x: Node, permutation: Sequence[int]) -> Node:
        return self.add("transpose", x, self.constant(permutation, i64))

    def reshape(self, x: Node, shape: Sequence[Size]) -> Node:
        """`x` under another shape; one unknown size is found by OpenVINO."""
        unknown = [size for size in shape if isinstance(size, Dim)]
        if not unknown or (len(unknown) == 1 and 0 not in shape):
            target = self.constant([size if isinstance(size, int) else -1 for size in shape], i64)
        else:
            target = self.add("concat", [self.size(size) for size in shape], 0)
        return self.add("reshape", x, target, special_zero=False)

    def rearranged(self, value: Value | None, x: Node, steps: tuple[Step, ...]) -> Node:
        """`x` after the steps, which cost nothing for a weight that is stored so."""
        stored = () if value is None else self.stored.get(value, ())
        if stored == steps:
            return x
        for step in steps:
            if isinstance(step, Permute):
                x = self.transpose(x, step.axes)
            elif isinstance(step, Reshape):
                x = self.reshape(x, step.after)
        return x

    # --- sizes ----------------------------------------------------------------------------------------------------

    def size(self, size: Size) -> Node:
        """A size as an int64 vector of one element."""
        found = self._sizes.get(size)
        if found is None:
            found = self._sizes[size] = lower_with(size, _Sizes(self))
        return found

    def symbol(self, symbol: Dim) -> Node:
        """A symbol, read from the shape of an input."""
        if symbol not in self._places:
            raise UnsupportedError(f"the size {symbol} stands alone in the shape of no input")
        node, axis = self._places[symbol]
        shape = self.add("shape_of", node, output_type="i64")
        return self.add("gather", shape, self.constant([axis], i64), self.constant(0, i64))


class _Sizes:
    """The algebra that `lower_with` folds sizes with."""

    def __init__(self, builder: ModelBuilder) -> None:
        self.builder = builder

    def const(self, value: int) -> Node:
        return self.builder.constant([value], i64)

    def symbol(self, symbol: Dim) -> Node:
        return self.builder.symbol(symbol)

    def add(self, a: Node, b: Node) -> Node:
        return self.builder.add("add", a, b)

    def mul(self, a: Node, b: Node) -> Node:
        return self.builder.add("multiply", a, b)

    def floordiv(self, a: Node, b: Node) -> Node:
        return self.builder.add("divide", self.builder.add("subtract", a, self.mod(a, b)), b)

    def mod(self, a: Node, b: Node) -> Node:
        return self.builder.add("floor_mod", a, b)

    def min(self, a: Node, b: Node) -> Node:
        return self.builder.add("minimum", a, b)

    def max(self, a: Node, b: Node) -> Node:
        return self.builder.add("maximum", a, b)
