"""The graph of a functional model: the nodes between inputs and outputs, the layers in Keras's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.frontends.naming import Names, unique
from graphc.frontends.nodes import Node
from graphc.frontends.scopes import Chain, Invocation
from graphc.frontends.structures import flatten, map_structure, pack, paths
from graphc.frontends.symbolic import SymbolicTensor
from graphc.frontends.variable import Variable
from graphc.ir.dims import Dim, Size, solve, substitute
from graphc.ir.errors import GraphcError


class FunctionGraph:
    """The nodes that lead from `inputs` to `outputs`, structures of symbolic tensors.

    `nodes` are in the order they were made. `layers` are in Keras's order, which is that of `get_weights`: by greatest
    distance from an output, then by a walk from the outputs. Raises `GraphcError` for an output that needs a symbolic
    tensor which is not among the inputs.
    """

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.flat_inputs: list[SymbolicTensor] = flatten(inputs)
        self.flat_outputs: list[SymbolicTensor] = flatten(outputs)
        self._check_structures()
        walked = self._walk()
        self._check_connected(walked)
        given = {id(tensor) for tensor in self.flat_inputs}
        self.nodes = sorted((n for n in walked if not all(id(t) in given for t in n.outputs)), key=lambda n: n.number)
        self.operations = self._ordered(walked)
        self.layers = [operation for operation in self.operations if hasattr(operation, "inbound_nodes")]
        self.scopes = scope_paths(self.nodes)
        self.names = self._unique_names()
        self._check_names()

    def _check_structures(self) -> None:
        for what, tensors in (("inputs", self.flat_inputs), ("outputs", self.flat_outputs)):
            for tensor in tensors:
                if not isinstance(tensor, SymbolicTensor):
                    raise GraphcError(
                        f"the {what} of a model are symbolic tensors, made by `Input` and layers, not {tensor!r}"
                    )
        if len({id(tensor) for tensor in self.flat_inputs}) != len(self.flat_inputs):
            raise GraphcError("a tensor is among the inputs of the model twice")

    def _walk(self) -> list[Node]:
        """The nodes behind the outputs, each after those it needs, stopping at the inputs."""
        stop = {id(tensor) for tensor in self.flat_inputs}
        order: list[Node] = []
        seen: set[int] = set()
        for output in self.flat_outputs:
            stack: list[tuple[Node, bool]] = [(output.node, False)]
            while stack:
                node, done = stack.pop()
                if done:
                    order.append(node)
                    continue
                if id(node) in seen:
                    continue
                seen.add(id(node))
                stack.append((node, True))
                if all(id(tensor) in stop for tensor in node.outputs):
                    continue
                stack += [(t.node, False) for t in reversed(node.inputs) if id(t.node) not in seen]
        for tensor in self.flat_inputs:
            if id(tensor.node) not in seen and tensor.node.is_input:
                seen.add(id(tensor.node))
                order.append(tensor.node)
        return order

    def _check_connected(self, walked: list[Node]) -> None:
        known = {id(tensor) for tensor in self.flat_inputs}
        reached: list[str] = []
        for node in sorted(walked, key=lambda n: n.number):
            if all(id(tensor) in known for tensor in node.outputs):
                continue
            if node.is_input:
                users = [other for other in walked if any(t.node is node for t in other.inputs)]
                where = users[0].place if users else f"output {node.name!r}"
                raise GraphcError(
                    f"the graph is disconnected: the input {node.name!r} {node.outputs[0].shape} is needed by {where} "
                    f"but is not among the model's inputs ({', '.join(t.name for t in self.flat_inputs)})"
                )
            missing = [tensor for tensor in node.inputs if id(tensor) not in known]
            if missing:
                raise GraphcError(
                    f"the graph is disconnected: {node.place} needs the tensor {missing[0].name!r}, which the inputs "
                    f"do not lead to; reached so far: {', '.join(reached) or 'nothing'}"
                )
            known.update(id(tensor) for tensor in node.outputs)
            reached.append(node.name)

    def _ordered(self, walked: list[Node]) -> list[Any]:
        """The layers and the op calls (as nodes), each once, in the order Keras lists them."""
        inside = {id(node) for node in walked}
        index: dict[int, int] = {}
        for node in self._first_met():
            index.setdefault(id(node.owner), len(index))
        node_depth: dict[int, int] = {}
        depth: dict[int, int] = {}
        stop = {id(tensor) for tensor in self.flat_inputs}
        for node in reversed(walked):
            own = max(node_depth.setdefault(id(node), 0), depth.get(id(node.owner), 0))
            node_depth[id(node)] = depth[id(node.owner)] = own
            if all(id(tensor) in stop for tensor in node.outputs):
                continue
            for parent in node.parents:
                if id(parent) in inside:
                    node_depth[id(parent)] = max(own + 1, node_depth.get(id(parent), 0))
        owners = {id(node.owner): node.owner for node in walked}
        return sorted(owners.values(), key=lambda owner: (-depth[id(owner)], index.get(id(owner), -1)))

    def _first_met(self) -> list[Node]:
        """The nodes in the order a walk from the outputs first meets their operations."""
        stop = {id(tensor) for tensor in self.flat_inputs}
        order: list[Node] = []
        seen: set[int] = set()
        for output in self.flat_outputs:
            stack = [output.node]
            while stack:
                node = stack.pop()
                if id(node) in seen:
                    continue
                seen.add(id(node))
                order.append(node)
                if not all(id(tensor) in stop for tensor in node.outputs):
                    stack += [tensor.node for tensor in reversed(node.inputs)]
        return order

    def _unique_names(self) -> dict[int, str]:
        """A name for each layer and op call (by id) that no other has."""
        names: dict[int, str] = {}
        taken = Names(layer.name for layer in self.layers)
        used: set[str] = set()
        for owner in sorted(self.operations, key=_first_call):
            is_layer = hasattr(owner, "inbound_nodes")
            name = owner.name if is_layer and owner.name not in used else taken.new(owner.name)
            names[id(owner)] = name
            used.add(name)
        return names

    def _check_names(self) -> None:
        """Two layers of the same given name must be in different scopes."""
        seen: dict[tuple[tuple[str, ...], str], int] = {}
        for node in self.nodes:
            if node.layer is None or node.layer.automatic_prefix is not None:
                continue
            key = (self.scopes[id(node)], node.layer.name)
            if seen.setdefault(key, id(node.layer)) != id(node.layer):
                raise GraphcError(
                    f"the name {node.name!r} is used for two layers of the model; names must be unique "
                    f"(the second is called at {node.file}:{node.line})"
                )

    @property
    def loose_variables(self) -> list[Variable]:
        """Variables that are arguments of ops, each once."""
        found: dict[int, Variable] = {}
        for node in self.nodes:
            for leaf in flatten((node.args, node.kwargs)):
                if isinstance(leaf, Variable):
                    found.setdefault(id(leaf), leaf)
        return list(found.values())

    def input_names(self) -> list[str]:
        """A name for each input: the Input layer's, numbered among the model's own when it was automatic."""
        return self._tensor_names(self.flat_inputs, self.inputs)

    def output_names(self) -> list[str]:
        """A name for each output: its key in a dict, else the layer's or op's."""
        return self._tensor_names(self.flat_outputs, self.outputs)

    def _tensor_names(self, tensors: list[SymbolicTensor], structure: Any) -> list[str]:
        keys = paths(structure) if isinstance(structure, dict) else [""] * len(tensors)
        found: list[str] = []
        for tensor, key in zip(tensors, keys, strict=True):
            layer = tensor.node.layer
            is_dict_output = key and tensors is self.flat_outputs
            automatic = layer is not None and layer.automatic_prefix is not None
            name = (
                key
                if is_dict_output or (key and automatic)
                else (str(layer.automatic_prefix) if layer is not None and automatic else tensor.node.name)
            )
            found.append(unique(name.replace(".", "_"), found))
        return found

    def run(self, inputs: Any, call: Callable[[Node, tuple[Any, ...], dict[str, Any]], Any]) -> Any:
        """The outputs for a structure of inputs; `call(node, args, kwargs)` gives those of a node."""
        values: dict[int, Any] = {}
        sizes: dict[Dim, Size] = {}
        for tensor, value in zip(self.flat_inputs, flatten(inputs), strict=True):
            values[id(tensor)] = value
            for formal, actual in zip(tensor.tensor_type.shape, value.shape, strict=True):
                solve(formal, actual, sizes)

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, SymbolicTensor):
                return values[id(leaf)]
            if isinstance(leaf, slice):
                return slice(filled(leaf.start), filled(leaf.stop), filled(leaf.step))
            return substitute(leaf, sizes) if isinstance(leaf, Dim) else leaf

        for node in self.nodes:
            args, kwargs = map_structure(filled, (node.args, node.kwargs))
            if node.captured:
                kwargs = {**kwargs, "__captured__": [(tensor, values[id(tensor)]) for tensor in node.captured]}
            found = call(node, args, kwargs)
            for tensor, value in zip(node.outputs, flatten(found), strict=True):
                values[id(tensor)] = value
        return pack(self.outputs, [values[id(tensor)] for tensor in self.flat_outputs])


def _first_call(owner: Any) -> int:
    return owner.number if isinstance(owner, Node) else owner.inbound_nodes[0].number


def scope_paths(nodes: list[Node]) -> dict[int, tuple[str, ...]]:
    """The scope of each node (by id): names of the function invocations and name scopes around its call.

    Functions that contain all the calls do not count, nor do those that call no layer. Siblings of one name are
    numbered in the order of their first calls, around the names that users gave to layers beside them.
    """
    common: set[Invocation] = set(nodes[0].chain) if nodes else set()
    with_layers: set[Invocation] = set()
    for node in nodes:
        common &= set(node.chain)
        if node.layer is not None:
            with_layers |= set(node.chain)

    def counted(chain: Chain) -> Chain:
        return tuple(i for i in chain if i.kind == "name_scope" or (i not in common and i in with_layers))

    chains = {id(node): counted(node.chain) for node in nodes}
    taken: dict[Chain, Names] = {}
    for node in nodes:
        if node.layer is not None and node.layer.automatic_prefix is None:
            taken.setdefault(chains[id(node)], Names()).add(node.layer.name)
    names: dict[Chain, tuple[str, ...]] = {(): ()}
    for node in nodes:
        chain = chains[id(node)]
        for end in range(1, len(chain) + 1):
            if chain[:end] not in names:
                name = taken.setdefault(chain[: end - 1], Names()).new(chain[end - 1].name)
                names[chain[:end]] = (*names[chain[: end - 1]], name)
    return {id(node): names[chains[id(node)]] for node in nodes}
