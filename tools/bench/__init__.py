"""Benchmarks: `python -m graphc.tools.bench compile` measures the compiler itself, µs an op.

`graphs.py` describes the graphs, `ours.py` and `peers.py` what is measured on them, `timing.py` how.
"""
