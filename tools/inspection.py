"""What is in a module: a summary of functions, ops, parameters, operations and memory, as tables or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphc.ir.analysis.cost import function_cost
from graphc.ir.analysis.liveness import live_bytes
from graphc.ir.dims import Size, substitute
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function
from graphc.ir.module import Module
from graphc.passes.quantization.sizes import bits_a_weight, stored_sizes
from graphc.passes.quantization.targets import quantized_weights
from graphc.runtime.budget import all_symbols, size_text

if TYPE_CHECKING:
    from rich.table import Table


def describe(module: Module, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Everything the summary shows, as JSON takes it. Symbols that `sizes` lacks are as small as they may be.

    Raises `GraphcError` for a size of a symbol that no function has.
    """
    symbols = {s.name for function in module.functions.values() for s in all_symbols(function)}
    for name in sizes or {}:
        if name not in symbols:
            there = f"the symbols are {', '.join(sorted(symbols))}" if symbols else "it has none"
            raise GraphcError(f"the model has no symbol {name!r}; {there}")
    return {
        "functions": [_function(function, sizes or {}) for function in module.functions.values()],
        "weights": [
            {"name": weight.name, "type": str(weight.type), "trainable": weight.trainable, "tied": weight.alias}
            for weight in module.weights.entries()
        ],
        "stored": [
            {"name": size.name, "format": size.form, "bytes": size.bytes, "bits_a_weight": size.bits}
            for size in stored_sizes(module)
        ],
        "parameters": _count(module, None),
        "trainable_parameters": _count(module, True),
    }


def _count(module: Module, trainable: bool | None) -> int:
    total = 0
    for weight in module.weights.entries():
        if weight.alias is None and trainable in (None, weight.trainable):
            count = 1
            for size in weight.type.shape:
                assert isinstance(size, int)
                count *= size
            total += count
    return total


def _function(function: Function, sizes: Mapping[str, int]) -> dict[str, Any]:
    bindings = {s.name: sizes.get(s.name, s.minimum) for s in all_symbols(function)}
    cost, live = function_cost(function), live_bytes(function, bindings)
    ops = Counter(op.name for op in function.walk())
    return {
        "name": function.name,
        "entry": function.public,
        "inputs": [{"name": p.name, "type": str(p.type), "role": p.role} for p in function.inputs],
        "outputs": [
            {
                "name": result.name or f"output_{i}",
                "type": str(value.type),
                "updates": None if result.updates is None else result.updates.weight,
            }
            for i, (result, value) in enumerate(zip(function.results, function.outputs, strict=True))
        ],
        "guards": [str(guard) for guard in function.guards],
        "sizes": bindings,
        "ops": dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        "flops": _cost(cost.flops, function, bindings),
        "bytes": _cost(cost.bytes, function, bindings),
        "exact": cost.exact,
        "peak_bytes": live.peak,
        "peak_at": str(live.at.location) or live.at.name,
        "weight_bytes": live.weights,
        "input_bytes": live.inputs,
    }


def _cost(size: Size, function: Function, bindings: Mapping[str, int]) -> dict[str, Any]:
    found = substitute(size, {symbol: bindings[symbol.name] for symbol in all_symbols(function)})
    return {"expression": str(size), "value": found if isinstance(found, int) else None}


def summary(module: Module, sizes: Mapping[str, int] | None = None) -> list[Table]:
    """The tables of `graphc inspect --format summary`: functions, then ops by kind."""
    from rich.table import Table

    found = describe(module, sizes)
    head = f"{found['parameters']:,} parameters, {found['trainable_parameters']:,} of them trainable"
    functions = Table(title=f"Functions ({head})", title_justify="left")
    for column in ("function", "inputs", "outputs", "ops", "at", "FLOPs", "bytes moved", "peak live", "weights"):
        functions.add_column(column, overflow="fold", justify="left" if column in ("function", "inputs") else "right")
    for each in found["functions"]:
        functions.add_row(
            f"@{each['name']}" if each["entry"] else f"private @{each['name']}",
            "\n".join(f"{port['name']}: {port['type']}" for port in each["inputs"]),
            "\n".join(port["type"] for port in each["outputs"]),
            f"{sum(each['ops'].values()):,}",
            ", ".join(f"{name} = {size}" for name, size in each["sizes"].items()) or "–",
            f"{_shown(each['flops'])}{'' if each['exact'] else ' and more'}",
            size_text(each["bytes"]["value"]) if each["bytes"]["value"] is not None else each["bytes"]["expression"],
            size_text(each["peak_bytes"]),
            size_text(each["weight_bytes"]),
        )
    kinds = Table(title="Ops", title_justify="left")
    kinds.add_column("op")
    for each in found["functions"]:
        kinds.add_column(f"@{each['name']}", justify="right")
    total = Counter[str]()
    for each in found["functions"]:
        total.update(each["ops"])
    for name, _ in total.most_common():
        kinds.add_row(name, *(f"{each['ops'].get(name, 0):,}" for each in found["functions"]))
    return [functions, kinds, *_sizes(module)]


def _sizes(module: Module) -> list[Table]:
    """Size on disk, where weights are quantized: by format, and of all."""
    from rich.table import Table

    sizes = stored_sizes(module)
    if not quantized_weights(module):
        return []
    table = Table(title="Weights on disk, scales and zero points counted", title_justify="left")
    for column in ("format", "weights", "parameters", "bytes", "bits a weight"):
        table.add_column(column, justify="left" if column == "format" else "right")
    forms = dict.fromkeys(size.form for size in sizes)
    for form, each in [*((form, [s for s in sizes if s.form == form]) for form in forms), ("all", sizes)]:
        count, total = sum(size.elements for size in each), sum(size.bytes for size in each)
        table.add_row(form, f"{len(each):,}", f"{count:,}", f"{total:,}", f"{bits_a_weight(each):.2f}")
    return [table]


def _shown(cost: dict[str, Any]) -> str:
    return f"{cost['value']:,}" if cost["value"] is not None else cost["expression"]
