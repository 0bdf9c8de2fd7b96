"""`remat`: the backward part computes forward values again instead of holding them.

Works on functions with a backward part, which are those that autodiff wrote; others stay as they are. Without options
it carries out what `graphc.remat` and `RematScope` marked. See `passes/partition/`.
"""

from __future__ import annotations

from typing import Literal

from graphc.ir.module import Module
from graphc.passes.options import ByteSize, Sizes
from graphc.passes.partition import remat as partition
from graphc.passes.registry import register_pass


@register_pass("remat")
def remat(
    module: Module,
    budget: ByteSize | None = None,
    sizes: Sizes | None = None,
    policy: Literal["marked", "everything", "nothing", "products"] = "marked",
    names: str = "",
    layers: str = "",
) -> None:
    """Compute forward values again for the backward part: within a `budget` of bytes, or by a policy.

    `budget` bounds the peak of live bytes beside parameters, at these `sizes` of the symbols (`{B:8}`; each as small as
    it may be by default), with the fewest FLOPs found. `names`: save what is tagged so only; `layers`: compute the
    inside of the layers again whose paths match (both lists separated by blanks). The policy `products` saves the
    fewest bytes without which no product runs again: norms and activations are computed again.
    Raises `GraphcError` that says the least possible for a budget that cannot be kept.
    """
    if budget is not None:
        partition.within_budget(module, budget, sizes or {})
    else:
        partition.by_policy(module, policy, names.split(), layers.split())
