"""Where each layer and weight of a model is: its path from the root, fixed by the model alone.

A layer's path is that of its scope and its name; a name nobody gave is numbered among its siblings, so that equal
blocks have equal names inside. What is found twice keeps its first path, and the second is an alias.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphc.frontends.naming import Names
from graphc.frontends.variable import Variable


@dataclass
class WeightPlace:
    """A name of a weight: the layer it was found in and the attribute that holds it, if one does."""

    name: str
    variable: Variable
    layer: Any
    attribute: str | None


@dataclass
class LayerPaths:
    """The layers of a model by path, the path of each (by id), and the weights' names."""

    layers: dict[str, Any] = field(default_factory=dict)
    path_of: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    places: list[WeightPlace] = field(default_factory=list)
    children: dict[str, Names] = field(default_factory=dict)
    taken: Names = field(default_factory=Names)

    @property
    def aliases(self) -> dict[str, str]:
        """Further names of weights, and the first name of each."""
        return {p.name: self.names[id(p.variable)] for p in self.places if p.name != self.names[id(p.variable)]}


def layer_paths(model: Any) -> LayerPaths:
    """The paths of all that `model` holds; its own is the empty path."""
    found = LayerPaths()
    found.path_of[id(model)] = ""
    _visit(model, "", found, [])
    return found


def _visit(layer: Any, path: str, found: LayerPaths, above: list[Any]) -> None:
    _add_variables(layer, path, found)
    graph = getattr(layer, "_graph", None)
    placed: list[tuple[Any, str]] = []
    if graph is not None:
        first: dict[int, str] = {}
        for node in graph.nodes:
            if node.layer is not None and id(node.layer) not in first:
                first[id(node.layer)] = join(path, *graph.scopes[id(node)])
        in_call_order = [n.layer for n in graph.nodes if n.layer is not None]
        by_id = {id(child): child for child in [*in_call_order, *layer._layers]}
        placed = [
            (child, first.get(key, path)) for key, child in by_id.items() if not getattr(child, "is_input", False)
        ]
        for node in graph.nodes:
            for end in range(len(graph.scopes[id(node)])):
                parent = join(path, *graph.scopes[id(node)][:end])
                found.children.setdefault(parent, Names()).add(graph.scopes[id(node)][end])
    else:
        placed = [(child, path) for child in layer._layers if not getattr(child, "is_input", False)]
    for child, scope in placed:
        if child.automatic_prefix is None:
            found.children.setdefault(scope, Names()).add(child.name)
    names: dict[int, str] = {}
    used: set[str] = set()
    for child, scope in placed:
        siblings = found.children.setdefault(scope, Names())
        given = child.automatic_prefix is None and join(scope, child.name) not in used
        name = child.name if given else siblings.new(child.automatic_prefix or child.name)
        names[id(child)] = join(scope, name)
        used.add(names[id(child)])
    # Weights are in the order of the layers, paths in the order of the calls.
    order = {id(child): position for position, child in enumerate(layer._layers)}
    for child, _ in sorted(placed, key=lambda entry: order.get(id(entry[0]), len(order))):
        if any(child is outer for outer in above):
            continue
        child_path = names[id(child)]
        if id(child) in found.path_of:
            _visit_alias(child, child_path, found)
            continue
        found.path_of[id(child)] = child_path
        found.layers[child_path] = child
        _visit(child, child_path, found, [*above, layer])
    if graph is not None:
        for variable in graph.loose_variables:
            if id(variable) not in found.names:
                _add(found, join(path, variable.name), variable, layer, None)


def _visit_alias(layer: Any, path: str, found: LayerPaths) -> None:
    """The names that the weights of a layer met before have by its further path."""
    inner = layer_paths(layer)
    for place in inner.places:
        found.places.append(WeightPlace(join(path, place.name), place.variable, place.layer, place.attribute))


def _add_variables(layer: Any, path: str, found: LayerPaths) -> None:
    attributes = {id(value): name for name, value in vars(layer).items() if isinstance(value, Variable)}
    taken = Names()
    for variable in layer.own_variables:
        attribute = attributes.get(id(variable))
        name = taken.new(variable.name if variable.name != "variable" else attribute or "variable")
        _add(found, join(path, name.replace("/", "_")), variable, layer, attribute)


def _add(found: LayerPaths, name: str, variable: Variable, layer: Any, attribute: str | None) -> None:
    name = name if id(variable) in found.names else found.taken.new(name)
    found.names.setdefault(id(variable), name)
    found.places.append(WeightPlace(name, variable, layer, attribute))


def join(*parts: str) -> str:
    """A path of the parts that are not empty."""
    return "/".join(part for part in parts if part)
