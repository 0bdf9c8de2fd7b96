"""From a model to a module of the IR: one function `forward`, the weights as its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends.adapters import apply_adapters
from graphc.frontends.layer_paths import LayerPaths, join, layer_paths
from graphc.frontends.model import Model
from graphc.frontends.naming import Names, identifier, unique
from graphc.frontends.recording import Recording
from graphc.frontends.structures import flatten, map_structure, pack, paths
from graphc.frontends.symbolic import BATCH, SymbolicTensor, is_unnamed
from graphc.frontends.variable import Variable
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, symbol, symbols
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Result, Value
from graphc.ir.location import ROOT, Scope
from graphc.ir.module import Module
from graphc.ir.types import TensorType


def lower(model: Any, training: bool = False) -> Module:
    """The model as a module with the entry `forward`.

    Inputs are named after the Input layers; weights are parameters named by their paths, in the order of `get_weights`,
    `param` if gradients train them and `state` if the model itself changes them. Sizes left open in the first place of
    inputs are the symbol B, further ones N, N1, …. With `training`, layers are told so, and the new values of their
    states are further results that update them.
    """
    if not isinstance(model, Model):
        raise GraphcError(
            f"lower takes a model of the DSL, not {type(model).__name__}; for functions there is graphc.trace"
        )
    lowering = lower_forward(model, training)
    model._after_recording(lowering.module, lowering.variables)
    return lowering.module


def lower_forward(model: Model, training: bool = False) -> Lowering:
    """The recording of `forward`, which further entries can be recorded beside."""
    model.ensure_graph()
    lowering = Lowering(model, training)
    function = lowering.function
    structure, types, names = model_inputs(model)
    values = [function.add_parameter(type, name) for type, name in zip(types, names, strict=True)]
    lowering.declare_weights(names)
    with lowering.active(), Builder(function.block) as builder:
        found = model._run(pack(structure, values))
        outputs = map_structure(builder.value, found)
        lowering.finish(builder, _output_names(model, outputs), flatten(outputs))
    return lowering


class Lowering(Recording):
    """A function of a model: `forward`, or a further entry `beside` it, over the same weight table."""

    def __init__(self, model: Model, training: bool, name: str = "forward", beside: Lowering | None = None) -> None:
        super().__init__(training, name, None if beside is None else beside.module)
        self.model = model
        self.paths: LayerPaths = layer_paths(model)
        self.variables: dict[str, Variable] = {} if beside is None else beside.variables
        """The variables of the weight table by their names there."""
        for known, variable in self.variables.items():
            self.paths.names[id(variable)] = known
        self.calls: dict[tuple[Scope, int], int] = {}
        self.initial: dict[int, Value] = {}

    def declare_weights(self, taken: list[str]) -> None:
        """A parameter and an entry of the weight table for each variable, then the tied names."""
        trainable = {id(variable) for variable in self.model.trainable_weights}
        self.taken = Names(taken)
        for variable in self.model.weights:
            self._declare(variable, self.paths.names[id(variable)], id(variable) in trainable)
        for name, first in self.paths.aliases.items():
            if name not in self.module.weights:
                self.module.weights.tie(name, first)

    def _declare(self, variable: Variable, name: str, trainable: bool) -> Value:
        known = self.variables.setdefault(name, variable)
        assert known is variable
        table = self.module.weights
        weight = table.info(name) if name in table else table.add(name, variable.numpy(), trainable)
        value_name = self.taken.new(identifier(name))
        role = "param" if variable.trainable or variable.frozen else "state"
        value = self.function.add_parameter(weight.type, value_name, role, name)
        self.values[id(variable)] = self.initial[id(variable)] = value
        return value

    def name_of(self, variable: Variable) -> str:
        return self.paths.names.get(id(variable), variable.path)

    def parameter(self, variable: Variable) -> Value:
        """A variable that no layer of the model holds: one that a `call` reads from outside, or a state of training."""
        name = self.paths.names.get(id(variable))
        if name is None:
            kept_for = "" if variable.slot_of is None else self.paths.names[id(variable.slot_of)]
            name = unique(variable.path_beside(kept_for), self.module.weights)
            self.paths.names[id(variable)] = name
        self.taken.update(p.name for p in self.function.inputs)
        return self._declare(variable, name, variable.trainable)

    def symbolic_value(self, tensor: SymbolicTensor) -> Value:
        value = self.values.get(id(tensor))
        if value is None:
            raise GraphcError(f"the symbolic tensor {tensor.name!r} is used where the model's inputs do not lead to it")
        return value

    def updates(self) -> list[tuple[Any, Value]]:
        """The parameters of variables that were assigned, with their new values."""
        by_value = {id(p.value): p for p in self.function.parameters}
        return [
            (by_value[id(first)], self.values[key])
            for key, first in self.initial.items()
            if self.values[key] is not first
        ]

    def finish(self, builder: Builder, names: Sequence[str], outputs: Sequence[Value]) -> None:
        """Return the outputs under their names, and the new values of variables that were assigned."""
        apply_adapters(self)
        flat = list(outputs)
        results = [Result(name) for name in names]
        taken = Names(names)
        for parameter, value in self.updates():
            flat.append(value)
            results.append(Result(taken.new(identifier(f"new_{parameter.name}")), parameter))
        builder.finish(flat)
        self.function.results = results
        self.draw_keys_at_once()

    def layer_scope(self, layer: Any, builder: Builder) -> Scope:
        """The layer's own scope: below the current one if that is where its path is, else where its path is."""
        if layer is self.model:
            return ROOT
        current = builder.location.scope
        path = self.paths.path_of.get(id(layer))
        if path is None:
            name = self.paths.children.setdefault(current.owner, Names()).new(layer.name)
            path = self.paths.path_of[id(layer)] = join(current.owner, name)
        *above, name = path.split("/")
        parent = current if current.owner == "/".join(above) else Scope.parse("/".join(above))
        call = self.calls.get((parent, id(layer)), 0)
        self.calls[parent, id(layer)] = call + 1
        return parent.child(name, call)

    def numbered(self, scope: Scope, name: str) -> str:
        return self.paths.children.setdefault(scope.owner, Names()).new(name)


def model_inputs(model: Model) -> tuple[Any, list[TensorType], list[str]]:
    """The structure of the model's inputs, and their types and names in the function."""
    if model._graph is not None:
        structure: Any = model._graph.inputs
        types = [tensor.tensor_type for tensor in model._graph.flat_inputs]
        names = model._graph.input_names()
    else:
        if model._input_types is None:
            raise GraphcError(
                f"model {model.name!r} has not seen an input yet: call it on one, or `build` it with a shape, first"
            )
        structure = model._input_types
        types = flatten(structure)
        names = [identifier(path) if path else "input" for path in paths(structure)]
        names = [f"input_{name.strip('_')}" if name.strip("_").isdigit() else name for name in names]
    return structure, _renamed(types), [identifier(name) for name in names]


def _renamed(types: list[TensorType]) -> list[TensorType]:
    """The types with open sizes under names that depend on nothing but the model: B, then N, N1, …."""
    found = list(dict.fromkeys(s for type in types for size in type.shape for s in symbols(size)))
    taken = {s.name for s in found if not is_unnamed(s)} | {BATCH.name}
    fresh: dict[Dim, Dim] = {}
    for old in found:
        if is_unnamed(old) and old is not BATCH:
            name = unique("N", taken)
            taken.add(name)
            fresh[old] = symbol(name.replace("_", ""))
    return [type.substitute(fresh) for type in types]


def _output_names(model: Model, outputs: Any) -> list[str]:
    if model._graph is not None:
        return [identifier(name) for name in model._graph.output_names()]
    named = [identifier(path) if path else "output" for path in paths(outputs)]
    return [f"output{name}" if name.startswith("_") else name for name in named]


__all__ = ["Lowering", "lower", "lower_forward", "model_inputs"]
