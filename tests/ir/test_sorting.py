"""Sorting, rows of tables and one-hot vectors at their edges."""

import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.errors import DTypeError, ShapeError

nan, inf = np.nan, np.inf


def test_sort_is_stable_with_nan_last() -> None:
    x = np.array([nan, 1, -0.0, inf, 0.0, nan, 1, -inf], np.float32)
    values, places = ops.sort(x, np.arange(8, dtype=np.int32))
    assert places.tolist() == [7, 2, 4, 1, 6, 3, 0, 5]
    np.testing.assert_array_equal(np.signbit(values[1:3]), [True, False])
    np.testing.assert_array_equal(ops.sort(np.array([2**32 - 1, 3, 2**31], np.uint32)), [3, 2**31, 2**32 - 1])


def test_sort_carries_other_operands_along_and_brings_cotangents_back() -> None:
    keys = np.array([[3, 1, 2], [1, 1, 0]])
    rows = np.array([[1.0, 2, 3], [4, 5, 6]])
    found = ops.sort(keys, rows, axis=1)
    np.testing.assert_array_equal(found[1], [[2, 3, 1], [6, 4, 5]])
    gradient = ops.sort.vjp_rule((None, found[1]), found, keys, rows, axis=1)
    assert gradient[0] is None
    np.testing.assert_array_equal(gradient[1], rows)


def test_sort_refuses_what_it_cannot_order() -> None:
    with pytest.raises(DTypeError, match="complex64 has no order"):
        ops.sort(np.zeros(2, np.complex64))
    with pytest.raises(ShapeError, match="must be of one shape: 3 is not 2"):
        ops.sort(np.zeros(2), np.zeros(3))


def test_ids_outside_are_clamped_by_embedding_and_nothing_in_one_hot() -> None:
    table = np.array([[1.0, 2], [3, 4], [5, 6]])
    ids = np.array([-1, 1, 9])
    np.testing.assert_array_equal(ops.embedding(table, ids), table)
    dy = np.ones((3, 2))
    np.testing.assert_array_equal(
        ops.embedding.vjp_rule(dy, None, table, np.array([1, 1, -5]))[0], [[1, 1], [2, 2], [0, 0]]
    )
    np.testing.assert_array_equal(ops.one_hot(ids, size=3), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(ops.one_hot(np.uint8([255, 0]), size=300).sum(-1), [1, 1])
    assert ops.one_hot(ids, size=3, axis=0, dtype="int8").shape == (3, 3)


def test_a_row_used_twice_gets_both_cotangents() -> None:
    dy = np.arange(8.0).reshape(2, 2, 2)
    dtable = ops.embedding.vjp_rule(dy, None, np.zeros((4, 2)), np.array([[3, 1], [3, 3]]))[0]
    np.testing.assert_array_equal(dtable, [[0, 0], [2, 3], [0, 0], [10, 13]])
