"""Artifacts that somebody changed: refused with `FormatError`, and nothing of theirs runs."""

import hashlib
import json
import os
import py_compile

import numpy as np
import pytest

import graphc
from graphc.ir.errors import FormatError

MODEL = """
weight "dense/kernel" : f32[3, 2] = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]

func @main(%x: f32[B, 3] input, %y: f32[B, 2] input, %kernel: f32[3, 2] param "dense/kernel") -> (z: f32[B, 2]) {
  %0 = matmul %x, %kernel : f32[B, 2]
  %1 = add %0, %y : f32[B, 2]
  return %1
}
"""


OUTPUTS = [{"name": name, "dtype": "float32", "shape": ["B", 2]} for name in ("z", "extra")]


@pytest.fixture
def artifact(tmp_path, request):
    graphc.compile(graphc.parse(MODEL), target=getattr(request, "param", "numpy")).save(tmp_path / "a")
    return tmp_path / "a"


def changed(artifact, change):
    manifest = json.loads((artifact / "manifest.json").read_text())
    change(manifest)
    (artifact / "manifest.json").write_text(json.dumps(manifest))


def replaced(artifact, name, data):
    """Another file under a name, with the digest it should have."""
    (artifact / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    changed(artifact, lambda manifest: manifest["files"].update({name: digest}))


@pytest.mark.parametrize(
    ("artifact", "file"),
    [("numpy", "model.py"), ("numpy", "model.safetensors"), ("onnx", "model.onnx"), ("openvino", "model.xml")],
    indirect=["artifact"],
)
def test_a_file_that_the_manifest_does_not_list(artifact, file):
    changed(artifact, lambda manifest: manifest["files"].pop(file))
    with pytest.raises(FormatError, match=f"does not list {file}"):
        graphc.load_artifact(artifact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["entries"].clear(), "has no entry"),
        (lambda m: m["entries"].update(second=m["entries"]["main"]), "has no entry 'second'"),
        (lambda m: m["entries"]["main"]["inputs"][1].update(name="x"), "two inputs are named 'x'"),
        (lambda m: m["entries"]["main"]["inputs"][0].update(shape=[-5, 3]), "cannot be negative"),
        (lambda m: m["entries"]["main"]["inputs"][0].update(dtype="object"), "no such dtype"),
        (lambda m: m["files"].update({"../x": "0"}), "outside of the artifact"),
        (lambda m: m.update(target="onnx"), "does not list model.onnx"),
    ],
)
def test_a_manifest_that_does_not_fit(artifact, change, message):
    changed(artifact, change)
    with pytest.raises(FormatError, match=message):
        graphc.load_artifact(artifact)


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, "nothing", '{"format": "graphc-artifact 1"}'])
def test_what_is_no_manifest(artifact, text):
    (artifact / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match="is not a manifest"):
        graphc.load_artifact(artifact)


@pytest.mark.parametrize("artifact", ["numpy", "torch", "jax"], indirect=True)
def test_weights_that_are_broken(artifact):
    replaced(artifact, "model.safetensors", (artifact / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(FormatError, match="cannot be loaded"):
        graphc.load_artifact(artifact)


@pytest.mark.parametrize(("text", "message"), [(b"def (", "is not Python"), (b"x = 1", "no function `load`")])
def test_source_that_is_no_model(artifact, text, message):
    replaced(artifact, "model.py", text)
    with pytest.raises(FormatError, match=message):
        graphc.load_artifact(artifact)


@pytest.mark.parametrize("artifact", ["numpy", "torch", "jax"], indirect=True)
@pytest.mark.parametrize("outputs", [0, 2])
def test_a_call_returns_what_the_manifest_says(artifact, outputs):
    changed(artifact, lambda manifest: manifest["entries"]["main"].update(outputs=OUTPUTS[:outputs]))
    executable = graphc.load_artifact(artifact)
    with pytest.raises(FormatError, match=rf"model\.py returns 1 .*'main'.*manifest\.json has {outputs}"):
        executable(np.ones((1, 3), np.float32), np.zeros((1, 2), np.float32))


def test_bytecode_beside_the_source_is_not_run(artifact):
    """Python would take it for that of `model.py`, whose size and time it carries."""
    source = artifact / "model.py"
    text, times = source.read_bytes(), (source.stat().st_atime_ns, source.stat().st_mtime_ns)
    source.write_bytes(b"raise SystemExit".ljust(len(text)))
    os.utime(source, ns=times)
    py_compile.compile(str(source))
    source.write_bytes(text)
    os.utime(source, ns=times)
    executable = graphc.load_artifact(artifact)
    assert executable(np.ones((1, 3), np.float32), np.zeros((1, 2), np.float32)).shape == (1, 2)
