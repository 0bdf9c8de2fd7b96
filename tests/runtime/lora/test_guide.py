"""The guide to adapters is true: its code runs and prints what it shows."""

import contextlib
import io
import re
from pathlib import Path

from artifacts import needs

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "lora.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_guide(tmp_path, monkeypatch):
    """All blocks in order; the text after one is what it prints."""
    for target in ("torch", "onnx"):
        needs(target)
    monkeypatch.chdir(tmp_path)
    names, printed = {}, ""
    for kind, text in BLOCKS:
        if kind == "python":
            lines = io.StringIO()
            with contextlib.redirect_stdout(lines):
                exec(compile(text, "lora.md", "exec"), names)
            printed = lines.getvalue()
        elif kind == "text":
            assert text == printed
    assert names["history"].history["loss"][-1] < names["history"].history["loss"][0]
    for path in ("french/adapter_config.json", "merged/merge_certificate.json", "merge.json", "served/choices.json"):
        assert (tmp_path / path).is_file(), path
