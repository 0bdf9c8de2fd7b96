"""The digits example means what its author measured under Keras."""

import runpy
from pathlib import Path

import numpy as np

import graphc

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_logits_are_those_of_keras() -> None:
    model = runpy.run_path(str(EXAMPLES / "digits_cnn.py"))["model"]
    test = np.load(EXAMPLES / "digits_test.npz")
    module = graphc.lower(model)
    module.verify()
    logits = graphc.interpret(module, test["x"])
    assert np.abs(logits - test["logits"]).max() < 1e-4
    assert (logits.argmax(1) == test["y"]).sum() == 447
    assert np.abs(model(test["x"][:7]) - test["logits"][:7]).max() < 1e-4


def test_the_function_reads_like_the_model() -> None:
    function = graphc.lower(runpy.run_path(str(EXAMPLES / "digits_cnn.py"))["model"]).main
    assert function.name == "forward"
    assert str(function.parameters[0].type) == "f32[B, 8, 8, 1]"
    assert [p.weight for p in function.parameters[1:6]] == [
        "stem/kernel", "stem_bn/gamma", "stem_bn/beta", "stem_bn/moving_mean", "stem_bn/moving_variance",
    ]  # fmt: skip
    assert [p.role for p in function.parameters[:6]] == ["input", "param", "param", "param", "state", "state"]
    scopes = [str(op.location.scope) for op in function.block if op.next is not None]
    assert scopes == [
        "stem", "stem_bn", "re_lu", "block_conv1", "block_conv1", "block_conv2", "", "re_lu_1", "max_pooling2d",
        "head_conv", "head_conv", "global_average_pooling2d", "logits",
    ]  # fmt: skip
    assert function.results[0].name == "logits"
    assert all(op.location.file.endswith("digits_cnn.py") and op.location.line for op in function.block if op.next)
