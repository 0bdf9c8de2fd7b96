"""The benchmark measures what it says: the same graph everywhere, with a tenth of the ops to change."""

import json
import sys

import numpy as np
import pytest

import graphc
from graphc.passes import find_pass
from graphc.tools.bench import ours, peers
from graphc.tools.bench.__main__ import app
from graphc.tools.bench.graphs import GRAPHS


@pytest.mark.parametrize("kind", sorted(GRAPHS))
def test_ours_and_theirs_compute_the_same(kind):
    torch = pytest.importorskip("torch")
    graph = GRAPHS[kind](60)
    module = ours.build(graph)
    module.verify()
    rng = np.random.default_rng(0)
    for name in module.weights:
        module.weights.set(name, rng.normal(size=module.weights[name].shape))
    inputs = [rng.normal(size=(3, graph.width)).astype(np.float32) / 4 for _ in range(graph.inputs)]
    weights = [
        torch.from_numpy(module.weights[name].T if name.endswith("kernel") else module.weights[name])
        for name in module.weights
    ]
    fx = torch.fx.GraphModule({}, peers.build_fx(graph, peers.fx_calls()))
    found = fx(*map(torch.from_numpy, inputs), *weights)
    np.testing.assert_allclose(found.numpy(), graphc.interpret(module, *inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(GRAPHS))
def test_the_traced_graph_is_of_the_same_ops(kind):
    graph = GRAPHS[kind](60)
    built = [op.name for op in ours.build(graph).main.block]
    assert [op.name for op in ours.trace(graph).main.block] == built


@pytest.mark.parametrize(("extra", "passes"), [("dead", "dce"), ("duplicate", "cse"), ("redundant", "canonicalize")])
@pytest.mark.parametrize("kind", sorted(GRAPHS))
def test_a_tenth_of_the_ops_is_for_the_pass(kind, extra, passes):
    module = ours.build(GRAPHS[kind](600, extra))
    before = sum(1 for _ in module.main.block)
    find_pass(passes).run(module)
    module.verify()
    removed = before - sum(1 for _ in module.main.block)
    assert 0.08 < removed / before < 0.12


@pytest.mark.parametrize("kind", sorted(GRAPHS))
def test_half_of_the_ops_are_replaced(kind):
    module = ours.build(GRAPHS[kind](100))
    before = sum(1 for _ in module.main.block)
    ours.replace_half(module)
    module.verify()
    assert sum(1 for _ in module.main.block) == pytest.approx(before / 2, abs=2)


def test_the_command_prints_a_table_and_writes_json(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setattr("graphc.tools.bench.__main__.QUICK_SIZES", (20, 40))
    done = CliRunner().invoke(app, ["compile", "--quick", "--graphs", "chain", "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    assert "growth" in done.stdout and "emit numpy" in done.stdout and "torch.fx (40)" in done.stdout
    records = json.loads((tmp_path / "found.json").read_text())
    assert {record["ops"] for record in records} == {20, 40}
    assert {"build", "trace", "parse", "canonicalize"} <= {record["stage"] for record in records}
    assert all(record["graphc"] > 0 for record in records)


def test_ratios_of_training_are_paired_by_round():
    from graphc.tools.bench.train.measuring import ratio

    found = ratio([2.0, 40.0, 6.0, 2.2, 2.0], [1.0, 20.0, 3.0, 1.0, 1.0])
    assert found.median == pytest.approx(2.0) and found.low <= 2.0 <= found.high <= 2.2


def test_a_contestant_that_fails_says_why_and_the_others_run(tmp_path):
    pytest.importorskip("torch")
    from graphc.tools.bench.__main__ import EXAMPLES
    from graphc.tools.bench.train import measuring, report
    from graphc.tools.bench.train.workloads import WORKLOADS

    broken = measuring.Contestant("broken", [sys.executable, "-c", "raise ValueError('no such framework')"])
    contestants = [measuring.ours("dense", "torch", EXAMPLES), measuring.plain_torch("eager"), broken]
    found = measuring.race(WORKLOADS["dense"], contestants, rounds=2, examples=EXAMPLES)
    assert found["broken"].failure == "ValueError: no such framework"
    record = report.record("dense", found)
    assert not record["disagree"] and record["ratios"]["graphc torch / torch eager"]["median"] > 0
    assert set(record["milliseconds"]) == {"graphc torch", "torch eager"}
    assert any("broken failed" in line for line in report.notes(record))


def test_peers_of_training_import_nothing_of_graphc():
    from graphc.tools.bench.train.measuring import PEERS

    for path in PEERS.glob("*.py"):
        assert "import graphc" not in path.read_text() and "from graphc" not in path.read_text()


def small_race():
    for name in ("torch", "peft", "transformers"):
        pytest.importorskip(name)
    from graphc.tools.bench.lora.task import Sizes

    return Sizes(depth=2, width=64, heads=2, hidden=96, vocabulary=32, places=32, rank=4)


def check_race(found):
    """Equal losses, less saved, times and memory of all that can train."""
    trained = {name: each for name, each in found.items() if "failure" not in each and "products" not in name}
    assert {"PEFT", "graphc"} <= {*trained}
    for each in found.values():
        if "failure" not in each:
            assert min(each["train"]) > 0
    for name, each in trained.items():
        if "int4" not in name:
            assert each["losses"] == pytest.approx(found["PEFT"]["losses"], rel=1e-5)
        assert each["peak"] > each["saved"] > 0
    assert found["graphc"]["saved"] < 0.7 * found["PEFT"]["saved"]


def test_a_budget_that_cannot_be_kept_says_so_and_the_others_race():
    sizes = small_race()
    from graphc.tools.bench.__main__ import EXAMPLES
    from graphc.tools.bench.lora import report

    tight = report.ours("tight", EXAMPLES, sizes, memory_budget=1000)
    plain = report.theirs("PEFT", "plain", sizes)
    small = report.ours(report.INT4, EXAMPLES, sizes, quantize="int4")
    found = report.race([plain, tight, report.ours("graphc", EXAMPLES, sizes), small], 1)
    assert found[report.INT4]["weights"] < 0.5 * found["graphc"]["weights"]
    assert "the least possible is" in found["tight"]["failure"]
    check_race(found)
    lines = report.rows(found)
    assert len(lines) == 6 and {line.count("|") for line in lines} == {9}
    assert found["tight"]["failure"] in lines[3]


@pytest.mark.slow
def test_the_race_of_adapters_runs_whole():
    sizes = small_race()
    from graphc.tools.bench.__main__ import EXAMPLES
    from graphc.tools.bench.lora import report

    lines = []
    found = report.report(EXAMPLES, sizes, 1, lines.append)
    assert len(lines) == 2 + len(found) == 11
    assert {report.FLOOR, report.PLAIN, report.CHECKPOINTING, "graphc, all saved", "graphc"} <= {*found}
    check_race(found)
