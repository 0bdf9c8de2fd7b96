"""The weights of a loaded artifact under the source's names and in its layout, as the target holds them now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from graphc.codegen.artifact import Manifest
from graphc.codegen.target import Loaded
from graphc.ir.dtypes import dtype
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.recipes import Recipe

Array = np.ndarray[Any, Any]


class WeightKeyError(GraphcError, KeyError):
    """A weight that an artifact does not hold."""

    __str__ = GraphcError.__str__


class ExecutableWeights(MutableMapping[str, Array]):
    """What the target holds, by the names of the source's weights and in their layout.

    Reading undoes the recipe by which a weight is stored and gives an array of its own, dequantized where it is stored
    quantized; writing applies the recipe, rounding to nearest where that quantizes, and every entry sees the new value
    from its next call on. Tied names read and write the weight they are tied to;
    iteration gives each array once. No weight can be added or removed.

    Raises `WeightKeyError` for a weight that is not there: one that no entry reads, or whose value was computed with
    while compiling; `ShapeError` or `DTypeError` for an array that is not like the weight.
    """

    def __init__(self, loaded: Loaded, manifest: Manifest) -> None:
        self._loaded = loaded
        self._recipes = manifest.weights
        self._tied = manifest.tied
        self._places: dict[str, list[str]] = {}
        """Source weight → the names under which it is stored, alone or joined with others."""
        for stored, recipe in manifest.weights.items():
            for source in recipe.sources:
                self._places.setdefault(source, []).append(stored)
        self._parts: dict[str, tuple[str, ...]] = {}
        """Source weight that is stored quantized → the names of all arrays of its format, in order."""
        for source, names in self._places.items():
            steps = [(self._recipes[name].quantized, name) for name in names]
            parts = sorted((step.part, name) for step, name in steps if step is not None)
            if parts:
                self._parts[source] = tuple(name for _, name in parts)

    def __getitem__(self, name: str) -> Array:
        stored = self._stored(name)[0]
        return self._sources(stored)[self._untied(name)]

    def __setitem__(self, name: str, array: Any) -> None:
        self.update({name: array})

    def __delitem__(self, name: str) -> None:
        raise GraphcError(f"the weight {name!r} cannot be removed from what was compiled")

    def update(self, other: Any = (), /, **named: Any) -> None:  # type: ignore[override]
        """Write several weights: all of them, or none where an array does not fit. Each stored array is made once."""
        given = {self._untied(name): array for name, array in dict(other, **named).items()}
        stored = dict.fromkeys(place for name in given for place in self._stored(name))
        made = {place: self._made(place, self._recipes[place], given) for place in stored}
        for place, array in made.items():
            self._loaded.write(place, array)

    def read(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """The weights of these names (all by default) as a dict; what is stored joined is read once."""
        wanted = list(self if names is None else names)
        arrays: dict[str, Array] = {}
        for place in dict.fromkeys(self._stored(name)[0] for name in wanted):
            arrays |= self._sources(place)
        return {name: arrays[self._untied(name)] for name in wanted}

    def stored_apart(self, names: Iterable[str]) -> list[str] | None:
        """Under which names the target stores these weights; None where one is stored joined with another weight."""
        wanted = {self._untied(name) for name in names}
        places = list(dict.fromkeys(place for name in wanted for place in self._stored(name)))
        return places if all(set(self._recipes[place].sources) <= wanted for place in places) else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._untied(name) in self._places

    def __repr__(self) -> str:
        return f"<{len(self)} weights: {', '.join(self)}>"

    def _untied(self, name: str) -> str:
        while name in self._tied:
            name = self._tied[name]
        return name

    def _stored(self, name: str) -> list[str]:
        places = self._places.get(self._untied(name))
        if places is None:
            raise WeightKeyError(
                f"the artifact holds no weight {name!r}: no entry reads it, or its value was computed with while "
                f"compiling; it has {', '.join(map(repr, self)) or 'none'}"
            )
        return places

    def _sources(self, place: str) -> dict[str, Array]:
        """The source's weights that are stored at a place, alone, joined, or as one array of several."""
        recipe = self._recipes[place]
        if recipe.quantized is None:
            return recipe.invert(self._loaded.read(place))
        parts = self._parts[recipe.sources[0]]
        return Recipe.invert_together([self._recipes[part] for part in parts], [self._loaded.read(p) for p in parts])

    def _made(self, place: str, recipe: Recipe, given: Mapping[str, Any]) -> Array:
        """The stored array of new values of source weights; those that are joined with them keep theirs. So does what
        is stored quantized and is given what is read of it: it is not rounded again."""
        quantized = recipe.quantized is not None
        whole = not quantized and all(name in given for name in recipe.sources)
        current = {} if whole else self._sources(place)
        kept = {n for n in recipe.sources if n not in given or (quantized and np.array_equal(given[n], current[n]))}
        if quantized and len(kept) == len(recipe.sources):
            return self._loaded.read(place)
        like = recipe.source_types(*self._loaded.described(place))
        sources = {name: _fitting(name, given.get(name, current.get(name)), *like[name]) for name in recipe.sources}
        array = recipe.apply(sources)
        return recipe.keeping(array, self._loaded.read(place), kept) if quantized else array


def _fitting(name: str, array: Any, shape: tuple[int, ...], kind: np.dtype[Any]) -> Array:
    array = np.asarray(array)
    if array.shape != shape:
        raise ShapeError(f"weight {name!r} has shape {list(shape)}, not {list(array.shape)}")
    if array.dtype != kind:
        if dtype(array.dtype).kind != dtype(kind).kind:
            raise DTypeError(f"weight {name!r} is {dtype(kind)}; a {array.dtype} array does not convert to it")
        array = array.astype(kind)
    return array
