"""Training steps of models with equal blocks: functions and loops that compute what the flat steps do, bit for bit."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import codegen
from graphc.codegen.compiler import write_artifact
from graphc.codegen.source import writer
from graphc.codegen.source.steps import Step
from graphc.ir.module import Module
from graphc.passes.partition.planner import Planner

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONTEXT = 16


def gpt(**sizes: Any) -> Any:
    sys.path.insert(0, str(EXAMPLES))
    try:
        from gpt import gpt as model
    finally:
        sys.path.pop(0)
    graphc.utils.set_random_seed(3)
    return model(**({"layers": 3, "width": 32, "heads": 2, "context": CONTEXT} | sizes))


def step(optimizer: Any = None, frozen: Sequence[int] = (), **sizes: Any) -> Module:
    model = gpt(**sizes)
    blocks = [layer for layer in model.layers if layer.name.startswith("block")]
    for number in frozen:
        blocks[number].trainable = False
    model.compile(optimizer or graphc.optimizers.AdamW(1e-3), graphc.losses.SparseCategoricalCrossentropy(True))
    tokens = np.zeros((2, sizes.get("context", CONTEXT)), np.int32)
    return model.training_module(tokens, tokens)


def text(module: Module, target: str, folder: Path, **options: Any) -> str:
    write_artifact(module, target, folder, **options)
    return (folder / "model.py").read_text()


def run(module: Module, target: str, folder: Path, steps: int = 3) -> list[np.ndarray]:
    """What some steps return, and all weights after them by their names in the file."""
    loaded = codegen.target(target).load(folder)
    draw = np.random.default_rng(0)
    found: list[np.ndarray] = []
    for i in range(steps):
        tokens, following = draw.integers(0, 256, (2, 4, CONTEXT)).astype(np.int32)
        more = [np.array([1, i], np.uint32)] if len(module.functions["train_step"].inputs) > 3 else []
        found += loaded.entries["train_step"](tokens, following, np.float32(1e-2), *more)
        found += loaded.entries["test_step"](tokens, following)
    return found + [loaded.read(name) for name in sorted(stored(folder))]


def stored(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "numpy") as file:
        return list(file.keys())


def both(monkeypatch: pytest.MonkeyPatch, module: Module, target: str, folder: Path, **options: Any) -> str:
    """The text of the step, having checked that it computes what the flat one does."""
    rolled = text(module, target, folder / "rolled", **options)
    found = run(module, target, folder / "rolled")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "with_blocks", lambda _, items: Step(list(items)))
        flat = text(module, target, folder / "flat", **options)
    assert len(flat.splitlines()) >= len(rolled.splitlines())
    wanted = run(module, target, folder / "flat")
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    return rolled


@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_steps_do_not_grow_with_depth(tmp_path: Path, target: str) -> None:
    shallow, deep = (
        text(step(layers=layers), target, tmp_path / str(layers)).replace(f"range({layers})", "range(n)")
        for layers in (3, 6)
    )
    assert len(deep.splitlines()) == len(shallow.splitlines())


@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_a_loop_computes_what_its_blocks_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str) -> None:
    needs(target)
    source = both(monkeypatch, step(dropout=0.1, layers=2), target, tmp_path)
    assert "residuals.pop(i)" in source and "gradients.pop(i)" in source


OPTIMIZERS = {
    "sgd": lambda: graphc.optimizers.SGD(1e-2),
    "momentum": lambda: graphc.optimizers.SGD(1e-2, momentum=0.9, nesterov=True),
    "lion": lambda: graphc.optimizers.Lion(1e-3),
    "global norm": lambda: graphc.optimizers.Adam(1e-3, global_clipnorm=1.0),
    "norm": lambda: graphc.optimizers.Adam(1e-3, clipnorm=0.5),
    "average": lambda: graphc.optimizers.Adam(1e-3, use_ema=True),
    "accumulation": lambda: graphc.optimizers.Adam(1e-3, gradient_accumulation_steps=2),
    "loss scale": lambda: graphc.optimizers.LossScaleOptimizer(graphc.optimizers.Adam(1e-3)),
}


SLOWLY_COMPILED = pytest.param("jax", marks=pytest.mark.slow)


@pytest.mark.parametrize("target", ["numpy", "torch", SLOWLY_COMPILED])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_any_optimizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, target: str) -> None:
    needs(target)
    both(monkeypatch, step(OPTIMIZERS[name]()), target, tmp_path)


@pytest.mark.parametrize("frozen", [[0, 1], [1]])
@pytest.mark.parametrize("target", ["numpy", "torch"])
def test_with_blocks_that_are_not_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frozen: list[int], target: str
) -> None:
    needs(target)
    both(monkeypatch, step(frozen=frozen, layers=4), target, tmp_path)


@pytest.mark.parametrize("part", [0.2, pytest.param(0.6, marks=pytest.mark.slow), 0.95])
@pytest.mark.parametrize("target", ["numpy", "torch", SLOWLY_COMPILED])
def test_within_a_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str, part: float) -> None:
    needs(target)
    module = step()
    planner = planned(module, target, tmp_path / "legal")
    least, most = planner.least().peak, planner.plan(planner.everything).peak
    budget = int((least + part * (most - least)) / (1 - codegen.target(target).memory.slack)) + 1
    both(monkeypatch, module, target, tmp_path, passes="", memory_budget=budget, sizes={"B": 4})


def planned(module: Module, target: str, folder: Path, batch: int = 4) -> Planner:
    """The planner of a step as the target gets it."""
    legal: list[Module] = []
    seen = lambda stage, module: legal.append(module.clone()) if stage == "legalize" else None  # noqa: E731
    write_artifact(module, target, folder, passes="", observe=seen)
    return Planner(legal[0].functions["train_step"], {"B": batch}, codegen.target(target).memory)


def with_plan(target: str, folder: Path) -> int:
    """Write the step of a model whose arrays are larger than its weights, as planned; the peak of that."""
    module = step(width=48, heads=3, context=128)
    planner = planned(module, target, folder / "legal", 8)
    slack = codegen.target(target).memory.slack
    budget = int(1.1 * planner.plan(planner.everything).peak)
    source = text(module, target, folder / "step", passes="", memory_budget=budget, sizes={"B": 8})
    assert "residuals.pop(i)" in source
    plan = planner.within(int(budget * (1 - slack)))
    assert plan is not None
    return plan.peak


def test_the_peak_on_numpy_is_as_planned(tmp_path: Path) -> None:
    peak = with_plan("numpy", tmp_path)
    train = codegen.target("numpy").load(tmp_path / "step").entries["train_step"]
    tokens = np.zeros((8, 128), np.int32)
    tracemalloc.start()
    try:
        train(tokens, tokens, np.float32(0.01))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        train(tokens, tokens, np.float32(0.01))
        measured = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert abs(measured - peak) <= 0.05 * peak


def test_the_peak_on_pytorch_is_as_planned(tmp_path: Path) -> None:
    needs("torch")
    import torch
    from torch.profiler import ProfilerActivity, profile

    from graphc.codegen.source.loading import import_model

    peak = with_plan("torch", tmp_path)
    model = import_model(tmp_path / "step").load()
    tokens = torch.zeros(8, 128, dtype=torch.int32)
    model.train_step(tokens, tokens, torch.tensor(0.01))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model.train_step(tokens, tokens, torch.tensor(0.01))
    events: Any = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    assert abs(most - peak) <= 0.05 * peak
