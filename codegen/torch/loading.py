"""Running an artifact's `nn.Module` on NumPy arrays, and reading and writing the weights it holds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphc.codegen.source.loading import SourceArtifact, SourceEntry
from graphc.codegen.target import Array, not_stored
from graphc.codegen.torch.arrays import to_numpy, to_torch
from graphc.codegen.torch.dialect import TorchDialect


class TorchEntry(SourceEntry):
    """A method of the module, called on tensors."""

    def from_numpy(self, array: Array) -> torch.Tensor:
        return to_torch(array)

    def to_numpy(self, results: Sequence[Any]) -> tuple[Array, ...]:
        return tuple(map(to_numpy, results))


class TorchArtifact(SourceArtifact):
    """A `model.py` with `nn.Module`s. Weights are its parameters and buffers, which are changed in place."""

    dialect = TorchDialect
    entry_class = TorchEntry

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        held: dict[str, torch.Tensor] = self.model.state_dict(keep_vars=True)
        self._tensors = {name: held[name].detach() for name in self.stored}

    def context(self) -> AbstractContextManager[Any]:
        return torch.no_grad()

    def read(self, name: str) -> Array:
        return to_numpy(self._tensor(name)).copy()

    def described(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        tensor = self._tensor(name)
        return tuple(tensor.shape), to_numpy(torch.empty(0, dtype=tensor.dtype)).dtype

    def replace(self, name: str, array: Array) -> None:
        self._tensor(name).copy_(to_torch(np.asarray(array)))

    def clear(self, names: Sequence[str]) -> None:
        self.changed = True
        for name in names:
            self._tensors[name].zero_()

    def _tensor(self, name: str) -> torch.Tensor:
        if name not in self._tensors:
            raise not_stored(name)
        return self._tensors[name]
