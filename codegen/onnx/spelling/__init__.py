"""How each op is written in ONNX, one file a family.

Each file has a table `SPELLING`: op name → function of the graph, the op and its operands as tensors, which returns the
result. `WHEN` has a condition on the op for those that are not spelled on all types and attributes; `native` ones are
spelled where there is a kernel. What is refused is decomposed, where the op has a decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.codegen.onnx.kernels import carrier
from graphc.codegen.onnx.spelling import (
    activation,
    casting,
    contraction,
    control,
    elementwise,
    few_bits,
    integer,
    movement,
    normalization,
    quantization,
    random,
    reduction,
    sorting,
    special,
    window,
)
from graphc.ir.graph import Op, operand_values

Spelling = Callable[..., Any]

_FAMILIES = (
    activation,
    casting,
    contraction,
    control,
    elementwise,
    few_bits,
    integer,
    movement,
    normalization,
    quantization,
    random,
    reduction,
    sorting,
    special,
    window,
)
SPELLING: dict[str, Spelling] = {name: spelling for family in _FAMILIES for name, spelling in family.SPELLING.items()}
WHEN: dict[str, Callable[[Op], bool]] = {name: when for family in _FAMILIES for name, when in family.WHEN.items()}


def supports(op: Op) -> bool:
    """Whether an op is spelled on its types and with its attributes.

    Complex numbers never are: no kernel of ONNX Runtime takes them.
    """
    spelling = SPELLING.get(op.name)
    if spelling is None:
        return False
    for value in (*operand_values(op), *op.results):
        if value.type.dtype.is_complex:
            return False
    when = WHEN.get(op.name)
    if when is not None:
        return when(op)
    kind = getattr(spelling, "kind", None)
    return kind is None or carrier(kind, op.operands[0].type.dtype) is not None  # type: ignore[union-attr]
