"""ONNX: standard ops, run by ONNX Runtime on the CPU.

Start at `target.py` (files and entries), then `graph.py` (how a graph is written) and `spelling/` (how each op is).
`kernels.py` has what the runtime's kernels take, `session.py` runs artifacts and keeps updated weights in its memory.
"""

from graphc.codegen.onnx.target import OnnxTarget

TARGET = OnnxTarget()
