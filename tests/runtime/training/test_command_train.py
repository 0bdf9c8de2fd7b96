"""`graphc train`: a network learns the digits from the command line; what it writes, prints and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import graphc
from graphc.tools.command import app
from graphc.tools.train import chosen_loss

DIGITS = Path(__file__).resolve().parents[3] / "examples" / "digits_test.npz"

MODEL = """
from graphc import Input, Sequential, layers

def network(out=10, activation=None):
    return Sequential([
        Input((8, 8, 1), name="image"),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
        layers.Dropout(0.1),
        layers.Dense(out, activation=activation, name="scores"),
    ])

model = network()
probable = network(activation="softmax")
compiled = network()
compiled.compile("sgd", "mse", metrics=["mae"], target="torch")
number = 3
"""


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    with np.load(DIGITS) as digits:
        np.savez("train.npz", x=digits["x_train"], y=digits["y_train"])
        np.savez("test.npz", image=digits["x"], y=digits["y"])
    return tmp_path


def printed(done):
    """The columns and the rows of the table, and the last line."""
    assert done.exit_code == 0, done.output
    head, *rows, last = done.stdout.splitlines()
    return head.split(), [[float(cell) for cell in row.split()] for row in rows], last


def accuracy(model):
    with np.load("test.npz") as test:
        return float((model(test["image"]).argmax(1) == test["y"]).mean())


def test_the_digits_are_learnt():
    done = run(
        *("model.py", "--data", "train.npz", "--validation", "test.npz"),
        *("--epochs", 8, "--learning-rate", 0.003),
    )
    head, rows, last = printed(done)
    assert head == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert [row[0] for row in rows] == list(range(1, 9)) and rows[-1][4] > 0.9
    assert last == "wrote model-trained.graphc, trained on numpy with the loss sparse_categorical_crossentropy"
    model = graphc.saving.load_model("model-trained.graphc")
    assert accuracy(model.predict) == pytest.approx(rows[-1][4], abs=1e-4)


@pytest.mark.parametrize("target", ["torch", "jax", "onnx"])
def test_an_artifact_is_written(target):
    done = run("model.py", "--data", "train.npz", "--epochs", 2, "--target", target, "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["target"] == target and found["output"] == "out" and len(found["epochs"]) == 2
    assert found["epochs"][1]["loss"] < found["epochs"][0]["loss"]
    assert accuracy(graphc.load_artifact("out")) > 0.4


def test_the_seed_decides():
    arguments = ["model.py", "--data", "train.npz", "--epochs", "1", "--validation-split", "0.2", "--json"]
    losses = [json.loads(run(*arguments, "--seed", seed).stdout)["epochs"][0]["loss"] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_a_run_goes_on_from_its_checkpoint():
    arguments = ["model.py", "--data", "train.npz", "--json"]
    whole = json.loads(run(*arguments, "--epochs", 3).stdout)
    weights = graphc.saving.load_model("model-trained.graphc").get_weights()
    kept = [*arguments, "--checkpoint", "run.safetensors"]
    assert run(*kept, "--epochs", 2).exit_code == 0
    assert "run.safetensors is there already; go on from it by --resume" in run(*kept, "--epochs", 3).stderr
    found = json.loads(run(*kept, "--epochs", 3, "--resume").stdout)
    assert [row["loss"] for row in found["epochs"]] == [row["loss"] for row in whole["epochs"]]
    for array, expected in zip(graphc.saving.load_model("model-trained.graphc").get_weights(), weights, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_model_that_was_trained_is_trained_on():
    assert run("model.py", "--data", "train.npz", "--epochs", 1, "-o", "first.graphc").exit_code == 0
    first = graphc.saving.load_model("first.graphc").optimizer
    done = run("first.graphc", "--data", "train.npz", "--epochs", 1, "-o", "second.graphc")
    assert printed(done)[2].endswith("with the loss of the file")
    second = graphc.saving.load_model("second.graphc")
    assert int(second.optimizer.iterations) == 2 * int(first.iterations) > 0 and accuracy(second) > 0.5
    done = run("first.graphc", "--data", "train.npz", "--loss", "mse")
    assert done.exit_code == 2 and "save it with include_optimizer=False to leave out how" in done.stderr


def test_a_compiled_model_is_honoured():
    with np.load("train.npz") as data:
        np.savez("rows.npz", arr_0=data["x"], arr_1=np.eye(10)[data["y"]])
    head, _, last = printed(run("model.py", "--data", "rows.npz", "--entry", "compiled", "--epochs", 1))
    assert head[1:3] == ["loss", "mae"] and last.endswith("trained on torch with the loss of the file")
    done = run("model.py", "--data", "rows.npz", "--entry", "compiled", "--loss", "mae")
    assert done.exit_code == 2 and "--loss is for models that are not compiled in their file" in done.stderr


@pytest.mark.parametrize(
    ("size", "activation", "y", "expected", "metric"),
    [
        (10, None, np.arange(10), ("sparse_categorical_crossentropy", True), "accuracy"),
        (10, "softmax", np.arange(10)[:, None], ("sparse_categorical_crossentropy", False), "accuracy"),
        (10, "softmax", np.eye(10), ("categorical_crossentropy", False), "accuracy"),
        (1, "sigmoid", np.array([0.0, 1.0]), ("binary_crossentropy", False), "accuracy"),
        (1, None, np.array([[0], [1]]), ("binary_crossentropy", True), "accuracy"),
        (1, None, np.array([0.5, 1.0]), ("mean_squared_error", None), None),
        (10, None, np.zeros((3, 10)), ("mean_squared_error", None), None),
    ],
)
def test_which_loss_is_meant(size, activation, y, expected, metric):
    model = graphc.Sequential([graphc.Input((4,)), graphc.layers.Dense(size, activation=activation)])
    loss, found = chosen_loss(model, y)
    assert (loss.name, loss.get_config().get("from_logits")) == expected
    assert (found is None) == (metric is None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("model.py --data none.npz", "there is no file none.npz"),
        ("none.py --data train.npz", "there is no file 'none.py'"),
        ("model.gir --data train.npz", "train takes a .py that defines a model, or a .graphc file"),
        ("model.py --data train.npz --entry modell", "model.py defines no 'modell'"),
        ("model.py --data train.npz --entry number", "must be a model"),
        ("model.py --data other.npz", "other.npz misses the input 'image' or 'x'; it holds 'z'"),
        ("model.py --data short.npz", "data differs in length: x has 3, y has 2\n  in short.npz"),
        ("model.py --data train.npz --optimizer adan", "no optimizer is called 'adan'; did you mean"),
        ("model.py --data train.npz --loss mae_", "no loss is called 'mae_'; did you mean mae"),
        ("model.py --data train.npz --metrics acc,nse", "no metric is called 'nse'; did you mean"),
        ("model.py --data train.npz --target tourch", "there is no target 'tourch'; did you mean torch"),
        ("model.py --data train.npz --resume", "name it by --checkpoint"),
        ("model.py --data train.npz --resume --checkpoint c.safetensors", "no checkpoint c.safetensors; without --res"),
        ("model.py --data train.npz --resume --checkpoint gone", "no checkpoint gone/latest.safetensors; without"),
        ("model.py --data train.npz -o t.keras", "no format .keras to write; t.graphc is a file with the model, and t"),
        ("model.py --data train.npz -o gone/t.graphc", "there is no folder"),
        ("model.py --data train.npz -o folder.graphc", "folder.graphc' is a folder; a file is to be written there"),
        pytest.param(
            "model.py --data train.npz -o /proc/t.graphc",
            "'/proc/t.graphc' could not be written",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc, where nobody can write"),
        ),
        ("model.py --data train.npz -o full", "full is there already and is not an artifact"),
        ("model.py --data train.npz -o train.npz/out", "train.npz"),
        ("model.py --data train.npz --validation-split 2", "validation_split is a share between 0 and 1"),
        ("model.py --data train.npz --validation test.npz --validation-split 0.1", "give either --validation or"),
        ("model.py --data wide.npz --epochs 1", "7"),
    ],
)
def test_mistakes_are_explained(arguments, message, monkeypatch):
    def train_nothing(*arguments, **options):
        raise AssertionError("trained")

    if "-o" in arguments or "--resume" in arguments:
        monkeypatch.setattr(graphc.Model, "fit", train_nothing)
    Path("folder.graphc").mkdir()
    Path("full").mkdir()
    Path("full", "notes.txt").write_text("mine")
    np.savez("other.npz", z=np.zeros(3))
    np.savez("short.npz", x=np.zeros((3, 8, 8, 1), np.float32), y=np.zeros(2, np.int64))
    np.savez("wide.npz", x=np.zeros((3, 8, 7, 1), np.float32), y=np.zeros(3, np.int64))
    done = run(*arguments.split())
    assert done.exit_code == 2, done.output
    assert message in done.stderr and "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 3
