"""Gradients that the framework takes: what is outlined, that code which holds values may use them, and what is left."""

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.ir import ops as ir
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import f32
from graphc.ir.graph import Result
from graphc.ir.module import Module
from graphc.ir.types import TensorType
from graphc.passes import run_passes
from graphc.passes.autodiff import differentiate, gradients_in
from graphc.runtime.differentiation import grad

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
W = np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3)


def recorded(gradients):
    """A block that is still recorded when the gradient is taken, and goes on with values of the forward part."""
    module = Module()
    function = module.add_function("step")
    x = function.add_parameter(TensorType.of(f32, (symbol("B"), 3)), "x")
    w = function.add_parameter(TensorType.of(f32, (3, 3)), "w")
    unused = function.add_parameter(TensorType.of(f32, (3,)), "unused")
    with Builder(function.block) as builder:
        hidden = ir.tanh(ir.einsum(x, w, equation="bi,ij->bj"))
        average = ir.reduce_mean(hidden, axes=(0,))  # read later only, as new averages are
        stopped = ir.stop_gradient(hidden)
        loss = ir.reduce_sum(hidden * stopped * 2.0, axes=(0, 1))
        by_w, by_unused = gradients_in(module, function.block, loss, [w, unused], gradients=gradients)
        after = hidden + 1.0
        builder.finish([loss, by_w, by_unused, average, after])
    function.results = [Result() for _ in range(5)]
    module.verify()
    return module


def test_values_stay_valid_while_recording():
    own, native = recorded("ir"), recorded("native")
    assert "native_gradient" in str(native)
    expected = graphc.interpret(own, X, W, np.ones(3, np.float32))
    assert not np.any(expected[2])
    for module in (run_passes(native, "own_gradients"), run_passes(native, "canonicalize,own_gradients")):
        module.verify()
        for one, other in zip(graphc.interpret(module, X, W, np.ones(3, np.float32)), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    for target in ("torch", "jax"):
        exe = graphc.compile(native, target)
        for one, other in zip(exe(X, W, np.ones(3, np.float32)), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_what_nothing_reads_is_trimmed():
    module = run_passes(recorded("native"), "dce")
    module.verify()
    (op,) = [op for op in module.main.block if op.name == "native_gradient"]
    function = module.functions["loss"]
    assert len(function.results) == 2  # the loss, and what is read later
    assert len(op.results) == 3
    assert str(graphc.parse(str(module))) == str(module)


def test_the_function_holds_its_constants():
    module = recorded("native")
    constants = [op for op in module.functions["loss"].block if op.name == "constant"]
    assert len(constants) == 1


def test_it_cannot_be_interpreted_and_says_why():
    with pytest.raises(graphc.UnsupportedError, match=r"the pass own_gradients replaces it"):
        graphc.interpret(recorded("native"), X, W, np.ones(3, np.float32))
    with pytest.raises(graphc.UnsupportedError, match=r"native_gradient has no gradient"):
        module = graphc.trace(
            lambda x: ops.sum(grad(lambda x: ops.sum(ops.exp(x)), gradients="native")(x)), graphc.Spec((3,))
        )
        differentiate(module, wrt=["x"])


def test_recorded_by_graphc_gradients():
    """What `train_step` calls, with the recording told to leave gradients to the framework."""
    from graphc.frontends.recording import Recording
    from graphc.runtime.training.gradients import gradients

    found = {}
    for way in ("ir", "native"):
        recording = Recording(True)
        recording.gradients = way
        w = graphc.Variable(W, name="w")
        x = recording.function.add_parameter(TensorType.of(f32, (symbol("B"), 3)), "x")
        with recording.active(), Builder(recording.function.block) as builder:
            hidden = ops.tanh(ops.matmul(x, w))
            loss = ops.mean(hidden * hidden)
            (by_w,) = gradients(loss, [w])
            builder.finish([loss, by_w, builder.value(ops.mean(hidden))])
        recording.function.results = [Result() for _ in range(3)]
        recording.module.weights.add("w", W)
        recording.module.verify()
        found[way] = recording.module
    expected = graphc.interpret(found["ir"], X)
    for target in ("torch", "jax"):
        for one, other in zip(graphc.compile(found["native"], target)(X), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_size_that_only_an_input_binds():
    def fn(x, w):
        return grad(lambda w: ops.sum(ops.broadcast_to(w, x.shape) ** 2), gradients="native")(w)

    module = graphc.trace(fn, graphc.Spec(("B", 3)), graphc.Spec((3,)))
    module.verify()
    for target in ("torch", "jax"):
        np.testing.assert_allclose(graphc.compile(module, target)(X, X[0]), 4 * X[0], rtol=1e-6)
