"""Executables: what a call takes and refuses, entries, and the artifact they hold."""

import gc

import numpy as np
import pytest

import graphc

SUM = """
func @total(%x: f32[B, 3] input, %y: f32[N, 3] input) -> (sum: f32[B, 3], rows: f32[B]) where B == N {
  %0 = add %x, %y : f32[B, 3]
  %1 = reduce_sum %0 {axes = [1]} : f32[B]
  return %0, %1
}

func @doubled(%x: f32[B] input) -> f32[B] {
  %0 = add %x, %x : f32[B]
  return %0
}
"""
COUNTER = """
weight "count" : f32[] = 0.0

func @step(%x: f32[] input, %count: f32[] state "count") -> (old: f32[], new_count: f32[] updates %count) {
  %0 = add %count, %x : f32[]
  return %count, %0
}
"""


def array(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.fixture(scope="module")
def executable():
    return graphc.compile(graphc.parse(SUM), target="numpy")


def test_inputs_go_by_position_and_by_name(executable):
    x, y = array(2, 3), np.ones((2, 3), np.float32)
    for total, rows in (executable(x, y), executable(x, y=y), executable(y=y, x=x)):
        np.testing.assert_array_equal(total, x + y)
        np.testing.assert_array_equal(rows, (x + y).sum(1))


def test_a_single_result_is_an_array(executable):
    assert isinstance(executable.doubled(array(3)), np.ndarray)


def test_further_entries_are_methods(executable):
    np.testing.assert_array_equal(executable.doubled(array(3)), 2 * array(3))
    np.testing.assert_array_equal(executable.entry("doubled")(x=array(3)), 2 * array(3))
    with pytest.raises(graphc.GraphcError, match="no entry 'tripled'; it has total, doubled"):
        executable.entry("tripled")
    with pytest.raises(AttributeError, match="its entries are total, doubled"):
        executable.tripled  # noqa: B018


def test_integers_convert_to_floats(executable):
    np.testing.assert_array_equal(executable.doubled([1, 2]), np.float32([2, 4]))


@pytest.mark.parametrize(
    ("error", "message", "arguments", "named"),
    [
        (graphc.GraphcError, r"@total misses the input 'y' \(f32\[N, 3\]\)", (array(2, 3),), {}),
        (graphc.GraphcError, r"@total has no input 'z'; it has 'x' \(f32\[B, 3\]\), 'y'", (array(2, 3),), {"z": 1}),
        (graphc.GraphcError, "input 'x' of @total was given twice", (array(2, 3),), {"x": array(2, 3)}),
        (graphc.GraphcError, "takes 2 inputs .* 3 were given", (array(2, 3),) * 3, {}),
        (graphc.ShapeError, r"input 'x' of @total has shape \[3\]; it must be \[B, 3\]", (array(3), array(1, 3)), {}),
        (graphc.ShapeError, r"input 'y' of @total has shape \[2, 4\]", (array(2, 3), array(2, 4)), {}),
        (graphc.ShapeError, "@total needs B == N, but it was called with B = 2, N = 5", (array(2, 3), array(5, 3)), {}),
        (graphc.ShapeError, "B must be at least 1, not 0", (array(0, 3), array(0, 3)), {}),
        (graphc.ShapeError, "input 'x' of @total is no array of one shape", ([[1, 2], [3]], array(1, 3)), {}),
        (graphc.DTypeError, "input 'y' of @total is float32; NumPy's object is not", (array(2, 3), None), {}),
        (
            graphc.DTypeError,
            "is float32; a complex64 array does not",
            (array(2, 3) * np.complex64(1j), array(2, 3)),
            {},
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(executable, error, message, arguments, named):
    with pytest.raises(error, match=message):
        executable(*arguments, **named)


def test_symbols_that_may_be_0_survive_the_artifact():
    text = "func @f<S >= 0>(%x: f32[S] input) -> f32[S] {\n  %y = neg %x : f32[S]\n  return %y\n}"
    assert graphc.compile(graphc.parse(text))(array(0)).shape == (0,)


def test_saved_and_loaded_it_is_the_same(executable, tmp_path):
    executable.save(tmp_path / "artifact")
    again = graphc.load_artifact(tmp_path / "artifact")
    assert again.source == executable.source
    assert sorted(p.name for p in (tmp_path / "artifact").iterdir()) == sorted(
        p.name for p in executable.folder.iterdir()
    )
    np.testing.assert_array_equal(again.doubled(array(3)), executable.doubled(array(3)))
    executable.save(tmp_path / "artifact")  # over an artifact


def test_saving_overwrites_nothing_but_artifacts(executable, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(graphc.GraphcError, match="is there already and is not an artifact"):
        executable.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_changed_artifact_is_refused(executable, tmp_path):
    executable.save(tmp_path / "artifact")
    code = tmp_path / "artifact" / "model.py"
    code.write_text(code.read_text() + "\n# changed\n")
    with pytest.raises(graphc.FormatError, match=r"model\.py is not the file that was written"):
        graphc.load_artifact(tmp_path / "artifact")


def test_a_folder_without_manifest_is_no_artifact(tmp_path):
    with pytest.raises(graphc.FormatError, match=r"is not an artifact: it has no manifest\.json"):
        graphc.load_artifact(tmp_path)


def test_native_graphs_have_no_source():
    executable = graphc.compile(graphc.parse(SUM), target="onnx")
    with pytest.raises(graphc.GraphcError, match=r"'onnx' writes no source code; its files are .*model\.onnx"):
        executable.source  # noqa: B018


def test_the_folder_goes_with_the_executable():
    executable = graphc.compile(graphc.parse(SUM))
    folder = executable.folder
    assert folder.is_dir()
    del executable
    gc.collect()
    assert not folder.exists()


def test_a_failed_compilation_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(graphc.GraphcError):
        graphc.compile(graphc.parse(SUM), passes="no_such_pass")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_state_stays_inside(target):
    executable = graphc.compile(graphc.parse(COUNTER), target=target)
    assert executable.entry().outputs == ("old",)
    assert [float(executable(np.float32(x))) for x in (1, 10, 100)] == [0, 1, 11]


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_native_results_stay_the_framework_s(target):
    call = graphc.compile(graphc.parse(SUM), target=target).entry()
    x, y = array(2, 3), np.ones((2, 3), np.float32)
    native = call.native(x, y)
    assert isinstance(native, tuple) and len(native) == 2
    module = {"numpy": "numpy", "torch": "torch", "jax": "jax", "onnx": "onnxruntime"}[target]
    assert all(type(result).__module__.partition(".")[0].startswith(module) for result in native)
    for got, want in zip(call.to_numpy(native), call(x, y), strict=True):
        assert isinstance(got, np.ndarray)
        np.testing.assert_array_equal(got, want)
    with pytest.raises(graphc.ShapeError, match="needs B == N"):
        call.native(x, array(5, 3))


@pytest.mark.parametrize("target", ["numpy", "torch", "jax", "onnx"])
def test_inputs_may_lie_in_memory_as_they_like(target):
    call = graphc.compile(graphc.parse(SUM), target=target).doubled
    whole = array(8)
    fixed = array(4)
    fixed.flags.writeable = False
    for x in (whole[::2], whole[::-1], fixed):
        for _ in range(2):  # checked, and known
            np.testing.assert_array_equal(call(x), 2 * x)
    assert not fixed.flags.writeable


def test_what_was_accepted_once_does_not_let_others_in(executable):
    for _ in range(2):
        executable(array(2, 3), array(2, 3))
        with pytest.raises(graphc.ShapeError):
            executable(array(2, 3), array(5, 3))
        with pytest.raises(graphc.GraphcError, match="misses"):
            executable(array(2, 3))
        with pytest.raises(graphc.DTypeError):
            executable(array(2, 3), array(2, 3) * np.complex64(1j))
        np.testing.assert_array_equal(executable(array(2, 3), np.ones((2, 3), np.int32))[1], [6, 15])
