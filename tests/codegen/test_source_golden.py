"""Emitted source that people would sign: golden files, fixpoints of the formatter, clean under the linter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from codegen_models import residual_network, training_step, transformer

import graphc
from graphc import layers
from graphc.codegen.compiler import write_artifact
from graphc.frontends import lower

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TARGETS = ("numpy", "torch", "jax")


def digits():
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from digits_cnn import model
    finally:
        sys.path.pop(0)
    return lower(model)


def mlp_train():
    image = graphc.Input((784,), name="image")
    x = layers.Dense(128, activation="relu", name="hidden")(image)
    model = graphc.Model(image, layers.Dense(10, name="logits")(x))
    loss = graphc.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(graphc.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    return model.training_module(np.zeros((2, 784), np.float32), np.zeros(2, np.int32))


def gpt_train():
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from gpt import gpt
    finally:
        sys.path.pop(0)
    model = gpt(layers=3, width=32, heads=2, context=16)
    model.compile(graphc.optimizers.Adam(1e-3), graphc.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model.training_module(np.zeros((2, 16), np.int32), np.zeros((2, 16), np.int32))


def lora():
    """Fine-tuning the two layers of a block in front of a head that is trained as it is."""
    x = graphc.Input((16,), name="x")
    y = layers.Dense(32, activation="relu", name="up")(x)
    y = layers.Dense(16, use_bias=False, name="down")(y)
    model = graphc.Model(x, layers.Dense(4, name="head")(x + y))
    model.add_adapter(r=2, alpha=4, targets="up,down", modules_to_save="head")
    model.compile("sgd", "mse")
    return model.training_module(np.zeros((2, 16), np.float32), np.zeros((2, 4), np.float32))


MODELS = {
    "lora": lora,
    "digits": digits,
    "residual": residual_network,
    "transformer": transformer,
    "training_step": training_step,
    "mlp_train": mlp_train,
    "gpt_train": gpt_train,
}
GOLDENS = [
    ("digits", "torch"),
    ("digits", "jax"),
    ("digits", "numpy"),
    ("residual", "torch"),
    ("residual", "jax"),
    ("transformer", "torch"),
    ("training_step", "torch"),
    ("lora", "torch"),
    ("mlp_train", "torch"),
    ("mlp_train", "numpy"),
    ("mlp_train", "jax"),
    ("gpt_train", "torch"),
    ("gpt_train", "numpy"),
    ("gpt_train", "jax"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    found = {}

    def emit(name, target):
        if (name, target) not in found:
            folder = tmp_path_factory.mktemp(name) / target
            write_artifact(MODELS[name](), target, folder)
            found[name, target] = (folder / "model.py").read_text()
        return found[name, target]

    return emit


@pytest.mark.parametrize(("name", "target"), GOLDENS)
def test_the_source_is_what_an_expert_would_write(name, target, source):
    path = GOLDEN / f"{name}_{target}.py"
    text = source(name, target)
    if os.environ.get("GRAPHC_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"run with GRAPHC_UPDATE_GOLDEN=1, and read what changes in {path.name}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_the_formatter_and_the_linter_have_nothing_to_say(name, target, source):
    text = source(name, target)
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--isolated", "--line-length", "120", "--target-version", "py311"]
    formatted = subprocess.run(
        [*ruff, "format", *settings, "-"], input=text, capture_output=True, text=True, check=True
    )
    assert formatted.stdout == text
    checks = ["--select", "E,F,I,UP,B,SIM,C4,PIE,RUF", "--ignore", "E501,RUF002"]
    done = subprocess.run([*ruff, "check", *settings, *checks, "-"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_module_gives_the_same_bytes(target, source, tmp_path):
    write_artifact(MODELS["transformer"](), target, tmp_path / "again")
    assert (tmp_path / "again" / "model.py").read_text() == source("transformer", target)


def test_the_digits_network_in_torch_has_five_lines_and_no_helper(source):
    text = source("digits", "torch")
    forward = text[text.index("def forward") :].split("\n\n")[0].splitlines()[1:]
    assert len(forward) == 5
    assert text.count("\ndef ") == 1 and text.count("permute") == 1
    for native in ("nn.Conv2d", "nn.BatchNorm2d", "nn.Linear", "F.max_pool2d"):
        assert native in text


def test_twelve_blocks_are_one_class_and_a_loop(source):
    text = source("residual", "torch")
    assert text.count("(nn.Module)") == 2
    assert "nn.ModuleList(Residual() for _ in range(12))" in text
    assert "for residual in self.residuals:\n            x = residual(x)" in text


def test_the_guide_shows_what_is_printed():
    guide = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```py\n(.*?)```", guide, re.DOTALL)
    printed = iter((GOLDEN / "gpt_train_torch.py").read_text(encoding="utf-8").splitlines())
    missing = [line for line in shown.splitlines() if line.strip() not in ("", "...") and line not in printed]
    assert not missing
