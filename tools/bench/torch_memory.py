"""What a step of PyTorch allocates, and what it holds when its loss is known."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from graphc.ir.errors import GraphcError


def peak_of(step: Callable[[], Any]) -> int:
    """The most bytes that are allocated at once in a step, beside what lives before it."""
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events: list[Any] = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def saved_by_hooks(forward: Callable[[], Any], given: Iterator[Any]) -> int:
    """Bytes of the storages, each once, that autograd saves in a forward pass, without those of the `given` tensors."""
    known = {tensor.untyped_storage().data_ptr() for tensor in given}
    found: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
        found.pop(loss.untyped_storage().data_ptr(), None)
        return sum(storage.nbytes() for storage in found.values())


def live_at_loss(function: Any, step: Callable[[], Any], given: Iterator[Any]) -> int:
    """Bytes of the storages, each once, that the variables of an emitted step hold when its loss is known.

    Without those of the `given` tensors, of the loss, and of the new values of states (`new_…`), which the backward
    part does not read.
    """
    code = inspect.unwrap(function).__code__  # below torch.no_grad
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    known = {tensor.untyped_storage().data_ptr() for tensor in given}
    found: list[int] = []
    state = {"seen": False}

    def local(frame: Any, event: str, argument: Any) -> Any:
        text = lines[frame.f_lineno - 1].strip()
        if event == "line" and not found:
            if state["seen"] and not text.startswith("del "):
                held = {n: value for n, value in frame.f_locals.items() if n != "loss" and not n.startswith("new_")}
                storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_in(held)}
                found.append(sum(size for place, size in storages.items() if place not in known))
            elif text.startswith("loss = "):
                state["seen"] = True
        return local

    sys.settrace(lambda frame, event, argument: local if frame.f_code is code else None)
    try:
        step()
    finally:
        sys.settrace(None)
    if not found:
        raise GraphcError(f"{code.co_filename} has no line that assigns the loss")
    return found[0]


def bytes_of(tensors: Iterable[Any]) -> int:
    """Bytes of the storages of tensors, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors in dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)
