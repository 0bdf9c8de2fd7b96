"""The guide to training is true: its code runs, its text of a step is what is printed, and its loops train from an
artifact where graphc cannot be imported."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The first and last loss that the guide's loop prints for a target, where graphc cannot be imported."""
    found = {}

    def losses(target):
        if target not in found:
            folder, names = tmp_path_factory.mktemp(target), {}
            with contextlib.chdir(folder):
                graphc.utils.clear_session()
                graphc.utils.set_random_seed(0)
                exec(code("model.compile("), names)
                exec(code('.save("step")').replace('"onnx"', repr(target)), names)
            loop = code("import onnxruntime") if target == "onnx" else code("from model import")
            before = f"import {target}\n" if target == "torch" else ""
            script = [sys.executable, "-c", WITHOUT + before + loop]
            ended = subprocess.run(script, capture_output=True, text=True, cwd=folder, timeout=120)
            assert ended.returncode == 0, ended.stderr
            found[target] = [float(loss) for loss in ended.stdout.split()]
        return found[target]

    return losses


@pytest.mark.parametrize("target", ["onnx", "torch", "jax"])
def test_an_artifact_trains_without_graphc(target, trained):
    """And as it trains on numpy: each step reads the weights that the one before has left."""
    needs(target)
    wanted = trained("numpy")
    assert wanted[1] < 0.9 * wanted[0]
    np.testing.assert_allclose(trained(target), wanted, rtol=1e-4)


def test_the_loop_over_onnxruntime_is_short():
    """About twenty lines, besides imports and data."""
    assert len(re.findall(r"^ *\S", code("import onnxruntime"), re.MULTILINE)) <= 26
