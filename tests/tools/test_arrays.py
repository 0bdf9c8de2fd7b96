"""Arrays in and out of files."""

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc.tools.arrays import read_inputs, write_outputs

FUNCTION = graphc.parse("func @f(%file: f32[2] input, %b: i32[] input) -> f32[2] {\n  return %file\n}").main


def test_outputs_may_have_any_name(tmp_path):
    arrays = {"file": np.arange(3.0), "allow_pickle": np.bool_(True), "a/b": np.zeros((0, 2))}
    write_outputs(tmp_path / "out.npz", arrays)
    with np.load(tmp_path / "out.npz") as found:
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_narrow_dtypes_are_widened(tmp_path):
    write_outputs(
        tmp_path / "out.npz",
        {"y": np.array([1.5], ml_dtypes.bfloat16), "z": np.array([-8], ml_dtypes.int4), "h": np.float16([1])},
    )
    with np.load(tmp_path / "out.npz") as found:
        assert [str(found[name].dtype) for name in ("y", "z", "h")] == ["float32", "int8", "float16"]
        assert found["y"] == 1.5 and found["z"] == -8


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(graphc.DTypeError):
        write_outputs(tmp_path / "out.npz", {"y": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


def test_inputs_by_name_or_by_order(tmp_path):
    write_outputs(tmp_path / "in.npz", {"b": np.int32(1), "file": np.ones(2), "other": np.ones(1)})
    assert sorted(read_inputs(tmp_path / "in.npz", FUNCTION)) == ["b", "file"]
    np.savez(tmp_path / "in.npz", np.ones(2), np.int32(5))
    assert read_inputs(tmp_path / "in.npz", FUNCTION)["b"] == 5


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "in.npz", np.array([{}], object), np.int32(1))
    with pytest.raises(graphc.FormatError, match=r"in\.npz is not an \.npz of plain arrays"):
        read_inputs(tmp_path / "in.npz", FUNCTION)
    np.save(tmp_path / "in.npy", np.ones(2))
    with pytest.raises(graphc.FormatError, match="holds a single array"):
        read_inputs(tmp_path / "in.npy", FUNCTION)
