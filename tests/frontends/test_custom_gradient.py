"""`custom_gradient`: what it returns is the function's, its gradient is the one that is given, wherever it stands."""

import numpy as np
import pytest

import graphc
from graphc import layers, ops
from graphc.passes import run_passes

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


@graphc.custom_gradient
def stable(x):
    e = ops.exp(x)

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        return ops.multiply(upstream, 1.0 - 1.0 / ops.add(1, e))

    return ops.log(1 + e), gradient


@graphc.custom_gradient
def tripled(x, y):
    """A gradient that is not the derivative."""

    def gradient(dp, dq):
        return dp * 3.0 * y, dq * 5.0

    return (x * y, x + y), gradient


def total(x):
    return ops.sum(x)


def test_residuals_come_from_the_function():
    np.testing.assert_allclose(graphc.grad(lambda x: total(stable(x)))(X), 1 / (1 + np.exp(-X)), rtol=1e-5)
    np.testing.assert_allclose(stable(X), np.log1p(np.exp(X)), rtol=1e-5)
    second = graphc.grad(lambda x: total(graphc.grad(lambda x: total(stable(x)))(x) ** 2))(X)
    s = 1 / (1 + np.exp(-X))
    np.testing.assert_allclose(second, 2 * s * s * (1 - s), rtol=1e-4)


def test_several_arguments_and_outputs():
    by_x, by_y = graphc.grad(lambda x, y: total(tripled(x, y)[0] * 2.0) + total(tripled(x, y)[1]), (0, 1))(X, X + 1)
    np.testing.assert_allclose(by_x, 6 * (X + 1), rtol=1e-6)
    np.testing.assert_allclose(by_y, np.full_like(X, 5))


def loss(x):
    return total(stable(x) * x)


EXPECTED = X / (1 + np.exp(-X)) + np.log1p(np.exp(X))


@pytest.mark.parametrize("target", ["numpy", "onnx", "torch", "jax"])
def test_on_every_target(target):
    module = graphc.trace(graphc.value_and_grad(loss), graphc.Spec(("B", 3)))
    module.verify()
    assert "custom_gradient" in str(module)
    value, gradient = graphc.compile(module, target)(X)
    np.testing.assert_allclose(gradient, EXPECTED, rtol=1e-4)
    np.testing.assert_allclose(value, (np.log1p(np.exp(X)) * X).sum(), rtol=1e-4)


def test_on_openvino():
    @graphc.custom_gradient
    def scaled(x):
        doubled = x * 2.0
        return doubled * x, lambda dy: dy * doubled * 5.0

    module = graphc.trace(graphc.grad(lambda x: total(scaled(x))), graphc.Spec((2, 3)))
    np.testing.assert_allclose(graphc.compile(module, "openvino")(X), 10 * X, rtol=1e-5)


def test_survives_text_and_passes():
    module = graphc.trace(loss, graphc.Spec(("B", 3)))
    for changed in (graphc.parse(str(module)), run_passes(module, "inline,cse,dce,canonicalize", check=True)):
        changed.verify()
        assert "custom_gradient" in str(changed)
        (gradient,) = [graphc.interpret(graphc.grad(changed), X)]
        np.testing.assert_allclose(gradient, EXPECTED, rtol=1e-5)


def test_inside_regions():
    @graphc.custom_gradient
    def doubled(x):
        return x * 1.0, lambda dy: dy * 2.0

    def scanned(x, w):
        last, _ = ops.scan(lambda c, row: (doubled(c) * w + row, None), ops.zeros((3,)), x)
        return total(last)

    by_x = graphc.grad(scanned)(X, np.ones(3, np.float32))
    np.testing.assert_allclose(by_x, [[2, 2, 2], [1, 1, 1]])

    def branched(x):
        return ops.cond(total(x) > -1, lambda: total(doubled(x)), lambda: total(x))

    np.testing.assert_allclose(graphc.grad(branched)(X), np.full_like(X, 2))

    def repeated(x):
        return total(ops.while_loop(lambda v: total(v) < 100.0, lambda v: doubled(v), x, maximum_iterations=3))

    np.testing.assert_allclose(graphc.grad(repeated)(X), np.full_like(X, 8))


def test_nested_and_with_captures():
    scale = np.arange(100, dtype=np.float32).reshape(100)

    @graphc.custom_gradient
    def outer(x):
        inner = stable(x) * ops.sum(scale)

        def gradient(dy):
            return dy * inner

        return inner, gradient

    found = graphc.grad(lambda x: total(outer(x)))(X)
    np.testing.assert_allclose(found, np.log1p(np.exp(X)) * scale.sum(), rtol=1e-5)


class Clipped(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight((shape[-1],), "ones", name="scale")

    def call(self, x):
        @graphc.custom_gradient
        def clip(x, scale):
            return ops.clip(x * scale, -0.5, 0.5), lambda dy: (dy * scale, ops.sum(dy * x, axis=0))

        return clip(x, self.scale)


def test_in_layers_and_models():
    x = graphc.Input((3,))
    model = graphc.Model(x, stable(Clipped(name="clipped")(x)))
    module = graphc.value_and_grad(model, lambda y: ops.mean(y))
    module.verify()
    _, gradient = graphc.interpret(module, X)
    slope = 1 / (1 + np.exp(-np.clip(X, -0.5, 0.5))) / X.size
    np.testing.assert_allclose(gradient, (slope * X).sum(0), rtol=1e-5)
    for target in ("numpy", "torch"):
        np.testing.assert_allclose(graphc.compile(module, target)(X)[1], gradient, rtol=1e-4)


def test_mistakes():
    with pytest.raises(graphc.GraphcError, match=r"must return its outputs and a function for their gradient"):
        graphc.custom_gradient(lambda x: x)(X)
    wrong = graphc.custom_gradient(lambda x: (x, lambda dy: (dy, dy)))
    with pytest.raises(graphc.GraphcError, match=r"returned 2 values for 1 argument"):
        graphc.trace(wrong, graphc.Spec((3,)))
    shaped = graphc.custom_gradient(lambda x: (x, lambda dy: ops.sum(dy)))
    with pytest.raises(graphc.ShapeError, match=r"returns f32\[\] for an argument that is f32\[3\]"):
        graphc.trace(shaped, graphc.Spec((3,)))
