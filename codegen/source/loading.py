"""Running the `model.py` of an artifact in this process, with NumPy arrays in and out."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from safetensors import SafetensorError

from graphc.codegen.artifact import MANIFEST, Manifest, check_listed, read_manifest, write_weights
from graphc.codegen.source.dialect import Dialect
from graphc.codegen.target import Array, EntryFunction, Loaded, not_stored
from graphc.ir.errors import FormatError

SOURCE, WEIGHTS = "model.py", "model.safetensors"

_numbers = count()


def import_model(folder: Path) -> ModuleType:
    """The `model.py` of an artifact as a module of its own.

    It is compiled from the text itself: Python's cache of bytecode beside it is outside of the manifest.
    """
    path = folder / SOURCE
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:
        raise FormatError(f"{path} is not Python: {error}") from None
    module = ModuleType(f"graphc_artifact_{next(_numbers)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def load_model(folder: Path, manifest: Manifest) -> Any:
    """What `load` of the artifact's `model.py` returns. Raises `FormatError` for files that are not its own."""
    check_listed(folder, manifest, *(SOURCE, WEIGHTS) if manifest.weights else (SOURCE,))
    load = getattr(import_model(folder), "load", None)
    if load is None:
        raise FormatError(f"{folder / SOURCE} has no function `load`")
    try:
        return load(folder)
    except (SafetensorError, OSError, LookupError, RuntimeError) as error:  # torch has RuntimeError for a misfit
        raise FormatError(f"the weights in {folder} cannot be loaded: {error}") from error


class SourceEntry(EntryFunction):
    """An entry that is a function of a `model.py`, which has `outputs` results. Calls are made in `context`."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        outputs: int,
        folder: Path,
        context: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.name = name
        self.function = function
        self.outputs = outputs
        self.folder = folder
        self.context = context

    def from_numpy(self, array: Array) -> Any:
        """An array as the framework's own. It may share the array's memory."""
        return array

    def to_numpy(self, results: Sequence[Any]) -> tuple[Array, ...]:
        return tuple(map(np.asarray, results))

    def native(self, *arrays: Array) -> tuple[Any, ...]:
        """Raises `FormatError` where the source returns more or fewer results than the manifest has outputs."""
        with self.context():
            found = self.function(*map(self.from_numpy, arrays))
        if type(found) is tuple:
            results: tuple[Any, ...] = found
        else:
            results = () if found is None else tuple(found) if isinstance(found, (tuple, list)) else (found,)
        if len(results) != self.outputs:
            raise FormatError(
                f"{self.folder / SOURCE} returns {len(results)} results from the entry {self.name!r}, for which "
                f"{self.folder / MANIFEST} has {self.outputs} outputs"
            )
        return results


class SourceArtifact(Loaded):
    """An artifact that `dialect` wrote: its `model.py` as a module, whose entries are called in `context`."""

    dialect: ClassVar[type[Dialect]]
    entry_class: ClassVar[type[SourceEntry]] = SourceEntry

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        self.model = load_model(folder, manifest)
        self._names = dict.fromkeys(manifest.weights)
        found: dict[str, EntryFunction] = {}
        methods = self.dialect.entry_names(manifest.entries)
        for i, (name, described) in enumerate(manifest.entries.items()):
            function = self.model if i == 0 else getattr(self.model, methods[name], None)
            if function is None:
                raise FormatError(f"{folder / SOURCE} has no entry {name!r}")
            outputs = sum(port.updates is None for port in described.outputs)
            found[name] = self.entry_class(name, function, outputs, folder, self.context)
        self.entries = found
        self.changed = any(port.updates is not None for e in manifest.entries.values() for port in e.outputs)

    def context(self) -> AbstractContextManager[Any]:
        """What calls are made in."""
        return np.errstate(all="ignore")

    @property
    def stored(self) -> Sequence[str]:
        return list(self._names)

    def write_weights(self, folder: Path) -> None:
        if self._names:
            write_weights(folder / WEIGHTS, {name: self.read(name) for name in self._names})


class TreeArtifact(SourceArtifact):
    """An artifact whose `model.py` has functions over `params`, nested dicts and lists of arrays."""

    def read(self, name: str) -> Array:
        group, key = self._place(name)
        return np.array(group[key])

    def described(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        group, key = self._place(name)
        return group[key].shape, group[key].dtype

    def replace(self, name: str, array: Array) -> None:
        group, key = self._place(name)
        group[key] = self.held(array)

    @abstractmethod
    def held(self, array: Array) -> Any:
        """A copy of an array as `params` has it."""

    def _place(self, name: str) -> tuple[Any, Any]:
        """The dict or list that holds a weight, and its key there; where `load` made lists, keys are positions."""
        if name not in self._names:
            raise not_stored(name)
        group: Any = {"": self.model.params}
        key: Any = ""
        for part in name.split("/"):
            group = group[key]
            key = int(part) if isinstance(group, list) else part
        return group, key
