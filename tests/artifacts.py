"""Artifacts made and checked in tests: a module (or its text) on a target, beside what it means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.codegen import target
from graphc.codegen.compiler import write_artifact
from graphc.codegen.target import EntryFunction
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.parser import parse

Array = np.ndarray[Any, Any]


def needs(name: str) -> None:
    """Skip the test where the target is not installed; the extra `test` installs all."""
    if not target(name).available():
        pytest.skip(f"{name} is not installed")


def loaded(module: Module | str, name: str, folder: Path, passes: str | None = None) -> Mapping[str, EntryFunction]:
    """The entries of the artifact of a module on a target, written into `folder`."""
    module = parse(module) if isinstance(module, str) else module
    write_artifact(module, name, folder, passes)
    return target(name).load(folder).entries


def agrees(module: Module | str, name: str, folder: Path, *arrays: Array, roundings: int = 8) -> tuple[Array, ...]:
    """Check every result of the main entry against the reference, to so many roundings of its largest element."""
    module = parse(module) if isinstance(module, str) else module
    found = loaded(module, name, folder, "")[module.main.name](*arrays)
    wanted: Any = interpret(module, *arrays)
    for got, want in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        want = np.asarray(want)
        assert got.dtype == want.dtype and got.shape == want.shape
        if want.dtype.kind in "biu":
            np.testing.assert_array_equal(got, want)
        else:
            epsilon = float(np.finfo(want.dtype).eps) if want.dtype.kind == "f" else 2.0**-7
            scale = float(np.nanmax(np.abs(want.astype(np.float64)), initial=1e-30))
            np.testing.assert_allclose(
                got.astype(np.float64), want.astype(np.float64), rtol=0, atol=roundings * epsilon * scale
            )
    return found
