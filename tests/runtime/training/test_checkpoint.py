"""A run as a checkpoint: what is saved is restored, and what does not fit is refused before anything changes."""

from dataclasses import asdict

import numpy as np
import pytest

from graphc.frontends.variable import Variable
from graphc.ir.errors import FormatError, GraphcError
from graphc.runtime.training.checkpoint import Position, Run, restore_run, save_run
from graphc.runtime.training.checkpoint_file import open_checkpoint, write_checkpoint

SHAPES = {
    "dense/kernel": (3, 2),
    "dense/bias": (2,),
    "optimizer/dense/kernel/momentum": (3, 2),
    "metrics/loss/total": (),
}


class Remembering:
    def __init__(self, state=None):
        self.state = state

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


class Other(Remembering):
    pass


class Rate:
    def __init__(self, value):
        self.learning_rate = Variable(np.float32(value))


def run(value, shapes=None, **changed):
    shapes = SHAPES if shapes is None else shapes
    variables = {name: Variable(np.full(shape, value, np.float32), name=name) for name, shape in shapes.items()}
    given = {"position": Position([1, 2], steps=5, batch_size=8), "optimizer": Rate(value), "structure": "a"}
    return Run(variables=variables, **given | changed)


def values(of):
    return {name: variable.numpy().tolist() for name, variable in of.variables.items()}


@pytest.fixture
def saved(tmp_path):
    position = Position([7, 2**32 - 1], 3, 4, 1, 5, 8, {"loss": 0.1}, True)
    callbacks = [Remembering({"best": np.arange(3), "wait": 2}), Remembering({"wait": 3}), Other()]
    save_run(tmp_path / "c", run(0.25, position=position, callbacks=callbacks))
    return tmp_path / "c"


def test_a_run_is_where_the_checkpoint_was(saved):
    here = run(1, callbacks=[Other(), Remembering(), Remembering()])
    restore_run(saved, here)
    assert values(here) == values(run(0.25)) and here.optimizer.learning_rate.numpy() == np.float32(0.25)
    assert here.position == Position([7, 2**32 - 1], 3, 4, 1, 5, 8, {"loss": 0.1}, True)
    assert here.callbacks[0].state is None and here.callbacks[2].state == {"wait": 3}
    assert here.callbacks[1].state["best"].tolist() == [0, 1, 2] and here.callbacks[1].state["wait"] == 2


def test_a_callback_that_is_no_longer_there(saved):
    with pytest.warns(UserWarning, match="has the state of a Remembering, and this run has no such callback"):
        restore_run(saved, run(1, callbacks=[Remembering()]))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            SHAPES | {"dense/kernel": (4, 2)},
            r"another model: dense/kernel is f32\[3, 2\] there and f32\[4, 2\] here",
        ),
        (
            {name.replace("kernel", "kernels"): shape for name, shape in SHAPES.items()},
            r"of another model: the model has dense/kernels \(f32\[3, 2\]\), it has dense/kernel \(f32\[3, 2\]\)",
        ),
        (SHAPES | {"head/w": (1,)}, r"of another model: the model has head/w \(f32\[1\]\), it does not have it"),
        (
            {name: shape for name, shape in SHAPES.items() if name != "dense/bias"},
            r"of another model: it has dense/bias \(f32\[2\]\), the model does not",
        ),
        (SHAPES | {"optimizer/dense/kernel/velocity": (3, 2)}, "with another optimizer: the model has optimizer/dense"),
        (SHAPES | {"metrics/accuracy/total": ()}, "with other metrics: the model has metrics/accuracy/total"),
        (SHAPES | {f"layer_{i}/kernel": (1,) for i in range(20)}, "layer_5/kernel .*; and 14 more$"),
    ],
)
def test_a_checkpoint_of_another_model(saved, shapes, message):
    here = run(1, shapes)
    with pytest.raises(GraphcError, match=message):
        restore_run(saved, here)
    assert values(here) == values(run(1, shapes)) and here.position == Position([1, 2], steps=5, batch_size=8)


def test_a_model_of_the_same_weights_that_computes_something_else(saved):
    here = run(1, structure="b")
    with pytest.raises(GraphcError, match="of another model: it has the same weights, but computes something else"):
        restore_run(saved, here)
    assert values(here) == values(run(1))


def test_other_data_in_the_middle_of_an_epoch(saved, tmp_path):
    here = run(1, position=Position([1, 2], steps=10, batch_size=4))
    with pytest.raises(GraphcError, match=r"step 4 of an epoch of 5 steps of 8 examples; .* 10 steps of 4"):
        restore_run(saved, here)
    assert values(here) == values(run(1))
    save_run(tmp_path / "d", run(0.25))
    restore_run(tmp_path / "d", here)
    assert values(here) == values(run(0.25))


POSITION = asdict(Position([1, 2], steps=5, batch_size=8))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"position": 3},
        {"position": POSITION | {"more": 1}},
        {"position": POSITION | {"key": 3}},
        {"position": POSITION | {"key": [1]}},
        {"position": POSITION | {"key": [1, 2**32]}},
        {"position": POSITION | {"key": ["1", 2]}},
        {"position": POSITION | {"epoch": -1}},
        {"position": POSITION | {"step": True}},
        {"position": POSITION | {"steps": 2.0}},
        {"position": POSITION | {"logs": {"loss": "low"}}},
        {"position": POSITION | {"logs": [1]}},
        {"position": POSITION | {"stop": 1}},
        {"position": POSITION, "callbacks": {}},
        {"position": POSITION, "callbacks": [{"name": 1, "state": {}}]},
        {"position": POSITION, "callbacks": [{"name": "Other", "state": []}]},
    ],
)
def test_a_state_that_says_nothing(tmp_path, state):
    """Files that are whole and signed, but were written by somebody else."""
    here = run(1)
    types = {name: variable.tensor_type for name, variable in here.variables.items()}
    write_checkpoint(tmp_path / "c", state, types, lambda name: np.zeros(SHAPES[name], np.float32))
    with pytest.raises(FormatError, match="does not say"):
        restore_run(tmp_path / "c", here)
    assert values(here) == values(run(1))


def test_a_checkpoint_is_read_as_plain_arrays(saved):
    with open_checkpoint(saved) as checkpoint:
        assert set(checkpoint.types) == set(SHAPES)
