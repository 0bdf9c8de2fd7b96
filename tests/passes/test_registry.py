"""Passes by name and from text: options, errors, and what `check` finds."""

from __future__ import annotations

import gc
import random
from typing import Literal

import numpy as np
import pytest

import graphc
from graphc.ir import ops
from graphc.ir.errors import GraphcError
from graphc.ir.module import Module
from graphc.ir.parser import parse
from graphc.passes import registry
from graphc.passes.checking import difference, draw_sizes
from graphc.passes.options import ByteSize, parse_pipeline, read_size
from graphc.passes.registry import register_pass, run_passes

TEXT = """
func @main(%x: f32[B, 4] input) -> (probabilities: f32[B, 4]) {
  %0 = softmax %x : f32[B, 4]
  return %0
}
"""


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes registered by a test are forgotten after it."""
    registry.passes()
    monkeypatch.setattr(registry, "_PASSES", dict(registry._PASSES))


def test_the_module_lists_its_passes_when_called() -> None:
    names = [each.name for each in graphc.passes()]
    assert names == sorted(names)
    assert {"canonicalize", "cse", "dce", "fast", "fuse", "inline", "layout", "fold_weights", "decompose"} <= set(names)
    for each in graphc.passes():
        assert each.doc.endswith("."), each.name
    (layout,) = [each for each in graphc.passes() if each.name == "layout"]
    assert "channels_first=true (true or false)" in str(layout)
    assert graphc.run_passes is graphc.passes.run_passes


def test_options_are_typed(scratch: None) -> None:
    seen: list[object] = []

    @register_pass("typed")
    def typed(
        module: Module,
        count: int = 1,
        share: float = 0.5,
        on: bool = False,
        name: str = "",
        budget: ByteSize | None = None,
        mode: Literal["fast", "small"] = "fast",
    ) -> None:
        """Sees its options."""
        seen.append((count, share, on, name, budget, mode))

    module = parse(TEXT)
    given = 'typed{count=3, share=1e-3,on=true,name="a b",budget=1.5MiB,mode=small}'
    run_passes(module, f"typed,{given} , typed{{budget=none}}")
    defaults = (1, 0.5, False, "", None, "fast")
    assert seen == [defaults, (3, 1e-3, True, "a b", 1572864, "small"), defaults]
    for text, message in [
        ("typed{count=x}", r"typed\{count=x\}: count is an integer"),
        ("typed{on=yes}", "on is true or false"),
        ("typed{budget=12parsecs}", "budget is a size such as 512MiB or none"),
        ("typed{mode=slow}", "mode is fast or small"),
        ("typed{sise=1}", r"'typed' has no option 'sise'; it takes count=1 \(an integer\), share"),
    ]:
        with pytest.raises(GraphcError, match=message):
            run_passes(module, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("canonicalise", "there is no pass 'canonicalise'; did you mean canonicalize"),
        ("zzzz", "there is no pass 'zzzz'; there are canonicalize, cse"),
        ("dce{x=1}", "the pass 'dce' has no option 'x'; it takes none"),
        ("dce,", "needs the name of a pass at column 5, where the end stands"),
        ("dce{", "needs an option as `name=value` at column 5"),
        ("dce{x", "needs an option as `name=value` at column 5, where 'x' stands"),
        ("cse{across_scopes=1", "needs `,` or `}` at column 20, where the end stands"),
        ("cse{across_scopes=1,across_scopes=2}", "'across_scopes' is given twice"),
        ("dce dce", "needs `,` or `{` or the end at column 5"),
    ],
)
def test_pipelines_with_mistakes(text: str, message: str) -> None:
    with pytest.raises(GraphcError) as error:
        run_passes(parse(TEXT), text)
    assert message in str(error.value)


def test_pipelines_and_sizes() -> None:
    assert parse_pipeline("  ") == []
    assert [step.name for step in parse_pipeline("a, b{x=1} ,c")] == ["a", "b", "c"]
    assert read_size("512MiB") == 2**29 and read_size("2GB") == 2 * 10**9 and read_size("4096") == 4096
    with pytest.raises(ValueError):
        read_size("-1")


def test_an_option_needs_a_default_and_a_known_kind(scratch: None) -> None:
    with pytest.raises(TypeError, match="needs a default"):

        @register_pass("bad")
        def bad(module: Module, count: int) -> None: ...

    with pytest.raises(TypeError, match="cannot be annotated"):

        @register_pass("worse")
        def worse(module: Module, items: dict = {}) -> None: ...  # noqa: B006

    with pytest.raises(TypeError, match="there is a pass 'dce' already"):

        @register_pass("dce")
        def dce(module: Module) -> None: ...


def test_the_module_given_stays_and_the_collector_rests_while_passes_run(scratch: None) -> None:
    @register_pass("watch")
    def watch(module: Module) -> None:
        assert not gc.isenabled()

    module = parse(TEXT)
    before = str(module)
    assert "softmax" not in str(run_passes(module, "watch,decompose"))
    assert gc.isenabled() and str(module) == before


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_names_the_pass_the_output_and_the_error(scratch: None) -> None:
    @register_pass("wrong")
    def wrong(module: Module) -> None:
        op, _ = module.main.block
        op.attributes = ops.softmax.make_attributes(axis=0)

    module = parse(TEXT)
    with pytest.raises(
        GraphcError, match=r"the pass 'wrong' changes the output probabilities of @main: worst error 0\.\d"
    ):
        run_passes(module, "canonicalize,wrong", check=True)
    run_passes(module, "canonicalize,wrong")


def test_check_verifies(scratch: None) -> None:
    @register_pass("broken")
    def broken(module: Module) -> None:
        module.main.block.first.results[0].type = module.main.block.parameters[0].type.with_shape((1,))

    with pytest.raises(GraphcError, match="in the check after the pass 'broken'"):
        run_passes(parse(TEXT), "broken", check=True)


def test_check_knows_passes_that_hold_for_finite_values() -> None:
    module = parse("func @f(%x: f32[B] input) -> f32[B] {\n  %0 = sub %x, %x : f32[B]\n  return %0\n}")
    assert "sub" not in str(run_passes(module, "fast,canonicalize", check=True))


def test_check_draws_sizes_that_meet_the_guards() -> None:
    text = "func @f(%x: f32[A, 2*C] input, %y: f32[B] input) -> f32[A, 2*C] where A == B, A <= C {\n  return %x\n}"
    module = parse(text)
    sizes = draw_sizes(module.main, random.Random(0))
    assert sizes["A"] == sizes["B"] <= sizes["C"]
    run_passes(module, "canonicalize", check=True)
    none = parse("func @f(%x: f32[A] input) -> f32[A] where A == 2*A {\n  return %x\n}")
    with pytest.raises(GraphcError, match="found no small sizes for @f that meet A == 2\\*A"):
        run_passes(none, "canonicalize", check=True)


def test_check_needs_arrays() -> None:
    text = 'weight "k" : f32[3] trainable\nfunc @f(%k: f32[3] param "k") -> f32[3] {\n  return %k\n}'
    with pytest.raises(GraphcError, match=r"weight 'k'.* has no array"):
        run_passes(parse(text), "dce", check=True)


def test_differences() -> None:
    a = np.float32([1, np.nan, np.inf])
    assert difference(a, a.copy()) is None
    assert difference(a, np.float32([1, np.nan, -np.inf])) == "worst error inf at [2] (inf before, -inf after)"
    assert difference(a, np.float32([1, 0, np.inf])) == "worst error inf at [1] (nan before, 0.0 after)"
    assert difference(np.int8([1, 2]), np.int8([1, 4])) == "worst error 2 at [1] (2 before, 4 after)"
    assert difference(np.float64([1.0]), np.float64([1.0 + 1e-9]), 1e-6) is None
