"""The course of a plan: which ops run in which order when some forward values are saved, and what is held then.

Forward ops run in their order. A backward op that reads a forward value which is not saved is preceded by copies of the
ops that make it, from what is at hand; a copy serves all later readers until the value is let go of. This is the lazy
order of checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): where the saved values
cut the network into segments, each segment is computed again just before its own backward part.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from graphc.passes.partition.joint_graph import JointGraph


@dataclass(slots=True)
class Course:
    """What a plan comes to. `steps` are ops in running order, those run again included, each with whether it is a copy;
    `peak` bytes are held at most, `at` that step; `saved` bytes pass from the forward to the backward part; `flops` are
    those of copies."""

    steps: list[tuple[int, bool]]
    peak: int
    at: int
    saved: int
    flops: int


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


def recomputed_flops(graph: JointGraph, needed: Collection[int], saved: Collection[int]) -> int:
    """The FLOPs of the ops that run again for the `needed` values when these are saved. Linear in those ops."""
    maker, reads = graph.maker, graph.reads
    seen: set[int] = set()
    stack = [maker[value] for value in needed if value not in saved]
    flops = 0
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            flops += graph.flops[op]
            stack += [maker[read] for read in reads[op] if read not in saved and graph.is_forward(read)]
    return flops


def course(graph: JointGraph, saved: Collection[int]) -> Course:
    """Simulate the plan that saves these values; `live_bytes` of the rewritten function says the same. Linear."""
    steps = steps_of(graph, saved)
    reads, makes, shares, size = graph.reads, graph.makes, graph.shares, graph.bytes
    count = len(graph.values)
    kept = set(saved)
    # Buffers are numbered by the value that owns them; those of copies start at `count`.
    buffer = list(range(count))
    copy_buffer = [0] * count
    last: dict[int, int] = {}
    made_at: list[list[int]] = []
    flops = 0
    crossing: set[int] = set()
    forward = graph.forward
    for position, (op, again) in enumerate(steps):
        for value in reads[op]:
            if position >= forward and graph.is_forward(value) and value not in kept:
                root = copy_buffer[value]
            else:
                root = buffer[value]
                if position >= forward and graph.is_forward(value):
                    crossing.add(root)
            last[root] = position
        sources = shares[op]
        made: list[int] = []
        if again:
            flops += graph.flops[op]
        for index, value in enumerate(makes[op]):
            if again and value in kept:
                made.append(count + value)  # a sibling was missing: this one is made once more, for nothing
                last[made[-1]] = position
                continue
            if sources is not None:
                source = sources[index]
                copied = again and graph.is_forward(source) and source not in kept
                root = copy_buffer[source] if copied else buffer[source]
                if position >= forward and root < count and graph.is_forward(root):
                    crossing.add(root)
            else:
                root = count + value if again else value
                made.append(root)
                last[root] = position
            if again:
                copy_buffer[value] = root
            else:
                buffer[value] = root
        made_at.append(made)
    end = len(steps)
    for value in graph.outputs:
        last[buffer[value]] = end
    ending: list[int] = [0] * (end + 1)
    for root, position in last.items():
        ending[position] += size[root % count]
    peak = at = now = 0
    workspace = graph.workspace
    for position, (op, _) in enumerate(steps):
        now += sum(size[root % count] for root in made_at[position])
        held = now + workspace[op]
        if held > peak:
            peak, at = held, position
        now -= ending[position]
    return Course(steps, peak, at, sum(size[root] for root in crossing), flops)
