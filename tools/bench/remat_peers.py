"""What PyTorch's own partitioner saves and computes again on the CPU, at fractions of its memory budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.tools.bench.remat_nets import torch_network

CONTRACTIONS = frozenset(
    {
        "attention",
        "conv",
        "convolution",
        "convolution_input_gradient",
        "convolution_kernel_gradient",
        "dot_general",
        "linear",
        "matmul",
    }
)
"""Ops whose FLOPs PyTorch's counter counts as well."""


@dataclass(frozen=True, slots=True)
class Partitioned:
    """Bytes saved for the backward part, and the FLOPs of its contractions."""

    budget: float
    saved_bytes: int
    backward_flops: int


def partitioned(name: str, size: int, budget: float) -> Partitioned:
    """Partition a network's loss at this fraction (`activation_memory_budget`): 1 saves everything, 0 nothing."""
    import torch
    import torch._functorch.config as config
    from torch._functorch.aot_autograd import aot_function
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which the counter does not know

    def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    loss, parameters, (x, labels) = torch_network(name, size)
    saved: list[int] = []
    flops: list[int] = []

    compile: Any = aot_function

    def forward(graph: Any, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            found = graph(*arguments)
            known = {a.untyped_storage().data_ptr() for a in arguments if isinstance(a, torch.Tensor)}
            storages = {
                t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for t in found[1:]
                if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in known
            }
            saved.append(sum(storages.values()))
            return found

        return run

    def backward(graph: Any, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            with FlopCounterMode(display=False, custom_mapping={attention: attention_flops}) as counter:
                found = graph(*arguments)
            flops.append(counter.get_total_flops())
            return found

        return run

    with config.patch(activation_memory_budget=budget):
        compiled = compile(loss, forward, backward, partition_fn=min_cut_rematerialization_partition)
        compiled(parameters, x, labels).backward()
    return Partitioned(budget, saved[0], flops[0])


__all__ = ["CONTRACTIONS", "Partitioned", "partitioned"]
