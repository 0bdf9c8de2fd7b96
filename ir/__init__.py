"""The IR: dtypes, symbolic dims, types, the graph, op declarations, text form, verifier, interpreter, analyses.

Start at `graph.py` (what a graph is made of), `opdef.py` (how an op is declared) and `ops/` (the ops).
"""

from graphc.ir import ops
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.parser import parse

__all__ = ["Module", "interpret", "ops", "parse"]
