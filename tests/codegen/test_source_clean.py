"""Emitted control flow has no dead lines: `ruff check` finds nothing in it."""

import subprocess
import sys

import numpy as np
import pytest
from codegen_models import B, module_of

from graphc import compile
from graphc.ir import ops
from graphc.ir.dims import symbol
from graphc.ir.interpreter import interpret
from graphc.ir.ops.control import cond, scan, while_loop

T = symbol("T")
X, ROWS, COUNT = ("x", "float32", (B, 3)), ("rows", "float32", (T, B, 3)), ("n", "int32", ())


def walked(x, rows, **options):
    return scan(lambda c, s: ((ops.tanh(c[0] + s[0]),), (c[0],)), [x], [rows], **options)


def last(x, rows):
    return walked(x, rows)[0][0]


def stacked(x, rows):
    return walked(x, rows)[1][0]


def backwards(x, rows):
    return walked(x, rows, reverse=True)[0][0]


def unread_carry(x, rows):
    return scan(lambda c, s: ((c[0] * 2.0,), (s[0] + 1.0,)), [x], [rows])[1][0]


def unread_rows(x, rows):
    return scan(lambda c, s: ((c[0] * 2.0,), ()), [x], [rows])[0][0]


def two_arrays(x, rows):
    return scan(lambda c, s: ((c[0] + s[0] * s[1],), ()), [x], [rows, ops.exp(rows)])[0][0]


def counted(x):
    return scan(lambda c, s: ((c[0] * 1.1,), ()), [x], [], length=4)[0][0]


def measured(x, rows):
    return scan(lambda c, s: ((c[0] * 1.1,), ()), [x], [], length=T)[0][0] + ops.reduce_sum(rows, axes=(0,))


def chosen(x, n):
    one, _ = cond(n, lambda: (x + 1.0, x), lambda: (x * 2.0, ops.exp(x)))
    return one


def counting(x, n):
    return while_loop(lambda i, y: ops.lt(i, n), lambda i, y: (i + 1, y * 1.5), [np.int32(0), x])[0]


def repeated(x, n):
    return while_loop(lambda i, y: ops.lt(i, n), lambda i, y: (i + 1, y * 1.5 + x), [np.int32(0), x])[1]


FLOW = {
    body: [X, *others]
    for others, bodies in [
        ([ROWS], (last, stacked, backwards, unread_carry, unread_rows, two_arrays, measured)),
        ([COUNT], (chosen, counting, repeated)),
        ([], (counted,)),
    ]
    for body in bodies
}


@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("body", FLOW, ids=lambda body: body.__name__)
def test_control_flow_is_clean(body, target, tmp_path):
    module = module_of(body, FLOW[body])
    executable = compile(module, target)
    path = tmp_path / "model.py"
    path.write_text(executable.source)
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", str(path)], capture_output=True, text=True
    )
    assert found.returncode == 0, f"{found.stdout}\n{executable.source}"
    generator = np.random.default_rng(0)
    drawn = {"x": (2, 3), "rows": (5, 2, 3)}
    arrays = [
        np.int32(3) if name == "n" else generator.normal(size=drawn[name]).astype(np.float32)
        for name, _, _ in FLOW[body]
    ]
    np.testing.assert_allclose(executable(*arrays), interpret(module, *arrays), rtol=1e-5, atol=1e-5)
