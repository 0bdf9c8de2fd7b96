"""NumPy source: functions over a nested dict of arrays."""

from __future__ import annotations

from typing import Any

from graphc.codegen.numpy.helpers import HELPERS
from graphc.codegen.numpy.spelling import SPELLING, dtype_text
from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.dialect import Spelling
from graphc.codegen.source.functional import FunctionalDialect
from graphc.codegen.source.quantization import numpy_helpers
from graphc.codegen.source.regions import write_region_op
from graphc.ir.dtypes import DType
from graphc.ir.graph import Op
from graphc.ir.types import TensorType


class NumpyDialect(FunctionalDialect):
    """See `spelling.py` for the ops."""

    framework = "NumPy"
    is_eager = True
    spelling: dict[str, Spelling] = SPELLING
    helpers = {name: source.strip() for name, source in (HELPERS | numpy_helpers("np")).items()}
    imports = {
        "Path": "from pathlib import Path",
        "math": "import math",
        "itertools": "import itertools",
        "np": "import numpy as np",
        "ml_dtypes": "import ml_dtypes",
        "special": "from scipy import special",
        "load_file": "from safetensors.numpy import load_file",
    }
    reserved = frozenset({"np", "special", "params", "load", "nested", "Path", "Model", "forward", *helpers})
    light = frozenset({"relu", "sigmoid", "tanh", "silu", "transpose", "reshape", "convert"})

    def dtype(self, dtype: DType) -> str:
        return dtype_text(dtype)

    def is_weak_beside(self, value: Any, dtype: DType) -> bool:
        return dtype.numpy.isbuiltin == 1

    def non_finite(self, name: str) -> str:
        return f"np.{name}"

    def array(self, value: str, type: TensorType) -> str:
        return f"np.array({value}, {dtype_text(type.dtype)})"

    def stacked(self, rows: str) -> str:
        return f"np.stack({rows})"

    def region_op(self, body: BodyWriter, op: Op) -> None:
        write_region_op(body, op)
