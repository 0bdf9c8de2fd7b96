"""Plans of what to save: the frontier of peak and FLOPs, and the cheapest plan within a budget.

A minimum cut (`cut.py`) minimises what is saved, not the peak: with nothing saved everything is computed again at once,
and held. So the cut is made many times: for segments of the network of several lengths, whose borders are pinned as
saved (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, algorithm 3, places them by a budget for each
segment), and for a range of prices of a FLOP. Each cut is judged by simulation (`schedule.py`). For a budget, the best
of them, and plans between them (`exact.py`), are improved by saving more, or less, one value at a time, as the
simulated peak allows (compare Kirisame et al., "Dynamic Tensor Rematerialization", 2021, which drops values greedily by
size and cost while running).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from graphc.ir.analysis.liveness import PLAIN, Memory
from graphc.ir.graph import Function, Value
from graphc.passes.partition.cut import Cutter
from graphc.passes.partition.exact import fewest_flops
from graphc.passes.partition.joint_graph import JointGraph, joint_graph
from graphc.passes.partition.schedule import Again
from graphc.passes.partition.simulation import Simulator

SEGMENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Into so many segments of equal bytes the forward part is cut."""
PRICES = tuple(4.0**k for k in range(-4, 9))
"""Bytes a FLOP, as multiples of the quotient of all forward bytes and FLOPs."""
MOST_TRIALS = 200
"""Simulations that improving one plan may take."""
ROUNDS = 3
"""So often a plan is improved in each way."""
BETWEEN = 1600
"""As many values may the integer programs have together, one for each of the segments' borders that are pinned."""
BISECTIONS = 6
WORTH = 1.01
"""By so much a plan is to be better than the best for a search to go on."""
STARTS = 4
"""So many plans are improved, of which the best is taken."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is `saved` of the forward part (values by number in `graph`, smallest numbers first), and what it comes to.

    `peak`: bytes held at most beside the parameters. `saved_bytes`: bytes that pass from the forward to the backward
    part. `extra_flops`: those of ops that run again.
    """

    graph: JointGraph
    saved: tuple[int, ...]
    peak: int
    saved_bytes: int
    extra_flops: int

    @property
    def values(self) -> list[Value]:
        """The saved values."""
        return [self.graph.values[number] for number in self.saved]


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes that the peak, and that what is saved, may come to."""

    peak: int
    saved_bytes: int

    def fits(self, plan: Plan) -> bool:
        return plan.peak <= self.peak and plan.saved_bytes <= self.saved_bytes


class Planner:
    """Plans for one function at certain sizes; simulations are remembered."""

    def __init__(self, function: Function, sizes: Mapping[str, int], memory: Memory = PLAIN) -> None:
        self.graph = joint_graph(function, sizes, memory)
        self.simulator = Simulator(self.graph)
        self.cutter = Cutter(self.graph)
        self.everything = tuple(sorted(self.graph.read_by_backward()))
        self.known: dict[tuple[int, ...], Plan] = {}
        self._candidates: list[Plan] = []

    def plan(self, saved: Iterable[int]) -> Plan:
        """The plan that saves these values."""
        key = tuple(sorted(set(saved)))
        if key not in self.known:
            found = self.simulator.course(key)
            self.known[key] = Plan(self.graph, key, found.peak, found.saved, found.flops)
        return self.known[key]

    def candidates(self) -> list[Plan]:
        """Everything saved, and the cuts for all segments and prices."""
        if self._candidates:
            return list(self._candidates)
        flops = sum(self.graph.flops[: self.graph.forward]) or 1
        unit = self.cutter.bytes_total / flops
        plans = [self.plan(self.everything), self.plan(())]
        for pins in self.borders():
            for price in (0.0, *(unit * factor for factor in PRICES)):
                plans.append(self.plan([*self.cutter.cut(price, pins), *pins]))
        self._candidates = list({plan.saved: plan for plan in plans}.values())
        return list(self._candidates)

    def borders(self) -> list[list[int]]:
        """For each number of segments, the values that pass from one segment to the next."""
        graph = self.graph
        forward, size = graph.forward, graph.bytes
        buffer = list(range(len(graph.values)))
        first = [0] * len(graph.values)
        last: dict[int, int] = {}
        for op in range(forward):
            sources = graph.shares[op]
            for index, value in enumerate(graph.makes[op]):
                if sources is not None:
                    buffer[value] = buffer[sources[index]]
                first[value] = op
            for value in graph.reads[op]:
                last[buffer[value]] = op
        width = [0] * (forward + 1)
        for value, until in last.items():
            if graph.is_forward(value):
                width[first[value]] += size[value]
                width[until] -= size[value]
        made = [0] * forward
        for op in range(forward):
            width[op + 1] += width[op]
            made[op] = 0 if graph.shares[op] is not None else sum(size[value] for value in graph.makes[op])
        total = sum(made)
        found: dict[tuple[int, ...], None] = {}
        for count in SEGMENTS:
            pins: set[int] = set()
            for at in _places(made, width, total / count) if count > 1 else ():
                pins.update(v for v, until in last.items() if graph.is_forward(v) and first[v] <= at < until)
            found[tuple(sorted(pins))] = None
        return [list(pins) for pins in found]

    # --- within a budget ------------------------------------------------------------------------------------------

    def least(self) -> Plan:
        """The plan with the lowest peak that was found."""
        best = min(self.candidates(), key=lambda plan: (plan.peak, plan.extra_flops))
        trials = MOST_TRIALS
        improved = True
        while improved and trials > 0:
            improved = False
            for plan in self._neighbours(best):
                trials -= 1
                if plan.peak < best.peak:
                    best, improved = plan, True
                    break
                if trials <= 0:
                    break
        return best

    def unlimited(self) -> Plan:
        """The plan of the lowest peak among those of the fewest extra FLOPs."""
        return min(self.candidates(), key=lambda plan: (plan.extra_flops, plan.peak))

    def within(self, budget: int, saved_bytes: int | None = None) -> Plan | None:
        """The plan of the fewest extra FLOPs found whose peak keeps `budget`; None if there is none.

        With `saved_bytes`, what is saved may not come to more than that either.
        """
        limit = Limit(budget, budget if saved_bytes is None else saved_bytes)
        plans = sorted(self.candidates(), key=_cost)
        fitting = [plan for plan in plans if limit.fits(plan)]
        if not fitting and saved_bytes is None:
            least = self.least()
            if not limit.fits(least):
                return None
            fitting = [least]
        if fitting and fitting[0].extra_flops == 0:
            return fitting[0]
        between = self._between(limit, fitting[0] if fitting else None)
        fitting = undominated([plan for plan in (*fitting, *between) if limit.fits(plan)])
        if not fitting:
            return None
        # Of few FLOPs, and of low peaks, which leave more room to choose.
        count = len(fitting)
        starts = fitting if count <= STARTS else [fitting[i * (count - 1) // (STARTS - 1)] for i in range(STARTS)]
        for plan in [plan for plan in (*plans, *between) if plan.extra_flops < starts[0].extra_flops][-2:]:
            reduced = self._reduced(plan, limit)
            if reduced is not None:
                starts.append(reduced)
        for plan in starts:
            self._filled(plan, limit)
        best = min((plan for plan in self.known.values() if limit.fits(plan)), key=_cost)
        return self._exchanged(best, limit)

    def _between(self, limit: Limit, best: Plan | None) -> list[Plan]:
        """Plans of the fewest FLOPs for their saved bytes, alone and with the borders of segments saved: by bisection
        for the most bytes, from those of the `best` so far on, with which each keeps the limit."""
        found: list[Plan] = []
        most = max(1, BETWEEN // max(1, len(self.cutter.values)))
        for pins in self.borders()[:most]:
            least = sum(self.graph.bytes[value] for value in pins)
            low = least if best is None else max(least, best.saved_bytes)
            high = bytes = min(limit.saved_bytes, self.cutter.bytes_total)
            for _ in range(BISECTIONS):
                if bytes < low:
                    break
                saved = fewest_flops(self.cutter, bytes, pins)
                if saved is None:
                    break
                plan = self.plan([*saved, *pins])
                found.append(plan)
                if best is not None and plan.extra_flops * WORTH >= best.extra_flops:
                    break  # with fewer bytes it takes only more
                if limit.fits(plan):
                    low, best = bytes, plan
                else:
                    high = bytes
                if high - low <= (high >> 8):
                    break
                bytes = (low + high) // 2
        return found

    def _neighbours(self, plan: Plan) -> Iterable[Plan]:
        """Plans that save one value less or more."""
        saved = set(plan.saved)
        for value in sorted(saved, key=lambda value: -self.graph.bytes[value]):
            yield self.plan(saved - {value})
        for value in self.cutter.values:
            if value not in saved:
                yield self.plan(saved | {value})

    def _filled(self, plan: Plan, limit: Limit) -> Plan:
        """Save more, best bargains first, as long as it fits and saves FLOPs."""
        graph, last = self.graph, len(self.known) + MOST_TRIALS
        for _ in range(ROUNDS):
            start, saved = plan, set(plan.saved)
            again = Again(graph, self.everything, saved)
            bargains: list[tuple[float, int]] = []
            for value in self.cutter.values:
                if value not in saved and plan.saved_bytes + graph.bytes[value] <= limit.saved_bytes:
                    gain = again.spared(value)
                    if gain > 0:
                        bargains.append((gain / max(graph.bytes[value], 1), value))
            for _, value in sorted(bargains, reverse=True):
                if len(self.known) > last:
                    break
                if plan.saved_bytes + graph.bytes[value] <= limit.saved_bytes:
                    more = {*plan.saved, value}
                    if Again(graph, self.everything, more).flops < plan.extra_flops:
                        other = self.plan(more)
                        plan = other if limit.fits(other) else plan
            for value in plan.saved:
                if len(self.known) > last:
                    break
                fewer = set(plan.saved) - {value}
                if Again(graph, self.everything, fewer).flops <= plan.extra_flops:
                    other = self.plan(fewer)
                    plan = other if limit.fits(other) else plan
            if plan is start:
                break
        return plan

    def _exchanged(self, plan: Plan, limit: Limit) -> Plan:
        """Save one value in place of another where that saves FLOPs and fits."""
        graph = self.graph
        for _ in range(ROUNDS):
            start, trials = plan, 50 * MOST_TRIALS  # which are no simulations
            room = limit.saved_bytes - plan.saved_bytes
            for given_up in plan.saved:
                rest = set(plan.saved) - {given_up}
                again = Again(graph, self.everything, rest)
                best = again.flops - plan.extra_flops
                taken: int | None = None
                for value in self.cutter.values:
                    if value in rest or graph.bytes[value] > graph.bytes[given_up] + room:
                        continue
                    spared = again.spared(value)
                    if spared > best:
                        best, taken = spared, value
                    trials -= 1
                if taken is not None and limit.fits(other := self.plan(rest | {taken})):
                    plan = other
                    room = limit.saved_bytes - plan.saved_bytes
                if trials <= 0:
                    break
            if plan is start:
                break
        return plan

    def _reduced(self, plan: Plan, limit: Limit) -> Plan | None:
        """Save less, what is cheap to compute again first, until it fits."""
        graph = self.graph
        order = sorted(plan.saved, key=lambda value: graph.flops[graph.maker[value]] / max(graph.bytes[value], 1))
        for value in order[:MOST_TRIALS]:
            other = self.plan(set(plan.saved) - {value})
            if other.peak <= plan.peak and other.saved_bytes <= plan.saved_bytes:
                plan = other
                if limit.fits(plan):
                    return plan
        return None


def _cost(plan: Plan) -> tuple[int, int]:
    return plan.extra_flops, plan.peak


def _places(made: list[int], width: list[int], length: float) -> list[int]:
    """The ops after which segments end: each holds about `length` bytes, and ends where least passes on."""
    places: list[int] = []
    held = 0.0
    start = 0
    for op, count in enumerate(made):
        held += count
        if held >= length:
            best = min(range(start, op + 1), key=lambda at: (width[at], -at))
            if width[best] > 0:
                places.append(best)
            held = float(sum(made[best + 1 : op + 1]))
            start = best + 1
    return places


def frontier(function: Function, sizes: Mapping[str, int], memory: Memory = PLAIN) -> list[Plan]:
    """Plans none of which is beaten in both peak and extra FLOPs, from everything saved to the lowest peak found."""
    return undominated(Planner(function, sizes, memory).candidates())


def undominated(plans: Collection[Plan]) -> list[Plan]:
    """The plans that no other beats in both peak and extra FLOPs, by falling peak."""
    found: list[Plan] = []
    for plan in sorted(plans, key=lambda plan: (plan.extra_flops, plan.peak, plan.saved_bytes)):
        if not found or plan.peak < found[-1].peak:
            found.append(plan)
    return found
