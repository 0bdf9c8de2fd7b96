"""`TensorBoard`: event files, read back by the format's description."""

import struct

import numpy as np
import pytest

import graphc
from graphc import Input, Sequential, callbacks, layers, optimizers
from graphc.runtime.training.callbacks.event_files import crc32c

X, Y = np.ones((8, 3), np.float32), np.zeros((8, 1), np.float32)


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """The fields of a message by number."""
    at, found = 0, []
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(key & 7) or varint(data, at)
            value, at = data[at : at + size], at + size
        found.append((key >> 3, value))
    return found


def unmasked(data):
    masked = (struct.unpack("<I", data)[0] - 0xA282EAD8) & 0xFFFFFFFF
    return (masked >> 17 | masked << 15) & 0xFFFFFFFF


def scalars(folder):
    """Tag, step and value of all scalars, with the checksums checked."""
    found = []
    for path in sorted(folder.iterdir()):
        data, at, first = path.read_bytes(), 0, True
        assert path.name.startswith("events.out.tfevents.")
        while at < len(data):
            size = struct.unpack("<Q", data[at : at + 8])[0]
            event = data[at + 12 : at + 12 + size]
            assert crc32c(data[at : at + 8]) == unmasked(data[at + 8 : at + 12])
            assert crc32c(event) == unmasked(data[at + 12 + size : at + 16 + size])
            at += size + 16
            got = dict(fields(event))
            assert first == (got.get(3) == b"brain.Event:2")
            first = False
            for _, value in fields(got.get(5, b"")):
                one = dict(fields(value))
                found.append((one[1].decode(), got[2], struct.unpack("<f", one[2])[0]))
    return found


def fitted(folder, epochs=2, more=(), **options):
    graphc.utils.set_random_seed(0)
    model = Sequential([Input((3,)), layers.Dense(1)])
    model.compile(optimizers.SGD(0.25), "mse", metrics=["mae"])
    board = callbacks.TensorBoard(folder, **options)
    history = model.fit(X, Y, batch_size=2, epochs=epochs, validation_data=(X, Y), verbose=0, callbacks=[board, *more])
    return history.history


def test_checksums():
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(bytes(32)) == 0x8A9136AA


def test_logs_of_epochs(tmp_path):
    history = fitted(tmp_path / "logs")
    train, validation = scalars(tmp_path / "logs/train"), scalars(tmp_path / "logs/validation")
    assert [(tag, step) for tag, step, _ in train] == [
        (f"epoch_{name}", epoch) for epoch in range(2) for name in ("loss", "mae", "learning_rate")
    ]
    np.testing.assert_allclose([v for tag, _, v in train if tag == "epoch_loss"], history["loss"], rtol=1e-6)
    assert {v for tag, _, v in train if tag == "epoch_learning_rate"} == {0.25}
    got = [(step, value) for tag, step, value in validation if tag == "epoch_mae"]
    np.testing.assert_allclose(got, list(enumerate(history["val_mae"])), rtol=1e-6)
    assert [step for tag, step, _ in validation if tag == "evaluation_loss_vs_iterations"] == [4, 8]


def test_logs_of_batches(tmp_path):
    fitted(tmp_path, update_freq=3, write_steps_per_second=True)
    steps = {}
    for tag, step, value in scalars(tmp_path / "train"):
        steps.setdefault(tag, []).append(step)
        assert value > 0 or "second" not in tag
    assert steps["batch_loss"] == steps["batch_mae"] == steps["batch_steps_per_second"] == [3, 6]
    assert steps["epoch_steps_per_second"] == [0, 1]


def test_a_resumed_run_counts_on(tmp_path):
    backup = callbacks.BackupAndRestore(tmp_path / "b")

    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "l", more=[backup, callbacks.LambdaCallback(on_epoch_begin=stop)], update_freq="batch")
    fitted(tmp_path / "l", more=[callbacks.BackupAndRestore(tmp_path / "b")], update_freq="batch")
    assert sorted(s for tag, s, _ in scalars(tmp_path / "l/train") if tag == "batch_loss") == list(range(1, 9))


def test_mistakes(tmp_path):
    for options, message in (
        ({"histogram_freq": 1}, "histogram_freq=1 is not supported"),
        ({"write_graph": True}, "write_graph=True is not supported"),
        ({"update_freq": 0}, "update_freq is 'epoch', 'batch' or a number, not 0"),
    ):
        with pytest.raises(graphc.GraphcError, match=message):
            callbacks.TensorBoard(tmp_path, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(graphc.GraphcError, match=r"TensorBoard: the folder .* cannot be made"):
        fitted(tmp_path / "file")
