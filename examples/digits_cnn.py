"""A small convolutional network that reads handwritten digits, with its trained weights.

`graphc compile examples/digits_cnn.py --target torch` takes `model`; run as a script, it is compiled to the default
target and reads the 450 test images. The images are scikit-learn's copy of the UCI optical recognition data set.
"""

from pathlib import Path

import numpy as np

import graphc
from graphc import Input, Model, layers

FOLDER = Path(__file__).parent


def digits_cnn(dropout: float = 0.2) -> Model:
    """8 × 8 grey images to a score for each of the ten digits."""
    image = Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU()(x)
    y = layers.Conv2D(16, 3, padding="same", activation="relu", name="block_conv1")(x)
    y = layers.Conv2D(16, 3, padding="same", name="block_conv2")(y)
    x = layers.ReLU()(x + y)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="head_conv")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    return Model(image, layers.Dense(10, name="logits")(x), name="digits_cnn")


model = digits_cnn()
model.load_weights(FOLDER / "digits_cnn.safetensors")


def main() -> None:
    """Compile the model and count how many test images it reads right."""
    test = np.load(FOLDER / "digits_test.npz")
    executable = graphc.compile(model)
    right = int((np.argmax(executable(test["x"]), axis=1) == test["y"]).sum())
    print(f"{model.name}: {model.count_params():,} parameters, compiled to the target {graphc.config.target()!r}")
    print(f"right on {right} of {len(test['y'])} test images ({right / len(test['y']):.1%})")


if __name__ == "__main__":
    main()
