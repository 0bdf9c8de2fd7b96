"""The JAX target: pure functions over a nested dict of weights, to be called as they are or through `jax.jit`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphc.codegen.jax.dialect import JaxDialect
from graphc.codegen.jax.memory import MEMORY
from graphc.codegen.source.loading import TreeArtifact
from graphc.codegen.source.support import can_write, check_inputs
from graphc.codegen.source.writer import write_source
from graphc.codegen.target import Array, Target
from graphc.ir.dtypes import ALL, i4, u4
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe
from graphc.passes.partition.ties import with_ties

DTYPES = ALL - {i4, u4}


class JaxTarget(Target):
    """`model.py` with functions over a parameter tree, and `model.safetensors`."""

    name = "jax"
    extra = "jax"
    modules = ("jax", "safetensors")
    memory = MEMORY

    def supports(self, op: Op) -> bool:
        return can_write(JaxDialect(), op, DTYPES)

    def write(self, module: Module, folder: Path) -> Mapping[str, Recipe]:
        with_ties(module)
        check_inputs(module, DTYPES, self.name)
        return write_source(module, JaxDialect(has_wide_types(module)), folder)

    def load(self, folder: Path) -> JaxArtifact:
        return JaxArtifact(folder)


class JaxArtifact(TreeArtifact):
    """A `model.py` in JAX. Weights are JAX's arrays, replaced by those that an entry returns."""

    dialect = JaxDialect

    def held(self, array: Array) -> Any:
        import jax

        with jax.enable_x64(True):  # which keeps the array's dtype, whatever that is
            return jax.numpy.array(array)


def has_wide_types(module: Module) -> bool:
    """Whether 64-bit types occur, which JAX has in its 64-bit mode only."""
    for function in module.functions.values():
        types = [p.type for p in function.parameters]
        types += [value.type for op in function.walk() for value in op.results]
        if any(t.dtype.bits == 128 or (t.dtype.bits == 64 and not t.dtype.is_complex) for t in types):
            return True
    return False


TARGET = JaxTarget()
