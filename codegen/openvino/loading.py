"""Runs artifacts on OpenVINO's CPU plugin. Weights are constants, which compiling a model folds and packs: writing one
compiles the models anew, at the next call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as opset

from graphc.codegen.artifact import Manifest
from graphc.codegen.target import Array, EntryFunction, Loaded, not_stored
from graphc.ir.errors import FormatError


def options() -> dict[str, Any]:
    """How models are compiled. The plugin would compute in bfloat16 where the CPU has it, which no file can forbid."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    limit = {"INFERENCE_NUM_THREADS": int(threads)} if threads.isdecimal() else {}
    return {"INFERENCE_PRECISION_HINT": "f32", **limit}


class OpenvinoEntry(EntryFunction):
    """A model file, compiled when it is first called. Raises `FormatError` for one that OpenVINO does not read."""

    def __init__(self, path: Path, names: Mapping[str, object]) -> None:
        try:
            self.model: Any = openvino.Core().read_model(str(path))
            self.compiled: Any = openvino.Core().compile_model(self.model, "CPU", options())
        except RuntimeError as error:
            raise FormatError(f"{path} is not a model that OpenVINO reads: {error}") from None
        self.constants: dict[str, Any] = {
            op.get_friendly_name(): op
            for op in self.model.get_ops()
            if op.get_type_name() == "Constant" and op.get_friendly_name() in names
        }

    def native(self, *arrays: Array) -> tuple[Any, ...]:
        if self.compiled is None:
            self.compiled = openvino.Core().compile_model(self.model, "CPU", options())
        found = self.compiled([np.ascontiguousarray(array).reshape(np.shape(array)) for array in arrays])
        return tuple(np.array(found[i]) for i in range(len(self.compiled.outputs)))

    def to_numpy(self, results: Sequence[Any]) -> tuple[Array, ...]:
        return tuple(results)

    def replace(self, name: str, array: Array) -> None:
        """Put another constant in the place of a weight."""
        new = opset.constant(array.copy())
        new.set_friendly_name(name)
        self.constants[name].output(0).replace(new.output(0))
        self.constants[name] = new
        self.compiled = None


class OpenvinoArtifact(Loaded):
    """The model files of an artifact by entry, each with the weights it reads."""

    def __init__(self, files: Mapping[str, Path], manifest: Manifest) -> None:
        self.files = files
        self._names = dict.fromkeys(manifest.weights)
        self._models = {name: OpenvinoEntry(path, self._names) for name, path in files.items()}
        self.entries = self._models

    @property
    def stored(self) -> Sequence[str]:
        return list(self._names)

    def read(self, name: str) -> Array:
        return np.array(self._constant(name).data)

    def described(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        data = self._constant(name).data
        return data.shape, data.dtype

    def replace(self, name: str, array: Array) -> None:
        for model in self._models.values():
            if name in model.constants:
                model.replace(name, array)

    def write_weights(self, folder: Path) -> None:
        for entry, model in self._models.items():
            openvino.save_model(model.model, str(folder / self.files[entry].name), compress_to_fp16=False)

    def _constant(self, name: str) -> Any:
        for model in self._models.values():
            if name in model.constants:
                return model.constants[name]
        raise not_stored(name)
