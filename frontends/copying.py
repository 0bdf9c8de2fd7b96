"""Copies by Python's `copy`: of layers and models with their weights, independent of what they are copied from."""

from __future__ import annotations

import copy
from typing import Any

from graphc.frontends.graph import FunctionGraph
from graphc.frontends.nodes import Node, is_closure
from graphc.frontends.structures import map_structure
from graphc.frontends.symbolic import SymbolicTensor
from graphc.frontends.variable import Variable
from graphc.ir.errors import GraphcError


def copied_graph(graph: FunctionGraph, memo: dict[int, Any]) -> FunctionGraph:
    """The same calls of copies of the layers. `memo` is that of `copy.deepcopy`, which from then on knows the symbolic
    tensors, layers and variables.

    Raises `GraphcError` for a graph with Python functions inside of `cond` and the like, which read its tensors.
    """
    for tensor in graph.flat_inputs:
        if tensor.node.is_input:
            if id(tensor) not in memo:
                _copy_node(tensor.node, memo)
        else:  # of another model: this one begins in its midst
            memo[id(tensor)] = SymbolicTensor(tensor.tensor_type, tensor.node, tensor.output_index, tensor.name)
    for node in graph.nodes:
        if is_closure(node):
            raise GraphcError(f"{node.place} calls a Python function that reads the model's tensors: it is not copied")
        _copy_node(node, memo)
    return FunctionGraph(_copied(graph.inputs, memo), _copied(graph.outputs, memo))


def _copy_node(node: Node, memo: dict[int, Any]) -> None:
    operation = node.operation if node.layer is None else copy.deepcopy(node.layer, memo)
    made = Node(operation, _copied(node.args, memo), _copied(node.kwargs, memo), node.chain, node.file, node.line)
    made.outputs = [SymbolicTensor(t.tensor_type, made, t.output_index, t.name) for t in node.outputs]
    memo.update({id(old): new for old, new in zip(node.outputs, made.outputs, strict=True)})
    made.output_structure = _copied(node.output_structure, memo)
    if made.layer is not None:
        made.layer.inbound_nodes.append(made)


def _copied(structure: Any, memo: dict[int, Any]) -> Any:
    """The structure with copies of symbolic tensors and variables."""
    return map_structure(
        lambda leaf: copy.deepcopy(leaf, memo) if isinstance(leaf, (SymbolicTensor, Variable)) else leaf, structure
    )


def refuse_pickle(what: Any) -> GraphcError:
    """The error for what is not pickled, with what is there instead."""
    return GraphcError(
        f"{type(what).__name__} is not pickled: save a model by model.save(…), weights by model.save_weights(…), and "
        "what is made of arguments by get_config()"
    )


__all__ = ["copied_graph", "refuse_pickle"]
