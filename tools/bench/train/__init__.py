"""Benchmarks of training: a step of three models by graphc on each target, and by plain code in each framework.

Start at `workloads` (what is measured) and `measuring` (how).
"""
