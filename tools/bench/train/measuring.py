"""How training is timed: each contestant in a process of its own, all on one core, in turns.

In a round every contestant runs some steps, in an order that changes from round to round; its time in the round is the
median of theirs. Ratios are of times within a round, so that what else the machine does disturbs both alike; reported
are their median and a 95 % interval by bootstrap over rounds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphc.tools.bench.train.workloads import Workload, write_task

PEERS = Path(__file__).parent / "peers"
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "USE_TF": "0",
}

KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""What is freed stays with the process, in all contestants alike: whether glibc gives it back to the system goes by the
order of allocations, and is 10 ms of page faults in a step of ResNet-18, or none."""

ROUND_SECONDS = 0.5
"""About how long a contestant runs in a round."""

MOST_STEPS = 50
"""In a round, however short they are."""


@dataclass
class Contestant:
    """Who trains: a command, to which the task's folder is added, and what its environment has besides."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    after: list[str] = field(default_factory=list)
    """Arguments after the folder."""


@dataclass
class Measured:
    """Of one contestant: milliseconds per step in each round, those of inference, and the losses of the first steps."""

    train: list[float] = field(default_factory=list)
    infer: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    failure: str | None = None


class Process:
    """A contestant at work."""

    def __init__(self, contestant: Contestant, folder: Path) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed by `close`
        self.process = subprocess.Popen(
            [*contestant.command, str(folder), *contestant.after],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | ONE_THREAD | KEPT_MEMORY | contestant.environment,
        )

    def answer(self) -> dict[str, Any]:
        """The next line. Raises RuntimeError, with the last line of what it wrote to stderr, if the process ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()
            errors = [line for line in said if ": " in line and not line.startswith(" ") and "Error" in line]
            raise RuntimeError(errors[-1] if errors else f"it ended with status {self.process.wait()}")
        return json.loads(line)

    def run(self, kind: str, steps: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{kind} {steps}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended: `answer` says why
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppressed_pipe():
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@contextmanager
def suppressed_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        pass


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those it starts, to one core where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def race(
    workload: Workload, contestants: list[Contestant], rounds: int, examples: Path, infer: tuple[str, ...] = ()
) -> dict[str, Measured]:
    """Measure the contestants by name; those named in `infer` also without training. One that fails says why."""
    found = {each.name: Measured() for each in contestants}
    with one_core(), tempfile.TemporaryDirectory(prefix="graphc-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        write_task(workload, folder, examples)
        running: dict[str, Process] = {}
        steps: dict[str, int] = {}
        for each in contestants:
            process = Process(each, folder)
            stack.callback(process.close)
            try:
                process.answer()
                found[each.name].losses = process.run("train", 5)["losses"]  # compiles
                seconds = float(np.median(process.run("train", 3)["seconds"]))
                steps[each.name] = max(3, min(MOST_STEPS, round(ROUND_SECONDS / seconds)))
                if each.name in infer:
                    process.run("infer", 3)
            except RuntimeError as error:
                found[each.name].failure = str(error)
                continue
            running[each.name] = process
        order = list(running)
        for _ in range(rounds):
            order = order[1:] + order[:1]
            for name in order:
                times = running[name].run("train", steps[name])["seconds"]
                found[name].train.append(1e3 * float(np.median(times)))
                if name in infer:
                    times = running[name].run("infer", steps[name])["seconds"]
                    found[name].infer.append(1e3 * float(np.median(times)))
    return found


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and the bounds of its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


def ratio(ours: list[float], theirs: list[float], draws: int = 2000) -> Ratio:
    """How much longer ours took, round by round. Efron, "Bootstrap methods", 1979."""
    pairs = np.array(ours) / np.array(theirs)
    rng = np.random.default_rng(0)
    medians = np.median(pairs[rng.integers(0, len(pairs), (draws, len(pairs)))], axis=1)
    return Ratio(float(np.median(pairs)), *(float(q) for q in np.quantile(medians, (0.025, 0.975))))


def ours(name: str, target: str, examples: Path) -> Contestant:
    """graphc on a target."""
    module = [sys.executable, "-m", "graphc.tools.bench.train.ours"]
    return Contestant(f"graphc {target}", module, after=[name, target, str(examples)])


def plain_torch(mode: str) -> Contestant:
    """Plain PyTorch, `eager` or `compiled`."""
    return Contestant(f"torch {mode}", [sys.executable, str(PEERS / "torch_worker.py")], after=[mode])


def plain_jax() -> Contestant:
    return Contestant("jax", [sys.executable, str(PEERS / "jax_worker.py")])


def keras(python: str, backend: str) -> Contestant:
    """Keras 3 on a backend, by an interpreter that has it."""
    return Contestant(f"keras {backend}", [python, str(PEERS / "keras_worker.py")], {"KERAS_BACKEND": backend})


def has_keras(python: str) -> bool:
    """Whether an interpreter can import Keras 3."""
    found = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print(m.version('keras'))"], capture_output=True, text=True
    )
    return found.returncode == 0 and found.stdout.startswith("3.")
