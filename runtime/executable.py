"""Executables: an artifact folder, loaded and called. In process and exported it is the same folder."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import codegen
from graphc.codegen.artifact import MANIFEST, Entry, Manifest, atomic_folder, read_manifest, refresh_manifest
from graphc.codegen.target import EntryFunction, Loaded
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.graph import Function
from graphc.ir.suggestions import nearest
from graphc.runtime.signature import Binder, signature
from graphc.runtime.weights import ExecutableWeights

Array = np.ndarray[Any, Any]
SOURCE = "model.py"
CHOICES = "choices.json"
"""The file of an artifact that names the numbers of inputs."""


class EntryCall:
    """One entry of an artifact, to be called on NumPy arrays by position or by name."""

    def __init__(self, name: str, entry: Entry, run: EntryFunction, choices: Mapping[str, Sequence[str]] = {}) -> None:
        self.name = name
        self._choices = choices
        self.signature: Function = signature(name, entry)
        """A function without a body: the inputs and the guards."""
        self._binder = Binder(self.signature)
        self.outputs: tuple[str, ...] = tuple(port.name for port in entry.outputs if port.updates is None)
        """Names of what a call returns; the results that update a weight stay inside."""
        self._run = run

    def __call__(self, *arrays: Any, **named: Any) -> Array | tuple[Array, ...]:
        """One array, or a tuple of arrays when there are several results.

        Raises `GraphcError`, `ShapeError` or `DTypeError` for inputs that do not fit, before anything runs.
        """
        results = self._run(*self._binder.inputs(arrays, self._numbered(arrays, named)))
        return results[0] if len(results) == 1 else results

    def native(self, *arrays: Any, **named: Any) -> tuple[Any, ...]:
        """The results as the framework's own arrays (`torch.Tensor`, `jax.Array`, `OrtValue`), always in a tuple.

        A framework that computes behind the caller's back, as JAX does, is not waited for. Weights are updated as in
        a call. Raises as a call does.
        """
        return self._run.native(*self._binder.inputs(arrays, self._numbered(arrays, named)))

    def _numbered(self, arrays: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
        """Names of choices, such as adapters, as their numbers."""
        for name, known in self._choices.items():
            if name not in named and len(arrays) < len(self.signature.inputs):
                raise GraphcError(f"the call does not say which {name}: give {name}= one of {', '.join(known)}")
            given = named.get(name)
            if isinstance(given, str):
                if given not in known:
                    raise GraphcError(f"there is no {name} {given!r}{nearest(given, known)}")
                named[name] = np.int32(known.index(given))
            elif isinstance(given, (int, np.integer)) and not 0 <= given < len(known):
                raise GraphcError(f"there is no {name} {given}; there are {', '.join(known)}, 0 to {len(known) - 1}")
        return named

    def to_numpy(self, results: Sequence[Any]) -> tuple[Array, ...]:
        """What `native` returned, as NumPy arrays; waits for it where need be."""
        return self._run.to_numpy(results)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{p.name}: {p.type}" for p in self.signature.inputs)
        return f"<entry {self.name}({inputs})>"


class Executable:
    """A loaded artifact. Calling it runs its main entry; further entries are methods of their names.

    `temporary` folders are removed when the executable is no longer used, or when Python exits.
    """

    def __init__(self, folder: Path, temporary: bool = False) -> None:
        self.folder = Path(folder)
        if temporary:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.manifest: Manifest = read_manifest(self.folder)
        self.target: str = self.manifest.target
        self.loaded: Loaded = codegen.target(self.target).load(self.folder)
        self.choices: dict[str, list[str]] = read_choices(self.folder, self.manifest)
        """What may be given by name for an input, in order: the adapters of an artifact that has several."""
        self.entries: dict[str, EntryCall] = {
            name: EntryCall(name, entry, self.loaded.entries[name], self.choices)
            for name, entry in self.manifest.entries.items()
        }
        self.weights = ExecutableWeights(self.loaded, self.manifest)
        """What the target holds now, by the source's names and in its layout; see `ExecutableWeights`."""

    def __call__(self, *arrays: Any, **named: Any) -> Array | tuple[Array, ...]:
        """Run the main entry; see `EntryCall.__call__`."""
        return self.entry()(*arrays, **named)

    def entry(self, name: str | None = None) -> EntryCall:
        """The entry of this name, the main one by default. Raises `GraphcError` when there is none."""
        if name is None:
            return next(iter(self.entries.values()))
        if name not in self.entries:
            raise GraphcError(f"the artifact has no entry {name!r}; it has {', '.join(self.entries)}")
        return self.entries[name]

    def __getattr__(self, name: str) -> EntryCall:
        entries: dict[str, EntryCall] = self.__dict__.get("entries", {})
        if name in entries:
            return entries[name]
        raise AttributeError(f"an executable has no attribute {name!r}; its entries are {', '.join(entries) or 'none'}")

    @property
    def source(self) -> str:
        """The emitted code. Raises `GraphcError` for a target that writes a native graph."""
        path = self.folder / SOURCE
        if not path.is_file():
            raise GraphcError(
                f"the target {self.target!r} writes no source code; its files are {', '.join(self.manifest.files)}"
            )
        return path.read_text(encoding="utf-8")

    def save(self, folder: Path | str) -> None:
        """Write the artifact to `folder`, whole or not at all, with the weights as they are now.

        Where no entry updates weights and none was written, it is the folder that was compiled, byte for byte.
        """
        with atomic_folder(Path(folder)) as temporary:
            for name in (*self.manifest.files, MANIFEST):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / name, temporary / name)
            if self.loaded.changed:
                self.loaded.write_weights(temporary)
                refresh_manifest(temporary, self.manifest)

    def __repr__(self) -> str:
        return f"<Executable for {self.target}: {', '.join(map(repr, self.entries.values()))}>"


def read_choices(folder: Path, manifest: Manifest) -> dict[str, list[str]]:
    """Names for the numbers of inputs, from the file that lists them, if there is one. Raises `FormatError`."""
    if CHOICES not in manifest.files:
        return {}
    try:
        found = json.loads((folder / CHOICES).read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(f"{folder / CHOICES} cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in found.values()
    ):
        raise FormatError(f"{folder / CHOICES} does not list names")
    return found


def load_artifact(folder: Path | str) -> Executable:
    """The executable of an artifact folder, after checking that its files are as the manifest says.

    Load only artifacts that you trust: a source artifact's `model.py` is run. The digests in the manifest protect
    against damage, not against an attacker, who can change these as well.

    Raises `FormatError` for a folder that is no artifact or was altered, `TargetError` where its target is not
    installed.
    """
    return Executable(Path(folder))
