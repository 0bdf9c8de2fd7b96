"""Layers may be called anything: as Python's keywords, the framework's own members, or what is no identifier at all."""

import subprocess
import sys

import numpy as np
import pytest

import graphc
from graphc import Input, Model, layers

NAMES = [
    *("lambda", "None", "print", "self", "forward", "train", "training", "modules", "eval", "weight", "F", "jnp", "np"),
    *("take", "layer_norm", "Model", "Path", "load", "nested", "params", "__gate", "__init__", "_modules"),
    *("a-b.c d", "1st\\x", "ünï", "\ufb01", "x\u00b2", "\u09f4"),
]
QUOTED = ['a"""b', "c\\N{x}", "d\ne", "e'f", "{g}", "NAME", "OWNERS"]


class Gate(layers.Layer):
    """A layer of layers, which becomes a class or a function with a docstring."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.inner = layers.Dense(4, name="forward")

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="training")

    def call(self, x):
        return self.inner(x * self.gain)


def odd():
    graphc.utils.set_random_seed(1)
    x = Input((4,), name="class")
    y = x
    for name in NAMES:
        y = layers.Dense(4, name=name)(y)
    for name in QUOTED:
        y = Gate(name=name)(y)
    return Model(x, y, name="import")


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_names_are_no_trouble(target, tmp_path):
    model = odd()
    executable = graphc.compile(model, target=target)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    wanted = graphc.interpret(graphc.lower(model), x, dtype="float64")
    np.testing.assert_allclose(executable(**{"class": x}), wanted, atol=1e-5)
    if target != "onnx":
        path = tmp_path / "model.py"
        path.write_text(executable.source)
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", str(path)]
        found = subprocess.run(command, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


def test_what_a_name_holds_is_not_code():
    graphc.utils.set_random_seed(1)
    x = Input((4,))
    model = Model(x, Gate(name='"""\nraise SystemExit\n"""')(x))
    for target in ("numpy", "torch", "jax"):
        assert "\nraise" not in graphc.compile(model, target=target).source


@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_short_concatenations_stand_on_a_line(target):
    shape = graphc.Spec(("B", 2), "float32")
    source = graphc.compile(
        graphc.trace(lambda a, b: graphc.ops.concatenate([a, b], axis=-1), shape, shape), target
    ).source
    assert "([a, b], " in source


ENTRIES = """
weight "w" : f32[2] = [1.0, 2.0]

func @first(%x: f32[B, 2] input, %w: f32[2] param "w") -> f32[B, 2] {
  %0 = mul %x, %w : f32[B, 2]
  return %0
}

func @NAME(%x: f32[B, 2] input, %w: f32[2] param "w") -> f32[B, 2] {
  %0 = add %x, %w : f32[B, 2]
  return %0
}
"""


@pytest.mark.parametrize("name", ["forward", "train", "load", "params", "nested", "w", "second"])
@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_entries_may_be_called_anything(target, name):
    executable = graphc.compile(graphc.parse(ENTRIES.replace("NAME", name)), target=target)
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(executable(x), [[1, 2]] * 3)
    np.testing.assert_array_equal(executable.entry(name)(x), [[2, 3]] * 3)


HELPERS = """
weight "w" : f32[2] = [1.0, 2.0]

func @main(%x: f32[B, 2] input, %w: f32[2] param "w") -> f32[B, 2] {
  %0 = layer_norm %x, %w, _ {axes=[1]} : f32[B, 2]
  return %0
}

func @NAME(%x: f32[B, 2] input, %w: f32[2] param "w") -> f32[B, 2] {
  %0 = add %x, %w : f32[B, 2]
  return %0
}
"""


@pytest.mark.parametrize("name", ["layer_norm", "lax", "np", "torch", "load_file", "with_lists"])
@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_entries_may_be_called_as_helpers_and_imports(target, name):
    module = graphc.parse(HELPERS.replace("NAME", name))
    executable = graphc.compile(module, target=target)
    x = np.array([[1, 3]], np.float32)
    np.testing.assert_allclose(executable(x), graphc.interpret(module, x), atol=1e-5)
    np.testing.assert_array_equal(executable.entry(name)(x), [[2, 5]])
