"""Writes one function as an ONNX graph: values, nodes, constants, and the graphs inside `If` and `Loop`.

A spelling gets a `GraphWriter` and the op's operands as `Tensor`s (a name and a dtype), makes nodes, and returns the
results. `compute` is how: it casts where ONNX Runtime has no kernel for the dtype (see `kernels`). Each op costs a few
microseconds; protos are made in place, never copied but for the body of a region.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import AttributeProto, GraphProto, TensorProto, ValueInfoProto

from graphc.codegen.onnx.kernels import ELEMENT_TYPES, carrier
from graphc.ir.dims import Dim, Size
from graphc.ir.dtypes import DType, bool_, i8, i64, u8
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Block, Value
from graphc.ir.location import ROOT
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.codegen.onnx.sizes import Sizes
    from graphc.codegen.onnx.spelling import Spelling
    from graphc.codegen.onnx.weights import StoredWeights

Array = np.ndarray[Any, Any]


class Tensor(NamedTuple):
    """A value of the ONNX graph."""

    name: str
    dtype: DType


class GraphWriter:
    """The graph of one function while it is written. `spelling` says how each op is written."""

    def __init__(self, proto: GraphProto, spelling: Mapping[str, Spelling]) -> None:
        from graphc.codegen.onnx.sizes import Sizes

        self.proto = proto
        self.spelling = spelling
        self.values: dict[Value, Tensor] = {}
        self.stored: dict[str, tuple[int, ...]] = {}
        self.sizes: Sizes = Sizes(self)
        self.needs_bitcast = False
        self.needs_contrib = False
        self._root = proto.node
        self._nodes = proto.node
        self._last: Any = None
        self.base = ""
        self._taken: dict[str, int] = {"": 0}
        self._wanted: dict[Value, str] = {}
        self._constants: dict[tuple[DType, tuple[int, ...], bytes], Tensor] = {}
        self._weights: set[str] = set()
        self._arrays: dict[str, Array] = {}
        self._known: list[dict[Any, Tensor]] = [{}]

    # --- the function -----------------------------------------------------------------------------------------

    def add_input(self, value: Value, name: str) -> Tensor:
        """An input of the graph that stands for a parameter."""
        outside = at_border(value.type)
        tensor = Tensor(self.unique(name), outside.dtype)
        self.proto.input.append(value_info(tensor.name, outside))
        self.base = name
        self.values[value] = self.cast(tensor, value.dtype)
        return tensor

    def add_weight(self, value: Value, name: str, weights: StoredWeights) -> None:
        """An initializer that stands for a parameter; tied names share one. Where weights can be set, it is the default
        of an input."""
        if name not in self._weights:
            reserved = self.unique(name)
            if reserved != name:
                raise UnsupportedError(f"the weight {name!r} has the name of an input")
            self._weights.add(name)
            weights.add(self.proto, name)
            permutation = weights.permutations.get(name)
            if permutation is not None:
                self.stored[name] = permutation
            if name in weights.mutable and not weights.is_input(name):
                raise UnsupportedError(f"ONNX Runtime cannot update the weight {name!r} of {value.dtype}")
            if weights.is_input(name):
                shape = value.type.shape
                stored = shape if permutation is None else [shape[axis] for axis in permutation]
                self.proto.input.append(value_info(name, TensorType.of(value.dtype, stored)))
        self.values[value] = Tensor(name, value.dtype)

    def want(self, value: Value, name: str) -> None:
        """Let the tensor of a value have this name, which must be reserved by `unique`."""
        self._wanted.setdefault(value, name)

    def function(self, block: Block, names: Sequence[str]) -> None:
        """Write the block of a function; its results are the graph's outputs, called `names` (reserved)."""
        for value, name in zip(block.outputs, names, strict=True):
            if value.op is not None and at_border(value.type) is value.type:
                self.want(value, name)
        for value, tensor, name in zip(block.outputs, self.block(block), names, strict=True):
            outside = at_border(value.type)
            if tensor.dtype is not outside.dtype:
                self._append("Cast", [tensor.name], [name], {"to": ELEMENT_TYPES[outside.dtype]})
            elif tensor.name != name:
                self._append("Identity", [tensor.name], [name], {})
            self.proto.output.append(value_info(name, outside))

    def block(self, block: Block) -> list[Tensor]:
        """Write the ops of a block; returns what its terminator hands out."""
        values, spelling = self.values, self.spelling
        for op in block:
            if op.next is None:
                return [values[v] for v in op.operands]  # type: ignore[index]
            results = op.results
            scope, named = op.location.scope, results[0].name if results else None
            self.base = (f"{scope.path}/" if scope is not ROOT else "") + (named or op.name)
            self._last = None
            found = spelling[op.name](self, op, *[v if v is None else values[v] for v in op.operands])
            if type(found) is Tensor:
                values[results[0]] = self._named(results[0], found)
            else:
                for value, tensor in zip(results, found, strict=True):
                    values[value] = self._named(value, tensor)
        raise UnsupportedError("a block without a return or yield cannot be written")

    def _named(self, value: Value, tensor: Tensor) -> Tensor:
        """Give the output of the op's last node the op's own name, in place of one for something in between."""
        last = self._last
        if last is None or last.output[0] != tensor.name:
            return tensor
        name = self._wanted.pop(value, None) or self.unique(self.base)
        last.output[0] = last.name = name
        return Tensor(name, tensor.dtype)

    def unique(self, name: str) -> str:
        """`name`, or with a number after it where that is taken."""
        taken = self._taken
        count = taken.get(name)
        if count is None:
            taken[name] = 1
            return name
        while True:
            numbered = f"{name}_{count}"
            count += 1
            if numbered not in taken:
                taken[name] = count
                taken[numbered] = 1
                return numbered

    # --- nodes ------------------------------------------------------------------------------------------------

    def node(self, kind: str, inputs: Sequence[str], dtype: DType, **attributes: Any) -> Tensor:
        """A node of one output, on operands as they are."""
        name = self.unique(f"{self.base}.{kind}")
        self._append(kind, inputs, [name], attributes)
        return Tensor(name, dtype)

    def nodes(
        self, kind: str, inputs: Sequence[str], values: Sequence[Value], named: bool = True, **attributes: Any
    ) -> list[Tensor]:
        """A node whose outputs are the values of an op, with their own names where `named` and outside of bodies."""
        named = named and self._nodes is self._root
        names = [(self._wanted.pop(value, None) if named else None) or self.unique(self.base) for value in values]
        self._append(kind, inputs, names, attributes)
        self._last = None
        return [Tensor(name, value.dtype) for name, value in zip(names, values, strict=True)]

    def contrib(self, kind: str, inputs: Sequence[str], dtype: DType, **attributes: Any) -> Tensor:
        """A node of ONNX Runtime's own ops; "" stands for an input that is left out."""
        found = self.node(kind, inputs, dtype, **attributes)
        self._last.domain = "com.microsoft"
        self.needs_contrib = True
        return found

    def several(self, kind: str, inputs: Sequence[str], dtypes: Sequence[DType], **attributes: Any) -> list[Tensor]:
        """A node of several outputs, on operands as they are."""
        names = [self.unique(f"{self.base}.{kind}") for _ in dtypes]
        self._append(kind, inputs, names, attributes)
        return [Tensor(name, dtype) for name, dtype in zip(names, dtypes, strict=True)]

    def _append(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: dict[str, Any]) -> None:
        node = self._nodes.add(op_type=kind, input=inputs, output=outputs, name=outputs[0])
        if attributes:
            node.attribute.extend([attribute(name, value) for name, value in attributes.items()])
        self._last = node

    def compute(self, kind: str, *operands: Tensor | str, result: DType | None = None, **attributes: Any) -> Tensor:
        """A node whose operands of one dtype are computed in that dtype's carrier; those given as names go in as they
        are. The result has the operands' dtype, or `result` where the node gives that itself.
        """
        dtype = next(t.dtype for t in operands if not isinstance(t, str))
        inside = carrier(kind, dtype)
        if inside is None:
            raise UnsupportedError(f"ONNX Runtime has no {kind} for {dtype}")
        names = [
            t if isinstance(t, str) else t.name if inside is dtype else self.cast(t, inside).name for t in operands
        ]
        found = self.node(kind, names, result or inside, **attributes)
        return found if inside is dtype or result is not None else self.cast(found, dtype)

    def cast(self, x: Tensor, dtype: DType) -> Tensor:
        """`x` cast as ONNX does it; a spelling of `convert` knows where that is not what graphc means."""
        if x.dtype is dtype:
            return x
        array = self._arrays.get(x.name)
        if array is not None and not (x.dtype.is_float and dtype.is_integer):
            return self.constant(array, dtype)
        saturate = {"saturate": 0} if dtype.is_float and dtype.bits == 8 else {}
        return self.node("Cast", [x.name], dtype, to=ELEMENT_TYPES[dtype], **saturate)

    def where(self, condition: Tensor, on_true: Tensor, on_false: Tensor) -> Tensor:
        """A choice by a bool tensor."""
        return self.compute("Where", condition.name, on_true, on_false)

    def is_nan(self, x: Tensor) -> Tensor:
        return self.compute("IsNaN", x, result=bool_)

    # --- constants --------------------------------------------------------------------------------------------

    def constant(self, value: Any, dtype: DType) -> Tensor:
        """A number or small array as an initializer, shared by all that need it."""
        array = np.asarray(value).astype(dtype.numpy)
        data = array.tobytes()
        key = (dtype, array.shape, data)
        found = self._constants.get(key)
        if found is None:
            text = str(array.tolist()).replace(" ", "") if array.size <= 6 else "x".join(map(str, array.shape))
            name = self.unique(f"{dtype.short}{text}" if array.ndim and array.size <= 6 else f"{dtype.short}({text})")
            tensor_proto(self.proto.initializer.add(), name, array, dtype)
            found = self._constants[key] = Tensor(name, dtype)
            self._arrays[name] = array
        return found

    def drop_unread_constants(self) -> None:
        """Take away constants that were folded into others, of which ONNX Runtime would warn. Linear."""
        unread = {tensor.name for tensor in self._constants.values()} - _names_read(self.proto)
        for number in reversed([i for i, each in enumerate(self.proto.initializer) if each.name in unread]):
            del self.proto.initializer[number]

    def integers(self, *values: int) -> str:
        """The name of a vector of int64 constants: axes, pads."""
        return self.constant(np.array(values, np.int64), i64).name

    def full(self, shape: Sequence[Size], value: Any, dtype: DType) -> Tensor:
        """A tensor that holds one number everywhere."""
        scalar = self.constant(value, dtype)
        return self.compute("Expand", scalar, self.sizes.shape(shape)) if shape else scalar

    # --- shapes -----------------------------------------------------------------------------------------------

    def reshape(self, x: Tensor, shape: Sequence[Size]) -> Tensor:
        """`x` under another shape of as many elements."""
        return self.compute("Reshape", x, self.sizes.reshape_target(shape), allowzero=1)

    def transpose(self, x: Tensor, permutation: Sequence[int]) -> Tensor:
        if list(permutation) == list(range(len(permutation))):
            return x
        return self.compute("Transpose", x, perm=tuple(permutation))

    def slice(self, x: Tensor, starts: str, limits: str, axes: Sequence[int], steps: Sequence[int]) -> Tensor:
        """Part of `x` along some axes; `starts` and `limits` name int64 vectors."""
        return self.compute("Slice", x, starts, limits, self.integers(*axes), self.integers(*steps))

    def permuted_weight(self, x: Tensor, permutation: tuple[int, ...]) -> Tensor:
        """`x` transposed, which costs nothing for a weight that is stored so."""
        return x if self.stored.get(x.name) == permutation else self.transpose(x, permutation)

    # --- graphs inside ----------------------------------------------------------------------------------------

    def lookup(self, key: Any) -> Tensor | None:
        """A tensor remembered by `remember`, here or in a graph around this one."""
        for known in reversed(self._known):
            found = known.get(key)
            if found is not None:
                return found
        return None

    def remember(self, key: Any, tensor: Tensor) -> Tensor:
        """Keep a tensor for later nodes of this graph and of those inside it."""
        self._known[-1][key] = tensor
        return tensor

    @contextmanager
    def in_root(self, base: str) -> Iterator[None]:
        """Let nodes go into the outermost graph, ahead of what is being written inside; they are named after `base`."""
        saved = self._nodes, self.base, self._last, self._known
        self._nodes, self.base, self._known = self._root, base, self._known[:1]
        try:
            yield
        finally:
            self._nodes, self.base, self._last, self._known = saved

    def subgraph(self, inputs: Sequence[tuple[str, TensorType]], write: Any, types: Sequence[TensorType]) -> GraphProto:
        """The graph that `write()` writes; it returns the tensors that the graph hands out, which have `types`.

        Like every graph in ONNX it sees what stands before it outside.
        """
        proto = GraphProto(name=self.unique(f"{self.base}.body"))
        for name, type in inputs:
            proto.input.append(value_info(name, type))
        outer, self._nodes = self._nodes, proto.node
        base, self._last = self.base, None
        self._known.append({})
        try:
            tensors = write()
            made = {name for node in proto.node for name in node.output}
            for tensor, type in zip(tensors, types, strict=True):
                self.base = base
                name = tensor.name
                if name in made:
                    made.discard(name)  # an output only once
                else:
                    name = self.node("Identity", [name], tensor.dtype).name
                proto.output.append(value_info(name, type))
        finally:
            self._known.pop()
            self._nodes, self.base, self._last = outer, base, None
        return proto


def _names_read(graph: GraphProto) -> set[str]:
    """What nodes read, also those of graphs within them, and what is handed out."""
    found = {output.name for output in graph.output}
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _names_read(attribute.g)
    return found


# --- protos -------------------------------------------------------------------------------------------------------


def at_border(type: TensorType) -> TensorType:
    """The type an input or output has: 4-bit integers, which the runtime's interface lacks, are 8-bit there."""
    return type.with_dtype(i8 if type.dtype.kind == "i" else u8) if type.dtype.bits == 4 else type


def value_info(name: str, type: TensorType) -> ValueInfoProto:
    """A typed value; symbolic sizes become dimension parameters."""
    info = ValueInfoProto(name=name)
    tensor = info.type.tensor_type
    tensor.elem_type = ELEMENT_TYPES[type.dtype]
    tensor.shape.SetInParent()
    for size in type.shape:
        if isinstance(size, Dim):
            tensor.shape.dim.add(dim_param=str(size))
        else:
            tensor.shape.dim.add(dim_value=size)
    return info


def tensor_proto(proto: TensorProto, name: str, array: Array, dtype: DType) -> TensorProto:
    """Fill `proto` with an array as raw data."""
    proto.name = name
    proto.data_type = ELEMENT_TYPES[dtype]
    proto.dims.extend(array.shape)
    proto.raw_data = raw_data(array, dtype)
    return proto


def raw_data(array: Array, dtype: DType) -> bytes:
    """The elements as ONNX stores them: rows, little-endian, 4-bit integers in pairs."""
    if dtype.bits == 4 and not dtype.is_bool:
        nibbles = array.astype(np.int8).ravel().view(np.uint8) & 15
        nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
        return (nibbles[::2] | (nibbles[1::2] << 4)).tobytes()
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def attribute(name: str, value: Any) -> AttributeProto:
    """An attribute of a node, by the type of its value."""
    if isinstance(value, GraphProto):
        return AttributeProto(name=name, type=AttributeProto.GRAPH, g=value)
    return _attribute(name, value, tuple if isinstance(value, tuple) else type(value))


@cache
def _attribute(name: str, value: Any, kind: type) -> AttributeProto:
    if kind is tuple:
        return AttributeProto(name=name, type=AttributeProto.INTS, ints=value)
    if kind is str:
        return AttributeProto(name=name, type=AttributeProto.STRING, s=value.encode())
    if kind is float:
        return AttributeProto(name=name, type=AttributeProto.FLOAT, f=value)
    return AttributeProto(name=name, type=AttributeProto.INT, i=value)
