"""The generated pages are current, and what they say of an op is what its declaration says."""

from pathlib import Path

import pytest

from graphc import codegen
from graphc.tools import docs, reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(docs.PAGES))
def test_the_page_is_current(name):
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == docs.PAGES[name](), "out of date: python -m graphc.tools.docs"


def test_nothing_is_written_where_a_target_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr(type(codegen.targets()["onnx"]), "available", lambda self: False)
    monkeypatch.setattr(docs, "PAGES", {})
    assert docs.main() == 2
    assert "pip install 'graphc[onnx]'" in capsys.readouterr().err


def test_every_op_has_a_page_that_says_what_it_means():
    for definition in reference.all_ops().values():
        page = reference.page(definition)
        assert page.startswith(f"# {definition.name}\n")
        assert len(reference.summary_line(definition)) > 2, definition.name


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("add", "add(x, y)"),
        ("linear", "linear(x, kernel, bias=None)"),
        ("concat", "concat(*xs, axis: Axis)"),
        ("reduce_sum", "reduce_sum(x, *, axes: Axes, keepdims: bool = False)"),
    ],
)
def test_signatures(name, signature):
    assert reference.signature_text(reference.find_op(name)) == signature
