"""Whatever a user names as a model, as a module: a model, a module, a file, or a `.py` that defines one.

A `.py` is the one thing that is executed, because it is the user's own program.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc import frontends
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.module import Module

DEFAULT_NAME = "model"


def module_of(source: Any, entry: str | None = None) -> Module:
    """The module of a model, a path, or whatever else `graphc.load` takes; a module is returned as it is.

    `entry` names what a `.py` defines: a model, a module, or a function that returns one (`model` by default).
    Raises `GraphcError` when there is no such thing, and when the program itself fails, with its line.
    """
    if isinstance(source, Module):
        return source
    if isinstance(source, frontends.Layer):
        return frontends.lower(source)
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix == ".py":
            return _module_in(path, entry or DEFAULT_NAME)
        if not path.exists():
            raise FormatError(f"there is no file {path}")
    elif callable(source):
        name = getattr(source, "__name__", "the function")
        raise GraphcError(f"{name} is a plain function; give its inputs: graphc.trace({name}, graphc.Spec(...), ...)")
    if entry is not None:
        raise GraphcError(f"{source} is not a .py: there is no {entry!r} to look for in it")
    return frontends.load(source)


def _module_in(path: Path, name: str) -> Module:
    if not path.is_file():
        raise FormatError(f"there is no file {path}")
    with _explained(path):
        program = _execute(path)
    if not hasattr(program, name):
        models = [key for key, value in vars(program).items() if isinstance(value, (frontends.Layer, Module))]
        there = f"it defines {', '.join(models)} (choose with --entry)" if models else "it defines no model at all"
        raise GraphcError(f"{path} defines no {name!r}; {there}")
    found = getattr(program, name)
    if callable(found) and not isinstance(found, (frontends.Layer, Module)):
        with _explained(path):
            found = found()
    if not isinstance(found, (frontends.Layer, Module)):
        raise GraphcError(f"{name!r} of {path} is a {type(found).__name__}, not a model or a function that returns one")
    return module_of(found)


def _execute(path: Path) -> ModuleType:
    """Run the file as a module of its own, with its folder on the path as Python has it for a script."""
    spec = importlib.util.spec_from_file_location(f"graphc_source_{path.stem}", path.resolve())
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = program
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(program)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return program


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Let what the user's program raises be a `GraphcError` that says where."""
    try:
        yield
    except GraphcError:
        raise
    except SyntaxError as error:
        raise GraphcError(f"{error.filename or path}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if Path(frame.filename) == path.resolve()]
        line = f":{own[-1]}" if own else ""
        raise GraphcError(f"{path}{line}: {type(error).__name__}: {error}") from error
