"""The reference: decompositions against it, and its edges, row by row of the table of meanings."""

from collections.abc import Callable

import numpy as np
import pytest
from edges import EDGES, Edge
from ml_dtypes import bfloat16, float8_e4m3fn, int4, uint4
from sampling import cases

from graphc.ir import ops
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, ShapeError
from graphc.ir.interpreter import Interpreter, evaluate, interpret, round_to, widened
from graphc.ir.opdef import OPS, Composite

nan, inf = np.nan, np.inf
COMPOSITES = [name for name, op in OPS.items() if op.is_composite and op.reference_rule]

BY_DECOMPOSITION_ONLY = {"einsum"}
"""Composites without a reference of their own: the decomposition is their meaning."""


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def same(found: np.ndarray, wanted: object) -> None:
    """Equal values, NaN to NaN, zeros with their signs."""
    wide = widened(np.asarray(found))
    expected = np.asarray(wanted, wide.dtype)
    np.testing.assert_array_equal(wide, expected)
    if wide.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(wide) & ~np.isnan(wide), np.signbit(expected) & ~np.isnan(expected))


# --- decompositions ----------------------------------------------------------------------------------------------


def test_composites_without_reference_are_known(announce: Callable[[str], None]) -> None:
    without = {name for name, op in OPS.items() if op.is_composite and op.reference_rule is None}
    assert without == BY_DECOMPOSITION_ONLY
    announce(
        f"references: {len(COMPOSITES)} composites against their decompositions, {len(without)} have no other meaning"
    )


@pytest.mark.parametrize("name", COMPOSITES)
def test_decomposition_agrees_with_the_reference(name: str) -> None:
    definition = OPS[name]
    assert isinstance(definition, Composite)
    for case in cases(name):
        for dtype in case.dtypes:
            if dtype.bits < 32 and dtype.is_float:
                continue  # in float64 throughout, these decompose as the wider ones do
            arrays = case.arrays(dtype, np.random.default_rng(case.number))
            types = case.types(dtype)
            attributes = case.infer(dtype).attributes
            named = dict(zip(definition.attribute_names, attributes, strict=True))
            wanted = evaluate(definition, named, arrays, [None if t is None else t.dtype for t in types])
            function = definition.decomposition(types, attributes)
            # What is defined by rounding in its own dtype is compared in that.
            found = Interpreter(None, wide=definition.widens).run(function, [a for a in arrays if a is not None])
            for one, other, type in zip(found, wanted, case.infer(dtype).types, strict=True):
                if not definition.widens:
                    np.testing.assert_array_equal(widened(one), widened(round_to(other, type.dtype)), err_msg=case.id)
                elif type.dtype.is_float or type.dtype.is_complex:
                    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12, err_msg=case.id)
                else:
                    np.testing.assert_array_equal(widened(one), widened(round_to(other, type.dtype)), err_msg=case.id)


# --- edges as modules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.id)
def test_recorded_edges_mean_what_calls_mean(edge: Edge) -> None:
    module = edge.module()
    module.verify()
    found = interpret(module, *edge.arrays)
    wanted = edge.case.op(*edge.case.operands, **edge.case.sample.attributes)
    several = isinstance(wanted, tuple)
    for one, other in zip(found if several else (found,), wanted if several else (wanted,), strict=True):
        same(one, other)


# --- rounding ----------------------------------------------------------------------------------------------------


def test_results_round_once() -> None:
    """To bfloat16 and 8-bit floats too, which ml_dtypes rounds by way of float32."""
    tie = 1 + 2**-8  # between 1 and 1 + 2**-7
    values = np.array([tie, tie + 2**-40, tie - 2**-40, 1 + 3 * 2**-8, -tie - 2**-40, 1e300, nan, inf, -0.0])
    found = round_to(values, dtype_of(bfloat16))
    same(found, [1, 1 + 2**-7, 1, 1 + 2**-6, -1 - 2**-7, inf, nan, inf, -0.0])
    same(round_to(np.array([1 + 2**-4 + 2**-40]), dtype_of(float8_e4m3fn)), [1.125])
    same(round_to(np.array([1 + 2**-11 + 2**-40]), dtype_of("float16")), [1 + 2**-10])


def test_sums_are_not_rounded_on_the_way() -> None:
    ones = np.ones(1000, bfloat16)
    assert ops.reduce_sum(ones, axes=0) == 1000
    assert ops.reduce_sum(f32(1e8, 1, -1e8), axes=0) == 1


def test_means_of_narrow_floats_do_not_overflow() -> None:
    assert ops.reduce_mean(np.full(100000, 1000, np.float16), axes=0) == 1000


# --- NaN, infinities, signs --------------------------------------------------------------------------------------


def test_nan_propagates() -> None:
    same(ops.maximum(f32(nan, 1, nan), f32(1, nan, nan)), [nan] * 3)
    same(ops.minimum(f32(nan, 1, nan), f32(1, nan, nan)), [nan] * 3)
    same(ops.reduce_max(f32(1, nan, 2), axes=0), nan)
    same(ops.reduce_min(f32(1, nan, 2), axes=0), nan)
    for activation in (ops.relu, ops.relu6, ops.exp, ops.sign, ops.leaky_relu, ops.elu, ops.softplus, ops.gelu):
        same(activation(f32(nan)), [nan])
    same(ops.clip(f32(nan), 0, 1), [nan])
    same(ops.softmax(f32(nan, 1)), [nan, nan])


def test_exponentials_at_the_end_of_float32() -> None:
    assert np.isfinite(ops.exp(f32(88.7)))
    same(ops.exp(f32(89, inf, -inf)), [inf, inf, 0])
    same(ops.softplus(f32(1000, -1000, inf, -inf)), [1000, 0, inf, 0])
    same(ops.softmax(f32(1000, 1000)), [0.5, 0.5])
    same(ops.log_softmax(f32(1000, -1000)), [0, -2000])


def test_comparisons_with_nan_are_false_but_ne() -> None:
    for op in (ops.eq, ops.lt, ops.le, ops.gt, ops.ge):
        assert not op(f32(nan), f32(nan))
    assert ops.ne(f32(nan), f32(nan))


def test_argmax_takes_the_first_and_the_first_nan() -> None:
    assert ops.argmax(f32(1, 3, 3), axis=0) == 1
    assert ops.argmin(f32(3, 1, 1), axis=0) == 1
    assert ops.argmax(f32(5, nan, 9, nan), axis=0) == 1
    assert ops.argmin(f32(5, nan, -9, nan), axis=0) == 1
    assert ops.argmax(f32(1, 2), axis=0).dtype == np.int32
    with pytest.raises(ShapeError, match="nothing along axis 0"):
        ops.argmax(np.zeros((0, 2), np.float32), axis=0)


# --- casts -------------------------------------------------------------------------------------------------------


def test_floats_to_integers_truncate_and_saturate() -> None:
    values = f32(1.9, -1.9, nan, inf, -inf, 3e9, -3e9, 300)
    same(ops.convert(values, dtype="int32"), [1, -1, 0, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 300])
    same(ops.convert(values, dtype="uint8"), [1, 0, 0, 255, 0, 255, 0, 255])
    same(ops.convert(values, dtype="int8"), [1, -1, 0, 127, -128, 127, -128, 127])
    same(ops.convert(f32(9.9, -9.9, nan), dtype=int4), [7, -8, 0])
    same(ops.convert(f32(99, -1), dtype=uint4), [15, 0])
    same(ops.convert(f32(1e30, -1e30, 2**62), dtype="int64"), [2**63 - 1, -(2**63), 2**62])
    same(ops.convert(f32(1e30, -1), dtype="uint64"), np.uint64([2**64 - 1, 0]))


def test_integers_to_integers_wrap() -> None:
    same(ops.convert(i32(300, -1, 2**31 - 1), dtype="uint8"), [44, 255, 255])
    same(ops.convert(np.int64([2**40 + 5]), dtype="int32"), [5])
    same(ops.convert(i32(9, 24), dtype=int4), [-7, -8])


def test_conversions_to_bool_ask_for_zero() -> None:
    same(ops.convert(f32(0, -0.0, nan, 0.5), dtype="bool"), [False, False, True, True])


def test_conversions_of_complex_are_refused() -> None:
    with pytest.raises(DTypeError, match="take its real part"):
        ops.convert(np.complex64([1j]), dtype="float32")


def test_bits_survive_bitcast() -> None:
    bits = np.int32([0x7FC00001, -(2**31), 1])
    same(ops.bitcast(ops.bitcast(bits, dtype="float32"), dtype="int32"), bits)
    with pytest.raises(DTypeError, match="bitcast keeps the width"):
        ops.bitcast(bits, dtype="int64")


def test_64_bits_are_kept() -> None:
    assert ops.add(np.int64([2**40]), 1)[0] == 2**40 + 1
    assert ops.add(np.float64([1]), 2**-50)[0] == 1 + 2**-50


# --- integers ----------------------------------------------------------------------------------------------------


def test_integer_arithmetic_wraps() -> None:
    same(ops.add(np.int8([127]), np.int8([1])), [-128])
    same(ops.mul(i32(2**16), i32(2**16)), [0])
    same(ops.sub(np.uint32([0]), np.uint32([1])), [2**32 - 1])
    same(ops.neg(np.int8([-128])), [-128])
    same(ops.abs(np.int8([-128])), [-128])
    same(ops.add(np.array([15], uint4), np.array([1], uint4)), [0])
    same(ops.add(np.array([7], int4), np.array([1], int4)), [-8])
    same(ops.reduce_sum(np.full(200, 100, np.uint8), axes=0), 20000 % 256)
    same(ops.pow(i32(3, 2), i32(2, 40)), [9, 0])


def test_integer_division_truncates() -> None:
    x, y = i32(7, -7, 7, -7, 6), i32(2, 2, -2, -2, -3)
    same(ops.div(x, y), [3, -3, -3, 3, -2])
    same(ops.rem(x, y), [1, -1, 1, -1, 0])
    same(ops.floor_div(x, y), [3, -4, -4, 3, -2])
    same(ops.mod(x, y), [1, 1, -1, -1, 0])
    same(ops.div(np.uint32([2**32 - 1]), np.uint32([2])), [2**31 - 1])
    same(ops.pow(i32(1, -1, -1, 2), i32(-1, -1, -2, -1)), [1, -1, 1, 0])


def test_integer_division_is_exact_beyond_53_bits() -> None:
    assert ops.div(np.int64([2**62 + 1]), np.int64([1]))[0] == 2**62 + 1
    assert ops.div(np.int64([-(2**62) - 1]), np.int64([3]))[0] == -((2**62 + 1) // 3)


def test_float_remainder_has_the_sign_of_the_dividend() -> None:
    same(ops.rem(f32(5, -5, 5, 1, inf, 1), f32(3, 3, -3, inf, 1, 0)), [2, -2, 2, 1, nan, nan])
    same(ops.mod(f32(5, -5, 5), f32(3, 3, -3)), [2, 1, -1])
    same(ops.floor_div(f32(5, -5, 1, -1, 1, -1, 0), f32(3, 3, 0, 0, inf, inf, 0)), [1, -2, inf, -inf, 0, -1, nan])


def test_shifts_by_the_width_or_more() -> None:
    same(ops.shift_left(i32(1, 1, 1), i32(31, 32, 99)), [-(2**31), 0, 0])
    same(ops.shift_right(i32(-8, -8, 8), i32(1, 32, 32)), [-4, -1, 0])
    same(ops.shift_right(np.uint32([2**31, 2**31]), np.uint32([31, 32])), [1, 0])
    same(ops.shift_left(np.array([1, 1], int4), np.array([3, 5], int4)), [-8, 0])
    same(ops.shift_left(i32(1), i32(-1)), [0])


def test_logic_of_bools_and_bits() -> None:
    t, f = np.array([True]), np.array([False])
    assert ops.and_(t, f).tolist() == [False]
    assert ops.xor(t, f).tolist() == [True]
    assert ops.not_(f).tolist() == [True]
    same(ops.not_(np.uint8([1])), [254])
    with pytest.raises(DTypeError, match="and does not take float32"):
        ops.and_(f32(1), f32(1))


# --- nothing -----------------------------------------------------------------------------------------------------


def test_reductions_of_nothing_are_the_identity() -> None:
    none = np.zeros((0, 2), np.float32)
    same(ops.reduce_sum(none, axes=0), [0, 0])
    same(ops.reduce_prod(none, axes=0), [1, 1])
    same(ops.reduce_max(none, axes=0), [-inf, -inf])
    same(ops.reduce_min(none, axes=0), [inf, inf])
    same(ops.reduce_mean(none, axes=0), [nan, nan])
    same(ops.variance(none, axes=0), [nan, nan])
    same(ops.reduce_max(none.astype(np.int8), axes=0), [-128, -128])
    same(ops.reduce_min(none.astype(np.uint8), axes=0), [255, 255])
    same(ops.reduce_max(none.astype(int4), axes=0), [-8, -8])
    same(ops.reduce_max(none.astype(float8_e4m3fn), axes=0), [-448, -448])  # it has no infinity
    assert ops.reduce_max(none.astype(bool), axes=0).tolist() == [False, False]
    assert ops.reduce_all(none.astype(bool), axes=0).tolist() == [True, True]
    assert ops.reduce_any(none.astype(bool), axes=0).tolist() == [False, False]


def test_no_axes_reduce_nothing() -> None:
    x = f32(1, 2)
    for op in (ops.reduce_sum, ops.reduce_prod, ops.reduce_max, ops.reduce_min, ops.reduce_mean):
        same(op(x, axes=()), x)


def test_sizes_of_zero() -> None:
    none = np.zeros((0, 3), np.float32)
    assert ops.softmax(none).shape == (0, 3)
    assert ops.softmax(none, axis=0).shape == (0, 3)
    assert ops.concat(none, none, axis=0).shape == (0, 3)
    assert ops.reshape(none, shape=(3, 0)).shape == (3, 0)
    assert ops.matmul(np.zeros((2, 0), np.float32), none).tolist() == np.zeros((2, 3)).tolist()
    assert ops.cumulative_sum(none, axis=0).shape == (0, 3)
    assert ops.gather(none, np.zeros((0,), np.int32)).shape == (0, 3)
    with pytest.raises(ShapeError, match="may be empty"):
        ops.gather(none, i32(0))
    same(ops.gather(none, i32(0), mode="fill"), np.zeros((1, 3)))


# --- places that are data ----------------------------------------------------------------------------------------


def test_gather_outside() -> None:
    x = f32(10, 20, 30)
    same(ops.gather(x, i32(-1, 0, 2, 3)), [10, 10, 30, 30])
    same(ops.gather(x, i32(-1, 0, 2, 3), mode="fill"), [0, 10, 30, 0])
    assert ops.gather(np.ones((2, 3, 4), np.float32), np.zeros((5, 6), np.int64), axis=1).shape == (2, 5, 6, 4)


def test_scatter_outside_and_doubled() -> None:
    x = f32(1, 1, 1)
    same(ops.scatter(x, i32(0, 0, 2, 3, -1), f32(1, 2, 4, 8, 16)), [4, 1, 5])
    same(ops.scatter(x, i32(1, 7), f32(5, 6), reduction="set"), [1, 5, 1])
    same(ops.scatter(np.zeros((2, 3), np.int32), np.int32(1), i32(5, 6), axis=1), [[0, 5, 0], [0, 6, 0]])


def test_dynamic_slices_are_moved_inside() -> None:
    x = f32(0, 1, 2, 3, 4)
    same(ops.dynamic_slice(x, 9, sizes=(2,)), [3, 4])
    same(ops.dynamic_slice(x, -9, sizes=(2,)), [0, 1])
    same(ops.dynamic_update_slice(x, f32(7, 8), 4), [0, 1, 2, 7, 8])
    with pytest.raises(ShapeError, match="6 is more than 5"):
        ops.dynamic_slice(x, 0, sizes=(6,))


# --- gradients at ties -------------------------------------------------------------------------------------------


def test_gradients_at_ties() -> None:
    one, zero = f32(1), f32(0)

    def rule(op, *operands, **attributes):
        with np.errstate(all="ignore"):
            return op.vjp_rule(one, op(*operands, **attributes), *operands, **attributes)

    for op in (ops.maximum, ops.minimum):
        assert [g.tolist() for g in rule(op, zero, zero)] == [[0.5], [0.5]]
    same(ops.reduce_max.vjp_rule(np.float32(1), np.float32(2), f32(2, 1, 2), axes=(0,), keepdims=False), [0.5, 0, 0.5])
    assert rule(ops.clip, f32(1), zero, f32(1))[0] == 1
    assert rule(ops.clip, zero, zero, f32(1))[0] == 1
    assert rule(ops.clip, f32(1.5), zero, f32(1))[0] == 0
    same(rule(ops.abs, zero), [0])
    same(rule(ops.relu, zero), [0])
    same(rule(ops.relu6, f32(6)), [0])
    assert [g.tolist() for g in rule(ops.pow, zero, zero)] == [[0], [0]]
    same(rule(ops.pow, f32(-2), f32(2))[0], [-4])
    same(rule(ops.abs, np.complex64([0])), [0])


# --- complex numbers ---------------------------------------------------------------------------------------------


def test_complex_parts_are_kept_apart() -> None:
    z = ops.complex(f32(inf, 1), f32(2, -0.0))
    same(ops.real(z), [inf, 1])
    same(ops.imag(z), [2, -0.0])
    assert ops.abs(np.complex64([3 + 4j])).dtype == np.float32
    with pytest.raises(DTypeError, match="maximum does not take complex64"):
        ops.maximum(np.complex64([1]), np.complex64([1]))


# --- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.add(x, np.ones(4, np.float32)), r"shapes \[2, 3\] and \[4\] do not broadcast"),
        (lambda x: ops.reshape(x, shape=(4, 2)), "changes the element count: 8 is not 6"),
        (lambda x: ops.reshape(x, shape=(-1, -1)), "only one size can be found"),
        (lambda x: ops.reshape(x, shape=(4, -1)), "changes the element count"),
        (lambda x: ops.transpose(x, permutation=(0, 0)), r"\[0, 0\] is not a permutation"),
        (lambda x: ops.broadcast(x, shape=(2, 4)), "3 is not 4"),
        (lambda x: ops.broadcast(x, shape=(3,)), "more axes"),
        (lambda x: ops.concat(x, np.ones((3, 3), np.float32), axis=1), "2 is not 3"),
        (lambda x: ops.concat(axis=0), "at least one operand"),
        (lambda x: ops.slice(x, starts=(0, 0), limits=(2, 4)), "4 is more than 3"),
        (lambda x: ops.slice(x, starts=(0,), limits=(2,)), "for each axis"),
        (lambda x: ops.slice(x, starts=(0, 0), limits=(2, 3), strides=(1, 0)), "the stride 0 is not positive"),
        (lambda x: ops.split(x, sizes=(1, 2), axis=0), "3 is more than 2"),
        (lambda x: ops.split(x, sizes=(1,), axis=0), "1 is not 2"),
        (lambda x: ops.pad(x, padding=((-1, 0), (0, 0))), "slice takes them away"),
        (lambda x: ops.reduce_sum(x, axes=(2,)), "axis 2 is out of range"),
        (lambda x: ops.reduce_sum(x, axes=(0, -2)), "names an axis twice"),
        (lambda x: ops.softmax(x, axis=2), "axis 2 is out of range"),
        (lambda x: ops.iota(shape=(2,), axis=1), "axis 1 is out of range"),
        (lambda x: ops.dynamic_slice(x, 0, sizes=(1, 1)), "a start for each axis"),
        (lambda x: ops.scatter(x, i32(0), np.ones((2, 3), np.float32)), "2 is not 1"),
    ],
)
def test_shapes_that_do_not_fit_are_explained(call: Callable, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call(np.ones((2, 3), np.float32))
