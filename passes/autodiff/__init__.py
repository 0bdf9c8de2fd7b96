"""Reverse-mode gradients as ordinary IR. Start at `joint.py`, the reverse walk; `regions.py` is for ops with bodies."""

from graphc.passes.autodiff.gradient import check_gradients, differentiate, gradients_in

__all__ = ["check_gradients", "differentiate", "gradients_in"]
