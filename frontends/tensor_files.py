"""Named arrays as safetensors bytes, in every dtype that format has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save

from graphc.ir.errors import FormatError, UnsupportedError

Array = np.ndarray[Any, Any]

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32,
    "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
    "C64": np.complex64,
    "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip


def tensor_bytes(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """The arrays in the safetensors format, with texts beside them.

    Raises `UnsupportedError` for dtypes it lacks (4-bit, complex128).
    """
    lacking = sorted(name for name, array in arrays.items() if array.dtype not in map(np.dtype, DTYPES.values()))
    if lacking:
        raise UnsupportedError(f"safetensors has no dtype for {', '.join(f'{n} ({arrays[n].dtype})' for n in lacking)}")
    found = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # scalars stay scalars
    return save(found, None if metadata is None else dict(metadata))


def metadata_of(data: bytes, what: str) -> dict[str, str]:
    """The texts beside the arrays in safetensors bytes. Raises `FormatError` if they are broken."""
    size = int.from_bytes(data[:8], "little")
    try:
        if size > len(data) - 8:
            raise ValueError("its header is cut off")
        found = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise ValueError("its metadata are no texts")
    except (ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{what} is not a valid safetensors file: {error}") from error
    return found


def tensors_of(data: bytes, what: str) -> dict[str, Array]:
    """The arrays in safetensors bytes. Raises `FormatError` if they are broken."""
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise FormatError(f"{what} is not a valid safetensors file: {error}") from error
    found: dict[str, Array] = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise FormatError(f"{what}: {name!r} has the dtype {entry['dtype']}, which graphc does not read")
        dtype = np.dtype(DTYPES[entry["dtype"]])
        found[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return found
