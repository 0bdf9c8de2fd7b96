"""`graphc.compile`: targets, the default target, passes, memory budgets, and what may be compiled."""

from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import codegen, config
from graphc.codegen.target import Target

NEG = "func @f(%x: f32[B, 1024] input) -> f32[B, 1024] {\n  %y = neg %x : f32[B, 1024]\n  return %y\n}"


class Absent(Target):
    """A target whose framework is nowhere installed."""

    name = "absent"
    extra = "absent_extra"
    modules = ("a_framework_that_is_not_there",)

    def supports(self, op):
        return True

    def write(self, module, folder):
        raise AssertionError("it is not installed")

    def load(self, folder):
        raise AssertionError("it is not installed")


@pytest.fixture
def absent(monkeypatch):
    found = codegen.targets() | {"absent": Absent()}
    monkeypatch.setattr(codegen, "_found", lambda: found)


@pytest.fixture(autouse=True)
def no_target_set(monkeypatch):
    monkeypatch.delenv("GRAPHC_TARGET", raising=False)
    yield
    config.set_target(None)


def test_the_default_target(monkeypatch):
    assert config.target() == "numpy"
    monkeypatch.setenv("GRAPHC_TARGET", "torch")
    assert config.target() == "torch"
    config.set_target("jax")
    assert config.target() == "jax"
    assert graphc.compile(graphc.parse(NEG)).target == "jax"
    config.set_target(None)
    assert config.target() == "torch"


def test_an_unknown_target_lists_those_there_are(monkeypatch):
    for attempt in (lambda: graphc.compile(graphc.parse(NEG), target="pytorch"), lambda: config.set_target("pytorch")):
        wanted = r"no target 'pytorch'; did you mean torch\? There are jax, .*torch"
        with pytest.raises(graphc.TargetError, match=wanted):
            attempt()
    monkeypatch.setenv("GRAPHC_TARGET", "tenserflow")
    with pytest.raises(graphc.TargetError, match="'tenserflow'"):
        graphc.compile(graphc.parse(NEG))


def test_a_target_that_is_not_installed_names_the_extra(absent):
    with pytest.raises(graphc.TargetError, match=r"'absent' is not installed: pip install 'graphc\[absent_extra\]'"):
        graphc.compile(graphc.parse(NEG), target="absent")
    info = graphc.targets()["absent"]
    assert not info.installed and info.versions == {}
    assert str(info) == "absent: not installed (pip install 'graphc[absent_extra]')"
    with pytest.raises(graphc.TargetError, match=r"pip install 'graphc\[absent_extra\]'"):
        _ = info.ops


def test_what_is_compiled_stays_as_it_is():
    module = graphc.parse(NEG)
    before = str(module)
    graphc.compile(module, passes="canonicalize,decompose")
    assert str(module) == before


@pytest.mark.parametrize(("budget", "fits"), [(4096 * 2, True), (4096 * 2 - 1, False), ("8KiB", True), ("8kB", False)])
def test_a_memory_budget_is_kept_or_refused(budget, fits):
    module = graphc.parse(NEG)
    if fits:
        graphc.compile(module, memory_budget=budget)
    else:
        with pytest.raises(graphc.GraphcError, match=r"@f needs at least 8 KiB \(with B = 1\); the memory budget is"):
            graphc.compile(module, memory_budget=budget)


@pytest.mark.parametrize("budget", ["lots", "1e9", 1.5, -1])
def test_a_budget_that_is_no_size(budget):
    with pytest.raises(graphc.GraphcError, match=f"{budget!r} is not a size; write bytes, or a size such as 512MiB"):
        graphc.compile(graphc.parse(NEG), memory_budget=budget)


def test_a_file_of_ir_compiles(tmp_path):
    (tmp_path / "neg.gir").write_text(NEG)
    np.testing.assert_array_equal(graphc.compile(tmp_path / "neg.gir")(np.ones((1, 1024))), -np.ones((1, 1024)))


PROGRAM = """
import graphc
from sibling import WIDTH

def traced():
    return graphc.trace(lambda x: x + 1, graphc.Spec(("B", WIDTH), "float32"))

number = 7

def failing():
    return [][1]

def misspelt():
    return graphc.layers.Dens(2)

small = graphc.Sequential([graphc.Input((4,)), graphc.layers.Dense(2)])
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "sibling.py").write_text("WIDTH = 3\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


def module_of(path: Path, entry: str | None = None):
    from graphc.runtime.sources import module_of

    return module_of(path, entry)


def test_a_program_runs_beside_its_siblings(program):
    assert str(module_of(program, "traced").main.inputs[0].type) == "f32[B, 3]"


def test_a_program_without_the_model_says_what_it_defines(program):
    with pytest.raises(graphc.GraphcError, match=r"program\.py defines no 'model'; it defines small .*--entry"):
        module_of(program)
    with pytest.raises(graphc.GraphcError, match=r"'number' in .*program\.py is of type int; it must be a model"):
        module_of(program, "number")


def test_a_failing_program_is_told_with_its_line(program):
    with pytest.raises(graphc.GraphcError, match=r"program\.py:11: IndexError: list index out of range"):
        module_of(program, "failing")
    with pytest.raises(graphc.GraphcError, match=r"no attribute 'Dens'; did you mean Dense\?$"):
        module_of(program, "misspelt")


def test_a_syntax_error_is_told_by_the_path_that_was_given(program, monkeypatch):
    monkeypatch.chdir(program.parent)
    program.write_text("model = = 3\n")
    with pytest.raises(graphc.GraphcError, match=r"^program\.py:1: invalid syntax"):
        module_of(Path("program.py"))
    program.write_text("import broken_sibling\n")
    program.with_name("broken_sibling.py").write_text("WIDTH = =\n")
    with pytest.raises(graphc.GraphcError, match=r"broken_sibling\.py:1: invalid syntax"):
        module_of(Path("program.py"))


def test_what_cannot_be_compiled():
    with pytest.raises(graphc.GraphcError, match=r"double is a plain function; give its inputs: graphc\.trace"):

        def double(x):
            return 2 * x

        graphc.compile(double)
    with pytest.raises(graphc.FormatError, match=r"there is no file .*nowhere\.gir"):
        graphc.compile("nowhere.gir")
    with pytest.raises(graphc.GraphcError, match=r"an entry is named for a \.py only"):
        module_of(Path("model.gir"), "forward")
