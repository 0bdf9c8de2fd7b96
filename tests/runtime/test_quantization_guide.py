"""The guide to quantization is true: its code runs and prints what it says, and so do the tools around it."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from artifacts import needs
from typer.testing import CliRunner

from graphc.tools.command import app

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "quantization.md").read_text(encoding="utf-8")


def test_the_guide() -> None:
    needs("torch")
    printed, names = io.StringIO(), {}
    for text in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        with contextlib.redirect_stdout(printed):
            exec(compile(text, "quantization.md", "exec"), names)
    assert printed.getvalue().splitlines() == [
        "float32",
        "True",
        "True ['hidden/kernel', 'out/kernel']",
        "True",
        "['stem/kernel', 'stem/bias', 'hidden/bias', 'out/bias']",
    ]


def test_inspect_says_what_weights_take() -> None:
    example = str(ROOT / "examples" / "digits_cnn.py")
    done = CliRunner().invoke(app, ["inspect", example, "--after", "quantize{format=int4}", "--format", "summary"])
    assert not done.exit_code, done.output
    assert "Weights on disk" in done.output
    assert re.search(r"int4\S*\s.*4\.58", done.output)
    plain = CliRunner().invoke(app, ["inspect", example, "--format", "summary"])
    assert "Weights on disk" not in plain.output


def test_the_digits_lose_no_more_than_a_third_of_a_point_in_int8() -> None:
    needs("onnx")
    pytest.importorskip("onnxruntime")
    from graphc.tools.bench.quantization import report

    lines: list[str] = []
    report(ROOT / "examples", "numpy", 3, lines.append)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    rows = [row for row in cells if "right, %" not in row and "---" not in row]
    accuracy = {(row[0], row[1]): float(row[2]) for row in rows if len(row) == 6}
    plain = accuracy.pop(("float32", "float32"))
    assert len(accuracy) == 12
    assert all(right >= plain - 0.3 for (weights, _), right in accuracy.items() if weights.startswith("int8"))
    beside = {row[0]: (float(row[1]), float(row[2])) for row in rows if len(row) == 5}
    assert beside["graphc's int8"][0] >= beside["onnxruntime's int8"][0] - 0.3
    assert beside["graphc's int8"][1] <= 1.1 * beside["onnxruntime's int8"][1]
