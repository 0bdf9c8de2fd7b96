"""`graphc.grad` and `graphc.value_and_grad`: of functions, modules and models, on arrays and on targets."""

import numpy as np
import pytest

import graphc
from graphc import layers, ops

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


def f(x, w):
    return ops.sum(ops.tanh(x) * w)


def test_functions_on_arrays():
    w = np.arange(3, dtype=np.float32)
    np.testing.assert_allclose(graphc.grad(f)(X, w), (1 - np.tanh(X) ** 2) * w, rtol=1e-5)
    value, (by_w, by_x) = graphc.value_and_grad(f, wrt=("w", 0))(X, w)
    np.testing.assert_allclose(value, f(X, w), rtol=1e-6)
    np.testing.assert_allclose(by_w, np.tanh(X).sum(0), rtol=1e-5)
    np.testing.assert_allclose(by_x, (1 - np.tanh(X) ** 2) * w, rtol=1e-5)
    assert by_w.dtype == np.float32
    np.testing.assert_allclose(graphc.grad(lambda x: x**3)(2.0), 12)
    np.testing.assert_allclose(graphc.grad(graphc.grad(lambda x: x**3))(2.0), 12)
    np.testing.assert_allclose(graphc.grad(lambda x: x)(2.0), 1)


def test_structures_and_numpy():
    def g(parts, k=1.0):
        return np.sum(parts["a"] * parts["b"][0]) * k

    found = graphc.grad(g)({"a": X, "b": [X * 2]}, k=3.0)
    np.testing.assert_allclose(found["a"], 6 * X)
    np.testing.assert_allclose(found["b"][0], 3 * X)


def test_a_gradient_is_by_the_argument_only():
    def outer(x):
        return ops.sum(graphc.grad(lambda y: ops.sum(y * x * y))(x))  # 2·y·x at y = x

    np.testing.assert_allclose(graphc.grad(outer)(X), 4 * X, rtol=1e-6)
    by_first, by_second = graphc.grad(lambda a, b: ops.sum(a * b * b), (0, 1))(X, X)
    np.testing.assert_allclose(by_first, X * X)
    np.testing.assert_allclose(by_second, 2 * X * X)


@pytest.mark.parametrize("target", ["numpy", "onnx", "torch", "jax"])
def test_traced_and_compiled(target):
    module = graphc.trace(graphc.grad(f, wrt=(0, 1)), graphc.Spec(("B", 3)), graphc.Spec((3,)))
    module.verify()
    w = np.arange(3, dtype=np.float32)
    by_x, by_w = graphc.compile(module, target)(X, w)
    np.testing.assert_allclose(by_x, (1 - np.tanh(X) ** 2) * w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(by_w, np.tanh(X).sum(0), rtol=1e-4, atol=1e-6)
    traced = graphc.trace(f, graphc.Spec(("B", 3)), graphc.Spec((3,)))
    np.testing.assert_allclose(graphc.compile(graphc.grad(traced, wrt="w"), target)(X, w), by_w, rtol=1e-6, atol=1e-6)
    assert list(traced.functions) == ["f"]


def network():
    x = graphc.Input((3,))
    y = layers.Dense(4, activation="tanh", kernel_regularizer="l2", name="first")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.Dropout(0.5)(y)
    frozen = layers.Dense(4, name="frozen")
    frozen.trainable = False
    y = frozen(y)
    unused = layers.Dense(2, name="unused")(y)
    return graphc.Model(x, [layers.Dense(2, name="last")(y), unused])


def test_a_model_in_inference_mode_without_regularisers():
    model = network()
    module = graphc.value_and_grad(model, lambda a, b: ops.mean(a * a))
    module.verify()
    assert list(module.entries) == ["value_and_grad"]
    weights = [w.path for w in model.trainable_weights]
    value, *gradients = graphc.compile(module)(X)
    assert len(gradients) == len(model.trainable_weights) == 8, weights
    assert [g.shape for g in gradients] == [w.shape for w in model.trainable_weights]
    first, _ = model(X)
    np.testing.assert_allclose(value, np.mean(first**2), rtol=1e-5)
    by_name = dict(zip([r.name for r in module.main.results][1:], gradients, strict=True))
    assert not any(np.any(g) for name, g in by_name.items() if "unused" in name)
    assert all(np.any(g) for name, g in by_name.items() if "unused" not in name)
    kernel = model.get_layer("last").kernel
    step, direction = 1e-2, np.ones(kernel.shape, np.float32)
    before = kernel.numpy()
    kernel.assign(before + step * direction)
    above = np.mean(model(X)[0] ** 2)
    kernel.assign(before - step * direction)
    below = np.mean(model(X)[0] ** 2)
    np.testing.assert_allclose(by_name["last_kernel_gradient"].sum(), (above - below) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("target", ["torch", "jax"])
def test_native_gradients_are_the_same(target):
    model = network()
    own = graphc.compile(graphc.value_and_grad(model, lambda a, b: ops.mean(a * a)), target)(X)
    native = graphc.compile(graphc.value_and_grad(model, lambda a, b: ops.mean(a * a), gradients="native"), target)
    assert "value_and_grad(" in native.source
    for one, other in zip(native(X), own, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_mistakes():
    with pytest.raises(graphc.ShapeError, match=r"a gradient is of a real scalar; \w+ returned f32\[2, 3\]"):
        graphc.grad(lambda x: x * 2)(X)
    with pytest.raises(graphc.ShapeError, match=r"the loss is f32\[B, 2\]"):
        graphc.value_and_grad(network(), lambda a, b: a)
    with pytest.raises(graphc.ShapeError, match=r"returns 2 results"):
        graphc.value_and_grad(network())
    with pytest.raises(graphc.DTypeError, match=r"argument 1 of f is i32\[3\]"):
        graphc.grad(f, wrt=1)(X, np.arange(3, dtype=np.int32))
    with pytest.raises(graphc.GraphcError, match=r"f has no argument 'v' in this call; it has x, w"):
        graphc.grad(f, wrt="v")(X, X)
    with pytest.raises(graphc.GraphcError, match=r"called on 2 arguments; there is no number 2"):
        graphc.grad(f, wrt=2)(X, X)
    module = graphc.trace(f, graphc.Spec((2, 3)), graphc.Spec((3,)))
    with pytest.raises(graphc.GraphcError, match=r"@f has no parameter 'v'; it has x, w"):
        graphc.grad(module, wrt="v")
    with pytest.raises(graphc.GraphcError, match=r"taken by 'ir' or by 'native', .* not by 'torch'"):
        graphc.grad(f, gradients="torch")
    with pytest.raises(graphc.UnsupportedError, match=r"only torch and jax have a gradient of their own"):
        graphc.compile(graphc.grad(module, gradients="native"), "numpy")


@pytest.mark.parametrize("make", [graphc.grad, graphc.value_and_grad])
def test_types_of_inputs_are_for_trace(make):
    with pytest.raises(graphc.GraphcError, match=rf"are for graphc.trace\(graphc.{make.__name__}\(f\), Spec"):
        make(f, graphc.Spec((3,), "float32"))
