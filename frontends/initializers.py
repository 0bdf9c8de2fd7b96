"""Initial values of weights, under Keras's names.

Random ones are drawn from a counter-based generator (NumPy's Philox) keyed by the initializer's seed, so a model made
after `utils.set_random_seed(n)`, or in a fresh process, always starts from the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.frontends.naming import snake_case
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.suggestions import nearest

Array = np.ndarray[Any, Any]

_seeds = {"global": 0, "count": 0}


def set_global_seed(seed: int) -> None:
    """Key the initializers that get no seed by `seed`, counted from the start."""
    _seeds.update({"global": int(seed), "count": 0})


def next_seed() -> int:
    """A seed for an initializer that gets none."""
    _seeds["count"] += 1
    return (_seeds["global"] << 32) + _seeds["count"]


class Initializer:
    """`initializer(shape, dtype=None)` is the array. Subclasses define it and `get_config`."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        raise GraphcError(f"{type(self).__name__} has no method `__call__`")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        return cls(**config)

    def clone(self) -> Initializer:
        return type(self).from_config(self.get_config())


class Zeros(Initializer):
    """All 0."""

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        return np.zeros(shape, dtype_of(dtype or "float32").numpy)


class Ones(Initializer):
    """All 1."""

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        return np.ones(shape, dtype_of(dtype or "float32").numpy)


class Constant(Initializer):
    """All `value`."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        return np.broadcast_to(np.asarray(self.value), shape).astype(dtype_of(dtype or "float32").numpy)

    def get_config(self) -> dict[str, Any]:
        return {"value": np.asarray(self.value).tolist()}


class Identity(Initializer):
    """`gain` times the identity matrix."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        if len(shape) != 2:
            raise ShapeError(f"the initializer Identity makes matrices, not an array of shape {tuple(shape)}")
        return (self.gain * np.eye(*shape)).astype(dtype_of(dtype or "float32").numpy)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain}


class RandomInitializer(Initializer):
    """An initializer with a seed. The same object gives the same array again."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = next_seed() if seed is None else seed
        self._given_seed = seed

    def generator(self) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=int(self.seed)))

    def get_config(self) -> dict[str, Any]:
        return {"seed": self._given_seed}


class RandomNormal(RandomInitializer):
    """Normal."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev = mean, stddev
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        return _typed(self.generator().normal(self.mean, self.stddev, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, **super().get_config()}


class TruncatedNormal(RandomNormal):
    """Normal, drawn again beyond two standard deviations."""

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        return _typed(self.mean + self.stddev * _truncated(self.generator(), shape), dtype)


class RandomUniform(RandomInitializer):
    """Uniform between `minval` and `maxval`."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval, self.maxval = minval, maxval
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        return _typed(self.generator().uniform(self.minval, self.maxval, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        return {"minval": self.minval, "maxval": self.maxval, **super().get_config()}


class VarianceScaling(RandomInitializer):
    """Variance `scale` divided by the number of inputs, of outputs, or their mean (`mode`)."""

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        if scale <= 0:
            raise GraphcError(f"VarianceScaling: scale must be positive, not {scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise GraphcError(f"VarianceScaling: mode is fan_in, fan_out or fan_avg, not {mode!r}")
        distribution = "truncated_normal" if distribution == "normal" else distribution.lower()
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            raise GraphcError(
                f"VarianceScaling: distribution is truncated_normal, untruncated_normal or uniform, "
                f"not {distribution!r}"
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        fan_in, fan_out = fans(tuple(shape))
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        generator = self.generator()
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return _typed(generator.uniform(-limit, limit, shape), dtype)
        if self.distribution == "untruncated_normal":
            return _typed(generator.normal(0, math.sqrt(variance), shape), dtype)
        # What truncation at two standard deviations leaves of a unit normal's own.
        return _typed(math.sqrt(variance) / 0.87962566103423978 * _truncated(generator, shape), dtype)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "mode": self.mode, "distribution": self.distribution, **super().get_config()}


class _FixedScaling(VarianceScaling):
    """VarianceScaling with all but the seed chosen."""

    choice: tuple[float, str, str]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.choice, seed=seed)

    def get_config(self) -> dict[str, Any]:
        return RandomInitializer.get_config(self)


class GlorotUniform(_FixedScaling):
    """Glorot and Bengio 2010, uniform."""

    choice = (1.0, "fan_avg", "uniform")


class GlorotNormal(_FixedScaling):
    """Glorot and Bengio 2010, normal."""

    choice = (1.0, "fan_avg", "truncated_normal")


class LecunNormal(_FixedScaling):
    """LeCun et al. 1998, normal."""

    choice = (1.0, "fan_in", "truncated_normal")


class LecunUniform(_FixedScaling):
    """LeCun et al. 1998, uniform."""

    choice = (1.0, "fan_in", "uniform")


class HeNormal(_FixedScaling):
    """He et al. 2015, normal."""

    choice = (2.0, "fan_in", "truncated_normal")


class HeUniform(_FixedScaling):
    """He et al. 2015, uniform."""

    choice = (2.0, "fan_in", "uniform")


class Orthogonal(RandomInitializer):
    """`gain` times a matrix with orthonormal rows or columns; further axes are flattened into the rows."""

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain = gain
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Array:
        if len(shape) < 2:
            raise ShapeError(f"the initializer Orthogonal needs at least two axes, not the shape {tuple(shape)}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(self.generator().normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))
        return _typed(self.gain * (q if rows >= columns else q.T).reshape(shape), dtype)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain, **super().get_config()}


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """How many inputs and outputs a unit has, for a kernel `[*window, in, out]`."""
    if len(shape) < 1:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def _truncated(generator: np.random.Generator, shape: Any) -> Array:
    values = np.asarray(generator.standard_normal(shape))
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = generator.standard_normal(int(beyond.sum()))
    return values


def _typed(array: Any, dtype: Any) -> Array:
    return np.asarray(array).astype(dtype_of(dtype or "float32").numpy)


def drawn_later(initializer: Any, shape: tuple[int, ...], dtype: DType) -> Callable[[], Any]:
    """A function that draws the value; the seed is fixed now."""
    return lambda: initializer(shape, dtype=dtype)


_CLASSES: tuple[type[Initializer], ...] = (
    Constant, GlorotNormal, GlorotUniform, HeNormal, HeUniform, Identity, LecunNormal, LecunUniform, Ones, Orthogonal,
    RandomNormal, RandomUniform, TruncatedNormal, VarianceScaling, Zeros,
)  # fmt: skip
_BY_NAME: dict[str, type[Initializer]] = {
    **{cls.__name__: cls for cls in _CLASSES},
    **{snake_case(cls.__name__): cls for cls in _CLASSES},
    "uniform": RandomUniform,
    "normal": RandomNormal,
    "IdentityInitializer": Identity,
    "OrthogonalInitializer": Orthogonal,
}


def get(identifier: Any) -> Any:
    """The initializer of a name, config or object; None stays None. Arrays of numbers become constants."""
    from graphc.frontends import serialization

    if identifier is None:
        return None
    if isinstance(identifier, dict):
        return serialization.deserialize(identifier)
    if isinstance(identifier, str):
        found: Any = _BY_NAME.get(identifier) or serialization.registered_object(identifier)
        if found is None:
            raise GraphcError(f"no initializer is called {identifier!r}{nearest(identifier, _BY_NAME)}")
        return found() if isinstance(found, type) else found
    if isinstance(identifier, type):
        return identifier()
    if isinstance(identifier, Initializer) or callable(identifier):
        return identifier
    return Constant(identifier)


def serialize(initializer: Any) -> Any:
    """The initializer's config, which `get` takes."""
    from graphc.frontends import serialization

    return serialization.serialize(initializer)


def deserialize(config: Any) -> Any:
    """The initializer of a config."""
    return get(config)


zeros, ones, constant, identity = Zeros, Ones, Constant, Identity
glorot_uniform, glorot_normal, he_uniform, he_normal = GlorotUniform, GlorotNormal, HeUniform, HeNormal
lecun_uniform, lecun_normal, orthogonal, variance_scaling = LecunUniform, LecunNormal, Orthogonal, VarianceScaling
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
