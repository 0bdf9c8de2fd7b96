"""`graphc inspect --memory`: the planned peak of each entry, and what is live there."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from artifacts import needs
from typer.testing import CliRunner

from graphc import codegen
from graphc.ir.analysis.liveness import live_bytes
from graphc.passes.partition.remat import within_budget
from graphc.runtime.sources import module_of
from graphc.tools.command import app
from graphc.tools.memory import as_written, training_module

MODEL = """
import graphc
from graphc import Input, Model, layers

x = Input((8, 8, 1), name="x")
y = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(x))
model = Model(x, layers.Dense(3, name="head")(y))
"""
COMPILED = """
model.compile(
    optimizer=graphc.optimizers.SGD(0.1, momentum=0.9),
    loss=graphc.losses.SparseCategoricalCrossentropy(from_logits=True),
)
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL + COMPILED)
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 8, 8, 1), np.float32), y=np.zeros(4, np.int64))
    return "model.py"


def graphc(*arguments):
    done = CliRunner().invoke(app, ["inspect", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def entries(*arguments):
    return {entry["name"]: entry for entry in json.loads(graphc(*arguments, "--memory", "--json"))["entries"]}


def test_the_peak_is_that_of_the_simulation(model):
    (forward,) = entries(model, "--size", "B=32").values()
    plan = live_bytes(module_of(model).main, {"B": 32})
    assert (forward["peak_bytes"], forward["total_bytes"]) == (plan.peak, plan.total)
    assert forward["sizes"] == {"B": 32}
    assert forward["at"]["layer"] == "conv"
    assert sum(value["bytes"] for value in forward["live"]) == plan.peak
    assert forward["live"][0] == {
        "name": forward["live"][0]["name"], "type": "f32[B, 6, 6, 4]", "op": "conv", "layer": "conv",
        "bytes": 32 * 6 * 6 * 4 * 4,
    }  # fmt: skip


def test_a_table_for_people(model):
    shown = graphc(model, "--memory", "--size", "B=2")
    assert "Planned memory of the module as it is" in shown
    assert "Live in @forward at relu in conv" in shown
    assert "\x1b" not in shown  # no colours in a pipe


@pytest.mark.parametrize("target", ["numpy", "torch"])
def test_a_target_has_workspaces_and_ops_of_its_own(model, target):
    (forward,) = entries(model, "--target", target, "--size", "B=8").values()
    held = sum(value["bytes"] for value in forward["live"])
    assert forward["peak_bytes"] == held + forward["workspace_bytes"]
    assert target != "numpy" or forward["workspace_bytes"] > 0


def test_the_step_of_training_has_slots_and_a_backward_part(model):
    found = entries(model, "--training", "data.npz", "--size", "B=8")
    assert set(found) >= {"forward", "train_step", "test_step"}
    step = found["train_step"]
    kernels = 4 * (3 * 3 * 4 + 4 + 6 * 6 * 4 * 3 + 3)
    assert step["weight_bytes"] == kernels
    assert kernels <= step["slot_bytes"] <= kernels + 64  # momenta, and a few counters
    assert step["peak_bytes"] > found["forward"]["peak_bytes"]
    assert step["total_bytes"] == sum(step[f"{part}_bytes"] for part in ("peak", "weight", "slot", "input"))


@pytest.mark.parametrize("target", ["numpy", "jax"])
def test_the_step_of_training_has_plans_that_compile_keeps(model, target):
    needs(target)
    deep = """
x = Input((8, 8, 1), name="x")
y = layers.Flatten()(x)
for _ in range(6):
    y = layers.Dense(64, activation="tanh")(y)
model = Model(x, layers.Dense(3, name="head")(y))
"""
    Path(model).write_text("import graphc\nfrom graphc import Input, Model, layers\n" + deep + COMPILED)
    found = entries(model, "--training", "data.npz", "--size", "B=512", "--target", target)
    assert found["forward"]["plans"] == []
    plans = found["train_step"]["plans"]
    assert len(plans) > 1 and plans[0]["extra_flops"] == 0
    for first, second in pairwise(plans):
        assert first["peak_bytes"] > second["peak_bytes"] and first["extra_flops"] < second["extra_flops"]
    step = training_module(model, None, Path("data.npz"))
    kept = within_budget(
        as_written(step, target), plans[-1]["memory_budget"], {"B": 512}, codegen.target(target).memory
    )
    assert min(plan.peak for plan in kept) <= plans[-1]["peak_bytes"]
    assert "compute forward values again" in graphc(model, "--memory", "--training", "data.npz", "--size", "B=512")


def test_what_does_not_fit_is_said(model):
    for arguments, message in (
        (["--memory", "--size", "Q=1"], "the model has no symbol 'Q'; the symbols are B"),
        (["--target", "numpy"], "--target is for --memory"),
    ):
        done = CliRunner().invoke(app, ["inspect", model, *arguments])
        assert done.exit_code == 2 and message in done.stderr
