"""Teach the model of `gpt.py`, which knows Python's modules, C headers by low-rank adapters, on any target.

`python examples/gpt_train.py --target torch --save gpt.graphc` trains it, then `python examples/finetune_gpt.py
gpt.graphc --target onnx` takes 200 steps of 8 windows of 128 bytes of the headers that Python is extended by; some are
held out to measure on. The model's own weights stay as they are, so that it knows Python as before without the
adapter. With `--save FOLDER` the adapter is written as PEFT writes one, and beside it all weights with the adapter
merged into them.
"""

import argparse
from pathlib import Path

from gpt import gpt
from gpt_train import BATCH, CONTEXT, SEED, FirstLosses
from stdlib_text import all_windows, corpus, headers, windows

import graphc
from graphc import losses, optimizers

STEPS = 200
RATE = 2e-3
WEIGHT_DECAY = 0.01
RANK = 8
TARGETS = "query,key,value,out,gate,up,down"


def adapted(target: str, steps: int = STEPS, weights: str | None = None, context: int = CONTEXT, **sizes):
    """The model, with the weights that were saved, and an adapter in each linear layer of its blocks."""
    graphc.utils.set_random_seed(SEED)
    model = gpt(context=context, **sizes)
    if weights is not None:
        model.load_weights(weights)
    model.add_adapter("headers", r=RANK, alpha=2 * RANK, targets=TARGETS)
    model.compile(
        optimizers.AdamW(optimizers.schedules.CosineDecay(RATE, steps), weight_decay=WEIGHT_DECAY),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        target=target,
    )
    return model


def nats(model, text, context: int = CONTEXT) -> float:
    """How many nats per byte the model needs for a text."""
    return model.evaluate(*all_windows(text, context), batch_size=32, verbose=0)


def size(folder: Path) -> int:
    """The bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a model that gpt_train.py saved")
    parser.add_argument("--target", default=graphc.config.target(), help="what it runs on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="%(default)s by default")
    parser.add_argument("--save", metavar="FOLDER", help="write the adapter and the merged weights")
    arguments = parser.parse_args()
    text, modules = headers(), corpus().held_out[:20_000]
    model = adapted(arguments.target, arguments.steps, arguments.weights)
    trained = sum(variable.numpy().size for variable in model.trainable_weights)
    print(
        f"{model.name}: target {arguments.target!r}, {trained:,} of {model.count_params():,} numbers are trained, on "
        f"{len(text.train):,} bytes of C headers; {len(text.held_out):,} are held out"
    )
    print(f"before: {nats(model, text.held_out):.4f} nats per byte of headers, {nats(model, modules):.4f} of modules")
    tokens, following = windows(text.train, BATCH * arguments.steps, CONTEXT, graphc.random.key(SEED))
    first = FirstLosses()
    model.fit(tokens, following, batch_size=BATCH, verbose=0, callbacks=[first])
    print(f"mean losses of the first steps: {', '.join(f'{loss:.6f}' for loss in first.losses)}")
    print(f"after {arguments.steps} steps: {nats(model, text.held_out):.4f} nats per byte of headers")
    if arguments.save:
        adapter, merged = (Path(arguments.save) / name for name in ("adapter", "merged"))
        model.save_adapter(adapter)
        certificate = model.save_merged(merged)
        bound = max(tensor["bound"] for tensor in certificate.tensors.values())
        print(f"the adapter takes {size(adapter):,} bytes, all weights {size(merged):,}")
        print(f"merged: no weight is off by more than {bound:.2g}")
    model.set_adapter(None)
    print(f"without the adapter: {nats(model, modules):.4f} nats per byte of modules")


if __name__ == "__main__":
    main()
