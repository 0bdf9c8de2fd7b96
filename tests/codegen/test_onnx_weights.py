"""Weights of ONNX artifacts: names and recipes, data files, and updates that stay in the runtime's memory."""

from __future__ import annotations

import numpy as np
import pytest
from artifacts import agrees, loaded

from graphc.codegen.artifact import read_manifest
from graphc.codegen.compiler import write_artifact
from graphc.codegen.onnx import OnnxTarget
from graphc.ir.interpreter import interpret
from graphc.ir.parser import parse

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)


def initializers(path):
    return {tensor.name: tensor for tensor in onnx.load(str(path), load_external_data=False).graph.initializer}


CONVOLUTION = """graphc-ir 1

weight "stem/kernel": f32[3, 3, 2, 4]
weight "head/kernel": f32[2, 2, 4, 1]

func @main(
    %image: f32[B, 5, 6, 2] input,
    %k: f32[3, 3, 2, 4] param "stem/kernel",
    %h: f32[2, 2, 4, 1] param "head/kernel"
) -> (f32[B, 4, 5, 1], f32[]) {
  %0 = conv %image, %k, _ {padding = "same"} : f32[B, 5, 6, 4] @ "stem"
  %1 = conv %0, %h, _ : f32[B, 4, 5, 1] @ "head"
  %2 = reduce_sum %h {axes = [0, 1, 2, 3]} : f32[]
  return %1, %2
}
"""


def convolution():
    kernels = {"stem/kernel": RNG.uniform(-1, 1, (3, 3, 2, 4)), "head/kernel": RNG.uniform(-1, 1, (2, 2, 4, 1))}
    return parse(CONVOLUTION, {name: kernel.astype(np.float32) for name, kernel in kernels.items()})


def test_kernels_are_stored_as_onnx_has_them_with_a_recipe(tmp_path):
    module = convolution()
    agrees(module, "onnx", tmp_path / "a", RNG.uniform(-1, 1, (2, 5, 6, 2)).astype(np.float32), roundings=64)
    stored = initializers(tmp_path / "a/model.onnx")
    assert list(stored["stem/kernel"].dims) == [4, 2, 3, 3]
    assert list(stored["head/kernel"].dims) == [2, 2, 4, 1]  # read otherwise too, so it stays as it is
    recipe = read_manifest(tmp_path / "a").weights["stem/kernel"]
    array = onnx.numpy_helper.to_array(stored["stem/kernel"])
    assert np.array_equal(recipe.invert(array)["stem/kernel"], module.weights["stem/kernel"])


def test_large_weights_are_in_a_file_of_their_own(tmp_path, monkeypatch):
    from graphc.codegen import _found

    monkeypatch.setitem(_found(), "onnx", OnnxTarget(external_above=1000))
    weight = RNG.uniform(-1, 1, (64, 8)).astype(np.float32)
    text = """graphc-ir 1
    weight "w": f32[64, 8]
    weight "b": f32[8] = [1, 2, 3, 4, 5, 6, 7, 8]
    func @main(%x: f32[B, 64] input, %w: f32[64, 8] param "w", %b: f32[8] param "b") -> (f32[B, 8]) {
      %0 = linear %x, %w, %b : f32[B, 8]
      return %0
    }
    """
    x = RNG.uniform(-1, 1, (3, 64)).astype(np.float32)
    agrees(parse(text, {"w": weight}), "onnx", tmp_path / "a", x, roundings=64)
    stored = initializers(tmp_path / "a/model.onnx")
    place = {entry.key: entry.value for entry in stored["w"].external_data}
    assert place == {"location": "model.onnx.data", "offset": "0", "length": str(weight.nbytes)}
    assert stored["b"].raw_data
    assert (tmp_path / "a/model.onnx.data").read_bytes() == weight.tobytes()
    assert "model.onnx.data" in read_manifest(tmp_path / "a").files
    onnx.checker.check_model(str(tmp_path / "a/model.onnx"), full_check=True)


def test_tied_weights_are_stored_once(tmp_path):
    text = """graphc-ir 1
    weight "embed": f32[3, 2] = [[1, 2], [3, 4], [5, 6]]
    weight "unembed": f32[3, 2] tied "embed"
    func @main(%i: i32[B] input, %e: f32[3, 2] param "embed", %u: f32[3, 2] param "unembed") -> (f32[B, 3]) {
      %0 = gather %e, %i : f32[B, 2]
      %1 = transpose %u {permutation = [1, 0]} : f32[2, 3]
      %2 = matmul %0, %1 : f32[B, 3]
      return %2
    }
    """
    agrees(text, "onnx", tmp_path / "a", np.array([2, 0, 1, 1], np.int32))
    assert [name for name in initializers(tmp_path / "a/model.onnx") if "embed" in name] == ["embed"]


# --- updates ------------------------------------------------------------------------------------------------------

SGD = """graphc-ir 1

weight "kernel": f32[2, 1] = [[0.5], [-1]]

func @train_step(
    %x: f32[B, 2] input,
    %y: f32[B, 1] input,
    %w: f32[2, 1] param "kernel"
) -> (loss: f32[], new: f32[2, 1] updates %w, before: f32[2, 1], norm: f32[]) {
  %0 = matmul %x, %w : f32[B, 1]
  %1 = sub %0, %y : f32[B, 1]
  %2 = square %1 : f32[B, 1]
  %loss = reduce_mean %2 {axes = [0, 1]} : f32[]
  %3 = transpose %x {permutation = [1, 0]} : f32[2, B]
  %4 = matmul %3, %1 : f32[2, 1]
  %rate = constant {value = 0.05} : f32[]
  %5 = mul %4, %rate : f32[2, 1]
  %new = sub %w, %5 : f32[2, 1]
  %two = constant {value = 2.0} : f32[]
  %before = mul %w, %two : f32[2, 1]
  %6 = square %w : f32[2, 1]
  %norm = reduce_sum %6 {axes = [0, 1]} : f32[]
  return %loss, %new, %before, %norm
}

func @predict(%x: f32[B, 2] input, %w: f32[2, 1] param "kernel") -> (f32[B, 1]) {
  %0 = matmul %x, %w : f32[B, 1]
  return %0
}
"""


def test_a_step_of_training_keeps_its_weight_in_the_runtime(tmp_path):
    """Each step reads what the last one wrote; results that read the old value get it; other entries see the new."""
    module = parse(SGD)
    entries = loaded(module, "onnx", tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["manifest.json", "model.onnx", "model.predict.onnx"]
    for step in range(7):
        x = RNG.uniform(-1, 1, (4 + step % 2, 2)).astype(np.float32)
        y = x @ np.array([[2.0], [1.0]], np.float32)
        old = module.weights["kernel"]
        loss, new, before, norm = interpret(module, x, y)
        found = entries["train_step"](x, y)
        assert len(found) == 3
        for got, want in zip(found, (loss, before, norm), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5)
        np.testing.assert_allclose(found[1], 2 * old, rtol=1e-5)
        module.weights.set("kernel", new)
        np.testing.assert_allclose(entries["predict"](x)[0], x @ new, rtol=1e-5, atol=1e-6)


def test_artifacts_that_are_loaded_twice_share_nothing(tmp_path):
    first = loaded(SGD, "onnx", tmp_path / "a")
    second = OnnxTarget().load(tmp_path / "a").entries
    x, y = np.ones((2, 2), np.float32), np.zeros((2, 1), np.float32)
    one = first["train_step"](x, y)[0]
    assert first["train_step"](x, y)[0] != one
    assert second["train_step"](x, y)[0] == one


def pointers(step):
    return step.state.current("kernel").value.data_ptr(), step.state.spare("kernel").value.data_ptr()


def test_no_buffer_is_read_and_written_in_one_run(tmp_path):
    step = loaded(SGD, "onnx", tmp_path / "a")["train_step"]
    x, y = np.ones((2, 2), np.float32), np.zeros((2, 1), np.float32)
    seen = set()
    for _ in range(4):
        current, spare = pointers(step)
        assert current != spare
        step(x, y)
        assert pointers(step) == (spare, current)
        seen |= {current, spare}
    assert len(seen) == 2 and len(step._bindings) == 2


def test_weights_may_change_places(tmp_path):
    text = """graphc-ir 1
    weight "a": f32[2] = [1, 2]
    weight "b": f32[2] = [3, 4]
    func @main(%a: f32[2] param "a", %b: f32[2] param "b") -> (f32[2] updates %b, f32[2] updates %a, sum: f32[2]) {
      %0 = sub %a, %b : f32[2]
      return %a, %b, %0
    }
    """
    swap = loaded(text, "onnx", tmp_path / "a")["main"]
    assert [swap()[0].tolist() for _ in range(3)] == [[-2, -2], [2, 2], [-2, -2]]


def test_updated_weights_have_a_default(tmp_path):
    """The bare model file runs without graphc: what is not fed has its stored value."""
    import onnxruntime

    write_artifact(parse(SGD), "onnx", tmp_path / "a")
    session = onnxruntime.InferenceSession(str(tmp_path / "a/model.onnx"))
    feeds = {"x": np.ones((1, 2), np.float32), "y": np.zeros((1, 1), np.float32)}
    loss, new = session.run(["loss", "new"], feeds)
    assert loss == pytest.approx(0.25)
    again, _ = session.run(["loss", "new"], {**feeds, "kernel": new})
    assert again < loss
