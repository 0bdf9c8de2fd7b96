"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", 2015) for images of any size.

`graphc compile examples/resnet18.py --target torch` takes `model`, with random weights; run as a script, it is compiled
to the default target and reads one random batch. Padding is that of PyTorch's model, the same before as after each
axis, so that weights of one fit the other.
"""

import numpy as np

import graphc
from graphc import Input, Model, layers


def convolution(x, filters: int, size: int, strides: int, name: str):
    """A convolution with padding of half the window, and batch normalization."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(filters, size, strides=strides, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def basic_block(x, filters: int, strides: int, name: str):
    """Two 3 × 3 convolutions around which the input is added; a 1 × 1 one brings it to their shape where it changes."""
    y = convolution(x, filters, 3, strides, f"{name}_1")
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = convolution(y, filters, 3, 1, f"{name}_2")
    if strides > 1 or x.shape[-1] != filters:
        x = convolution(x, filters, 1, strides, f"{name}_shortcut")
    return layers.ReLU(name=f"{name}_relu")(x + y)


def resnet18(classes: int = 10, size: int = 64, width: int = 64) -> Model:
    """Images [size, size, 3] to a score for each of the classes; the first stage has `width` filters."""
    image = Input((size, size, 3), name="image")
    x = convolution(image, width, 7, 2, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for stage in range(4):
        for block in range(2):
            strides = 2 if stage > 0 and block == 0 else 1
            x = basic_block(x, width * 2**stage, strides, f"stage{stage + 1}_block{block + 1}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return Model(image, layers.Dense(classes, name="logits")(x), name="resnet18")


model = resnet18()


def main() -> None:
    """Compile the model and print its scores for one image of noise."""
    executable = graphc.compile(model)
    scores = executable(np.random.default_rng(0).standard_normal((1, 64, 64, 3), np.float32))
    print(f"{model.name}: {model.count_params():,} parameters, compiled to the target {graphc.config.target()!r}")
    print(f"scores of one image of noise: {np.round(scores[0], 2)}")


if __name__ == "__main__":
    main()
