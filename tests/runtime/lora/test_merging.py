"""Merging: the bound of rounding holds, unmerging gives the bits back, the certificate says what was done."""

import hashlib
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc import GraphcError, Input, Sequential, layers
from graphc.runtime.lora import merging
from graphc.runtime.lora.bounds import ROUNDOFF, merge

KINDS = {name: getattr(ml_dtypes, name, None) or np.dtype(name).type for name in ROUNDOFF}
EXPONENTS = {
    "float64": (0, -20, -150, -300, -315, 140, 150),
    "float32": (0, -3, 4, -37, -40, -44, 30, 36),
    "bfloat16": (0, -3, 4, -37, -39, 30, 36),
    "float16": (0, -2, 2, -5, -7, 4),
}
"""Magnitudes of weights, as powers of ten: usual, subnormal and huge ones."""


def drawn(number: int) -> dict:
    """A merge: sizes, dtype, magnitudes and scaling from a seed."""
    rng = np.random.default_rng(number)
    name = list(ROUNDOFF)[number % len(ROUNDOFF)]
    inputs, outputs = (int(n) for n in rng.integers(1, 48, 2))
    rank = int(rng.integers(1, min(inputs, outputs) + 1))
    size = 10.0 ** rng.choice(EXPONENTS[name])
    factor = np.float64 if name == "float64" else np.float32
    given = {
        "kernel": (rng.standard_normal((inputs, outputs)) * size).astype(KINDS[name]),
        "a": (rng.standard_normal((inputs, rank)) * size**0.5).astype(factor),
        "b": (rng.standard_normal((rank, outputs)) * size**0.5).astype(factor),
        "scaling": float(rng.choice([1, 2, 0.5, 16 / 3, 1e-3, 100 / 7**0.5])),
        "dtype": name,
    }
    if number % 3 == 0:
        given["magnitude"] = (rng.standard_normal(outputs) * size * inputs**0.5).astype(factor)
    return given


def test_bounds_hold_over_200_random_merges(announce) -> None:
    ratios, refused, dora = [], 0, 0
    for number in range(200):
        given = drawn(number)
        try:
            found = merge(**given)
        except GraphcError:
            refused += 1
            assert given["dtype"] == "float16" or np.abs(given["kernel"].astype(float)).max() > 1e30
            continue
        assert found.measured <= found.bound, (number, found)
        assert found.array.dtype == np.dtype(KINDS[given["dtype"]]) and found.outputs
        dora += "magnitude" in given
        if found.measured and np.abs(given["kernel"].astype(float)).max() > 1e-4:
            ratios.append(found.bound / found.measured)
    assert refused < 20 and dora > 50 and np.median(ratios) < 8  # a bound that is far off would say little
    announce(f"merges: {200 - refused} within their bounds, which are {np.median(ratios):.1f} × the error (median)")


@pytest.mark.parametrize("worse", ["product", "cast"])
def test_the_bound_is_passed_by_a_merge_that_rounds_more(worse: str) -> None:
    """The bound is not so wide that it lets a product in float32, or a cast by way of 16 bits, through."""
    rng = np.random.default_rng(0)
    kernel, a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 30), (40, 16), (16, 30)))
    found = merge(kernel, a, b, 2.0, "float32")
    exact = kernel.astype(np.longdouble) + 2 * (a.astype(np.longdouble) @ b.astype(np.longdouble))
    rounded = kernel + np.float32(2) * (a @ b)
    if worse == "cast":
        rounded = found.array.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.abs(found.array - exact).max() <= found.bound < np.abs(rounded - exact).max()


def test_merges_that_overflow_or_have_no_norm_are_refused() -> None:
    one = np.ones((2, 2), np.float32)
    with pytest.raises(GraphcError, match=r"up to 2e\+05, which float16 does not hold"):
        merge(one.astype(np.float16), one[:, :1], one[:1] * 2e5, 1.0, "float16")
    with pytest.raises(GraphcError, match="only zeros for output 0"):
        merge(one * 0, one[:, :1] * 0, one[:1], 1.0, "float32", np.ones(2, np.float32))
    with pytest.raises(graphc.DTypeError, match="merged into float64"):
        merge(one, one[:, :1], one[:1], 1.0, "int8")


def model_with_adapter(dora: bool = False, policy: str | None = None):
    graphc.utils.set_random_seed(3)
    model = Sequential(
        [Input((8, 8, 2)), layers.Conv2D(4, 3, dtype=policy), layers.Flatten(), layers.Dense(5, dtype=policy)]
    )
    model.add_adapter(r=2, alpha=3, targets="conv2d,dense", dora=dora, modules_to_save=())
    rng = np.random.default_rng(0)
    for variable in model.trainable_weights:
        variable.assign(variable.numpy() + rng.standard_normal(variable.shape) * 0.1)
    return model


@pytest.mark.parametrize("policy", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("dora", [False, True])
def test_merged_models_compute_the_same_and_unmerge_to_the_bit(dora: bool, policy: str | None, tmp_path) -> None:
    model = model_with_adapter(dora, policy)
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 2)).astype(np.float32)
    before = {v.path: v.numpy().copy() for v in model.weights}
    adapted = np.asarray(model.predict(x, verbose=0), np.float64)
    certificate = model.merge_adapter(inputs=x, certificate=tmp_path / "merge.json")
    merged = np.asarray(model.predict(x, verbose=0), np.float64)
    said = json.loads((tmp_path / "merge.json").read_text())
    assert said == certificate.to_json() and said["format"] == "graphc-merge-certificate 1"
    assert said["outputs"]["largest_difference"] == np.abs(merged - adapted).max()
    assert said["outputs"]["inputs"]["input"]["sha256"] == hashlib.sha256(x.tobytes()).hexdigest()
    assert np.abs(merged - adapted).max() <= (2e-6 if policy is None else 0.1)
    for name, tensor in said["tensors"].items():
        assert tensor["measured"] <= tensor["bound"] and tensor["dtype"] == (policy or "float32")
        assert tensor["identity"] == ("(W + s·A·B) · m / ‖W + s·A·B‖" if dora else "W + s·A·B"), name
        assert tensor["s"] == 1.5 and tensor["rank"] == 2
    assert any((v.numpy() != before[v.path]).any() for v in model.weights)
    with pytest.raises(GraphcError, match="'default' is merged into model"):
        model.merge_adapter()
    for forbidden in (lambda: model.add_adapter("other"), lambda: model.set_adapter(None)):
        with pytest.raises(GraphcError, match="is merged into model"):
            forbidden()
    assert model.unmerge_adapter() == "default"
    for variable in model.weights:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path])
    with pytest.raises(GraphcError, match="no adapter is merged"):
        model.unmerge_adapter()


def test_a_merge_without_its_certificate_is_none(tmp_path, monkeypatch) -> None:
    model = Sequential([Input((4,)), layers.Dense(4, name="up"), layers.Dense(3, name="down")])
    model.add_adapter("french", r=2, targets="up", b_initializer="ones")
    model.add_adapter("german", r=2, targets="down")
    before = model.get_weights()
    with pytest.raises(GraphcError, match="there is no folder"):
        model.merge_adapter("french", certificate=tmp_path / "nowhere" / "merge.json")

    def full(*_):
        raise GraphcError("the disk is full")

    monkeypatch.setattr(merging.Certificate, "save", full)
    with pytest.raises(GraphcError, match="the disk is full"):
        model.merge_adapter("french", certificate=tmp_path / "merge.json")
    assert model.active_adapter == "german"
    for found, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
    monkeypatch.undo()
    model.merge_adapter("french", certificate=tmp_path / "merge.json")
    with pytest.raises(GraphcError, match=r"is merged into model .*: call unmerge_adapter\(\) first"):
        model.save_adapter(tmp_path / "adapter")


def test_folders_and_names_that_cannot_be(tmp_path) -> None:
    model = model_with_adapter()
    (tmp_path / "file").write_text("here")
    for write in (model.save_adapter, model.save_merged):
        with pytest.raises(GraphcError, match="file' cannot be made: File exists"):
            write(tmp_path / "file")
        with pytest.raises(GraphcError, match=r"names are a dict .*, not 3"):
            write(tmp_path / "folder", names=3)


def test_what_was_trained_after_a_merge_is_not_unmerged() -> None:
    model = model_with_adapter()
    model.merge_adapter()
    kernel = model.layers[0].kernel
    kernel.assign(kernel.numpy() + 1)
    with pytest.raises(GraphcError, match=r"'conv2d/kernel' is not what the merge of 'default' left.*delete_adapter"):
        model.unmerge_adapter()


def test_a_merge_is_for_good_once_its_adapter_is_deleted() -> None:
    """So that a model may be merged, quantized, and given adapters anew."""
    model = model_with_adapter()
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 2)).astype(np.float32)
    model.add_adapter("other", r=1, targets="dense")
    model.merge_adapter("default")
    merged = model.predict(x, verbose=0)
    with pytest.raises(GraphcError, match="other are for the weights without it: delete these first"):
        model.delete_adapter("default")
    model.delete_adapter("other")
    model.delete_adapter("default")
    np.testing.assert_array_equal(model.predict(x, verbose=0), merged)
    assert model.adapters == {} and len(model.trainable_weights) == len(model.weights)
    model.quantize("int8")
    model.add_adapter(r=2, targets="dense")
    assert np.abs(model.predict(x, verbose=0) - merged).max() < 0.05 * np.abs(merged).max()


def test_weights_with_an_adapter_in_them_are_not_written_with_it_again(tmp_path) -> None:
    model = model_with_adapter()
    model.merge_adapter()
    with pytest.raises(GraphcError, match=r"'default' is merged into model .*: call unmerge_adapter\(\) first"):
        model.save_merged(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("given", ["missing", "[1,", "[1]", {"a": b""}, 3])
def test_a_configuration_that_is_none_leaves_no_half_of_a_folder(given: Any, tmp_path) -> None:
    model = Sequential([Input((4,)), layers.Dense(4, name="dense")])
    model.add_adapter(r=2, targets="dense")
    config = given
    if isinstance(given, str):
        config = tmp_path / "config.json"
        if given != "missing":
            config.write_text(given)
    with pytest.raises(graphc.FormatError, match=r"config"):
        model.save_merged(tmp_path / "merged", config=config)
    assert not (tmp_path / "merged").exists()


def test_merged_folders_in_another_dtype_round_once(tmp_path) -> None:
    model = model_with_adapter()
    certificate = model.save_merged(tmp_path, dtype="bfloat16")
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "model.safetensors")
    assert {str(t.dtype) for t in tensors.values()} == {"torch.bfloat16"}
    assert tensors["conv2d.weight"].shape == (4, 2, 3, 3) and tensors["dense.weight"].shape == (5, 144)
    exact = model.layers[2].kernel.adapter.merged(model.layers[2].kernel.numpy().astype(np.float64))
    error = np.abs(tensors["dense.weight"].double().numpy().T - exact).max()
    assert error <= certificate.tensors["dense.weight"]["bound"] < 0.01
    for kind in (np.float16, np.dtype("float16"), "f16"):
        assert model.save_merged(tmp_path, dtype=kind).tensors["dense.weight"]["dtype"] == "float16"
    with pytest.raises(GraphcError, match="merged into float64, float32, bfloat16, float16, not into int8"):
        model.save_merged(tmp_path, dtype="int8")


def test_a_merge_into_a_quantized_base_is_made_on_demand_only(tmp_path) -> None:
    graphc.utils.set_random_seed(0)
    model = Sequential([Input((64,)), layers.Dense(32), layers.Dense(5)])
    model.quantize("int4{block=32}", filters="^dense$")
    model.add_adapter(r=2, targets="dense,dense_1")
    rng = np.random.default_rng(0)
    for variable in model.trainable_weights:
        variable.assign(rng.standard_normal(variable.shape) * 0.1)
    x = rng.standard_normal((4, 64)).astype(np.float32)
    base = [(v, v.numpy().copy()) for v in model.weights]
    adapted = model.predict(x, verbose=0)
    with pytest.raises(GraphcError, match=r"'dense/kernel' is stored as int4.*lossy=True does that"):
        model.merge_adapter()
    np.testing.assert_array_equal(model.predict(x, verbose=0), adapted)
    certificate = model.merge_adapter(inputs=x, lossy=True)
    rounded, plain = certificate.tensors["dense/kernel"], certificate.tensors["dense_1/kernel"]
    assert rounded["quantized_to"] == "int4" and "quantized_to" not in plain
    assert 1e-3 < rounded["measured"] <= rounded["bound"] < 0.2 and plain["bound"] < 1e-6
    kernel = model.layers[0].kernel.numpy()
    scores = x @ kernel + model.layers[0].bias.numpy()
    np.testing.assert_allclose(model.layers[0](x), scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.predict(x, verbose=0), model(x), rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    for variable, before in base:
        np.testing.assert_array_equal(variable.numpy(), before)
    np.testing.assert_array_equal(model.predict(x, verbose=0), adapted)
    floats = model.save_merged(tmp_path)
    assert floats.tensors["dense.weight"]["bound"] < 1e-6


def test_weights_of_heads_are_matrices_and_vectors_in_a_merged_folder(tmp_path) -> None:
    inputs = Input((5, 12))
    attended = layers.MultiHeadAttention(3, 4, name="attention")(inputs, inputs)
    model = graphc.Model(inputs, layers.Dense(2, name="out")(attended))
    model.add_adapter(r=2, targets="attention/*", bias="lora_only")
    model.save_merged(tmp_path / "merged")
    model.save_adapter(tmp_path / "adapter")
    from safetensors.numpy import load_file

    found = load_file(tmp_path / "merged" / "model.safetensors")
    assert found["attention.query.weight"].shape == (12, 12) and found["attention.query.bias"].shape == (12,)
    bias = model.trainable_weights[0]
    assert bias.shape == (3, 4)
    bias.assign(np.arange(12.0).reshape(3, 4))
    model.save_adapter(tmp_path / "adapter")
    model.delete_adapter("default")
    model.load_adapter(tmp_path / "adapter")
    assert any(v is bias and (v.numpy().ravel() == np.arange(12)).all() for v in model.trainable_weights)
