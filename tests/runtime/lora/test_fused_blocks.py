"""Adapters of a Llama in fused blocks: PEFT's gradients, the bytes that are saved, one product for each block."""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import codegen, losses, optimizers
from graphc.codegen.compiler import write_artifact
from graphc.ir.interpreter import interpret
from graphc.passes.partition.backward import is_backward
from graphc.passes.partition.planner import Planner
from graphc.runtime.training.batches import batch_types
from graphc.runtime.training.step import record_training

WORKER = Path(__file__).with_name("llama_worker.py")
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SIZES = {"depth": 2, "width": 32, "heads": 4, "groups": 2, "hidden": 48, "vocabulary": 20}
PLACES = 12


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import llama

    return llama


def adapted(llama, rank=4, alpha=8.0, places=PLACES, **sizes):
    """A compiled model with random adapters in all projections, and a batch."""
    graphc.utils.set_random_seed(0)
    model = llama.llama(context=places, **SIZES | sizes)
    model.add_adapter("default", r=rank, alpha=alpha, targets=llama.TARGETS)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        draws = rng.standard_normal(variable.shape).astype(np.float32)
        variable.assign(1 + 0.1 * draws if len(variable.shape) == 1 else 0.2 * draws)
    model.compile(optimizers.SGD(1.0), losses.SparseCategoricalCrossentropy(from_logits=True), target="numpy")
    tokens = rng.integers(0, SIZES["vocabulary"], (3, places + 1)).astype(np.int32)
    return model, tokens


def recorded(model, tokens):
    return record_training(model, batch_types(model, tokens[:, :-1], tokens[:, 1:]), None).module


def names_of(module, entry="train_step"):
    return [op.name for op in module.functions[entry].block]


def test_layers_of_one_input_and_gated_mlps_become_blocks_with_joined_kernels(llama):
    model, tokens = adapted(llama)
    module = graphc.run_passes(recorded(model, tokens), "dce")
    for entry in ("forward", "train_step", "test_step"):
        names = names_of(module, entry) if entry in module.functions else []
        assert [names.count(name) for name in ("lora_mlp", "lora_linears", "lora_linear")] in ([2, 2, 2], [0, 0, 0])
    assert module.weights.info("layers_0/self_attn/qkv_proj/kernel").type.shape == (32, 64)
    assert module.weights.info("layers_1/mlp/gate_up_proj/kernel").type.shape == (32, 96)
    recipe = module.weights.info("layers_1/mlp/gate_up_proj/kernel").recipe
    assert recipe.sources == ("layers_1/mlp/gate_proj/kernel", "layers_1/mlp/up_proj/kernel")
    assert "layers_0/mlp/up_proj/kernel" not in module.weights


def test_weights_are_read_and_written_by_their_own_names(llama):
    model, tokens = adapted(llama)
    model.train_on_batch(tokens[:, :-1], tokens[:, 1:])
    names = list(graphc.lower(model).weights)
    kernel = model.weights[names.index("layers_0/mlp/up_proj/kernel")]
    assert kernel.shape == (32, 48)
    before = float(model.test_on_batch(tokens[:, :-1], tokens[:, 1:]))
    kernel.assign(np.zeros((32, 48), np.float32))
    assert float(model.test_on_batch(tokens[:, :-1], tokens[:, 1:])) != before


def test_gradients_are_pefts_in_float64(llama, tmp_path):
    model, tokens = adapted(llama)
    names = run_peft(llama, model, tokens, tmp_path)
    theirs = np.load(tmp_path / "gradients.npz")

    module = recorded(model, tokens)
    function = module.functions["train_step"]
    found = interpret(module, tokens[:, :-1], tokens[:, 1:], np.float32(1.0), dtype="float64", entry="train_step")
    worst = 0.0
    for result, array in zip(function.results, found, strict=True):
        name = None if result.updates is None else result.updates.weight
        if name in names:
            gradient = (module.weights[name].astype(np.float64) - array).T
            wanted = theirs[factor_name(llama, name)]
            worst = max(worst, np.linalg.norm(gradient - wanted) / np.linalg.norm(wanted))
    assert worst <= 1e-10
    assert float(found[0]) == pytest.approx(float(theirs["loss"]), rel=1e-12)


def run_peft(llama, model, tokens, folder: Path, **more) -> list[str]:
    """Let PEFT work with the model's weights; returns the names of the factors."""
    if not all(importlib.util.find_spec(name) for name in ("peft", "transformers")):
        pytest.skip("peft and transformers are not installed")
    arrays, names = llama.weights_for(model) | {"tokens": tokens}, []
    for name, variable in zip(graphc.lower(model).weights, model.weights, strict=True):
        if "/lora_" in name:
            names.append(name)
            arrays[factor_name(llama, name)] = variable.numpy().T
    np.savez(folder / "weights.npz", **arrays)
    (folder / "sizes.json").write_text(json.dumps(SIZES | {"rank": 4, "alpha": 8.0} | more))
    environment = os.environ | {"USE_TF": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(WORKER), str(folder)], check=True, env=environment, capture_output=True)
    return names


@pytest.mark.slow
def test_fine_tuning_on_c_headers_follows_pefts_losses_on_every_target(llama, tmp_path):
    headers = sorted(Path(sysconfig.get_paths()["include"]).glob("*.h"))[:20]
    if not headers:
        pytest.skip("Python's C headers are not installed")
    text = np.frombuffer(b"".join(path.read_bytes() for path in headers), np.uint8).astype(np.int32)
    batches = np.lib.stride_tricks.sliding_window_view(text, PLACES + 1)[:: len(text) // 130][:120]
    batches = batches.reshape(30, 4, PLACES + 1)
    curves = {}
    for target in ("numpy", "onnx", "torch", "jax"):
        needs(target)
        model, _ = adapted(llama, vocabulary=256)
        if not curves:
            run_peft(llama, model, batches, tmp_path, vocabulary=256, rate=0.01)
            curves["PEFT"] = np.load(tmp_path / "curve.npy")
        loss = losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizers.SGD(0.01, momentum=0.9), loss, target=target)
        curves[target] = np.array([float(model.train_on_batch(b[:, :-1], b[:, 1:])) for b in batches])
        model.reset_metrics()
    for target, curve in curves.items():
        np.testing.assert_allclose(curve, curves["PEFT"], rtol=1e-4, err_msg=target)
    assert curves["torch"][-5:].mean() < curves["torch"][:5].mean()


def factor_name(llama, name: str) -> str:
    layer, _, leaf = name.rpartition("/")
    return f"{llama.name_in_transformers(f'{layer}/kernel')}.{leaf[-1]}"


def saved_by_a_layer(bytes_of) -> tuple[int, int]:
    """What one more layer adds, and what the formula says."""
    width, hidden, heads = SIZES["width"], SIZES["hidden"], SIZES["heads"]
    return bytes_of(3) - bytes_of(2), 3 * PLACES * 4 * (6 * width + 2 * hidden + heads)


def test_a_layer_saves_its_streams_and_projections_and_no_product_runs_again(llama, tmp_path):
    """6 H + 2 I numbers a token (12 H + 4 I bytes in bfloat16), and a sum of exponentials for each head."""
    needs("torch")

    def simulated(depth: int) -> int:
        model, tokens = adapted(llama, depth=depth, groups=4)
        module, found = recorded(model, tokens), {}
        write_artifact(
            module, "torch", tmp_path / str(depth), observe=lambda stage, m: found.update({stage: m.clone()})
        )
        function = found["remat"].functions["train_step"]
        names = [op.name for op in function.block]
        assert [names.count(each) for each in ("lora_linears", "lora_mlp", "lora_linear")] == [depth] * 3
        assert names.count("attention_with_logsumexp") == depth
        planner = Planner(function, {"B": 3}, codegen.target("torch").memory)
        return planner.plan(planner.everything).saved_bytes

    found, formula = saved_by_a_layer(simulated)
    assert found == formula


def test_torch_holds_what_the_formula_says(llama):
    needs("torch")
    import torch

    from graphc.codegen.source.loading import import_model
    from graphc.tools.bench.torch_memory import live_at_loss

    def measured(depth: int) -> int:
        model, tokens = adapted(llama, depth=depth, groups=4)
        model.compile(optimizers.SGD(1.0), losses.SparseCategoricalCrossentropy(from_logits=True), target="torch")
        model.train_on_batch(tokens[:, :-1], tokens[:, 1:])
        executable = model.executable()
        loaded = import_model(executable.folder).load(executable.folder)
        given = [torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(tokens[:, 1:].copy()), torch.tensor(1.0)]
        known = [*given, *loaded.parameters(), *loaded.buffers()]
        return live_at_loss(type(loaded).train_step, lambda: loaded.train_step(*given), iter(known))

    found, formula = saved_by_a_layer(measured)
    assert found == formula


@pytest.mark.parametrize("part", [0, 0.3])
def test_the_peak_on_torch_is_as_planned(llama, tmp_path, part):
    """At the least budget and above: what is read for the last time is let go of, and results that nothing reads."""
    needs("torch")
    import torch

    from graphc.codegen.source.loading import import_model
    from graphc.tools.bench.torch_memory import peak_of

    model, tokens = adapted(llama, depth=3, width=128, heads=4, groups=4, hidden=320, places=256)
    memory, stages = codegen.target("torch").memory, {}
    module = recorded(model, tokens)
    write_artifact(module, "torch", tmp_path / "0", passes="", observe=lambda at, m: stages.update({at: m.clone()}))
    planner = Planner(stages["legalize"].functions["train_step"], {"B": 3}, memory)
    least, most = planner.least().peak, planner.unlimited().peak
    budget = int((least + part * (most - least)) / (1 - memory.slack)) + 1
    plan = planner.within(int(budget * (1 - memory.slack)))
    assert plan is not None
    write_artifact(module, "torch", tmp_path / "1", passes="", memory_budget=budget, sizes={"B": 3})
    loaded = import_model(tmp_path / "1").load(tmp_path / "1")
    given = [torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(tokens[:, 1:].copy()), torch.tensor(1.0)]
    peak = peak_of(lambda: loaded.train_step(*given))
    assert peak <= budget
    assert abs(peak - plan.peak) <= 0.05 * plan.peak


def test_an_mlp_that_runs_again_for_its_gradient_runs_no_more_than_that_reads(llama, tmp_path):
    needs("torch")
    model, tokens = adapted(llama, depth=3)
    module, stages = recorded(model, tokens), {}
    with pytest.raises(graphc.GraphcError, match="the least possible is") as told:
        write_artifact(module, "torch", tmp_path / "0", memory_budget=1, sizes={"B": 3})
    least = int(str(told.value).split()[-2])
    observe = lambda stage, m: stages.update({stage: m.clone()})  # noqa: E731
    write_artifact(module, "torch", tmp_path / "1", memory_budget=least, sizes={"B": 3}, observe=observe)
    again = [op.name for op in stages["remat"].functions["train_step"].block if is_backward(op)]
    assert "lora_mlp" not in again
    assert again.count("lora_linears") > 3


@pytest.mark.parametrize("target", ["onnx", "torch", "jax"])
def test_losses_are_the_same_on_every_target(llama, target):
    needs(target)
    curves = []
    for each in ("numpy", target):
        model, tokens = adapted(llama)
        model.compile(optimizers.SGD(0.1), losses.SparseCategoricalCrossentropy(from_logits=True), target=each)
        curves.append([float(model.train_on_batch(tokens[:, :-1], tokens[:, 1:])) for _ in range(4)])
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-5)
    assert curves[0][-1] < curves[0][0]


def test_causal_attention_over_several_blocks_of_queries_is_the_references(llama):
    """300 places are five blocks of torch's helper, the last of them short: outputs, and gradients of every factor."""
    needs("torch")
    model, tokens = adapted(llama, places=300, groups=4, depth=1)
    x, y = tokens[:, :-1], tokens[:, 1:]
    wanted = interpret(recorded(model, tokens), x, y, np.float32(1.0), dtype="float64", entry="train_step")
    module = recorded(model, tokens)
    results = module.functions["train_step"].results
    before = {name: np.asarray(module.weights[name], np.float64) for name in module.weights if "/lora_" in name}
    model.compile(optimizers.SGD(1.0), losses.SparseCategoricalCrossentropy(from_logits=True), target="torch")
    loss = float(model.train_on_batch(x, y))
    names = list(graphc.lower(model).weights)
    assert "causal_blocks(" in (model.executable().folder / "model.py").read_text()
    assert loss == pytest.approx(float(wanted[0]), rel=1e-6)
    checked = 0
    for result, array in zip(results, wanted, strict=True):
        name = None if result.updates is None else result.updates.weight
        if name in before:
            gradient = before[name] - array
            found = before[name] - model.weights[names.index(name)].numpy()
            assert np.linalg.norm(found - gradient) <= 1e-4 * np.linalg.norm(gradient), name
            checked += 1
    assert checked == 14


def test_in_bfloat16_a_layer_saves_12_widths_and_4_inner_widths_of_bytes(llama, tmp_path):
    """The same numbers as in float32 at half the size. Attention is torch's own only from float32 on: in bfloat16 its
    gradient computes the weights again, and there are no sums of exponentials."""
    needs("torch")

    def simulated(depth: int) -> int:
        model, tokens = adapted(llama, depth=depth, groups=4)
        found = {}
        write_artifact(
            recorded(model, tokens),
            "torch",
            tmp_path / str(depth),
            observe=lambda stage, m: found.update({stage: m.clone()}),
        )
        function = found["remat"].functions["train_step"]
        names = [op.name for op in function.block]
        assert [names.count(each) for each in ("lora_linears", "lora_mlp", "lora_linear")] == [depth] * 3
        planner = Planner(function, {"B": 3}, codegen.target("torch").memory)
        return planner.plan(planner.everything).saved_bytes

    before = graphc.config.dtype_policy()
    graphc.config.set_dtype_policy("bfloat16")
    try:
        found = simulated(3) - simulated(2)
    finally:
        graphc.config.set_dtype_policy(before)
    assert found == 3 * PLACES * (12 * SIZES["width"] + 4 * SIZES["hidden"])


@pytest.mark.parametrize("format", ["int4", "nf4"])
def test_a_frozen_kernel_of_integers_is_dequantized_once_in_each_direction(llama, tmp_path, format):
    """Those that blocks read side by side at once; backward not the first layer's queries, keys and values."""
    needs("torch")
    model, tokens = adapted(llama, depth=3, width=64, hidden=96)
    model.quantize(format)
    model.compile(optimizers.SGD(1.0), losses.SparseCategoricalCrossentropy(from_logits=True), target="torch")
    found = {}
    write_artifact(
        recorded(model, tokens), "torch", tmp_path, observe=lambda stage, m: found.update({stage: m.clone()})
    )
    function = found["remat"].functions["train_step"]
    weights = {parameter.value: parameter.weight for parameter in function.parameters}
    read = {False: Counter(), True: Counter()}
    for op in function.block:
        if op.name == "dequantize":
            values = op.operands[0]
            while values.op is not None:
                values = values.op.operands[values.index if values.op.name == "barrier" else 0]
            if weights[values].startswith("layers_"):
                read[is_backward(op)][weights[values]] += 1
    assert len(read[False]) == 3 * 4 and len(read[True]) == 3 * 4 - 1  # q‖k‖v, o, gate‖up, down
    assert {*read[False].values(), *read[True].values()} == {1}
    names = [op.name for op in function.block]
    assert [names.count(each) for each in ("lora_linears", "lora_mlp", "lora_linear")] == [3, 3, 3]
