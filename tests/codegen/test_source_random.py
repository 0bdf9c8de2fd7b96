"""Random graphs on the source targets: whatever they hold, what is written runs and means the same."""

import numpy as np
import pytest
from random_graphs import random_graph

from graphc.codegen import target as find_target
from graphc.codegen.compiler import write_artifact
from graphc.ir.errors import UnsupportedError
from graphc.ir.interpreter import interpret

SEEDS = {"numpy": range(120), "torch": range(120), "jax": range(8)}


def agrees(got, want):
    if got.dtype != want.dtype or got.shape != want.shape:
        return False
    if got.dtype.kind in "biu":  # a float that rounds the other way may tip a comparison or a floor
        return not got.size or np.mean(got == want) > 0.7
    tolerance = {1: 0.3, 2: 2e-2}.get(got.dtype.itemsize, 2e-3)
    wide, wanted = got.astype(np.complex128), want.astype(np.complex128)
    with np.errstate(all="ignore"):
        near = np.isclose(wide, wanted, rtol=tolerance, atol=tolerance)
    return bool((near | (np.isnan(wide) & np.isnan(wanted))).all())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SEEDS)
def test_random_graphs_mean_the_same(name, tmp_path, announce):
    written = 0
    for seed in SEEDS[name]:
        graph = random_graph(seed)
        folder = tmp_path / str(seed)
        try:
            write_artifact(graph.module, name, folder)
        except UnsupportedError:  # a dtype that the target lacks
            continue
        written += 1
        main = graph.module.main
        found = find_target(name).load(folder).entries[main.name](*graph.inputs)
        wanted = interpret(graph.module, *graph.inputs)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        kept = [want for want, result in zip(wanted, main.results, strict=True) if result.updates is None]
        for got, want in zip(found, kept, strict=True):
            assert agrees(got, want), f"seed {seed}: {got} in place of {want}"
    announce(f"{name}: {written} of {len(SEEDS[name])} random graphs are within its dtypes, and agree")
    assert written > len(SEEDS[name]) // 3
