"""Runs the `.gir` files of this folder: each is a module, a pipeline on its `// RUN:` line, and CHECK lines that say
what comes out. The pipeline runs under `check`, so its meaning is compared as well."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser, pattern_for_opts

from graphc.ir.parser import parse
from graphc.passes.registry import run_passes

FOLDER = Path(__file__).parent
SECTION = "// -----\n"
"""Separates the modules of one file; each has a RUN line of its own."""


def sections() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted(FOLDER.glob("*.gir")):
        for number, text in enumerate(path.read_text().split(SECTION)):
            found.append((f"{path.stem}-{number}", text))
    return found


def check(text: str, output: str) -> str:
    """What filecheck complains of; empty when the CHECK lines of `text` match `output`."""
    options = Options("the test")
    matcher = Matcher(
        options, FInput("the output", output), Parser(options, io.StringIO(text), *pattern_for_opts(options))
    )
    matcher.stderr = io.StringIO()
    return "" if matcher.run() == 0 else matcher.stderr.getvalue() or "no match"


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in sections()])
def test_pass(text: str) -> None:
    (run,) = [line for line in text.splitlines() if line.startswith("// RUN:")]
    pipeline = run.removeprefix("// RUN:").strip()
    module = parse(text)
    module.verify()
    after = str(run_passes(module, pipeline, check=True))
    complaint = check(text, after)
    assert not complaint, f"{complaint}\n{after}"
    if pipeline == "canonicalize":
        assert str(run_passes(parse(after), pipeline)) == after, "canonicalize is no fixpoint"


def test_a_check_that_does_not_match_fails() -> None:
    assert check("// CHECK: transpose", "return %x\n")
    assert not check("// CHECK-NOT: transpose\n// CHECK: return", "return %x\n")
