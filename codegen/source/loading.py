"""Running the `model.py` of an artifact in this process, with NumPy arrays in and out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from graphc.codegen.artifact import read_manifest
from graphc.codegen.source.naming import identifier
from graphc.codegen.target import Array, EntryFunction
from graphc.ir.errors import FormatError

_numbers = count()


def import_model(folder: Path) -> ModuleType:
    """The `model.py` of an artifact as a module of its own."""
    name = f"graphc_artifact_{next(_numbers)}"
    spec = spec_from_file_location(name, folder / "model.py")
    if spec is None or spec.loader is None or not (folder / "model.py").is_file():
        raise FormatError(f"{folder} misses the file model.py")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_entries(
    folder: Path,
    to_native: Callable[[Array], Any],
    to_numpy: Callable[[Any], Array],
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Mapping[str, EntryFunction]:
    """The entries of an artifact; arrays are converted on the way in and out, and calls are made in `context`."""
    manifest = read_manifest(folder)
    model = import_model(folder).load(folder)

    def entry(name: str, function: Callable[..., Any], outputs: int) -> EntryFunction:
        def run(*arrays: Array) -> tuple[Array, ...]:
            with np.errstate(all="ignore"), context():
                found = function(*map(to_native, arrays))
            results = () if outputs == 0 else (found,) if outputs == 1 else found
            return tuple(map(to_numpy, results))

        run.__name__ = name
        return run

    found: dict[str, EntryFunction] = {}
    for i, (name, described) in enumerate(manifest.entries.items()):
        function = model if i == 0 else getattr(model, identifier(name))
        found[name] = entry(name, function, sum(port.updates is None for port in described.outputs))
    return found
