"""The target itself: what it supports, how an artifact is written and loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphc.codegen.target import EntryFunction, Target
from graphc.ir.errors import FormatError, UnsupportedError
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe

Array = np.ndarray[Any, Any]


class OpenvinoTarget(Target):
    """OpenVINO's own ops, on the CPU in float32. See the package's docstring for what deviates."""

    name: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "openvino"
    modules: ClassVar[tuple[str, ...]] = ("openvino",)

    def supports(self, op: Op) -> bool:
        from graphc.codegen.openvino.spelling import supports

        return supports(op)

    def prepare(self, module: Module) -> Module:
        """Channels first, as OpenVINO has it; what then only rearranges weights is done to the stored ones."""
        from graphc.codegen.openvino.graph import ELEMENT_TYPES
        from graphc.passes import run_passes

        refused = [
            f"{parameter.name!r} of @{function.name} ({parameter.type})"
            for function in module.entries.values()
            for parameter in function.parameters
            if parameter.type.dtype not in ELEMENT_TYPES
        ]
        if refused:  # what only hands it through has no op that would be refused
            raise UnsupportedError(f"the target openvino does not take {', '.join(refused)}")
        return run_passes(module, "layout,canonicalize,fold_weights")

    def write(self, module: Module, folder: Path) -> Mapping[str, Recipe]:
        import openvino

        from graphc.codegen.openvino.graph import ModelBuilder
        from graphc.codegen.openvino.spelling import SPELLING, wanted_layout

        recipes: dict[str, Recipe] = {}
        for number, function in enumerate(module.entries.values()):
            if any(result.updates is not None for result in function.results):
                raise UnsupportedError(f"the target openvino does not update weights yet, as @{function.name} does")
            model = ModelBuilder(SPELLING, wanted_layout).build(function, module.weights, recipes)
            path = folder / file_name(function.name, number)
            openvino.save_model(model, str(path), compress_to_fp16=False)
        return recipes

    def load(self, folder: Path) -> Mapping[str, EntryFunction]:
        from graphc.codegen.artifact import check_listed, read_manifest

        manifest = read_manifest(folder)
        files = {name: folder / file_name(name, number) for number, name in enumerate(manifest.entries)}
        check_listed(folder, manifest, *(file.name for file in files.values()))
        return {name: load_model(file) for name, file in files.items()}


def file_name(entry: str, number: int) -> str:
    """The main entry is `model.xml` (and `.bin`), each other one `model.<entry>.xml`."""
    return f"model.{entry}.xml" if number else "model.xml"


def load_model(path: Path) -> EntryFunction:
    """A model file as a function on arrays. Raises `FormatError` for one that OpenVINO does not read."""
    import openvino

    # The plugin would compute in bfloat16 where the CPU has it; a model file cannot forbid that.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        options["INFERENCE_NUM_THREADS"] = int(threads)
    try:
        model = openvino.Core().compile_model(str(path), "CPU", options)
    except RuntimeError as error:
        raise FormatError(f"{path} is not a model that OpenVINO reads: {error}") from None

    def run(*arrays: Array) -> tuple[Array, ...]:
        found = model([np.ascontiguousarray(array).reshape(np.shape(array)) for array in arrays])
        return tuple(np.array(found[i]) for i in range(len(model.outputs)))

    return run
