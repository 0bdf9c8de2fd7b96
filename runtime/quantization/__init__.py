"""Quantization with data: observing values (`observing`), ranges from what was seen (`calibration`, `ranges`), and the
one call for all of it (`quantizing`). The rewrites themselves are in `passes/quantization`."""
