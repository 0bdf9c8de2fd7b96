"""Calibration examples of a configuration of `graphc.quantizers`: windows of tokens, or arrays as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function
from graphc.runtime.quantization.observing import Batch, batches


def samples(function: Function, config: Any) -> list[Batch]:
    """The examples of a `GPTQConfig` or `AWQConfig` as calls of a model's `forward`.

    Texts go through the tokenizer, and all tokens in a row; of these windows are taken at even distances. A model that
    takes no integers, or several inputs, is given arrays of examples, of which the first `num_samples` are taken.
    """
    if config.dataset is None:
        raise GraphcError(f"{type(config).__name__} has no dataset, and {config.mode} looks at examples: give some")
    inputs = function.inputs
    tokens = len(inputs) == 1 and inputs[0].type.dtype.is_integer and inputs[0].type.ndim == 2
    if not tokens:
        return batches(function, _first(config.dataset, config.num_samples))
    width = inputs[0].type.shape[1]
    length = width if isinstance(width, int) else config.sequence_length
    row = _tokens(config)
    if row.size < length:
        raise GraphcError(f"the dataset has {row.size} tokens, and a window is of {length}")
    starts = np.linspace(0, row.size - length, config.num_samples).astype(np.int64)
    windows = row[np.unique(starts)[:, None] + np.arange(length)]
    return batches(function, windows.astype(inputs[0].type.dtype.numpy))


def _first(dataset: Any, count: int) -> Any:
    if isinstance(dataset, dict):
        return {name: np.asarray(array)[:count] for name, array in dataset.items()}
    if hasattr(dataset, "shape"):
        return np.asarray(dataset)[:count]
    return [each for _, each in zip(range(count), dataset, strict=False)]


def _tokens(config: Any) -> Any:
    """All tokens of the dataset in a row."""
    if isinstance(config.dataset, (str, bytes)) or not hasattr(config.dataset, "__iter__"):
        raise GraphcError(f"a dataset is an iterable of texts or arrays of tokens, not {type(config.dataset).__name__}")
    pieces: list[Any] = []
    for piece in config.dataset:
        if isinstance(piece, str):
            if config.tokenizer is None:
                raise GraphcError("the dataset has texts: give a tokenizer, which makes integers of one")
            take = getattr(config.tokenizer, "tokenize", config.tokenizer)
            piece = take(piece)
        found = np.asarray(piece)
        if found.dtype.kind not in "iu":
            raise GraphcError(f"tokens are integers, not {found.dtype}")
        pieces.append(found.reshape(-1))
    if not pieces:
        raise GraphcError("the calibration data is empty: the dataset has no texts")
    return np.concatenate(pieces)


__all__ = ["samples"]
