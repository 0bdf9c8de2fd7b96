"""The course of a plan: which ops run in which order when some forward values are saved, and which of them again.

Forward ops run in their order. A backward op that reads a forward value which is not saved is preceded by copies of the
ops that make it, from what is at hand; a copy serves all later readers until the value is let go of. This is the lazy
order of checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): where the saved values
cut the network into segments, each segment is computed again just before its own backward part.
"""

from __future__ import annotations

from collections.abc import Collection

from graphc.passes.partition.joint_graph import JointGraph


def steps_of(graph: JointGraph, saved: Collection[int]) -> list[tuple[int, bool]]:
    """The running order when these values are saved."""
    forward, reads, makes, maker = graph.forward, graph.reads, graph.makes, graph.maker
    at_hand = [not graph.is_forward(value) for value in range(len(graph.values))]
    for value in saved:
        at_hand[value] = True
    steps = [(op, False) for op in range(forward)]
    for op in range(forward, len(graph.ops)):
        for value in reads[op]:
            if at_hand[value]:
                continue
            stack = [maker[value]]
            while stack:
                again = stack[-1]
                if at_hand[makes[again][0]] and all(at_hand[made] for made in makes[again]):
                    stack.pop()
                    continue
                missing = [maker[read] for read in reads[again] if not at_hand[read]]
                if missing:
                    stack.extend(reversed(missing))
                    continue
                stack.pop()
                steps.append((again, True))
                for made in makes[again]:
                    at_hand[made] = True
        steps.append((op, False))
    return steps


class Again:
    """The ops that run again for the `needed` values when some are `saved`, and what saving one more would spare."""

    def __init__(self, graph: JointGraph, needed: Collection[int], saved: Collection[int]) -> None:
        self.graph = graph
        self.saved = saved if isinstance(saved, set) else set(saved)
        self.readers: dict[int, int] = dict.fromkeys(needed, 1)
        """For each value how many read it: the backward part, and the ops that run again."""
        self.ops: set[int] = set()
        self.flops = 0
        maker = graph.maker
        stack = [maker[value] for value in needed if value not in self.saved]
        while stack:
            op = stack.pop()
            if op not in self.ops:
                self.ops.add(op)
                self.flops += graph.flops[op]
                for read in set(graph.reads[op]):
                    if graph.is_forward(read):
                        self.readers[read] = self.readers.get(read, 0) + 1
                        if read not in self.saved:
                            stack.append(maker[read])

    def spared(self, value: int) -> int:
        """The FLOPs that are not run again when `value` is saved as well. Linear in the ops that then need not run."""
        graph, saved = self.graph, self.saved
        if value in saved or graph.maker[value] not in self.ops:
            return 0
        fewer: dict[int, int] = {}
        stack = [graph.maker[value]]
        dropped: set[int] = set()
        flops = 0
        while stack:
            op = stack.pop()
            if op in dropped or any(
                made != value and made not in saved and self.readers.get(made, 0) > fewer.get(made, 0)
                for made in graph.makes[op]
            ):
                continue
            dropped.add(op)
            flops += graph.flops[op]
            for read in set(graph.reads[op]):
                if read in self.readers:
                    fewer[read] = fewer.get(read, 0) + 1
                    if fewer[read] == self.readers[read] and read not in saved:
                        stack.append(graph.maker[read])
        return flops
