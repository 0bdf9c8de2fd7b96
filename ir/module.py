"""Modules and their weights: functions over one table of named arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.ir.dtypes import dtype
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Function, Op, Value
from graphc.ir.recipes import Recipe
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Weight:
    """A named array of a module. `alias` names another weight this one is tied to (it has no array of its own);
    `recipe` says which weights of the source it was made from, and how. `load` is called when the array is first used.
    """

    name: str
    type: TensorType
    trainable: bool = True
    alias: str | None = None
    recipe: Recipe | None = None
    load: Callable[[], Array] | None = field(default=None, repr=False)
    array: Array | None = field(default=None, repr=False)
    digest: str | None = field(default=None, repr=False)


class WeightTable(Mapping[str, Array]):
    """Weights by name, in order. Reading gives the array (an alias gives its source's)."""

    def __init__(self) -> None:
        self._weights: dict[str, Weight] = {}

    def add(self, name: str, array: Array, trainable: bool = True, recipe: Recipe | None = None) -> Weight:
        """Add an array under a new name. Raises `GraphcError` if the name is taken."""
        array = np.asarray(array)
        return self.declare(
            Weight(name, TensorType.of(dtype(array.dtype), array.shape), trainable, recipe=recipe, array=array)
        )

    def declare(self, weight: Weight) -> Weight:
        """Add a weight whose array may come later (`load`, or `set`)."""
        if weight.name in self._weights:
            raise GraphcError(f"there is a weight {weight.name!r} already")
        self._weights[weight.name] = weight
        return weight

    def tie(self, name: str, to: str) -> Weight:
        """Add `name` as another name of the weight `to`."""
        source = self.source(to)
        return self.declare(Weight(name, source.type, source.trainable, alias=source.name))

    def info(self, name: str) -> Weight:
        """The entry of `name` itself. Raises KeyError."""
        return self._weights[name]

    def source(self, name: str) -> Weight:
        """The entry that holds the array of `name`, through aliases."""
        weight = self._weights[name]
        while weight.alias is not None:
            weight = self._weights[weight.alias]
        return weight

    def set(self, name: str, array: Array) -> None:
        """Replace the array. Raises `ShapeError` when it does not fit."""
        weight = self.source(name)
        array = np.asarray(array)
        if array.shape != weight.type.shape:
            raise ShapeError(f"weight {name!r} has shape {list(weight.type.shape)}, not {list(array.shape)}")
        weight.array, weight.load, weight.digest = array.astype(weight.type.dtype.numpy, copy=False), None, None

    def remove(self, *names: str) -> None:
        """Forget weights that no alias refers to. Linear in all weights."""
        tied = {weight.alias for weight in self._weights.values() if weight.name not in names}
        for name in names:
            if name in tied:
                raise GraphcError(f"weight {name!r} is tied to others")
            del self._weights[name]

    def replace(self, changes: Mapping[str, Iterable[Weight]]) -> None:
        """Put other weights in the place of some, whose aliases are the caller's affair. Raises `GraphcError` if one of
        their names is taken. Linear in all weights."""
        made = {name: {weight.name: weight for weight in weights} for name, weights in changes.items()}
        found: dict[str, Weight] = {}
        for key, weight in self._weights.items():
            for name, each in made.get(key, {key: weight}).items():
                if name in found:
                    raise GraphcError(f"there is a weight {name!r} already")
                found[name] = each
        self._weights = found

    def digest(self, name: str) -> str | None:
        """SHA-256 of the array's bytes in hex, or None while it has no array."""
        weight = self.source(name)
        if weight.digest is None and (weight.array is not None or weight.load is not None):
            data: Any = np.ascontiguousarray(self[name])
            weight.digest = hashlib.sha256(data.view(np.uint8).data if data.size else b"").hexdigest()
        return weight.digest

    def entries(self) -> Iterator[Weight]:
        yield from self._weights.values()

    def copy(self) -> WeightTable:
        """A table of its own with the same arrays."""
        out = WeightTable()
        for w in self._weights.values():
            out.declare(Weight(w.name, w.type, w.trainable, w.alias, w.recipe, w.load, w.array, w.digest))
        return out

    def __getitem__(self, name: str) -> Array:
        weight = self.source(name)
        if weight.array is None:
            if weight.load is None:
                raise GraphcError(f"weight {name!r} ({weight.type}) has no array: the text refers to it only")
            weight.array = weight.load()
        return weight.array

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __contains__(self, name: object) -> bool:
        return name in self._weights


class Module:
    """Functions over one weight table. Public functions are the entries that users call."""

    __slots__ = ("functions", "weights")

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.weights = WeightTable()

    @property
    def entries(self) -> dict[str, Function]:
        """The public functions by name, the main one first."""
        return {f.name: f for f in self.functions.values() if f.public}

    @property
    def main(self) -> Function:
        """The first public function. Raises `GraphcError` when there is none."""
        for function in self.functions.values():
            if function.public:
                return function
        raise GraphcError("the module has no public function")

    def entry(self, name: str | None = None) -> Function:
        """The entry of this name, the main one by default."""
        if name is None:
            return self.main
        if name not in self.functions:
            raise GraphcError(f"the module has no function {name!r}; it has {', '.join(self.functions)}")
        return self.functions[name]

    def add_function(self, name: str, public: bool = True) -> Function:
        """A new, empty function. Raises `GraphcError` if the name is taken."""
        if name in self.functions:
            raise GraphcError(f"there is a function {name!r} already")
        function = Function(name, public)
        function.module = self
        self.functions[name] = function
        return function

    def free_name(self, name: str) -> str:
        """`name`, numbered if a function has it already."""
        number, found = 1, name
        while found in self.functions:
            found, number = f"{name}_{number}", number + 1
        return found

    def constant_parameter(self, function: Function, array: Array) -> Value:
        """A parameter of `function` that stands for a constant array kept in the weight table."""
        number = sum(name.startswith("constant_") for name in self.weights)
        weight = self.weights.add(f"constant_{number}", array, trainable=False)
        return function.add_parameter(weight.type, weight.name, "param", weight.name)

    def walk(self) -> Iterator[Op]:
        """All ops of all functions."""
        for function in self.functions.values():
            yield from function.walk()

    def clone(self) -> Module:
        """A deep copy of the graph; arrays are shared."""
        from graphc.ir.cloning import clone_module

        return clone_module(self)

    def verify(self) -> None:
        """Check the rules of the IR. Raises `VerifyError` that lists what is broken and where."""
        from graphc.ir.verifier import verify

        verify(self)

    def __repr__(self) -> str:
        return f"<Module: {', '.join(f'@{name}' for name in self.functions) or 'empty'}>"

    def __str__(self) -> str:
        from graphc.ir.printer import module_text

        return module_text(self)
