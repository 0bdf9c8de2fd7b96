"""The race: graphc and PEFT in turns, one process each, on one thread of one core; and what each holds in memory."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from graphc.tools.bench.lora.task import Sizes
from graphc.tools.bench.train.measuring import Contestant, Process, one_core, ratio

STEPS = 2
"""Of each contestant in a round."""
PARTS = (0.5, 0.25)
"""Of the peak of plain PEFT, as budgets."""


def ours(name: str, examples: Path, sizes: Sizes, **options: Any) -> Contestant:
    """graphc, with passes, or a memory budget."""
    command = [sys.executable, "-m", "graphc.tools.bench.lora.ours"]
    return Contestant(name, command, after=[str(examples), json.dumps(options), json.dumps(asdict(sizes))])


def theirs(name: str, mode: str, sizes: Sizes) -> Contestant:
    """PEFT, or the products alone."""
    command = [sys.executable, "-m", "graphc.tools.bench.lora.peft_worker"]
    return Contestant(name, command, after=[mode, json.dumps(asdict(sizes))])


def race(contestants: Sequence[Contestant], rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of each contestant in each round, its first losses, saved and peak bytes; or why it cannot train."""
    found: dict[str, dict[str, Any]] = {}
    with one_core(), tempfile.TemporaryDirectory(prefix="graphc-bench-") as folder, ExitStack() as stack:
        running: dict[str, Process] = {}
        for each in contestants:
            process = Process(each, Path(folder))
            stack.callback(process.close)
            try:
                process.answer()
                first = process.run("train", 3)
            except RuntimeError as error:  # a budget below the least possible: the row says so, and the others run
                found[each.name] = {"failure": str(error)}
                continue
            running[each.name] = process
            found[each.name] = {"losses": first["losses"], "train": []}
        order = list(running)
        for _ in range(rounds):
            order = order[1:] + order[:1]
            for name in order:
                seconds = running[name].run("train", STEPS)["seconds"]
                found[name]["train"].append(1e3 * float(np.median(seconds)))
        for name, process in running.items():
            found[name] |= process.run("memory", 1)
    return found


INT4 = "graphc, frozen weights in int4"
"""Its losses are its own."""
PLAIN, CHECKPOINTING, FLOOR = "PEFT", "PEFT, checkpointing", "the frozen products alone"


def contestants(examples: Path, sizes: Sizes, peaks: Mapping[str, int]) -> list[Contestant]:
    """All of them; budgets are parts of PEFT's `peaks`, which were measured before."""
    budgets = {"graphc, checkpointing's peak": peaks[CHECKPOINTING]}
    budgets |= {f"graphc, {part:.0%} of PEFT's peak": int(part * peaks[PLAIN]) for part in PARTS}
    return [
        theirs(FLOOR, "floor", sizes),
        theirs(PLAIN, "plain", sizes),
        theirs(CHECKPOINTING, "checkpointing", sizes),
        ours("graphc, all saved", examples, sizes, passes="canonicalize,share_random,fold_weights"),
        ours("graphc", examples, sizes),
        ours(INT4, examples, sizes, quantize="int4"),
        *(ours(name, examples, sizes, memory_budget=budget) for name, budget in budgets.items()),
    ]


def report(examples: Path, sizes: Sizes, rounds: int, write: Callable[[str], object]) -> dict[str, dict[str, Any]]:
    """Measure everything and `write` it as lines of Markdown; megabytes are 10⁶ bytes."""
    first = race([theirs(PLAIN, "plain", sizes), theirs(CHECKPOINTING, "checkpointing", sizes)], 0)
    for name, each in first.items():
        if "failure" in each:
            raise RuntimeError(f"{name} cannot train, which all else is compared with: {each['failure']}")
    peaks = {name: each["peak"] for name, each in first.items()}
    found = race(contestants(examples, sizes, peaks), rounds)
    for line in rows(found):
        write(line)
    return found


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table in Markdown; who could not train has the reason in its row."""
    lines = [
        "| | ms a step | PEFT's time / its own | saved, MB | of PEFT's | peak, MB | weights, MB | third loss |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, each in found.items():
        if "failure" in each:
            lines.append(f"| {name} | {each['failure']} | | | | | | |")
            continue
        speed = ratio(found[PLAIN]["train"], each["train"])
        cells = [name, f"{float(np.median(each['train'])):.0f}", str(speed)]
        if name == FLOOR:
            cells += [""] * 5
        else:
            cells += [f"{each['saved'] / 1e6:.1f}", f"{each['saved'] / found[PLAIN]['saved']:.2f}"]
            cells += [f"{each['peak'] / 1e6:.1f}", f"{each['weights'] / 1e6:.1f}", f"{each['losses'][2]:.6f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
