"""From a Python function over arrays to a module of the IR."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphc.frontends.adapters import apply_adapters
from graphc.frontends.layer_paths import join, layer_paths
from graphc.frontends.naming import Names, identifier, unique
from graphc.frontends.recording import Recording
from graphc.frontends.structures import flatten, map_structure, pack, paths
from graphc.frontends.symbolic import SymbolicTensor, size_of
from graphc.frontends.variable import Variable
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, symbol
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Result, Value
from graphc.ir.location import Scope
from graphc.ir.module import Module
from graphc.ir.types import TensorType


class Spec:
    """The type of an argument: sizes that are numbers, names (equal names are equal sizes) or None; and a dtype."""

    def __init__(self, shape: Any = (), dtype: Any = "float32", name: str | None = None) -> None:
        self.shape = (shape,) if isinstance(shape, (int, str)) else tuple(shape)
        self.dtype = dtype_of(dtype)
        self.name = name

    def __repr__(self) -> str:
        return f"Spec({self.shape}, {str(self.dtype)!r}{'' if self.name is None else f', {self.name!r}'})"


def trace(fn: Callable[..., Any], *specs: Any) -> Module:
    """The function as a module with one entry, named after it.

    It is called once, on traced values of these specs (a spec may also be a list or dict of them). Operators, NumPy
    functions, `graphc.ops` and layers record ops; results may be nested. Each op knows the source line it came from.
    """
    recording = TracedFunction(_name(fn))
    names = _names(fn, specs)
    types = _types([spec for argument in specs for spec in flatten(argument)])
    values = [recording.function.add_parameter(type, name) for type, name in zip(types, names, strict=True)]
    recording.taken = Names(names)
    with recording.active(), Builder(recording.function.block, trace_lines=True) as builder:
        found = fn(*pack(list(specs), values))
        if any(leaf is None for leaf in flatten(found)):
            raise GraphcError(f"the traced function {_name(fn)!r} returned None; return arrays")
        outputs = map_structure(builder.value, found)
        apply_adapters(recording)
        builder.finish(flatten(outputs))
    recording.draw_keys_at_once()
    named = [identifier(path) if path else "output" for path in paths(outputs)]
    recording.function.results = [Result(f"output{name}" if name.startswith("_") else name) for name in named]
    return recording.module


class TracedFunction(Recording):
    """The function a trace becomes. Variables that it reads become weights when they are first met."""

    def __init__(self, name: str) -> None:
        super().__init__(None, name)
        self.taken = Names()
        self.paths: dict[int, str] = {}
        self.called: list[tuple[Any, str]] = []
        self.calls: dict[tuple[Scope, int], int] = {}

    def parameter(self, variable: Variable) -> Value:
        weight = self.module.weights.add(
            unique(self._path(variable), self.module.weights), variable.numpy(), variable.trainable
        )
        value_name = self.taken.new(identifier(weight.name))
        return self.function.add_parameter(
            weight.type, value_name, "param" if variable.trainable or variable.frozen else "state", weight.name
        )

    def _path(self, variable: Variable) -> str:
        """The variable's path below the layer that was called, or its name."""
        if id(variable) not in self.paths:
            for layer, path in self.called:  # looked at now, as a layer has no variables before its first call
                for key, below in layer_paths(layer).names.items():
                    self.paths.setdefault(key, join(path, below))
        return self.paths.setdefault(id(variable), variable.name)

    def symbolic_value(self, tensor: SymbolicTensor) -> Value:
        raise GraphcError(
            f"the symbolic tensor {tensor.name!r} of a functional model was used while tracing a function"
        )

    def assign(self, variable: Variable, value: Value) -> None:
        raise GraphcError(
            f"the variable {variable.name!r} is assigned inside a traced function; lower a model for training instead"
        )

    def layer_scope(self, layer: Any, builder: Builder) -> Scope:
        scope = builder.location.scope
        path = self.paths.get(id(layer))
        if path is None:
            name = self.numbered(scope, layer.automatic_prefix or layer.name)
            path = join(scope.owner, name)
            self.called.append((layer, path))
            for key, below in layer_paths(layer).path_of.items():
                self.paths.setdefault(key, join(path, below))
        *above, name = path.split("/")
        parent = scope if scope.owner == "/".join(above) else Scope.parse("/".join(above))
        call = self.calls.get((parent, id(layer)), 0)
        self.calls[parent, id(layer)] = call + 1
        return parent.child(name, call)


def _name(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", "")
    return name if name.isidentifier() else "forward"


def _names(fn: Callable[..., Any], specs: tuple[Any, ...]) -> list[str]:
    """A name for each input: the spec's, else the parameter's of the function."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    found: list[str] = []
    for index, argument in enumerate(specs):
        base = positional[index] if index < len(positional) else f"arg{index}"
        for spec, path in zip(flatten(argument), paths(argument), strict=True):
            if not isinstance(spec, Spec):
                raise GraphcError(f"trace takes a Spec for each argument of the function, not {spec!r}")
            name = spec.name or (f"{base}_{path}" if path else base)
            found.append(unique(identifier(name), found))
    return found


def _types(specs: list[Spec]) -> list[TensorType]:
    named = {entry for spec in specs for entry in spec.shape if isinstance(entry, str)}
    named |= {s.name for spec in specs for s in spec.shape if isinstance(s, Dim) and s.is_symbol}
    taken = set(named)

    def fresh() -> Dim:
        name = unique("N", taken).replace("_", "")
        while name in taken:
            name += "_"
        taken.add(name)
        return symbol(name)

    return [TensorType.of(spec.dtype, [size_of(entry, fresh) for entry in spec.shape]) for spec in specs]
