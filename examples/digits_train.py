"""Train the network of `digits_cnn.py` from random weights, on any target.

`python examples/digits_train.py --target onnx` takes some seconds. Dropout and shuffling are on, and the same seed
gives the same masks and the same order on every target. The images are in `digits_test.npz`: 1,347 to train on, and
450 others to test with.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from digits_cnn import digits_cnn

import graphc
from graphc import callbacks, losses, optimizers

EPOCHS = 30
BATCH = 32
RATE = 3e-3
SEED = 0
DATA = Path(__file__).parent / "digits_test.npz"


def compiled(target: str, epochs: int = EPOCHS, images: int = 1347):
    """The network from random weights, with its loss, optimizer and metric."""
    graphc.utils.set_random_seed(SEED)
    model = digits_cnn()
    steps = epochs * -(-images // BATCH)
    model.compile(
        optimizers.Adam(optimizers.schedules.CosineDecay(RATE, steps)),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        target=target,
    )
    return model


class FirstLosses(callbacks.Callback):
    """Keeps the mean loss after each of the first 20 steps."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        if len(self.losses) < 20:
            self.losses.append(float(logs["loss"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=graphc.config.target(), help="what it runs on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="%(default)s by default")
    arguments = parser.parse_args()
    with np.load(DATA) as data:
        x, y, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x", "y"))
    model = compiled(arguments.target, arguments.epochs, len(x))
    first = FirstLosses()
    start = time.perf_counter()
    history = model.fit(x, y, batch_size=BATCH, epochs=arguments.epochs, verbose=0, callbacks=[first])
    seconds = time.perf_counter() - start
    loss, accuracy = model.evaluate(x_test, y_test, batch_size=BATCH, verbose=0)
    print(f"{model.name}: target {arguments.target!r}, {arguments.epochs} epochs in {seconds:.1f} s")
    print(f"mean losses of the first steps: {', '.join(f'{loss:.6f}' for loss in first.losses)}")
    print(f"training images: loss {history.history['loss'][-1]:.4f}, accuracy {history.history['accuracy'][-1]:.2%}")
    print(f"test images: loss {loss:.4f}, right on {round(accuracy * len(x_test))} of {len(x_test)} ({accuracy:.2%})")


if __name__ == "__main__":
    main()
