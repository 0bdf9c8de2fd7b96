"""Random numbers and dropout masks are the same bits on every target."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from artifacts import needs

from graphc.codegen import targets
from graphc.codegen.compiler import write_artifact
from graphc.codegen.target import EntryFunction
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import f32, u32
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.types import TensorType

KEY = np.array([0x93198A2E, 0x80707344], np.uint32)
X = np.linspace(0.5, 2, 3 * 7, dtype=np.float32).reshape(3, 7)
TARGETS = [name for name in ("numpy", "torch", "jax", "onnx", "openvino") if name in targets()]
LACKING = {"openvino": "its integers of 32 bits are not wrapping unsigned ones"}


@cache
def module() -> Module:
    """What is drawn of one key; with a symbolic batch."""
    found = Module()
    function = found.add_function("main")
    x = function.add_parameter(TensorType.of(f32, (symbol("B"), 7)), "x")
    key = function.add_parameter(TensorType.of(u32, (2,)), "key")
    with Builder(function.block) as builder:
        folded = ops.random_fold_in(key, 5)
        drawn: dict[str, Any] = {
            "bits": ops.random_bits(key, shape=x.shape),
            "more bits": ops.random_bits(key, shape=(40000,)),
            "bytes": ops.random_bits(key, shape=(9,), dtype="uint8"),
            "folded in": folded,
            "split": ops.random_split(key, count=3),
            "bits of the folded": ops.random_bits(folded, shape=()),
            "uniform": ops.random_uniform(key, shape=x.shape),
            "bernoulli": ops.random_bernoulli(folded, shape=x.shape, probability=0.3),
            "permutation": ops.random_permutation(key, size=50),
            "kept": ops.ne(ops.dropout(x, key, rate=0.4), 0),
        }
        function.results.extend(Result(name.replace(" ", "_")) for name in drawn)
        builder.finish(tuple(drawn.values()))
    return found


def loaded(name: str) -> EntryFunction:
    needs(name)
    if name in LACKING:
        pytest.skip(LACKING[name])
    with TemporaryDirectory() as folder:
        write_artifact(module(), name, Path(folder) / "artifact")
        return targets()[name].load(Path(folder) / "artifact").entries["main"]


@pytest.mark.parametrize("name", TARGETS)
def test_bits_are_equal(name: str) -> None:
    wanted = interpret(module(), X, KEY)
    assert wanted[0].max() >= 2**31
    for result, want, got in zip(module().main.results, wanted, loaded(name)(X, KEY), strict=True):
        assert got.dtype == want.dtype, result.name
        np.testing.assert_array_equal(got, want, err_msg=str(result.name))
