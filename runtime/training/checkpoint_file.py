"""The file of a checkpoint: named arrays and a tree of state, in one safetensors file.

Any reader of safetensors can take the arrays out. What else there is stands in the metadata of the header:
`format` (`graphc-checkpoint <version>`), `state` (JSON in which `{"$array": name}` stands for one of the arrays), and
`sha256` of the whole file with zeros in its own place. Arrays are written one at a time, so that writing needs no
memory beyond the largest; nothing in a file is executed or unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from graphc.frontends.tensor_files import DTYPES
from graphc.frontends.whole_files import whole_file
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, FormatError, GraphcError, UnsupportedError
from graphc.ir.types import TensorType

FORMAT, VERSION = "graphc-checkpoint", 1
METADATA = "__metadata__"

_CODES = {np.dtype(kind): code for code, kind in DTYPES.items()}
_NO_DIGEST = "0" * 64
_LARGEST_HEADER = 100_000_000  # what the safetensors library takes
_LARGEST_RANK = 64  # NumPy's
_CHUNK = 1 << 20

Array = np.ndarray[Any, Any]


# --- writing ----------------------------------------------------------------------------------------------------------


def write_checkpoint(
    path: Path, state: Mapping[str, Any], types: Mapping[str, TensorType], read: Callable[[str], Array]
) -> None:
    """Write the arrays named in `types`, which `read` gives one by one, and `state`: whole or not at all, synced.

    `state` is made of dicts with text keys, lists, tuples (read back as lists), text, numbers, booleans, None and
    arrays. Raises `GraphcError` for what else it holds, and where the file cannot be written (a full disk, a folder
    that is missing or read-only): the file that was there before stays.
    """
    arrays: dict[str, Array] = {}
    tree = _encoded(state, "state", arrays, set(types))
    every = dict(types) | {name: TensorType.of(dtype_of(a.dtype), a.shape) for name, a in arrays.items()}
    # Wide items first: each array then starts at a multiple of its item's size.
    order = sorted(every, key=lambda name: -every[name].dtype.numpy.itemsize)
    header = _header(tree, {name: every[name] for name in order})
    digest = hashlib.sha256(header)
    with whole_file(path) as file:
        file.write(header)
        for name in order:
            array = arrays[name] if name in arrays else read(name)
            data = _bytes(name, array, every[name])
            digest.update(data)
            file.write(data)
        file.seek(header.index(_NO_DIGEST.encode()))
        file.write(digest.hexdigest().encode())


def _header(state: Any, types: Mapping[str, TensorType]) -> bytes:
    metadata = {"format": f"{FORMAT} {VERSION}", "sha256": _NO_DIGEST, "state": json.dumps(state)}
    entries: dict[str, Any] = {METADATA: metadata}
    place = 0
    for name, type in types.items():
        if name == METADATA:
            raise GraphcError(f"an array cannot be named {name!r}")
        end = place + math.prod(type.shape) * type.dtype.numpy.itemsize
        entries[name] = {"dtype": _code(name, type), "shape": list(type.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LARGEST_HEADER:
        raise GraphcError(f"the state of a checkpoint takes {len(text)} bytes, more than {_LARGEST_HEADER}")
    return len(text).to_bytes(8, "little") + text


def _code(name: str, type: TensorType) -> str:
    code = _CODES.get(type.dtype.numpy)
    if code is None:
        raise UnsupportedError(f"a checkpoint cannot hold {name!r}: safetensors has no dtype {type.dtype}")
    return code


def _bytes(name: str, array: Array, type: TensorType) -> memoryview:
    if array.shape != type.shape or array.dtype != type.dtype.numpy:
        raise GraphcError(f"{name!r} is {array.dtype}{list(array.shape)}, declared as {type}")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data  # bfloat16 has no buffer of its own


def _encoded(value: Any, place: str, arrays: dict[str, Array], taken: set[str]) -> Any:
    """`value` as JSON has it; arrays are put into `arrays` under the name of their place."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        name = place
        while name in taken or name in arrays:
            name += "_"
        arrays[name] = np.asarray(value)
        return {"$array": name}
    if isinstance(value, (list, tuple)):
        return [_encoded(each, f"{place}/{i}", arrays, taken) for i, each in enumerate(value)]
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str) or key.startswith("$")]
        if wrong:
            raise GraphcError(f"{place}: keys in a checkpoint are text that does not start with $, not {wrong[0]!r}")
        return {key: _encoded(each, f"{place}/{key}", arrays, taken) for key, each in value.items()}
    raise GraphcError(
        f"{place}: a checkpoint holds dicts, lists, text, numbers, booleans, None and arrays, "
        f"not {type(value).__name__}"
    )


# --- reading ----------------------------------------------------------------------------------------------------------


class Checkpoint:
    """A checkpoint that is open and known to be what was written.

    `types` are the arrays by name, without those of `state`, which are in it.
    """

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self.path = path
        self._file = file
        size = os.fstat(file.fileno()).st_size
        header = _read_header(file, size)
        entries = _json(header)
        metadata = entries.pop(METADATA, None)
        self.version: int = _version(metadata)
        self._data = 8 + len(header)
        self._places = _places(entries, size - self._data)
        _check_digest(file, header, metadata)
        used: set[str] = set()
        state = metadata.get("state")
        self.state: dict[str, Any] = self._decoded(_json(state), used) if isinstance(state, str) else {}
        self.types: dict[str, TensorType] = {name: t for name, (t, _) in self._places.items() if name not in used}

    def read(self, name: str) -> Array:
        """One of the arrays in `types`, read from the file."""
        type, place = self._places[name]
        array = np.empty(type.shape, type.dtype.numpy)
        if array.nbytes:
            self._file.seek(self._data + place)
            if self._file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise FormatError(f"{self.path.name} became shorter while it was read")
        return array

    def _decoded(self, value: Any, used: set[str]) -> Any:
        if isinstance(value, list):
            return [self._decoded(each, used) for each in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"$float"} and isinstance(value["$float"], str):
            return float(value["$float"])
        if set(value) == {"$array"}:
            if value["$array"] not in self._places:
                raise FormatError(f"the state refers to an array {value['$array']!r} that is not there")
            used.add(value["$array"])
            return self.read(value["$array"])
        return {key: self._decoded(each, used) for key, each in value.items()}


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """The checkpoint in a file, checked from end to end before any of it is used.

    Raises `FormatError` for a file that is missing, cut off, changed, of another kind, or written by a newer release.
    """
    if not path.is_file():
        raise FormatError(f"there is no file {str(path)!r}")
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise FormatError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    with file:
        try:
            checkpoint = Checkpoint(path, file)
        except FormatError as error:
            raise FormatError(f"{str(path)!r} is not a checkpoint that can be read: {error.message}") from None
        except (OSError, ValueError, OverflowError, RecursionError) as error:
            raise FormatError(f"{str(path)!r} is not a checkpoint that can be read: {error}") from error
        yield checkpoint


def _read_header(file: io.BufferedReader, size: int) -> bytes:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, _LARGEST_HEADER):
        raise FormatError("its header is longer than the file" if len(start) == 8 else "it is too short")
    return file.read(length)


def _json(data: bytes | str) -> dict[str, Any]:
    try:
        found = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its header is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise FormatError("its header is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FormatError("its header has a name twice")
    return found


def _version(metadata: Any) -> int:
    text = metadata.get("format") if isinstance(metadata, dict) else None
    match = re.fullmatch(rf"{FORMAT} ([1-9][0-9]{{0,8}})", text) if isinstance(text, str) else None
    if match is None:
        raise FormatError(f"its format is {text!r}, not {FORMAT!r}")
    version = int(match[1])
    if version > VERSION:
        raise FormatError(f"it is of version {version}, from a newer graphc; this release reads up to {VERSION}")
    return version


def _places(entries: Mapping[str, Any], size: int) -> dict[str, tuple[TensorType, int]]:
    """Type and start of each array. They follow each other and fill the file: what is read is bounded by its size."""
    found: dict[str, tuple[TensorType, int]] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise FormatError(f"the entry {name!r} of its header is not that of an array")
        kind, shape, span = DTYPES.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
        if kind is None:
            raise FormatError(f"{name!r} has the dtype {entry['dtype']!r}, which graphc does not read")
        if not (_sizes(shape) and _sizes(span) and len(span) == 2 and len(shape) <= _LARGEST_RANK):
            raise FormatError(f"the entry {name!r} of its header has no valid shape or place")
        if any(n > size for n in shape) and math.prod(shape):
            raise FormatError(f"{name!r} does not fit into the file")
        try:
            type = TensorType.of(dtype_of(np.dtype(kind)), shape)
        except DTypeError as error:
            raise FormatError(f"{name!r}: {error}") from None
        if span[1] - span[0] != math.prod(shape) * np.dtype(kind).itemsize:
            raise FormatError(f"the place of {name!r} is not as long as its shape asks for")
        found[name] = type, span[0]
        spans.append((span[0], span[1]))
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise FormatError("its arrays overlap or leave gaps")
        end = stop
    if end != size:
        raise FormatError("it is cut off, or something follows its arrays")
    return found


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_digest(file: io.BufferedReader, header: bytes, metadata: Mapping[str, Any]) -> None:
    wanted = metadata.get("sha256")
    if not isinstance(wanted, str) or re.fullmatch("[0-9a-f]{64}", wanted) is None:
        raise FormatError("it has no digest")
    digest = hashlib.sha256(len(header).to_bytes(8, "little"))
    digest.update(header.replace(wanted.encode(), _NO_DIGEST.encode(), 1))
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != wanted:
        raise FormatError("it is not what was written: its SHA-256 differs")
