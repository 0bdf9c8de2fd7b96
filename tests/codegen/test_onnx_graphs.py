"""Graphs that the ONNX target writes: names, symbolic sizes, regions, calls; valid by ONNX's own checker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from artifacts import agrees, loaded

from graphc.codegen.compiler import write_artifact
from graphc.codegen.onnx import OnnxTarget
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import f32
from graphc.ir.errors import FormatError, UnsupportedError
from graphc.ir.graph import Result
from graphc.ir.module import Module
from graphc.ir.parser import parse
from graphc.ir.types import TensorType

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def model(folder: Path, name: str = "model.onnx") -> Any:
    """The model file, once ONNX's checker and strict shape inference took it."""
    onnx.checker.check_model(str(folder / name), full_check=True)
    return onnx.load(str(folder / name))


def nodes(graph: Any) -> list[Any]:
    """All nodes, those of graphs inside too."""
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += nodes(attribute.g)
    return found


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-2, 2, shape).astype(np.float32)


# --- names --------------------------------------------------------------------------------------------------------

NAMED = """graphc-ir 1

weight "stem/kernel": f32[4, 3] = [[0.5, 1, 2], [1, 2, 3], [0, 1, 0], [1, 1, 1]]

func @classify(%image: f32[B, 4] input, %kernel: f32[4, 3] param "stem/kernel") -> (scores: f32[B, 3]) {
  %0 = linear %image, %kernel, _ : f32[B, 3] @ "stem"
  %hidden = relu %0 : f32[B, 3] @ "stem"
  %1 = relu6 %hidden : f32[B, 3] @ "stem#1"
  %2 = softmax %1 : f32[B, 3]
  return %2
}
"""


def test_names_are_the_models(tmp_path):
    agrees(NAMED, "onnx", tmp_path / "a", floats(5, 4))
    graph = model(tmp_path / "a").graph
    assert graph.name == "classify"
    assert [node.output[0] for node in graph.node] == ["stem/linear", "stem/hidden", "stem#1/relu6", "scores"]
    assert [node.op_type for node in graph.node] == ["Gemm", "Relu", "Clip", "Softmax"]
    assert "stem/kernel" in [tensor.name for tensor in graph.initializer]
    (image,) = graph.input
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["B", 4]


def test_emission_is_deterministic(tmp_path):
    for name in ("a", "b"):
        write_artifact(parse(NAMED), "onnx", tmp_path / name)
    assert (tmp_path / "a/model.onnx").read_bytes() == (tmp_path / "b/model.onnx").read_bytes()


def test_results_may_be_inputs_and_repeat(tmp_path):
    text = """graphc-ir 1
    func @f(%x: f32[2] input) -> (x: f32[2], y: f32[2], z: f32[2]) {
      %0 = exp %x : f32[2]
      return %x, %0, %0
    }
    """
    agrees(text, "onnx", tmp_path / "a", floats(2))
    assert len({output.name for output in model(tmp_path / "a").graph.output}) == 3


# --- symbolic sizes -----------------------------------------------------------------------------------------------


def traced(body: Any, **types: TensorType) -> Module:
    module = Module()
    function = module.add_function("main")
    values = [function.add_parameter(type, name) for name, type in types.items()]
    with Builder(function.block) as builder:
        found = body(*values)
        found = found if isinstance(found, tuple) else (found,)
        function.results.extend(Result() for _ in found)
        builder.finish(found)
    return module


B, S = symbol("B"), symbol("S")


def test_shapes_with_one_unknown_size_need_no_arithmetic(tmp_path):
    module = traced(
        lambda x: ops.softmax(ops.reshape(ops.transpose(x, permutation=(0, 2, 1)), shape=(B, 12))),
        x=TensorType.of(f32, (B, 3, 4)),
    )
    agrees(module, "onnx", tmp_path / "a", floats(5, 3, 4))
    assert {node.op_type for node in model(tmp_path / "a").graph.node} == {"Transpose", "Reshape", "Softmax"}


def test_each_symbol_is_read_once(tmp_path):
    def body(x, y):
        wide = ops.reshape(x, shape=(S, B, 3))
        return wide, ops.broadcast(y, shape=(B, S, 3)), ops.reshape(wide, shape=(B * 3, S)), ops.iota(shape=(S, B))

    module = traced(body, x=TensorType.of(f32, (B, S, 3)), y=TensorType.of(f32, (3,)))
    agrees(module, "onnx", tmp_path / "a", floats(2, 5, 3), floats(3))
    assert [node.op_type for node in model(tmp_path / "a").graph.node].count("Shape") == 2


def test_expressions_of_sizes(tmp_path):
    x = TensorType.of(f32, (B, 2 * S + 1))

    def body(x):
        half = ops.slice(x, starts=(0, 0), limits=(B, S // 2 + 1))
        rest = ops.pad(half, padding=((0, 0), (0, S % 3)))
        return half, rest, ops.iota(shape=((S - 1) // 2 + 1,)), ops.dim_size(size=B * S)

    for batch, size in ((1, 1), (2, 4), (3, 9)):
        agrees(traced(body, x=x), "onnx", tmp_path / f"{size}", floats(batch, 2 * size + 1))


def test_sizes_that_are_data(tmp_path):
    text = """graphc-ir 1
    func @f(%x: f32[6] input, %n: i32[] input) -> (f32[K], f32[], f32[K, 2]) {
      %0 = assume_dim %x, %n {axis = 0, size = K} : f32[K]
      %1 = reduce_sum %0 {axes = [0]} : f32[]
      %2 = reshape %0 {shape = [K, 1]} : f32[K, 1]
      %3 = broadcast %2 {shape = [K, 2]} : f32[K, 2]
      return %0, %1, %3
    }
    """
    for count in (1, 4, 6):
        agrees(text, "onnx", tmp_path / str(count), floats(6), np.array(count, np.int32))


def test_symbolic_padding_of_a_convolution(tmp_path):
    image = TensorType.of(f32, (B, S, 7, 2))

    def body(x, k):
        y = ops.conv(x, k, strides=(2, 2), padding="same")
        return y, ops.max_pool(y, window=(2, 2), strides=(2, 1), padding="same")

    module = traced(body, x=image, k=TensorType.of(f32, (3, 3, 2, 4)))
    for size in (4, 7):
        agrees(module, "onnx", tmp_path / str(size), floats(2, size, 7, 2), floats(3, 3, 2, 4), roundings=64)


# --- regions and calls --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [-3, 0, 1, 2, 9])
def test_branches(tmp_path, choice):
    def body(i, x):
        def three():
            return ops.cond(ops.reduce_sum(x, axes=(0,)) > 0, lambda: x * 2, lambda: ops.reshape(x, shape=(B,)))

        return ops.cond(i, lambda: ops.exp(x), lambda: x, three)

    module = traced(body, i=TensorType.of("int32"), x=TensorType.of(f32, (B,)))
    agrees(module, "onnx", tmp_path / "a", np.array(choice, np.int32), floats(3))
    assert [node.op_type for node in nodes(model(tmp_path / "a").graph)].count("If") == 3


@pytest.mark.parametrize("times", [0, 1, 5])
def test_loops(tmp_path, times):
    def body(n, x):
        def step(i, v):
            return i + 1, ops.while_loop(lambda w: ops.reduce_max(w, axes=(0,)) < 9, lambda w: (w * w + 1,), (v,))[
                0
            ] - x

        return ops.while_loop(lambda i, v: i < n, step, (np.int32(0), x))

    module = traced(body, n=TensorType.of("int32"), x=TensorType.of(f32, (B,)))
    agrees(module, "onnx", tmp_path / "a", np.array(times, np.int32), floats(3), roundings=128)
    model(tmp_path / "a")


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("length", [0, 1, 4])
def test_scans(tmp_path, length, backwards):
    steps = symbol("T", 0)

    def body(x, c, k):
        def step(carries, slices):
            state = ops.tanh(carries[0] + slices[0] * k)
            return (state,), (state, ops.reduce_sum(state, axes=(0, 1)))

        (last,), (states, sums) = ops.scan(step, (c,), (x,), reverse=backwards)
        return last, states, sums

    types = {
        "x": TensorType.of(f32, (steps, B, 3)),
        "c": TensorType.of(f32, (B, 3)),
        "k": TensorType.of(f32, (3,)),
    }
    agrees(traced(body, **types), "onnx", tmp_path / "a", floats(length, 2, 3), floats(2, 3), floats(3), roundings=32)
    model(tmp_path / "a")


def test_a_function_called_with_different_sizes(tmp_path):
    text = """graphc-ir 1

    private func @block(%x: f32[N, M] input) -> (f32[M, N]) {
      %0 = transpose %x {permutation = [1, 0]} : f32[M, N]
      %1 = iota {shape = [M, N], axis = 1, dtype = f32} : f32[M, N]
      %2 = add %0, %1 : f32[M, N]
      return %2
    }

    func @main(%x: f32[B, 3] input) -> (f32[B, 3]) {
      %0 = call %x {callee = @block} : f32[3, B] @ "first"
      %1 = call %0 {callee = @block} : f32[B, 3] @ "second"
      return %1
    }
    """
    agrees(text, "onnx", tmp_path / "a", floats(4, 3))
    names = [node.name for node in model(tmp_path / "a").graph.node]
    assert "first/transpose" in names and "second/transpose" in names


# --- dtypes at the border -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "int4", "uint4", "bfloat16", "float16", "float8_e4m3fn", "uint64"])
def test_inputs_and_outputs_of_every_dtype(tmp_path, dtype):
    type = TensorType.of(dtype, (B, 2))
    array = np.array([[0, 1], [3, 2], [7, 5]]).astype(type.dtype.numpy)
    module = traced(
        lambda x, c: (x, ops.select(c, x, ops.reverse(x, axes=(0,)))), x=type, c=TensorType.of("bool", (B, 1))
    )
    found = loaded(module, "onnx", tmp_path / "a")["main"](array, np.array([[True], [False], [False]]))
    assert [a.dtype for a in found] == [type.dtype.numpy] * 2
    assert found[0].tolist() == array.tolist()
    assert found[1].tolist() == [array[0].tolist(), array[1].tolist(), array[0].tolist()]


def test_bfloat16_rounds_after_each_op(tmp_path):
    x = floats(64).astype(ml_dtypes.bfloat16)
    module = traced(lambda x: (x * x + x) / 3 - x, x=TensorType.of("bfloat16", (64,)))
    (found,) = loaded(module, "onnx", tmp_path / "a")["main"](x)
    three = ml_dtypes.bfloat16(3)
    assert np.array_equal(found, (x * x + x) / three - x)


def test_bits_of_floats_are_read_by_a_newer_opset(tmp_path):
    module = traced(lambda x: ops.bitcast(x, dtype="int32"), x=TensorType.of(f32, (3,)))
    x = np.array([1.0, -0.0, np.nan], np.float32)
    (found,) = loaded(module, "onnx", tmp_path / "a")["main"](x)
    assert np.array_equal(found, x.view(np.int32))
    assert model(tmp_path / "a").opset_import[0].version == 26


# --- what is refused ----------------------------------------------------------------------------------------------


def test_what_onnx_runtime_lacks_is_listed(tmp_path):
    def body(x, y):
        return ops.real(ops.complex(x, x)), ops.convolution_input_gradient(y, y, shape=(1, 1, 1))

    module = traced(body, x=TensorType.of(f32, (3,)), y=TensorType.of("float64", (1, 1, 1)))
    with pytest.raises(UnsupportedError, match=r"complex\(f32(.|\n)*real\(c64(.|\n)*convolution_input_gradient\(f64"):
        write_artifact(module, "onnx", tmp_path / "a", "")
    assert not (tmp_path / "a").exists()


def test_complex_numbers_are_refused(tmp_path):
    module = traced(lambda x: x, x=TensorType.of("complex64", (3,)))
    with pytest.raises(UnsupportedError, match=r"no complex numbers: 'x' of @main"):
        write_artifact(module, "onnx", tmp_path / "a")


def test_a_broken_model_file_is_an_error(tmp_path):
    from graphc.codegen.onnx.session import session

    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a nonsense")
    with pytest.raises(FormatError, match=r"model\.onnx is not a model that ONNX Runtime reads"):
        session(tmp_path / "model.onnx")


def test_graphs_of_ten_thousand_ops(tmp_path):
    def chain(x):
        for _ in range(5_000):
            x = ops.tanh(x + 1.0)
        return x

    module = traced(chain, x=TensorType.of(f32, (B,)))
    write_artifact(module, "onnx", tmp_path / "a", "")
    graph = onnx.load(str(tmp_path / "a/model.onnx")).graph
    assert len(graph.node) == 10_000 and len(graph.initializer) == 1


def test_targets_of_other_limits_are_made_at_will():
    assert OnnxTarget(external_above=10).external_above == 10
