"""A model in JAX, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(image)  # or forward(model.params, image)

forward:
    image: float32[B, 8, 8, 1]
    returns logits: float32[B, 10]
"""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax
from safetensors.flax import load_file


def batch_norm(x, mean, variance, scale=1, offset=0, epsilon=0.001):
    """`x` normalised by the given statistics along its last axis."""
    return (x - mean) * lax.rsqrt(variance + epsilon) * scale + offset


def convolution(x, kernel, strides=None, padding="valid", dilation=None, groups=1):
    """Convolution of channels-last `x` with a kernel [*window, in / groups, out]."""
    space = "DHW"[5 - x.ndim :]
    return lax.conv_general_dilated(
        x,
        kernel,
        strides or (1,) * len(space),
        padding.upper() if isinstance(padding, str) else padding,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )


@jax.jit
def forward(params, image):
    """image: float32[B, 8, 8, 1] → logits: float32[B, 10]"""
    x = convolution(image, params["stem"]["kernel"], padding="same")
    x = batch_norm(
        x,
        params["stem_bn"]["moving_mean"],
        params["stem_bn"]["moving_variance"],
        params["stem_bn"]["gamma"],
        params["stem_bn"]["beta"],
    )
    x = jax.nn.relu(x)
    y = jax.nn.relu(convolution(x, params["block_conv1"]["kernel"], padding="same") + params["block_conv1"]["bias"])
    x = x + (convolution(y, params["block_conv2"]["kernel"], padding="same") + params["block_conv2"]["bias"])
    x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(convolution(x, params["head_conv"]["kernel"], padding="same") + params["head_conv"]["bias"])
    return x.mean(axis=(1, 2)) @ params["logits"]["kernel"] + params["logits"]["bias"]


class Model:
    """The entries with the weights they read."""

    def __init__(self, params):
        self.params = params

    def __call__(self, image):
        return forward(self.params, image)


def load(folder=None):
    """The model with the weights beside this file, or in `folder`."""
    path = Path(folder or Path(__file__).parent) / "model.safetensors"
    return Model(nested(load_file(path)))


def nested(weights):
    """Weights named by paths as nested dicts, with lists where the keys are numbers."""
    tree = {}
    for path, array in weights.items():
        *groups, name = path.split("/")
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = array
    return with_lists(tree)


def with_lists(tree):
    if not isinstance(tree, dict):
        return tree
    items = {key: with_lists(item) for key, item in tree.items()}
    if items and all(key.isdigit() for key in items):
        return [items[key] for key in sorted(items, key=int)]
    return items
