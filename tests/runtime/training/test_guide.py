"""The guide to training is true: its code runs, its text of a step is what is printed, and its loops train from an
artifact where graphc cannot be imported."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from artifacts import needs

import graphc

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "training.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
WITHOUT = "import sys\nsys.modules['graphc'] = None\n"


def code(words):
    """The block of Python that has these words."""
    return next(text for kind, text in BLOCKS if kind == "python" and words in text)


def test_the_guide(tmp_path, monkeypatch):
    """All blocks but the loops, in order."""
    needs("onnx")
    monkeypatch.chdir(tmp_path)
    graphc.utils.set_random_seed(0)
    printed, names = io.StringIO(), {}
    for kind, text in BLOCKS:
        if kind == "python" and "import onnxruntime" not in text and "from model import" not in text:
            with contextlib.redirect_stdout(printed):
                exec(compile(text, "training.md", "exec"), names)
    text = next(text for kind, text in BLOCKS if kind == "text")
    assert re.sub(r" training\.md:\d+", "", printed.getvalue()) == text
    assert names["history"].history["loss"][-1] < names["history"].history["loss"][0]
    assert (tmp_path / "step" / "manifest.json").is_file()


@pytest.mark.parametrize("target", ["onnx", "numpy", "torch", "jax"])
def test_an_artifact_trains_without_graphc(target, tmp_path, monkeypatch):
    needs(target)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code("model.compile("), names)
    exec(code('.save("step")').replace('"onnx"', repr(target)), names)
    loop = code("import onnxruntime") if target == "onnx" else code("from model import")
    before = f"import {target}\n" if target == "torch" else ""
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT + before + loop], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert found.returncode == 0, found.stderr
    first, last = map(float, found.stdout.split())
    assert last < 0.9 * first
