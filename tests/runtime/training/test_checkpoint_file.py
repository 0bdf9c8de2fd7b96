"""The file of a checkpoint: what goes in comes out, and no damage to it is taken for content."""

import errno
import json
import os
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import FormatError, GraphcError, UnsupportedError
from graphc.ir.types import TensorType
from graphc.runtime.training.checkpoint_file import open_checkpoint, write_checkpoint

STATE = {
    "epoch": 3,
    "rate": 1e-3,
    "best": float("inf"),
    "worst": float("nan"),
    "names": ["a", None, True],
    "callbacks": {"stopping": {"weights": [np.arange(6.0).reshape(2, 3), np.float32(2)], "wait": 1}},
}


def arrays():
    random = np.random.default_rng(0)
    return {
        "dense/kernel": random.standard_normal((3, 5)).astype(np.float32),
        "optimizer/iteration": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float32),
        "half": random.standard_normal(5).astype(np.float16),
        "mask": np.array([True, False, True]),
        "brain": random.standard_normal((2, 2)).astype(ml_dtypes.bfloat16),
    }


def write(path, tensors=None, state=None):
    tensors = arrays() if tensors is None else tensors
    types = {name: TensorType.of(dtype_of(array.dtype), array.shape) for name, array in tensors.items()}
    write_checkpoint(path, STATE if state is None else state, types, tensors.__getitem__)
    return path


def read(path):
    with open_checkpoint(path) as checkpoint:
        return checkpoint.state, {name: checkpoint.read(name) for name in checkpoint.types}


def test_what_goes_in_comes_out(tmp_path):
    state, found = read(write(tmp_path / "c.safetensors"))
    assert set(found) == set(arrays())
    for name, array in arrays().items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    assert state["epoch"] == 3 and state["rate"] == 1e-3 and state["best"] == np.inf and np.isnan(state["worst"])
    assert state["names"] == ["a", None, True]
    weights = state["callbacks"]["stopping"]["weights"]
    assert weights[0].dtype == np.float64 and np.array_equal(weights[0], STATE["callbacks"]["stopping"]["weights"][0])
    assert weights[1].dtype == np.float32 and weights[1].shape == () and weights[1] == 2


def test_equal_content_makes_equal_files(tmp_path):
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def test_other_readers_of_safetensors_read_it(tmp_path):
    found = load_file(write(tmp_path / "c.safetensors"))
    assert np.array_equal(found["dense/kernel"], arrays()["dense/kernel"])
    assert found["state/callbacks/stopping/weights/1"] == 2


def test_an_array_of_the_state_has_a_name_of_its_own(tmp_path):
    path = write(tmp_path / "c", {"state/a": np.zeros(2)}, {"a": np.ones(3)})
    state, found = read(path)
    assert found["state/a"].tolist() == [0, 0] and state["a"].tolist() == [1, 1, 1]


def test_writing_takes_the_memory_of_one_array(tmp_path):
    types = {f"w{i}": TensorType.of("float32", (1 << 18,)) for i in range(64)}  # 1 MiB each
    tracemalloc.start()
    write_checkpoint(tmp_path / "c", {}, types, lambda name: np.full(1 << 18, int(name[1:]), np.float32))
    writing = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    with open_checkpoint(tmp_path / "c") as checkpoint:
        assert all(checkpoint.read(name)[0] == int(name[1:]) for name in types)
    reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(writing, reading) < 4 << 20


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": object()}}, "state/a/b: a checkpoint holds .* not object"),
        ({"a": {1: 2}}, "state/a: keys in a checkpoint are text"),
        ({"a": {"$array": "x"}}, r"does not start with \$"),
    ],
)
def test_state_that_a_file_cannot_hold(tmp_path, state, message):
    with pytest.raises(GraphcError, match=message):
        write(tmp_path / "c", state=state)
    assert not list(tmp_path.iterdir())


def test_dtypes_that_safetensors_lacks(tmp_path):
    with pytest.raises(UnsupportedError, match="'w': safetensors has no dtype complex128"):
        write(tmp_path / "c", {"w": np.zeros(2, np.complex128)})


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    path = write(tmp_path / "c")
    before = path.read_bytes()

    def fail(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(GraphcError, match=r"no room for .*unchanged"):
        write(path, state={"epoch": 4})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["c"]


# --- damage and malice --------------------------------------------------------------------------------------------


def rewritten(path, change):
    """The file with a changed header, lengths corrected; the digest is not."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return path


def metadata(**changed):
    return lambda header: header["__metadata__"].update(changed)


def entry(**changed):
    return lambda header: header["dense/kernel"].update(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (metadata(format="graphc-checkpoint 2"), "version 2, from a newer graphc; this release reads up to 1"),
        (metadata(format="graphc-checkpoint 02"), "its format is"),
        (metadata(format="pt"), "its format is 'pt', not 'graphc-checkpoint'"),
        (metadata(format=1), "its format is 1"),
        (lambda h: h.pop("__metadata__") and None, "its format is None"),
        (lambda h: [h], "is not a JSON object"),
        (metadata(sha256="0"), "has no digest"),
        (metadata(sha256="0" * 64), "SHA-256 differs"),
        (metadata(state="{}"), "SHA-256 differs"),
        (entry(dtype="F4"), "dtype 'F4'"),
        (entry(dtype=["F32"]), "which graphc does not read"),
        (entry(shape=[3, -5]), "no valid shape"),
        (entry(shape=[3, 5.0]), "no valid shape"),
        (entry(shape=[True, 5]), "no valid shape"),
        (entry(shape=[1] * 65), "no valid shape"),
        (entry(shape=[1 << 62, 1 << 62]), "does not fit into the file"),
        (entry(shape=[3, 6]), "not as long as its shape"),
        (entry(data_offsets=[0, 1 << 62]), "not as long as its shape"),
        (entry(data_offsets=[0]), "no valid shape or place"),
        (entry(more=1), "is not that of an array"),
        (lambda h: h.update(extra={"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}), "overlap or leave gaps"),
        (lambda h: h.pop("mask") and None, "cut off, or something follows|overlap or leave gaps"),
        (lambda h: h.update(dense=None), "is not that of an array"),
    ],
)
def test_a_changed_header(tmp_path, change, message):
    path = rewritten(write(tmp_path / "c"), change)
    with pytest.raises(FormatError, match=message) as error, open_checkpoint(path):
        pass
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too short"),
        (b"\xff" * 100, "longer than the file"),
        ((50).to_bytes(8, "little") + b"{}", "longer than the file"),
        ((100_001).to_bytes(8, "little") + b"[" * 100_001, "not valid JSON"),
        ((2).to_bytes(8, "little") + b"{}", "format is None"),
        ((13).to_bytes(8, "little") + b'{"a":1,"a":2}', "has a name twice"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, data, message):
    (tmp_path / "c").write_bytes(data)
    with pytest.raises(FormatError, match=message), open_checkpoint(tmp_path / "c"):
        pass


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(FormatError, match="there is no file"), open_checkpoint(path):
            pass


def test_a_large_length_takes_no_memory(tmp_path):
    """Sizes are checked against the file before anything of that size is made."""
    path = rewritten(write(tmp_path / "c"), entry(shape=[1 << 20, 1 << 20], data_offsets=[0, 4 << 40]))
    tracemalloc.start()
    with pytest.raises(FormatError), open_checkpoint(path):
        pass
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


WHOLE = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write(tmp_path_factory.mktemp("original") / "c").read_bytes()


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(FormatError), open_checkpoint(path):
        pass


@WHOLE
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_off(tmp_path, original, cut):
    refused(tmp_path / "c", original[: int(len(original) * cut)])


@WHOLE
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_byte_that_changed(tmp_path, original, place, bits):
    data = bytearray(original)
    data[int(len(data) * place)] ^= bits
    refused(tmp_path / "c", data)


@WHOLE
@given(st.data())
def test_parts_that_were_exchanged(tmp_path, original, data):
    """Pieces of a file cut out, doubled and moved: refused, unless it is the same file again."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(original)), min_size=2, max_size=4)))
    pieces = [original[a:b] for a, b in zip([0, *cuts], [*cuts, len(original)], strict=True)]
    garbled = b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=6)))
    if garbled != original:
        refused(tmp_path / "c", garbled)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
IN_METADATA, IN_ENTRY = ("format", "sha256", "state"), ("dtype", "shape", "data_offsets")


@WHOLE
@given(key=st.sampled_from(["dense/kernel", "__metadata__", *IN_METADATA, *IN_ENTRY]), value=JSON)
def test_anything_in_the_header(tmp_path, original, key, value):
    """Whatever stands in a header, the answer is `FormatError`."""
    path = tmp_path / "c"
    path.write_bytes(original)

    def change(header):
        group = "__metadata__" if key in IN_METADATA else "dense/kernel" if key in IN_ENTRY else None
        (header[group] if group else header)[key] = value

    refused(path, rewritten(path, change).read_bytes())
