"""Layers that add noise in training and are the identity at inference."""

from __future__ import annotations

import math
from typing import Any

from graphc.frontends import random
from graphc.frontends.layer import Layer
from graphc.ir.errors import GraphcError


class _Noise(Layer):
    """A layer with a rate or deviation and a seed.

    Lowered for training it takes a key from the function's; a `seed` is folded into that, so that layers of one seed
    still differ from call to call.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.supports_masking = True

    def _key(self) -> Any:
        key = random.key_of(None)
        return key if self.seed is None else random.fold_in(key, self.seed % 2**31)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


class Dropout(_Noise):
    """Sets inputs to 0 at this rate in training, and scales the others up; at inference the input itself.

    `noise_shape` has sizes of 1 (None: the input's own) where one draw is shared.
    """

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any) -> None:
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise GraphcError(f"Dropout: rate is a number from 0 to 1, not {rate!r}")
        super().__init__(seed, **kwargs)
        self.rate, self.noise_shape = rate, noise_shape

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        return random.dropout(inputs, self.rate, self.noise_shape, self._key())

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "noise_shape": self.noise_shape}


class GaussianNoise(_Noise):
    """Adds normal noise of this standard deviation in training."""

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        if isinstance(stddev, bool) or not isinstance(stddev, (int, float)) or not stddev >= 0:
            raise GraphcError(f"GaussianNoise: stddev is a number that is not negative, not {stddev!r}")
        super().__init__(seed, **kwargs)
        self.stddev = stddev

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.stddev == 0:
            return inputs
        return inputs + random.normal(inputs.shape, 0.0, self.stddev, inputs.dtype, self._key())

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": self.stddev}


class GaussianDropout(_Noise):
    """Multiplies by normal noise of mean 1 and variance rate / (1 − rate) in training."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise GraphcError(f"GaussianDropout: rate is a number from 0 to below 1, not {rate!r}")
        super().__init__(seed, **kwargs)
        self.rate = rate

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        deviation = math.sqrt(self.rate / (1 - self.rate))
        return inputs * random.normal(inputs.shape, 1.0, deviation, inputs.dtype, self._key())

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}
