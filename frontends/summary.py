"""`model.summary()`: the layers as a table, with Keras's columns and totals."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from math import prod
from typing import Any

from graphc.frontends.layer import map_shapes
from graphc.frontends.nodes import Node
from graphc.frontends.structures import flatten, map_structure
from graphc.ir.errors import GraphcError


def print_summary(
    model: Any,
    line_length: int | None = None,
    positions: Any = None,
    print_fn: Any = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Any = None,
) -> None:
    """Print the table, or pass its text to `print_fn`. `layer_range`: patterns of the first and last layer's names."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    sequential = _is_chain(model)
    header = ["Layer (type)", "Output Shape", "Param #"] + ([] if sequential else ["Connected to"])
    shares = positions or ([0.45, 0.8, 1.0] if sequential else [0.3, 0.56, 0.74, 1.0])
    width = 88 if sequential else 108
    if show_trainable:
        header.append("Trainable")
        width += 12
        shares = [share * 0.9 for share in shares] + [1.0]
    width = line_length or min(width, shutil.get_terminal_size().columns - 4)
    ends = [int(share * width) for share in shares]
    widths = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    if min(widths) < 4:
        raise GraphcError("the line is too short for the table")
    columns = [
        Column(name, justify="right" if name == "Param #" else "left", width=each)
        for name, each in zip(header, widths, strict=True)
    ]
    table = Table(*columns, width=width, show_lines=True)
    rows = _in_range(_operations(model), layer_range)
    for operation in rows:
        for one, depth in _with_nested(operation, expand_nested):
            cells = [_title(model, one, depth), _output_shape(one), _params(one)]
            if not sequential:
                cells.append(_connections(model, one) if depth == 0 else "")
            if show_trainable:
                cells.append("-" if not getattr(one, "weights", None) else "Y" if one.trainable else "N")
            table.add_row(*map(escape, cells))
    console = Console(highlight=False, width=max(width + 4, 80) if print_fn else None, no_color=bool(print_fn))
    if print_fn:
        console.begin_capture()
    console.print(f'[bold]Model: "{escape(model.name)}"[/]')
    console.print(table)
    optimizer = getattr(model, "optimizer", None)
    kept = optimizer.variables if optimizer is not None and optimizer.built else []
    totals = {
        "Total": [*model.weights, *kept],
        "Trainable": model.trainable_weights,
        "Non-trainable": model.non_trainable_weights,
    }
    for label, weights in (totals | ({"Optimizer": kept} if kept else {})).items():
        count = sum(prod(v.shape) for v in weights)
        memory = sum(map(_bytes, weights))
        console.print(f"[bold] {label} params:[/] {count:,} ({_memory(memory)})")
    if print_fn:
        print_fn(console.end_capture())


def _bytes(variable: Any) -> float:
    """What a variable takes as it is stored: of what is quantized the integers and their scales."""
    stored = variable.storage
    return variable.dtype.bits / 8 * prod(variable.shape) if stored is None else sum(a.nbytes for a in stored.arrays)


def _operations(model: Any) -> list[Any]:
    """The rows: layers, and for a functional model the ops between them."""
    if not model.is_functional or hasattr(model, "_stack"):
        return model.layers
    return list(model._graph.operations)


def _is_chain(model: Any) -> bool:
    """Whether each row is connected to the one above, so that the table need not say it."""
    if not model.is_functional or hasattr(model, "_stack"):
        return True
    graph = model._graph
    operations = [id(node.owner) for node in graph.nodes]
    return (
        len(graph.flat_inputs) == 1
        and len(set(operations)) == len(operations)
        and all(len(node.inputs) == 1 for node in graph.nodes)
        and all(sum(any(t.node is node for t in other.inputs) for other in graph.nodes) <= 1 for node in graph.nodes)
        and len(graph.flat_outputs) == 1
    )


def _in_range(operations: list[Any], layer_range: Any) -> list[Any]:
    if layer_range is None:
        return operations
    first, last = layer_range
    starts = [i for i, op in enumerate(operations) if re.match(first, op.name)]
    stops = [i for i, op in enumerate(operations) if re.match(last, op.name)]
    if not starts or not stops:
        raise GraphcError(f"layer_range = {list(layer_range)} matches no layers of the model")
    low, high = min(starts), max(stops)
    return operations[low : high + 1] if low <= high else operations[min(stops) : max(starts) + 1]


def _with_nested(operation: Any, expand: bool, depth: int = 0) -> Iterator[tuple[Any, int]]:
    yield operation, depth
    if expand and hasattr(operation, "get_layer"):
        for layer in operation.layers:
            yield from _with_nested(layer, True, depth + 1)


def _title(model: Any, operation: Any, depth: int) -> str:
    indent = f"{'   ' * depth}└ " if depth else ""
    if isinstance(operation, Node):
        kind = operation.name.title().replace("_", "")
    else:
        kind = type(operation).__name__
        if kind == "Model" and operation.is_functional:
            kind = "Functional"
    name = model._graph.names.get(id(operation), operation.name) if model.is_functional else operation.name
    return f"{indent}{name} ({kind})"


def _output_shape(operation: Any) -> str:
    nodes = [operation] if isinstance(operation, Node) else operation.inbound_nodes
    if not nodes:
        return _built_shape(operation)
    shapes = map_structure(lambda tensor: _shape_text(tensor.shape), nodes[-1].output_structure)
    flat = flatten(shapes)
    return flat[0] if len(flat) == 1 else str(shapes).replace("'", "")


def _built_shape(layer: Any) -> str:
    """The output shape of a layer that was called by a model's own `call`: for the input it was built for."""
    shapes = list((layer._build_shapes or {}).values())
    if len(shapes) != 1:
        return "?"
    try:
        found = map_shapes(_shape_text, layer.compute_output_shape(shapes[0]))
    except GraphcError:  # it takes another dtype than that of its weights, or more than shapes
        return "?"
    return found if isinstance(found, str) else str(found).replace("'", "")


def _shape_text(shape: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _params(operation: Any) -> str:
    if not hasattr(operation, "count_params"):
        return "0"
    return f"{operation.count_params():,}" if operation.built else "0 (unbuilt)"


def _connections(model: Any, operation: Any) -> str:
    found: list[str] = []
    for node in model._graph.nodes:
        if node.owner is operation:
            for tensor in node.inputs:
                layer = tensor.node.layer
                call = 0 if layer is None else [id(n) for n in layer.inbound_nodes].index(id(tensor.node))
                name = model._graph.names.get(id(tensor.node.owner), tensor.node.name)
                found.append(f"{name}[{call}][{tensor.output_index}]")
    return ", ".join(found) or "-"


def _memory(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} PB"
