"""Random numbers, the same bits on every target: Threefry-2x32 of a key and a counter (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", 2011).

A key is `u32[2]`. Nothing keeps a state: keys are made from another key by `random_split` or `random_fold_in`, and each
is to be used once. The layout of counters is that of `jax.random` with `jax_threefry_partitionable`: the bits of an
element depend on the key and on its row-major index only, not on how many there are. Counters are counted in the low
word, the high one is 0; where a symbolic shape has more than 2³² elements, they repeat.
"""

from __future__ import annotations

import math

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Shape
from graphc.ir.dims import Size, ceil_div, equal, product
from graphc.ir.dtypes import DType, bool_, f32, f64, i32, u8, u16, u32, u64
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.inference import require_equal, shape_text
from graphc.ir.opdef import IndexTensor, Tensor, composite

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
WORDS = 2**32


# --- the generator ------------------------------------------------------------------------------------------------


@composite
def threefry(key: IndexTensor, high: IndexTensor, low: IndexTensor) -> tuple[IndexTensor, IndexTensor]:
    """Threefry-2x32 of 20 rounds: two words of 32 random bits for each counter, a pair of words `high` and `low`, which
    broadcast."""
    _check_words(key=key, high=high, low=low)
    _check_key(key)
    first, second = (ops.reshape(word, shape=()) for word in ops.split(key, sizes=(1, 1)))
    keys = (first, second, ops.xor(ops.xor(first, second), PARITY))
    x, y = ops.add(high, keys[0]), ops.add(low, keys[1])
    for i in range(5):
        for count in ROTATIONS[i % 2]:
            x = ops.add(x, y)
            turned = ops.or_(ops.shift_left(y, count), ops.shift_right(y, 32 - count))
            y = ops.xor(turned, x)
        x = ops.add(x, keys[(i + 1) % 3])
        y = ops.add(y, ops.add(keys[(i + 2) % 3], i + 1))
    return x, y


def _check_words(**operands) -> None:
    for name, operand in operands.items():
        if operand.dtype is not u32:
            raise DTypeError(f"{name} is a tensor of uint32, not {operand.type}")


def _check_key(key) -> None:
    what = f"a key is u32[2], not {key.type}"
    if key.ndim != 1:
        raise ShapeError(what)
    require_equal(key.shape[0], 2, what)


def _blocks(key: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reference, in Python's way of the algorithm: 64-bit integers cut to 32 bits after each step."""
    mask = np.uint64(WORDS - 1)
    high, low = np.broadcast_arrays(high, low)
    x, y, k = (np.asarray(a).astype(np.uint64) for a in (high, low, key))
    keys = (k[0], k[1], k[0] ^ k[1] ^ np.uint64(PARITY))
    x, y = (x + keys[0]) & mask, (y + keys[1]) & mask
    for step in range(20):
        count = ROTATIONS[step // 4 % 2][step % 4]
        x = (x + y) & mask
        y = ((y << np.uint64(count)) | (y >> np.uint64(32 - count))) & mask
        y = y ^ x
        if step % 4 == 3:
            i = step // 4 + 1
            x, y = (x + keys[i % 3]) & mask, (y + keys[(i + 1) % 3] + np.uint64(i)) & mask
    return x.astype(np.uint32), y.astype(np.uint32)


@threefry.reference
def _(key, high, low):
    return _blocks(key, high, low)


@threefry.flops
def _(key, high, low):
    return 0  # none of them floating


KEY = np.array([0x13198A2E, 0x03707344], np.uint32)
threefry.sample(KEY, np.array([[0x243F6A88], [0]], np.uint32), np.array([0x85A308D3, 1, 2**32 - 1], np.uint32))
threefry.sample(KEY, np.uint32(0), np.arange(5, dtype=np.uint32))
threefry.sample(KEY, np.uint32(0), np.zeros((0, 2), np.uint32))


def _words(key, shape):
    """Both words of the block of each element of `shape`, counted in row-major order."""
    count = product(shape)
    if isinstance(count, int) and count > WORDS:
        raise ShapeError(f"random numbers of shape {shape_text(shape)} are more than 2³²")
    low = ops.reshape(ops.iota(shape=(count,), dtype=u32), shape=shape)
    return threefry(key, ops.constant(value=0, dtype=u32), low)


def _reference_words(key, shape):
    low = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape).astype(np.uint32)
    return _blocks(key, np.zeros((), np.uint32), low)


# --- keys ---------------------------------------------------------------------------------------------------------


def _pair(first, second):
    """Two words as keys, along a new last axis."""
    return ops.concat(*(ops.expand_dims(word, (-1,)) for word in (first, second)), axis=-1)


@composite
def random_split(key: IndexTensor, *, count: int = 2) -> IndexTensor:
    """New keys [count, 2], independent of each other and of `key`."""
    return _pair(*_words(key, (count,)))


@random_split.reference
def _(key, *, count):
    return np.stack(_reference_words(key, (count,)), -1)


random_split.sample(KEY)
random_split.sample(KEY, count=5)


@composite
def random_fold_in(key: IndexTensor, data: IndexTensor) -> IndexTensor:
    """A new key for the number `data`, a scalar of which the low 32 bits count: the key `data` of a `random_split`."""
    if data.ndim:
        raise ShapeError(f"random_fold_in takes a scalar, not {data.type}")
    return _pair(*threefry(key, ops.constant(value=0, dtype=u32), ops.convert(data, dtype=u32)))


@random_fold_in.reference
def _(key, data):
    return np.stack(_blocks(key, np.zeros((), np.uint32), np.asarray(data).astype(np.uint32)), -1)


random_fold_in.sample(KEY, np.int32(7))
random_fold_in.sample(KEY, np.int64(-1))


# --- bits ---------------------------------------------------------------------------------------------------------


@composite
def random_bits(key: IndexTensor, *, shape: Shape, dtype: DType = u32) -> IndexTensor:
    """Random bits of an unsigned dtype, as `jax.random.bits` gives: for each element one block, whose words are joined
    by xor; a `u64` is both of them, narrower integers are the low bits."""
    if dtype not in (u8, u16, u32, u64):
        raise DTypeError(f"random_bits come as uint8, uint16, uint32 or uint64, not {dtype}")
    high, low = _words(key, shape)
    if dtype is u64:
        high, low = ops.convert(high, dtype=u64), ops.convert(low, dtype=u64)
        return ops.or_(ops.shift_left(high, 32), low)
    joined = ops.xor(high, low)
    return joined if dtype is u32 else ops.convert(joined, dtype=dtype)


@random_bits.reference
def _(key, *, shape, dtype):
    high, low = _reference_words(key, shape)
    return high.astype(np.uint64) << np.uint64(32) | low if dtype is u64 else high ^ low


random_bits.sample(KEY, shape=(3, 5))
random_bits.sample(KEY, shape=())
random_bits.sample(KEY, shape=(4, 0))
random_bits.sample(KEY, shape=(7,), dtype="uint8")
random_bits.sample(KEY, shape=(7,), dtype="uint64")


@composite
def random_bernoulli(key: IndexTensor, *, shape: Shape, probability: float = 0.5) -> Tensor:
    """True with this probability, rounded to a multiple of 2⁻³².

    A block serves two elements: along the last axis, of size n, block j of ⌈n / 2⌉ gives with its first word element j
    and with its second one element j + ⌈n / 2⌉. A word, read as a signed integer, is compared with a threshold.
    """
    limit = bernoulli_limit(probability)
    if limit in (0, WORDS):
        _check_key(key)
        return ops.full(shape, limit > 0, bool_)
    half, size = _halved(shape)
    below = [ops.lt(ops.bitcast(word, dtype=i32), limit - WORDS // 2) for word in _words(key, (*shape[:-1], half))]
    both = ops.concat(*below, axis=-1) if shape else below[0]
    if shape and equal(half * 2, size) is not True:
        both = ops.slice(both, starts=(0,) * len(shape), limits=shape)
    return both if shape else ops.reshape(both, shape=())


def _halved(shape) -> tuple[Size, Size]:
    """How many blocks the last axis takes, and its size; 1 for a scalar."""
    size = shape[-1] if shape else 1
    return ceil_div(size, 2), size


def bernoulli_limit(probability: float) -> int:
    """How many of the 2³² words are true."""
    if not 0 <= probability <= 1:
        raise GraphcError(f"a probability is a number from 0 to 1, not {probability}")
    return round(probability * WORDS)


def _kept(key, shape, probability: float) -> np.ndarray:
    half, size = _halved(shape)
    words = np.concatenate(_reference_words(key, (*shape[:-1], half)), -1)[..., :size]
    return ((words.astype(np.int64) + WORDS // 2) % WORDS < bernoulli_limit(probability)).reshape(shape)


@random_bernoulli.reference
def _(key, *, shape, probability):
    return _kept(key, shape, probability)


random_bernoulli.sample(KEY, shape=(3, 4))
random_bernoulli.sample(KEY, shape=(2, 5), probability=0.9)
random_bernoulli.sample(KEY, shape=(2, 0))
random_bernoulli.sample(KEY, shape=())
random_bernoulli.sample(KEY, shape=(3,), probability=1.0)


# --- numbers ------------------------------------------------------------------------------------------------------


def _random_integers(key, shape, dtype: DType):
    """Integers below 2²³ (2⁵² for float64) as floats, in float32 (float64)."""
    if dtype is f64:
        high, low = (ops.convert(word, dtype=f64) for word in _high_bits(key, shape))
        return high * 2.0**20 + low
    return ops.convert(ops.shift_right(random_bits(key, shape=shape), 9), dtype=f32)


def _high_bits(key, shape):
    high, low = _words(key, shape)
    return high, ops.shift_right(low, 12)


def _reference_integers(key, shape, dtype: DType) -> np.ndarray:
    high, low = _reference_words(key, shape)
    if dtype is f64:
        return high.astype(np.float64) * 2.0**20 + (low >> np.uint32(12))
    return ((high ^ low) >> np.uint32(9)).astype(np.float64)


def _check_float(dtype: DType, what: str) -> None:
    if not dtype.is_float:
        raise DTypeError(f"{what} draws floats, not {dtype}")


@composite
def random_uniform(
    key: IndexTensor, *, shape: Shape, low: float = 0.0, high: float = 1.0, dtype: DType = f32
) -> Tensor:
    """Uniform in [low, high): `low + (high − low)·k / 2²³` with k of the upper bits of `random_bits`, as
    `jax.random.uniform` in float32; in float64 k / 2⁵², from both words. Narrower floats are rounded from float32, and
    may then be `high`. The numbers of [0, 1) are the same bits everywhere; elsewhere the last one may differ."""
    _check_float(dtype, "random_uniform")
    unit = _random_integers(key, shape, dtype) * (2.0**-52 if dtype is f64 else 2.0**-23)
    if (low, high) != (0.0, 1.0):
        unit = unit * (high - low) + low
    return unit if dtype in (f32, f64) else ops.convert(unit, dtype=dtype)


@random_uniform.reference
def _(key, *, shape, low, high, dtype):
    unit = _reference_integers(key, shape, dtype) * (2.0**-52 if dtype is f64 else 2.0**-23)
    return unit * (high - low) + low


random_uniform.sample(KEY, shape=(2, 3))
random_uniform.sample(KEY, shape=(4,), low=-2.0, high=5.0)
random_uniform.sample(KEY, shape=(2, 3), dtype="float64")
random_uniform.sample(KEY, shape=(2, 3), dtype="bfloat16")


@composite
def random_normal(key: IndexTensor, *, shape: Shape, dtype: DType = f32) -> Tensor:
    """Normal numbers of mean 0 and variance 1: √2 · erf⁻¹ of an odd multiple of 2⁻²³ (float64: 2⁻⁵²) between −1 and 1,
    which the upper bits of `random_bits` draw."""
    _check_float(dtype, "random_normal")
    ends = 2.0**52 if dtype is f64 else 2.0**23
    odd = _random_integers(key, shape, dtype) * 2.0 + (1.0 - ends)
    drawn = ops.erf_inv(odd * (1.0 / ends)) * math.sqrt(2.0)
    return drawn if dtype in (f32, f64) else ops.convert(drawn, dtype=dtype)


@random_normal.reference
def _(key, *, shape, dtype):
    from scipy import special

    ends = 2.0**52 if dtype is f64 else 2.0**23
    odd = _reference_integers(key, shape, dtype) * 2 + (1 - ends)
    return special.erfinv(odd / ends) * np.sqrt(2.0)


random_normal.sample(KEY, shape=(2, 3))
random_normal.sample(KEY, shape=(2, 3), dtype="float64")


@composite
def random_permutation(key: IndexTensor, *, size: Size, dtype: DType = i32) -> IndexTensor:
    """The indices 0 ≤ i < size in random order: sorted by `random_bits`."""
    return ops.sort(random_bits(key, shape=(size,)), ops.iota(shape=(size,), dtype=dtype))[1]


@random_permutation.reference
def _(key, *, size, dtype):
    high, low = _reference_words(key, (size,))
    return np.argsort(high ^ low, kind="stable")


random_permutation.sample(KEY, size=9)
random_permutation.sample(KEY, size=0, dtype="int64")


# --- dropout ------------------------------------------------------------------------------------------------------


@composite
def dropout(x: Tensor, key: IndexTensor, *, rate: float, noise_shape: Shape | None = None) -> Tensor:
    """`x` with elements set to 0 at this rate, the others divided by 1 − rate.

    Which ones are kept says `random_bernoulli` of the key, in the shape of `x` or in `noise_shape`, which broadcasts to
    it. The gradient draws them again from the key.
    """
    return _dropped(x, key, x, rate, noise_shape)


def _dropped(x, key, like, rate: float, noise_shape):
    if not dtype_of(like.dtype).is_float:
        raise DTypeError(f"dropout takes floats, not {like.dtype}")
    if not 0 <= rate <= 1:
        raise GraphcError(f"the rate of dropout is a number from 0 to 1, not {rate}")
    if rate == 1:
        return ops.zeros_like(x)
    shape = like.shape if noise_shape is None else noise_shape
    kept = random_bernoulli(key, shape=shape, probability=1 - rate)
    return ops.select(kept, x * (1 / (1 - rate)), 0)


@dropout.reference
def _(x, key, *, rate, noise_shape):
    shape = x.shape if noise_shape is None else noise_shape
    kept = _kept(key, shape, 1 - rate)
    return np.where(kept, x / (1 - rate) if rate < 1 else x, 0.0)


@dropout.vjp
def _(dy, y, x, key, *, rate, noise_shape):
    return _dropped(dy, key, x, rate, noise_shape), None


dropout.sample((3, 5), KEY, rate=0.5)
dropout.sample((3, 4), KEY, rate=0.1)
dropout.sample((2, 3, 4), KEY, rate=0.25, noise_shape=(2, 1, 4))
dropout.sample((2, 3), KEY, rate=1.0)
dropout.sample((2, 3), KEY, rate=0.0)

__all__ = [
    "dropout",
    "random_bernoulli",
    "random_bits",
    "random_fold_in",
    "random_normal",
    "random_permutation",
    "random_split",
    "random_uniform",
    "threefry",
]
