"""The same graphs in torch.fx and onnx-ir, measured where they have the same job.

Neither infers types while building. What a peer does for a stage stands beside the function that does it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from graphc.tools.bench.graphs import GRAPHS, Graph, shared_operands
from graphc.tools.bench.timing import best_time

Times = dict[str, float]
"""Stage → µs an op."""


def measure_peers(kind: str, count: int, repeat: int) -> dict[str, Times]:
    """The stages of every peer that is installed, by name."""
    found: dict[str, Times] = {}
    if find_spec("torch") is not None:
        found["torch.fx"] = measure_fx(kind, count, repeat)
    if find_spec("onnx_ir") is not None:
        found["onnx-ir"] = measure_onnx_ir(kind, count, repeat)
    return found


# --- torch.fx ---------------------------------------------------------------------------------------------------


def fx_calls() -> dict[str, Callable[..., Any]]:
    import torch
    from torch.nn import functional

    return {
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "neg": operator.neg,
        "tanh": torch.tanh,
        "exp": torch.exp,
        "sin": torch.sin,
        "abs": torch.abs,
        "relu": torch.relu,
        "linear": functional.linear,
        "convert": torch.Tensor.float,
    }


def build_fx(graph: Graph, calls: dict[str, Callable[..., Any]]) -> Any:
    """Nodes by `Graph.call_function`; weights are placeholders, as there is no module to hold them."""
    from torch import fx

    out = fx.Graph()
    values = [out.placeholder(f"x{i}") for i in range(graph.leaves)]
    for node in graph.nodes:
        values.append(out.call_function(calls[node.kind], tuple([values[i] for i in node.operands])))
    out.output(values[-1])
    return out


def trace_fx(graph: Graph, calls: dict[str, Callable[..., Any]]) -> Any:
    """`symbolic_trace` of a function of as few arguments as ours."""
    from torch import fx

    kinds = [(calls[node.kind], shared_operands(graph, node.operands)) for node in graph.nodes]

    def body(*arrays: Any) -> Any:
        values = list(arrays)
        for call, operands in kinds:
            values.append(call(*[values[i] for i in operands]))
        return values[-1]

    names = ", ".join(f"x{i}" for i in range(graph.inputs + min(2, len(graph.weights))))
    scope: dict[str, Any] = {"body": body}
    exec(f"def function({names}): return body({names})", scope)  # fx takes no *args
    return fx.Tracer().trace(scope["function"])


def measure_fx(kind: str, count: int, repeat: int) -> Times:
    import torch
    from torch.fx import GraphModule
    from torch.fx.passes.dialect.common.cse_pass import CSEPass

    calls = fx_calls()
    graph = GRAPHS[kind](count)
    total = len(graph.nodes)
    dead, duplicate = GRAPHS[kind](count, "dead"), GRAPHS[kind](count, "duplicate")
    built = build_fx(graph, calls)
    never = torch.digamma

    def replace_half(graph: Any) -> None:
        for number, node in enumerate([n for n in graph.nodes if n.op == "call_function"]):
            if number % 2:
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)

    def timed(prepare: Callable[[], Any], run: Callable[[Any], object], ops: int = total) -> float:
        return 1e6 * best_time(prepare, run, repeat) / ops

    return {
        "build": timed(lambda: graph, lambda g: build_fx(g, calls)),
        "trace": timed(lambda: graph, lambda g: trace_fx(g, calls)),
        "verify": timed(lambda: built, lambda g: g.lint()),
        "print": timed(lambda: built, str),
        "idle pass": timed(lambda: built, lambda g: [n for n in g.nodes if n.target is never]),
        "replace and erase": timed(lambda: build_fx(graph, calls), replace_half, total // 2),
        "dead code": timed(lambda: build_fx(dead, calls), lambda g: g.eliminate_dead_code(), len(dead.nodes)),
        "common subexpressions": timed(
            lambda: GraphModule({}, build_fx(duplicate, calls)), lambda m: CSEPass()(m), len(duplicate.nodes)
        ),
        "emit torch": timed(lambda: built, lambda g: g.python_code("self")),
    }


# --- onnx-ir ----------------------------------------------------------------------------------------------------

ONNX_OPS = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "neg": "Neg",
    "tanh": "Tanh",
    "exp": "Exp",
    "sin": "Sin",
    "abs": "Abs",
    "relu": "Relu",
    "linear": "MatMul",
    "convert": "Cast",
}


def build_onnx_ir(graph: Graph) -> Any:
    """Nodes by `onnx_ir.node`; weights are graph inputs."""
    import onnx_ir as ir

    kind = ir.TensorType(ir.DataType.FLOAT)
    shapes = [("B", graph.width)] * graph.inputs + [shape for _, shape in graph.weights]
    values = [ir.Value(name=f"x{i}", type=kind, shape=ir.Shape(shape)) for i, shape in enumerate(shapes)]
    inputs = list(values)
    nodes: list[Any] = []
    for node in graph.nodes:
        attributes = {"to": int(ir.DataType.FLOAT)} if node.kind == "convert" else None
        made = ir.node(ONNX_OPS[node.kind], [values[i] for i in node.operands], attributes)
        nodes.append(made)
        values.append(made.outputs[0])
    out = ir.Graph(inputs, [values[-1]], nodes=nodes, opset_imports={"": 21}, name="forward")
    return ir.Model(out, ir_version=10)


def measure_onnx_ir(kind: str, count: int, repeat: int) -> Times:
    import onnx_ir as ir
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

    graph = GRAPHS[kind](count)
    total = len(graph.nodes)
    dead, duplicate = GRAPHS[kind](count, "dead"), GRAPHS[kind](count, "duplicate")
    built = build_onnx_ir(graph)
    text = ir.to_onnx_text(built)

    def replace_half(model: Any) -> None:
        for number, node in enumerate(model.graph):
            if number % 2 and node is not model.graph[-1]:
                ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
                model.graph.remove(node, safe=True)

    def timed(prepare: Callable[[], Any], run: Callable[[Any], object], ops: int = total) -> float:
        return 1e6 * best_time(prepare, run, repeat) / ops

    return {
        "build": timed(lambda: graph, build_onnx_ir),
        "print": timed(lambda: built, ir.to_onnx_text),
        "parse": timed(lambda: text, ir.from_onnx_text),
        "idle pass": timed(lambda: built, lambda m: [n for n in m.graph if n.op_type == "Digamma"]),
        "replace and erase": timed(lambda: build_onnx_ir(graph), replace_half, total // 2),
        "dead code": timed(lambda: build_onnx_ir(dead), RemoveUnusedNodesPass(), len(dead.nodes)),
        "common subexpressions": timed(
            lambda: build_onnx_ir(duplicate), CommonSubexpressionEliminationPass(), len(duplicate.nodes)
        ),
        "emit onnx": timed(lambda: built, ir.to_proto),
    }
