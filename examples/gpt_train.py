"""Train the model of `gpt.py` on the sources of Python's standard library, and measure it on modules held out.

`python examples/gpt_train.py --target onnx` takes 1,500 steps of 8 windows of 128 bytes: AdamW, a learning rate that
rises for 100 steps and falls along half a cosine. On one core that is some minutes. The same seed gives the same
windows in the same order on every target.
"""

import argparse
import time

from gpt import gpt
from stdlib_text import all_windows, corpus, windows

import graphc
from graphc import callbacks, losses, optimizers

STEPS = 1500
BATCH = 8
CONTEXT = 128
WARM_UP = 100
RATE = 2e-3
SEED = 0


def schedule(steps: int) -> optimizers.schedules.LearningRateSchedule:
    """Up to `RATE` in a line, then down to a twentieth of it."""
    return optimizers.schedules.CosineDecay(
        0.0, max(steps - WARM_UP, 1), alpha=0.05, warmup_target=RATE, warmup_steps=WARM_UP
    )


def compiled(target: str, steps: int = STEPS, context: int = CONTEXT, **sizes):
    """The model with its loss and optimizer; weight decay applies to kernels, not to scales and the table."""
    graphc.utils.set_random_seed(SEED)
    model = gpt(context=context, **sizes)
    optimizer = optimizers.AdamW(schedule(steps), weight_decay=0.1, beta_2=0.95)
    optimizer.exclude_from_weight_decay(var_names=["scale", "embeddings"])
    model.compile(optimizer, losses.SparseCategoricalCrossentropy(from_logits=True), target=target)
    return model


class FirstLosses(callbacks.Callback):
    """Keeps the mean loss after each of the first 20 steps."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        if len(self.losses) < 20:
            self.losses.append(float(logs["loss"]))


class Progress(callbacks.Callback):
    """Prints the mean loss so far, at the first 20 steps and then at every hundredth."""

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if batch < 20 or batch % 100 == 99:
            seconds = time.perf_counter() - self.start
            print(f"step {batch + 1}: mean loss {logs['loss']:.6f}, {seconds:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=graphc.config.target(), help="what it runs on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="%(default)s by default")
    parser.add_argument("--save", metavar="FILE", help="save the trained model as a .graphc file")
    arguments = parser.parse_args()
    text = corpus()
    tokens, following = windows(text.train, BATCH * arguments.steps, CONTEXT, graphc.random.key(SEED))
    model = compiled(arguments.target, arguments.steps)
    print(
        f"{model.name}: {model.count_params():,} parameters, target {arguments.target!r}, {arguments.steps:,} steps of "
        f"{BATCH} × {CONTEXT} bytes, from {len(text.train):,} to train on; {len(text.held_out):,} are held out"
    )
    model.fit(tokens, following, batch_size=BATCH, verbose=0, callbacks=[Progress()])
    nats = model.evaluate(*all_windows(text.held_out, CONTEXT), batch_size=32, verbose=0)
    print(f"held-out modules: {nats:.4f} nats per byte")
    if arguments.save:
        model.save(arguments.save)


if __name__ == "__main__":
    main()
