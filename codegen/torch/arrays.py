"""NumPy arrays to torch tensors and back; NumPy lacks bfloat16, so its bits are passed."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch


def to_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor over the memory of the array; a copy of one that is read only or runs backwards, which torch lacks."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if not array.flags.writeable:
        return torch.from_numpy(np.array(array))
    try:
        return torch.from_numpy(array)
    except ValueError:  # negative strides
        return torch.from_numpy(array.copy())


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """An array over the tensor's memory where that is on the CPU."""
    if tensor.requires_grad or tensor.is_complex() or not tensor.is_cpu:
        tensor = tensor.detach().cpu().resolve_conj()
    if tensor.dtype is torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
