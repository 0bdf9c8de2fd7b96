"""What a layer owns: variables and layers among its attributes, also inside lists, tuples and dicts.

Order is the order of assignment, as in Keras: something appended to a tracked list later comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any, SupportsIndex

from graphc.frontends.variable import Variable, rearranged


class Tracker:
    """The variables and layers of one layer, each once, in order."""

    def __init__(self) -> None:
        self.variables: list[Variable] = []
        self.layers: list[Any] = []

    def add(self, value: Any) -> Any:
        """Track `value` and what is in it; returns it, with lists and dicts replaced by ones that track additions."""
        if isinstance(value, Variable):
            _add_once(self.variables, value)
        elif hasattr(value, "inbound_nodes"):
            _add_once(self.layers, value)
        elif type(value) is list:
            return TrackedList(value, self)
        elif type(value) is dict:
            return TrackedDict(value, self)
        elif type(value) is tuple:
            return tuple(self.add(item) for item in value)
        return value

    def replace(self, old: Any, new: Any) -> None:
        """Let `new` take the place of `old`, a variable or a layer."""
        items: list[Any] = self.variables if isinstance(old, Variable) else self.layers
        index = next((i for i, item in enumerate(items) if item is old), None)
        if index is None:
            return
        if type(new) is type(old) and not any(item is new for item in items):
            items[index] = new
        else:
            del items[index]
        rearranged()

    def remove(self, value: Any) -> None:
        """Forget a variable or layer, or those in a list, tuple or dict."""
        for items in (self.variables, self.layers):
            items[:] = [item for item in items if item is not value]
        rearranged()
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for item in value:
                self.remove(item)


def _add_once(items: list[Any], value: Any) -> None:
    if not any(item is value for item in items):
        items.append(value)
        rearranged()


class TrackedList(list[Any]):
    """A list whose variables and layers belong to a layer."""

    def __init__(self, values: Iterable[Any], tracker: Tracker) -> None:
        self._tracker = tracker
        super().__init__(tracker.add(value) for value in values)

    def append(self, value: Any) -> None:
        super().append(self._tracker.add(value))

    def insert(self, index: SupportsIndex, value: Any) -> None:
        super().insert(index, self._tracker.add(value))

    def extend(self, values: Iterable[Any]) -> None:
        super().extend(self._tracker.add(value) for value in values)

    def __iadd__(self, values: Iterable[Any]) -> TrackedList:  # type: ignore[override, misc]
        self.extend(values)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        old = self[index]
        super().__setitem__(index, self._tracker.add(value))
        self._tracker.remove(old)
        self._tracker.add(self[index])

    def __delitem__(self, index: Any) -> None:
        self._tracker.remove(self[index])
        super().__delitem__(index)

    def pop(self, index: SupportsIndex = -1) -> Any:
        value = super().pop(index)
        self._tracker.remove(value)
        return value

    def remove(self, value: Any) -> None:
        del self[self.index(value)]

    def clear(self) -> None:
        self._tracker.remove(list(self))
        super().clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        tracker = memo.get(id(self._tracker))
        if tracker is None:  # alone, without the layer
            return deepcopy(list(self), memo)
        memo[id(self)] = copied = TrackedList((), tracker)
        list.extend(copied, [deepcopy(item, memo) for item in self])
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class TrackedDict(dict[Any, Any]):
    """A dict whose values' variables and layers belong to a layer."""

    def __init__(self, values: dict[Any, Any], tracker: Tracker) -> None:
        self._tracker = tracker
        super().__init__({key: tracker.add(value) for key, value in values.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        if key in self:
            self._tracker.remove(self[key])
        super().__setitem__(key, self._tracker.add(value))

    def __delitem__(self, key: Any) -> None:
        self._tracker.remove(self[key])
        super().__delitem__(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        value = super().pop(key, *default)
        self._tracker.remove(value)
        return value

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        tracker = memo.get(id(self._tracker))
        if tracker is None:
            return deepcopy(dict(self), memo)
        memo[id(self)] = copied = TrackedDict({}, tracker)
        dict.update(copied, {deepcopy(key, memo): deepcopy(value, memo) for key, value in self.items()})
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def owned(attributes: dict[str, Any], wanted: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """The variables or layers in a layer's attributes with the attribute's name, lists and dicts walked through."""
    for name, value in attributes.items():
        for item in _walk(value):
            if wanted(item):
                yield name, item


def _walk(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk(item)
    else:
        yield value
