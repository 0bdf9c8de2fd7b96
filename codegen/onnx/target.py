"""The target itself: what it supports, how an artifact is written and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graphc.codegen.target import Loaded, Target
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Function, Op
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe

if TYPE_CHECKING:
    from onnx import ModelProto

    from graphc.codegen.onnx.weights import StoredWeights

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own ops."""

DATA_FILE = "model.onnx.data"


class OnnxTarget(Target):
    """ONNX's standard ops, for ONNX Runtime on the CPU.

    Weights of more than `external_above` bytes, and those that several entries share, are in a file of their own.
    """

    name: ClassVar[str] = "onnx"
    extra: ClassVar[str] = "onnx"
    modules: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime")

    def __init__(self, external_above: int = 1 << 30) -> None:
        self.external_above = external_above

    def supports(self, op: Op) -> bool:
        from graphc.codegen.onnx.spelling import supports

        return supports(op)

    def prepare(self, module: Module) -> Module:
        """Channels first, as ONNX has it; what then only rearranges weights is done to the stored ones."""
        from graphc.passes import run_passes
        from graphc.passes.quantization.matching import store_filters_first

        _refuse_complex(module)
        store_filters_first(module)
        return run_passes(module, "layout,canonicalize,fold_weights")

    def write(self, module: Module, folder: Path) -> Mapping[str, Recipe]:
        from graphc.codegen.onnx.weights import StoredWeights

        weights = StoredWeights.of(module)
        if weights.size > self.external_above or (len(module.entries) > 1 and weights.size):
            weights.data_file = folder / DATA_FILE
        for number, function in enumerate(module.entries.values()):
            model = write_function(function, weights)
            (folder / file_name(function.name, number)).write_bytes(model.SerializeToString())
        return weights.recipes

    def load(self, folder: Path) -> Loaded:
        from graphc.codegen.artifact import check_listed, read_manifest
        from graphc.codegen.onnx.session import OnnxArtifact

        manifest = read_manifest(folder)
        files = {name: folder / file_name(name, number) for number, name in enumerate(manifest.entries)}
        check_listed(folder, manifest, *(file.name for file in files.values()))
        return OnnxArtifact(folder, files, manifest)


def _refuse_complex(module: Module) -> None:
    """No kernel takes complex numbers, but what only hands them through has no op that would be refused."""
    found = [
        f"{parameter.name!r} of @{function.name} ({parameter.type})"
        for function in module.entries.values()
        for parameter in function.parameters
        if parameter.type.dtype.is_complex
    ]
    if found:
        raise UnsupportedError(f"the target onnx has no complex numbers: {', '.join(found)}")


def file_name(entry: str, number: int) -> str:
    """The main entry is `model.onnx`, each other one `model.<entry>.onnx`."""
    return f"model.{entry}.onnx" if number else "model.onnx"


def write_function(function: Function, weights: StoredWeights) -> ModelProto:
    """A function as a model. Its inputs are the function's and, where an entry updates weights, all weights, which have
    their stored value as a default. Its outputs are the function's results."""
    from onnx import ModelProto

    from graphc.codegen.onnx.graph import GraphWriter
    from graphc.codegen.onnx.spelling import SPELLING

    model = ModelProto(producer_name="graphc")
    model.graph.name = function.name
    graph = GraphWriter(model.graph, SPELLING)
    source = weights.module.weights.source
    for parameter in function.parameters:
        if parameter.weight is None:
            tensor = graph.add_input(parameter.value, parameter.name)
            graph.sizes.bind(tensor.name, parameter.type.shape)
    for parameter in function.parameters:
        if parameter.weight is not None:
            graph.add_weight(parameter.value, source(parameter.weight).name, weights)
    names = [graph.unique(name) for name in _result_names(function)]
    graph.function(function.block, names)
    graph.drop_unread_constants()
    if graph.needs_contrib:
        model.opset_import.add(domain=CONTRIB, version=1)
    # Opset 21 is as old as the ops here allow; BitCast came with 26.
    model.opset_import.add(version=26 if graph.needs_bitcast else 21)
    model.ir_version = 13 if graph.needs_bitcast else 10
    return model


def _result_names(function: Function) -> list[str]:
    return [
        result.name or (f"{result.updates.name}.updated" if result.updates else f"output_{i}")
        for i, result in enumerate(function.results)
    ]
