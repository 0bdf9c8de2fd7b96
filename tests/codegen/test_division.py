"""Division that rounds down is the operator of Python, or the framework's function, where the framework has it."""

import subprocess
import sys

import numpy as np
import pytest

import graphc

QUOTIENTS = {
    "numpy": "return x // y, x // 2",
    "jax": "return x // y, x // 2",
    "torch": 'return torch.div(x, y, rounding_mode="floor"), torch.div(x, 2, rounding_mode="floor")',
}
DTYPES = ["int8", "int32", "int64", "uint8"]


def drawn(dtype):
    x = np.arange(0 if dtype[0] == "u" else -9, 9).astype(dtype)
    return x, np.where(np.arange(len(x)) % 5 == 0, 3, 7 if dtype[0] == "u" else -2).astype(dtype)


def compiled(function, target, dtype):
    spec = graphc.Spec(("B",), dtype)
    module = graphc.trace(function, spec, spec)
    return module, graphc.compile(module, target)


def assert_equal(module, executable, x, y):
    for found, wanted in zip(executable(x, y), graphc.interpret(module, x, y), strict=True):
        np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize(
    ("target", "dtype"),
    [(t, d) for t in QUOTIENTS for d in (*DTYPES, "uint32") if (t, d) != ("torch", "uint32")],
)
def test_integers_are_divided_by_what_the_framework_has(target, dtype):
    module, executable = compiled(lambda x, y: (x // y, x // 2), target, dtype)
    assert QUOTIENTS[target] in executable.source
    assert_equal(module, executable, *drawn(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rest_in_torch(dtype):
    module, executable = compiled(lambda x, y: (x % y, x % 2), "torch", dtype)
    assert "return torch.remainder(x, y), torch.remainder(x, 2)" in executable.source
    assert_equal(module, executable, *drawn(dtype))


EDGES = """
import sys
import numpy as np
import graphc
from graphc import ops

target, dtype = sys.argv[1:]
spec = graphc.Spec(("B",), dtype)
least = np.iinfo(dtype).min
x = np.array([least] * 9 + [least + 1, -1, 0, 7, -7], dtype)
for body in (
    lambda x, y: (x // y, x % y, ops.div(x, y), ops.rem(x, y)),
    lambda x, y: (x // -1, x % -1, ops.div(x, -1), ops.rem(x, -1)),
    lambda x, y: (ops.div(x, 3), ops.div(-7, y)),
):
    module = graphc.trace(body, spec, spec)
    run = graphc.compile(module, target)
    y = np.full_like(x, -1)
    for found, wanted in zip(run(x, y), graphc.interpret(module, x, y), strict=True):
        np.testing.assert_array_equal(found, wanted, strict=True)
    try:
        run(x, np.zeros_like(x))  # unspecified, but the process lives on
    except (RuntimeError, ZeroDivisionError) as error:
        assert "ZeroDivision" in repr(error)
"""


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_no_quotient_ends_the_process(target, dtype):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", EDGES, target, dtype], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}\n{done.stderr}"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_the_rest_of_floats_by_a_number(target, dtype):
    module, executable = compiled(lambda x, y: (graphc.ops.rem(x, 3.0), graphc.ops.rem(7.0, y)), target, dtype)
    x = np.array([-7.5, -3, 0.5, 4, 9], dtype)
    assert_equal(module, executable, x, x)


@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_decompositions_leave_no_arithmetic_of_numbers(target):
    module, executable = compiled(lambda x, y: (x // 2, x % 2), target, "float32")
    assert "array(" not in executable.source
    assert "tensor(" not in executable.source
    assert "False" not in executable.source
    x = np.array([-7.5, -3, 0.5, 4, 9, np.inf, np.nan], np.float32)
    assert_equal(module, executable, x, x)
