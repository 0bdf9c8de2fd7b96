"""The dtypes of a layer: of its weights, and of what it computes."""

from __future__ import annotations

from typing import Any

from graphc.ir.dtypes import DTYPES, DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError
from graphc.ir.suggestions import nearest

MIXED = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}
"""Policies with weights in float32 that are cast to a narrower dtype where they are computed with."""


class DTypePolicy:
    """The name of one dtype, for weights and computation alike; or "mixed_float16" or "mixed_bfloat16"."""

    def __init__(self, name: Any) -> None:
        name = str(name)
        if name.startswith("mixed_") and name not in MIXED:
            raise DTypeError(f"no dtype policy is called {name!r}{nearest(name, [*MIXED, *DTYPES])}")
        self.compute_dtype: DType = dtype_of(MIXED.get(name, name))
        self.variable_dtype: DType = dtype_of("float32") if name in MIXED else self.compute_dtype
        self._mixed = name if name in MIXED else None

    @staticmethod
    def of(dtype: Any) -> DTypePolicy:
        """The policy of a dtype, its name, a policy or a policy's config; for None what `set_dtype_policy` said."""
        if isinstance(dtype, DTypePolicy):
            return dtype
        if isinstance(dtype, dict):
            dtype = dtype.get("config", {}).get("name", dtype)
        return _default if dtype is None else DTypePolicy(dtype)

    @property
    def name(self) -> str:
        return self._mixed or str(self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DTypePolicy:
        return cls(config["name"])

    def __repr__(self) -> str:
        return f"<DTypePolicy {self.name}>"


_default = DTypePolicy("float32")


def dtype_policy() -> DTypePolicy:
    """The policy of layers that are made without a `dtype`."""
    return _default


def set_dtype_policy(policy: Any) -> None:
    """Let layers that are made from now on have this policy, unless they are given a `dtype`."""
    global _default
    _default = DTypePolicy.of("float32" if policy is None else policy)
