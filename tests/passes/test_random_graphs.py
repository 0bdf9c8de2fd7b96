"""Random graphs survive the text form, verify, and mean after each pass what they meant before."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from isomorphism import assert_isomorphic
from random_graphs import RandomGraph, random_graph

from graphc.ir.dtypes import DTYPES
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.parser import parse
from graphc.passes.checking import difference
from graphc.passes.registry import run_passes

COUNT = 400

LEAST = {
    **{str(kind): 30 for kind in DTYPES},
    "symbolic size": 300, "region": 150, "cond": 50, "while": 50, "scan": 50, "call": 30, "several results": 100,
    "optional operand": 50, "weight": 100, "NaN": 100, "infinity": 100, "-0": 100,
}  # fmt: skip
"""So many of the graphs must hold each of these, or the test tests less than it says."""


def meaning(module: Module, graph: RandomGraph, dtype: str | None = None) -> list[np.ndarray[Any, Any]]:
    found = interpret(module, *graph.inputs, dtype=dtype)
    return list(found) if isinstance(found, tuple) else [found]


def assert_same_meaning(before: Module, after: Module, graph: RandomGraph) -> None:
    """Bit for bit but for NaNs, which are all alike."""
    for i, (old, new) in enumerate(zip(meaning(before, graph), meaning(after, graph), strict=True)):
        assert difference(old, new) is None, f"result {i}: {difference(old, new)}"
        if old.dtype.kind not in "biu":
            signs = [
                np.signbit(a.astype(np.complex128).real) | np.isnan(a.astype(np.complex128).real) for a in (old, new)
            ]
            np.testing.assert_array_equal(*signs, err_msg=f"signs of result {i}")


@pytest.mark.parametrize("part", range(8))
def test_text_and_canonicalisation(part: int) -> None:
    for seed in range(part, COUNT, 8):
        graph = random_graph(seed)
        module = graph.module
        module.verify()
        text = str(module)
        again = parse(text, dict(module.weights))
        assert_isomorphic(module, again)
        after = run_passes(module, "canonicalize")
        assert str(module) == text, f"seed {seed}: the passes changed their input"
        after.verify()
        try:
            assert_same_meaning(module, after, graph)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{text}\n{after}") from error


@pytest.mark.parametrize("pipeline", ["inline,cse,dce", "decompose", "layout,fold_weights", "fuse"])
def test_other_passes(pipeline: str) -> None:
    for seed in range(0, COUNT, 8):
        graph = random_graph(seed)
        after = run_passes(graph.module, pipeline)
        after.verify()
        for old, new in zip(meaning(graph.module, graph, "float64"), meaning(after, graph, "float64"), strict=True):
            assert difference(old, new, 1e-6) is None, f"seed {seed}: {difference(old, new, 1e-6)}"


def test_what_the_graphs_hold(announce: Any) -> None:
    held = Counter(what for seed in range(COUNT) for what in random_graph(seed).held)
    announce(f"{COUNT} random graphs held " + ", ".join(f"{what} {held[what]}" for what in LEAST))
    lacking = {what: (held[what], least) for what, least in LEAST.items() if held[what] < least}
    assert not lacking


def test_no_twins_are_left() -> None:
    """`cse` looks up only ops whose operands all have other readers; none that it should merge may slip through."""
    merged = 0
    for seed in range(0, COUNT, 4):
        module = run_passes(random_graph(seed).module, "cse")
        merged += sum(1 for _ in random_graph(seed).module.walk()) - sum(1 for _ in module.walk())
        blocks = [f.block for f in module.functions.values()]
        for block in blocks:
            seen: set[object] = set()
            for op in block:
                blocks.extend(region.block for region in op.regions)
                if op.next is not None and not op.regions and op.name != "barrier":
                    key = (op.definition, id(op.attributes), op.operands, op.location.scope)
                    assert key not in seen, f"seed {seed}: {op}"
                    seen.add(key)
    assert merged >= 50
