"""The examples that train: the digits network from random weights, and a byte-level language model on the sources of
Python's standard library. What is random is the same on every target, so their losses agree."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TARGETS = ["numpy", "onnx", "torch", "jax"]


def agree(means: dict[str, list[float]], tolerance: float) -> None:
    """All targets' losses are those of the first; what an example prints are means of all steps so far."""
    losses = {name: np.diff(np.arange(1, len(found) + 1) * found, prepend=0) for name, found in means.items()}
    wanted = next(iter(losses.values()))
    for name, found in losses.items():
        np.testing.assert_allclose(found, wanted, rtol=tolerance, err_msg=name)


def test_a_small_language_model_has_the_same_losses_on_every_target() -> None:
    import gpt_train
    from stdlib_text import corpus, windows

    import graphc

    tokens, following = windows(corpus().train, 20 * 4, 16, graphc.random.key(0))
    losses: dict[str, list[float]] = {}
    for name in TARGETS:
        needs(name)  # a target that is missing is said, not left out
        progress = gpt_train.FirstLosses()
        model = gpt_train.compiled(name, 20, layers=2, width=16, heads=2, context=16, dropout=0.1)
        model.fit(tokens, following, batch_size=4, verbose=0, callbacks=[progress])
        losses[name] = progress.losses
    assert [len(found) for found in losses.values()] == [20] * len(losses)
    assert losses["numpy"][-1] < losses["numpy"][0]
    agree(losses, 1e-4)


def test_held_out_modules_are_not_trained_on() -> None:
    from stdlib_text import HELD_OUT, MOST_SHARED, all_windows, corpus, joined, shared, shingles, windows

    import graphc

    text = corpus()
    assert "json/__init__.py" in text.copies  # its docstring is that of the decoder
    folder = Path(sys.modules["argparse"].__file__ or "").parent
    argparse = (folder / "argparse.py").read_bytes()
    assert argparse in text.held_out.tobytes() and argparse not in text.train.tobytes()
    assert len(joined([(folder / name).read_bytes() for name in HELD_OUT])) == len(text.held_out)
    known = shingles(argparse)
    assert shared(argparse, known) == 1 and shared(b"nothing of it", known) == 0 and 0 < MOST_SHARED < 0.1
    first, second = (windows(text.train, 5, 16, graphc.random.key(3)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[0][:, 1:], first[1][:, :-1])
    x, y = all_windows(text.held_out, 16)
    np.testing.assert_array_equal(x.flatten()[1:], y.flatten()[:-1])


def test_images_to_test_with_are_not_trained_on() -> None:
    with np.load(EXAMPLES / "digits_test.npz") as data:
        train, test = ({image.tobytes() for image in data[name]} for name in ("x_train", "x"))
    assert len(train) == 1347 and len(test) == 450 and not train & test


@pytest.mark.slow
def test_the_digits_network_learns_on_every_target() -> None:
    """From random weights, with dropout and shuffling, at least 98 % of the test images are read right."""
    losses: dict[str, list[float]] = {}
    for name in TARGETS:
        needs(name)
        script = [sys.executable, str(EXAMPLES / "digits_train.py"), "--target", name]
        found = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
        print(*found, sep="\n")
        losses[name] = [float(loss) for loss in found[1].partition(": ")[2].split(", ")]
        assert len(losses[name]) == 20
        assert int(found[3].partition("right on ")[2].split()[0]) >= 0.98 * 450
    agree(losses, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["torch", "onnx", "jax", "numpy"])
def test_the_language_model_learns(target: str, language_model: Callable[[str], tuple[list[float], float]]) -> None:
    """At most 1.6 nats per byte on modules held out, by the schedule fixed on torch and with its first losses."""
    means, nats = language_model(target)
    assert nats <= 1.6 and len(means) == 20
    wanted, of_torch = language_model("torch")
    agree({"torch": wanted, target: means}, 1e-4)
    assert abs(nats - of_torch) <= 0.03


@pytest.mark.slow
def test_the_language_model_learns_alike_on_all_targets(
    language_model: Callable[[str], tuple[list[float], float]],
) -> None:
    found = {target: language_model(target) for target in TARGETS}
    agree({target: means for target, (means, _) in found.items()}, 1e-4)
    nats = [nats for _, nats in found.values()]
    assert max(nats) - min(nats) <= 0.03
