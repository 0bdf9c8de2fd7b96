"""The OpenVINO probe: a convolutional network in its own ops, what it refuses, and where it is known to deviate."""

from __future__ import annotations

import re

import numpy as np
import pytest
from artifacts import agrees, loaded

from graphc.codegen.artifact import read_manifest
from graphc.codegen.compiler import write_artifact
from graphc.ir.errors import FormatError, UnsupportedError
from graphc.ir.interpreter import interpret
from graphc.ir.parser import parse

pytest.importorskip("openvino")

RNG = np.random.default_rng(0)
NETWORK = """graphc-ir 1

weight "stem/kernel": f32[3, 3, 2, 4]
weight "stem/bias": f32[4]
weight "bn/mean": f32[4] = [0.1, 0.2, -0.1, 0]
weight "bn/variance": f32[4] = [1, 2, 0.5, 1]
weight "depthwise/kernel": f32[3, 3, 1, 4]
weight "head/kernel": f32[4, 3]

func @classify(
    %image: f32[B, S, 8, 2] input,
    %k: f32[3, 3, 2, 4] param "stem/kernel",
    %b: f32[4] param "stem/bias",
    %m: f32[4] state "bn/mean",
    %v: f32[4] state "bn/variance",
    %d: f32[3, 3, 1, 4] param "depthwise/kernel",
    %h: f32[4, 3] param "head/kernel"
) -> (scores: f32[B, 3], hidden: f32[B, (S + 1)//2, 4, 4]) {
  %0 = conv %image, %k, %b {strides = [2, 2], padding = "same"} : f32[B, (S + 1)//2, 4, 4] @ "stem"
  %1 = batch_norm %0, %m, %v, _, _ : f32[B, (S + 1)//2, 4, 4] @ "bn"
  %hidden = relu %1 : f32[B, (S + 1)//2, 4, 4] @ "bn"
  %2 = conv %hidden, %d, _ {padding = [[1, 1], [1, 1]], groups = 4} : f32[B, (S + 1)//2, 4, 4] @ "depthwise"
  %3 = max_pool %2 {window = [2, 2], strides = [1, 2], padding = "same"} : f32[B, (S + 1)//2, 2, 4]
  %4 = avg_pool %3 {window = [1, 2]} : f32[B, (S + 1)//2, 1, 4]
  %5 = reduce_mean %4 {axes = [1, 2]} : f32[B, 4]
  %6 = linear %5, %h, _ : f32[B, 3] @ "head"
  %7 = softmax %6 : f32[B, 3]
  return %7, %hidden
}
"""


def network():
    shapes = {"stem/kernel": (3, 3, 2, 4), "stem/bias": (4,), "depthwise/kernel": (3, 3, 1, 4), "head/kernel": (4, 3)}
    return parse(NETWORK, {name: RNG.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()})


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def unary(op: str, type: str, result: str | None = None) -> str:
    """A module of one op on %x: `relu`, or `reduce_max {axes = [0]}`."""
    name, _, attributes = op.partition(" ")
    return f"""graphc-ir 1
    func @f(%x: {type} input) -> ({result or type}) {{
      %0 = {name} %x {attributes} : {result or type}
      return %0
    }}
    """


# --- what it does -------------------------------------------------------------------------------------------------


def test_a_convolutional_network_with_symbolic_sizes(tmp_path):
    module = network()
    classify = loaded(module, "openvino", tmp_path / "a")["classify"]
    for batch, size in ((1, 5), (3, 8)):
        image = RNG.uniform(-1, 1, (batch, size, 8, 2)).astype(np.float32)
        for got, want in zip(classify(image), interpret(module, image), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_kernels_are_stored_as_openvino_has_them_with_a_recipe(tmp_path):
    module = network()
    write_artifact(module, "openvino", tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["manifest.json", "model.bin", "model.xml"]
    recipes = read_manifest(tmp_path / "a").weights
    for name, shape in (("stem/kernel", (4, 2, 3, 3)), ("depthwise/kernel", (4, 1, 1, 3, 3))):
        array = module.weights[name]
        stored = recipes[name].apply({name: array})
        assert stored.shape == shape
        assert np.array_equal(recipes[name].invert(stored)[name], array)


def test_names_are_the_models_and_files_the_same_each_time(tmp_path):
    for folder in ("a", "b"):
        write_artifact(network(), "openvino", tmp_path / folder)
    text = (tmp_path / "a/model.xml").read_text()
    assert text == (tmp_path / "b/model.xml").read_text()
    names = re.findall(r'<layer id="\d+" name="([^"]*)" type="(\w+)"', text)
    assert ("image", "Parameter") in names and ("stem/kernel", "Const") in names
    assert ("bn/relu", "ReLU") in names and ("depthwise/conv", "GroupConvolution") in names


@pytest.mark.parametrize("dtype", ["i8", "i16", "i32", "u8", "u16", "bool"])
def test_floats_saturate_as_integers(tmp_path, dtype):
    x = floats(1.9, -1.9, np.nan, np.inf, -np.inf, 3e9, -3e9, 300, 1e30, 2147483520, 0)
    agrees(unary(f"convert {{dtype = {dtype}}}", "f32[11]", f"{dtype}[11]"), "openvino", tmp_path / "a", x)


def test_integers_of_32_bits_wrap(tmp_path):
    text = """graphc-ir 1
    func @f(%x: i32[3] input, %y: i32[3] input) -> (i32[3], i32[3], i32[3]) {
      %0 = add %x, %y : i32[3]
      %1 = sub %x, %y : i32[3]
      %2 = mul %x, %y : i32[3]
      return %0, %1, %2
    }
    """
    big = np.array([2**31 - 1, -(2**31), 7], np.int32)
    agrees(text, "openvino", tmp_path / "a", big, np.array([2, 3, -9], np.int32))


# --- what it refuses ----------------------------------------------------------------------------------------------


def test_all_that_is_lacking_is_listed(tmp_path):
    text = """graphc-ir 1
    func @f(%x: f32[3] input, %n: i32[3] input) -> (f32[3], i32[3]) {
      %0 = sin %x : f32[3]
      %1 = erf %0 : f32[3]
      %2 = div %n, %n : i32[3]
      return %1, %2
    }
    """
    with pytest.raises(UnsupportedError) as caught:
        write_artifact(parse(text), "openvino", tmp_path / "a")
    for lacking in ("sin(f32[3])", "erf(f32[3])", "div(i32[3], i32[3])"):
        assert lacking in str(caught.value)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("type", ["i64[2]", "f64[2]", "bf16[2]", "c64[2]"])
def test_inputs_it_would_change_are_refused(tmp_path, type):
    text = f"graphc-ir 1\nfunc @f(%x: {type} input) -> ({type}) {{\n  return %x\n}}\n"
    with pytest.raises(UnsupportedError, match=r"openvino does not take 'x' of @f"):
        write_artifact(parse(text), "openvino", tmp_path / "a")


def test_updates_are_refused(tmp_path):
    text = """graphc-ir 1
    weight "w": f32[2] = [1, 2]
    func @f(%w: f32[2] param "w") -> (f32[2] updates %w) {
      %0 = add %w, %w : f32[2]
      return %0
    }
    """
    with pytest.raises(UnsupportedError, match=r"does not update weights yet, as @f does"):
        write_artifact(parse(text), "openvino", tmp_path / "a")


def test_a_broken_model_file_is_an_error(tmp_path):
    from graphc.codegen.openvino.loading import OpenvinoEntry

    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(FormatError, match=r"model\.xml is not a model that OpenVINO reads"):
        OpenvinoEntry(tmp_path / "model.xml", {})


# --- documented exceptions: a test that fails here calls for a better docstring, or says that OpenVINO was mended ----


def test_relu_drops_nan(tmp_path):
    (found,) = loaded(unary("relu", "f32[3]"), "openvino", tmp_path / "a")["f"](floats(np.nan, 1, -1))
    assert found.tolist() == [0, 1, 0]


def test_maximum_over_axes_drops_nan(tmp_path):
    text = unary("reduce_max {axes = [0]}", "f32[3]", "f32[]")
    (found,) = loaded(text, "openvino", tmp_path / "a")["f"](floats(1, np.nan, 2))
    assert found == 2


def test_softmax_keeps_nan_to_its_place(tmp_path):
    (found,) = loaded(unary("softmax", "f32[3]"), "openvino", tmp_path / "a")["f"](floats(np.nan, 1, 2))
    assert np.isnan(found[0]) and found[1:].tolist() == [0, 0]
