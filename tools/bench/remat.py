"""Remat: what plans of memory predict, and what is measured when the planned steps run.

For a GPT and a ResNet-18, six budgets on each target: the predicted peak beside the parameters and the measured one
(NumPy: tracemalloc; PyTorch: the profiler's allocation events; JAX: the executable's `temp_size_in_bytes`), the bytes
that pass from the forward to the backward part, predicted and as found in the running step on PyTorch, and the extra
FLOPs. Then, for the same bytes, the extra FLOPs of PyTorch's own partitioner and of a checkpoint for each block.
"""

from __future__ import annotations

import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc import codegen
from graphc.codegen.compiler import write_artifact
from graphc.codegen.source.loading import import_model
from graphc.ir.module import Module
from graphc.passes.partition.planner import Plan, Planner
from graphc.passes.partition.policy import by_layers
from graphc.passes.partition.schedule import steps_of
from graphc.passes.partition.updates import settle_updates
from graphc.tools.bench.remat_nets import batch, network
from graphc.tools.bench.remat_peers import CONTRACTIONS, partitioned

FRACTIONS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.05)
"""Budgets between the lowest peak that was found (0) and the lowest of a step without extra FLOPs (1)."""
PEERS = (0.8, 0.6, 0.4, 0.2, 0.1)
"""Fractions at which PyTorch's partitioner is compared."""
BLOCKS = {"gpt": "block*", "resnet18": "basic_block*"}


@dataclass(frozen=True, slots=True)
class Row:
    """One budget on one target. `extra`: FLOPs that run again, as a part of those of the forward part; `seconds` of a
    processor went into the plan."""

    budget: int
    saved: int
    saved_measured: int | None
    peak: int
    measured: int
    extra: float
    seconds: float


def legal_step(module: Module, target: str) -> Module:
    """The step as the target gets it, before it is planned."""
    found: list[Module] = []
    with tempfile.TemporaryDirectory() as folder:
        seen = lambda stage, legal: found.append(legal.clone()) if stage == "legalize" else None  # noqa: E731
        write_artifact(module, target, Path(folder) / "step", passes="", observe=seen)
    if codegen.target(target).memory.in_place:
        settle_updates(found[0].main)
    return found[0]


def budgets(module: Module, target: str, sizes: Mapping[str, int]) -> list[int]:
    """The six budgets of a network on a target."""
    memory = codegen.target(target).memory
    planner = Planner(legal_step(module, target).main, sizes, memory)
    least, most = planner.least().peak, planner.unlimited().peak
    return [int((least + part * (most - least)) / (1 - memory.slack)) + 1 for part in FRACTIONS]


def measure(module: Module, target: str, size: int, budget: int) -> Row:
    """Plan the step within a budget, run it, and measure."""
    sizes = {"B": size}
    legal = legal_step(module, target)
    memory = codegen.target(target).memory
    start = time.process_time()
    plan = Planner(legal.main, sizes, memory).within(int(budget * (1 - memory.slack)))
    seconds = time.process_time() - start
    assert plan is not None
    forward = sum(plan.graph.flops[: plan.graph.forward])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "step"
        write_artifact(module, target, folder, passes="", memory_budget=budget, sizes=sizes)
        arrays = batch(module, size)
        saved = None
        if target == "jax":
            measured = jax_temporary(folder, module, arrays)
        elif target == "torch":
            measured, saved = torch_memory(folder, arrays)
        else:
            measured = numpy_peak(folder, module, arrays)
    return Row(budget, plan.saved_bytes, saved, plan.peak, measured, plan.extra_flops / forward, seconds)


def numpy_peak(folder: Path, module: Module, arrays: Sequence[Any]) -> int:
    """The most bytes that a step allocates, beside what lives before it."""
    step = codegen.target("numpy").load(folder).entries[module.main.name]
    tracemalloc.start()
    try:
        step(*arrays)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        step(*arrays)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def torch_memory(folder: Path, arrays: Sequence[Any]) -> tuple[int, int]:
    """The most bytes that a step allocates, and those of the storages that live when its loss is known."""
    import torch

    from graphc.tools.bench.torch_memory import live_at_loss, peak_of

    model = import_model(folder).load(folder)
    tensors = [torch.from_numpy(array) for array in arrays]
    given = (*tensors, *model.parameters(), *model.buffers())
    with torch.no_grad():
        return peak_of(lambda: model(*tensors)), live_at_loss(type(model).forward, lambda: model(*tensors), iter(given))


def jax_temporary(folder: Path, module: Module, arrays: Sequence[Any]) -> int:
    """Bytes of temporaries of the compiled step."""
    loaded = import_model(folder)
    model = loaded.load(folder)
    return loaded.forward.lower(model.params, *arrays).compile().memory_analysis().temp_size_in_bytes


def contraction_flops(plan: Plan) -> int:
    """Extra FLOPs of matrix products, convolutions and attention, which are those that PyTorch counts."""
    graph = plan.graph
    again = [op for op, copied in steps_of(graph, plan.saved) if copied]
    return sum(graph.flops[op] for op in again if graph.ops[op].name in CONTRACTIONS)


def against_torch(name: str, module: Module, size: int) -> list[tuple[float, int, int, int, int]]:
    """For each fraction: it, the bytes PyTorch saves and its extra FLOPs, ours for no more bytes and their FLOPs."""
    planner = Planner(module.main, {"B": size})
    base = partitioned(name, size, 1.0)
    rows: list[tuple[float, int, int, int, int]] = []
    for fraction in PEERS:
        theirs = partitioned(name, size, fraction)
        plan = planner.within(sys.maxsize, theirs.saved_bytes)
        extra = theirs.backward_flops - base.backward_flops
        assert plan is not None  # saving nothing is always possible
        rows.append((fraction, theirs.saved_bytes, extra, plan.saved_bytes, contraction_flops(plan)))
    return rows


def against_blocks(name: str, module: Module, size: int) -> tuple[Plan, Plan | None]:
    """A checkpoint for each block, run again whole; and our plan for no more saved bytes and no higher peak."""
    planner = Planner(module.main, {"B": size})
    blocks = planner.plan(by_layers(planner.graph, [BLOCKS[name]]))
    return blocks, planner.within(blocks.peak, blocks.saved_bytes)


# --- the report -----------------------------------------------------------------------------------------------------

BATCHES = {"gpt": 2, "resnet18": 64}
TITLES = {"gpt": "GPT: 12 layers, width 256, 512 tokens", "resnet18": "ResNet-18 at 64 × 64"}


def report(names: Sequence[str], targets: Sequence[str], write: Callable[[str], object]) -> None:
    """Measure everything and `write` it as lines of Markdown."""
    for name in names:
        size = BATCHES[name]
        module = network(name)
        write(f"\n## {TITLES[name]}, batch {size}\n")
        for target in targets:
            write(f"### {target}\n")
            write("| budget | saved | saved, found | peak | measured | measured / peak | extra FLOPs | planned in |")
            write("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
            for budget in budgets(module, target, {"B": size}):
                row = measure(module, target, size, budget)
                found = "" if row.saved_measured is None else mega(row.saved_measured)
                write(
                    f"| {mega(row.budget)} | {mega(row.saved)} | {found} | {mega(row.peak)} | {mega(row.measured)} | "
                    f"{row.measured / row.peak:.3f} | {row.extra:.1%} | {row.seconds:.1f} s |"
                )
            write("")
        if "torch" in targets:
            write("### PyTorch's own partitioner, for as many saved bytes\n")
            write("| its budget | it saves | its extra GFLOPs | graphc saves | extra GFLOPs |")
            write("| ---: | ---: | ---: | ---: | ---: |")
            for fraction, saved, flops, ours, our_flops in against_torch(name, module, size):
                write(f"| {fraction} | {mega(saved)} | {flops / 1e9:.3f} | {mega(ours)} | {our_flops / 1e9:.3f} |")
            write("")
        blocks, plan = against_blocks(name, module, size)
        write("### A checkpoint for each block, for as many saved bytes and no higher peak\n")
        write("| | saved | peak | extra GFLOPs |")
        write("| --- | ---: | ---: | ---: |")
        write(f"| each block | {mega(blocks.saved_bytes)} | {mega(blocks.peak)} | {blocks.extra_flops / 1e9:.3f} |")
        if plan is not None:
            write(f"| graphc | {mega(plan.saved_bytes)} | {mega(plan.peak)} | {plan.extra_flops / 1e9:.3f} |")


def mega(count: int) -> str:
    """Bytes as millions of them."""
    return f"{count / 1e6:.2f}"


__all__ = ["against_blocks", "against_torch", "budgets", "measure", "report"]
