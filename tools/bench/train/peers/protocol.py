"""How a process that trains is spoken to: `train 5` comes in on a line, the times and losses of five steps go out.

While it waits for a line it takes no time from the others, so processes can take turns. What is measured is processor
time, which on one thread is the time that passes where nothing else runs, and little disturbed where something does.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Task:
    """What is to be trained, from the folder that describes it: `options`, `weights` by name, batches `x` and `y`."""

    def __init__(self, folder: str) -> None:
        found: dict[str, Any] = json.loads((Path(folder) / "task.json").read_text(encoding="utf-8"))
        self.model: str = found["model"]
        self.options: dict[str, Any] = found["options"]
        self.optimizer: dict[str, Any] = found["optimizer"]
        with np.load(Path(folder) / "weights.npz") as weights:
            self.weights = {name: weights[name] for name in weights.files}
        with np.load(Path(folder) / "data.npz") as data:
            self.x, self.y = data["x"], data["y"]


def serve(batches: int, train: Callable[[int], float], infer: Callable[[int], Any] | None = None) -> None:
    """Answer the lines on stdin until it ends: `train N` and `infer N` call these N times, on the batches in turn.

    The answer is a line of JSON, `seconds` of each call and `losses` of training. Only PyTorch is asked to infer.
    """
    calls: dict[str, Callable[[int], Any]] = {"train": train}
    if infer is not None:
        calls["infer"] = infer
    done = {"train": 0, "infer": 0}
    out, sys.stdout = sys.stdout, sys.stderr  # what a framework prints is not an answer
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        seconds: list[float] = []
        results: list[Any] = []
        for _ in range(int(count)):
            number = done[kind] % batches
            start = time.process_time()
            result = calls[kind](number)
            seconds.append(time.process_time() - start)
            done[kind] += 1
            if kind == "train":
                results.append(result)
        print(json.dumps({"seconds": seconds, "losses": results}), file=out, flush=True)
