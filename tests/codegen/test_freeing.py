"""Arrays of a training step are let go of where they are read last."""

from pathlib import Path

import pytest

import graphc
from graphc.codegen.compiler import write_artifact
from graphc.codegen.source.freeing import Line, with_deletions
from graphc.ir import ops
from graphc.ir.parser import parse
from graphc.passes.autodiff import differentiate


def test_what_is_read_last_is_deleted() -> None:
    lines = ["y = f(x)", "z = g(y)", "w = h(z, y)", "u = k(w)", "return u"]
    assert with_deletions(lines, {"y", "z", "w", "u"}) == [
        "y = f(x)",
        "z = g(y)",
        "w = h(z, y)",
        "del y, z",
        "u = k(w)",
        "return u",
    ]


def test_a_name_that_is_assigned_again_needs_none() -> None:
    lines = ["y = f(x)", "y = g(y)", "z = g(y)", "y = f(x)", "z = h(z, y)", "return z"]
    assert with_deletions(lines, {"y", "z"}) == [
        "y = f(x)",
        "y = g(y)",
        "z = g(y)",
        "del y",
        "y = f(x)",
        "z = h(z, y)",
        "return z",
    ]


def test_parameters_and_small_arrays_stay() -> None:
    lines = ["y = f(x)", "s = total(y)", "z = g(s)", "w = g(z)", "v = w + 1", "return v"]
    assert with_deletions(lines, {"z"})[3:] == ["w = g(z)", "del z", "v = w + 1", "return v"]


def test_blocks_count_as_one_statement() -> None:
    lines = ["y = f(x)", "z = y + 1", "for row in x:", "    z = u = g(y, row)", "w = h(z)", "v = w + 1", "return v"]
    assert with_deletions(lines, {"y", "z", "u"}) == [*lines[:4], "del y", "w = h(z)", "del z", *lines[5:]]


def test_what_one_branch_assigns_may_not_exist() -> None:
    lines = ["if p:", "    y = f(x)", "    z = y", "else:", "    z = x", "w = h(z)", "v = w + 1", "return v"]
    assert with_deletions(lines, {"y", "z"}) == [*lines[:6], "del z", *lines[6:]]


def test_a_name_that_goes_on_with_a_few_numbers_is_deleted_before() -> None:
    function = parse("graphc-ir 1\nfunc @f(%x: f32[64, 64] input, %s: f32[] input) -> f32[] {\n  return %s\n}\n").main
    large, small = (parameter.value for parameter in function.inputs)
    lines = [Line.of("y = f(x)", {"y": large}), "z = g(y)", Line.of("y = total(z)", {"y": small}), "w = y", "return w"]
    assert with_deletions(lines, {"y"}) == ["y = f(x)", "z = g(y)", "del y", "y = total(z)", "w = y", "return w"]


@pytest.mark.parametrize("read", [(1,), (0, 1)])
def test_results_that_nothing_reads_are_not_held(tmp_path: Path, read: tuple[int, ...]) -> None:
    def loss(x):
        parts = ops.split(ops.sin(x), sizes=(16, 16, 32), axis=1)
        return ops.reduce_sum(ops.square(ops.concat(*[parts[i] for i in read], axis=1)), axes=(0, 1))

    module = graphc.trace(loss, graphc.Spec((64, 64)))
    differentiate(module, wrt=["x"])
    write_artifact(module, "torch", tmp_path / "step")
    text = (tmp_path / "step" / "model.py").read_text()
    split = "torch.sin(x).split((16, 16, 32), dim=1)"
    assert f"{split}[1]\n" in text if read == (1,) else f"y, z, _ = {split}\n        del _\n" in text
