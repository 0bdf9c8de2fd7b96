"""Runs artifacts on ONNX Runtime. A weight that an entry updates stays in the runtime's memory between calls.

Each such weight has two buffers. An entry reads the current one and writes the other, then they change roles: no buffer
is an input and an output of one run, so a result that reads the old value is right whatever the runtime's order.

Sessions are ONNX Runtime's with its defaults (all graph optimizations, a thread a core), but for the pass that merges
equal subexpressions, which would undo rematerialisation. `OMP_NUM_THREADS` limits their threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.external_data_helper import load_external_data_for_tensor
from onnxruntime import InferenceSession, IOBinding, OrtValue

from graphc.codegen.artifact import Entry, Manifest, Port
from graphc.codegen.onnx.graph import at_border
from graphc.codegen.onnx.kernels import ELEMENT_TYPES
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import FormatError
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]
EntryFunction = Callable[..., tuple[Array, ...]]


def session(path: Path) -> InferenceSession:
    """A session of a model file. Raises `FormatError` for a file that the runtime does not read."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
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


def load_entries(files: Mapping[str, Path], manifest: Manifest) -> dict[str, EntryFunction]:
    """The entries of an artifact as functions on arrays; updates of weights are seen by all of them."""
    sessions = {name: session(path) for name, path in files.items()}
    entries = manifest.entries
    ports = [port for entry in entries.values() for port in entry.outputs]
    updates = {port.updates: untied(port.updates, manifest.tied) for port in ports if port.updates is not None}
    if not updates:
        return {name: PlainEntry(loaded, entries[name]) for name, loaded in sessions.items()}
    state = State()
    for path in files.values():
        state.add_from(path, set(updates.values()))
    return {name: StatefulEntry(loaded, entries[name], updates, state) for name, loaded in sessions.items()}


def untied(weight: str, tied: Mapping[str, str]) -> str:
    """The weight that holds the array of this one."""
    while weight in tied:
        weight = tied[weight]
    return weight


@dataclass
class State:
    """The weights that entries update: for each the current buffer, the one to write next, and how often (modulo 2)
    they changed roles."""

    current: dict[str, OrtValue] = field(default_factory=dict[str, OrtValue])
    spare: dict[str, OrtValue] = field(default_factory=dict[str, OrtValue])
    turns: dict[str, int] = field(default_factory=dict[str, int])

    def add_from(self, path: Path, names: Set[str]) -> None:
        """Take up the stored values of these weights, where a model has them and they are not known yet."""
        model = onnx.load(str(path), load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.name in names and tensor.name not in self.current:
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    load_external_data_for_tensor(tensor, str(path.parent))
                self.add(tensor.name, onnx.numpy_helper.to_array(tensor))

    def add(self, name: str, array: Array) -> None:
        # Copies, because a value made of an array goes on using the array's memory.
        kind = dtype_of(array.dtype)
        self.current[name], self.spare[name] = ort_value(array.copy(), kind), ort_value(array.copy(), kind)
        self.turns[name] = 0

    def turn(self, names: Iterable[str]) -> None:
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
        self.dtypes = [dtype_of(port.dtype) for port in entry.outputs]

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        feeds = {name: ort_value(a, kind) for (name, kind), a in zip(self.inputs, arrays, strict=True)}
        return tuple(map(array_of, self.session.run_with_ort_values(self.outputs, feeds), self.dtypes))


class StatefulEntry:
    """An entry of an artifact in which some entry updates weights. `updates`: weights as ports name them → as stored.

    Bindings of weights are made once for each combination of buffers, of which a training loop meets two.
    """

    def __init__(self, session: InferenceSession, entry: Entry, updates: Mapping[str, str], state: State) -> None:
        self.session = session
        self.state = state
        self.inputs = _named_ports(session, entry.inputs)
        names = [info.name for info in session.get_outputs()]
        ports = dict(zip(names, entry.outputs, strict=True))
        self.results = {name: dtype_of(port.dtype) for name, port in ports.items() if port.updates is None}
        self.writes = {name: updates[port.updates] for name, port in ports.items() if port.updates is not None}
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
        outputs = binding.get_outputs()[len(self.writes) :]
        found = tuple(map(array_of, outputs, self.results.values()))
        self.state.turn(self.writes.values())
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
    return [(name, dtype_of(port.dtype)) for name, port in zip(names, ports, strict=True)]


def ort_value(array: Array, dtype: DType) -> OrtValue:
    """An array as a value of the runtime. It may go on using the array's memory."""
    kind = at_border(TensorType.of(dtype)).dtype
    array = np.ascontiguousarray(array, kind.numpy).reshape(np.shape(array))
    if kind.numpy.isbuiltin == 1:
        return OrtValue.ortvalue_from_numpy(array)
    bits = array.view(np.uint16 if kind.bits == 16 else np.uint8)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, ELEMENT_TYPES[kind])


def array_of(value: OrtValue, dtype: DType) -> Array:
    """A value of the runtime as an array of its own."""
    kind = at_border(TensorType.of(dtype)).dtype
    if kind.numpy.isbuiltin == 1:
        return value.numpy().astype(dtype.numpy)
    shape = value.shape()
    size = int(np.prod(shape)) * kind.numpy.itemsize
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bytearray(data), kind.numpy).reshape(shape)
