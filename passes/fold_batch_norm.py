"""`fold_batch_norm`: batch normalizations of inference as part of the kernel before them."""

from __future__ import annotations

from graphc.ir.module import Module
from graphc.passes.quantization.batch_norm import fold_batch_norms
from graphc.passes.registry import register_pass


@register_pass("fold_batch_norm", finite=True)
def fold_batch_norm(module: Module) -> None:
    """Fold batch normalizations with stored statistics into the kernels of convolutions and products before them."""
    fold_batch_norms(module)
