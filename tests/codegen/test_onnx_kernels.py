"""What `codegen/onnx/kernels.py` says of ONNX Runtime's kernels, against the runtime installed."""

from __future__ import annotations

import pytest

from graphc.codegen.onnx.kernels import ELEMENT_TYPES, KERNELS, carrier
from graphc.ir.dtypes import DTYPES, bf16, bool_, f32, i32, i64, u16, u64

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

INDICES = {"Reshape": 1, "Expand": 1, "Slice": 4, "Gather": 1, "Split": 0, "Pad": 1, "CumSum": 1}
"""How many int64 operands follow the first."""
ATTRIBUTES = {
    "Transpose": {"perm": [1, 0]},
    "Concat": {"axis": 0},
    "Mod": {"fmod": 1},
    "BitShift": {"direction": "LEFT"},
    "MaxPool": {"kernel_shape": [2]},
    "AveragePool": {"kernel_shape": [2]},
    "ScatterND": {"reduction": "add"},
    "Split": {"num_outputs": 1},
}
OPERANDS = {
    **dict.fromkeys(["Add", "Sub", "Mul", "Div", "Mod", "Pow", "Max", "Min", "And", "Or", "Xor", "Equal", "Concat"], 2),
    **dict.fromkeys(
        ["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "MatMul", "Gemm", "Conv", "ConvTranspose"], 2
    ),
    **dict.fromkeys(["Less", "LessOrEqual", "Greater", "GreaterOrEqual"], 2),
    "Clip": 3,
    "BatchNormalization": 5,
    "LayerNormalization": 3,
}
RESULT = {
    **dict.fromkeys(["IsNaN", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"], bool_),
    **dict.fromkeys(["ArgMax", "ArgMin"], i64),
}


def runs(kind: str, dtype) -> bool:
    """Whether the runtime makes a session of one node of this kind."""
    element = ELEMENT_TYPES[dtype]
    image = kind in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "BatchNormalization")
    operands = [("x", element)]
    if kind == "Where":
        operands = [("c", ELEMENT_TYPES[bool_]), ("x", element), ("y", element)]
    elif kind == "ScatterND":
        operands += [("i", ELEMENT_TYPES[i64]), ("u", element)]
    else:
        operands += [(f"i{n}", ELEMENT_TYPES[i64]) for n in range(INDICES.get(kind, 0))]
        operands += [(f"y{n}", element) for n in range(1, OPERANDS.get(kind, 1) + (kind == "Pad"))]
        operands += [("axes", ELEMENT_TYPES[i64])] * kind.startswith("Reduce")
    inputs = [onnx.helper.make_tensor_value_info(name, of, [None] * _rank(kind, name, image)) for name, of in operands]
    node = onnx.helper.make_node(kind, [name for name, _ in operands], ["r"], **ATTRIBUTES.get(kind, {}))
    result = onnx.helper.make_tensor_value_info("r", ELEMENT_TYPES[RESULT.get(kind, dtype)], None)
    graph = onnx.helper.make_graph([node], "g", inputs, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def _rank(kind: str, name: str, image: bool) -> int:
    if (kind, name) in {("CumSum", "i0"), ("Pad", "y1"), ("Clip", "y1"), ("Clip", "y2")}:
        return 0
    if kind.startswith("Conv") or (image and name == "x"):
        return 3
    vectors = kind in ("BatchNormalization", "LayerNormalization") and name != "x"
    return 1 if vectors or name == "axes" or (name.startswith("i") and kind not in ("Gather", "ScatterND")) else 2


@pytest.mark.parametrize("kind", sorted(KERNELS))
def test_the_runtime_has_the_kernels(kind):
    assert [str(dtype) for dtype in DTYPES if dtype in KERNELS[kind] and not runs(kind, dtype)] == []


def test_carriers_are_wider():
    assert carrier("Add", bf16) is f32
    assert carrier("Max", u16) is i32
    assert carrier("Where", u64) is i64
    assert carrier("Erf", i32) is None
