"""Division that rounds down is the operator of Python where the framework has it."""

import numpy as np
import pytest

import graphc


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32"])
@pytest.mark.parametrize("target", ["numpy", "jax"])
def test_integers_are_divided_by_the_operator(target, dtype):
    x = np.arange(0 if dtype[0] == "u" else -9, 9).astype(dtype)
    y = np.where(np.arange(len(x)) % 5 == 0, 3, 7 if dtype[0] == "u" else -2).astype(dtype)
    spec = graphc.Spec(("B",), dtype)
    module = graphc.trace(lambda x, y: (x // y, x // 2), spec, spec)
    executable = graphc.compile(module, target)
    assert "return x // y, x // 2" in executable.source
    for found, wanted in zip(executable(x, y), graphc.interpret(module, x, y), strict=True):
        np.testing.assert_array_equal(found, wanted, strict=True)
