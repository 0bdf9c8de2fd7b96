"""Random numbers: Threefry's known answers, JAX's bits, and what is drawn from them."""

import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.dtypes import f32, u32
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.types import TensorType

KEY = np.array([0x13198A2E, 0x80707344], np.uint32)


# --- known answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "counter", "wanted"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers_of_random123(key: tuple, counter: tuple, wanted: tuple) -> None:
    high, low = np.uint32(counter[0]), np.uint32(counter[1])
    found = ops.threefry(np.array(key, np.uint32), high, low)
    assert tuple(map(int, found)) == wanted


def test_pinned_bits_keys_and_numbers() -> None:
    """The layout of counters: what these are must never change."""
    assert ops.random_bits(KEY, shape=(3,)).tolist() == PINNED["bits"]
    assert ops.random_split(KEY).tolist() == PINNED["split"]
    assert ops.random_fold_in(KEY, 3).tolist() == PINNED["fold_in"]
    assert ops.random_bernoulli(KEY, shape=(2, 5), probability=0.5).astype(int).tolist() == PINNED["bernoulli"]
    assert ops.random_permutation(KEY, size=6).tolist() == PINNED["permutation"]
    assert ops.random_uniform(KEY, shape=(2,)).tolist() == PINNED["uniform"]


PINNED = {
    "bits": [1309314594, 3620026053, 244661008],
    "split": [[455217369, 1428725499], [1204031245, 2415999432]],
    "fold_in": [1306843266, 1773183370],
    "bernoulli": [[0, 0, 0, 0, 1], [0, 1, 1, 0, 1]],
    "permutation": [2, 3, 5, 0, 4, 1],
    "uniform": [0.3048485517501831, 0.8428529500961304],
}


# --- as jax.random ------------------------------------------------------------------------------------------------


@pytest.fixture
def jax():
    module = pytest.importorskip("jax")
    with module.threefry_partitionable(True):
        yield module


@pytest.fixture
def key(jax):
    return jax.random.wrap_key_data(KEY, impl="threefry2x32")


@pytest.mark.parametrize("shape", [(), (7,), (3, 4, 5), (0, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_bits_are_those_of_jax(jax, key, shape: tuple, dtype: str) -> None:
    found = ops.random_bits(KEY, shape=shape, dtype=dtype)
    np.testing.assert_array_equal(found, np.asarray(jax.random.bits(key, shape, dtype)))


def test_wide_bits_and_numbers_are_those_of_jax(jax, key) -> None:
    with jax.enable_x64(True):
        wanted = np.asarray(jax.random.bits(key, (6,), "uint64"))
        uniform = np.asarray(jax.random.uniform(key, (6,), "float64"))
    np.testing.assert_array_equal(ops.random_bits(KEY, shape=(6,), dtype="uint64"), wanted)
    np.testing.assert_array_equal(ops.random_uniform(KEY, shape=(6,), dtype="float64"), uniform)
    np.testing.assert_array_equal(ops.random_uniform(KEY, shape=(6,)), np.asarray(jax.random.uniform(key, (6,))))


def test_keys_are_those_of_jax(jax, key) -> None:
    data = jax.random.key_data
    np.testing.assert_array_equal(ops.random_split(KEY, count=5), np.asarray(data(jax.random.split(key, 5))))
    for number in (0, 7, 2**31 - 1):
        wanted = np.asarray(data(jax.random.fold_in(key, number)))
        np.testing.assert_array_equal(ops.random_fold_in(KEY, number), wanted)
    np.testing.assert_array_equal(ops.random_fold_in(KEY, 4), ops.random_split(KEY, count=5)[4])


# --- what is drawn ------------------------------------------------------------------------------------------------


def test_bits_do_not_depend_on_how_many_there_are() -> None:
    np.testing.assert_array_equal(ops.random_bits(KEY, shape=(100,))[:7], ops.random_bits(KEY, shape=(7,)))


@pytest.mark.parametrize("probability", [0.0, 1e-12, 0.1, 0.5, 0.9, 1.0])
def test_bernoulli_has_the_probability(probability: float) -> None:
    drawn = ops.random_bernoulli(KEY, shape=(200, 501), probability=probability)
    assert drawn.dtype == bool
    spread = np.sqrt(probability * (1 - probability) / drawn.size)
    assert abs(drawn.mean() - probability) <= 5 * spread


def test_numbers_have_the_moments_of_their_distributions() -> None:
    n = 100_000
    uniform = ops.random_uniform(KEY, shape=(n,), low=-1.0, high=3.0)
    assert -1 <= uniform.min() < uniform.max() < 3
    assert abs(uniform.mean() - 1) < 0.02
    for dtype in ("float32", "float64"):
        normal = ops.random_normal(KEY, shape=(n,), dtype=dtype)
        assert normal.dtype == dtype
        assert abs(normal.mean()) < 0.02
        assert abs(normal.var() - 1) < 0.03
        assert np.isfinite(normal).all()


def test_permutations_are_permutations() -> None:
    drawn = ops.random_permutation(KEY, size=1000)
    assert sorted(drawn.tolist()) == list(range(1000))
    assert np.abs(np.diff(drawn)).mean() > 250


def test_dropout_keeps_the_mean_and_draws_the_same_mask_for_its_gradient() -> None:
    x = np.ones((100, 101), np.float32)
    y = ops.dropout(x, KEY, rate=0.2)
    np.testing.assert_allclose(np.unique(y), [0, 1.25])
    assert abs(y.mean() - 1) < 0.02
    dx, _ = ops.dropout.vjp_rule(x, y, x, KEY, rate=0.2, noise_shape=None)
    np.testing.assert_array_equal(dx, y)
    rows = ops.dropout(x, KEY, rate=0.5, noise_shape=(100, 1))
    assert (rows == rows[:, :1]).all()
    assert ops.dropout(x, KEY, rate=1.0).max() == 0


def test_dropped_elements_are_zero_whatever_they_were() -> None:
    y = ops.dropout(np.full((64,), np.nan, np.float32), KEY, rate=0.5)
    kept = ops.random_bernoulli(KEY, shape=(64,))
    np.testing.assert_array_equal(np.isnan(y), kept)


def test_the_size_may_be_symbolic() -> None:
    module = Module()
    function = module.add_function("main")
    x = function.add_parameter(TensorType.of(f32, (symbol("B"), 3)), "x")
    key = function.add_parameter(TensorType.of(u32, (2,)), "key")
    with Builder(function.block) as builder:
        found = (ops.dropout(x, key, rate=0.5), ops.random_bits(key, shape=x.shape))
        function.results.extend(Result() for _ in found)
        builder.finish(found)
    array = np.ones((5, 3), np.float32)
    dropped, bits = interpret(module, array, KEY)
    np.testing.assert_array_equal(dropped, ops.dropout(array, KEY, rate=0.5))
    np.testing.assert_array_equal(bits, ops.random_bits(KEY, shape=(5, 3)))


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_mistakes_are_explained() -> None:
    x = np.ones(3, np.float32)
    with pytest.raises(ShapeError, match=r"a key is u32\[2\], not u32\[3\]"):
        ops.random_bits(np.zeros(3, np.uint32), shape=(2,))
    with pytest.raises(DTypeError, match="key is a tensor of uint32, not i32"):
        ops.random_bits(np.zeros(2, np.int32), shape=(2,))
    with pytest.raises(DTypeError, match="uint8, uint16, uint32 or uint64, not int32"):
        ops.random_bits(KEY, shape=(2,), dtype="int32")
    with pytest.raises(GraphcError, match=r"the rate of dropout .* not 1.5"):
        ops.dropout(x, KEY, rate=1.5)
    with pytest.raises(GraphcError, match=r"a probability is a number from 0 to 1, not -0\.1"):
        ops.random_bernoulli(KEY, shape=(2,), probability=-0.1)
    with pytest.raises(ShapeError, match="more than 2³²"):
        ops.random_bits(KEY, shape=(2**17, 2**17))
