"""Runs of `worker.py` that are killed and started again, and what they end with."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WORKER = Path(__file__).with_name("worker.py")
WRITING = ("writing", "written", "synced", "renamed")


@dataclass(frozen=True)
class Setting:
    """What is trained, and how often it is saved."""

    target: str
    network: str = "perceptron"
    save_freq: int | str = 3
    epochs: int = 4


@dataclass(frozen=True)
class Kill:
    """A moment at which the process is killed: by itself, or from outside when it has said that a batch was done."""

    moment: str
    number: int

    def __str__(self):
        return {
            "batch": f"after step {self.number}",
            "epoch": f"in epoch {self.number + 1}, just shuffled",
            "signal": f"from outside, some time after step {self.number}",
            "writing": f"writing checkpoint {self.number}, half of it in the file",
            "written": f"writing checkpoint {self.number}, before it is synced",
            "synced": f"writing checkpoint {self.number}, synced, before it is renamed",
            "renamed": f"writing checkpoint {self.number}, renamed, before the folder is synced",
        }[self.moment]


def run(folder, setting, kill=None, delay=0.0):
    """Train in `folder`, from its checkpoint if there is one. Whether the process was killed rather than done.

    A signal from outside is sent `delay` seconds after the process has said that the batch was done.
    """
    plan = {"target": setting.target, "network": setting.network, "save_freq": setting.save_freq}
    plan |= {"epochs": setting.epochs, "kill": None}
    if kill is not None and kill.moment != "signal":
        plan["kill"] = [kill.moment, kill.number]
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, str(WORKER), str(folder), json.dumps(plan)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if kill is not None and kill.moment == "signal":
            for line in process.stdout:
                if line.split()[:1] == ["batch"] and int(line.split()[1]) >= kill.number:
                    time.sleep(delay)
                    process.send_signal(signal.SIGKILL)
                    break
        _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def final(folder):
    """The weights and optimizer slots, then what else must be equal, as bytes and text."""
    with np.load(folder / "final.npz") as arrays:
        found = [(array.dtype.str, array.shape, array.tobytes()) for array in arrays.values()]
    return found, (folder / "final.json").read_text(), (folder / "log.csv").read_text()


def undisturbed(folder, setting):
    """What a run ends with that nobody kills."""
    assert not run(folder, setting)
    return final(folder)


def killed_and_resumed(folder, setting, kills):
    """What a run ends with that is killed at each of these moments in turn, and started again each time."""
    for kill in kills:
        assert run(folder, setting, kill), f"the run ended before it was to be killed {kill}"
    assert not run(folder, setting)
    left = [*folder.glob(".*"), *folder.glob("backup/*")]
    assert not left, f"left behind: {left}"
    return final(folder)


OFTEN, SELDOM = Setting("numpy"), Setting("numpy", "convolutional", "epoch")
ON_NUMPY = [
    *[(OFTEN, Kill("batch", step)) for step in (1, 2, 4, 9, 13, 20)],
    *[(SELDOM, Kill("batch", step)) for step in (3, 5, 17)],
    (OFTEN, Kill("epoch", 1)),
    (SELDOM, Kill("epoch", 2)),
    *[(OFTEN, Kill("signal", step)) for step in (6, 12)],
    *[(OFTEN, Kill(moment, number)) for moment, number in zip(WRITING, (3, 1, 2, 5), strict=True)],
    *[(SELDOM, Kill(moment, number)) for moment, number in zip(WRITING[1:], (2, 3, 1), strict=True)],
]
"""Twenty moments on numpy, 7 of them in the writing of a checkpoint, 2 right after a reshuffle."""

ELSEWHERE = [Kill("batch", 7), Kill("epoch", 2), Kill("written", 2), Kill("synced", 3), Kill("signal", 11)]
"""Five moments on each other target."""


def moments(targets=("torch", "jax", "onnx")):
    """Every run that is to be killed once, with its moment."""
    elsewhere = [(Setting(target, "convolutional"), kill) for target in targets for kill in ELSEWHERE]
    return [*ON_NUMPY, *elsewhere]
