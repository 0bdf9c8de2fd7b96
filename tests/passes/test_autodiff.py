"""Gradients of whole functions against central differences in float64, along random directions."""

import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import bool_, f64, i32
from graphc.ir.errors import GraphcError, ShapeError, UnsupportedError
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.ops import control
from graphc.ir.parser import parse
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes import run_passes
from graphc.passes.autodiff import differentiate, gradients_in

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


def bounded_loop(x, w, b):
    """Stops after some of its rounds; the captured `w` is read in both regions."""
    found = control.while_loop(
        lambda i, v: ops.lt(total(v * v), 40.0 + total(w * 0.1)),
        lambda i, v: (i + 1, ops.tanh(v @ w) * 0.5 + v * 1.5),
        [ops.constant(value=0, dtype=i32), x],
        bound=8,
    )
    return total(found[1] * b)


def loop_of_no_round(x, w, b):
    (last,) = control.while_loop(lambda v: total(v * v) < 0.0, lambda v: v @ w, [x], bound=3)
    return total(last * ops.sin(last))


def loop_in_a_scan_with_flags(x, w, b):
    """Integer and bool carries beside the float one, a loop and a branch inside."""

    def step(carry, row):
        value, count, flag = carry
        grown = control.while_loop(
            lambda i, v: ops.lt(i, count),
            lambda i, v: (i + 1, ops.sin(v) * 1.1),
            [ops.constant(value=0, dtype=i32), value],
            bound=4,
        )[1]
        new = control.cond(flag, lambda: grown * row[0], lambda: grown + b)
        return (new, ops.minimum(count + 1, 3), ops.not_(flag)), (new, flag)

    start = [b, ops.constant(value=0, dtype=i32), ops.constant(value=True, dtype=bool_)]
    (last, _, _), (rows, flags) = control.scan(step, start, [x])
    return total(last @ w) + total(ops.select(ops.reshape(flags, shape=(B, 1)), rows, rows * rows))


def scan_of_no_step(x, w, b):
    empty = ops.slice(x, starts=[0, 0], limits=[0, 3])
    (last,), (rows,) = control.scan(lambda c, row: ((c[0] * row[0] @ w,), (c[0],)), [b], [empty])
    return total(last * b) + total(rows) + total(x * w[0])


def scan_by_a_symbolic_length(x, w, b):
    (last,), _ = control.scan(lambda c, _: ((ops.tanh(c[0] @ w) + b * 0.1,), ()), [b], length=B + 1)
    return total(last * last) + total(x)


def called_in_a_scan_in_a_branch(x, w, b):
    builder = Builder.current()
    block = builder.function.module.add_function("inner", public=False)
    h = block.add_parameter(TensorType.of(f64, (3,)), "h")
    k = block.add_parameter(TensorType.of(f64, (3, 3)), "k")
    with Builder(block.block) as inner:
        inner.finish([ops.tanh(h @ k) * h])
    block.results = [Result()]

    def branch():
        step = lambda c, row: (control.call_function(Builder.current(), block, [c[0] + row[0], w]), ())  # noqa: E731
        return control.scan(step, [b], [x])[0][0]

    return total(control.cond(total(x) > -100.0, branch, lambda: b))


def a_composite_without_gradient(x, w, b):
    return ops.einsum(x, ops.einsum(x, w, equation="bi,ij->bj") * b, equation="bi,bi->")


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
    bounded_loop,
    loop_of_no_round,
    loop_in_a_scan_with_flags,
    scan_of_no_step,
    scan_by_a_symbolic_length,
    called_in_a_scan_in_a_branch,
    a_composite_without_gradient,
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
    with Rewriter() as rewriter:
        rewriter.set_operands(first.block.terminator, [squared])
    first.results = [Result()]
    differentiate(module, entry="first", wrt=["x"], name="second")
    module.verify()
    x, w, b = drawn()
    _, gradient = value(module, [x, w, b], "second")
    expected = -2 * np.cos(x) * np.sin(x) * b**2 * w.sum() ** 2
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_of_a_gradient_through_regions(loss):
    """The gradient of Σ gradient · direction against central differences of it."""
    module = module_of(loss)
    first = differentiate(module, wrt=list(TYPES), name="first")
    outputs = first.outputs[1:]
    with Builder(first.block, first.block.terminator):
        terms = [total(ops.sin(value)) for value in outputs]
        summed = terms[0] + terms[1] + terms[2]
    with Rewriter() as rewriter:
        rewriter.set_operands(first.block.terminator, [summed])
    first.results = [Result()]
    differentiate(module, entry="first", wrt=list(TYPES), name="second")
    module.verify()
    arrays = drawn()
    _, *gradients = value(module, arrays, "second")
    rng = np.random.default_rng(3)
    directions, step = [rng.normal(size=a.shape) for a in arrays], 1e-6
    ends = [
        value(module, [a + s * step * v for a, v in zip(arrays, directions, strict=True)], "first") for s in (1, -1)
    ]
    declared = sum((g * v).sum() for g, v in zip(gradients, directions, strict=True))
    scale = 1 + sum(np.abs(g * v).sum() for g, v in zip(gradients, directions, strict=True))
    assert abs(declared - (ends[0] - ends[1]) / (2 * step)) <= 1e-6 * scale


@pytest.mark.parametrize("loss", LOSSES)
def test_in_a_block_that_is_still_recorded(loss):
    """Values that code holds from before stay valid, whatever became of the ops that gave them."""
    module = Module()
    function = module.add_function("step")
    values = [function.add_parameter(type, name) for name, type in TYPES.items()]
    with Builder(function.block) as builder:
        found = loss(*values)
        gradients = gradients_in(module, function.block, found, values)
        builder.finish([found * 2.0, *gradients, found])
    function.results = [Result() for _ in range(5)]
    module.verify()
    closed = module_of(loss)
    differentiate(closed, wrt=list(TYPES))
    expected = value(closed, drawn(), "value_and_grad")
    twice, *others, once = value(module, drawn(), "step")
    for one, other in zip([twice / 2, *others, once], [*expected, expected[0]], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_value_in_the_middle():
    """Gradients by values that ops give, and by what these depend on, at once."""
    module = Module()
    function = module.add_function("step")
    x = function.add_parameter(TensorType.of(f64, (3,)), "x")
    with Builder(function.block) as builder:
        y = ops.sin(x)
        z = y * y
        by_y, by_x, by_z = gradients_in(module, function.block, total(z * x), [y, x, z])
        builder.finish([by_y, by_x, by_z])
    function.results = [Result() for _ in range(3)]
    a = np.array([0.3, 1.0, -2.0])
    by_y, by_x, by_z = value(module, [a], "step")
    np.testing.assert_allclose(by_y, 2 * np.sin(a) * a)
    np.testing.assert_allclose(by_z, a)
    np.testing.assert_allclose(by_x, np.sin(a) ** 2 + 2 * np.sin(a) * np.cos(a) * a)


def test_a_broken_promise_is_an_error():
    module = module_of(
        lambda x, w, b: total(control.while_loop(lambda v: total(v) < 1e9, lambda v: v * 2.0, [b], 2)[0])
    )
    with pytest.raises(GraphcError, match=r"a while that is bound to 2 rounds goes on after them"):
        value(module, [np.ones(shape) for shape in ((5, 3), (3, 3), (3,))])


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


def test_stop_gradient_inside_regions_and_on_carries():
    def scanned(x, w, b):
        def step(carry, row):
            return (ops.stop_gradient(carry[0]) * row[0] + b,), ()

        (last,), _ = control.scan(step, [b], [x])
        return total(last)

    module = module_of(scanned)
    differentiate(module, wrt=["x", "b"])
    module.verify()
    x, w, b = drawn()
    _, by_x, by_b = value(module, [x, w, b], "value_and_grad")
    before = b.copy()
    for row in x[:-1]:
        before = before * row + b
    np.testing.assert_allclose(by_x[-1], before)
    assert not np.any(by_x[:-1])
    np.testing.assert_allclose(by_b, np.ones(3))

    def branched(x, w, b):
        return control.cond(total(x) > -100.0, lambda: total(ops.stop_gradient(x) * w[0]), lambda: total(x))

    module = module_of(branched)
    differentiate(module, wrt=["x", "w"])
    _, by_x, by_w = value(module, [x, w, b], "value_and_grad")
    assert not np.any(by_x)
    np.testing.assert_allclose(by_w[0], x.sum(0))


def test_integers_pass_no_gradient():
    def through(x, w, b):
        rows = ops.gather(x, ops.convert(ops.floor(b * 0.0), dtype=i32), axis=0)
        return total(rows * ops.convert(ops.convert(w, dtype=i32), dtype=f64)) + total(w * w)

    module = module_of(through)
    differentiate(module, wrt=["w", "b"])
    x, w, b = drawn()
    _, by_w, by_b = value(module, [x, w, b], "value_and_grad")
    np.testing.assert_allclose(by_w, 2 * w)
    assert not np.any(by_b)


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
