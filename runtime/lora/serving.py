"""Several adapters of a model in one artifact, switched from call to call."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graphc import codegen
from graphc.codegen.artifact import refresh_manifest
from graphc.codegen.compiler import write_artifact
from graphc.frontends.lowering import lower_forward
from graphc.ir.errors import GraphcError
from graphc.ir.module import Module
from graphc.passes.lora.insert import factor_names
from graphc.passes.lora.switching import INPUT, Member, Switched, switch
from graphc.runtime import config
from graphc.runtime.executable import CHOICES, Executable
from graphc.runtime.lora.adapters import (
    BASE,
    activate,
    deactivate,
    find_adapter,
    require_built,
    require_unmerged,
    state_of,
)


def adapters_module(model: Any, names: str | Sequence[str] | None = None) -> tuple[Module, list[str]]:
    """The model's `forward` with all these adapters (by default all) and an input that chooses, and the choices."""
    require_built(model)
    require_unmerged(model)
    state = state_of(model)
    if not state.adapters:
        raise GraphcError(f"model {model.name!r} has no adapters: add_adapter or load_adapter first")
    wanted = list(state.adapters) if names is None else [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise GraphcError(f"no adapter is named; there are {', '.join(state.adapters)}: leave `names` out for all")
    if BASE in wanted:
        raise GraphcError(f"{BASE!r} is a choice of every such executable: leave it out of `names`")
    chosen = [find_adapter(model, name) for name in wanted]
    listed = [each.name for each in chosen]
    if len(set(listed)) != len(listed):
        raise GraphcError(f"each adapter is given once; given are {', '.join(listed)}")
    active = state.active
    deactivate(model)
    try:
        module = lower_forward(model).module
        kernels: dict[str, Switched] = {}
        replaced: dict[str, dict[str, Any]] = {}
        for each in chosen:
            for weight, (_, adapter) in each.parts.items():
                magnitude = None if adapter.magnitude is None else adapter.magnitude.numpy()
                member = Member(
                    factor_names(weight, each.name), adapter.a.numpy(), adapter.b.numpy(), adapter.scaling, magnitude
                )
                kernels.setdefault(weight, Switched(adapter.form)).members[each.name] = member
            for weight in each.trained:
                replaced.setdefault(weight, {})[each.name] = f"{weight}_{each.name}", np.array(each.value_of(weight))
    finally:
        activate(model, active)
    switch(module, listed, kernels, replaced)
    return module, [BASE, *listed]


def compile_adapters(
    model: Any, names: str | Sequence[str] | None = None, target: str | None = None, passes: str | None = None
) -> Executable:
    """See `Model.compile_adapters`."""
    module, choices = adapters_module(model, names)
    folder = Path(tempfile.mkdtemp(prefix="graphc-"))
    try:
        manifest = write_artifact(module, codegen.target(target or config.target()).name, folder, passes)
        (folder / CHOICES).write_text(json.dumps({INPUT: choices}, indent=1) + "\n", encoding="utf-8")
        refresh_manifest(folder, replace(manifest, files={**manifest.files, CHOICES: ""}))
        return Executable(folder, temporary=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


__all__ = ["BASE", "adapters_module", "compile_adapters"]
