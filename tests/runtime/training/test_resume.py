"""`BackupAndRestore`: a run that was interrupted goes on where it was, whatever it consists of, on any target."""

import errno
import os
import stat
import subprocess
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import callbacks, layers, losses, optimizers
from graphc.ir.errors import FormatError, GraphcError
from graphc.runtime.training.checkpoint import Position, Run, restore_run
from graphc.runtime.training.checkpoint_file import open_checkpoint
from graphc.runtime.training.step import batch_types, record_training

GOLDEN = Path(__file__).parents[2] / "golden"
LATEST = "latest.safetensors"


class Interrupted(Exception):
    pass


class Interrupt(callbacks.Callback):
    """Raises after so many batches."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        self.after -= 1
        if self.after == 0:
            raise Interrupted


def model(target="numpy", optimizer=None, units=8, metrics=("accuracy",)):
    graphc.utils.set_random_seed(3)
    inputs = graphc.Input((5,))
    x = layers.Dense(units, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.25)(x)
    made = graphc.Model(inputs, layers.Dense(3)(x))
    made.compile(
        optimizer or optimizers.Adam(0.02),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
        target=target,
    )
    return made


def arrays(count=30):
    random = np.random.default_rng(5)
    return random.standard_normal((count, 5)).astype(np.float32), random.integers(0, 3, count).astype(np.int32)


class Batches(graphc.utils.PyDataset):
    """Batches that change between epochs, as they may."""

    def __init__(self):
        super().__init__()
        self.shift = 0.0

    def __len__(self):
        return 5

    def __getitem__(self, index):
        x, y = arrays()
        rows = slice(6 * index, 6 * index + 6)
        return x[rows] + self.shift, y[rows]

    def on_epoch_end(self):
        self.shift += 0.1


def endless():
    x, y = arrays()
    for number in range(10_000):
        rows = np.arange(6) + number % 25
        yield x[rows] * (1 + number / 100), y[rows]


DATA = {
    "arrays": lambda: {"x": arrays()[0], "y": arrays()[1], "batch_size": 7, "validation_split": 0.2},
    "weighted": lambda: {"x": arrays()[0], "y": arrays()[1], "class_weight": {0: 2.0, 1: 0.5}, "batch_size": 7},
    "cut": lambda: {"x": arrays()[0], "y": arrays()[1], "steps_per_epoch": 4, "batch_size": 7},
    "dataset": lambda: {"x": Batches()},
    "generator": lambda: {"x": endless(), "steps_per_epoch": 5},
}
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "scheduled": lambda: optimizers.AdamW(
        optimizers.schedules.CosineDecay(0.05, 12, warmup_target=0.1, warmup_steps=3)
    ),
    "averaged": lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=None),
    "accumulating": lambda: optimizers.Adam(0.05, gradient_accumulation_steps=3),
    "nadam": lambda: optimizers.Nadam(0.02),
    "ftrl": lambda: optimizers.Ftrl(0.1, gradient_accumulation_steps=2, use_ema=True),
    "lion": lambda: optimizers.Lion(0.01, clipnorm=1.0),
    "scaled": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1), initial_scale=8.0, dynamic_growth_steps=2),
}


def watchers():
    """What remembers something: the rate halves again at each epoch from what it was."""
    return [
        callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.8),
        callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
    ]


def ended(made, history):
    state = [*made.get_weights(), *(v.numpy() for v in made.optimizer.variables)]
    return [a.tobytes() for a in state], history.history, history.epoch


def train(data, made, listed=(), epochs=3):
    return ended(made, made.fit(**data, epochs=epochs, verbose=0, callbacks=list(listed)))


def interrupted(make, data, folder, after, save_freq, make_callbacks=list, **backup):
    """What a run ends with that is interrupted after so many batches, and then again after the half of that."""
    for batches in (after, after // 2 + 1, None):
        listed = [callbacks.BackupAndRestore(folder, save_freq, **backup), *make_callbacks()]
        if batches is None:
            return train(data(), make(), listed)
        with pytest.raises(Interrupted):
            train(data(), make(), [*listed, Interrupt(batches)])
    return None


@pytest.mark.parametrize("save_freq", ["epoch", 1, 2])
@pytest.mark.parametrize("kind", DATA)
def test_whatever_the_data_is(tmp_path, kind, save_freq):
    wanted = train(DATA[kind](), model())
    assert interrupted(model, DATA[kind], tmp_path / "b", 8, save_freq) == wanted
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_whatever_the_optimizer_keeps(tmp_path, kind):
    def make():
        return model(optimizer=OPTIMIZERS[kind]())

    assert interrupted(make, DATA["arrays"], tmp_path / "b", 7, 2) == train(DATA["arrays"](), make())


@pytest.mark.parametrize("after", [1, 3, 4, 5, 8])
def test_whatever_callbacks_remember(tmp_path, after):
    wanted = train(DATA["arrays"](), model(), watchers())
    assert interrupted(model, DATA["arrays"], tmp_path / "b", after, 1, watchers) == wanted


class Stop(callbacks.Callback):
    def __init__(self, moment):
        super().__init__()
        self.moment, self.seen = moment, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.moment == "batch" and self.seen == 6:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if self.moment == "epoch" and epoch == 1:
            self.model.stop_training = True

    def get_state(self):
        return {"seen": self.seen}

    def set_state(self, state):
        self.seen = state["seen"]


class InterruptAtTheEnd(callbacks.Callback):
    def on_train_end(self, logs=None):
        raise Interrupted


@pytest.mark.parametrize(("moment", "save_freq"), [("batch", 1), ("epoch", "epoch"), ("batch", 3)])
def test_a_run_that_a_callback_has_stopped_stays_stopped(tmp_path, moment, save_freq):
    wanted = train(DATA["arrays"](), model(), [Stop(moment)])
    with pytest.raises(Interrupted):
        listed = [callbacks.BackupAndRestore(tmp_path / "b", save_freq), Stop(moment), InterruptAtTheEnd()]
        train(DATA["arrays"](), model(), listed)
    found = train(DATA["arrays"](), model(), [callbacks.BackupAndRestore(tmp_path / "b", save_freq), Stop(moment)])
    assert found == wanted and found[2] == [0, 1]


def test_weights_that_are_not_trained(tmp_path):
    """The checkpoint's take the place of those that this process drew, in `fit`, `evaluate` and `predict`."""

    def made(seed):
        graphc.utils.set_random_seed(seed)
        frozen = layers.Dense(6, activation="relu", trainable=False)
        normalized = layers.BatchNormalization(trainable=False)
        other = graphc.Sequential([graphc.Input((5,)), frozen, normalized, layers.Dense(3)])
        other.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
        return other

    backup = callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    first, other = made(1), made(2)
    wanted = train(DATA["arrays"](), first, [backup], 2)
    assert train(DATA["arrays"](), other, [backup], 2) == wanted
    x, y = arrays()
    assert other.evaluate(x, y, verbose=0) == first.evaluate(x, y, verbose=0)
    assert other.predict(x).tobytes() == first.predict(x).tobytes()
    assert other.fit(x, y, verbose=0).history["loss"] != [] and other.get_weights()[0].tobytes() == wanted[0][0]


@pytest.mark.parametrize("backup", ["backup", "run.safetensors"])
def test_more_epochs_than_were_asked_for_before(tmp_path, backup):
    """A run that ended goes on, where its checkpoint is kept."""
    wanted = train(DATA["arrays"](), model())
    for epochs in (1, 1, 3):
        keeping = callbacks.BackupAndRestore(tmp_path / backup, delete_checkpoint=False)
        found = train(DATA["arrays"](), model(), [keeping], epochs)
    assert found == wanted
    path = tmp_path / backup
    assert [p.name for p in path.parent.iterdir()] == [backup] and (path / LATEST if path.is_dir() else path).is_file()


class AtTheBeginning(callbacks.Callback):
    """What there is when the first epoch of this run begins."""

    found = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.found is None:
            self.found = held(self.model)


def held(made):
    return [v.numpy().tobytes() for v in (*made.weights, *made.optimizer.variables)]


def test_weights_pass_from_target_to_target(tmp_path):
    """A checkpoint is in the source's layout: each target takes up what another has left, in every bit, and leaves it
    to the next, whatever the order in which it holds the axes of a kernel."""
    x, y = np.random.default_rng(0).standard_normal((8, 5, 5, 2)).astype(np.float32), np.arange(8) % 3
    before = None
    for epochs, target in enumerate(("numpy", "torch", "onnx", "jax", "numpy"), 1):
        made = graphc.Sequential([graphc.Input((5, 5, 2)), layers.Conv2D(4, (2, 3)), layers.BatchNormalization()])
        made.add(layers.Flatten())
        made.add(layers.Dense(3, kernel_initializer="he_normal"))
        made.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), target=target)
        beginning = AtTheBeginning()
        keeping = callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
        history = made.fit(x, y, epochs=epochs, verbose=0, callbacks=[beginning, keeping])
        assert history.epoch == list(range(epochs)) and before in (None, beginning.found)
        before = held(made)
        with open_checkpoint(keeping.path) as checkpoint:
            assert {"conv2d/kernel", "optimizer/iteration", "metrics/loss/total"} <= set(checkpoint.types)
            assert checkpoint.read("conv2d/kernel").tobytes() == before[0]
    assert beginning.found != before


def test_a_run_goes_on_on_another_target(tmp_path):
    keeping = {"backup_dir": tmp_path / "b", "delete_checkpoint": False}
    whole, _, _ = train(DATA["arrays"](), model("torch"))
    train(DATA["arrays"](), model("numpy"), [callbacks.BackupAndRestore(**keeping)], 1)
    train(DATA["arrays"](), model("onnx"), [callbacks.BackupAndRestore(**keeping)], 2)
    mixed, _, epochs = train(DATA["arrays"](), model("torch"), [callbacks.BackupAndRestore(**keeping)], 3)
    assert epochs == [0, 1, 2] and len(mixed) == len(whole)
    for mine, theirs in zip(mixed, whole, strict=True):
        if len(mine) > 8:
            np.testing.assert_allclose(np.frombuffer(mine, "f4"), np.frombuffer(theirs, "f4"), rtol=1e-3, atol=1e-4)


# --- what does not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: model(units=9),
            r"of another model: dense/kernel is f32\[5, 8\] there and f32\[5, 9\] here; dense/bias",
        ),
        (
            lambda: model(optimizer=optimizers.SGD(0.1, momentum=0.9)),
            "with another optimizer: it has optimizer/dense/kernel/velocity",
        ),
        (
            lambda: model(metrics=["accuracy", "sparse_top_k_categorical_accuracy"]),
            "with other metrics: .* metrics/sparse_t",
        ),
    ],
)
def test_a_checkpoint_of_another_model(tmp_path, make, message):
    train(DATA["arrays"](), model(), [callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)], 1)
    other = make()
    before = [w.tobytes() for w in other.get_weights()]
    with pytest.raises(GraphcError, match=message):
        train(DATA["arrays"](), other, [callbacks.BackupAndRestore(tmp_path / "b")])
    assert [w.tobytes() for w in other.get_weights()] == before
    assert (tmp_path / "b" / LATEST).is_file()


def test_the_same_weights_of_another_model(tmp_path):
    def made(activation):
        other = graphc.Sequential([graphc.Input((5,)), layers.Dense(3, activation=activation)])
        other.compile("sgd", "sparse_categorical_crossentropy")
        return other

    backup = callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
    train(DATA["arrays"](), made("softmax"), [backup], 1)
    with pytest.raises(GraphcError, match="has the same weights, but computes something else"):
        train(DATA["arrays"](), made("sigmoid"), [backup])
    assert train(DATA["arrays"](), made("softmax"), [backup], 2)[2] == [0, 1]


def test_other_data_in_the_middle_of_an_epoch(tmp_path):
    with pytest.raises(Interrupted):
        train(DATA["arrays"](), model(), [callbacks.BackupAndRestore(tmp_path / "b", 2), Interrupt(3)])
    with pytest.raises(GraphcError, match="after step 2 of an epoch of 4 steps of 7 examples"):
        train(DATA["arrays"]() | {"batch_size": 8}, model(), [callbacks.BackupAndRestore(tmp_path / "b", 2)])


def test_a_damaged_checkpoint(tmp_path):
    """It is refused; with `double_checkpoint` the run goes on from the one before."""
    wanted = train(DATA["arrays"](), model())
    for double in (False, True):
        folder = tmp_path / str(double)
        with pytest.raises(Interrupted):
            listed = [callbacks.BackupAndRestore(folder, 2, double_checkpoint=double), Interrupt(7)]
            train(DATA["arrays"](), model(), listed)
        data = bytearray((folder / LATEST).read_bytes())
        data[-1] ^= 1
        (folder / LATEST).write_bytes(data)
        backup = callbacks.BackupAndRestore(folder, 2, double_checkpoint=double)
        if not double:
            with pytest.raises(FormatError, match=r"latest.safetensors' is not a checkpoint that can be read.*SHA-256"):
                train(DATA["arrays"](), model(), [backup])
            continue
        with pytest.warns(UserWarning, match=r"SHA-256 differs; going on from previous\.safetensors"):
            assert train(DATA["arrays"](), model(), [backup]) == wanted
        assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backup_dir": ""}, "backup_dir is empty"),
        ({"backup_dir": "b", "save_freq": "batch"}, "save_freq is 'epoch' or a number of batches, not 'batch'"),
        ({"backup_dir": "b", "save_freq": 0}, "not 0"),
        ({"backup_dir": "b", "save_freq": True}, "not True"),
    ],
)
def test_arguments_that_mean_nothing(arguments, message):
    with pytest.raises(GraphcError, match=message):
        callbacks.BackupAndRestore(**arguments)


def test_a_state_that_cannot_be_saved(tmp_path):
    class Odd(callbacks.Callback):
        def get_state(self):
            return {"file": object()}

    with pytest.raises(GraphcError, match=r"state/callbacks/0/state/file: a checkpoint holds .*, not object"):
        train(DATA["arrays"](), model(), [Odd(), callbacks.BackupAndRestore(tmp_path / "b")])


def test_a_callback_that_does_not_take_its_state(tmp_path):
    class Counting(callbacks.Callback):
        def get_state(self):
            return {"count": 1}

        def set_state(self, state):
            state["number"]

    for _ in range(2):
        backup = callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
        if backup.path.exists():
            with pytest.raises(FormatError, match=r"has a state that Counting does not take: KeyError\('number'\)"):
                train(DATA["arrays"](), model(), [Counting(), backup], 1)
        else:
            train(DATA["arrays"](), model(), [Counting(), backup], 1)


class NotOurs:
    """A callback of another library: it has the hooks, and no state."""

    def __getattr__(self, name):
        if name.startswith("on_") or name in ("set_model", "set_params"):
            return lambda *arguments, **named: None
        raise AttributeError(name)


def test_a_callback_without_a_state(tmp_path):
    wanted = train(DATA["arrays"](), model())
    assert interrupted(model, DATA["arrays"], tmp_path / "b", 5, 2, lambda: [NotOurs()]) == wanted


# --- disks --------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    """The run ends with a clear error, the last good checkpoint stays, and the run goes on from it."""
    wanted = train(DATA["arrays"](), model())
    fsync, files = os.fsync, []

    def full(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            files.append(descriptor)
        if len(files) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GraphcError, match=r"no room for .*latest\.safetensors.*unchanged; free some space"):
        train(DATA["arrays"](), model(), [callbacks.BackupAndRestore(tmp_path / "b", 2)])
    monkeypatch.undo()
    assert os.listdir(tmp_path / "b") == [LATEST]
    with open_checkpoint(tmp_path / "b" / LATEST) as checkpoint:
        assert checkpoint.state["position"]["step"] == 4
    assert train(DATA["arrays"](), model(), [callbacks.BackupAndRestore(tmp_path / "b", 2)]) == wanted


def test_a_disk_that_is_full(tmp_path):
    """A real one, where a file system can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here; a full disk is simulated in the test above")
    try:
        backup = callbacks.BackupAndRestore(disk / "b", delete_checkpoint=False)
        train(DATA["arrays"](), model(), [backup], 1)
        before = (disk / "b" / LATEST).read_bytes()
        with open(disk / "filler", "wb", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(512)):
                pass
        with pytest.raises(GraphcError, match=r"no room for .*latest\.safetensors.*No space left on device"):
            train(DATA["arrays"](), model(), [backup])
        assert (disk / "b" / LATEST).read_bytes() == before and os.listdir(disk / "b") == [LATEST]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphcError, match=r"the folder .*file/b' cannot be made: Not a directory"):
        train(DATA["arrays"](), model(), [callbacks.BackupAndRestore(tmp_path / "file" / "b")])


def test_leftovers_of_a_killed_run_go(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / f".{LATEST}.0123abcd.part").write_bytes(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(DATA["arrays"](), model(), [callbacks.BackupAndRestore(tmp_path / "b")], 1)
    assert not (tmp_path / "b").exists()


# --- earlier releases ---------------------------------------------------------------------------------------------


def pinned():
    """The model of `tests/golden/checkpoint-1.safetensors`."""
    made = graphc.Sequential([graphc.Input((2,)), layers.Dense(2, kernel_initializer="ones", name="dense")])
    made.compile(optimizers.SGD(0.25, momentum=0.5), "mse")
    return made


def test_a_checkpoint_of_the_first_version(tmp_path):
    """A file that was written once, after an epoch of one step on these two examples, is read by every release."""
    path = tmp_path / "run.safetensors"
    path.write_bytes((GOLDEN / "checkpoint-1.safetensors").read_bytes())
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.version == 1
        saved = {name: checkpoint.read(name).tolist() for name in checkpoint.types}
    assert saved["dense/kernel"] == [[1.0, 0.875], [0.5, 1.0]] and saved["optimizer/iteration"] == 1
    x = np.float32([[1, 0], [0, 2]])
    made = pinned()
    variables = record_training(made, batch_types(made, x, x), None).variables
    run = Run(Position([0, 0]), variables, callbacks=[callbacks.History(), callbacks.ReduceLROnPlateau("loss")])
    restore_run(path, run)
    assert {name: variable.numpy().tolist() for name, variable in variables.items()} == saved
    assert run.position == Position([0, 1], 1, steps=1) and run.callbacks[0].history["loss"] == [1.25]
    assert run.callbacks[1].best == 1.25
