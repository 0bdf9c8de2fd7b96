"""From a module to an artifact: passes, the target's own preparation, legalisation, files, manifest."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphc.codegen import target
from graphc.codegen.artifact import Manifest, atomic_folder, write_manifest
from graphc.ir.module import Module
from graphc.passes import run_passes
from graphc.passes.legalize import legalize

DEFAULT_PASSES = "canonicalize"


def write_artifact(module: Module, target_name: str, folder: Path | str, passes: str | None = None) -> Manifest:
    """Write `module` for a target into `folder`, which appears whole or not at all. `module` stays as it is.

    `passes` is a pipeline as text (None: the usual one). Raises `TargetError`, `UnsupportedError`.
    """
    chosen = target(target_name)
    with _collector_paused():
        legal = chosen.prepare(run_passes(module, DEFAULT_PASSES if passes is None else passes))
        legalize(legal, chosen.supports)
        with atomic_folder(Path(folder)) as temporary:
            stored = chosen.write(legal, temporary)
            return write_manifest(temporary, target_name, legal, stored)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Python's generational collector doubles the time that large graphs take; nothing here makes much garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
