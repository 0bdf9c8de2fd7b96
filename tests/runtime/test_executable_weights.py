"""What the target holds of an executable's weights: read and written under the source's names, in its layout."""

import numpy as np
import pytest

import graphc

TARGETS = ["numpy", "torch", "jax", "onnx"]
STEP = """
weight "dense/kernel" : f32[3, 2] = [[1, 2], [3, 4], [5, 6]]
weight "dense/bias" : f32[2] = [0, 1]
weight "blocks/0/scale" : f32[2] = [1, 1]
weight "blocks/1/scale" : f32[2] = [2, 2]
weight "optimizer/dense/kernel/momentum" : f32[3, 2] = [[0, 0], [0, 0], [0, 0]]
weight "optimizer/iteration" : i64[] = 0
weight "frozen" : f32[2] = [1, 2]
weight "tied" : f32[2] tied "frozen"

func @train_step(
    %x: f32[B, 3] input,
    %rate: f32[] input,
    %kernel: f32[3, 2] param "dense/kernel",
    %bias: f32[2] param "dense/bias",
    %first: f32[2] param "blocks/0/scale",
    %second: f32[2] param "blocks/1/scale",
    %momentum: f32[3, 2] state "optimizer/dense/kernel/momentum",
    %iteration: i64[] state "optimizer/iteration",
    %frozen: f32[2] param "tied"
) -> (
    loss: f32[],
    new_kernel: f32[3, 2] updates %kernel,
    new_momentum: f32[3, 2] updates %momentum,
    new_iteration: i64[] updates %iteration,
    before: i64[]
) {
  %0 = linear %x, %kernel, %bias : f32[B, 2]
  %1 = mul %0, %first : f32[B, 2]
  %2 = mul %1, %second : f32[B, 2]
  %3 = mul %2, %frozen : f32[B, 2]
  %loss = reduce_sum %3 {axes = [0, 1]} : f32[]
  %4 = transpose %x {permutation = [1, 0]} : f32[3, B]
  %5 = matmul %4, %3 : f32[3, 2]
  %new_momentum = add %momentum, %5 : f32[3, 2]
  %6 = mul %rate, %new_momentum : f32[3, 2]
  %new_kernel = sub %kernel, %6 : f32[3, 2]
  %one = constant {value = 1, dtype = i64} : i64[]
  %new_iteration = add %iteration, %one : i64[]
  return %loss, %new_kernel, %new_momentum, %new_iteration, %iteration
}

func @forward(
    %x: f32[B, 3] input,
    %kernel: f32[3, 2] param "dense/kernel",
    %bias: f32[2] param "dense/bias",
    %frozen: f32[2] param "frozen"
) -> f32[B, 2] {
  %0 = linear %x, %kernel, %bias : f32[B, 2]
  %1 = mul %0, %frozen : f32[B, 2]
  return %1
}
"""
NAMES = [
    "dense/kernel",
    "dense/bias",
    "blocks/0/scale",
    "blocks/1/scale",
    "optimizer/dense/kernel/momentum",
    "optimizer/iteration",
    "frozen",
]
X = np.arange(6, dtype=np.float32).reshape(2, 3) / 8
RATE = np.float32(0.125)


def stepped(kernel, momentum, bias, scale, x=X):
    """Loss, kernel and momentum after a step."""
    y = (x @ kernel + bias) * scale
    momentum = momentum + x.T @ y
    return y.sum(), kernel - RATE * momentum, momentum


@pytest.fixture(scope="module", params=TARGETS)
def target(request):
    return request.param


@pytest.fixture
def executable(target):
    return graphc.compile(graphc.parse(STEP), target=target)


def test_names_and_layouts_are_the_source_s(executable):
    source = graphc.parse(STEP).weights
    assert sorted(executable.weights) == sorted(NAMES)
    assert len(executable.weights) == len(NAMES)
    for name in (*NAMES, "tied"):
        assert name in executable.weights
        found = executable.weights[name]
        assert found.dtype == source[name].dtype
        np.testing.assert_array_equal(found, source[name])


def test_reading_gives_what_steps_have_left(executable):
    kernel, momentum = executable.weights["dense/kernel"], np.zeros((3, 2), np.float32)
    first = executable.weights["dense/kernel"]
    kept = first.copy()
    scale = np.float32([2, 4])
    for step in range(3):
        loss, before = executable(X, RATE)
        want, kernel, momentum = stepped(kernel, momentum, np.float32([0, 1]), scale)
        assert before == step
        np.testing.assert_allclose(loss, want, rtol=1e-5)
        np.testing.assert_allclose(executable.weights["dense/kernel"], kernel, rtol=1e-5)
        np.testing.assert_allclose(executable.weights["optimizer/dense/kernel/momentum"], momentum, rtol=1e-5)
        assert executable.weights["optimizer/iteration"] == step + 1
    np.testing.assert_array_equal(first, kept)  # what was read is nobody's buffer


@pytest.mark.parametrize("steps_before", [0, 1, 2])
def test_written_weights_are_seen_by_all_entries(executable, steps_before):
    for _ in range(steps_before):
        executable(X, RATE)
    random = np.random.default_rng(0)
    new = {
        name: random.integers(-4, 4, np.shape(array)).astype(array.dtype) / array.dtype.type(1)
        for name, array in executable.weights.items()
    }
    new["optimizer/iteration"] = np.int64(2**40)
    executable.weights.update(new)
    for name, array in new.items():
        np.testing.assert_array_equal(executable.weights[name], array)
    kernel, bias, frozen = new["dense/kernel"], new["dense/bias"], new["frozen"]
    scale = new["blocks/0/scale"] * new["blocks/1/scale"] * frozen
    np.testing.assert_allclose(executable.forward(X), (X @ kernel + bias) * frozen, rtol=1e-5, atol=1e-6)
    momentum = new["optimizer/dense/kernel/momentum"]
    for step in range(3):
        want, kernel, momentum = stepped(kernel, momentum, bias, scale)
        loss, before = executable(X, RATE)
        assert before == 2**40 + step
        np.testing.assert_allclose(loss, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(executable.weights["dense/kernel"], kernel, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(executable.forward(X), (X @ kernel + bias) * frozen, rtol=1e-4, atol=1e-4)


def test_what_was_written_may_change_afterwards(executable):
    array = np.float32([7, 8])
    executable.weights["dense/bias"] = array
    array[:] = 0
    np.testing.assert_array_equal(executable.weights["dense/bias"], [7, 8])


def test_tied_names_are_one_weight(executable):
    executable.weights["tied"] = np.float32([5, 6])
    np.testing.assert_array_equal(executable.weights["frozen"], [5, 6])
    bias = executable.weights["dense/bias"]
    np.testing.assert_allclose(executable.forward(0 * X), np.tile(bias * [5, 6], (2, 1)))


def test_what_does_not_fit_changes_nothing(executable):
    weights = executable.weights
    with pytest.raises(graphc.ShapeError, match=r"'dense/bias' has shape \[2\], not \[3\]"):
        weights.update({"frozen": np.zeros(2, np.float32), "dense/bias": np.zeros(3, np.float32)})
    with pytest.raises(graphc.DTypeError, match="'dense/bias' is float32; a int64 array does not convert"):
        weights.update({"frozen": np.zeros(2, np.float32), "dense/bias": np.zeros(2, np.int64)})
    np.testing.assert_array_equal(weights["frozen"], [1, 2])
    with pytest.raises(KeyError, match=r"holds no weight 'other'.*it has 'dense/kernel'"):
        weights["other"]
    with pytest.raises(graphc.GraphcError, match="holds no weight 'other'"):
        weights.update(other=np.zeros(2))
    with pytest.raises(graphc.GraphcError, match="cannot be removed"):
        del weights["frozen"]
    assert "other" not in weights


def test_saving_writes_the_weights_as_they_are(executable, tmp_path):
    executable(X, RATE)
    executable.weights["frozen"] = np.float32([3, 4])
    executable.save(tmp_path / "artifact")
    again = graphc.load_artifact(tmp_path / "artifact")
    for name, array in executable.weights.items():
        np.testing.assert_array_equal(again.weights[name], array, err_msg=name)
    for _ in range(2):
        one, other = executable(X, RATE), again(X, RATE)
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]


@pytest.mark.slow  # loads the tracer of torch
def test_torch_compiles_a_step_as_one_graph():
    """The emitted module goes through `torch.compile` as it is, and its weights are still the executable's."""
    import torch

    plain, other = (graphc.compile(graphc.parse(STEP), target="torch") for _ in range(2))
    step = torch.compile(other.loaded.model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for _ in range(2):
            loss, before = step(torch.from_numpy(X), torch.tensor(RATE))
            want, want_before = plain(X, RATE)
            np.testing.assert_array_equal(loss.numpy(), want)
            assert before == want_before
    for name, array in plain.weights.items():
        np.testing.assert_array_equal(other.weights[name], array)


# --- artifacts for inference ------------------------------------------------------------------------------------------


def images():
    graphc.utils.set_random_seed(1)
    x = graphc.Input((6, 6, 3))
    y = graphc.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    y = graphc.layers.BatchNormalization(name="norm")(y)
    y = graphc.layers.DepthwiseConv2D(3, name="depthwise")(y)
    return graphc.Model(x, graphc.layers.Dense(2, name="head")(graphc.layers.Flatten()(y)))


@pytest.mark.parametrize("target", [*TARGETS, "openvino"])
def test_weights_of_a_model_for_inference_can_be_set(target, tmp_path):
    model = images()
    executable = graphc.compile(model, target=target)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(executable(x), model.predict(x), atol=1e-5)
    random = np.random.default_rng(1)
    variables = {v.path: v for v in model.weights}
    assert set(executable.weights) == set(variables)
    for path, variable in variables.items():
        np.testing.assert_array_equal(executable.weights[path], variable.numpy())
        variable.assign(random.uniform(0.5, 1, variable.shape).astype(np.float32))
    executable.weights.update({path: variable.numpy() for path, variable in variables.items()})
    for path, variable in variables.items():
        np.testing.assert_array_equal(executable.weights[path], variable.numpy())
    want = model.predict(x)
    np.testing.assert_allclose(executable(x), want, rtol=1e-4, atol=1e-4)
    executable.save(tmp_path / "artifact")
    np.testing.assert_array_equal(graphc.load_artifact(tmp_path / "artifact")(x), executable(x))


@pytest.mark.parametrize("target", [*TARGETS, "openvino"])
def test_an_artifact_that_did_not_change_is_saved_as_it_is(target, tmp_path):
    executable = graphc.compile(images(), target=target)
    executable.save(tmp_path / "artifact")
    for name in executable.manifest.files:
        assert (tmp_path / "artifact" / name).read_bytes() == (executable.folder / name).read_bytes()


JOINED = """
weight "a" : f32[2, 2] = [[1, 2], [3, 4]]
weight "b" : f32[2, 1] = [[5], [6]]

func @main(%x: f32[B, 2] input, %a: f32[2, 2] param "a", %b: f32[2, 1] param "b") -> f32[B, 3] {
  %0 = concat %a, %b {axis = 1} : f32[2, 3]
  %1 = matmul %x, %0 : f32[B, 3]
  return %1
}
"""


def test_weights_that_are_stored_joined_are_written_apart():
    """By a recipe of several sources, which no pass makes yet."""
    from graphc.codegen.artifact import Manifest
    from graphc.codegen.target import Loaded
    from graphc.ir.recipes import Permute, Recipe
    from graphc.runtime.weights import ExecutableWeights

    class Held(Loaded):
        def __init__(self):
            self.arrays = {"ab": np.arange(6, dtype=np.float32).reshape(3, 2)}
            self.reads = 0

        stored = ("ab",)

        def read(self, name):
            self.reads += 1
            return self.arrays[name].copy()

        def described(self, name):
            return self.arrays[name].shape, self.arrays[name].dtype

        def replace(self, name, array):
            self.arrays[name] = array.copy()

        def write_weights(self, folder):
            raise NotImplementedError

    held = Held()
    recipe = Recipe(("a", "b"), (Permute((1, 0)),), 1, (2,))
    weights = ExecutableWeights(held, Manifest("t", {}, {"ab": recipe}, {}, {}))
    np.testing.assert_array_equal(weights["a"], [[0, 2], [1, 3]])
    np.testing.assert_array_equal(weights["b"], [[4], [5]])
    weights["b"] = np.float32([[8], [9]])
    np.testing.assert_array_equal(held.arrays["ab"], [[0, 1], [2, 3], [8, 9]])
    held.reads = 0
    weights.update({"a": np.zeros((2, 2), np.float32), "b": np.ones((2, 1), np.float32)})
    assert held.reads == 0
    with pytest.raises(graphc.ShapeError, match=r"'b' has shape \[2, 1\], not \[2, 2\]"):
        weights["b"] = np.zeros((2, 2), np.float32)
    assert held.reads == 1
    assert {name: array.sum() for name, array in weights.read().items()} == {"a": 0, "b": 2}
    assert held.reads == 2
