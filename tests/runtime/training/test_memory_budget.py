"""A memory budget of `compile` is planned for the batches that `fit` gets."""

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Sequential, layers, losses

X = np.random.default_rng(0).normal(size=(96, 32)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


def network(target, budget):
    graphc.utils.set_random_seed(0)
    model = Sequential([Input((32,)), *[layers.Dense(64, activation="tanh") for _ in range(8)], layers.Dense(2)])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, target=target, memory_budget=budget)
    return model


def trained(budget, batch_size=96):
    model = network("numpy", budget)
    model.fit(X, Y, batch_size=batch_size, epochs=2, verbose=0)
    return model


def test_the_plan_is_for_the_batch_at_hand_and_changes_no_bit():
    """Eight layers of 96 × 64 float32 are 197 kB: what a batch of one needs says nothing of that."""
    plain, planned = trained(None), trained("240kB")
    for a, b in zip(plain.get_weights(), planned.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    (program,) = planned._compiled.programs.values()
    assert program.sizes == {"B": 96}
    source, free = program.executable.source, next(iter(plain._compiled.programs.values())).executable.source
    assert source.count("np.tanh") > free.count("np.tanh")


def test_a_budget_that_a_small_batch_keeps_is_too_small_for_a_larger_one():
    model = trained("160kB", batch_size=8)
    with pytest.raises(graphc.GraphcError, match=r"B = 96.*least possible is"):
        model.fit(X, Y, batch_size=96, verbose=0)


@pytest.mark.parametrize("target", ["torch", "jax", "onnx"])
def test_masks_of_dropout_are_saved_and_computed_again(target):
    needs(target)
    found = {}
    for name, budget in ((target, None), (target, "270kB"), ("numpy", None)):
        graphc.utils.set_random_seed(0)
        hidden = [[layers.Dense(64, activation="tanh"), layers.Dropout(0.2)] for _ in range(6)]
        model = Sequential([Input((32,)), *(layer for pair in hidden for layer in pair), layers.Dense(2)])
        loss = losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, target=name, memory_budget=budget)
        found[name, budget] = model.fit(X, Y, batch_size=96, epochs=3, verbose=0).history["loss"]
    for losses_of_a_run in found.values():
        np.testing.assert_allclose(losses_of_a_run, found["numpy", None], rtol=1e-5)


def test_onnx_runtime_runs_again_what_the_plan_does_not_save(tmp_path):
    """Where it does not merge equal computations: graphc's loader says so, and others have to."""
    needs("onnx")
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

    def tanhs(path):
        """Of the file, by themselves or as the activation of a product."""
        nodes = onnx.load(path, load_external_data=False).graph.node
        activations = [a.s for node in nodes for a in node.attribute if a.name == "activation"]
        return sum(node.op_type == "Tanh" for node in nodes) + activations.count(b"Tanh")

    def optimized(disabled):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "step" / "optimized.onnx")
        onnxruntime.InferenceSession(step, options, ["CPUExecutionProvider"], disabled_optimizers=disabled)
        return tanhs(options.optimized_model_filepath)

    module = network("onnx", None).training_module(X, Y)
    graphc.compile(module, "onnx", memory_budget="240kB", sizes={"B": 96}).save(tmp_path / "step")
    step = str(tmp_path / "step" / "model.train_step.onnx")
    assert tanhs(step) > 8
    assert optimized(["CommonSubexpressionElimination"]) == tanhs(step)
    assert optimized([]) == 8


def test_graphc_has_onnx_runtime_merge_nothing(monkeypatch):
    needs("onnx")
    from graphc.codegen.onnx import session

    asked, made = [], session.InferenceSession

    def watched(*args, **kwargs):
        asked.append(kwargs["disabled_optimizers"])
        return made(*args, **kwargs)

    monkeypatch.setattr(session, "InferenceSession", watched)
    network("onnx", None).fit(X, Y, batch_size=96, verbose=0)
    assert asked and all("CommonSubexpressionElimination" in each for each in asked)
