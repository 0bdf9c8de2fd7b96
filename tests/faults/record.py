"""Kills runs at all moments and prints what came of it: `python tests/faults/record.py > docs/records/faults.md`."""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.harness import killed_and_resumed, moments, undisturbed

HEAD = """# Runs that were killed

`python tests/faults/record.py` trains small networks (BatchNorm, dropout, shuffling, AdamW, ReduceLROnPlateau,
EarlyStopping that restores the best weights; 4 epochs of 5 steps, one thread), kills the process with SIGKILL, starts
it again, and compares the weights, the optimizer's slots, the history, the learning rate and the CSV log with those of
a run that nobody killed. Checkpoints are written every 3 steps or after each epoch. Equal means: in every bit.

| target | network | checkpoint every | killed | weights and slots | history | log |
| --- | --- | --- | --- | --- | --- | --- |"""


def main():
    print(HEAD, flush=True)
    started, failed, runs = time.monotonic(), 0, {}
    with tempfile.TemporaryDirectory() as root:
        for i, (setting, kill) in enumerate(moments()):
            if setting not in runs:
                runs[setting] = undisturbed(Path(root) / f"undisturbed-{len(runs)}", setting)
            found = killed_and_resumed(Path(root) / f"killed-{i}", setting, [kill])
            same = [mine == theirs for mine, theirs in zip(found, runs[setting], strict=True)]
            failed += not all(same)
            frequency = setting.save_freq if setting.save_freq == "epoch" else f"{setting.save_freq} steps"
            words = ["equal" if each else "**unequal**" for each in same]
            print("|", " | ".join([setting.target, setting.network, frequency, str(kill), *words]), "|", flush=True)
    count = len(moments())
    print(f"\n{count - failed} of {count} resumed runs end as the undisturbed one. {time.monotonic() - started:.0f} s.")
    return failed


if __name__ == "__main__":
    sys.exit(main())
