"""Fine-tuning by adapters beside PEFT: the language model of the examples on C headers, the digits on their side.

PEFT trains twins of the networks in a process of its own, from the weights and the adapter that graphc wrote, on the
same batches, in float32 and in float64. Between these two curves is what rounding does to PEFT itself: a step rounds
anew and carries on what was rounded before. In the language model, which is smooth, that stays near float32's epsilon
(1.2e-7 of the loss) for sixty steps. In the digits network, of few numbers and large steps, a ReLU of a value that is
zero but for rounding goes the other way sooner or later; from there on a curve goes its own way, PEFT's in float32 too.
So a curve is compared with the nearer of PEFT's two.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import needs

WORKER = Path(__file__).with_name("finetune_worker.py")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TARGETS = ["torch", "numpy", "onnx", "jax"]
TOLERANCE = 2e-6
"""Of losses: some 17 of float32's epsilons."""
KEY = np.array([0, 1], np.uint32)
Array = np.ndarray[Any, Any]


@dataclass
class Case:
    """A model that is fine-tuned, `make(target)` with an adapter as it begins, and what on, a batch for each step.

    Losses are compared in the first `compared` steps.
    """

    name: str
    make: Callable[[str], Any]
    rates: list[float]
    x: Array
    y: Array
    held_out: tuple[Array, Array]
    compared: int
    weight_decay: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict[str, int])

    def adapted(self, target: str, folder: Path) -> Any:
        """The model with an adapter from a folder in place of its own."""
        model = self.make(target)
        (name,) = model.adapters
        model.delete_adapter(name)
        model.load_adapter(folder, name)
        model.compile(model.optimizer, model.loss, target=target)
        return model

    def measured(self, model: Any) -> tuple[Array, list[float]]:
        """What the model gives for what is held out; the mean loss of that, and the part that is right."""
        x, y = self.held_out
        scores = model.predict(x, batch_size=150, verbose=0).astype(np.float64)
        logs = scores - scores.max(-1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
        right = float((scores.argmax(-1) == y).mean())
        return scores[:4], [-float(np.take_along_axis(logs, y[..., None], -1).mean()), right]


def language_case(
    steps: int, batch: int, held_out: int | None, context: int, weights: Any = None, **sizes: int
) -> Case:
    import finetune_gpt
    from stdlib_text import all_windows, headers, windows

    import graphc

    text = headers()
    x, y = (each.reshape(steps, batch, context) for each in windows(text.train, steps * batch, context, KEY))
    schedule = graphc.optimizers.schedules.CosineDecay(finetune_gpt.RATE, steps)
    return Case(
        "gpt",
        lambda target: finetune_gpt.adapted(target, steps, weights, context, **sizes),
        [schedule(step) for step in range(steps)],
        x,
        y,
        all_windows(text.held_out[:held_out], context),
        steps,
        finetune_gpt.WEIGHT_DECAY,
        sizes,
    )


def digits_case(epochs: int, compared: int, steps: int | None = None) -> Case:
    import digits_lora

    import graphc

    with np.load(digits_lora.FOLDER / "digits_test.npz") as data:
        x, y, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x", "y"))
    rng, each = np.random.default_rng(0), len(x) // digits_lora.BATCH
    rows = np.concatenate([rng.permutation(len(x))[: each * digits_lora.BATCH] for _ in range(epochs)])
    rows = rows.reshape(-1, digits_lora.BATCH)[:steps]
    schedule = graphc.optimizers.schedules.CosineDecay(digits_lora.RATE, epochs * (each + 1))
    return Case(
        "digits",
        lambda target: digits_lora.adapted(target, epochs, dropout=0.0),
        [schedule(step) for step in range(len(rows))],
        digits_lora.sideways(x)[rows],
        y[rows].astype(np.int32),
        (digits_lora.sideways(x_test), y_test.astype(np.int32)),
        compared,
    )


def beside_peft(cases: list[Case], folder: Path) -> None:
    """Let PEFT do all cases, each in its folder, from an adapter that does something."""
    for case in cases:
        (own := folder / case.name).mkdir()
        model = case.make("numpy")
        model.save_merged(own / "base")  # B is still zeros
        rng = np.random.default_rng(2)
        (adapter,) = model.adapters.values()
        for _, each in adapter.parts.values():
            each.b.assign(0.02 * rng.standard_normal(each.b.shape).astype(np.float32))
        model.save_adapter(own / "adapter")
        model.save_merged(own / "merged")
        job = {"model": case.name, "sizes": case.sizes, "rates": case.rates, "weight_decay": case.weight_decay}
        (own / "job.json").write_text(json.dumps(job))
        np.savez(own / "batches.npz", x=case.x, y=case.y)
        np.savez(own / "held_out.npz", x=case.held_out[0], y=case.held_out[1])
    environment = os.environ | {"USE_TF": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), *(str(folder / case.name) for case in cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def compare(case: Case, folder: Path, say: Callable[[str], None]) -> dict[str, tuple[list[float], list[float]]]:
    """Check every target's losses; what it measures before and after of what is held out, by target and by "PEFT"."""
    peft = np.load(folder / "found.npz")
    exact, theirs = peft["float64"], peft["float32"]
    say(described(f"{case.name}, PEFT", theirs, np.abs(theirs / exact - 1), case, peft["before"], peft["after"]))
    found = {"PEFT": (list(peft["before"]), list(peft["after"]))}
    for target in TARGETS:
        needs(target)
        model = case.adapted(target, folder / "adapter")
        outputs, before = case.measured(model)
        np.testing.assert_allclose(outputs, peft["adapted"], rtol=1e-4, atol=1e-4)
        curve = np.array([float(model.train_on_batch(x, y)) for x, y in zip(case.x, case.y, strict=True)])
        found[target] = before, case.measured(model)[1]
        distance = np.minimum(np.abs(curve / exact - 1), np.abs(curve / theirs - 1))
        say(described(f"{case.name}, {target}", curve, distance, case, *found[target]))
        assert distance[: case.compared].max() <= TOLERANCE, target
    return found


def described(name: str, curve: Array, distance: Array, case: Case, before: Any, after: Any) -> str:
    first = f"{name}: losses {', '.join(f'{loss:.6f}' for loss in curve[:3])} … {curve[-1]:.6f}"
    apart = f"apart by {distance[0]:.1e} at first, at most {distance[: case.compared].max():.1e} in {case.compared}"
    return f"{first}, {apart}; held out {before[0]:.4f}, {before[1]:.2%} → {after[0]:.4f}, {after[1]:.2%}"


def check_merges(case: Case, folder: Path) -> None:
    """Merged weights compute what the adapter does: written by graphc and read by PyTorch; and of what PEFT trained."""
    peft = np.load(folder / "found.npz")
    np.testing.assert_allclose(peft["merged"], peft["adapted"], rtol=1e-4, atol=1e-4)
    some = case.held_out[0][:4]
    model = case.adapted("torch", folder / "trained")
    adapted = model.predict(some, verbose=0)
    np.testing.assert_allclose(adapted, peft["trained"], rtol=1e-4, atol=1e-4)
    certificate = model.merge_adapter(inputs=some)
    np.testing.assert_allclose(model.predict(some, verbose=0), adapted, rtol=1e-4, atol=1e-4)
    outputs = certificate.outputs
    assert outputs is not None and outputs["largest_difference"] <= 1e-5 * outputs["largest_output"]
    assert all(tensor["measured"] <= tensor["bound"] for tensor in certificate.tensors.values())
    model.unmerge_adapter()
    np.testing.assert_array_equal(model.predict(some, verbose=0), adapted)


def test_a_few_steps_have_the_losses_of_peft(tmp_path: Path) -> None:
    """On every target, of a small language model and of the digits network."""
    sizes = {"layers": 2, "width": 24, "heads": 2}
    cases = [language_case(8, 4, 513, 16, **sizes), digits_case(1, 8, 8)]
    beside_peft(cases, tmp_path)
    for case in cases:
        compare(case, tmp_path / case.name, print)
        check_merges(case, tmp_path / case.name)


@pytest.mark.slow
def test_the_language_model_learns_c_headers_as_with_peft(
    trained_models: Callable[[str], tuple[Path, str]],
    tmp_path: Path,
    announce: Callable[[str], None],
) -> None:
    """Sixty steps of the trained model; of what is held out it needs a quarter fewer nats then, on every target."""
    weights = os.environ.get("GRAPHC_GPT") or trained_models("torch")[0]
    case = language_case(60, 8, None, 128, weights)
    beside_peft([case], tmp_path)
    found = compare(case, tmp_path / case.name, announce)
    check_merges(case, tmp_path / case.name)
    for before, after in found.values():
        assert after[0] <= 0.8 * before[0]
        np.testing.assert_allclose(after, found["PEFT"][1], rtol=1e-4)


@pytest.mark.slow
def test_the_digits_network_learns_digits_on_their_side_as_with_peft(
    tmp_path: Path, announce: Callable[[str], None]
) -> None:
    """Twenty epochs; losses are compared for sixty steps, digits that are right within 1.5 in a hundred."""
    case = digits_case(20, 60)
    beside_peft([case], tmp_path)
    found = compare(case, tmp_path / case.name, announce)
    check_merges(case, tmp_path / case.name)
    for before, after in found.values():
        assert before[1] < 0.2 and after[1] > 0.95
        assert abs(after[1] - found["PEFT"][1][1]) <= 0.015


@pytest.mark.slow
def test_the_example_says_what_the_adapter_is_worth(
    trained_models: Callable[[str], tuple[Path, str]], tmp_path: Path
) -> None:
    weights = os.environ.get("GRAPHC_GPT") or str(trained_models("torch")[0])
    command = [sys.executable, str(EXAMPLES / "finetune_gpt.py"), weights, "--target", "torch", "--steps", "40"]
    text = subprocess.run([*command, "--save", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    print(text)
    numbers = [float(part.split()[0]) for line in text.splitlines() for part in line.split(": ")[1:] if "nats" in line]
    headers, taught, modules = numbers
    assert taught < headers - 0.3 and f"{modules:.4f} of modules" in text
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "merged"}
