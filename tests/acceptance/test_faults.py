"""Runs of `fit` that are killed at any moment and started again end as if nobody had killed them, bit for bit."""

import json
from random import Random

import pytest
from faults.harness import (
    ELSEWHERE,
    OFTEN,
    ON_NUMPY,
    WRITING,
    Kill,
    Setting,
    killed_and_resumed,
    moments,
    run,
    undisturbed,
)

EQUAL = ("weights and slots", "history", "log")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run of a setting ends with; each is made once."""
    runs = {}

    def get(setting):
        if setting not in runs:
            runs[setting] = undisturbed(tmp_path_factory.mktemp("whole") / "run", setting)
        return runs[setting]

    return get


def assert_equal(found, wanted):
    unequal = [what for what, mine, theirs in zip(EQUAL, found, wanted, strict=True) if mine != theirs]
    assert not unequal


def test_a_run_that_is_killed_again_and_again(tmp_path, whole):
    """In the middle of writing, between syncing and renaming, after renaming, just reshuffled, from outside."""
    kills = [Kill("writing", 2), Kill("synced", 1), Kill("renamed", 1), Kill("epoch", 2), Kill("signal", 13)]
    assert_equal(killed_and_resumed(tmp_path / "run", OFTEN, kills), whole(OFTEN))


def test_the_undisturbed_run_has_something_to_lose(whole):
    _, final, _ = whole(OFTEN)
    assert len(set(json.loads(final)["history"]["learning_rate"])) > 1


def test_the_moments_are_those_that_were_asked_for():
    for kills in ([kill for _, kill in ON_NUMPY], ELSEWHERE):
        assert 3 * sum(kill.moment in WRITING for kill in kills) >= len(kills)
        assert any(kill.moment == "epoch" for kill in kills)
    assert len(ON_NUMPY) == 20 and len(ELSEWHERE) == 5


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "kill"), moments(), ids=lambda each: str(getattr(each, "target", each)))
def test_a_run_that_is_killed_once(tmp_path, whole, setting, kill):
    assert_equal(killed_and_resumed(tmp_path / "run", setting, [kill]), whole(setting))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["torch", "jax", "onnx"])
def test_a_run_on_another_target_that_is_killed_while_writing(tmp_path, whole, target):
    setting = Setting(target)
    kills = [Kill(moment, 1) for moment in WRITING]
    assert_equal(killed_and_resumed(tmp_path / "run", setting, kills), whole(setting))


@pytest.mark.slow
def test_a_run_that_is_killed_at_random(tmp_path, whole):
    """Twenty times, a quarter of a second at most after its first step: a process writes a checkpoint every 2 steps."""
    setting, random = Setting("numpy", save_freq=2, epochs=40), Random(1)
    for _ in range(20):
        run(tmp_path / "run", setting, Kill("signal", 1), delay=random.random() / 4)
    assert_equal(killed_and_resumed(tmp_path / "run", setting, []), whole(setting))
