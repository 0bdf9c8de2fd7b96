"""The edges of what ops mean, as calls: for the tests of the reference and of every target.

`EDGES` lists for each row of the table of edge meanings an op on arrays at that edge. What must come out is what the
reference says; that the reference says the right thing is tested by values in `ir/test_op_reference.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sampling import Case

from graphc.ir.dtypes import DType, dtype, f32
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Sample

Array = np.ndarray[Any, Any]
nan, inf = np.nan, np.inf


@dataclass(frozen=True)
class Edge:
    """A call at the edge that a row of the table is about."""

    row: str
    case: Case

    @property
    def id(self) -> str:
        return f"{self.row}-{self.case.id}"

    @property
    def dtype(self) -> DType:
        """Of the first operand that has the op's dtype."""
        arrays = self.case.operands
        own = [i for i, a in enumerate(arrays) if a is not None and self.case.op.kind_of(i) in ("Tensor", "AnyTensor")]
        return dtype(arrays[own[0]].dtype) if own else f32

    @property
    def arrays(self) -> list[Array]:
        return [array for array in self.case.operands if array is not None]

    def module(self) -> Module:
        return self.case.module(self.dtype)


EDGES: list[Edge] = []


def edge(row: str, op: str, *operands: Array | None, **attributes: Any) -> None:
    number = sum(e.case.op.name == op for e in EDGES)
    EDGES.append(
        Edge(
            row,
            Case(OPS[op], Sample(tuple(None if a is None else np.asarray(a) for a in operands), attributes), number),
        )
    )


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int32)


for _op in ("maximum", "minimum"):
    edge("NaN propagates", _op, floats(nan, 1, nan, inf), floats(1, nan, nan, nan))
for _op in ("reduce_max", "reduce_min"):
    edge("NaN propagates", _op, np.array([[1, nan, 2], [3, 4, 5]], np.float32), axes=(1,))
for _op in ("relu", "relu6", "exp", "tanh", "sigmoid", "softplus", "elu", "leaky_relu", "gelu", "silu"):
    edge("NaN propagates", _op, floats(nan, inf, 0, -1))
edge("NaN propagates", "clip", floats(nan, -2, 2), np.float32(-1), np.float32(1))
edge("exp(88.7)", "exp", floats(88.7, 89, -104, -inf))
for _op in ("argmax", "argmin"):
    edge("first occurrence", _op, floats(3, 1, 3, 1), axis=0)
    edge("first NaN wins", _op, floats(5, nan, 9, nan, -9), axis=0)
for _to in ("int8", "uint8", "int32", "int64", "uint32"):
    edge("float to int", "convert", floats(1.9, -1.9, nan, inf, -inf, 3e9, -3e9, 300, 1e30), dtype=_to)
edge("integers wrap", "convert", ints(300, -1, 2**31 - 1), dtype="uint8")
edge("integers wrap", "convert", np.array([2**40 + 5, -1], np.int64), dtype="int32")
edge("integers wrap", "add", np.array([127, -128], np.int8), np.array([1, -1], np.int8))
edge("integers wrap", "mul", ints(2**16, 3), ints(2**16, 2**30))
edge("integers wrap", "mul", np.array([2**16, 3], np.uint32), np.array([2**16 + 1, 2**31], np.uint32))
edge("integers wrap", "reduce_sum", np.full((3, 200), 100, np.uint8), axes=(1,))
edge("64 bits are kept", "add", np.array([2**40, -(2**62)], np.int64), np.array([1, -1], np.int64))
edge("64 bits are kept", "add", np.array([1.0]), np.array([2.0**-50]))
for _op in ("div", "rem", "floor_div", "mod"):
    edge("integer division", _op, ints(7, -7, 7, -7, 6), ints(2, 2, -2, -2, -3))
edge("integer division", "div", np.array([2**62 + 1, -(2**62) - 1], np.int64), np.array([1, 3], np.int64))
edge("integer division", "div", np.array([2**32 - 1, 2**31], np.uint32), np.array([2, 3], np.uint32))
edge("float remainder", "rem", floats(5, -5, 5, 1, inf, 1), floats(3, 3, -3, inf, 1, 0))
edge("shifts by the width", "shift_left", ints(1, 1, 1, 3), ints(31, 32, 99, 1))
edge("shifts by the width", "shift_right", ints(-8, -8, 8, -1), ints(1, 32, 32, 31))
edge("shifts by the width", "shift_right", np.array([2**31, 2**31], np.uint32), np.array([31, 32], np.uint32))
edge("unsigned above 2**31", "lt", np.array([1, 2**31], np.uint32), np.array([2**31 + 5, 3], np.uint32))
edge("gather outside", "gather", floats(10, 20, 30), ints(-1, 0, 2, 3))
edge("gather outside", "gather", floats(10, 20, 30), ints(-1, 0, 2, 3), mode="fill")
edge("scatter outside", "scatter", floats(1, 1, 1), ints(0, 0, 2, 3, -1), floats(1, 2, 4, 8, 16))
edge("dynamic_slice clamps", "dynamic_slice", floats(0, 1, 2, 3, 4), np.int32(9), sizes=(2,))
edge("dynamic_slice clamps", "dynamic_slice", floats(0, 1, 2, 3, 4), np.int32(-9), sizes=(2,))
edge("dynamic_slice clamps", "dynamic_update_slice", floats(0, 1, 2, 3, 4), floats(7, 8), np.int32(4))
for _op in ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_mean"):
    edge("reductions over nothing", _op, np.zeros((0, 2), np.float32), axes=(0,))
for _op in ("reduce_all", "reduce_any"):
    edge("reductions over nothing", _op, np.zeros((0, 2), bool), axes=(0,))
edge("sign(NaN)", "sign", floats(nan, -inf, -0.5, 0, 2))
edge("sizes of zero", "matmul", np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32))
edge("sizes of zero", "softmax", np.zeros((0, 3), np.float32))
edge("sizes of zero", "concat", np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32), axis=0)
edge("halves to even", "round_even", floats(0.5, 1.5, 2.5, -0.5, -1.5, nan, inf))
edge("comparisons with NaN", "ne", floats(nan, 1), floats(nan, 1))
edge("comparisons with NaN", "le", floats(nan, 1), floats(nan, nan))
edge("softmax of large numbers", "softmax", floats(1000, 999, -1000))
edge("softmax of large numbers", "log_softmax", floats(1000, 999, -1000))
for _of in (np.float32, np.float64):
    edge("sort", "sort", np.array([nan, 1, -0.0, inf, 0.0, nan, 1, -inf], _of), ints(*range(8)))
edge("sort", "sort", np.array([2**32 - 1, 3, 2**31, 3], np.uint32), ints(*range(4)))
edge("sort", "sort", np.array([2**62 + 1, -(2**62), 2**62], np.int64))
edge("embedding outside", "embedding", np.arange(6, dtype=np.float32).reshape(3, 2), ints(-1, 1, 3))
edge("one_hot outside", "one_hot", ints(-1, 1, 3), size=3)
_logits = np.array([[0, 1, 2], [3, -inf, 1], [nan, 0, 0], [1e4, 0, -1e4]], np.float32)
edge("labels outside", "sparse_cross_entropy", _logits, ints(-1, 3, 7, 1))
edge("labels outside", "sparse_cross_entropy", _logits, ints(0, 1, -100, 2), ignore_index=-100, label_smoothing=0.1)
edge("targets of 0", "cross_entropy", _logits, np.array([[0, 1, 0], [0.5, 0, 0.5], [1, 0, 0], [0, 0, 1]], np.float32))
_row = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 1, 4)
_seen = np.array([[True, False, True], [False, False, False], [False, True, False]])
edge("attention to nothing", "attention", _row, _row, _row, np.zeros((3, 3), np.float32), _seen)
edge("attention to nothing", "attention", _row, _row, _row, np.where(_seen, np.float32(0), np.float32(-inf)))
edge("random words above 2**31", "threefry", np.uint32([2**32 - 1, 2**31]), np.uint32(2**32 - 1), np.uint32([0, 2**31]))
_dy = np.ones((1, 3, 1, 4), np.float32)
edge("attention to nothing", "attention_gradient", _dy, 0 * _dy, 0 * _row, 0 * _row, 0 * _row, None, _seen)

_equal = np.array([[[[2, 2, 1], [2, 2, 3], [-inf, -inf, 3]]]], np.float32)
_ones = ((0, 0), (0, 0), (1, 1), (1, 1))
edge("ties", "select_and_scatter", _equal, np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2),
     kind="max", window=(1, 1, 2, 2), strides=(1, 1, 1, 1))  # fmt: skip
edge("ties", "select_and_scatter", np.full((1, 1, 3, 3), -inf, np.float32), np.ones((1, 1, 3, 3), np.float32),
     kind="max", window=(1, 1, 3, 3), padding=_ones)  # fmt: skip
edge("ties", "select_and_gather", _equal, np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3),
     kind="max", window=(1, 1, 3, 3), padding=_ones)  # fmt: skip
