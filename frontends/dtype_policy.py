"""The dtype of a layer's weights and of what it computes."""

from __future__ import annotations

from typing import Any

from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import UnsupportedError


class DTypePolicy:
    """The name of one dtype, for weights and computation alike."""

    def __init__(self, name: str) -> None:
        if str(name).startswith("mixed_"):
            raise UnsupportedError(
                f"the dtype policy {name!r} is for training in mixed precision, which is not here yet"
            )
        self.compute_dtype: DType = dtype_of(name)
        self.variable_dtype: DType = self.compute_dtype

    @staticmethod
    def of(dtype: Any) -> DTypePolicy:
        """The policy of a dtype, its name, a policy or a policy's config; float32 for None."""
        if isinstance(dtype, DTypePolicy):
            return dtype
        if isinstance(dtype, dict):
            dtype = dtype.get("config", {}).get("name", dtype)
        return DTypePolicy("float32" if dtype is None else dtype)

    @property
    def name(self) -> str:
        return str(self.compute_dtype)

    def __repr__(self) -> str:
        return f"<DTypePolicy {self.name}>"
