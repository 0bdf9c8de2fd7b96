"""The target itself: what it supports, how an artifact is written and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from graphc.codegen.target import Loaded, Target
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe


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

    def load(self, folder: Path) -> Loaded:
        from graphc.codegen.artifact import check_listed, read_manifest
        from graphc.codegen.openvino.loading import OpenvinoArtifact

        manifest = read_manifest(folder)
        files = {name: folder / file_name(name, number) for number, name in enumerate(manifest.entries)}
        check_listed(folder, manifest, *(file.name for file in files.values()))
        return OpenvinoArtifact(files, manifest)


def file_name(entry: str, number: int) -> str:
    """The main entry is `model.xml` (and `.bin`), each other one `model.<entry>.xml`."""
    return f"model.{entry}.xml" if number else "model.xml"
