"""JAX source: pure functions over a nested dict of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.codegen.jax.helpers import HELPERS
from graphc.codegen.jax.regions import write_region_op
from graphc.codegen.jax.spelling import SPELLING, dtype_text
from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.dialect import Spelling
from graphc.codegen.source.documentation import entry_line
from graphc.codegen.source.functional import LOAD, FunctionalDialect, indented
from graphc.codegen.source.quantization import numpy_helpers
from graphc.codegen.source.writer import Definition, Method
from graphc.ir.dtypes import DType
from graphc.ir.graph import Op, Value
from graphc.ir.module import Module
from graphc.ir.types import TensorType

DONATED = "The memory of `params` is used for the new ones, which are returned: go on with these."

COPIED = "params = jax.tree.map(lambda leaf: leaf, params)  # new dicts, in which the new weights take their places"


class JaxDialect(FunctionalDialect):
    """See `spelling.py` for the ops."""

    framework = "JAX"
    spelling: dict[str, Spelling] = SPELLING
    helpers = {name: source.strip() for name, source in (HELPERS | numpy_helpers("jnp")).items()}
    imports = {
        "Path": "from pathlib import Path",
        "partial": "from functools import partial",
        "math": "import math",
        "functools": "import functools",
        "itertools": "import itertools",
        "jax": "import jax",
        "jnp": "import jax.numpy as jnp",
        "np": "import numpy as np",
        "lax": "from jax import lax",
        "threefry2x32_p": "from jax.extend.random import threefry2x32_p",
        "load_file": "from safetensors.flax import load_file",
    }
    has_native_gradient = True
    reserved = frozenset(
        {
            "threefry2x32_p",
            "partial",
            "jax",
            "jnp",
            "lax",
            "np",
            "params",
            "load",
            "nested",
            "Path",
            "Model",
            "forward",
            *helpers,
        }
    )
    light = frozenset({"relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "transpose", "reshape", "convert"})

    def __init__(self, wide: bool = False) -> None:
        """`wide`: the module has 64-bit types, for which its calls switch JAX's 64-bit mode on."""
        self.wide = wide

    def dtype(self, dtype: DType) -> str:
        return dtype_text(dtype)

    def non_finite(self, name: str) -> str:
        return f"jnp.{name}"

    def is_weak_beside(self, value: Any, dtype: DType) -> bool:
        return not dtype.is_integer or -(2**31) <= value < 2**31  # without 64-bit mode a Python integer is an int32

    def array(self, value: str, type: TensorType) -> str:
        return f"jnp.array({value}, {dtype_text(type.dtype)})"

    def region_op(self, body: BodyWriter, op: Op) -> None:
        write_region_op(body, op)

    def entry(self, method: Method, module: Module) -> str:
        """An entry that updates weights is given `params` for good: the new ones take their memory."""
        assert method.entry is not None
        head = f"def {method.name}({', '.join(['params', *method.parameters])}):"
        line = entry_line(method.entry, method.parameters)
        if not any(result.updates is not None for result in method.entry.results):
            return "\n".join(["@jax.jit", head, f'    """{line}"""', *indented(method.lines)])
        doc = [f'    """{line}', "", f"    {DONATED}", '    """']
        return "\n".join(["@partial(jax.jit, donate_argnums=0)", head, *doc, f"    {COPIED}", *indented(method.lines)])

    def usage(self, root: Definition, module: Module) -> list[str]:
        method = root.methods[0]
        arguments = ", ".join(method.parameters)
        return ["model = load()", f"outputs = model({arguments})  # or forward(model.params, {arguments})"]

    def method_lines(self, method: Method) -> list[str]:
        assert method.entry is not None
        call = f"{method.name}({', '.join(['self.params', *method.parameters])})"
        if not any(result.updates is not None for result in method.entry.results):
            lines = [f"return {call}"]
        elif all(result.updates is not None for result in method.entry.results):
            lines = [f"self.params = {call}"]
        else:
            lines = [f"outputs, self.params = {call}", "return outputs"]
        return ["with jax.enable_x64(True):", *indented(lines)] if self.wide else lines

    def loader(self) -> str:
        plain = "    return Model(nested(load_file(path)))"
        assert plain in LOAD
        return LOAD.replace(plain, f"    with jax.enable_x64(True):\n    {plain}") if self.wide else LOAD

    def returned(self, body: BodyWriter, outputs: Sequence[Value]) -> str:
        """The function stays pure: it returns the weights, too."""
        texts = [body.known[value].text for value in outputs]
        kept = texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
        return f"return {kept}, params" if outputs else "return params"
