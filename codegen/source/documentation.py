"""Docstrings of emitted files: what the model is, what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Function
from graphc.ir.types import TensorType

MOST_UPDATES = 3
"""Weights that are named as updated by an entry; of more their number is told."""


def module_docstring(entries: Sequence[tuple[Function, Sequence[str]]], framework: str, usage: Sequence[str]) -> str:
    """The docstring at the top of a file; each entry comes with the names of its parameters."""
    example = "\n".join(f"    {line}" for line in usage)
    described = "\n".join(entry_block(function, parameters) for function, parameters in entries)
    head = f"A model in {framework}, with its weights in model.safetensors beside this file."
    return f'"""{head}\n\n{example}\n\n{described}\n"""'


def entry_block(function: Function, parameters: Sequence[str]) -> str:
    """Inputs and outputs of an entry, a line each."""
    lines = [f"{function.name}:"]
    lines += [f"    {name}: {shown(p.type)}" for name, p in zip(parameters, function.inputs, strict=True)]
    lines.append(f"    returns {results(function)}")
    lines += [f"    needs {guard}" for guard in function.guards]
    return "\n".join(lines)


def entry_line(function: Function, parameters: Sequence[str]) -> str:
    """Inputs and outputs of an entry in one line."""
    inputs = ", ".join(f"{name}: {shown(p.type)}" for name, p in zip(parameters, function.inputs, strict=True))
    line = f"{inputs} → {results(function)}" if inputs else results(function)
    if len(line) <= 100:
        return line
    returned = [result.name or "an array" for result in function.results if result.updates is None]
    line = f"{', '.join(parameters)} → {', '.join(returned) or 'nothing'}; types are at the top of the file."
    return line if len(line) <= 100 else "What goes in and comes out is at the top of the file."


def class_line(entries: Sequence[tuple[Function, Sequence[str]]]) -> str:
    """What the class of a model is: its entry, or that it has several."""
    if len(entries) == 1:
        return entry_line(*entries[0])
    return f"The entries {', '.join(function.name for function, _ in entries)} over one set of weights."


def results(function: Function) -> str:
    texts = [
        f"{result.name}: {shown(value.type)}" if result.name else shown(value.type)
        for result, value in zip(function.results, function.outputs, strict=True)
        if result.updates is None
    ]
    updated = [
        quoted(r.updates.weight) for r in function.results if r.updates is not None and r.updates.weight is not None
    ]
    text = ", ".join(texts) or "nothing"
    if len(updated) > MOST_UPDATES:
        return f"{text}; updates {len(updated)} weights and states"
    return f"{text}; updates {', '.join(updated)}" if updated else text


def quoted(name: str) -> str:
    """A model's own name for something, harmless in a docstring, whatever quotes, backslashes and newlines it has."""
    return "".join(c if c.isprintable() and c not in '"\\' else "_" for c in name)


def shown(type: TensorType) -> str:
    """`float32[B, 784]`, as users know the dtype."""
    return f"{type.dtype}[{', '.join(map(str, type.shape))}]"
