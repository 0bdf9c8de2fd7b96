"""The configuration of a functional model: layers and ops with their calls, in the form Keras writes.

Beyond Keras's: each call says its place in the order of calls, its scope and its source line, so that a loaded model
has the same weight names and lowers to the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.frontends import serialization
from graphc.frontends.graph import FunctionGraph
from graphc.frontends.layer_paths import layer_paths
from graphc.frontends.nodes import Node, is_closure
from graphc.frontends.ops.dispatch import FUNCTIONS
from graphc.frontends.scopes import Invocation, call_site, saved_chain
from graphc.frontends.structures import map_structure
from graphc.frontends.symbolic import SymbolicTensor, is_unnamed
from graphc.frontends.variable import Variable
from graphc.ir.dims import Dim, parse_size, substitute, symbols
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.opdef import OPS, OpDef


def graph_config(graph: FunctionGraph) -> dict[str, Any]:
    """The entries "layers", "input_layers" and "output_layers" of a model's config."""
    return serialization.written_together(_Writer(graph).config)


class _Writer:
    def __init__(self, graph: FunctionGraph) -> None:
        self.graph = graph
        inputs = [t.node for t in graph.flat_inputs if id(t.node) not in {id(n) for n in graph.nodes}]
        self.nodes: list[Node] = [*inputs, *graph.nodes]
        self.position = {id(node): index for index, node in enumerate(self.nodes)}
        self.calls: dict[int, list[Node]] = {}
        for node in self.nodes:
            self.calls.setdefault(id(node.owner), []).append(node)

    def config(self) -> dict[str, Any]:
        first = {id(node.owner): node for node in reversed(self.nodes)}
        entries = [self._entry(first[id(owner)]) for owner in self.graph.operations]
        return {
            "layers": entries,
            "input_layers": map_structure(self._history, self.graph.inputs),
            "output_layers": map_structure(self._history, self.graph.outputs),
        }

    def _entry(self, node: Node) -> dict[str, Any]:
        key = self.graph.names[id(node.owner)]
        if node.layer is not None:
            entry = serialization.serialize(node.layer)
        elif is_closure(node):
            raise GraphcError(
                f"{node.place} holds a Python function, which cannot be saved; put it into a layer's `call`"
            )
        else:
            kind = "graphc.ir.ops" if isinstance(node.operation, OpDef) else "graphc.ops"
            entry = {"module": kind, "class_name": node.name, "config": {}, "registered_name": None}
        calls = [self._call(call) for call in self.calls[id(node.owner)] if not call.is_input]
        return {**entry, "name": key, "inbound_nodes": calls}

    def _call(self, node: Node) -> dict[str, Any]:
        return {
            "args": self._written(list(node.args)),
            "kwargs": self._written(node.kwargs),
            "index": self.position[id(node)],
            "scope": list(self.graph.scopes[id(node)]),
            "source": [node.file, node.line],
        }

    def _history(self, tensor: SymbolicTensor) -> list[Any]:
        owner = id(tensor.node.owner)
        return [self.graph.names[owner], self.calls[owner].index(tensor.node), tensor.output_index]

    def _written(self, structure: Any) -> Any:
        if isinstance(structure, dict):
            return {key: self._written(value) for key, value in structure.items()}
        if isinstance(structure, tuple):
            return {"class_name": "__tuple__", "config": {"items": [self._written(item) for item in structure]}}
        if isinstance(structure, list):
            return [self._written(item) for item in structure]
        if isinstance(structure, slice):
            ends = (structure.start, structure.stop, structure.step)
            return {"class_name": "__slice__", "config": {"items": [self._written(end) for end in ends]}}
        return self._leaf(structure)

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, SymbolicTensor):
            config = {"shape": serialization.serialize(leaf.shape), "dtype": str(leaf.dtype)}
            return {"class_name": "__keras_tensor__", "config": {**config, "keras_history": self._history(leaf)}}
        if isinstance(leaf, Variable):
            return {"class_name": "__variable__", "config": self._variable(leaf)}
        if isinstance(leaf, Dim):
            return {"class_name": "__size__", "config": {"text": str(leaf), "symbols": self._symbols(leaf)}}
        if leaf is ...:
            return {"class_name": "__ellipsis__", "config": {}}
        return serialization.serialize(leaf)

    def _variable(self, variable: Variable) -> dict[str, Any]:
        for node in self.nodes:
            if node.layer is not None:
                for place in layer_paths(node.layer).places:
                    if place.variable is variable:
                        return {"layer": self.graph.names[id(node.layer)], "weight": place.name}
        described = {"shape": list(variable.shape), "dtype": str(variable.dtype), "trainable": variable.trainable}
        return {
            **described,
            "name": variable.name,
            "number": [id(v) for v in self.graph.loose_variables].index(id(variable)),
        }

    def _symbols(self, size: Dim) -> dict[str, Any]:
        """Where the open sizes in an expression come from: an input and an axis of it."""
        found: dict[str, Any] = {}
        for symbol in symbols(size):
            if is_unnamed(symbol):
                for tensor in self.graph.flat_inputs:
                    for axis, each in enumerate(tensor.tensor_type.shape):
                        if each is symbol:
                            found.setdefault(str(symbol), [*self._history(tensor), axis])
        return found


def graph_from_config(config: dict[str, Any]) -> tuple[Any, Any]:
    """The structures of inputs and outputs of the model that `graph_config` described. Raises `FormatError`."""
    try:
        with serialization.shared_objects():
            return _Reader(config).graph()
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise FormatError(f"the configuration of the model is broken: {type(error).__name__}: {error}") from error


class _Reader:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.operations: dict[str, Any] = {}
        self.outputs: dict[str, list[list[SymbolicTensor]]] = {}
        self.invocations: dict[tuple[str, ...], Invocation] = {}
        self.variables: dict[int, Variable] = {}

    def graph(self) -> tuple[Any, Any]:
        calls: list[tuple[int, str, dict[str, Any]]] = []
        for entry in self.config["layers"]:
            key = entry["name"]
            if key in self.operations:
                raise FormatError(f"the name {key!r} is used twice in the configuration")
            self.operations[key] = self._operation(entry)
            layer = self.operations[key]
            is_input = getattr(layer, "is_input", False)
            self.outputs[key] = [[layer.output]] if is_input else [[] for _ in entry["inbound_nodes"]]
            calls += [
                (call.get("index", 0), key, {**call, "number": n}) for n, call in enumerate(entry["inbound_nodes"])
            ]
        for _, key, call in sorted(calls, key=lambda item: item[0]):
            self._make(key, call)
        return self._tensors(self.config["input_layers"]), self._tensors(self.config["output_layers"])

    def _operation(self, entry: dict[str, Any]) -> Any:
        if entry.get("module") == "graphc.ops":
            return self._known(FUNCTIONS, entry["class_name"])
        if entry.get("module") == "graphc.ir.ops":
            return self._known(OPS, entry["class_name"])
        return serialization.deserialize({k: v for k, v in entry.items() if k not in ("name", "inbound_nodes")})

    def _known(self, table: dict[str, Callable[..., Any]], name: str) -> Callable[..., Any]:
        if name not in table:
            raise FormatError(f"the op {name!r} is not known")
        return table[name]

    def _make(self, key: str, call: dict[str, Any]) -> None:
        args, kwargs = self._read(call["args"]), self._read(call["kwargs"])
        file, line = call.get("source", ["", 0])
        chain = saved_chain(tuple(call.get("scope", ())), self.invocations)
        with call_site(chain, str(file), int(line)):
            found = self.operations[key](*args, **kwargs)
        flat: list[SymbolicTensor] = []
        map_structure(flat.append, found)
        self.outputs[key][call["number"]] = flat

    def _tensor(self, history: list[Any]) -> SymbolicTensor:
        key, call, index = history[:3]
        return self.outputs[key][call][index]

    def _tensors(self, structure: Any) -> Any:
        """A structure of `[name, call, index]`, as tensors."""
        if isinstance(structure, list) and len(structure) == 3 and isinstance(structure[0], str):
            return self._tensor(structure)
        if isinstance(structure, dict):
            return {key: self._tensors(value) for key, value in structure.items()}
        return [self._tensors(entry) for entry in structure]

    def _read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._read(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        match value.get("class_name"):
            case None:
                return {key: self._read(entry) for key, entry in value.items()}
            case "__keras_tensor__":
                return self._tensor(value["config"]["keras_history"])
            case "__variable__":
                return self._variable(value["config"])
            case "__size__":
                return self._size(value["config"])
            case "__tuple__":
                return tuple(self._read(item) for item in value["config"]["items"])
            case "__slice__":
                return slice(*[self._read(end) for end in value["config"]["items"]])
            case "__ellipsis__":
                return ...
            case _:
                return serialization.deserialize(value)

    def _variable(self, config: dict[str, Any]) -> Variable:
        if "layer" in config:
            for place in layer_paths(self.operations[config["layer"]]).places:
                if place.name == config["weight"]:
                    return place.variable
            raise FormatError(f"layer {config['layer']!r} has no weight {config['weight']!r} yet where an op uses it")
        number = config["number"]
        if number not in self.variables:
            self.variables[number] = Variable(
                "zeros", config["shape"], config["dtype"], config["trainable"], name=config["name"]
            )
        return self.variables[number]

    def _size(self, config: dict[str, Any]) -> Any:
        size = parse_size(config["text"])
        if isinstance(size, int):
            return size
        mapping: dict[Dim, Any] = {}
        for symbol in symbols(size):
            if str(symbol) in config["symbols"]:
                *history, axis = config["symbols"][str(symbol)]
                mapping[symbol] = self._tensor(history).tensor_type.shape[axis]
        return substitute(size, mapping)
