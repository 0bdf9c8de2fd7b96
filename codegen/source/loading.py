"""Running the `model.py` of an artifact in this process, with NumPy arrays in and out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError

from graphc.codegen.artifact import MANIFEST, Manifest, check_listed, read_manifest
from graphc.codegen.source.dialect import Dialect
from graphc.codegen.target import Array, EntryFunction
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


def load_entries(
    folder: Path,
    dialect: type[Dialect],
    to_native: Callable[[Array], Any],
    to_numpy: Callable[[Any], Array],
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Mapping[str, EntryFunction]:
    """The entries of an artifact that `dialect` wrote.

    Arrays are converted on the way in and out, and calls are made in `context`. A call raises `FormatError` where the
    source returns more or fewer results than the manifest has outputs.
    """
    manifest = read_manifest(folder)
    model = load_model(folder, manifest)

    def entry(name: str, function: Callable[..., Any], outputs: int) -> EntryFunction:
        def run(*arrays: Array) -> tuple[Array, ...]:
            with np.errstate(all="ignore"), context():
                found = function(*map(to_native, arrays))
            results = () if found is None else tuple(found) if isinstance(found, (tuple, list)) else (found,)
            if len(results) != outputs:
                raise FormatError(
                    f"{folder / SOURCE} returns {len(results)} results from the entry {name!r}, for which "
                    f"{folder / MANIFEST} has {outputs} outputs"
                )
            return tuple(map(to_numpy, results))

        run.__name__ = name
        return run

    found: dict[str, EntryFunction] = {}
    methods = dialect.entry_names(manifest.entries)
    for i, (name, described) in enumerate(manifest.entries.items()):
        function = model if i == 0 else getattr(model, methods[name], None)
        if function is None:
            raise FormatError(f"{folder / SOURCE} has no entry {name!r}")
        found[name] = entry(name, function, sum(port.updates is None for port in described.outputs))
    return found
