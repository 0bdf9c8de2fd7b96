"""The NumPy target, the embedded default: needs nothing but NumPy, SciPy and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphc.codegen.numpy.dialect import NumpyDialect
from graphc.codegen.numpy.memory import MEMORY
from graphc.codegen.source.loading import TreeArtifact
from graphc.codegen.source.support import can_write, check_inputs
from graphc.codegen.source.writer import write_source
from graphc.codegen.target import Array, Target
from graphc.ir.dtypes import ALL, i4, u4
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe
from graphc.passes.partition.groups import without_barriers

DTYPES = ALL - {i4, u4}


class NumpyTarget(Target):
    """`model.py` in NumPy and SciPy, and `model.safetensors`."""

    name = "numpy"
    modules = ("numpy", "scipy", "safetensors")
    memory = MEMORY
    in_order = True

    def __init__(self) -> None:
        self.dialect = NumpyDialect()

    def supports(self, op: Op) -> bool:
        return can_write(self.dialect, op, DTYPES)

    def write(self, module: Module, folder: Path) -> Mapping[str, Recipe]:
        without_barriers(module)
        check_inputs(module, DTYPES, self.name)
        return write_source(module, self.dialect, folder)

    def load(self, folder: Path) -> NumpyArtifact:
        return NumpyArtifact(folder)


class NumpyArtifact(TreeArtifact):
    """A `model.py` in NumPy."""

    dialect = NumpyDialect

    def held(self, array: Array) -> Array:
        return array.copy()


TARGET = NumpyTarget()
