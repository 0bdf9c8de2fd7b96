"""The `graphc` command, mostly in process; what it prints, refuses, and the status it ends with."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from graphc.tools.command import app

ROOT = Path(__file__).resolve().parents[2]

MODEL = """
from graphc import Input, Model, layers

x = Input((4,), name="x")
model = Model(x, layers.Dense(2, activation="relu", kernel_initializer="ones", name="head")(x))
"""
GUARDED = """
func @f(%x: f32[B] input, %y: f32[N] input) -> (z: f32[B]) where B == N {
  %z = add %x, %y : f32[B]
  return %z
}
"""


def graphc(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """What is said on stderr by a command that must end with status 2."""
    done = graphc(*arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) <= 3, "a mistake is said in a line or two"
    return done.stderr


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "guarded.gir").write_text(GUARDED)
    np.savez(tmp_path / "in.npz", x=np.ones((3, 4), np.float32))
    return tmp_path / "model.py"


@pytest.mark.parametrize("target", ["numpy", "onnx"])
def test_compile_writes_an_artifact(model, target):
    done = graphc("compile", model, "--target", target, "-o", "out")
    assert done.exit_code == 0 and done.stderr == ""
    assert done.stdout.startswith(f"wrote out for {target}: ")
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["target"] == target and manifest["entries"]["forward"]["inputs"][0]["shape"] == ["B", 4]


def test_compile_names_the_folder_after_source_and_target(model, monkeypatch):
    monkeypatch.setenv("GRAPHC_TARGET", "torch")
    found = json.loads(graphc("compile", model, "--json").stdout)
    assert found["folder"] == "model-torch" and found["manifest"]["target"] == "torch"
    assert Path("model-torch/model.py").is_file()


def test_compile_dumps_the_ir_after_every_stage(model):
    assert graphc("compile", model, "--passes", "cse,dce", "--dump-ir", "ir", "--check").exit_code == 0
    names = sorted(path.name for path in Path("ir").iterdir())
    assert names == ["00_lowered.gir", "01_cse.gir", "02_dce.gir", "03_prepare.gir", "04_legalize.gir"]
    assert graphc("inspect", "ir/00_lowered.gir").stdout == Path("ir/00_lowered.gir").read_text()


def test_compile_verifies_what_it_wrote(model):
    done = graphc("compile", model, "--verify", "-o", "out")
    assert done.exit_code == 0, done.output
    assert "numpy" in done.stdout and "÷ own error" in done.stdout


def test_what_was_quantized_is_verified_as_such(model):
    """What the format itself is off by is told apart, and is no fault."""
    options = "--passes", "canonicalize,quantize{format=int4},fold_weights"
    for command in (("compile", model, "--verify", "-o", "out"), ("verify", model, "--targets", "numpy")):
        done = graphc(*command, *options)
        assert done.exit_code == 0 and "FAILED" not in done.stdout, done.output
        assert "(quantize)" in done.stdout and "the model after `quantize`" in done.stdout
    found = json.loads(graphc(*command, *options, "--json").stdout)
    assert found["approximate"] == ["quantize"]
    assert found["by_design"][0]["max_abs"] > 1e-5 > found["rows"][0]["max_abs"]


def test_a_check_that_does_not_hold_is_status_1(model, monkeypatch):
    from graphc.tools import verification

    monkeypatch.setattr(verification, "FACTOR", 0.0)
    done = graphc("verify", model, "--targets", "numpy", "--html", "report.html")
    assert done.exit_code == 1 and "FAILED" in done.stdout
    assert "A check did not hold." in Path("report.html").read_text()


def test_inspect(model):
    text = graphc("inspect", model).stdout
    assert text.startswith("graphc-ir 1\n") and "relu" in text
    assert "dot_general" in graphc("inspect", model, "--after", "decompose").stdout
    table = graphc("inspect", model, "--format", "summary", "--size", "B=32").stdout
    assert "10 parameters" in table and "B = 32" in table and "linear" in table
    found = json.loads(graphc("inspect", model, "--format", "json").stdout)
    (function,) = found["functions"]
    assert found["parameters"] == found["trainable_parameters"] == 10
    assert function["ops"] == {"linear": 1, "relu": 1, "return": 1}
    assert function["sizes"] == {"B": 1} and function["flops"]["value"] == function["flops"]["value"] > 0
    assert function["weight_bytes"] == 40 and function["input_bytes"] == 16 and function["peak_bytes"] == 16


def test_run_a_model_and_an_artifact(model):
    done = graphc("run", model, "--inputs", "in.npz", "-o", "out.npz")
    assert done.exit_code == 0 and done.stdout == "head: float32[3, 2]\n"
    graphc("compile", model, "--target", "torch", "-o", "folder")
    again = graphc("run", "folder", "--inputs", "in.npz", "-o", "again.npz", "--json")
    assert json.loads(again.stdout) == {"head": {"dtype": "float32", "shape": [3, 2]}}
    np.testing.assert_allclose(np.load("again.npz")["head"], np.load("out.npz")["head"], rtol=1e-5)
    np.savez("ordered.npz", np.ones((3, 4), np.float32))
    assert graphc("run", model, "--inputs", "ordered.npz").exit_code == 0
    assert "is an artifact for 'torch', not for 'numpy'" in refused(
        "run", "folder", "--inputs", "in.npz", "--target", "numpy"
    )


def test_lists(model):
    assert "numpy" in graphc("targets").stdout
    assert "numpy" in json.loads(graphc("targets", "--json").stdout)
    assert "canonicalize" in graphc("passes").stdout
    assert "channels_first" in json.loads(graphc("passes", "--json").stdout)["layout"]["options"]
    assert "softmax" in graphc("ops").stdout
    assert json.loads(graphc("ops", "--json").stdout)["softmax"] == "softmax(x, *, axis: int = -1)"
    page = graphc("ops", "softmax").stdout
    assert "Exponentials normalised" in page and "- torch: native" in page
    assert json.loads(graphc("ops", "softmax", "--json").stdout)["tier"] == "composite"
    assert graphc("--version").stdout.startswith("graphc ")


def test_ops_says_which_targets_are_not_installed(model, monkeypatch):
    from graphc.codegen import targets

    onnx = type(targets()["onnx"])
    monkeypatch.setattr(onnx, "available", lambda self: False)
    monkeypatch.setattr(onnx, "supports", lambda self, op: pytest.fail("it needs what is not installed"))
    assert "- onnx: not installed (pip install 'graphc[onnx]')" in graphc("ops", "softmax").stdout
    assert json.loads(graphc("ops", "softmax", "--json").stdout)["targets"]["onnx"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "compile model.py --target pytorch",
            "there is no target 'pytorch'; did you mean torch? There are jax, numpy, onnx, ",
        ),
        ("compile nowhere.py", "there is no file 'nowhere.py'"),
        ("compile model.py --entry other", "model.py defines no 'other'; it defines model"),
        ("compile model.py --passes fold", "there is no pass 'fold'; did you mean fold_weights?"),
        ("compile model.py --memory-budget 20B", "needs at least 72 B (with B = 1); the memory budget is 20 B"),
        ("compile model.py --memory-budget much", "'much' is not a size"),
        ("compile model.py -o .", "is there already and is not an artifact"),
        ("inspect model.py --size B", "--size takes a symbol and a number, such as B=32, not 'B'"),
        ("inspect model.py --format summary --size Q=3", "the model has no symbol 'Q'; the symbols are B"),
        ("inspect in.npz", "cannot read 'in.npz'"),
        ("run model.py --inputs nowhere.npz", "there is no file nowhere.npz"),
        ("run model.py --inputs model.py", "model.py is not an .npz of plain arrays"),
        ("run model.py --inputs other.npz", "other.npz misses the input 'x' (f32[B, 4]); it holds 'z'"),
        ("run model.py --inputs wrong.npz", "input 'x' of @forward has shape [3, 5]; it must be [B, 4]"),
        ("run model.py --inputs flat.npz", "input 'x' of @forward has shape [4]; it must be [B, 4]"),
        ("run guarded.gir --inputs unequal.npz", "@f needs B == N, but it was called with B = 2, N = 3"),
        ("run . --inputs in.npz", ". is not an artifact: it has no manifest.json"),
        ("verify model.py --targets numpy,nothing", "there is no target 'nothing'"),
        ("ops softmx", "there is no op 'softmx'; did you mean softmax"),
    ],
)
def test_mistakes_are_explained(model, arguments, message):
    np.savez("other.npz", z=np.ones(3))
    np.savez("wrong.npz", x=np.ones((3, 5)))
    np.savez("flat.npz", x=np.ones(4))
    np.savez("unequal.npz", x=np.ones(2), y=np.ones(3))
    assert message in refused(*arguments.split())


def test_an_artifact_is_no_model(model):
    graphc("compile", model, "-o", "folder")
    assert "folder is an artifact: it runs (`graphc run`" in refused("inspect", "folder")


def test_a_truncated_npz_is_broken(model):
    Path("in.npz").write_bytes(Path("in.npz").read_bytes()[:100])
    assert "in.npz is not an .npz of plain arrays, or is broken" in refused("run", model, "--inputs", "in.npz")


def test_a_mistake_in_the_model_names_layer_and_line(model):
    model.write_text("from graphc import Input, layers\nlayers.Dense(2, name='head')(Input((), name='x'))\n")
    assert "head" in refused("inspect", model)


# --- as a process -----------------------------------------------------------------------------------------------


def run_process(*arguments):
    command = [sys.executable, "-m", "graphc.tools.command", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_as_a_process(model):
    done = run_process("compile", model, "-o", "out")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("wrote out for numpy: ")
    wrong = run_process("compile", model, "--target", "nothing")
    assert wrong.returncode == 2 and wrong.stdout == "" and "Traceback" not in wrong.stderr


def test_help_answers_at_once():
    def best(*command):
        """Seconds of computing, which other tests on the machine do not stretch as they do the time on the clock."""
        times = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(times)

    assert best("-m", "graphc.tools.command", "--help") - best("-c", "pass") < 0.2


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m graphc.tools.command ops | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1
