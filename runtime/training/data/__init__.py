"""Data for `fit`, `evaluate` and `predict`: start at `adapters.py`, `adapter` takes all that Keras takes."""

from graphc.runtime.training.data.adapters import adapter
from graphc.runtime.training.data.arrays import Batch, named_leaves, split_off
from graphc.runtime.training.data.base import Adapter, packed, unpacked
from graphc.runtime.training.data.dataset import PyDataset, Sequence

__all__ = ["Adapter", "Batch", "PyDataset", "Sequence", "adapter", "named_leaves", "packed", "split_off", "unpacked"]
