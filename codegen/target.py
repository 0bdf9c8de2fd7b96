"""What a target is: what it can express, how it writes an artifact, and how it loads one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphc.ir.analysis.liveness import PLAIN, Memory
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe

Array = np.ndarray[Any, Any]


class EntryFunction(ABC):
    """An entry of a loaded artifact, on NumPy arrays in input order.

    A call returns the results in order, without those that update a weight: their values replace the weight in the
    loaded artifact, for all of its entries, after every read of the call.
    """

    @abstractmethod
    def native(self, *arrays: Array) -> tuple[Any, ...]:
        """The results as the framework's own arrays, for which a call need not wait where the framework does not."""

    @abstractmethod
    def to_numpy(self, results: Sequence[Any]) -> tuple[Array, ...]:
        """What `native` returned, as NumPy arrays."""

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        return self.to_numpy(self.native(*arrays))


class Loaded(ABC):
    """An artifact in this process: its entries, over weights that stay in the target's memory between calls.

    `changed`: whether weights may differ from those in the files.
    """

    entries: Mapping[str, EntryFunction]
    changed: bool = False

    @property
    @abstractmethod
    def stored(self) -> Sequence[str]:
        """The names under which weights are stored: those of the manifest."""

    @abstractmethod
    def read(self, name: str) -> Array:
        """A copy of what the target holds of a stored weight now, whichever entry updated it last.

        Raises `GraphcError` for a name that is not stored.
        """

    def write(self, name: str, array: Array) -> None:
        """Give a stored weight another value, which every entry sees from its next call on.

        Raises `GraphcError` for a name that is not stored, `ShapeError` or `DTypeError` for an array that is not like
        the one held.
        """
        shape, dtype = self.described(name)
        array = np.asarray(array)
        if array.shape != shape:
            raise ShapeError(f"the stored weight {name!r} has shape {list(shape)}, not {list(array.shape)}")
        if array.dtype != dtype:
            raise DTypeError(f"the stored weight {name!r} is {dtype}, not {array.dtype}")
        self.changed = True
        self.replace(name, array)

    @abstractmethod
    def described(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The shape and dtype of a stored weight. Raises `GraphcError` for a name that is not stored."""

    @abstractmethod
    def replace(self, name: str, array: Array) -> None:
        """`write` for an array that is known to fit. It may be changed afterwards, so it is copied."""

    def clear(self, names: Sequence[str]) -> None:
        """Set stored weights to 0."""
        self.changed = True
        for name in names:
            self.replace(name, np.zeros(*self.described(name)))

    @abstractmethod
    def write_weights(self, folder: Path) -> None:
        """Replace the weights in `folder`, a copy of the artifact, by those held now; the manifest is not touched."""


def not_stored(name: str) -> GraphcError:
    """The error for a name under which an artifact stores no weight."""
    return GraphcError(f"the artifact stores no weight {name!r}")


class Target(ABC):
    """One way to write modules out. A folder `codegen/<name>/` whose `__init__.py` has an instance `TARGET` adds one.

    Frameworks are imported when `write` or `load` needs them, never when the folder is imported.
    """

    name: ClassVar[str]
    """What users call it; the folder's name."""

    extra: ClassVar[str] = ""
    """The pip extra that installs what it needs (`graphc[torch]`); empty when graphc itself does."""

    modules: ClassVar[tuple[str, ...]] = ()
    """Import names of what an artifact needs to run."""

    memory: ClassVar[Memory] = PLAIN
    """How it holds values, for plans of memory: what is a view, and which workspace an op needs."""
    in_order: ClassVar[bool] = False
    """Whether it runs ops one after another as they stand, and lets go of each value after its last reader."""

    def available(self) -> bool:
        """Whether everything in `modules` is installed here."""
        return all(find_spec(module) is not None for module in self.modules)

    @abstractmethod
    def supports(self, op: Op) -> bool:
        """Whether the target has this op, on these types and with these attributes. What it lacks is decomposed."""

    def prepare(self, module: Module) -> Module:
        """The target's own passes, before legalisation (its layout, for one). `module` may be changed in place."""
        return module

    @abstractmethod
    def write(self, module: Module, folder: Path) -> Mapping[str, Recipe] | None:
        """Write a legal module into an empty folder, all but the manifest.

        Returns the name under which each weight was stored, with the recipe that makes it from the module's weights;
        None where weights were stored as they are, under their own names. Raises `UnsupportedError`.
        """

    @abstractmethod
    def load(self, folder: Path) -> Loaded:
        """An artifact of this target, ready to be called. Raises `FormatError` for a folder that is broken."""
