"""How a process is asked: `train 3` comes in on a line, the seconds and losses of three steps go out; `memory` asks for
what was measured of it. It is processor time, on one thread, which is little disturbed by what else runs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable


def serve(step: Callable[[], float], measured: Callable[[], dict[str, int]]) -> None:
    """Answer the lines on stdin until it ends."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what frameworks and solvers print, in C as well, is no answer
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        kind, _, count = line.strip().partition(" ")
        if kind == "memory":
            print(json.dumps(measured()), file=out, flush=True)
            continue
        seconds: list[float] = []
        losses: list[float] = []
        for _ in range(int(count)):
            start = time.process_time()
            losses.append(step())
            seconds.append(time.process_time() - start)
        print(json.dumps({"seconds": seconds, "losses": losses}), file=out, flush=True)
