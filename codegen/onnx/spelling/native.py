"""The shortest spelling: one node that means what the op means."""

from __future__ import annotations

from typing import Any

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.ir.dtypes import DType
from graphc.ir.graph import Op


def native(kind: str, result: DType | None = None) -> Any:
    """A node of this kind on all operands, spelled where there is a kernel or a carrier for their dtype."""

    def spell(graph: GraphWriter, op: Op, *operands: Tensor) -> Tensor:
        return graph.compute(kind, *operands, result=result)

    spell.kind = kind  # type: ignore[attr-defined]
    return spell
