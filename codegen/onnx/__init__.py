"""ONNX: standard ops of opset 21 (26 where bits of floats are read as integers), run by ONNX Runtime on the CPU.

Start at `target.py` (files and entries), then `graph.py` (how a graph is written) and `spelling/` (how each op is).
`kernels.py` has what the runtime's kernels take, `session.py` runs artifacts and keeps updated weights in its memory.

An artifact has `model.onnx` for the main entry and `model.<entry>.onnx` for each other one. Weights are initializers
under their own names, kernels of convolutions permuted (the manifest has the recipe). They are in the model file, or in
`model.onnx.data` when there is more than a gigabyte or when several entries share them. Where an entry updates weights,
each weight is an input with the stored value as its default, and the new value of an updated one is an output.

Where a node of ONNX Runtime 1.32 does not mean what the op means, the op is spelled by others: NaN in max-reductions,
argmax and pools, casts of floats to integers, integer division, powers, sums and products, sigmoid's tail, group norm,
most float64 functions. Documented exceptions, measured:

| row | here |
| --- | --- |
| complex numbers | refused: no kernel takes them |
| gradients of convolution in float64 and integers | refused: no kernel of `Conv` to write them with |
| max_pool over a window of nothing but −inf, float32 | −3.4e38; `reduce_window` is exact |
| log_softmax of a row with +inf, up to float32 | the whole row NaN, not NaN at its place and −inf elsewhere |
| gelu far below 0 | −0 below −5.6: 1 + erf cancels, as it does in float32 |
| barrier | nothing: ONNX has no fence, only merging of equal subexpressions is turned off |
"""

from graphc.codegen.onnx.target import OnnxTarget

TARGET = OnnxTarget()
