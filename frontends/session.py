"""What holds for the whole process: seeds, and the counters of automatic names."""

from __future__ import annotations

import random

import numpy as np

from graphc.frontends import initializers
from graphc.frontends.naming import reset_names
from graphc.frontends.scopes import forget_frames


def set_random_seed(seed: int) -> None:
    """Seed Python's and NumPy's generators and graphc's initializers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    initializers.set_global_seed(seed)


def clear_session(free_memory: bool = True) -> None:
    """Count automatic names and seeds from the start again."""
    reset_names()
    initializers.set_global_seed(0)
    forget_frames()
