"""A model in NumPy, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(image)

forward:
    image: float32[B, 8, 8, 1]
    returns logits: float32[B, 10]
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def batch_norm(x, mean, variance, scale=1, offset=0, epsilon=0.001):
    """`x` normalised by the given statistics along its last axis."""
    return (x - mean) / np.sqrt(variance + epsilon) * scale + offset


def padding_pairs(sizes, window, strides, padding, dilation):
    """Padding as (before, after) for each axis: "same" gives ceil(size / stride) windows."""
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    if padding != "same":
        return list(padding)
    totals = [
        max((-(-size // stride) - 1) * stride + d * (k - 1) + 1 - size, 0)
        for size, k, stride, d in zip(sizes, window, strides, dilation, strict=True)
    ]
    return [(total // 2, total - total // 2) for total in totals]


def windows(x, axes, window, strides, dilation):
    """A view of the windows of `x` along `axes`, whose elements lie along new last axes."""
    reach = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    index = [slice(None)] * view.ndim
    for i, axis in enumerate(axes):
        index[axis] = slice(None, None, strides[i])
        index[x.ndim + i] = slice(None, None, dilation[i])
    return view[tuple(index)]


def convolution(x, kernel, strides=None, padding="valid", dilation=None, groups=1):
    """Convolution of channels-last `x` with a kernel [*window, in / groups, out]."""
    rank = x.ndim - 2
    strides, dilation = strides or (1,) * rank, dilation or (1,) * rank
    axes = tuple(range(1, rank + 1))
    pairs = padding_pairs(x.shape[1:-1], kernel.shape[:rank], strides, padding, dilation)
    if any(map(any, pairs)):
        x = np.pad(x, [(0, 0), *pairs, (0, 0)])
    view = windows(x, axes, kernel.shape[:rank], strides, dilation)
    window_axes = tuple(range(rank + 2, 2 * rank + 2))
    if groups == 1:
        return np.tensordot(view, kernel, ((*window_axes, rank + 1), tuple(range(rank + 1))))
    parts = zip(np.split(view, groups, rank + 1), np.split(kernel, groups, -1), strict=True)
    contracted = ((*window_axes, rank + 1), tuple(range(rank + 1)))
    return np.concatenate([np.tensordot(part, filters, contracted) for part, filters in parts], -1)


def reduce_windows(reduce, x, window, strides, padding, dilation, identity):
    """`reduce` (np.max, np.min, np.sum) of each window of `x`, padded with `identity`."""
    pairs = padding_pairs(x.shape, window, strides, padding, dilation)
    if any(map(any, pairs)):
        x = np.pad(x, pairs, constant_values=identity)
    view = windows(x, tuple(range(x.ndim)), window, strides, dilation)
    return reduce(view, axis=tuple(range(x.ndim, 2 * x.ndim)), initial=identity).astype(x.dtype)


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
    x = np.maximum(x, 0)
    y = np.maximum(convolution(x, params["block_conv1"]["kernel"], padding="same") + params["block_conv1"]["bias"], 0)
    x = x + (convolution(y, params["block_conv2"]["kernel"], padding="same") + params["block_conv2"]["bias"])
    x = reduce_windows(np.max, np.maximum(x, 0), (1, 2, 2, 1), (1, 2, 2, 1), "valid", (1, 1, 1, 1), -np.inf)
    x = np.maximum(convolution(x, params["head_conv"]["kernel"], padding="same") + params["head_conv"]["bias"], 0)
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
