"""What weights take on disk: bytes and bits a weight, scales and zero points counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from graphc.ir.module import Module


@dataclass(frozen=True)
class StoredSize:
    """How much one weight of the source takes. `form` is its format, or the dtype of one that is not quantized."""

    name: str
    form: str
    elements: int
    bytes: int

    @property
    def bits(self) -> float:
        """Bits an element."""
        return 8 * self.bytes / self.elements if self.elements else 0.0


def stored_sizes(module: Module) -> list[StoredSize]:
    """The weights of a module as they are stored, those that are quantized under the source's name; tied ones once."""
    found: dict[str, StoredSize] = {}
    for weight in module.weights.entries():
        if weight.alias is not None:
            continue
        shape = tuple(size for size in weight.type.shape if isinstance(size, int))
        size = int(prod(shape) * weight.type.dtype.size)
        step = None if weight.recipe is None else weight.recipe.quantized
        if weight.recipe is None or step is None:
            found[weight.name] = StoredSize(weight.name, str(weight.type.dtype), prod(shape), size)
            continue
        name = weight.recipe.sources[0]
        before = found[name].bytes if name in found else 0
        found[name] = StoredSize(name, step.format, prod(step.shape), before + size)
    return list(found.values())


def bits_a_weight(sizes: Iterable[StoredSize]) -> float:
    """Bits an element of all of these together."""
    each = list(sizes)
    elements = sum(size.elements for size in each)
    return 8 * sum(size.bytes for size in each) / elements if elements else 0.0
