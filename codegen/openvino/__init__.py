"""OpenVINO, as a probe: enough of its own op set for small convolutional networks; it is completed later.

Start at `target.py`, then `graph.py` (how a model is built) and `spelling.py` (how each op is). Computation is in
float32 (add, sub and mul in int32 too); everything else is refused, so that a module is told all it needs at once.

What its CPU plugin does otherwise than graphc means, measured with OpenVINO 2026.4 on `tests/edges.py` and
`tests/codegen/test_openvino.py`; these are documented exceptions:

| row | here |
| --- | --- |
| NaN in maximum, max-reductions, relu, max_pool | dropped: max(NaN, 1) = 1, relu(NaN) = 0 |
| NaN or +inf in a row of softmax | NaN at that place, 0 elsewhere; graphc: the whole row NaN |
| max over a window of nothing but −inf | −3.4e38 |
| max over nothing | refused (the plugin gives −3.4e38) |
| mean over nothing | decomposed: a sum and a division, NaN |
| float → int | spelled with a clamp, so that it saturates and takes NaN to 0; to 64 bits refused |
| int32 division, sums | refused (the plugin computes them in float) |
| 8-bit arithmetic (saturates), 16-bit, unsigned and 64-bit arithmetic (some in 32 bits) | refused |
| float64 | refused (computed in float32); float16 and bfloat16: refused (not rounded after each op) |
| bare `model.xml` | runs in bfloat16 where the CPU model suggests it; `load` here sets the precision hint to f32 |

Weights are float32 in `model.bin`. Updates of weights are refused.
"""

from graphc.codegen.openvino.target import OpenvinoTarget

TARGET = OpenvinoTarget()
