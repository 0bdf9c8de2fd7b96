"""What a target is: what it can express, how it writes an artifact, and how it loads one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe

Array = np.ndarray[Any, Any]
EntryFunction = Callable[..., tuple[Array, ...]]


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
    def load(self, folder: Path) -> Mapping[str, EntryFunction]:
        """Each entry of an artifact as a function on NumPy arrays, in input order.

        It returns a tuple of the results in order, without those that update a weight: their values replace the
        weight in the loaded artifact, for all of its entries, after every read of the call.
        """
