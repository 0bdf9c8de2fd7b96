"""Runs artifacts on ONNX Runtime. A weight that an entry updates stays in the runtime's memory between calls.

Each such weight has two buffers. An entry reads the current one and writes the other, then they change roles: no buffer
is an input and an output of one run, so a result that reads the old value is right whatever the runtime's order.

Sessions are ONNX Runtime's with its defaults (all graph optimizations, a thread a core), but for the pass that merges
equal subexpressions, which would undo rematerialisation. `OMP_NUM_THREADS` limits their threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime import InferenceSession, IOBinding, OrtValue, SessionOptions

from graphc.codegen.artifact import Entry, Port
from graphc.codegen.onnx.kernels import ELEMENT_TYPES
from graphc.ir.dtypes import DType, dtype
from graphc.ir.errors import FormatError

Array = np.ndarray[Any, Any]
EntryFunction = Callable[..., tuple[Array, ...]]


def session(path: Path) -> InferenceSession:
    """A session of a model file. Raises `FormatError` for a file that the runtime does not read."""
    options = SessionOptions()
    options.log_severity_level = 3  # errors: warnings are about its own optimizer
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        options.intra_op_num_threads = int(threads)
    try:
        return InferenceSession(
            str(path), options, ["CPUExecutionProvider"], disabled_optimizers=["CommonSubexpressionElimination"]
        )
    except Exception as error:  # the runtime's exceptions share no other base
        if type(error).__module__.startswith(onnxruntime.__name__):
            raise FormatError(f"{path} is not a model that ONNX Runtime reads: {error}") from None
        raise


def load_entries(files: Mapping[str, Path], entries: Mapping[str, Entry]) -> dict[str, EntryFunction]:
    """The entries of an artifact as functions on arrays; updates of weights are seen by all of them."""
    sessions = {name: session(path) for name, path in files.items()}
    state = State()
    for name, loaded in sessions.items():
        defaults = [info.name for info in loaded.get_overridable_initializers()]
        state.add_from(files[name], [weight for weight in defaults if weight not in state.current])
    return {
        name: StatefulEntry(sessions[name], entries[name], state)
        if state.current
        else PlainEntry(loaded, entries[name])
        for name, loaded in sessions.items()
    }


@dataclass
class State:
    """The weights that entries update: for each the current buffer and the one to write next."""

    current: dict[str, OrtValue] = field(default_factory=dict[str, OrtValue])
    spare: dict[str, OrtValue] = field(default_factory=dict[str, OrtValue])
    turns: dict[str, int] = field(default_factory=dict[str, int])

    def add_from(self, path: Path, names: Sequence[str]) -> None:
        """Take up the defaults of these inputs of a model."""
        if not names:
            return
        model = onnx.load(str(path))
        for tensor in model.graph.initializer:
            if tensor.name in names:
                array = onnx.numpy_helper.to_array(tensor)
                kind = dtype(array.dtype)
                # Two copies of their own: OrtValues made of arrays go on using the arrays' memory.
                self.current[tensor.name], self.spare[tensor.name] = (ort_value(array.copy(), kind) for _ in range(2))
                self.turns[tensor.name] = 0

    def turn(self, names: Sequence[str]) -> None:
        """What was written becomes current."""
        for name in names:
            self.current[name], self.spare[name] = self.spare[name], self.current[name]
            self.turns[name] ^= 1


class PlainEntry:
    """An entry of an artifact whose weights never change."""

    def __init__(self, session: InferenceSession, entry: Entry) -> None:
        self.session = session
        self.inputs = _named_ports(session, entry.inputs)
        self.outputs = [info.name for info in session.get_outputs()]

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        feeds = {name: ort_value(a, kind) for (name, kind), a in zip(self.inputs, arrays, strict=True)}
        return tuple(map(array_of, self.session.run_with_ort_values(self.outputs, feeds)))


class StatefulEntry:
    """An entry of an artifact in which some entry updates weights.

    Bindings of weights are made once for each combination of buffers, of which a training loop meets two.
    """

    def __init__(self, session: InferenceSession, entry: Entry, state: State) -> None:
        self.session = session
        self.state = state
        self.inputs = _named_ports(session, entry.inputs)
        names = [info.name for info in session.get_outputs()]
        self.results = [name for name, port in zip(names, entry.outputs, strict=True) if port.updates is None]
        self.writes = {name: port.updates for name, port in zip(names, entry.outputs, strict=True) if port.updates}
        self.reads = [info.name for info in session.get_overridable_initializers()]
        self.touched = sorted({*self.reads, *self.writes.values()})
        self._bindings: dict[tuple[int, ...], IOBinding] = {}

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Run on arrays in input order; returns the results that update nothing."""
        binding = self._binding()
        held = [ort_value(array, kind) for (_, kind), array in zip(self.inputs, arrays, strict=True)]
        for (name, _), value in zip(self.inputs, held, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self.results:
            binding.bind_output(name)  # a new buffer for each run
        self.session.run_with_iobinding(binding)
        outputs = binding.get_outputs()[-len(self.results) :] if self.results else []
        found = tuple(array_of(value) for value in outputs)
        self.state.turn(list(self.writes.values()))
        return found

    def _binding(self) -> IOBinding:
        turns = self.state.turns
        key = tuple([turns[name] for name in self.touched])
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bindings[key] = self.session.io_binding()
            for name in self.reads:
                binding.bind_ortvalue_input(name, self.state.current[name])
            for name, weight in self.writes.items():
                binding.bind_ortvalue_output(name, self.state.spare[weight])
        return binding


def _named_ports(session: InferenceSession, ports: Sequence[Port]) -> list[tuple[str, DType]]:
    """The session's name and the dtype of each input; the session lists them in order, weights apart."""
    names = [info.name for info in session.get_inputs()]
    return [(name, dtype(port.dtype)) for name, port in zip(names, ports, strict=True)]


def ort_value(array: Array, kind: DType) -> OrtValue:
    """An array as a value of the runtime. It may go on using the array's memory."""
    array = np.ascontiguousarray(array, kind.numpy).reshape(np.shape(array))
    if kind.numpy.isbuiltin == 1:
        return OrtValue.ortvalue_from_numpy(array)
    bits = array.view(np.uint16 if kind.bits == 16 else np.uint8)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, ELEMENT_TYPES[kind])


def array_of(value: OrtValue) -> Array:
    """A value of the runtime as an array of its own."""
    kind = _DTYPES[value.element_type()]
    if kind.numpy.isbuiltin == 1:
        return np.array(value.numpy())
    shape = value.shape()
    size = int(np.prod(shape)) * kind.numpy.itemsize
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bytearray(data), kind.numpy).reshape(shape)


_DTYPES = {element: kind for kind, element in ELEMENT_TYPES.items()}
