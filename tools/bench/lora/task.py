"""What is trained: sizes, random weights and tokens, the same in every process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Arrays = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]


@dataclass(frozen=True)
class Sizes:
    """A decoder, its adapters, and a batch of one row."""

    depth: int = 12
    width: int = 512
    heads: int = 8
    hidden: int = 1376
    vocabulary: int = 256
    places: int = 512
    rank: int = 16
    alpha: int = 32


RATE = 1e-3
"""The learning rate of plain SGD: what optimizers keep is not what is compared."""


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The weights by their names in transformers, kernels [out, in]."""
    width, hidden = sizes.width, sizes.hidden
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes.vocabulary, width)}
    for layer in range(sizes.depth):
        stem = f"model.layers.{layer}"
        found |= {f"{stem}.self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        found |= {f"{stem}.mlp.{name}_proj.weight": (hidden, width) for name in ("gate", "up")}
        found[f"{stem}.mlp.down_proj.weight"] = (width, hidden)
        found |= {f"{stem}.{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
    return found | {"model.norm.weight": (width,), "lm_head.weight": (sizes.vocabulary, width)}


def weights(sizes: Sizes) -> Arrays:
    """Random weights of the base."""
    rng = np.random.default_rng(0)
    return {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else rng.standard_normal(shape, np.float32) * np.float32(0.04)
        for name, shape in shapes(sizes).items()
    }


def factors(sizes: Sizes) -> Arrays:
    """Random A [r, in] and B [out, r] beside each kernel of the layers, by the kernel's name and `.a` or `.b`."""
    rng = np.random.default_rng(1)
    found: Arrays = {}
    for name, shape in shapes(sizes).items():
        if name.endswith("_proj.weight"):
            found[f"{name}.a"] = rng.standard_normal((sizes.rank, shape[1]), np.float32) * np.float32(0.02)
            found[f"{name}.b"] = rng.standard_normal((shape[0], sizes.rank), np.float32) * np.float32(0.02)
    return found


def tokens(sizes: Sizes) -> np.ndarray:
    """One row, with a token more than there are places."""
    return np.random.default_rng(2).integers(0, sizes.vocabulary, (1, sizes.places + 1)).astype(np.int32)
