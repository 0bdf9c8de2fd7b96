"""Whatever a user names as a model, as a module."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graphc import frontends
from graphc.codegen.artifact import MANIFEST
from graphc.ir.errors import GraphcError
from graphc.ir.module import Module

DEFAULT_ENTRY = "model"


def module_of(source: Any, entry: str | None = None) -> Module:
    """The module of a model, of a path, or of whatever else `graphc.load` takes; a module is returned as it is.

    `entry` names what a `.py` defines: a model, a module, or a function that returns one (`model` by default).
    """
    if callable(source) and not isinstance(source, (Module, frontends.Layer)):
        name = getattr(source, "__name__", "function")
        raise GraphcError(f"{name} is a plain function; give its inputs: graphc.trace({name}, graphc.Spec(...), ...)")
    if entry is not None and not str(source).endswith(".py"):
        raise GraphcError(f"an entry is named for a .py only, and {source} is not one")
    if isinstance(source, (str, os.PathLike)) and (Path(source) / MANIFEST).is_file():
        raise GraphcError(f"{source} is an artifact: it runs (`graphc run`, `graphc.load_artifact`), but is no model")
    return frontends.load(source, entry or DEFAULT_ENTRY)
