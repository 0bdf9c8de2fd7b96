"""Runs artifacts on ONNX Runtime.

Where an entry updates weights, all weights are inputs with a default, and are bound to buffers that stay in the
runtime's memory: see `state.py`. Elsewhere they are constants of the session, which folds and packs them; writing one
makes the session anew, at the next call.

Sessions are ONNX Runtime's with its defaults (all graph optimizations, a thread a core), but for `LEFT_OUT`.
`OMP_NUM_THREADS` limits their threads.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor
from onnxruntime import InferenceSession, IOBinding, OrtValue

from graphc.codegen.artifact import Entry, Manifest, Port
from graphc.codegen.onnx.graph import raw_data
from graphc.codegen.onnx.state import State
from graphc.codegen.onnx.values import array_of, is_plain, ort_value, plain_array
from graphc.codegen.target import EntryFunction, Loaded, not_stored
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import FormatError, UnsupportedError

Array = np.ndarray[Any, Any]

LEFT_OUT = ["CommonSubexpressionElimination", "WeightBiasQuantization"]
"""Optimizations that change what a model says: the first undoes rematerialisation, the second rounds kernels of floats
beside dequantized activations to 8 bits with one scale."""


def session(path: Path) -> InferenceSession:
    """A session of a model file. Raises `FormatError` for a file that the runtime does not read."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        options.intra_op_num_threads = int(threads)
    try:
        found = InferenceSession(str(path), options, ["CPUExecutionProvider"], disabled_optimizers=LEFT_OUT)
        _give_back()
        return found
    except Exception as error:  # the runtime's exceptions share no other base
        if type(error).__module__.startswith(onnxruntime.__name__):
            raise FormatError(f"{path} is not a model that ONNX Runtime reads: {error}") from None
        raise


def _give_back() -> None:
    """Give memory back that the runtime took to fold constants: glibc keeps what is freed, more than the weights."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


class OnnxArtifact(Loaded):
    """The model files of an artifact by entry, and the weights they share."""

    def __init__(self, folder: Path, files: Mapping[str, Path], manifest: Manifest) -> None:
        self.files = files
        self._all_files = [folder / name for name in manifest.files]
        self._names = dict.fromkeys(manifest.weights)
        self._written: dict[str, Array] = {}
        """Constants that differ from the files'."""
        updaters: dict[str, list[str]] = {}
        for name, entry in manifest.entries.items():
            for port in entry.outputs:
                if port.updates is not None:
                    updaters.setdefault(untied(port.updates, manifest.tied), []).append(name)
        self.changed = bool(updaters)
        sessions = {name: session(path) for name, path in files.items()}
        settable = {info.name for each in sessions.values() for info in each.get_overridable_initializers()}
        self.state = State({name: self._stored_array(name) for name in self._names if name in settable}, updaters)
        if updaters:
            self._entries = {
                name: StatefulEntry(sessions[name], entry, manifest.tied, self.state)
                for name, entry in manifest.entries.items()
            }
        else:
            self._entries = {name: PlainEntry(sessions[name], entry) for name, entry in manifest.entries.items()}
        self.entries = self._entries

    @property
    def stored(self) -> Sequence[str]:
        return list(self._names)

    def read(self, name: str) -> Array:
        self._check(name)
        if name in self.state:
            return self.state.current(name).array.copy()
        if name in self._written:
            return self._written[name].copy()
        return self._stored_array(name)

    def described(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        self._check(name)
        if name in self.state:
            array = self.state.current(name).array
            return array.shape, array.dtype
        tensor = self._tensors[name][1]
        return tuple(tensor.dims), np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))

    def replace(self, name: str, array: Array) -> None:
        if name in self.state:
            self.state.current(name).array[...] = array
            return
        kind = dtype_of(array.dtype)
        if kind.bits == 4:
            raise UnsupportedError(f"ONNX Runtime takes no other value for the weight {name!r} of {kind}")
        self._written[name] = array.copy()
        for entry in self._entries.values():
            entry.outdated = self._renew

    def write_weights(self, folder: Path) -> None:
        for path in self.files.values():
            model = onnx.load(str(path), load_external_data=False)
            for tensor in model.graph.initializer:
                if tensor.name in self._names:
                    data = raw_data(self.read(tensor.name), dtype_of(self.described(tensor.name)[1]))
                    if tensor.data_location == TensorProto.EXTERNAL:
                        info = ExternalDataInfo(tensor)
                        with open(folder / info.location, "r+b") as file:
                            file.seek(info.offset or 0)
                            file.write(data)
                    else:
                        tensor.raw_data = data
            (folder / path.name).write_bytes(model.SerializeToString())

    def _renew(self) -> None:
        """Make the sessions anew, with constants as they are now.

        A session's own way of replacing initializers comes after constants were folded, which is too late.
        """
        with TemporaryDirectory() as folder:
            for file in self._all_files:
                shutil.copyfile(file, Path(folder) / file.name)
            self.write_weights(Path(folder))
            for name, path in self.files.items():
                self._entries[name].renew(session(Path(folder) / path.name))

    def _check(self, name: str) -> None:
        if name not in self._names:
            raise not_stored(name)

    @cached_property
    def _tensors(self) -> dict[str, tuple[Path, TensorProto]]:
        """Each stored weight's initializer, in a file that has it."""
        found: dict[str, tuple[Path, TensorProto]] = {}
        for path in self.files.values():
            for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
                if tensor.name in self._names:
                    found.setdefault(tensor.name, (path, tensor))
        return found

    def _stored_array(self, name: str) -> Array:
        path, tensor = self._tensors[name]
        if tensor.data_location == TensorProto.EXTERNAL:
            with_data = TensorProto()
            with_data.CopyFrom(tensor)
            load_external_data_for_tensor(with_data, str(path.parent))
            tensor = with_data
        return np.array(onnx.numpy_helper.to_array(tensor))


def untied(weight: str, tied: Mapping[str, str]) -> str:
    """The weight that holds the array of this one."""
    while weight in tied:
        weight = tied[weight]
    return weight


class PlainEntry(EntryFunction):
    """An entry of an artifact in which none updates weights."""

    def __init__(self, session: InferenceSession, entry: Entry) -> None:
        self.session = session
        self.outdated: Callable[[], None] | None = None
        """Renews the session, where a constant of it was written."""
        self.inputs = _named_ports(session, entry.inputs)
        self.outputs = [info.name for info in session.get_outputs()]
        self.dtypes = [dtype_of(port.dtype) for port in entry.outputs]
        self.is_plain = all(map(is_plain, [*self.dtypes, *(kind for _, kind in self.inputs)]))

    def native(self, *arrays: Array) -> tuple[OrtValue, ...]:
        if self.outdated is not None:
            self.outdated()
        feeds = {name: ort_value(a, kind) for (name, kind), a in zip(self.inputs, arrays, strict=True)}
        return tuple(self.session.run_with_ort_values(self.outputs, feeds))

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        if not self.is_plain or self.outdated is not None:
            return self.to_numpy(self.native(*arrays))
        feeds = {name: plain_array(array) for (name, _), array in zip(self.inputs, arrays, strict=True)}
        found: Any = self.session.run(self.outputs, feeds)
        return tuple(found)

    def to_numpy(self, results: Sequence[OrtValue]) -> tuple[Array, ...]:
        return tuple(map(array_of, results, self.dtypes))

    def renew(self, session: InferenceSession) -> None:
        self.session, self.outdated = session, None


class StatefulEntry(EntryFunction):
    """An entry of an artifact in which some entry updates weights.

    Bindings of weights are made once for each combination of buffers, of which a training loop meets two.
    """

    def __init__(self, session: InferenceSession, entry: Entry, tied: Mapping[str, str], state: State) -> None:
        self.session = session
        self.outdated: Callable[[], None] | None = None
        self.state = state
        self.inputs = _named_ports(session, entry.inputs)
        names = [info.name for info in session.get_outputs()]
        ports = dict(zip(names, entry.outputs, strict=True))
        self.results = {name: dtype_of(port.dtype) for name, port in ports.items() if port.updates is None}
        self.writes = {name: untied(port.updates, tied) for name, port in ports.items() if port.updates is not None}
        self.reads = [info.name for info in session.get_overridable_initializers()]
        groups = state.group_of
        self.written_groups = sorted({groups[weight] for weight in self.writes.values()})
        self.touched = sorted({groups[name] for name in self.reads if name in groups} | {*self.written_groups})
        self._bindings: dict[tuple[int, ...], IOBinding] = {}

    def native(self, *arrays: Array) -> tuple[OrtValue, ...]:
        if self.outdated is not None:
            self.outdated()
        binding = self._binding()
        for (name, kind), array in zip(self.inputs, arrays, strict=True):
            if is_plain(kind):
                binding.bind_cpu_input(name, plain_array(array))
            else:
                binding.bind_ortvalue_input(name, ort_value(array, kind))
        for name in self.results:
            binding.bind_output(name)  # a new buffer for each run
        self.session.run_with_iobinding(binding)
        outputs = binding.get_outputs_as_ortvaluevector()
        for group in self.written_groups:
            self.state.turns[group] ^= 1
        return tuple([OrtValue(outputs[len(self.writes) + i]) for i in range(len(self.results))])

    def to_numpy(self, results: Sequence[OrtValue]) -> tuple[Array, ...]:
        return tuple(map(array_of, results, self.results.values()))

    def renew(self, session: InferenceSession) -> None:
        self.session, self.outdated, self._bindings = session, None, {}

    def _binding(self) -> IOBinding:
        turns = self.state.turns
        key = tuple([turns[group] for group in self.touched])
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bindings[key] = self.session.io_binding()
            for name in self.reads:
                binding.bind_ortvalue_input(name, self.state.current(name).value)
            for name, weight in self.writes.items():
                binding.bind_ortvalue_output(name, self.state.spare(weight).value)
        return binding


def _named_ports(session: InferenceSession, ports: Sequence[Port]) -> list[tuple[str, DType]]:
    """The session's name and the dtype of each input; the session lists them in order, weights apart."""
    names = [info.name for info in session.get_inputs()]
    return [(name, dtype_of(port.dtype)) for name, port in zip(names, ports, strict=True)]
