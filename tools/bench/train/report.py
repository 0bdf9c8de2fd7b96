"""The figures of training as a table: who took how long, and what the ratios to the peers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphc.tools.bench.train.measuring import (
    Contestant,
    Measured,
    keras,
    ours,
    plain_jax,
    plain_torch,
    race,
    ratio,
)
from graphc.tools.bench.train.workloads import WORKLOADS

COMPARED = 3
"""Losses of so many first steps must agree."""

AGREEMENT = 1e-3
"""Relatively; with dropout only graphc's targets draw the same masks."""

AIMS = {
    ("graphc torch", "torch eager"): (1.0, 1.1),
    ("graphc jax", "jax"): (1.0, 1.1),
    ("graphc torch", "keras torch"): (0.5, 0.5),
    ("graphc onnx", "torch eager"): (4.0, 4.0),
}
"""How much of the peer's time may be taken, without dropout and with it."""

OVERHEAD_AIM = 100.0
"""Microseconds that a step of one layer may take beyond the same step in plain code."""


def measure(
    name: str, targets: list[str], keras_python: str | None, compiled: bool, rounds: int, examples: Path
) -> dict[str, Any]:
    """One workload by graphc on the targets and by its peers, as a record for JSON."""
    contestants: list[Contestant] = [ours(name, target, examples) for target in targets]
    contestants += [plain_torch("eager"), *([plain_torch("compiled")] if compiled else []), plain_jax()]
    if keras_python is not None:
        contestants += [keras(keras_python, "torch"), keras(keras_python, "jax")]
    found = race(WORKLOADS[name], contestants, rounds, examples, infer=("graphc onnx", "torch eager"))
    return record(name, found)


def record(name: str, found: dict[str, Measured]) -> dict[str, Any]:
    """Milliseconds, ratios of all of ours to all of theirs, and whether the first losses agree."""
    good = {who: each for who, each in found.items() if each.failure is None}
    times = {who: float(np.median(each.train)) for who, each in good.items()}
    ratios: dict[str, Any] = {}
    for mine in (who for who in good if who.startswith("graphc")):
        for theirs in (who for who in good if not who.startswith("graphc")):
            pair = ratio(good[mine].train, good[theirs].train)
            excess = 1e3 * float(np.median(np.array(good[mine].train) - np.array(good[theirs].train)))
            ratios[f"{mine} / {theirs}"] = {
                "median": pair.median,
                "interval": [pair.low, pair.high],
                "excess_us": excess,
                "aim": AIMS.get((mine, theirs), (None, None))["dropout" in name],
            }
    inference = None
    if all(who in good and good[who].infer for who in ("graphc onnx", "torch eager")):
        pair = ratio(good["graphc onnx"].infer, good["torch eager"].infer)
        inference = {"median": pair.median, "interval": [pair.low, pair.high]}
    return {
        "workload": name,
        "milliseconds": times,
        "ratios": ratios,
        "onnx_inference": inference,
        "failures": {who: each.failure for who, each in found.items() if each.failure is not None},
        "losses": {who: each.losses[:COMPARED] for who, each in good.items()},
        "disagree": disagreements(name, {who: each.losses[:COMPARED] for who, each in good.items()}),
    }


def disagreements(name: str, losses: dict[str, list[float]]) -> list[str]:
    """Who computes other losses than the first one does; where masks are drawn, only ours are compared."""
    if "dropout" in name:
        losses = {who: values for who, values in losses.items() if who.startswith("graphc")}
    if not losses:
        return []
    wanted = np.array(next(iter(losses.values())))
    return [who for who, values in losses.items() if np.any(np.abs(np.array(values) - wanted) > AGREEMENT * wanted)]


def table(found: dict[str, Any]) -> Any:
    """A row for each contestant; for ours the ratios to the peers, marked where they miss the aim."""
    from rich.table import Table

    times, ratios = found["milliseconds"], found["ratios"]
    peers = [who for who in times if not who.startswith("graphc")]
    grid = Table(title=f"{found['workload']}: ms per step, and ratios to (95 % interval)", title_justify="left")
    for column in ("", "ms", *peers):
        grid.add_column(column, justify="left" if not column else "right")
    for who, time in times.items():
        cells = [shown(ratios.get(f"{who} / {peer}")) for peer in peers]
        grid.add_row(who, f"{time:.3f}" if time < 10 else f"{time:.1f}", *cells)
    return grid


def shown(pair: dict[str, Any] | None) -> str:
    if pair is None:
        return ""
    low, high = pair["interval"]
    missed = pair["aim"] is not None and pair["median"] > pair["aim"]
    return f"{pair['median']:.2f} ({low:.2f}–{high:.2f})" + (f" aim {pair['aim']:g}: NO" if missed else "")


def notes(found: dict[str, Any]) -> list[str]:
    """What the table has no place for."""
    lines = [f"{who} failed: {why}" for who, why in found["failures"].items()]
    if found["disagree"]:
        lines.append(f"the first {COMPARED} losses differ by more than {AGREEMENT:g}: {', '.join(found['disagree'])}")
    if found["onnx_inference"] is not None:
        low, high = found["onnx_inference"]["interval"]
        middle = found["onnx_inference"]["median"]
        lines.append(f"plain inference, graphc onnx / torch eager: {middle:.2f} ({low:.2f}–{high:.2f})")
    if found["workload"] == "dense":
        for target, peer in (("torch", "torch eager"), ("jax", "jax")):
            pair = found["ratios"].get(f"graphc {target} / {peer}")
            if pair is not None:
                met = "within" if pair["excess_us"] <= OVERHEAD_AIM else "ABOVE"
                lines.append(
                    f"dispatch on {target}: {pair['excess_us']:.0f} µs a step, {met} the {OVERHEAD_AIM:g} aimed at"
                )
    return lines
