"""Passes that change weights do work in proportion to how many there are."""

import cProfile
import pstats
from collections.abc import Callable
from typing import Any

import pytest

import graphc
from graphc import Input, Model, layers
from graphc.passes.quantization.batch_norm import fold_batch_norms
from graphc.runtime.lora.serving import adapters_module


def pairs(depth: int) -> Model:
    """Two layers of one input, added, and behind them another with a normalization; so many times."""
    x = first = Input((4,))
    for i in range(depth):
        x = layers.Dense(4, name=f"left_{i}")(x) + layers.Dense(4, name=f"right_{i}")(x)
        x = layers.BatchNormalization(name=f"norm_{i}")(layers.Dense(4, name=f"next_{i}")(x))
    return Model(first, x)


def passes(text: str, before: str = "") -> Callable[[Model], Callable[[], Any]]:
    def start(model: Model) -> Callable[[], Any]:
        module = graphc.run_passes(graphc.lower(model), before) if before else graphc.lower(model)
        return lambda: graphc.run_passes(module, text)

    return start


def folding(model: Model) -> Callable[[], Any]:
    module = graphc.lower(model)
    return lambda: fold_batch_norms(module)


def switching(model: Model) -> Callable[[], Any]:
    model.add_adapter("one", r=1, targets="left_*,right_*", modules_to_save="norm_*")
    model.add_adapter("two", r=1, targets="left_*", dora=True)
    return lambda: adapters_module(model)


WORK = {
    "lora": passes("lora{r=1,targets=*}"),
    "dora over integers": passes("lora{r=1,targets=*,dora}", "quantize{format=int4{block=16}}"),
    "quantize": passes("quantize{format=int4{block=16}}"),
    "joined kernels": passes("fuse_lora", 'lora{r=1,targets="left_*,right_*"}'),
    "joined integers": passes("fuse_lora", 'quantize{format=int8},lora{r=1,targets="left_*,right_*"}'),
    "batch normalization": folding,
    "switched adapters": switching,
}


@pytest.mark.parametrize("name", WORK)
def test_work_is_in_proportion_to_the_weights(name: str) -> None:
    """Calls of functions, by the profiler; what is quadratic makes nine times and more of 4 times the layers."""

    def calls(depth: int) -> int:
        work = WORK[name](pairs(depth))
        profile = cProfile.Profile()
        profile.runcall(work)
        return pstats.Stats(profile).total_calls  # type: ignore[attr-defined]

    calls(2)  # types are inferred once
    assert calls(160) < 5 * calls(40)
