"""`graphc inspect --memory`: the planned peak of each entry, where it is reached, what is live there, and for a step
that trains what peaks plans with a memory budget come to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from graphc import codegen
from graphc.codegen.compiler import write_artifact
from graphc.ir.analysis.liveness import PLAIN, Memory, live_bytes, type_bytes
from graphc.ir.dims import evaluate
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function, Op, Parameter, Value
from graphc.ir.module import Module
from graphc.passes.partition.planner import frontier
from graphc.passes.partition.remat import has_backward
from graphc.passes.partition.updates import settle_updates
from graphc.runtime.budget import all_symbols, size_text

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 20
"""Values that the table lists, the largest first."""

PLANS = 8
"""Plans that the table of a training step has at most."""

SLOTS = ("optimizer/", "metrics/")
"""How the names of weights begin that belong to the training and not to the model."""


def training_module(source: str, entry: str | None, data: Path) -> Module:
    """What `fit` compiles of the model in a file, for batches like the arrays of `data`. Raises `GraphcError`."""
    from graphc.tools.train import Plan, data_of, model_of, prepare

    plan = Plan(source, data, entry=entry)
    model = model_of(plan)
    found = data_of(data, model)
    prepare(model, found, plan)
    module: Module = model.training_module(*found)
    return module


def describe(module: Module, sizes: Mapping[str, int], target: str | None) -> dict[str, Any]:
    """The plan of each entry, as JSON takes it: as `target` runs it, or of the module as it is.

    Symbols that `sizes` lacks are as small as they may be. Raises `GraphcError` for a size of a symbol that no entry
    has.
    """
    memory = PLAIN
    if target is not None:
        memory, module = codegen.target(target).memory, as_written(module, target)
    symbols = {symbol.name for function in module.entries.values() for symbol in all_symbols(function)}
    for name in sizes:
        if name not in symbols:
            there = f"the symbols are {', '.join(sorted(symbols))}" if symbols else "it has none"
            raise GraphcError(f"the model has no symbol {name!r}; {there}")
    return {"target": target, "entries": [_entry(each, sizes, memory) for each in module.entries.values()]}


def as_written(module: Module, target: str) -> Module:
    """What the target is given to write of a module."""
    seen = [module]
    with TemporaryDirectory() as folder:
        write_artifact(module, target, Path(folder) / "artifact", observe=lambda stage, passed: seen.append(passed))
    return seen[-1]


def _entry(function: Function, sizes: Mapping[str, int], memory: Memory) -> dict[str, Any]:
    bindings = {symbol.name: sizes.get(symbol.name, symbol.minimum) for symbol in all_symbols(function)}
    live = live_bytes(function, bindings, memory)
    values = [_value(value, bindings) for value in dict.fromkeys(live.live)]
    slots = sum(_parameter_bytes(each, bindings) for each in _weights(function) if _is_slot(each))
    held = sum(value["bytes"] for value in values)
    return {
        "name": function.name,
        "sizes": bindings,
        "peak_bytes": live.peak,
        "weight_bytes": live.weights - slots,
        "slot_bytes": slots,
        "input_bytes": live.inputs,
        "total_bytes": live.total,
        "at": {"op": live.at.name, "layer": _layer(live.at)},
        "live": sorted(values, key=lambda value: -value["bytes"]),
        "workspace_bytes": max(live.peak - held, 0),
        "plans": _plans(function, bindings, memory),
    }


def _plans(function: Function, bindings: Mapping[str, int], memory: Memory) -> list[dict[str, Any]]:
    """Plans of a step that trains, by falling peak, each with the least budget that it keeps; none for other entries.

    A budget between two of them may give a better plan than the second.
    """
    if not has_backward(function) or function.module is None:
        return []
    if memory.in_place:
        function = function.module.clone().functions[function.name]
        settle_updates(function)
    plans = frontier(function, bindings, memory)
    count = len(plans)
    if count > PLANS:
        plans = [plans[i * (count - 1) // (PLANS - 1)] for i in range(PLANS)]
    return [
        {
            "peak_bytes": plan.peak,
            "saved_bytes": plan.saved_bytes,
            "extra_flops": plan.extra_flops,
            "forward_flops": sum(plan.graph.flops[: plan.graph.forward]),
            "memory_budget": int(plan.peak / (1 - memory.slack)) + 1,
        }
        for plan in plans
    ]


def _value(value: Value, bindings: Mapping[str, int]) -> dict[str, Any]:
    op = value.op
    return {
        "name": value.name,
        "type": str(value.type),
        "op": None if op is None else op.name,
        "layer": "" if op is None else _layer(op),
        "bytes": evaluate(type_bytes(value.type), bindings),
    }


def _layer(op: Op) -> str:
    return op.location.scope.path


def _weights(function: Function) -> list[Parameter]:
    """The parameters that stand for weights, tied ones once."""
    found: dict[str, Parameter] = {}
    for parameter in function.parameters:
        if parameter.weight is not None:
            assert function.module is not None
            found.setdefault(function.module.weights.source(parameter.weight).name, parameter)
    return list(found.values())


def _is_slot(parameter: Parameter) -> bool:
    return parameter.weight is not None and parameter.weight.startswith(SLOTS)


def _parameter_bytes(parameter: Parameter, bindings: Mapping[str, int]) -> int:
    return evaluate(type_bytes(parameter.type), bindings)


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What `describe` found, for people: a table of the entries, and of each what is live at its peak."""
    from rich.table import Table

    of = "the module as it is" if found["target"] is None else f"the target {found['target']}"
    summary = Table(title=f"Planned memory of {of}", title_justify="left")
    for column in ("entry", "at sizes", "total", "weights", "slots", "inputs", "peak beside", "reached at"):
        summary.add_column(column, overflow="fold", justify="left" if column in ("entry", "reached at") else "right")
    shown = [summary]
    for entry in found["entries"]:
        op, layer = entry["at"]["op"], entry["at"]["layer"]
        place = f"{op} in {layer}" if layer else op
        parts = [size_text(entry[f"{part}_bytes"]) for part in ("total", "weight", "slot", "input", "peak")]
        at = ", ".join(f"{name} = {size}" for name, size in entry["sizes"].items()) or "–"
        summary.add_row(f"@{entry['name']}", at, *parts, place)
        shown.append(_live_table(entry, place))
        if entry["plans"]:
            shown.append(_plans_table(entry))
    return shown


def _plans_table(entry: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title=f"Plans of @{entry['name']} that compute forward values again", title_justify="left")
    for column in ("memory_budget", "peak beside", "saved", "extra FLOPs", "of the forward part"):
        table.add_column(column, justify="right")
    for plan in entry["plans"]:
        part = plan["extra_flops"] / max(plan["forward_flops"], 1)
        sizes = size_text(plan["peak_bytes"]), size_text(plan["saved_bytes"])
        table.add_row(str(plan["memory_budget"]), *sizes, f"{plan['extra_flops']:,}", f"{part:.1%}")
    return table


def _live_table(entry: Mapping[str, Any], place: str) -> Table:
    from rich.table import Table

    table = Table(title=f"Live in @{entry['name']} at {place}", title_justify="left")
    for column in ("bytes", "type", "made by", "layer"):
        table.add_column(column, overflow="fold", justify="right" if column == "bytes" else "left")
    for value in entry["live"][:SHOWN]:
        table.add_row(size_text(value["bytes"]), value["type"], value["op"] or "a parameter", value["layer"] or "–")
    rest = entry["live"][SHOWN:]
    if rest:
        table.add_row(size_text(sum(value["bytes"] for value in rest)), f"{len(rest)} more values", "", "")
    if entry["workspace_bytes"]:
        table.add_row(size_text(entry["workspace_bytes"]), "workspace", entry["at"]["op"], entry["at"]["layer"] or "–")
    return table
