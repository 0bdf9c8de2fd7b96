"""The main job, as a user does it: the command compiles the digits network, and what it wrote runs without graphc."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digits_cnn.py"
DATA = ROOT / "examples" / "digits_test.npz"

# Each runs in a process of its own where importing graphc fails, reads the artifact as its users would, and prints
# how many of the images are right and the worst difference from the stored logits at each batch size.
PRELUDE = """
import json, sys
sys.modules["graphc"] = None
import numpy as np
folder, data = sys.argv[1:]
data = np.load(data)
x, y, logits = data["x"], data["y"], data["logits"]
"""
POSTLUDE = """
report = {}
for batch in (1, 7, 450):
    got = np.concatenate([run(x[i : i + batch]) for i in range(0, len(x), batch)])
    report[batch] = [int((got.argmax(1) == y).sum()), float(abs(got - logits).max()), got.shape[0]]
print(json.dumps(report))
"""
IMPORT = """
import importlib.util
spec = importlib.util.spec_from_file_location("model", folder + "/model.py")
module = importlib.util.module_from_spec(spec)
sys.modules["model"] = module
spec.loader.exec_module(module)
"""
RUNNERS = {
    "numpy": IMPORT + "run = module.load()\n",
    "torch": IMPORT
    + "import torch\nmodel = module.load()\nassert isinstance(model, torch.nn.Module)\n"
    + "def run(batch):\n    with torch.no_grad():\n        return model(torch.from_numpy(batch)).numpy()\n",
    "jax": IMPORT + "import jax\nmodel = jax.jit(module.load())\nrun = lambda batch: np.asarray(model(batch))\n",
    "onnx": "import onnxruntime\nsession = onnxruntime.InferenceSession(folder + '/model.onnx')\n"
    + "(name,) = [i.name for i in session.get_inputs()]\nrun = lambda batch: session.run(None, {name: batch})[0]\n",
    "openvino": "import openvino\n"
    + "model = openvino.Core().compile_model(folder + '/model.xml', 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
    + "run = lambda batch: model(batch)[0]\n",
}


@pytest.fixture(scope="module", params=sorted(RUNNERS))
def artifact(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / request.param
    command = [sys.executable, "-m", "graphc.tools.command", "compile", str(EXAMPLE), "--target", request.param]
    done = subprocess.run([*command, "-o", str(folder)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return request.param, folder


def test_the_artifact_classifies_as_its_author_measured(artifact):
    target, folder = artifact
    script = PRELUDE + RUNNERS[target] + POSTLUDE
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(DATA)], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"1", "7", "450"}
    for batch, (right, difference, count) in report.items():
        assert count == 450
        assert right == 447, f"{target}, batch {batch}: {right} right"
        assert difference < 1e-4, f"{target}, batch {batch}: logits differ by {difference}"


def test_the_manifest_says_what_goes_in_and_out(artifact):
    target, folder = artifact
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["target"] == target
    (entry,) = manifest["entries"].values()
    (model_input,) = entry["inputs"]
    assert model_input["dtype"] == "float32" and model_input["shape"] == ["B", 8, 8, 1]
    (output,) = entry["outputs"]
    assert output["shape"] == ["B", 10]
    assert {"model.py", "model.safetensors"} <= set(manifest["files"]) or target in ("onnx", "openvino")


def test_the_files_hold_no_path_of_the_machine_that_wrote_them(artifact):
    _, folder = artifact
    for file in folder.iterdir():
        assert str(ROOT).encode() not in file.read_bytes(), file.name


def test_the_stored_data_is_what_its_description_says():
    data = np.load(DATA)
    assert data["x"].shape == (450, 8, 8, 1) and data["x"].dtype == np.float32
    assert (data["logits"].argmax(1) == data["y"]).sum() == 447
