"""Formats of quantized weights: their bytes, that these are GGUF's and bitsandbytes', and what comes back."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from graphc.ir import ops
from graphc.ir.errors import FormatError, GraphcError, ShapeError
from graphc.ir.formats import NF4, Q4_0, Q8_0, Format, Int4, Int8, UInt4, UInt8, parse_format
from graphc.ir.formats.nf4 import TABLE, dynamic_map

TEXTS = [
    "int8",
    "int8{axis=0}",
    "int8{tensor}",
    "int8{axis=0,asymmetric}",
    "uint8",
    "int4",
    "int4{block=64}",
    "int4{block=none}",
    "uint4{axis=0,block=none,scales=f32}",
    "int3{block=none}",
    "int4{axis=0,block=128,scales=f32}",
    "uint4{block=64}",
    "nf4",
    "nf4{axis=0,block=16,double=256}",
    "q4_0",
    "q8_0{axis=0}",
]
SYMMETRIC = [
    "int8",
    "int8{axis=0}",
    "int8{tensor}",
    "int4",
    "int4{axis=0,block=16}",
    "int4{block=none}",
    "int4{scales=f32}",
    "int3",
    "awq",
    "nf4",
]
"""Formats that give back what was dequantized, whatever it was."""


def back(form: Format, array: np.ndarray) -> np.ndarray:
    return form.dequantize(*form.quantize(array), shape=array.shape).astype(np.float32)


def drawn(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def same(found: Any, wanted: Any) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_the_format(text: str) -> None:
    assert str(parse_format(text)) == text
    assert parse_format(parse_format(text)) == parse_format(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("int9", "did you mean"),
        ("int4{blok=32}", "did you mean block"),
        ("int4{block=33}", "a power of two"),
        ("int4{block=x}", "not what block takes"),
        ("int4{block=32", "closing brace"),
        ("int4{block=32,block=64}", "twice"),
        ("int4{scales=bf16}", "f16 or f32"),
        ("nf4{double=3}", "a power of two"),
        ("nf4{block=1099511627776}", "from 16 to 65536, not 1099511627776"),
        ("int8{asymmetric=2}", "not what asymmetric takes"),
        ("int8{axis}", "not what axis takes"),
    ],
)
def test_text_that_is_none(text: str, problem: str) -> None:
    with pytest.raises(GraphcError, match=problem):
        parse_format(text)


# --- bytes ----------------------------------------------------------------------------------------------------------


def test_int8_bytes() -> None:
    x = np.array([[1.27, -0.5], [-0.01, 0.25], [0.635, 0.0]], np.float32)
    values, scales = Int8().quantize(x)
    assert values.tolist() == [[127, -127], [-1, 64], [64, 0]]  # 63.5 rounds to even
    np.testing.assert_allclose(scales, [0.01, 0.5 / 127], rtol=2**-16)
    values, scales, zeros = UInt8(tensor=True).quantize(np.array([-1.0, 0.0, 1.55], np.float32))
    assert (values.tolist(), zeros.tolist(), values.dtype) == ([0, 100, 255], 100, np.uint8)
    values, _, zeros = Int8(asymmetric=True).quantize(np.array([[-1.0], [0.0], [1.55]], np.float32))
    assert (values.ravel().tolist(), zeros.tolist()) == ([-128, -28, 127], [-28])


def test_int4_bytes() -> None:
    x = np.zeros((34, 1), np.float32)
    x[:4, 0], x[33, 0] = [7, -7, 3, -1], 14
    values, scales = Int4().quantize(x)
    assert values.shape == (1, 17)
    assert scales.tolist() == [[1.0, 2.0]]
    assert values[0, :3].tolist() == [0x1F, 0x7B, 0x88]  # 15 and 1, 11 and 7, 8 and 8
    assert values[0, 15:].tolist() == [0x88, 0xF8]
    values, scales, zeros = UInt4().quantize(np.linspace(-5, 10, 48, dtype=np.float32).reshape(48, 1))
    assert zeros.shape == (1, 1)
    assert values[0, 0] & 15 == 0
    assert int(zeros[0, 0]) == round(5 / float(scales[0, 0]))  # the second block has only positive elements


def test_storage_is_counted() -> None:
    shape = (256, 64)
    bits = {text: 8 * parse_format(text).storage_bytes(shape) / (256 * 64) for text in TEXTS}
    assert bits["int8"] == 8 + 32 / 256
    assert bits["int4"] == 4.5
    assert 8 * Int4(block=64).storage_bytes((144, 16)) / (144 * 16) == 4 + 3 * 16 / 144  # the last block is short
    assert bits["int4{block=64}"] == 4.25
    assert bits["int4{block=none}"] < 4.25
    assert bits["uint4{block=64}"] == 4 + 16 / 64 + 4 / 64
    assert bits["nf4"] == 4.5
    assert bits["nf4{axis=0,block=16,double=256}"] == 4 + 8 / 16 + 32 / 4096 + 32 / (256 * 64)
    assert (bits["q4_0"], bits["q8_0{axis=0}"]) == (4.5, 8.5)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("shape", [(32, 64), (3, 3, 32, 32)])
def test_arrays_are_as_the_format_says(text: str, shape: tuple[int, ...]) -> None:
    form = parse_format(text)
    arrays = form.quantize(drawn(shape))
    assert [(a.shape, a.dtype) for a in arrays] == [(p.type.shape, p.type.dtype.numpy) for p in form.parts(shape)]
    assert sum(a.nbytes for a in arrays) == form.storage_bytes(shape)


# --- GGUF -----------------------------------------------------------------------------------------------------------

GGUF = [(Q4_0(axis=0), GGMLQuantizationType.Q4_0), (Q8_0(axis=0), GGMLQuantizationType.Q8_0)]


def gguf_cases() -> np.ndarray:
    x = drawn((12, 256))
    x[0, :64] = 0
    x[1] *= 1e-8  # scales that float16 rounds to denormals, and to zero
    x[2] *= 1e4
    x[3] = np.rint(x[3] * 4)  # ties, and halves
    x[4] = np.rint(x[4] * 254) / 254
    x[5, ::32] = np.abs(x[5]).reshape(8, 32).max(1) + 1
    x[6] = -x[5]
    return x


@pytest.mark.parametrize("text", ["int4", "uint4", "int3", "uint3{block=none}", "awq", "nf4", "int8{asymmetric}"])
@pytest.mark.parametrize("shape", [(16, 0), (0, 16), (0,), (2, 0, 3)])
def test_tensors_without_elements(text: str, shape: tuple[int, ...]) -> None:
    form = parse_format(text)
    arrays = form.quantize(np.zeros(shape, np.float32))
    assert [array.shape for array in arrays] == [part.type.shape for part in form.parts(shape)]
    assert form.dequantize(*arrays, shape=shape).shape == shape
    assert np.shape(ops.dequantize(*arrays, format=text, shape=shape, dtype="float32")) == shape


@pytest.mark.parametrize("text", ["int4", "uint4", "int3"])
def test_a_block_larger_than_a_channel_takes_no_memory(text: str) -> None:
    """A file can say any size of blocks: 2⁴⁰ elements are not allocated for a channel of 150."""
    x = np.random.default_rng(0).standard_normal((150, 3)).astype(np.float32)
    large = f"{text}{{block=1099511627776}}"
    arrays = parse_format(large).quantize(x)
    same(arrays, parse_format(f"{text}{{block=256}}").quantize(x))
    wanted = parse_format(large).dequantize(*arrays, shape=x.shape)
    found = ops.dequantize(*arrays, format=large, shape=x.shape, dtype="float32")
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


@pytest.mark.parametrize(("form", "kind"), GGUF)
def test_gguf_blocks_to_the_bit(form: Any, kind: GGMLQuantizationType) -> None:
    x = gguf_cases()
    arrays = form.quantize(x)
    wanted = quants.quantize(x, kind)
    np.testing.assert_array_equal(form.to_blocks(*arrays), wanted)
    same(form.from_blocks(wanted, x.shape), arrays)
    found = form.dequantize(*arrays, shape=x.shape).astype(np.float32)
    np.testing.assert_array_equal(found, quants.dequantize(wanted, kind))


@settings(deadline=None, max_examples=60)
@given(npst.arrays(np.float32, (2, 64), elements=st.floats(-1e4, 1e4, width=32)))
@pytest.mark.parametrize(("form", "kind"), GGUF)
def test_gguf_blocks_of_any_floats(form: Any, kind: GGMLQuantizationType, x: np.ndarray) -> None:
    largest = np.abs(x).reshape(-1, 32).max(1)
    assume(np.all((largest == 0) | (largest > 1e-36)))  # 1 / scale is finite, else the bytes are no rule
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(form.to_blocks(*form.quantize(x)), quants.quantize(x, kind))


@pytest.mark.parametrize(("form", "kind"), GGUF)
def test_gguf_blocks_of_floats_next_to_nothing(form: Any, kind: GGMLQuantizationType) -> None:
    x = np.full((1, 32), -5e-43, np.float32)
    x[0, 0] = np.finfo(np.float32).tiny
    np.testing.assert_array_equal(form.dequantize(*form.quantize(x), shape=x.shape), np.zeros_like(x))
    values, _ = form.quantize(x)
    assert np.unique(values).tolist() == [{"q8_0": 0, "q4_0": 0x88}[form.name]]


@pytest.mark.parametrize(("form", "kind"), GGUF)
def test_gguf_refuses(form: Any, kind: GGMLQuantizationType) -> None:
    with pytest.raises(ShapeError, match="whole blocks of 32"):
        form.quantize(drawn((2, 33)))
    with pytest.raises(FormatError, match="bytes"):
        form.from_blocks(np.zeros(5, np.uint8), (2, 64))


# --- bitsandbytes' NF4 ----------------------------------------------------------------------------------------------


def brute_force(flat: np.ndarray, table: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The places in the table and the scales of each block, by the definition: the least difference, the first one."""
    places, scales = [], []
    for start in range(0, flat.size, block):
        part = flat[start : start + block]
        scales.append(np.abs(part).max())
        scaled = np.clip(part * (np.float32(1) / scales[-1]), -1, 1)
        places.append(np.argmin(np.abs(scaled[:, None] - table), 1))
    return np.concatenate(places).astype(np.uint8), np.array(scales, np.float32)


def test_nf4_bytes_of_the_table_itself() -> None:
    """The 16 values, scaled by what is exact, are their places; the first of a pair is in the high four bits."""
    values, scales = NF4(axis=0).quantize((TABLE * 4).reshape(1, 16))
    assert values.tolist() == [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]
    assert scales.tolist() == [4.0]


@pytest.mark.parametrize("shape", [(8, 64), (5, 37), (3, 43)])
def test_nf4_by_brute_force(shape: tuple[int, int]) -> None:
    x = drawn(shape) * np.float32(0.02)
    values, scales = NF4(axis=0).quantize(x)
    places, wanted = brute_force(x.ravel(), TABLE, 64)
    np.testing.assert_array_equal(np.stack([values >> 4, values & 15], -1).ravel()[: x.size], places)
    np.testing.assert_array_equal(scales, wanted)
    table = TABLE[places] * np.repeat(wanted, 64)[: x.size]
    np.testing.assert_array_equal(NF4(axis=0).dequantize(values, scales, shape=shape).astype(np.float32).ravel(), table)


def test_nf4_scales_quantized_by_brute_force() -> None:
    x = drawn((300, 64)) * np.linspace(0.5, 2, 300, dtype=np.float32)[:, None]
    form = NF4(axis=0, double=256)
    values, scales, second, mean = form.quantize(x)
    _, plain = NF4(axis=0).quantize(x)
    assert mean == np.float32(plain.mean(dtype=np.float64))
    places, largest = brute_force(plain - mean, dynamic_map(), 256)
    same((scales, second), (places, largest))
    restored = dynamic_map()[places] * np.repeat(largest, 256)[:300] + mean
    wanted = NF4(axis=0).dequantize(values, restored, shape=x.shape).astype(np.float32)
    np.testing.assert_array_equal(
        form.dequantize(values, scales, second, mean, shape=x.shape).astype(np.float32), wanted
    )


def test_dynamic_map_is_that_of_bitsandbytes() -> None:
    """Made as there, with torch: its linspace, its products in float32."""
    torch = pytest.importorskip("torch")
    found = [0.0, 1.0]
    for decade in range(7):
        bounds = torch.linspace(0.1, 1, 2**decade + 1)
        means = 10.0 ** (decade - 6) * ((bounds[:-1] + bounds[1:]) / 2)
        found += [*means.tolist(), *(-means).tolist()]
    np.testing.assert_array_equal(dynamic_map(), np.array(sorted(found), np.float32))


def test_nf4_of_zeros_is_zeros() -> None:
    for form in (NF4(), NF4(double=256)):
        assert not np.any(back(form, np.zeros((64, 3), np.float32)))


# --- what comes back ------------------------------------------------------------------------------------------------

shapes = st.tuples(st.integers(0, 5), st.integers(1, 71)) | st.tuples(*[st.integers(1, 4)] * 4)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100)
moderate = st.floats(-1e3, 1e3, width=32)


@settings(deadline=None, max_examples=80)
@given(shapes.flatmap(lambda shape: npst.arrays(np.float32, shape, elements=moderate)))
@pytest.mark.parametrize("text", SYMMETRIC)
def test_what_was_dequantized_is_not_rounded_again(text: str, x: np.ndarray) -> None:
    form = parse_format(text)
    if text == "nf4":
        x = np.where(np.abs(x) < 1e-30, 0, x)  # the reciprocal of less is not finite
    first = form.quantize(x)
    same(form.quantize(form.dequantize(*first, shape=x.shape).astype(np.float32)), first)


@pytest.mark.parametrize("text", ["uint8", "int8{asymmetric}", "uint4", "uint4{scales=f32}"])
def test_where_both_ends_occur_nothing_is_rounded_again(text: str) -> None:
    form = parse_format(text)
    x = drawn((64, 6))
    first = form.quantize(x)
    x = form.dequantize(*first, shape=x.shape).astype(np.float32)
    for _ in range(3):  # ends that rounding took off are found after a step or two
        first = form.quantize(x)
        x = form.dequantize(*first, shape=x.shape).astype(np.float32)
    same(form.quantize(x), first)


@settings(deadline=None, max_examples=80)
@given(shapes.flatmap(lambda shape: npst.arrays(np.float32, shape, elements=floats)))
@pytest.mark.parametrize(
    "text", ["int8", "int8{axis=0}", "uint8", "int4{scales=f32}", "uint4{axis=0,block=16,scales=f32}"]
)
def test_errors_are_half_a_step_at_most(text: str, x: np.ndarray) -> None:
    """Also of zeros, of denormals and of channels that end in a part of a block."""
    form = parse_format(text)
    _, scales, *_ = form.quantize(x)
    error = np.abs(form.dequantize(*form.quantize(x), shape=x.shape) - x)
    assert np.isfinite(error).all()
    step = float(scales.max(initial=0))
    steps = 1.0 if form.asymmetric else 0.5  # type: ignore[attr-defined]
    assert error.max(initial=0) <= steps * step * (1 + 2**-8)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(text: str, bad: float) -> None:
    x = drawn((32, 32))
    x[3, 3] = bad
    with pytest.raises(GraphcError, match="cannot hold NaN or infinities: 1 of 1024"):
        parse_format(text).quantize(x)


def test_what_is_no_float_is_refused() -> None:
    with pytest.raises(GraphcError, match="takes floats, not int32"):
        Int8().quantize(np.ones((2, 2), np.int32))


@pytest.mark.parametrize(
    ("text", "largest", "dtype"),
    [("q4_0", 1e6, "float16"), ("q8_0", 1e7, "float16"), ("q8_0", 1e60, "float32"), ("nf4", 1e60, "float32")],
)
def test_numbers_beyond_what_is_stored_are_refused(text: str, largest: float, dtype: str) -> None:
    """As infinities they would be NaN when read again."""
    x = np.eye(32) * largest
    with pytest.raises(GraphcError, match=rf"{text} keeps numbers in {dtype}, which does not hold"):
        parse_format(text).quantize(x if largest > 1e30 else x.astype(np.float32))


def test_scales_beyond_float16_are_refused() -> None:
    x = drawn((32, 2)) * np.float32(1e7)
    with pytest.raises(GraphcError, match="write scales=f32"):
        Int4().quantize(x)
    assert np.abs(back(parse_format("int4{scales=f32}"), x) - x).max() <= np.abs(x).max() / 14 * 1.001


def test_an_axis_that_is_not_there() -> None:
    with pytest.raises(ShapeError, match="axis 3"):
        Int8(axis=3).quantize(drawn((2, 2)))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_other_floats(dtype: Any) -> None:
    x = drawn((64, 4)).astype(dtype)
    same(Int8().quantize(x), Int8().quantize(x.astype(np.float32)))


def test_products_are_exact_in_float32() -> None:
    """So no target rounds where another does not."""
    values, scales = Int8().quantize(drawn((50, 40)))
    exact = values.astype(np.float64) * scales.astype(np.float64)
    np.testing.assert_array_equal(exact, values.astype(np.float32) * scales)


# --- the op ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_the_op_is_the_format(text: str) -> None:
    form = parse_format(text)
    x = drawn((32, 64))
    arrays = form.quantize(x)
    found = ops.dequantize(*arrays, format=text, shape=x.shape, dtype="float32")
    np.testing.assert_allclose(found, form.dequantize(*arrays, shape=x.shape), rtol=2**-23)


def test_the_op_refuses_arrays_of_another_shape() -> None:
    values, scales = Int8().quantize(drawn((4, 5)))
    with pytest.raises(ShapeError, match=r"scales is f32\[5\], not f32\[4\]"):
        ops.dequantize(values, scales[:4], format="int8", shape=(4, 5), dtype="float32")
    with pytest.raises(ShapeError, match="takes 2 arrays"):
        ops.dequantize(values, format="int8", shape=(4, 5), dtype="float32")
    with pytest.raises(GraphcError, match="there is no format"):
        ops.dequantize(values, scales, format="int7", shape=(4, 5), dtype="float32")


def test_fake_quantization_is_quantizing_and_dequantizing() -> None:
    x = drawn((50, 8)) * 3
    scale, zero = np.linspace(0.01, 0.05, 8, dtype=np.float32), np.arange(8, dtype=np.int8)
    kept = ops.quantize(x, scale, zero)
    wanted = (kept.astype(np.float32) - zero) * scale
    np.testing.assert_array_equal(ops.fake_quantize(x, scale, zero), wanted)
    whole = ops.dequantize(kept, scale, zero, format="int8{asymmetric}", shape=x.shape, dtype="float32")
    np.testing.assert_array_equal(whole, wanted)


def test_quantize_at_its_edges() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.5, 1.5, -0.0, 200], np.float32)
    assert ops.quantize(x, np.float32(1)).tolist() == [0, 127, -128, 0, 2, 0, 127]
    assert ops.quantize(x, np.float32(1), low=-7, high=7).tolist() == [0, 7, -7, 0, 2, 0, 7]
    with pytest.raises(GraphcError, match="not one of uint8"):
        ops.quantize(x, np.float32(1), dtype="uint8", low=-1, high=7)


def test_gradient_goes_straight_through() -> None:
    x = np.array([0.2, 0.7, 9, -9], np.float32)
    dx, ds, _ = ops.fake_quantize.vjp_rule(
        np.ones(4, np.float32), None, x, np.float32(0.5), None, dtype=graphc_i8(), axis=-1, low=-4, high=4
    )
    assert dx.tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(ds, (0 - 0.4) + (1 - 1.4) + 4 - 4, rtol=1e-6)


def graphc_i8() -> Any:
    from graphc.ir.dtypes import i8

    return i8
