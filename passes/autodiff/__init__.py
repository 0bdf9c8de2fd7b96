"""Reverse-mode gradients as ordinary IR. Start at `joint.py`, the reverse walk; `regions.py` is for ops with bodies."""

from graphc.passes.autodiff.gradient import differentiate

__all__ = ["differentiate"]
