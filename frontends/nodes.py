"""Nodes: the calls that a functional model is made of. Each has an operation, arguments, outputs and where it was made.

An operation is a layer, a declared op, a function of `graphc.ops`, or a closure over symbolic tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from graphc.frontends.recording import Recording
from graphc.frontends.scopes import Chain, current_chain, user_line
from graphc.frontends.structures import flatten, map_structure
from graphc.frontends.symbolic import SymbolicTensor
from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Value
from graphc.ir.location import ROOT, Location, Scope

_numbers = count()


class Node:
    """One call: `operation(*args, **kwargs)` gave `outputs`. Nodes are numbered in the order they were made."""

    __slots__ = (
        "args",
        "captured",
        "chain",
        "file",
        "kwargs",
        "line",
        "number",
        "operation",
        "output_structure",
        "outputs",
    )

    def __init__(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        chain: Chain = (),
        file: str = "",
        line: int = 0,
    ) -> None:
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.chain = chain
        self.file = file
        self.line = line
        self.captured: list[SymbolicTensor] = []
        self.outputs: list[SymbolicTensor] = []
        self.output_structure: Any = None
        self.number = next(_numbers)

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic tensors among the arguments, then those a closure reads."""
        return [*symbolic_leaves((self.args, self.kwargs)), *self.captured]

    @property
    def parents(self) -> list[Node]:
        """The nodes the inputs come from, each once."""
        return list(dict.fromkeys(tensor.node for tensor in self.inputs))

    @property
    def is_input(self) -> bool:
        return (
            not self.args and not self.kwargs and not self.captured and bool(getattr(self.operation, "is_input", False))
        )

    @property
    def layer(self) -> Any:
        """The operation if it is a layer, else None."""
        return self.operation if hasattr(self.operation, "inbound_nodes") else None

    @property
    def owner(self) -> Any:
        """What the call is one of: the layer; the call of an op stands alone."""
        return self if self.layer is None else self.operation

    @property
    def name(self) -> str:
        """The name of the layer or op."""
        return operation_name(self.operation)

    @property
    def place(self) -> str:
        """Layer and source line, for messages."""
        kind = "layer" if self.layer is not None else "op"
        where = f", {self.file}:{self.line}" if self.file else ""
        return f"{kind} {self.name!r}{where}"


class Closure:
    """A function of the user's inside an op (`cond`, `while_loop`, …) as a node's operation. It cannot be saved."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def is_closure(node: Node) -> bool:
    """Whether the node's operation is a Python function of the user's."""
    return isinstance(node.operation, Closure)


def operation_name(operation: Any) -> str:
    """The name of a layer, a declared op or a function."""
    return getattr(operation, "name", None) or getattr(operation, "__name__", "op").strip("_")


def symbolic_leaves(structure: Any) -> list[SymbolicTensor]:
    """The symbolic tensors in a structure of arguments."""
    return [leaf for leaf in flatten(structure) if isinstance(leaf, SymbolicTensor)]


def is_symbolic(*structures: Any) -> bool:
    """Whether any argument is a symbolic tensor."""
    return any(isinstance(leaf, SymbolicTensor) for leaf in flatten(list(structures)))


def record(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], function: Any = None) -> Any:
    """A node for `operation(*args, **kwargs)`; returns its outputs as symbolic tensors.

    `function` is what is run to find the output types, the operation itself by default.
    """
    file, line = user_line()
    node = Node(operation, args, kwargs, current_chain(), file, line)
    scope = Scope.of(ROOT, node.name.replace("/", "_")) if node.layer is not None else ROOT
    recording = Recording()
    with recording.active(), Builder(recording.function.block, location=Location.of(scope, file, line)) as builder:
        for tensor in node.inputs:
            if id(tensor) not in recording.values:
                recording.values[id(tensor)] = recording.function.add_parameter(tensor.tensor_type, tensor.name)
        values = map_structure(
            lambda leaf: recording.values[id(leaf)] if isinstance(leaf, SymbolicTensor) else leaf, (args, kwargs)
        )
        found = (function or operation)(*values[0], **values[1])
        if any(leaf is None or isinstance(leaf, str) for leaf in flatten(found)):
            raise GraphcError(f"a call must return tensors, this one returned {found!r}").at(node.place)
        found = map_structure(builder.value, found)
    node.captured = recording.captured
    return finish(node, found)


def finish(node: Node, found: Any) -> Any:
    """Give `node` an output for each value in `found`, and its layer the node."""
    several = len(flatten(found)) > 1
    base = unique_tensor_name(node)

    def output(value: Value) -> SymbolicTensor:
        index = len(node.outputs)
        tensor = SymbolicTensor(value.type, node, index, f"{base}_{index}" if several else base)
        node.outputs.append(tensor)
        return tensor

    node.output_structure = map_structure(output, found)
    if node.layer is not None:
        node.layer.inbound_nodes.append(node)
    return node.output_structure


def unique_tensor_name(node: Node) -> str:
    """A name for what the node gives: the layer's, with the number of the call for a layer called again."""
    if node.layer is None:
        return node.name
    calls = len(node.layer.inbound_nodes)
    return f"{node.name}.{calls}" if calls else node.name
