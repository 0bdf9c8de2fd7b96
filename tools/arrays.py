"""Arrays in and out of the command: `.npz` files by input name or by order."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphc.ir.dtypes import dtype
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.graph import Function

Array = np.ndarray[Any, Any]


def read_inputs(path: Path, function: Function) -> dict[str, Array]:
    """The inputs of `function` by name, from a file that holds them by name, or by order as `arr_0`, `arr_1`.

    Other arrays in the file are left alone. Raises `FormatError` for what is no `.npz` and `GraphcError` for an input
    that is missing; shapes and dtypes are checked where the inputs are used.
    """
    arrays = read_arrays(path)
    names = [parameter.name for parameter in function.inputs]
    ordered = [f"arr_{number}" for number in range(len(names))]
    keys = names if any(name in arrays for name in names) or not all(key in arrays for key in ordered) else ordered
    missing = [p for p, key in zip(function.inputs, keys, strict=True) if key not in arrays]
    if missing:
        wanted = ", ".join(f"{p.name!r} ({p.type})" for p in missing)
        raise GraphcError(f"{path} misses the input {wanted}; it holds {', '.join(map(repr, arrays)) or 'nothing'}")
    return {name: arrays[key] for name, key in zip(names, keys, strict=True)}


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an `.npz` by name. Raises `FormatError` for what is none."""
    if not path.is_file():
        raise FormatError(f"there is no file {path}")
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise FormatError(f"{path} holds a single array; inputs are read from an .npz")
        with file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} is not an .npz of plain arrays, or is broken") from error


def write_outputs(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name, whole or not at all. What NumPy's format lacks (bfloat16, fp8) is stored as float32."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".npz")
    try:
        # Not `np.savez`, which takes no array called `file`.
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asanyarray(_storable(array)), allow_pickle=False)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _storable(array: Array) -> Array:
    kind = dtype(array.dtype)
    if kind.is_float and kind.bits < 32 and kind != "float16":
        return array.astype(np.float32)
    if kind.bits == 4:
        return array.astype(np.int8 if kind.kind == "i" else np.uint8)
    return array
