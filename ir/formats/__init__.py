"""Formats of quantized weights: which integer arrays stand for a tensor of floats, and how.

Start at `format` for what a format is. `channel` has int8 with a scale for each channel, `blocks` int4 and int3 with a
scale for each block, `scaled` AWQ's, `nf4` bitsandbytes' normal floats, `gguf` the blocks of GGUF files. Adding one is
adding a class here.
"""

from graphc.ir.formats.blocks import BlockFormat, Int3, Int4, UInt3, UInt4
from graphc.ir.formats.channel import Int8, UInt8
from graphc.ir.formats.format import FORMATS, Format, Part, parse_format
from graphc.ir.formats.gguf import Q4_0, Q8_0
from graphc.ir.formats.nf4 import NF4
from graphc.ir.formats.scaled import AWQ

__all__ = [
    "AWQ",
    "FORMATS",
    "NF4",
    "BlockFormat",
    "Format",
    "Int3",
    "Int4",
    "Int8",
    "Part",
    "Q4_0",
    "Q8_0",
    "UInt3",
    "UInt4",
    "UInt8",
    "parse_format",
]
