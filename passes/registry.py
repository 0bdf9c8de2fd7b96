"""Passes by name, and pipelines of them.

    @register_pass("dce")
    def dce(module: Module) -> None:
        "Remove ops that nothing reads."

A pass changes its module in place; its keyword parameters are its options. Every file of this folder is imported when a
pass is first looked up, so that adding a file adds its passes.
"""

from __future__ import annotations

import gc
import inspect
import pkgutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, TypeVar, get_type_hints

from graphc.ir.errors import GraphcError
from graphc.ir.module import Module
from graphc.ir.suggestions import nearest
from graphc.passes.checking import Check
from graphc.passes.options import Option, check_kind, parse_pipeline, read_options

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Pass:
    """A registered pass. `finite`: it keeps the meaning for finite values only, not for NaN and infinities;
    `approximate`: what it leaves computes something near, on purpose."""

    name: str
    doc: str
    options: tuple[Option, ...]
    finite: bool
    approximate: bool
    run: Callable[..., Any]

    def __str__(self) -> str:
        options = "".join(f"\n    {option}" for option in self.options)
        return f"{self.name}: {self.doc}{options}"


_PASSES: dict[str, Pass] = {}


def register_pass(name: str, *, finite: bool = False, approximate: bool = False) -> Callable[[F], F]:
    """Decorator: make a function over a module, which it changes in place, a pass of this name.

    Raises TypeError for an option without default or of no known kind, and for a name that is taken.
    """

    def register(function: F) -> F:
        if name in _PASSES and _PASSES[name].run is not function:
            raise TypeError(f"there is a pass {name!r} already")
        hints = get_type_hints(function)
        options: list[Option] = []
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.default is parameter.empty:
                raise TypeError(f"the option {parameter.name!r} of pass {name!r} needs a default")
            check_kind(hints[parameter.name])
            options.append(Option(parameter.name, hints[parameter.name], parameter.default))
        doc = inspect.cleandoc(function.__doc__ or "").partition("\n")[0]
        _PASSES[name] = Pass(name, doc, tuple(options), finite, approximate, function)
        return function

    return register


@cache
def _discover() -> None:
    """Import every file of this folder, so that its passes are registered."""
    package = __name__.rpartition(".")[0]
    for found in pkgutil.iter_modules(import_module(package).__path__):
        if not found.ispkg:
            import_module(f"{package}.{found.name}")


def passes() -> list[Pass]:
    """Every pass, sorted by name."""
    _discover()
    return sorted(_PASSES.values(), key=lambda each: each.name)


def find_pass(name: str) -> Pass:
    """The pass of this name. Raises `GraphcError` that suggests the nearest names."""
    _discover()
    if name not in _PASSES:
        raise GraphcError(f"there is no pass {name!r}{nearest(name, _PASSES)}")
    return _PASSES[name]


Observer = Callable[[str, Module], None]
"""Called with the name of a stage and the module after it, which is to be read only."""


def run_passes(module: Module, pipeline: str, check: bool = False, observe: Observer | None = None) -> Module:
    """A copy of `module` after the passes of `pipeline` (`"canonicalize,layout{channels_first=true}"`).

    With `check`, the module is verified and interpreted before and after every pass on drawn inputs; `observe` sees the
    module after each. Raises `GraphcError` for a pipeline that cannot be read, and for a pass that breaks the module or
    changes what it means.
    """
    calls = _calls(pipeline)
    with collector_paused():
        copy = module.clone()
        checker = Check(copy) if check else None
        for each, options in calls:
            each.run(copy, **options)
            if checker is not None:
                checker.after(each.name, copy, each.finite, each.approximate)
            if observe is not None:
                observe(each.name, copy)
    return copy


def intended(module: Module, pipeline: str) -> tuple[Module, tuple[str, ...]]:
    """What the module is to compute after `pipeline`, and the passes that are approximate on purpose: a copy after the
    last of these. Later passes, and targets, may not change it. Without any it is the module itself."""
    calls = _calls(pipeline)
    names = tuple(each.name for each, _ in calls if each.approximate)
    if not names:
        return module, ()
    last = max(i for i, (each, _) in enumerate(calls) if each.approximate)
    with collector_paused():
        copy = module.clone()
        for each, options in calls[: last + 1]:
            each.run(copy, **options)
    return copy, names


def _calls(pipeline: str) -> list[tuple[Pass, dict[str, Any]]]:
    """The passes of a pipeline with the values of their options."""
    steps = [(find_pass(step.name), step.options) for step in parse_pipeline(pipeline)]
    return [(each, read_options(each.name, given, each.options)) for each, given in steps]


@contextmanager
def collector_paused() -> Generator[None]:
    """Without Python's cyclic garbage collector, which doubles the time that large graphs take."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
