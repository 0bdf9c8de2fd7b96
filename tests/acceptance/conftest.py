"""What acceptance tests share: the language model that an example trains."""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts import needs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def trained_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, str]]:
    """The model that `examples/gpt_train.py` trains on a target, and what it prints; each is run once."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def trained(target: str) -> tuple[Path, str]:
        needs(target)
        printed, saved = shared / f"gpt-{target}.txt", shared / f"gpt-{target}.graphc"
        with open(shared / f"gpt-{target}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
            if not printed.exists():
                script = [sys.executable, str(EXAMPLES / "gpt_train.py"), "--target", target, "--save", str(saved)]
                text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
                print("", text, sep="\n", flush=True)
                printed.write_text(text, encoding="utf-8")
        return saved, printed.read_text(encoding="utf-8")

    return trained


@pytest.fixture(scope="session")
def language_model(trained_models: Callable[[str], tuple[Path, str]]) -> Callable[[str], tuple[list[float], float]]:
    """The first mean losses of `examples/gpt_train.py` on a target, and its nats per byte."""

    def trained(target: str) -> tuple[list[float], float]:
        _, text = trained_models(target)
        means = [float(loss) for loss in re.findall(r"mean loss ([\d.]+)", text)[:20]]
        (nats,) = re.findall(r"held-out modules: ([\d.]+) nats", text)
        return means, float(nats)

    return trained
