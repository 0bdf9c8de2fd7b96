"""What is measured of graphc on a graph: each stage of its life, prepared so that only the stage itself is timed."""

from __future__ import annotations

import operator
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graphc import codegen, frontends
from graphc.codegen.target import Target
from graphc.frontends import ops as frontend_ops
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import f32
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Function, Result
from graphc.ir.location import ROOT, Location, Scope
from graphc.ir.module import Module
from graphc.ir.parser import parse
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes import find_pass
from graphc.passes.autodiff import differentiate
from graphc.passes.driver import apply_rules, rule
from graphc.passes.legalize import legalize
from graphc.tools.bench.graphs import GRAPHS, Graph, shared_operands
from graphc.tools.bench.timing import best_time

BUILD: dict[str, Callable[..., Any]] = {
    "add": ops.add,
    "sub": ops.sub,
    "mul": ops.mul,
    "tanh": ops.tanh,
    "neg": ops.neg,
    "relu": ops.relu,
    "exp": ops.exp,
    "sin": ops.sin,
    "abs": ops.abs,
    "linear": ops.linear,
    "convert": lambda x: ops.convert(x, dtype=f32),
}
"""Calls that record into the ambient builder, by kind of node."""

TRACE: dict[str, Callable[..., Any]] = BUILD | {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "tanh": np.tanh,
    "exp": np.exp,
    "sin": np.sin,
    "abs": np.abs,
    "relu": frontend_ops.relu,
}
"""What a user writes in a traced function: operators, NumPy functions, `graphc.ops`."""

AIMS = {
    "build": 4.0,
    "trace": 8.0,
    "verify": 1.0,
    "print": 3.0,
    "parse": 8.0,
    "idle pass": 1.0,
    "replace and erase": 4.0,
    "dead code": 1.5,
    "common subexpressions": 1.5,
    "canonicalize": 10.0,
    "gradient": 30.0,
}
"""µs an op, with the collector frozen. Emission has one aim for all targets."""

EMIT_AIM = 30.0


@dataclass(frozen=True, slots=True)
class Measure:
    """One stage: its name, its aim, and how many µs an op it takes."""

    name: str
    aim: float
    microseconds: float


def build(graph: Graph) -> Module:
    """The graph as a module, types inferred, each scope's ops at its location."""
    module = prepared(graph)
    build_body(graph, module)
    return module


def prepared(graph: Graph) -> Module:
    """A module with the function's parameters and the weights, and no op yet."""
    module = Module()
    function = module.add_function("forward")
    stream = TensorType.of(f32, (symbol("B"), graph.width))
    for i in range(graph.inputs):
        function.add_parameter(stream, f"x{i}" if graph.inputs > 1 else "x")
    for name, shape in graph.weights:
        weight = module.weights.add(name, np.zeros(shape, np.float32))
        function.add_parameter(weight.type, name.replace("/", "_"), "param", name)
    return module


def build_body(graph: Graph, module: Module) -> None:
    """Record the ops; this is what `build` times."""
    function = module.main
    values = list(function.block.parameters)
    scopes: dict[str, Location] = {"": Location.of(ROOT)}
    with Builder(function.block) as builder:
        for node in graph.nodes:
            location = scopes.get(node.scope)
            if location is None:
                location = scopes[node.scope] = Location.of(Scope.parse(node.scope))
            builder.location = location
            values.append(BUILD[node.kind](*[values[i] for i in node.operands]))
        builder.location = scopes[""]
        builder.finish((values[-1],))
    function.results = [Result("y")]


def trace(graph: Graph) -> Module:
    """The graph traced from a Python function; its weights are a few arguments that all blocks share."""
    shared = graph.weights[:2]
    kinds = [(TRACE[node.kind], shared_operands(graph, node.operands)) for node in graph.nodes]

    def function(*arrays: Any) -> Any:
        values = list(arrays)
        for call, operands in kinds:
            values.append(call(*[values[i] for i in operands]))
        return values[-1]

    specs = [frontends.Spec(("B", graph.width), "float32")] * graph.inputs
    return frontends.trace(function, *specs, *(frontends.Spec(shape, "float32") for _, shape in shared))


@rule(ops.digamma)
def never(op: Any, rewriter: Rewriter) -> None:
    """A rule for an op that no graph here has."""


def replace_half(module: Module) -> None:
    """Replace every second op by its first operand, which has its type, and erase it."""
    with Rewriter() as rewriter:
        for number, op in enumerate(module.main.block):
            if number % 2 and op.next is not None:
                first = op.operands[0]
                assert first is not None
                rewriter.replace(op, first)


def scalar(graph: Graph) -> Module:
    """The graph with the mean of its output as its result."""
    module = build(graph)
    terminator = module.main.block.terminator
    with Builder(module.main.block, terminator):
        mean = ops.reduce_mean(module.main.outputs[0], axes=(0, 1))
    Rewriter().set_operands(terminator, [mean])
    return module


def gradient(module: Module) -> Function:
    """Append the gradient by every input and weight; what is counted are the ops of both parts."""
    return differentiate(module, wrt=[p.name for p in module.main.parameters])


def measure(kind: str, count: int, repeat: int, targets: Sequence[str]) -> list[Measure]:
    """All stages on one graph of about `count` ops; emission for those of `targets` that have its ops."""
    graph = GRAPHS[kind](count)
    total = len(graph.nodes)
    module = build(graph)
    text = str(module)
    arrays = dict(module.weights)
    found: list[Measure] = []

    def add(name: str, prepare: Callable[[], Any], run: Callable[[Any], object], ops: int = total) -> None:
        aim = AIMS.get(name, EMIT_AIM)
        found.append(Measure(name, aim, 1e6 * best_time(prepare, run, repeat) / ops))

    add("build", lambda: prepared(graph), lambda m: build_body(graph, m))
    add("trace", lambda: graph, trace)
    add("verify", lambda: module, Module.verify)
    add("print", lambda: module, str)
    add("parse", lambda: text, lambda t: parse(t, arrays))
    add("idle pass", lambda: module, lambda m: apply_rules(m, [never]))
    add("replace and erase", module.clone, replace_half, total // 2)
    for name, extra, passes in (
        ("dead code", "dead", "dce"),
        ("common subexpressions", "duplicate", "cse"),
        ("canonicalize", "redundant", "canonicalize"),
    ):
        changed = GRAPHS[kind](count, extra)
        source = build(changed)
        add(name, source.clone, find_pass(passes).run, len(changed.nodes))
    add("gradient", lambda: scalar(graph), gradient, sum(1 for _ in gradient(scalar(graph)).block))
    for name in targets:
        target = codegen.target(name)
        try:
            write = partial(target.write, _legal(target, module))
        except UnsupportedError:
            continue
        with tempfile.TemporaryDirectory(prefix="graphc-bench-") as folder:
            add(f"emit {name}", partial(_emptied, Path(folder) / name), write)
    return found


def _legal(target: Target, module: Module) -> Module:
    legal = target.prepare(module.clone())
    legalize(legal, target.supports, target.name)
    return legal


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
