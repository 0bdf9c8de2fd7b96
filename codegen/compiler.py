"""From a module to an artifact: passes, the target's own preparation, legalisation, files, manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphc.codegen import target
from graphc.codegen.artifact import Manifest, atomic_folder, write_manifest
from graphc.ir.module import Module
from graphc.passes import run_passes
from graphc.passes.dce import dce
from graphc.passes.driver import apply_rules, rules_in
from graphc.passes.legalize import legalize
from graphc.passes.lora.fuse import without_unread_outputs
from graphc.passes.partition.remat import by_policy, planning_for, within_budget
from graphc.passes.quantization.matching import match_linear
from graphc.passes.registry import Observer, collector_paused
from graphc.passes.rules import arithmetic
from graphc.passes.rules.folding import folding

DEFAULT_PASSES = "canonicalize,share_random,fold_weights"
LEFTOVERS = [*rules_in(arithmetic), folding(limit=1)]
"""What cleans up after decompositions: numbers that they compute from numbers, and operations that these decide."""

ADAPTED = frozenset({"lora_linear", "lora_linears", "lora_mlp"})
"""Layers with adapters, whose kernels may be quantized."""


def write_artifact(
    module: Module,
    target_name: str,
    folder: Path | str,
    passes: str | None = None,
    check: bool = False,
    observe: Observer | None = None,
    memory_budget: int | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Manifest:
    """Write `module` for a target into `folder`, which appears whole or not at all. `module` stays as it is.

    `passes` is a pipeline as text (None: the usual one), `check` as in `run_passes`; `observe` sees the module after
    each pass, after the target's preparation (`prepare`) and after `legalize`. Functions with a backward part are
    planned so that their peak beside the parameters keeps `memory_budget` bytes at these `sizes` of symbols; `observe`
    then sees `remat` too. Without one, and with the usual passes, steps that train adapters save no more than they need
    for no product to run again, where the target runs ops as they stand. Raises `TargetError`, `UnsupportedError`, and
    `GraphcError` for a budget that cannot be kept.
    """
    chosen = target(target_name)
    with collector_paused():
        with planning_for(chosen.memory):
            passed = run_passes(module, DEFAULT_PASSES if passes is None else passes, check, observe)
        legalize(passed, lambda op: op.name not in ADAPTED or chosen.supports(op))  # so that their products are seen
        match_linear(passed)
        adapted = passes is None and chosen.in_order and any(op.name.startswith("lora_") for op in passed.walk())
        legal = chosen.prepare(passed)
        if observe is not None:
            observe("prepare", legal)
        described = f"the target {target_name!r}"
        if legalize(legal, chosen.supports, described):
            apply_rules(legal, LEFTOVERS)
            legalize(legal, chosen.supports, described)
            dce(legal)
        if observe is not None:
            observe("legalize", legal)
        if memory_budget is not None:
            within_budget(legal, memory_budget, sizes or {}, chosen.memory)
        elif adapted:
            with planning_for(chosen.memory):
                by_policy(legal, "products")
        if adapted or memory_budget is not None:
            without_unread_outputs(legal)
            dce(legal)
            if observe is not None:
                observe("remat", legal)
        with atomic_folder(Path(folder)) as temporary:
            stored = chosen.write(legal, temporary)
            return write_manifest(temporary, target_name, legal, stored)
