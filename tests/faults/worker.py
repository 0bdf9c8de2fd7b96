"""Trains a small network with checkpoints, and kills itself where it was told to: `python worker.py FOLDER PLAN`.

PLAN is JSON: `target`, `network`, `save_freq`, `epochs`, and `kill`, None or `[moment, number]`. A checkpoint lies in
the folder while the run is unfinished, so starting the same command again goes on. At the end the weights lie in
`final.npz`, and what else must not differ in `final.json`.

Moments: `batch` (after the step of this number), `epoch` (at the start of this epoch, when its examples have their new
order), and, in the writing of the checkpoint of this number (counted in this process), `writing` (half of it is in the
file), `written` (all of it, not synced), `synced` (not renamed) and `renamed` (its folder not synced).
"""

import json
import os
import signal
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np  # noqa: E402

import graphc  # noqa: E402
from graphc import callbacks, layers  # noqa: E402
from graphc.frontends import whole_files  # noqa: E402
from graphc.runtime.training import checkpoint_file  # noqa: E402

EXAMPLES, BATCH = 70, 16  # the last batch of an epoch is smaller
STEPS = -(-EXAMPLES // BATCH)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# --- killing while a checkpoint is written ------------------------------------------------------------------------


class Dying:
    """A file that kills the process at a write, what came before being in the file."""

    def __init__(self, file, at):
        self.file, self.at, self.writes = file, at, 0

    def write(self, data):
        self.writes += 1
        if self.writes == self.at:
            self.file.flush()
            die()
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def kill_in_writing(moment, number):
    """Let the `number`th checkpoint that this process writes kill it."""
    whole_file, fsync, replace = checkpoint_file.whole_file, os.fsync, os.replace
    written = 0

    class Opened:
        def __init__(self, path):
            self.context = whole_file(path)

        def __enter__(self):
            nonlocal written
            written += 1
            file = self.context.__enter__()
            return Dying(file, 8) if written == number and moment == "writing" else file

        def __exit__(self, *error):
            return self.context.__exit__(*error)

    def fsync_or_die(descriptor):
        if written == number and moment == "written":
            die()
        fsync(descriptor)
        if written == number and moment == "synced":
            die()

    def replace_and_die(source, place):
        replace(source, place)
        if written == number and moment == "renamed":
            die()

    checkpoint_file.whole_file = Opened
    whole_files.os.fsync, whole_files.os.replace = fsync_or_die, replace_and_die


class Killing(callbacks.Callback):
    """Kills at a batch or at the start of an epoch, and says which batches were done."""

    def __init__(self, moment, number):
        super().__init__()
        self.moment, self.number, self.epoch = moment, number, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.moment == "epoch" and self.epoch == self.number and batch == 0:
            die()

    def on_train_batch_end(self, batch, logs=None):
        done = self.epoch * STEPS + batch + 1
        print("batch", done, flush=True)
        if self.moment == "batch" and done == self.number:
            die()


# --- the network and its data -------------------------------------------------------------------------------------


def perceptron():
    inputs = layers.Input((12,))
    x = layers.Dense(24, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.3)(x)
    return graphc.Model(inputs, layers.Dense(3)(x))


def convolutional():
    inputs = layers.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    return graphc.Model(inputs, layers.Dense(3)(x))


NETWORKS = {"perceptron": perceptron, "convolutional": convolutional}


def data(shape, count, seed):
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    x = random.standard_normal((count, *shape)).astype(np.float32) + 0.3 * y.reshape(-1, *[1] * len(shape))
    return x.astype(np.float32), y.astype(np.int32)


def main(folder, plan):
    graphc.utils.set_random_seed(11)
    model = NETWORKS[plan["network"]]()
    shape = model.input.shape[1:]
    model.compile(
        optimizer=graphc.optimizers.AdamW(0.01),
        loss=graphc.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        target=plan["target"],
    )
    moment, number = plan["kill"] or (None, 0)
    if moment in ("writing", "written", "synced", "renamed"):
        kill_in_writing(moment, number)
    history = model.fit(
        *data(shape, EXAMPLES, 1),
        batch_size=BATCH,
        epochs=plan["epochs"],
        validation_data=data(shape, 20, 2),
        verbose=0,
        callbacks=[
            callbacks.BackupAndRestore(folder / "backup", save_freq=plan["save_freq"]),
            callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=0.1),
            callbacks.EarlyStopping(patience=plan["epochs"], restore_best_weights=True),
            callbacks.CSVLogger(folder / "log.csv"),
            Killing(moment, number),
        ],
    )
    np.savez(folder / "final.npz", *model.get_weights(), *[v.numpy() for v in model.optimizer.variables])
    final = {"history": history.history, "epochs": history.epoch, "rate": float(model.optimizer.learning_rate)}
    (folder / "final.json").write_text(json.dumps(final))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
