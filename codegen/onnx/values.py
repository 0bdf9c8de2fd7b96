"""Arrays as values of ONNX Runtime and back."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from onnxruntime import OrtValue

from graphc.codegen.onnx.graph import at_border
from graphc.codegen.onnx.kernels import ELEMENT_TYPES
from graphc.ir.dtypes import DType
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]


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
    if is_plain(dtype):
        return value.numpy()
    kind = at_border(TensorType.of(dtype)).dtype
    if kind.numpy.isbuiltin == 1:
        return value.numpy().astype(dtype.numpy)
    shape = value.shape()
    size = int(np.prod(shape)) * kind.numpy.itemsize
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bytearray(data), kind.numpy).reshape(shape)


def is_plain(dtype: DType) -> bool:
    """Whether the runtime takes and gives NumPy arrays of this dtype as they are."""
    return dtype.bits != 4 and dtype.numpy.isbuiltin == 1


def plain_array(array: Array) -> Array:
    """The array in rows, as the runtime reads it."""
    return np.asarray(array, order="C")
