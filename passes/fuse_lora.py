"""`fuse_lora`: layers with low-rank adapters become blocks, for less to save and fewer, larger products.

Steps that a model records are fused already, before their gradients are taken; this is for modules from elsewhere.
"""

from __future__ import annotations

from graphc.ir.module import Module
from graphc.passes.lora.fuse import fuse_frozen
from graphc.passes.lora.join import join_weights
from graphc.passes.registry import register_pass


@register_pass("fuse_lora")
def fuse_lora(module: Module) -> None:
    """Fuse linear layers with adapters that read one input, and gated MLPs of them; their frozen kernels are joined.

    Functions with a backward part stay as they are: adapters are fused before gradients are taken.
    """
    for function in module.functions.values():
        fuse_frozen(module, function)
    join_weights(module)
