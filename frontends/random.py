"""`graphc.random`: random numbers of keys, the same bits on every target.

A key is an array `uint32[2]`. Keras's functions take it as `seed`, which may also be an integer or a `SeedGenerator`;
with none, a function that is traced or lowered gets one parameter `key`, of which each call takes another key, and on
arrays keys follow from `utils.set_random_seed`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontends.initializers import next_seed
from graphc.frontends.naming import automatic_name
from graphc.frontends.ops.dispatch import function, kind, tensor
from graphc.frontends.recording import current_recording
from graphc.frontends.variable import Variable
from graphc.ir import ops as ir
from graphc.ir.builder import Builder
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.dtypes import f32, u32
from graphc.ir.errors import DTypeError, GraphcError


def key(seed: int) -> Any:
    """The key of an integer: its upper and lower 32 bits."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise GraphcError(f"a seed is an integer, not {seed!r}")
    return np.array([int(seed) >> 32 & 0xFFFFFFFF, int(seed) & 0xFFFFFFFF], np.uint32)


class SeedGenerator:
    """A source of seeds: passed as `seed` to functions of `graphc.random`, it lets each call draw other numbers.

    `state` is the key that comes next, at first that of the integer `seed`, or of one that follows from
    `utils.set_random_seed`. On arrays each call counts its upper word up, so the first draw is that of `seed` itself.
    What is traced or lowered takes its keys from the function's `key`, as with no seed, and `seed` is folded in: other
    numbers in each step and call, the same ones on every target and in a run that is resumed. No weight holds a state.
    """

    def __init__(self, seed: int | None = None, name: str | None = None) -> None:
        self.name = name or automatic_name("seed_generator")
        self._given = seed
        self.seed = next_seed() if seed is None else seed
        self.state = Variable(key(self.seed), trainable=False, name="seed_generator_state")

    def next(self, ordered: bool = True) -> Any:
        """The next key. Those that are not `ordered` are far apart."""
        if current_recording() is not None and Builder.current() is not None:
            return fold_in(None, self.seed % 2**31)
        found = self.state.numpy().copy()
        upper, lower = map(int, found)
        words = (upper + 1, lower) if ordered else [(word + 1) * 5387 % 933199 for word in (upper, lower)]
        self.state.assign(np.array([word % 2**32 for word in words], np.uint32))
        return found

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal generator, at its beginning."""
        return {"seed": self._given, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SeedGenerator:
        """The generator that `get_config` described."""
        return cls(**config)


def split(seed: Any, num: int = 2) -> Any:
    """New keys [num, 2], independent of each other."""
    return ir.random_split(key_of(seed), count=num)


def fold_in(seed: Any, data: Any) -> Any:
    """A new key for the number `data`."""
    return ir.random_fold_in(key_of(seed), data)


def key_of(seed: Any) -> Any:
    """The key that a `seed` stands for: itself, that of an integer, the next of a generator, or a new one."""
    if isinstance(seed, SeedGenerator):
        return seed.next()
    if seed is None:
        recording = current_recording() if Builder.current() is not None else None
        return key(next_seed()) if recording is None else recording.random_key()
    if isinstance(seed, (int, np.integer)):
        return key(int(seed))
    found = tensor(seed)
    if kind(found) is not u32 or tuple(found.shape) != (2,):
        raise DTypeError(f"a key is uint32[2], not {kind(found)}{list(found.shape)}")
    return found


def uniform(shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Uniform numbers in [minval, maxval)."""
    to = dtype_of(dtype or f32)
    return ir.random_uniform(key_of(seed), shape=tuple(shape), low=float(minval), high=float(maxval), dtype=to)


def normal(shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normal numbers."""
    drawn = ir.random_normal(key_of(seed), shape=tuple(shape), dtype=dtype_of(dtype or f32))
    return drawn if (mean, stddev) == (0, 1) else ir.add(ir.mul(drawn, float(stddev)), float(mean))


def bernoulli(shape: Any, probability: float = 0.5, seed: Any = None) -> Any:
    """True with this probability."""
    return ir.random_bernoulli(key_of(seed), shape=tuple(shape), probability=probability)


def bits(shape: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Random bits of an unsigned dtype."""
    return ir.random_bits(key_of(seed), shape=tuple(shape), dtype=dtype_of(dtype or u32))


def permutation(size: Any, seed: Any = None) -> Any:
    """The integers below `size` in random order."""
    return ir.random_permutation(key_of(seed), size=size)


@function
def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Any:
    """`x` with its slices along `axis` in random order."""
    x = tensor(x)
    return ir.gather(x, permutation(x.shape[axis], seed), axis=axis)


@function
def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """`inputs` with elements set to 0 at this rate, the others scaled up."""
    x = tensor(inputs)
    shape = None
    if noise_shape is not None:
        shape = tuple(have if size is None else size for size, have in zip(noise_shape, x.shape, strict=True))
    return ir.dropout(x, key_of(seed), rate=rate, noise_shape=shape)


__all__ = [
    "SeedGenerator",
    "bernoulli",
    "bits",
    "dropout",
    "fold_in",
    "key",
    "normal",
    "permutation",
    "shuffle",
    "split",
    "uniform",
]
