"""`Model`: layers put together, from symbolic inputs and outputs (functional) or by a `call` of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from graphc.frontends.copying import copied_graph
from graphc.frontends.graph import FunctionGraph
from graphc.frontends.layer import Layer, map_shapes
from graphc.frontends.nodes import Node
from graphc.frontends.recording import current_recording
from graphc.frontends.scopes import forget_finished
from graphc.frontends.structures import flatten, map_structure, pack, paths
from graphc.frontends.symbolic import SymbolicTensor, keras_shape, size_of
from graphc.frontends.variable import Variable
from graphc.ir.builder import Builder, in_graphc
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Value
from graphc.ir.location import Location, Scope
from graphc.ir.module import Module
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType


class Model(Layer):
    """A layer made of layers. `Model(inputs, outputs)` is functional; a subclass may define `call` instead."""

    _graph: FunctionGraph | None = None
    _input_types: Any = None
    _not_copied = ("_graph",)

    def __init__(
        self, inputs: Any = None, outputs: Any = None, *, name: str | None = None, trainable: bool = True, **kwargs: Any
    ) -> None:
        if (inputs is None) != (outputs is None):
            raise GraphcError("a functional model needs both inputs and outputs")
        super().__init__(name=name, trainable=trainable, **kwargs)
        if inputs is not None:
            self._set_graph(FunctionGraph(_copied(inputs), _copied(outputs)))
            if not trainable:
                self.trainable = False
        forget_finished()

    def _base_name(self) -> str:
        return "functional" if type(self).__name__ == "Model" else type(self).__name__

    def _set_graph(self, graph: FunctionGraph | None) -> None:
        self._graph = graph
        self.built = graph is not None

    def _copy_into(self, copied: Any, memo: dict[int, Any]) -> None:
        if self._graph is not None:
            copied.__dict__["_graph"] = copied_graph(self._graph, memo)
        super()._copy_into(copied, memo)

    def _after_recording(self, module: Module, variables: Mapping[str, Variable]) -> None:
        """Change a module that was recorded of the model, whose weights these variables are; here it stays."""

    @property
    def is_functional(self) -> bool:
        """Whether the model is a graph of layers rather than a `call` of its own."""
        return self._graph is not None

    @property
    def can_be_called(self) -> bool:
        """Whether there is something to call: a graph of layers, or a `call` of its own."""
        return self._graph is not None or type(self).call is not Model.call

    # --- layers ----------------------------------------------------------------------------------------------

    @property
    def _layers(self) -> list[Any]:
        found = list(self._tracker.layers)
        if self._graph is not None:
            listed = {id(layer) for layer in self._graph.layers}
            found = self._graph.layers + [layer for layer in found if id(layer) not in listed]
        return found

    @property
    def layers(self) -> list[Any]:
        """The layers of the model, in the order of their weights."""
        return list(self._layers)

    @property
    def weights(self) -> list[Variable]:
        """All variables, each once: the layers' in order, then those that ops of the model use directly."""
        found = {id(v): v for v in super().weights}
        if self._graph is not None:
            for variable in self._graph.loose_variables:
                found.setdefault(id(variable), variable)
        return list(found.values())

    @property
    def trainable_weights(self) -> list[Variable]:
        """The variables that training changes."""
        found = {id(v): v for v in super().trainable_weights}
        if self._graph is not None and self.trainable:
            owned = {id(v) for layer in self._layers for v in layer.weights}
            for variable in self._graph.loose_variables:
                if variable.trainable and id(variable) not in owned:
                    found.setdefault(id(variable), variable)
        return list(found.values())

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """The layer of this name, path in the model (`residual_1/conv1`) or index."""
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise GraphcError(
                    f"model {self.name!r} has {number_of(len(layers), 'layer')}, there is none at {index}"
                )
            return layers[index]
        if name is None:
            raise GraphcError("get_layer needs a name or an index")
        from graphc.frontends.layer_paths import layer_paths

        by_path = layer_paths(self).layers
        if name in by_path:
            return by_path[name]
        found = [layer for layer in layers if layer.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            listed = [path for path, layer in by_path.items() if any(layer is one for one in found)]
            raise GraphcError(f"several layers are called {name!r}; give the path: {', '.join(listed)}")
        raise GraphcError(
            f"model {self.name!r} has no layer {name!r}; it has {', '.join(layer.name for layer in layers)}"
        )

    # --- inputs and outputs ----------------------------------------------------------------------------------

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic inputs, flat."""
        return list(self._require_graph("inputs").flat_inputs)

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The symbolic outputs, flat."""
        return list(self._require_graph("outputs").flat_outputs)

    @property
    def input(self) -> Any:
        """The symbolic inputs as they were given."""
        return self._require_graph("input").inputs

    @property
    def output(self) -> Any:
        """The symbolic outputs as they were given."""
        return self._require_graph("output").outputs

    @property
    def input_shape(self) -> Any:
        """The shape of the input, or a structure of shapes."""
        return map_structure(lambda tensor: tensor.shape, self.input)

    @property
    def output_shape(self) -> Any:
        """The shape of the output, or a structure of shapes."""
        return map_structure(lambda tensor: tensor.shape, self.output)

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs."""
        return [tensor.node.name for tensor in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs: their keys in a dict, else of the layers they come from."""
        return self._require_graph("output_names").output_names()

    def _require_graph(self, what: str) -> FunctionGraph:
        if self._graph is None:
            raise GraphcError(f"model {self.name!r} is not made of symbolic tensors, so it has no {what}")
        return self._graph

    # --- calling ---------------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Make all weights, for inputs of this shape (None for open sizes)."""
        if self._graph is None and not self.built:
            self._remember_input(
                map_shapes(lambda shape: TensorType.of(self.compute_dtype, _sizes(shape)), input_shape)
            )
            self._output_types(input_shape)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(iter(kwargs.values()), None)
        if self._graph is None and self._input_types is None and current_recording() is None and len(args) == 1:
            found = super().__call__(*args, **kwargs)
            self._remember_input(map_structure(_generalised, first))
            return found
        return super().__call__(*args, **kwargs)

    def ensure_graph(self) -> None:
        """Make the graph of a model whose layers wait for an input shape, where it can be made."""

    def _remember_input(self, types: Any) -> None:
        if all(isinstance(type, TensorType) for type in flatten(types)):
            object.__setattr__(self, "_input_types", types)

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if type(self).build is not Model.build:
            super()._build_for(args, kwargs)

    def _converted(self, leaf: Any) -> Any:
        """As of a layer; but a graph takes its Inputs' dtypes, which `_matched` sees to, whatever the model's own."""
        if self._graph is None:
            return super()._converted(leaf)
        if isinstance(leaf, np.generic) or (isinstance(leaf, Variable) and Builder.current() is None):
            return np.asarray(leaf)
        return leaf

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Run the graph of layers."""
        graph = self._graph
        if graph is None:
            raise GraphcError(f"{type(self).__name__} has neither inputs and outputs nor a `call` of its own")
        return graph.run(self._matched(graph, inputs), partial(_call_in_place, graph))

    def _matched(self, graph: FunctionGraph, inputs: Any) -> Any:
        """The inputs in the structure of the model's: by name from a dict, by order from a list; checked."""
        if isinstance(inputs, Mapping) and not isinstance(graph.inputs, dict):
            names = [tensor.node.name for tensor in graph.flat_inputs]
            missing = [name for name in names if name not in inputs]
            if missing:
                raise GraphcError(f"model {self.name!r} misses the input {missing[0]!r}; it takes {', '.join(names)}")
            flat = [inputs[name] for name in names]
        elif isinstance(graph.inputs, dict) and isinstance(inputs, Mapping):
            missing = [key for key in paths(graph.inputs) if "." not in key and key not in inputs]
            if missing:
                raise GraphcError(
                    f"model {self.name!r} misses the input {missing[0]!r}; it takes {', '.join(graph.inputs)}"
                )
            flat = flatten({key: inputs[key] for key in graph.inputs})
        else:
            flat = flatten(inputs)
        if len(flat) != len(graph.flat_inputs):
            raise GraphcError(
                f"model {self.name!r} takes {number_of(len(graph.flat_inputs), 'input')}, "
                f"{number_of(len(flat), 'was', 'were')} given"
            )
        checked = [_fitted(tensor, value) for tensor, value in zip(graph.flat_inputs, flat, strict=True)]
        return pack(graph.inputs, checked)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the output for inputs of this shape."""
        return super().compute_output_shape(input_shape)

    # --- configuration ---------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The graph of a functional model, which `from_config` rebuilds; a subclass's arguments."""
        from graphc.frontends.functional_config import graph_config

        if self._graph is None or not in_graphc(type(self).__init__.__code__.co_filename):
            return super().get_config()
        return {"name": self.name, "trainable": self.trainable, **graph_config(self._graph)}

    get_config.is_default = True  # type: ignore[attr-defined]  # as of Layer

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The model that `get_config` described, with new weights."""
        from graphc.frontends.functional_config import graph_from_config
        from graphc.frontends.serialization import custom_object_scope

        with custom_object_scope(custom_objects or {}):
            if "input_layers" not in config:
                return super().from_config(config)
            inputs, outputs = graph_from_config(config)
            return cls(inputs, outputs, name=config.get("name"), trainable=config.get("trainable", True))

    def to_json(self, **kwargs: Any) -> str:
        """The model's class and configuration as JSON."""
        import json

        from graphc.frontends import serialization

        return json.dumps(serialization.serialize(self), **kwargs)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
    ) -> None:
        """Print a table of the layers with their output shapes and numbers of parameters."""
        from graphc.frontends.summary import print_summary

        print_summary(self, line_length, positions, print_fn, expand_nested, show_trainable, layer_range)

    def save(self, filepath: Any, overwrite: bool = True, include_optimizer: bool = True) -> None:
        """Write configuration, graph and weights to one `.graphc` file, and how the model is compiled; see
        `saving.save_model`."""
        from graphc.frontends.saving import save_model

        save_model(self, filepath, overwrite=overwrite, include_optimizer=include_optimizer)

    def kept_beside(self) -> tuple[Any, dict[str, Any]]:
        """What a file has to hold of the model beside configuration and weights, as JSON and arrays; here nothing."""
        return None, {}

    def expect_beside(self, config: Any) -> None:
        """Let the model have the weights that it has by what `kept_beside` said."""
        if config is not None:
            raise GraphcError(f"a {type(self).__name__} has no adapters: the model is to be one of graphc.Model's")

    def restore_beside(self, config: Any, arrays: Mapping[str, Any]) -> None:
        """Let the model be, now that its weights are set, what `kept_beside` said."""

    def training_state(self) -> tuple[Any, dict[str, Any]]:
        """How the model is compiled, as JSON, and the arrays of its optimizer; None where a model cannot be trained or
        is not compiled."""
        return None, {}

    def restore_training(self, config: Any, arrays: Mapping[str, Any]) -> None:
        """Compile the model as `training_state` said, and set what its optimizer keeps."""
        raise GraphcError(f"a {type(self).__name__} cannot be compiled: the model is to be one of graphc.Model's")

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Write the weights to a safetensors file, by their paths in the model."""
        from graphc.frontends.saving import save_weights

        save_weights(self, filepath, overwrite=overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False) -> None:
        """Read weights that `save_weights` wrote, or those in the file that `save` wrote."""
        from graphc.frontends.saving import load_weights

        load_weights(self, filepath, skip_mismatch=skip_mismatch)


def _copied(structure: Any) -> Any:
    return map_structure(lambda leaf: leaf, structure)


def _sizes(shape: Any) -> tuple[Any, ...]:
    from graphc.frontends.symbolic import BATCH

    return tuple(BATCH if i == 0 and size is None else size_of(size) for i, size in enumerate(shape))


def _generalised(tensor: Any) -> Any:
    """The type of an input of which only one example was seen: its first size is open."""
    from graphc.frontends.symbolic import BATCH

    if isinstance(tensor, SymbolicTensor):
        return tensor.tensor_type
    if isinstance(tensor, Value):
        return tensor.type
    if not isinstance(tensor, (np.ndarray, np.generic)):
        return None
    of = dtype_of(tensor.dtype)
    return TensorType.of("float32" if of == "float64" else of, (BATCH, *tensor.shape[1:]) if tensor.ndim else ())


def _call_in_place(graph: FunctionGraph, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a node's operation: at its own scope and line while tracing, with what its closure reads at hand."""
    captured = kwargs.pop("__captured__", ())
    recording, builder = current_recording(), Builder.current()
    if builder is None or recording is None:
        if captured:
            raise GraphcError(
                f"{node.place} reads symbolic tensors of the model from a closure; run the model by `graphc.compile`"
            )
        return node.operation(*args, **kwargs)
    outer = builder.location
    for tensor, value in captured:
        recording.values[id(tensor)] = value
    builder.location = Location.of(_below(outer.scope, graph.scopes[id(node)]), node.file, node.line)
    try:
        return node.operation(*args, **kwargs)
    finally:
        builder.location = outer


def _below(scope: Scope, names: tuple[str, ...]) -> Scope:
    for name in names:
        scope = scope.child(name)
    return scope


def _fitted(tensor: SymbolicTensor, value: Any) -> Any:
    """`value` for the input `tensor`: an axis of size 1 at the end comes or goes, as in Keras, and the dtype
    becomes the input's. Checks the shape."""
    from graphc.frontends import ops

    if not isinstance(value, (Value, np.ndarray)):
        value = np.asarray(value)
    wanted, given = tensor.shape, keras_shape(tuple(value.shape))
    if value.ndim == len(wanted) + 1 and value.shape[-1] == 1:
        value = ops.squeeze(value, axis=-1)
    elif value.ndim == len(wanted) - 1 and wanted and wanted[-1] == 1:
        value = ops.expand_dims(value, axis=-1)
    fits = value.ndim == len(wanted) and all(
        not isinstance(want, int) or not isinstance(have, int) or want == have
        for want, have in zip(wanted, value.shape, strict=True)
    )
    if not fits:
        raise ShapeError(f"input {tensor.node.name!r} must have the shape {wanted}, not {given}")
    if dtype_of(value.dtype) is not tensor.dtype:
        value = ops.cast(value, tensor.dtype)
    return value


__all__ = ["Model"]
