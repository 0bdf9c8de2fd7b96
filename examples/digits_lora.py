"""Teach the trained network of `digits_cnn.py` digits that lie on their side, by a low-rank adapter, on any target.

`python examples/digits_lora.py --target onnx` takes some seconds. The network's own weights stay as they are, so that
without the adapter it reads upright digits as before. With `--save FOLDER` the adapter is written as PEFT writes one,
and beside it all weights with the adapter merged into them, and the certificate of that.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from digits_cnn import FOLDER, digits_cnn

import graphc
from graphc import losses, optimizers

EPOCHS = 20
BATCH = 32
RATE = 1e-2
SEED = 0


def adapted(target: str, epochs: int = EPOCHS, images: int = 1347, dropout: float = 0.2):
    """The trained network with an adapter on its convolutions; the last layer is trained as it is."""
    graphc.utils.set_random_seed(SEED)
    model = digits_cnn(dropout)
    model.load_weights(FOLDER / "digits_cnn.safetensors")
    model.add_adapter("sideways", r=4, alpha=8, targets="stem,block_conv*,head_conv", modules_to_save="logits,stem_bn")
    steps = epochs * -(-images // BATCH)
    model.compile(
        optimizers.Adam(optimizers.schedules.CosineDecay(RATE, steps)),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        target=target,
    )
    return model


def sideways(images):
    """Images turned by a right angle."""
    return np.rot90(images, axes=(1, 2)).copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=graphc.config.target(), help="what it runs on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="%(default)s by default")
    parser.add_argument("--save", metavar="FOLDER", help="write the adapter and the merged weights")
    arguments = parser.parse_args()
    with np.load(FOLDER / "digits_test.npz") as data:
        x, y, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x", "y"))

    def right(images) -> str:
        found = int((model.predict(images, verbose=0).argmax(1) == y_test).sum())
        return f"{found} of {len(y_test)}"

    model = adapted(arguments.target, arguments.epochs, len(x))
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_weights)
    print(f"{model.name}: target {arguments.target!r}, {trained:,} of {model.count_params():,} numbers are trained")
    print(f"before: right on {right(x_test)} upright and {right(sideways(x_test))} sideways digits")
    start = time.perf_counter()
    model.fit(sideways(x), y, batch_size=BATCH, epochs=arguments.epochs, verbose=0)
    seconds = time.perf_counter() - start
    print(f"after {arguments.epochs} epochs in {seconds:.1f} s: {right(sideways(x_test))} sideways digits")
    model.set_adapter(None)
    print(f"without the adapter: {right(x_test)} upright digits")
    model.set_adapter("sideways")
    if arguments.save:
        model.save_adapter(Path(arguments.save) / "adapter")
        certificate = model.save_merged(Path(arguments.save) / "merged")
        bound = max(tensor["bound"] for tensor in certificate.tensors.values())
        print(f"merged: no weight is off by more than {bound:.2g}")


if __name__ == "__main__":
    main()
