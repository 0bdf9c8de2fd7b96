"""From a file to a module of the IR."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graphc.frontends.lowering import lower
from graphc.frontends.model import Model
from graphc.frontends.programs import module_in
from graphc.ir.errors import FormatError, UnsupportedError
from graphc.ir.module import Module

_LATER = {
    ".onnx": "ONNX",
    ".pt2": "torch.export",
    ".keras": "Keras",
    ".gguf": "GGUF",
    ".safetensors": "Hugging Face",
}


def load(source: Any, entry: str = "model") -> Module:
    """The module of a `.graphc` file, of IR text (`.gir`), or of what a `.py` file of one's own defines under `entry`:
    a model, a module, or a function that returns one. Models and modules are taken as they are.

    Raises `FormatError` for broken files, `ParseError` and `VerifyError` for wrong IR text, `UnsupportedError` for
    formats that are not read yet.
    """
    if isinstance(source, Module):
        return source
    if isinstance(source, Model):
        return lower(source)
    if not isinstance(source, (str, os.PathLike)):
        raise UnsupportedError(f"load takes a path, a model or a module, not {type(source).__name__}; {_formats()}")
    path = Path(source)
    if not path.exists():
        raise FormatError(f"there is no file {str(path)!r}")
    if path.suffix == ".graphc":
        from graphc.frontends.saving import load_module

        return load_module(path)
    if path.suffix == ".gir":
        return _parsed(path)
    if path.suffix == ".py":
        return module_in(path, entry)
    raise UnsupportedError(f"cannot read {path.name!r}; {_formats()}")


def _formats() -> str:
    return f"it reads .graphc, .gir and .py; later {', '.join(sorted(_LATER.values()))} ({', '.join(sorted(_LATER))})"


def _parsed(path: Path) -> Module:
    from graphc.ir import parse

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name} is not text: {error}") from error
    module = parse(text)
    module.verify()  # parsing leaves to it what can only be said of a whole function
    return module
