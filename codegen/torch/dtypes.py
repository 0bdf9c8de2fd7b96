"""The names of dtypes in PyTorch."""

from __future__ import annotations

from graphc.ir.dtypes import DType


def dtype_text(dtype: DType) -> str:
    """`torch.float32`."""
    return f"torch.{dtype}"
