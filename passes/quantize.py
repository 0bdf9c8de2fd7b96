"""`quantize`: weights as integers, by patterns of their names; see `passes/quantization`."""

from __future__ import annotations

from graphc.ir.formats import parse_format
from graphc.ir.module import Module
from graphc.passes.quantization.matching import absorb_transposes
from graphc.passes.quantization.shapes import store_as_read
from graphc.passes.quantization.targets import chosen_weights, patterns
from graphc.passes.quantization.weights import quantize_weights
from graphc.passes.registry import register_pass


@register_pass("quantize", approximate=True)
def quantize(module: Module, format: str = "int8", targets: str = "*", exclude: str = "") -> None:
    """Store kernels and tables as integers (`format=int4{block=32}`), of layers or weights that patterns name."""
    form = parse_format(format)
    names = chosen_weights(module, patterns(targets), patterns(exclude))
    store_as_read(module, names)
    quantize_weights(module, dict.fromkeys(names, form))
    absorb_transposes(module)
