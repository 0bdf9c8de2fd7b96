"""The models of `peft_worker.py` in the DSL: a small Llama, that of the examples, and a small CNN."""

import llama as example
import numpy as np

from graphc import Input, Model, layers

LLAMA_NAMES = {
    "layers_*/*/*": "model.layers.*.*.*",
    "layers_*/*": "model.layers.*.*",
    "lm_head": "lm_head",
    "*": "model.*",
}


def llama(vocabulary=32, width=16, heads=2, groups=1, hidden=24, depth=2):
    return example.llama(depth, width, heads, groups, hidden, vocabulary, context=None)


def cnn():
    image = Input((2, 5, 5), name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", data_format="channels_first", name="conv")(image)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    x = layers.Dense(5, activation="relu", name="dense")(x)
    return Model(image, layers.Dense(3, name="head")(x), name="cnn")


MODELS = {"llama": (llama, LLAMA_NAMES), "cnn": (cnn, None)}


def with_weights(name, tensors):
    """The model with the weights of PyTorch's."""
    from graphc.runtime.lora.adapters import candidates
    from graphc.runtime.lora.layouts import from_torch, tensor_name

    make, names = MODELS[name]
    model = make()
    forms, variables = candidates(model)
    for weight, variable in variables.items():
        array = tensors[tensor_name(names, weight)]
        variable.assign(from_torch(np.asarray(array), forms.get(weight), tuple(variable.shape)))
    return model


__all__ = ["LLAMA_NAMES", "MODELS", "cnn", "llama", "with_weights"]
