"""From a source to an executable: read, pass, legalise, write the artifact, load it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphc import codegen
from graphc.codegen.compiler import DEFAULT_PASSES, write_artifact
from graphc.ir.module import Module
from graphc.passes import run_passes
from graphc.passes.partition.remat import has_backward
from graphc.runtime import config
from graphc.runtime.budget import budget_bytes, check_budget
from graphc.runtime.executable import Executable
from graphc.runtime.sources import module_of


def compile(
    source: Any,
    target: str | None = None,
    passes: str | None = None,
    memory_budget: int | str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Executable:
    """Compile a model, a module or a file for a target (`graphc.config.target()` by default).

    `passes` is a pipeline as text in place of the usual one; `memory_budget` is the most that a call may hold, in bytes
    or as `"512MiB"`. Of entries that train it is the most beside weights and inputs, at these `sizes` of symbols
    (`{"B": 32}`), and kept by computing forward values again (`passes/partition`). Raises `TargetError` for a target
    that is unknown or not installed, `UnsupportedError` that lists what the target lacks, and `GraphcError` for a
    budget that cannot be kept.
    """
    name = codegen.target(target or config.target()).name
    module = module_of(source)
    limit = planned_budget(module, passes, memory_budget)
    folder = Path(tempfile.mkdtemp(prefix="graphc-"))
    try:
        write_artifact(module, name, folder, passes, memory_budget=limit, sizes=sizes)
        return Executable(folder, temporary=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def planned_budget(module: Module, passes: str | None, memory_budget: int | str | None) -> int | None:
    """The bytes that entries which train are to be planned within, None where there are none or no budget.

    Raises `GraphcError` where no entry trains and the passes leave more than the budget holds.
    """
    if memory_budget is None:
        return None
    if any(has_backward(function) for function in module.functions.values()):
        return budget_bytes(memory_budget)
    within_budget(module, passes, memory_budget)
    return None


def within_budget(module: Module, passes: str | None, memory_budget: int | str) -> None:
    """Raise `GraphcError` when what the passes leave of `module` needs more memory than `memory_budget`."""
    check_budget(run_passes(module, DEFAULT_PASSES if passes is None else passes), memory_budget)
