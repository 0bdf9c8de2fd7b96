"""A user's own Python file as the source of a model: the one kind of file that is executed."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.frontends.lowering import lower
from graphc.frontends.model import Model
from graphc.ir.errors import GraphcError
from graphc.ir.module import Module


def module_in(path: Path, entry: str) -> Module:
    """The module of what the file defines under `entry`; see `defined_in`."""
    found = defined_in(path, entry)
    if isinstance(found, Module):
        return found
    with _explained(path):
        return lower(found)


def defined_in(path: Path, entry: str) -> Model | Module:
    """What the file defines under `entry`: a model, a module, or what a function returns that is one.

    Raises `GraphcError` when there is no such thing, and when the program itself fails, with the line.
    """
    with _explained(path):
        program = _execute(path)
    if not hasattr(program, entry):
        models = [name for name, value in vars(program).items() if isinstance(value, (Model, Module))]
        there = (
            f"it defines {', '.join(models)} (name one by --entry, or to graphc.load)"
            if models
            else "it defines no model at all"
        )
        raise GraphcError(f"{path} defines no {entry!r}; {there}")
    found: Any = getattr(program, entry)
    with _explained(path):
        if callable(found) and not isinstance(found, Model):
            found = found()
    if isinstance(found, (Model, Module)):
        return found
    raise GraphcError(
        f"{entry!r} in {path} is of type {type(found).__name__}; it must be a model, or a function that returns one"
    )


def _execute(path: Path) -> ModuleType:
    """Run the file as a module that is not the main one, with its folder on the path as Python has it for a script."""
    spec = importlib.util.spec_from_file_location(f"graphc_source_{path.stem}", path.resolve())
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.modules[spec.name] = program
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(program)
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return program


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Let what the program raises be a `GraphcError` that says where; graphc's own errors say so themselves."""
    try:
        yield
    except GraphcError:
        raise
    except SyntaxError as error:
        elsewhere = error.filename is not None and Path(error.filename).resolve() != path.resolve()
        raise GraphcError(f"{error.filename if elsewhere else path}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        own = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == path.resolve()
        ]
        line = f":{own[-1]}" if own else ""
        raise GraphcError(f"{path}{line}: {type(error).__name__}: {error}{_suggestion(error)}") from error


def _suggestion(error: BaseException) -> str:
    """What a misspelt attribute may have meant: Python says it only where it prints a traceback itself; graphc's own
    modules say it in the error."""
    if not isinstance(error, AttributeError) or error.name is None or "did you mean" in str(error):
        return ""
    close = get_close_matches(error.name, [name for name in dir(error.obj) if not name.startswith("_")], n=1)
    return f"; did you mean {close[0]}?" if close else ""
