"""`Sequential`: a model that is a list of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphc.frontends.graph import FunctionGraph
from graphc.frontends.layer import Layer
from graphc.frontends.layers.core import Input, InputLayer
from graphc.frontends.model import Model
from graphc.frontends.scopes import Invocation, call_site, forget_finished, saved_chain
from graphc.frontends.structures import flatten
from graphc.frontends.symbolic import SymbolicTensor
from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError


class Sequential(Model):
    """Layers called one after another. Built when the input shape is known (by an Input or a functional model
    first) or when first called."""

    _stack: list[Layer]

    def __init__(self, layers: Any = None, trainable: bool = True, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, trainable=trainable, **kwargs)
        object.__setattr__(self, "_stack", [])
        if layers is not None and (isinstance(layers, Layer) or not hasattr(layers, "__iter__")):
            raise GraphcError(f"Sequential takes a list of layers, not {layers!r}; write Sequential([…])")
        for layer in layers or ():
            self.add(layer)
        forget_finished()

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Append a layer, or begin with an `Input`."""
        if isinstance(layer, SymbolicTensor):
            layer = layer.node.operation
        if not isinstance(layer, Layer):
            raise GraphcError(f"a Sequential takes layers, not {layer!r}")
        stack: list[Layer] = self._stack
        if isinstance(layer, InputLayer) and stack:
            raise GraphcError("the Input of a Sequential stands before all layers, and there is one at most")
        if not stack and not isinstance(layer, InputLayer) and layer._input_shape is not None:
            stack.append(Input(layer._input_shape).node.operation)
        if not stack and isinstance(layer, Model) and layer.is_functional and len(layer.inputs) == 1:
            stack.append(Input(batch_shape=layer.inputs[0].shape, dtype=layer.inputs[0].dtype).node.operation)
        if any(one is layer for one in stack) or (
            layer.automatic_prefix is None and any(one.name == layer.name for one in stack)
        ):
            raise GraphcError(f"the name {layer.name!r} is used for two layers of the model; names must be unique")
        stack.append(layer)
        first = stack[0]
        if isinstance(first, InputLayer):
            output = first.output if self._graph is None else self._graph.outputs
            if layer is not first:
                output = layer(output)
            self._set_graph(FunctionGraph(first.output, output))
        else:
            self._tracker.add(layer)

    def pop(self, rebuild: bool = True) -> Any:
        """Remove the last layer and return it."""
        stack: list[Layer] = self._stack
        if not self.layers:
            raise GraphcError(f"model {self.name!r} has no layer to remove")
        layer = stack.pop()
        self._tracker.remove(layer)
        if self._graph is not None:
            first = stack[0]
            output = layer.inbound_nodes[-1].args[0] if len(stack) > 1 else first.output
            self._set_graph(FunctionGraph(first.output, output))
        return layer

    @property
    def layers(self) -> list[Any]:
        """The layers, without the Input."""
        return [layer for layer in self._stack if not isinstance(layer, InputLayer)]

    def build(self, input_shape: Any = None) -> None:
        """Make the weights, for inputs of this shape (None for open sizes)."""
        if self._graph is None:
            if input_shape is None:
                raise GraphcError(f"model {self.name!r} needs an input shape to be built")
            self._begin(Input(batch_shape=tuple(input_shape)))

    def _begin(self, tensor: SymbolicTensor) -> None:
        """Call the layers that were waiting on an input."""
        output: Any = tensor
        for layer in self._stack:
            output = layer(output)
            if len(flatten(output)) != 1:
                raise GraphcError(
                    f"the layers of a Sequential give one tensor each; {layer.name!r} gives {len(flatten(output))}"
                )
        self._stack.insert(0, tensor.node.operation)
        self._tracker.layers.clear()
        self._set_graph(FunctionGraph(tensor, output))

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        from graphc.frontends.variable import outside_traces

        if self._graph is None and self._stack:
            first: Any = args[0] if args else next(iter(kwargs.values()), None)
            if not hasattr(first, "shape") or not hasattr(first, "dtype"):
                raise GraphcError(f"model {self.name!r} is called on one tensor")
            with outside_traces():
                self._begin(Input(batch_shape=_open_batch(first), dtype=first.dtype))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self._graph is None:
            if self._stack:
                raise GraphcError(f"model {self.name!r} has not been built")
            return inputs
        return super().call(inputs, training, mask)

    def get_config(self) -> dict[str, Any]:
        from graphc.frontends import serialization

        config = {
            "name": self.name,
            "trainable": self.trainable,
            "layers": [serialization.serialize(layer) for layer in self._stack],
        }
        if self._graph is not None:
            scopes = self._graph.scopes
            config["calls"] = [[list(scopes[id(node)]), node.file, node.line] for node in self._graph.nodes]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        from graphc.frontends import serialization

        with serialization.custom_object_scope(custom_objects or {}):
            layers = [serialization.deserialize(entry) for entry in config["layers"]]
        model = cls(name=config.get("name"), trainable=config.get("trainable", True))
        inputs = [layer for layer in layers if isinstance(layer, InputLayer)]
        for layer in inputs:
            model.add(layer)
        invocations: dict[tuple[str, ...], Invocation] = {}
        layers = layers[len(inputs) :]
        calls = config.get("calls") or [[[], "", 0]] * len(layers)
        for layer, (scope, file, line) in zip(layers, calls, strict=True):
            with call_site(saved_chain(tuple(scope), invocations), file, line):
                model.add(layer)
        return model


def _open_batch(tensor: Any) -> tuple[Any, ...]:
    """The shape of an example, the first size open."""
    from graphc.frontends.symbolic import keras_shape

    shape = keras_shape(tuple(tensor.shape))
    return (None, *shape[1:]) if Builder.current() is None or shape[0] is None else shape
