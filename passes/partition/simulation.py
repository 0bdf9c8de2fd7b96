"""What a plan holds: a simulation of its course in the time of the forward values that it reads.

Most of what is held is the same in all plans of a function: the buffers that forward ops hold until forward ops have
read them, and all that backward ops make. These are added up once. A plan changes how long forward buffers are held,
and adds copies.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from graphc.passes.partition.joint_graph import JointGraph


@dataclass(frozen=True, slots=True)
class Course:
    """What a plan comes to: `peak` bytes are held at most; `saved` bytes pass from the forward to the backward part;
    `flops` are those of ops that run again."""

    peak: int
    saved: int
    flops: int


class Simulator:
    """Simulates plans of one function; `live_bytes` of the rewritten function says the same."""

    def __init__(self, graph: JointGraph) -> None:
        self.graph = graph
        forward, count = graph.forward, len(graph.values)
        self.root = list(range(count))
        """The value whose buffer a value shares; a backward value that shares a forward one's has that value, whose
        buffer may be a copy's."""
        self.last_forward = [-1] * count
        last_backward = [-1] * count
        self.events: list[tuple[int, list[int], list[int]]] = []
        """Backward ops that read forward values: the op, what it reads itself, and also through views."""
        for op in range(len(graph.ops)):
            if op < forward:
                for value in graph.reads[op]:
                    self.last_forward[self.root[value]] = op
            else:
                seen = dict.fromkeys(v if graph.maker[v] < forward else self.root[v] for v in graph.reads[op])
                for value in seen:
                    last_backward[value] = op
                through = [value for value in seen if 0 <= graph.maker[value] < forward]
                if through:
                    self.events.append((op, [v for v in graph.reads[op] if graph.is_forward(v)], through))
            sources = graph.shares[op]
            for index, value in enumerate(graph.makes[op]):
                if sources is None:
                    (self.last_forward if op < forward else last_backward)[value] = op
                    continue
                source = sources[index]
                if op < forward or not 0 <= graph.maker[source] < forward:
                    self.root[value] = self.root[source]
                else:
                    self.root[value] = source
        end = len(graph.ops)
        self.held_to_end: set[int] = set()
        self.copies_to_end: set[int] = set()
        for value in graph.outputs:
            root = self.root[value]
            if not 0 <= graph.maker[root] < forward:
                last_backward[root] = end
            elif graph.maker[value] < forward:
                self.held_to_end.add(root)
            else:
                self.copies_to_end.add(root)
        self.made_forward = [value for value in range(count) if graph.is_forward(value)]
        self.profile, _ = self._held(0, forward, self.last_forward)
        beside, before = self._held(forward, end, last_backward)
        self._between(beside, before)

    def _held(self, start: int, stop: int, last: list[int]) -> tuple[np.ndarray, list[int]]:
        """Bytes of the buffers made from `start` on that are held while each op runs, with its workspace; and those
        just before its results are made."""
        graph = self.graph
        change = [0] * (stop - start + 2)
        for op in range(start, stop):
            if graph.shares[op] is None:
                for value in graph.makes[op]:
                    change[op - start] += graph.bytes[value]
                    change[min(last[value], stop) - start + 1] -= graph.bytes[value]
        held = np.cumsum(change[: stop - start], dtype=np.int64) if stop > start else np.zeros(0, np.int64)
        made = [
            0 if graph.shares[op] is not None else sum(graph.bytes[v] for v in graph.makes[op])
            for op in range(start, stop)
        ]
        before = [int(total) - own for total, own in zip(held, made, strict=True)]
        return held + np.array(graph.workspace[start:stop], np.int64), before

    def _between(self, beside: np.ndarray, before: list[int]) -> None:
        """What backward ops hold of their own: at each event, before it, and at most since the event before."""
        first = self.graph.forward
        places = [op - first for op, _, _ in self.events]
        self.at_event = [int(beside[place]) for place in places]
        self.before_event = [before[place] for place in places]
        borders = [-1, *places]
        self.since = [int(beside[a + 1 : b].max(initial=0)) for a, b in zip(borders, places, strict=False)]
        self.after = int(beside[borders[-1] + 1 :].max(initial=0))

    def course(self, saved: Collection[int]) -> Course:
        """Simulate the plan that saves these values. Linear in the ops that run again and those that read forward
        values."""
        graph, root = self.graph, self.root
        count, forward = len(graph.values), graph.forward
        reads, makes, maker, size, shares, given = (
            graph.reads,
            graph.makes,
            graph.maker,
            graph.bytes,
            graph.shares,
            graph.given,
        )
        kept = set(saved)
        buffer = root.copy()  # in the backward part; those of copies start at `count`
        at_hand = bytearray(b"\1") * count
        for value in self.made_forward:
            at_hand[value] = 0
        for value in kept:
            at_hand[value] = 1
        last: dict[int, int] = {}
        crossing: set[int] = set()
        steps: list[tuple[int, list[int]]] = []  # ops that run again with what they make, events as -1
        flops = 0
        for _, needs, through in self.events:
            for value in needs:
                if at_hand[value]:
                    continue
                stack = [maker[value]]
                while stack:
                    again = stack[-1]
                    if all(at_hand[made] for made in makes[again]):
                        stack.pop()
                        continue
                    missing = [maker[read] for read in reads[again] if not at_hand[read]]
                    if missing:
                        stack.extend(reversed(missing))
                        continue
                    stack.pop()
                    time = len(steps)
                    for read in reads[again]:
                        if maker[read] >= 0:
                            last[buffer[read]] = time
                            if (read in kept) and read not in given:
                                crossing.add(buffer[read])
                    sources = shares[again]
                    own: list[int] = []
                    for index, made in enumerate(makes[again]):
                        at_hand[made] = 1
                        if made in kept:
                            own.append(count + made)  # a sibling was missing: made once more, for nothing
                            last[count + made] = time
                        elif sources is None:
                            buffer[made] = count + made
                            own.append(count + made)
                            last[count + made] = time
                        else:
                            buffer[made] = buffer[sources[index]]
                    flops += graph.flops[again]
                    steps.append((again, own))
            time = len(steps)
            for value in through:
                last[buffer[value]] = time
            for value in needs:
                if value in kept:
                    crossing.add(buffer[value])
            steps.append((-1, []))
        end = len(steps)
        last |= dict.fromkeys(self.held_to_end, end)
        last |= dict.fromkeys((buffer[value] for value in self.copies_to_end), end)
        # The forward part, and what it hands on.
        longer = np.zeros(forward + 1, np.int64)
        held = 0
        for owner in last:
            if owner < count:
                longer[self.last_forward[owner] + 1] += size[owner]
                held += size[owner]
        peak = int((self.profile + np.cumsum(longer[:forward])).max(initial=0))
        ending = [0] * (end + 1)
        for owner, time in last.items():
            ending[time] += size[owner - count if owner >= count else owner]
        event = 0
        before, since, at_event = self.before_event, self.since, self.at_event
        peak = max(peak, held + since[0]) if since else peak
        for time, (op, own) in enumerate(steps):
            if op < 0:
                peak = max(peak, held + at_event[event])
                held -= ending[time]
                event += 1
                peak = max(peak, held + (since[event] if event < len(since) else self.after))
            else:
                for owner in own:
                    held += size[owner - count]
                peak = max(peak, held + before[event] + graph.workspace[op])
                held -= ending[time]
        return Course(peak, sum(size[owner] for owner in crossing), flops)
