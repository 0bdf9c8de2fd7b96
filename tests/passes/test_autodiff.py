"""Gradients of whole functions against central differences in float64, along random directions."""

import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import f64, i32
from graphc.ir.errors import GraphcError, ShapeError, UnsupportedError
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.ops import control
from graphc.ir.parser import parse
from graphc.ir.types import TensorType
from graphc.passes import run_passes
from graphc.passes.autodiff import differentiate

B = symbol("B")
TYPES = {"x": TensorType.of(f64, (B, 3)), "w": TensorType.of(f64, (3, 3)), "b": TensorType.of(f64, (3,))}


def total(value):
    return ops.reduce_sum(value, axes=tuple(range(value.ndim)))


def dense(x, w, b):
    return total(ops.softmax(ops.linear(x, w, b)) * ops.sin(x))


def without_own_gradient(x, w, b):
    return total(ops.einsum(x, w, equation="bi,ij->bj") * b)


def branch_by_bool(x, w, b):
    found = control.cond(total(x) > 0, lambda: ops.tanh(x @ w) * b, lambda: ops.exp(x) * ops.sin(x @ w))
    return total(found * found)


def branch_by_index(x, w, b):
    first, second = control.cond(2, lambda: (x @ w, x), lambda: (x, x), lambda: (ops.sin(x) * b, ops.exp(x @ w)))
    return total(first * second)


def scan_that_carries(x, w, b):
    def step(carry, row):
        return (ops.tanh(carry[0] @ w + row[0]),), (carry[0] * row[0] * b,)

    (last,), (rows,) = control.scan(step, [b], [x])
    return total(last) + total(rows)


def reverse_scan_with_a_branch(x, w, b):
    def step(carry, row):
        new = control.cond(total(carry[0]) > 0, lambda: ops.sin(carry[0]) @ w, lambda: ops.cos(carry[0]) * row[0])
        return (new, carry[1]), (new * new,)

    (last, kept), (rows,) = control.scan(step, [b, ops.reduce_sum(x, axes=(0,))], [x], reverse=True)
    return total(last * kept) + total(rows)


def scan_in_a_scan(x, w, b):
    def outer(carry, row):
        def inner(inside, line):
            return (ops.tanh(inside[0] * line[0] + carry[0]),), ()

        (found,), _ = control.scan(inner, [row[0]], [w])
        return (found,), ()

    (last,), _ = control.scan(outer, [b], [x])
    return total(last)


def called_three_times(x, w, b):
    builder = Builder.current()
    module = builder.function.module
    block = module.add_function("block", public=False)
    h = block.add_parameter(TensorType.of(f64, (symbol("S"), 3)), "h")
    kernel = block.add_parameter(TensorType.of(f64, (3, 3)), "kernel")
    with Builder(block.block) as inner:
        inner.finish([ops.silu(h @ kernel) + h])
    block.results = [Result()]
    for _ in range(3):
        (x,) = control.call_function(builder, block, [x, w])
    return total(x * b)


def stopped(x, w, b):
    return total(ops.stop_gradient(x) * x) + total(w * b)


LOSSES = [
    dense,
    without_own_gradient,
    branch_by_bool,
    branch_by_index,
    scan_that_carries,
    reverse_scan_with_a_branch,
    scan_in_a_scan,
    called_three_times,
]


def module_of(loss, types=TYPES):
    module = Module()
    function = module.add_function("loss")
    values = [function.add_parameter(type, name) for name, type in types.items()]
    with Builder(function.block) as builder:
        builder.finish([loss(*values)])
    function.results = [Result()]
    module.verify()
    return module


def drawn():
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape) for shape in ((5, 3), (3, 3), (3,))]


def value(module, arrays, entry="loss"):
    return interpret(module, *arrays, dtype="float64", entry=entry)


@pytest.mark.parametrize("loss", LOSSES)
def test_against_central_differences(loss):
    module = module_of(loss)
    differentiate(module, wrt=list(TYPES))
    module.verify()
    arrays = drawn()
    found, *gradients = value(module, arrays, "value_and_grad")
    np.testing.assert_allclose(found, value(module, arrays), rtol=1e-12)
    rng = np.random.default_rng(2)
    for i, gradient in enumerate(gradients):
        direction, step = rng.normal(size=arrays[i].shape), 1e-6
        ends = [
            value(module, [a + sign * step * direction if j == i else a for j, a in enumerate(arrays)])
            for sign in (1, -1)
        ]
        np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_joint_graph_is_text_and_canonicalises(loss):
    module = module_of(loss)
    differentiate(module, wrt=list(TYPES))
    assert str(parse(str(module))) == str(module)
    arrays = drawn()
    simplified = run_passes(module, "canonicalize", check=True)
    for before, after in zip(
        value(module, arrays, "value_and_grad"), value(simplified, arrays, "value_and_grad"), strict=True
    ):
        np.testing.assert_allclose(before, after, rtol=1e-12, atol=1e-12)


def test_gradient_of_a_gradient():
    module = module_of(lambda x, w, b: total(ops.sin(x) * b) * total(w))
    first = differentiate(module, wrt=["x"], name="first")
    outputs = first.outputs
    with Builder(first.block, first.block.terminator):
        squared = total(outputs[1] * outputs[1])
    from graphc.ir.rewriter import Rewriter

    with Rewriter() as rewriter:
        rewriter.set_operands(first.block.terminator, [squared])
    first.results = [Result()]
    differentiate(module, entry="first", wrt=["x"], name="second")
    module.verify()
    x, w, b = drawn()
    _, gradient = value(module, [x, w, b], "second")
    expected = -2 * np.cos(x) * np.sin(x) * b**2 * w.sum() ** 2
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)


def test_stop_gradient_and_what_is_not_reached():
    module = module_of(stopped)
    differentiate(module, wrt=["x", "b"])
    x, w, b = drawn()
    _, by_x, by_b = value(module, [x, w, b], "value_and_grad")
    np.testing.assert_allclose(by_x, x)
    np.testing.assert_allclose(by_b, w.sum(0))
    module = module_of(lambda x, w, b: total(x))
    differentiate(module, wrt=["w"])
    np.testing.assert_array_equal(value(module, [x, w, b], "value_and_grad")[1], np.zeros((3, 3)))


def test_what_cannot_be_differentiated_is_said():
    with pytest.raises(ShapeError, match=r"a gradient is of a real scalar"):
        differentiate(module_of(lambda x, w, b: x @ w))
    with pytest.raises(GraphcError, match=r"has no parameter 'y'; it has x, w, b"):
        differentiate(module_of(dense), wrt=["y"])
    types = TYPES | {"n": TensorType.of(i32, ())}
    with pytest.raises(GraphcError, match=r"a gradient is by floating-point parameters"):
        differentiate(module_of(lambda x, w, b, n: total(x), types), wrt=["n"])

    def loop(x, w, b):
        (last,) = control.while_loop(lambda v: total(v) < 10, lambda v: v * 2, [b])
        return total(last)

    with pytest.raises(UnsupportedError, match=r"while has no gradient without a bound on how often it runs"):
        differentiate(module_of(loop), wrt=["b"])
