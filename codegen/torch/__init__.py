"""The PyTorch target: `nn.Module`s nested as the model's layers.

What deviates from the reference and is left so, for plain code: `F.gelu(inf)` is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphc.codegen.source.support import can_write, check_inputs
from graphc.codegen.source.writer import write_source
from graphc.codegen.target import Loaded, Target
from graphc.codegen.torch.attention import keep_logsumexp
from graphc.codegen.torch.dialect import TorchDialect
from graphc.codegen.torch.memory import MEMORY
from graphc.codegen.torch.native import make_differentiable
from graphc.ir.dtypes import bf16, bool_, c64, c128, f16, f32, f64, i8, i16, i32, i64, u8, u32
from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe
from graphc.passes.layout import layout
from graphc.passes.partition.groups import without_barriers
from graphc.passes.quantization.matching import match_conv, store_filters_first

DTYPES = frozenset({bool_, i8, i16, i32, i64, u8, u32, bf16, f16, f32, f64, c64, c128})
"""Of wider unsigned integers torch has storage, but hardly an op; `unsigned.py` has those of u32."""


class TorchTarget(Target):
    """`model.py` with `nn.Module`s, and `model.safetensors`."""

    name = "torch"
    extra = "torch"
    modules = ("torch", "safetensors")
    memory = MEMORY
    in_order = True

    def __init__(self) -> None:
        self.dialect = TorchDialect()

    def supports(self, op: Op) -> bool:
        return can_write(self.dialect, op, DTYPES)

    def prepare(self, module: Module) -> Module:
        make_differentiable(module, self.supports)
        keep_logsumexp(module, self.supports)
        store_filters_first(module)
        layout(module, channels_first=True)
        match_conv(module)
        return module

    def write(self, module: Module, folder: Path) -> Mapping[str, Recipe]:
        without_barriers(module)
        check_inputs(module, DTYPES, self.name)
        return write_source(module, self.dialect, folder)

    def load(self, folder: Path) -> Loaded:
        from graphc.codegen.torch.loading import TorchArtifact

        return TorchArtifact(folder)


TARGET = TorchTarget()
