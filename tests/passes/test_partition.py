"""What is saved for the backward part: budgets kept as simulated and as measured, gradients unchanged, policies."""

import tracemalloc
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import codegen, layers
from graphc.codegen.compiler import write_artifact
from graphc.codegen.source.loading import import_model
from graphc.frontends import lower
from graphc.ir import ops
from graphc.ir.analysis.liveness import Memory, live_bytes
from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.passes import run_passes
from graphc.passes.autodiff import differentiate
from graphc.passes.partition.exact import fewest_flops
from graphc.passes.partition.planner import Planner, frontier
from graphc.passes.partition.remat import within_budget
from graphc.passes.partition.rewrite import apply_plan, group_of
from graphc.passes.partition.schedule import steps_of
from graphc.passes.partition.ties import with_ties
from graphc.passes.partition.updates import settle_updates

SIZES = {"B": 2048}


@cache
def network(depth: int = 6, width: int = 96) -> Module:
    """The loss of a deep residual network and its gradient by the weights, as one entry."""
    x = first = graphc.Input((width,), name="x")
    for i in range(depth):
        y = layers.Dense(2 * width, activation="tanh", name=f"block_{i}_wide")(x)
        x = x + layers.Dense(width, name=f"block_{i}_narrow")(y)
    return with_gradient(graphc.Model(first, x))


@cache
def convolutional(depth: int = 6, channels: int = 32) -> Module:
    """The same of convolutions with batch normalization, at 16 × 16 places."""
    first = graphc.Input((16, 16, 3), name="x")
    x = layers.Conv2D(channels, 3, padding="same")(first)
    for _ in range(depth):
        y = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(channels, 3, padding="same", use_bias=False)(y)
        x = layers.ReLU()(x + layers.BatchNormalization()(y))
    return with_gradient(graphc.Model(first, x))


def with_gradient(model: graphc.Model) -> Module:
    """The mean square of what a model returns, with the gradient by the weights."""
    module = lower(model, training=True)
    forward = module.main
    with Builder(forward.block, forward.block.terminator):
        loss = ops.reduce_mean(ops.square(y := forward.outputs[0]), axes=tuple(range(y.ndim)))
    Rewriter().set_operands(forward.block.terminator, [loss])
    forward.results = [Result("loss")]
    differentiate(module)
    del module.functions["forward"]
    return run_passes(module, "canonicalize,cse,dce")


def drawn(size: int = 8, width: int = 96) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((size, width)).astype(np.float32)


def test_simulation_of_a_plan_is_that_of_the_rewritten_function() -> None:
    planner = Planner(network().main, SIZES)
    assert planner.plan(planner.everything).peak == live_bytes(network().main, SIZES).peak
    for plan in planner.candidates()[:6]:
        module = network().clone()
        copy = Planner(module.main, SIZES)
        (applied,) = within_budget(module, plan.peak, SIZES)
        module.verify()
        assert applied.peak <= plan.peak
        assert live_bytes(module.main, SIZES).peak == applied.peak
        assert copy.plan(plan.saved).peak == plan.peak


def test_plans_between_cuts_are_found() -> None:
    """Five chains of one op each, of which a cut at a price saves all or none, as they are alike."""

    def loss(x):
        for _ in range(5):
            x = ops.sin(ops.mul(x, 2.0))
        return ops.reduce_sum(x, axes=(0,))

    module = graphc.trace(loss, graphc.Spec((1024,)))
    differentiate(module, wrt=["x"])
    planner = Planner(run_passes(module, "canonicalize,cse,dce").functions["value_and_grad"], {})
    every = planner.plan(planner.everything)
    for count in range(1, 5):
        limit = every.saved_bytes - 4096 * count
        found = fewest_flops(planner.cutter, limit)
        assert found is not None
        plan = planner.plan(found)
        assert plan.saved_bytes <= limit
        choices = (planner.plan(c) for n in range(len(every.saved)) for c in combinations(planner.cutter.values, n))
        assert plan.extra_flops <= 1.01 * min(c.extra_flops for c in choices if c.saved_bytes <= limit)


def test_a_view_of_a_copy_holds_the_copy() -> None:
    """The gradient reads a view, made in the backward part, of a value that is computed again."""

    @graphc.custom_gradient
    def turned(x):
        y = ops.exp(x)
        square = lambda z: ops.reshape(z, shape=(64, 16))  # noqa: E731
        return ops.sin(y), lambda dz: ops.mul(ops.reshape(ops.tanh(square(y)), shape=(1024,)), dz)

    module = graphc.trace(lambda x: ops.reduce_sum(turned(ops.cos(x)), axes=(0,)), graphc.Spec((1024,)))
    differentiate(module, wrt=["x"])
    module = run_passes(module, "canonicalize,cse,dce")
    name = "value_and_grad"
    values = list(Planner(module.functions[name], {}).cutter.values)
    for count in range(len(values) + 1):
        copy = module.clone()
        planner = Planner(copy.functions[name], {})
        plan = planner.plan(values[:count])
        apply_plan(planner.graph, plan.saved)
        copy.verify()
        assert live_bytes(copy.functions[name]).peak == plan.peak
        assert count or plan.saved_bytes == 0


def test_decay_of_weights_is_no_forward_part() -> None:
    module = network().clone()
    function = module.functions["value_and_grad"]
    weights = [p for p in function.parameters if p.role == "param"]
    loss, *gradients = function.outputs[: 1 + len(weights)]
    with Builder(function.block, function.block.terminator):
        decayed = [ops.sub(p.value, ops.mul(p.value, 0.1)) for p in weights]
        new = [ops.sub(w, ops.mul(dw, 0.1)) for w, dw in zip(decayed, gradients, strict=True)]
    Rewriter().set_operands(function.block.terminator, [loss, *new])
    function.results = [Result("loss"), *(Result(f"new_{p.name}", p) for p in weights)]
    want = interpret(module.clone(), drawn())
    planner = Planner(function, SIZES)
    again = {op for op, copied in steps_of(planner.graph, ()) if copied}
    assert not any(value in planner.graph.ops[op].results for op in again for value in decayed)
    plan = planner.least()
    apply_plan(planner.graph, plan.saved)
    module.verify()
    assert live_bytes(function, SIZES).peak == plan.peak
    for value in decayed:
        assert {user.prev.prev for user in value.uses or ()} >= {value.op} or value.op.next in value.uses
    for got, expected in zip(interpret(module, drawn()), want, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7])
def test_a_budget_is_kept_and_gradients_stay(part: float) -> None:
    planner = Planner(network().main, SIZES)
    least, most = planner.least().peak, planner.plan(planner.everything).peak
    assert least < most
    budget = int(least + part * (most - least))
    text = f"remat{{budget={budget},sizes={{B:2048}}}}"
    module = run_passes(network(), f"{text},canonicalize,cse,dce")
    module.verify()
    assert live_bytes(module.main, SIZES).peak <= budget
    assert any(group_of(op) is not None for op in module.main.block)
    x = drawn()
    for got, want in zip(interpret(module, x), interpret(network(), x), strict=True):
        np.testing.assert_array_equal(got, want)


def test_fewer_flops_with_more_memory() -> None:
    plans = frontier(network().main, SIZES)
    assert plans[0].extra_flops == 0
    for first, second in pairwise(plans):
        assert first.peak > second.peak
        assert first.extra_flops < second.extra_flops
    assert {value.type.shape[0] for value in plans[-1].values} <= {graphc.ir.dims.symbol("B")}


def test_an_impossible_budget_says_the_least() -> None:
    with pytest.raises(GraphcError, match=r"with B = 2048\); the least possible is \d"):
        run_passes(network(), "remat{budget=1KiB, sizes={B:2048}}")
    with pytest.raises(GraphcError, match="no symbol is called 'C'"):
        run_passes(network(), "remat{budget=1MiB,sizes={C:64}}")
    with pytest.raises(GraphcError, match="sizes such as"):
        run_passes(network(), "remat{budget=1MiB,sizes={B}}")


def measured_peak(module: Module, folder: Path, budget: int | None, x: np.ndarray) -> tuple[int, list[np.ndarray]]:
    write_artifact(module, "numpy", folder, passes="", memory_budget=budget, sizes={"B": len(x)})
    step = codegen.target("numpy").load(folder).entries[module.main.name]
    tracemalloc.start()
    try:
        step(x)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        found = step(x)
        return tracemalloc.get_traced_memory()[1] - before, list(found)
    finally:
        tracemalloc.stop()


def test_numpy_keeps_the_budget_and_the_bits(tmp_path: Path) -> None:
    memory = codegen.target("numpy").memory
    x = drawn(2048)
    planner = Planner(network().main, {"B": len(x)}, memory)
    whole, gradients = measured_peak(network(), tmp_path / "whole", None, x)
    predicted = planner.plan(planner.everything).peak
    assert abs(whole - predicted) <= 0.05 * predicted
    budget = int((planner.least().peak + predicted) / 2)
    peak, again = measured_peak(network(), tmp_path / "planned", budget, x)
    plan = planner.within(int(budget * (1 - memory.slack)))
    assert plan is not None
    assert peak <= budget
    assert abs(peak - plan.peak) <= 0.05 * plan.peak
    for got, want in zip(again, gradients, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("target", ["torch", "jax", "onnx"])
def test_other_targets_compute_the_same(target: str, tmp_path: Path) -> None:
    needs(target)
    x = drawn()
    slack = codegen.target(target).memory.slack  # a part of the budget that plans leave free
    budget = int(1.1 * Planner(network().main, {"B": 8}).least().peak / (1 - slack))
    write_artifact(network(), target, tmp_path / "step", f"remat{{budget={budget},sizes={{B:8}}}}")
    found = codegen.target(target).load(tmp_path / "step").entries[network().main.name](x)
    for got, want in zip(found, interpret(network(), x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def temporaries(module: Module, budget: int, folder: Path, x: np.ndarray) -> int:
    """What XLA allocates for a step within a budget."""
    write_artifact(module, "jax", folder, passes="", memory_budget=budget, sizes={"B": len(x)})
    loaded = import_model(folder)
    return loaded.forward.lower(loaded.load(folder).params, x).compile().memory_analysis().temp_size_in_bytes


def test_jax_needs_as_much_as_planned(tmp_path: Path) -> None:
    needs("jax")
    memory = codegen.target("jax").memory
    planner = Planner(network().main, SIZES, memory)
    most, least = planner.unlimited(), planner.least()
    assert least.peak < 0.7 * most.peak
    first, last = (
        temporaries(network(), int(plan.peak / (1 - memory.slack)) + 1, tmp_path / str(plan.peak), drawn(SIZES["B"]))
        for plan in (most, least)
    )
    assert 0.75 <= (last / first) / (least.peak / most.peak) <= 1.25
    assert 0.75 <= last / least.peak <= 1.25


def test_jax_keeps_the_order_of_a_plan(tmp_path: Path) -> None:
    """A chain of convolutions runs again from afar, and what it leaves for later is not worked on before its time."""
    needs("jax")
    memory = codegen.target("jax").memory
    planner = Planner(convolutional().main, {"B": 32}, memory)
    most, least = planner.unlimited().peak, planner.least().peak
    budget = int((least + 0.2 * (most - least)) / (1 - memory.slack)) + 1
    x = np.random.default_rng(0).standard_normal((32, 16, 16, 3)).astype(np.float32)
    assert temporaries(convolutional(), budget, tmp_path / "step", x) <= 0.9 * budget


def test_ties_change_no_bits() -> None:
    planner = Planner(network().main, SIZES)
    module = run_passes(network(), f"remat{{budget={planner.least().peak},sizes={{B:2048}}}}")
    with_ties(module)
    module.verify()
    names = [op.name for op in module.main.block]
    assert "barrier" not in names
    assert names.count("select") > 6
    for got, want in zip(interpret(module, drawn()), interpret(network(), drawn()), strict=True):
        np.testing.assert_array_equal(got, want)


UPDATE = """
weight "w" : f32[64, 64] trainable
func @f(%w: f32[64, 64] param "w", %x: f32[64, 64] input) -> (s: f32[], new: f32[64, 64] updates %w) {
  %y = matmul %x, %w : f32[64, 64]
  %loss = reduce_sum %y {axes = [0, 1]} : f32[]
  %dw = matmul %x, %y : f32[64, 64] @ "gradient"
  %dx = matmul %y, %w : f32[64, 64] @ "gradient"
  %dv = matmul %dx, %dx : f32[64, 64] @ "gradient"
  %s = reduce_sum %dv {axes = [0, 1]} : f32[] @ "gradient"
  %rate = constant {value = 0.5} : f32[]
  %step = mul %dw, %rate : f32[64, 64]
  %new = sub %w, %step : f32[64, 64]
  return %s, %new
}
"""


def test_updates_settle_where_the_old_value_was_read() -> None:
    module = graphc.parse(UPDATE)
    in_place = Memory(in_place=True)
    settle_updates(module.main)
    module.verify()
    assert [op.name for op in module.main.block] == [
        *("matmul", "reduce_sum", "matmul", "constant", "mul", "matmul", "sub", "matmul", "reduce_sum", "return")
    ]
    new = module.main.outputs[1].op
    assert new is not None
    assert in_place.sources(new) == [module.main.parameters[0].value]
    assert Memory().sources(new) is None


# --- policies -------------------------------------------------------------------------------------------------------

BEFORE = """
func @f(%x: f32[4] input) -> (f32[], f32[4]) {
  %a = sin %x : f32[4]
  %b = name %a {tag = "b"} : f32[4]
  %c = exp %b : f32[4] @ "inner"
  %d = tanh %c : f32[4] @ "inner"
  %loss = reduce_sum %d {axes = [0]} : f32[]
  %dc = mul %c, %d : f32[4] @ "gradient/inner"
  %da = mul %dc, %b : f32[4] @ "gradient"
  return %loss, %da
}
"""


def recomputed(policy: str) -> list[str]:
    module = run_passes(graphc.parse(BEFORE), policy)
    module.verify()
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    for got, want in zip(interpret(module, x), interpret(graphc.parse(BEFORE), x), strict=True):
        np.testing.assert_array_equal(got, want)
    return [op.name for op in module.main.block if group_of(op) is not None]


def test_policies() -> None:
    assert recomputed("remat") == recomputed("remat{policy=everything}") == []
    assert recomputed("remat{policy=nothing}") == ["barrier", "sin", "name", "exp", "tanh"]
    assert recomputed("remat{names=b}") == ["barrier", "exp", "tanh"]
    assert recomputed("remat{layers=inner}") == ["barrier", "exp"]
    with pytest.raises(GraphcError, match="no value is tagged 'c'"):
        recomputed("remat{names=c}")
    with pytest.raises(GraphcError, match="no layer is called 'outer'"):
        recomputed("remat{layers=outer}")


def test_a_plan_as_text() -> None:
    text = str(run_passes(graphc.parse(BEFORE), "remat{names=b}").main)
    assert "= barrier %b, %loss" in text
    assert text.index("= barrier") < text.index('@ "gradient/recompute/inner"') < text.index('@ "gradient/inner"')


def test_marked_blocks_run_again() -> None:
    def loss(x):
        y = graphc.remat(lambda x: ops.sin(ops.exp(x) * 2))(ops.cos(x))
        return ops.reduce_sum(ops.tanh(y), axes=(0,))

    module = graphc.trace(loss, graphc.Spec((3,)))
    differentiate(module, wrt=["x"])
    module = run_passes(module, "remat,canonicalize,cse")
    again = [op.name for op in module.functions["value_and_grad"].block if group_of(op) is not None]
    assert [name for name in again if name not in ("barrier", "name")] == ["exp", "mul"]


@pytest.mark.slow
def test_a_deep_network_is_planned_in_seconds() -> None:
    import time

    planner = Planner(network(depth=100, width=32).main, SIZES)
    most = planner.plan(planner.everything).peak
    start = time.process_time()
    assert planner.within(most // 2) is not None
    assert time.process_time() - start < 20
