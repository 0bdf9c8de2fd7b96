"""The rooms keep their walls: who imports whom, what `import graphc` costs, how long files get, what gets installed."""

import ast
import importlib
import json
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import graphc

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "ir": {"ir"},
    "frontends": {"frontends", "ir"},
    "passes": {"passes", "ir"},
    "codegen": {"codegen", "ir", "passes"},
    "runtime": {"runtime", "ir", "frontends", "passes", "codegen"},
    "tools": {"tools", "ir", "frontends", "passes", "codegen", "runtime"},
}
"""Room → the rooms it may import from. The public names in `graphc/` are for users: no room goes through them."""

FRAMEWORKS = {
    "torch",
    "jax",
    "jaxlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorflow",
    "triton",
    "keras",
    "transformers",
}

LONGEST_FILE = 600
LONGER_FILES: dict[str, str] = {}
"""File → why it is one subject all the same."""


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported_names(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything `source`, a module of `package`, imports: at its top, in a function, for types
    only, or by `import_module`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield node.lineno, alias.name
            case ast.ImportFrom():
                above = package.split(".")[: 1 - node.level or None] if node.level else []
                for alias in node.names:
                    yield node.lineno, ".".join([*above, *filter(None, [node.module]), alias.name])
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def forbidden_imports(room: str, source: str, package: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for line, name in imported_names(source, package):
        first, *rest = name.split(".")
        of_graphc = first == "graphc" and rest != ["__version__"]
        if first in MAY_IMPORT or (of_graphc and (not rest or rest[0] not in MAY_IMPORT[room])):
            found.append((line, name))
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = python_files(room)
    assert files
    wrong: list[str] = []
    for path in files:
        package = ".".join(["graphc", *path.relative_to(ROOT).parent.parts])
        for line, name in forbidden_imports(room, path.read_text(), package):
            wrong.append(f"{path.relative_to(ROOT)}:{line}: {room}/ may not import {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("from graphc.ir.types import TensorType", True),
        ("from ..ir import Module", True),
        ("from . import driver", True),
        ("from graphc import __version__", True),
        ("import numpy, graphc.ir", True),
        ("from graphc import parse", False),
        ("import graphc", False),
        ("from graphc.codegen import source", False),
        ("def f():\n    from ...graphc import codegen", False),
        ("from ..frontends import lower", False),
        ("from .. import runtime", False),
        ("import importlib\nimportlib.import_module('graphc.tools.command')", False),
        ("import ir.types", False),
        ("from tools import command", False),
    ],
)
def test_the_import_check_tells_right_from_wrong(statement: str, allowed: bool) -> None:
    assert (not forbidden_imports("passes", statement, "graphc.passes")) == allowed


@pytest.mark.parametrize("module", ["graphc", "graphc.ir", "graphc.runtime", "graphc.tools.command"])
def test_importing_loads_no_framework(module: str, tmp_path: Path) -> None:
    loaded = modules_after(f"import {module}", tmp_path)
    assert not loaded & FRAMEWORKS


def test_importing_graphc_loads_no_room_and_no_numpy(tmp_path: Path) -> None:
    loaded = modules_after("import graphc; dir(graphc)", tmp_path)
    assert not loaded & {"numpy", "scipy", "rich", "typer", *(f"graphc.{room}" for room in MAY_IMPORT)}


def modules_after(statement: str, folder: Path) -> set[str]:
    """The names of the modules that a fresh interpreter has loaded after `statement`."""
    program = f"{statement}\nimport json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_files_stay_readable() -> None:
    files = [ROOT / "setup.py", *python_files("graphc", *MAY_IMPORT, "tests", "examples", ".ci")]
    long = {str(path.relative_to(ROOT)) for path in files if len(path.read_text().splitlines()) > LONGEST_FILE}
    assert long == set(LONGER_FILES), "split what is longer, or list it with its reason; strike what is shorter again"


@pytest.mark.parametrize("name", graphc.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(graphc, name) is getattr(graphc, name)
    assert name in dir(graphc)


def test_public_modules_are_imported_under_their_short_names(tmp_path: Path) -> None:
    """Each is the module itself, and loaded once: a class has one identity however it is reached."""
    program = """
        from graphc.layers import Dense
        from graphc.optimizers.schedules import CosineDecay
        import graphc.layers.core, graphc.models
        import graphc, graphc.frontends.layers.core, graphc.runtime.training.schedules as schedules
        assert graphc.layers is graphc.frontends.layers and graphc.layers.core is graphc.frontends.layers.core
        assert graphc.layers.Dense is Dense and schedules.CosineDecay is CosineDecay
        assert graphc.layers.__spec__.name == graphc.layers.__name__ == "graphc.frontends.layers"
        for name in ("graphc.nothing", "graphc.layers.nothing"):
            try:
                __import__(name)
            except ModuleNotFoundError:
                continue
            raise AssertionError(name)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_the_kind'"):
        graphc.nothing_of_the_kind  # noqa: B018
    with pytest.raises(ImportError):
        exec("from graphc import nothing_of_the_kind")


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        (
            "layers",
            "BatchNorm",
            "module 'graphc.layers' has no attribute 'BatchNorm'; did you mean BatchNormalization?",
        ),
        ("layers", "LSTM", "module 'graphc.layers' has no attribute 'LSTM'; dir(graphc.layers) lists what there is"),
        ("optimizers", "Adamw", "module 'graphc.optimizers' has no attribute 'Adamw'; did you mean Adam or AdamW?"),
        ("", "Layers", "module 'graphc' has no attribute 'Layers'; did you mean Layer or layers?"),
    ],
)
def test_a_missing_name_is_told_by_public_names(module: str, name: str, message: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(getattr(graphc, module) if module else graphc, name)
    assert str(caught.value) == message


def test_type_checkers_are_told_the_same_public_names() -> None:
    (block,) = (
        node
        for node in ast.parse((ROOT / "graphc" / "__init__.py").read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    told = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(told) == sorted(set(graphc.__all__) - {"__version__"})
    for public, (module, name) in told.items():
        assert module is not None
        imported = importlib.import_module(module)
        value = getattr(imported, name, None) if module != "graphc" else importlib.import_module(f"graphc.{name}")
        assert value is getattr(graphc, str(public)), public


def test_all_of_every_room_is_installed() -> None:
    # Not `metadata.distribution`: it would find the graphc.egg-info that a build leaves in the source tree.
    (distribution,) = metadata.distributions(name="graphc", path=[sysconfig.get_path("purelib")])
    installed = {str(path) for path in distribution.files or ()}
    if "graphc/__init__.py" not in installed:
        pytest.skip("installed as editable: there are no copies to compare")
    tree = [path.relative_to(ROOT) for room in MAY_IMPORT for path in (ROOT / room).rglob("*") if path.is_file()]
    expected = {f"graphc/{path.as_posix()}" for path in tree if "__pycache__" not in path.parts}
    assert expected | {"graphc/py.typed"} <= installed
    assert distribution.metadata["Name"] == "graphc"
    assert distribution.version == graphc.__version__
