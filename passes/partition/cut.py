"""Which values to save for one price of a byte: a minimum cut.

A forward value that the backward part needs is saved, which costs its bytes, or computed again, which costs the FLOPs
of its op and needs that op's operands. The cheapest choice is a minimum cut of a graph with a node for each value
(needed or not) and one for each op (run again or not): an edge from the op to each of its values with the value's
bytes, one from the source to the op with its FLOPs at their price, and edges that cannot be cut from an op's operands
to the op and from what the backward part reads to the sink. PyTorch's `min_cut_rematerialization_partition` cuts such a
graph too; here the FLOPs stand in the cut, so that a sweep over their price gives the lower convex hull of saved bytes
and FLOPs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from scipy.sparse import csgraph, csr_array

from graphc.passes.partition.joint_graph import JointGraph

_flows: Any = csgraph  # it has no types

LARGEST = 2**29
"""Capacities are scaled so that all together come to this: scipy's flows are 32-bit integers."""

INFINITE = 1e30
"""What is not to be cut."""


class Cutter:
    """Cuts one graph at any price; `pinned` values are saved at no cost, `never` ops are not run again."""

    def __init__(self, graph: JointGraph, never: Collection[int] = ()) -> None:
        self.graph = graph
        forward = graph.forward
        self.needed = graph.read_by_backward()
        ops: dict[int, int] = {}
        values: dict[int, int] = {}
        stack = list(self.needed)
        while stack:
            value = stack.pop()
            if value in values:
                continue
            values[value] = 2 + len(values) + len(ops)
            op = graph.maker[value]
            assert 0 <= op < forward
            if op not in ops:
                ops[op] = 2 + len(values) + len(ops)
                stack += [read for read in graph.reads[op] if graph.is_forward(read)]
        self.values, self.ops = values, ops
        self.never = {op for op in ops if graph.fixed[op]} | set(never)
        self.bytes_total = sum(graph.bytes[value] for value in values)
        self._write()

    def _write(self) -> None:
        """The edges: from the source to each op, from ops to values, from values to the ops that read them, and to the
        sink."""
        graph, values, ops = self.graph, self.values, self.ops
        edges: list[tuple[int, int, int, float]] = []  # from, to, the value they stand for (or -1), capacity
        for op, node in ops.items():
            edges += [(values[read], node, read, INFINITE) for read in dict.fromkeys(graph.reads[op]) if read in values]
        edges += [(ops[graph.maker[value]], node, value, float(graph.bytes[value])) for value, node in values.items()]
        edges += [(values[value], 1, value, INFINITE) for value in self.needed]
        edges += [(0, node, -1, INFINITE if op in self.never else 0.0) for op, node in ops.items()]
        self._tails, self._heads, self._of = (np.array([edge[i] for edge in edges]) for i in range(3))
        self._amounts = np.array([edge[3] for edge in edges])
        self._flops = np.array([0 if op in self.never else graph.flops[op] for op in ops], float)
        self._nodes = np.array(list(values.values()))
        self._made = np.array([ops[graph.maker[value]] for value in values])
        self._numbers = np.array(list(values))

    def cut(self, price: float, pinned: Collection[int] = ()) -> list[int]:
        """The values to save when a FLOP costs as much as `price` bytes, without the `pinned` ones."""
        amounts = self._amounts.copy()
        amounts[len(amounts) - len(self._flops) :] += price * self._flops
        kept = ~np.isin(self._of, list(pinned))
        amounts = amounts[kept]
        infinite = amounts >= INFINITE
        scale = min(1.0, LARGEST / max(float(amounts[~infinite].sum()), 1.0))
        scaled = np.where(infinite, 2 * LARGEST - 1, np.ceil(amounts * scale)).astype(np.int32)
        count = 2 + len(self.values) + len(self.ops)
        network = csr_array((scaled, (self._tails[kept], self._heads[kept])), shape=(count, count))
        flow: Any = _flows.maximum_flow(network, 0, 1).flow
        residual: Any = network - flow
        residual.data[residual.data < 0] = 0
        residual.eliminate_zeros()
        reached = np.zeros(count, bool)
        reached[_flows.breadth_first_order(residual, 0, return_predecessors=False)] = True
        saved = ~reached[self._nodes] & reached[self._made] & ~np.isin(self._numbers, list(pinned))
        return [int(value) for value in self._numbers[saved]]
