"""Artifacts: folders with a manifest that says what is in them. Written whole or not at all, checked when loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from graphc.ir.dims import Size
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.graph import Function
from graphc.ir.module import Module, Weight
from graphc.ir.recipes import Recipe
from graphc.ir.types import TensorType

FORMAT = "graphc-artifact 1"
MANIFEST = "manifest.json"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of an entry. Sizes are integers or symbolic expressions as text; `updates` is a weight."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    updates: str | None = None

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        return out if self.updates is None else out | {"updates": self.updates}

    @staticmethod
    def from_json(data: Any) -> Port:
        shape = tuple(size if isinstance(size, int) else str(size) for size in data["shape"])
        return Port(str(data["name"]), str(data["dtype"]), shape, data.get("updates"))


@dataclass(frozen=True, slots=True)
class Entry:
    """What a caller passes and gets, the guards on its symbols as text, and the least sizes of those that may be 0."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    guards: tuple[str, ...] = ()
    minimums: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "inputs": [port.to_json() for port in self.inputs],
            "outputs": [port.to_json() for port in self.outputs],
            "guards": list(self.guards),
        }
        return out | {"minimums": dict(self.minimums)} if self.minimums else out

    @staticmethod
    def from_json(data: Any) -> Entry:
        inputs, outputs = (tuple(Port.from_json(port) for port in data[side]) for side in ("inputs", "outputs"))
        minimums = {str(symbol): int(least) for symbol, least in data.get("minimums", {}).items()}
        return Entry(inputs, outputs, tuple(str(guard) for guard in data["guards"]), minimums)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact holds. `weights`: stored name → recipe from the model's weights; `tied`: alias → weight."""

    target: str
    entries: dict[str, Entry]
    weights: dict[str, Recipe]
    tied: dict[str, str]
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "target": self.target,
            "entries": {name: entry.to_json() for name, entry in self.entries.items()},
            "weights": {name: recipe.to_json() for name, recipe in self.weights.items()},
            "tied": self.tied,
            "files": self.files,
        }


# --- writing ----------------------------------------------------------------------------------------------------


def check_replaceable(folder: Path) -> None:
    """Raise `GraphcError` for what stands at `folder`, unless it is an artifact or an empty folder."""
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / MANIFEST).is_file())):
        raise GraphcError(f"{folder} is there already and is not an artifact; it is not overwritten")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` once the block ends well, and vanishes otherwise.

    An artifact or an empty folder that stood there is replaced; anything else is refused with `GraphcError`.
    """
    folder = Path(folder)
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            os.replace(folder, old)
            os.replace(temporary, folder)
            shutil.rmtree(old)
        else:
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path, target: str, module: Module, stored: Mapping[str, Recipe] | None) -> Manifest:
    """Describe `module` and the files in `folder` in its manifest. `stored` is what `Target.write` returned."""
    table = module.weights
    if stored is None:
        stored = {weight.name: Recipe((weight.name,)) for weight in table.entries() if weight.alias is None}
    manifest = Manifest(
        target,
        {name: _entry(function) for name, function in module.entries.items()},
        {name: _from_source(module, recipe) for name, recipe in stored.items()},
        dict(_tied(weight, table.source(weight.name)) for weight in table.entries() if weight.alias is not None),
        {
            path.relative_to(folder).as_posix(): file_digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    )
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=2) + "\n", encoding="utf-8")
    return manifest


def _tied(weight: Weight, source: Weight) -> tuple[str, str]:
    """The names of a tied weight and of what it is tied to; those of the source's weights where both are quantized."""
    recipes = weight.recipe, source.recipe
    if all(recipe is not None and recipe.quantized is not None for recipe in recipes):
        return recipes[0].sources[0], recipes[1].sources[0]  # type: ignore[union-attr]
    return weight.name, weight.alias or source.name


def refresh_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest` into `folder` with the digests of the files as they are there now."""
    files = {name: file_digest(folder / name) for name in manifest.files}
    text = json.dumps(replace(manifest, files=files).to_json(), indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def write_weights(path: Path, arrays: Mapping[str, Array]) -> None:
    """Store arrays as safetensors, in rows and aligned whatever their layout in memory.

    Who may read the file is as for any other that is written there: safetensors' own may be read by its owner alone.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, str(path))
    path.chmod(mode)


def _entry(function: Function) -> Entry:
    inputs = tuple(_port(p.name, p.type) for p in function.inputs)
    outputs = tuple(
        _port(result.name or f"output_{i}", value.type, result.updates.weight if result.updates else None)
        for i, (result, value) in enumerate(zip(function.results, function.outputs, strict=True))
    )
    minimums = {symbol.name: symbol.minimum for symbol in function.symbols if symbol.minimum != 1}
    return Entry(inputs, outputs, tuple(map(str, function.guards)), minimums)


def _port(name: str, type: TensorType, updates: str | None = None) -> Port:
    return Port(name, str(type.dtype), tuple(_size(size) for size in type.shape), updates)


def _size(size: Size) -> int | str:
    return size if isinstance(size, int) else str(size)


def _from_source(module: Module, recipe: Recipe) -> Recipe:
    """The recipe from the source's weights, through the one that made the module's weight from them."""
    if len(recipe.sources) == 1 and recipe.sources[0] in module.weights:
        earlier = module.weights.source(recipe.sources[0]).recipe
        if earlier is not None:
            return Recipe(earlier.sources, (*earlier.steps, *recipe.steps), earlier.axis, earlier.splits)
    return recipe


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact, after checking that its files are there and unchanged.

    Raises `FormatError` for a folder that is no artifact, a file that is missing or altered, and a path that leads
    out of the folder.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise FormatError(f"{folder} is not an artifact: it has no {MANIFEST}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise FormatError(f"{path}: the format is {data['format']!r}; this version reads {FORMAT!r}")
        manifest = Manifest(
            str(data["target"]),
            {str(name): Entry.from_json(entry) for name, entry in data["entries"].items()},
            {str(name): Recipe.from_json(recipe) for name, recipe in data["weights"].items()},
            {str(name): str(weight) for name, weight in data["tied"].items()},
            {str(name): str(digest) for name, digest in data["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} is not a manifest: {type(error).__name__} {error}") from None
    if not manifest.entries:
        raise FormatError(f"{path} has no entry")
    for name, digest in manifest.files.items():
        _check_file(folder, name, digest)
    return manifest


def check_listed(folder: Path, manifest: Manifest, *names: str) -> None:
    """Raise `FormatError` for files that the manifest does not list: nothing says that they are the artifact's."""
    for name in names:
        if name not in manifest.files:
            raise FormatError(f"the manifest of {folder} does not list {name}")


def _check_file(folder: Path, name: str, digest: str) -> None:
    parts = PurePosixPath(name).parts
    inside = (
        parts and ".." not in parts and not PurePosixPath(name).is_absolute() and "\\" not in name and ":" not in name
    )
    path = folder / name
    if not inside or not path.resolve().is_relative_to(folder.resolve()):
        raise FormatError(f"{folder / MANIFEST} names the file {name!r}, which is outside of the artifact")
    if not path.is_file():
        raise FormatError(f"{folder} misses the file {name}")
    if file_digest(path) != digest:
        raise FormatError(f"{path} is not the file that was written: its SHA-256 differs from the manifest's")


def read_weights(path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file. Raises `FormatError` when it is broken."""
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} is not a safetensors file: {error}") from None
