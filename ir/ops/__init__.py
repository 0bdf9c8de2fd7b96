"""Every op, declared once. Importing this package declares all ops.

Start at `elementwise` for primitives and at `activation` for composites. `structure` and `control` hold what the IR
itself needs (constant, call, return, cond, while, scan); `operators` puts Python's operators on `Value`.
"""

from graphc.ir.ops import control, structure

__all__ = ["control", "structure"]
