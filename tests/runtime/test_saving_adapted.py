"""Models with adapters and quantized weights in files, and cloned: what comes back computes the same to the bit."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import FormatError, GraphcError, Input, Model, layers
from graphc.frontends.storage import Storage
from graphc.frontends.tensor_files import tensors_of
from graphc.runtime.models import clone_model, load_model

TOKENS = np.random.default_rng(0).integers(0, 50, (16, 9)).astype("int32")
X, Y = TOKENS[:, :-1], TOKENS[:, 1:]


def network() -> Model:
    graphc.utils.set_random_seed(0)
    tokens = Input((8,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 16, name="table")(tokens)
    y = layers.Dense(32, activation="gelu", name="up")(x)
    x = x + layers.Dense(16, name="down")(y)
    return Model(tokens, layers.Dense(50, name="head")(x))


def trained(model: Model) -> Model:
    loss = graphc.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, target="numpy")
    model.fit(X, Y, verbose=0)
    return model


def adapted() -> Model:
    model = network()
    model.add_adapter("french", r=4, alpha=8, targets="up,down", dropout=0.05, modules_to_save="head", bias="lora_only")
    trained(model)
    model.add_adapter("german", r=2, targets="up,head", dora=True, rslora=True, rank_pattern={"up": 3})
    return trained(model)


def output(model: Model) -> Any:
    return model.predict(X, verbose=0)


@pytest.mark.parametrize("active", ["german", "french", None])
def test_adapters_come_back(tmp_path: Path, active: str | None) -> None:
    model = adapted()
    model.set_adapter(active)
    model.save(tmp_path / "m.graphc")
    loaded = load_model(tmp_path / "m.graphc")
    assert loaded.active_adapter == active
    assert {name: each.settings for name, each in loaded.adapters.items()} == {
        name: each.settings for name, each in model.adapters.items()
    }
    for name in ("french", "german", None):
        model.set_adapter(name)
        loaded.set_adapter(name)
        np.testing.assert_array_equal(output(loaded), output(model))
        assert [v.path for v in loaded.trainable_weights] == [v.path for v in model.trainable_weights]
    assert str(graphc.lower(loaded, training=True)) == str(graphc.lower(model, training=True))  # with dropout, DoRA


def test_training_of_an_adapter_goes_on_where_it_was(tmp_path: Path) -> None:
    model = adapted()
    model.save(tmp_path / "m.graphc")
    loaded = load_model(tmp_path / "m.graphc")
    for each in (model, loaded):
        each.fit(X, Y, verbose=0, shuffle=False)
    for got, want in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("stored", [False, True])
def test_a_merge_is_undone_after_loading(tmp_path: Path, stored: bool) -> None:
    model = adapted()
    if stored:
        model.set_adapter(None)
        model.quantize("uint4{block=16}", filters="up")
    model.set_adapter(None)
    before = output(model)
    model.merge_adapter("french", lossy=stored)
    model.save(tmp_path / "m.graphc")
    loaded = load_model(tmp_path / "m.graphc")
    np.testing.assert_array_equal(output(loaded), output(model))
    assert loaded.unmerge_adapter() == "french"
    loaded.set_adapter(None)
    np.testing.assert_array_equal(output(loaded), before)


def test_weights_without_adapters_are_loaded_before_there_are_any(tmp_path: Path) -> None:
    def dense() -> graphc.Model:
        return graphc.Sequential([graphc.Input((3,)), graphc.layers.Dense(4)])

    (model := dense()).save_weights(tmp_path / "w.safetensors")
    model.add_adapter(r=2)
    with pytest.raises(graphc.GraphcError, match="kernel_b is missing; weights without an adapter's are loaded before"):
        model.load_weights(tmp_path / "w.safetensors")


def test_what_was_changed_after_a_merge_is_not_unmerged_after_loading(tmp_path: Path) -> None:
    model = adapted()
    model.merge_adapter("german")
    model.quantize("int4{block=16}", filters="up")
    model.save(tmp_path / "m.graphc")
    for each in (model, load_model(tmp_path / "m.graphc")):
        with pytest.raises(GraphcError, match="'up/kernel' is not what the merge of 'german' left"):
            each.unmerge_adapter()


def test_adapters_of_a_model_in_a_model(tmp_path: Path) -> None:
    inner = adapted()
    tokens = Input((8,), dtype="int32", name="outer")
    model = Model(tokens, inner(tokens) * 2)
    model.save(tmp_path / "m.graphc")
    loaded = load_model(tmp_path / "m.graphc")
    np.testing.assert_array_equal(output(loaded), output(model))
    assert loaded.layers[1].active_adapter == "german"


def test_a_clone_has_the_same_adapters() -> None:
    model = adapted()
    clone = clone_model(model)
    assert clone.active_adapter == "german"
    assert np.abs(output(clone) - output(model)).max() > 0
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(output(clone), output(model))
    assert model.adapters["french"].parts["up/kernel"][1].a is not clone.adapters["french"].parts["up/kernel"][1].a


def test_weights_of_adapters_alone(tmp_path: Path) -> None:
    model = adapted()
    model.save_weights(tmp_path / "w.safetensors")
    clone = clone_model(model)
    clone.load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(output(clone), output(model))


FORMATS = ["int8", "int4", "nf4{double=256}", "uint4{block=16}", "q4_0"]


@pytest.mark.parametrize("mode", FORMATS)
def test_quantized_models_come_back_as_integers(tmp_path: Path, mode: str) -> None:
    model = trained(network())
    model.quantize(mode, filters="down" if mode == "q4_0" else None)
    trained(model)
    model.save(tmp_path / "m.graphc")
    loaded = load_model(tmp_path / "m.graphc")
    assert str(graphc.lower(loaded)) == str(graphc.lower(model))
    np.testing.assert_array_equal(output(loaded), output(model))
    assert str(graphc.load(tmp_path / "m.graphc")) == str(graphc.lower(model))
    with zipfile.ZipFile(tmp_path / "m.graphc") as archive:
        arrays = tensors_of(archive.read("weights.safetensors"), "")
    assert "down/kernel" not in arrays
    assert arrays["down/kernel_values"].dtype in (np.int8, np.uint8)
    for each in (model, loaded):  # what is not quantized trains on
        each.fit(X, Y, verbose=0, shuffle=False)
    np.testing.assert_array_equal(output(loaded), output(model))


@pytest.mark.parametrize("mode", FORMATS)
def test_quantized_weights_alone(tmp_path: Path, mode: str) -> None:
    model = network()
    model.quantize(mode, filters="down" if mode == "q4_0" else None)
    model.save_weights(tmp_path / "w.safetensors")
    clone = clone_model(model)
    clone.load_weights(tmp_path / "w.safetensors")
    for name, array in graphc.lower(model).weights.items():
        np.testing.assert_array_equal(graphc.lower(clone).weights[name], array)
    floats = network()
    floats.load_weights(tmp_path / "w.safetensors")
    for got, want in zip(floats.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    other = network()
    other.layers[2].kernel.assign(np.ones((16, 32)))
    other.save_weights(tmp_path / "f.safetensors")
    clone.load_weights(tmp_path / "f.safetensors")
    assert np.abs(clone.layers[2].kernel.numpy() - 1).max() < 0.2


def test_integers_that_are_not_nearest_are_kept(tmp_path: Path) -> None:
    """As GPTQ chooses them: rounding what they stand for would give others."""
    model = network()
    model.quantize("uint4{block=16}")
    kernel = model.layers[2].kernel
    storage = kernel.storage
    assert storage is not None
    values, scales, zeros = storage.arrays
    kernel.store(Storage.of(storage.format, kernel.numpy(), arrays=(values & 0x33, scales, zeros)))
    model.save(tmp_path / "m.graphc")
    loaded = load_model(tmp_path / "m.graphc")
    np.testing.assert_array_equal(graphc.lower(loaded).weights["up/kernel_values"], values & 0x33)


def test_training_with_rounding_goes_on(tmp_path: Path) -> None:
    model = network()
    model.quantize_aware("int4{block=16}", activations=X)
    trained(model).save(tmp_path / "m.graphc")
    loaded = load_model(tmp_path / "m.graphc")
    np.testing.assert_array_equal(output(loaded), output(model))
    for each in (model, loaded):
        each.quantize("trained")
    np.testing.assert_array_equal(output(loaded), output(model))
    model.save(tmp_path / "m.graphc")
    np.testing.assert_array_equal(output(load_model(tmp_path / "m.graphc")), output(model))


def test_layers_that_models_share_are_quantized_in_both() -> None:
    model = network()
    features = Model(model.input, model.layers[2].output)
    model.quantize("int4{block=16}")
    assert "up/kernel_values" in graphc.lower(features).weights
    tokens = Input((8,), dtype="int32", name="outer")
    assert sum(name.endswith("kernel_values") for name in graphc.lower(Model(tokens, model(tokens))).weights) == 3


def test_what_does_not_fit_a_format_leaves_the_model_as_it_was() -> None:
    model = network()
    model.layers[-1].kernel.assign(np.full((16, 50), np.nan))
    with pytest.raises(GraphcError, match=r"NaN(?s:.*)in head/kernel"):
        model.quantize("nf4")
    assert all(v.storage is None and v.trainable for v in model.weights)


def test_assigning_rounds() -> None:
    model = network()
    model.quantize("int4{block=16}")
    kernel = model.layers[2].kernel
    kernel.assign(np.random.default_rng(1).normal(size=kernel.shape))
    found = graphc.compile(model, target="numpy")
    np.testing.assert_array_equal(found.weights["up/kernel"], kernel.numpy())


def test_what_is_quantized_stays_frozen() -> None:
    model = network()
    model.quantize("nf4")
    model.add_adapter("a", r=2, targets="up")
    model.delete_adapter("a")
    assert [v.path for v in model.trainable_weights] == ["up/bias", "down/bias", "head/bias"]
    with pytest.raises(GraphcError, match="modules_to_save has 'head/kernel', which is quantized"):
        model.add_adapter("a", r=2, targets="up", modules_to_save="head")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["stored"]["up/kernel"].update(format="int5"), "no format 'int5'"),
        (
            lambda c: c["stored"]["up/kernel"].update(format="int4{block=16,asymmetric}"),
            "as int4.* has a weight of shape",
        ),
        (lambda c: c["stored"]["up/kernel"].update(arrays=["up/kernel"]), "'up/kernel' is missing"),
        (lambda c: c["stored"].update({"away": c["stored"]["up/kernel"]}), "does not fit the model: 'away'"),
        (lambda c: c.update(stored=7), "does not fit the model"),
        (
            lambda c: c["adapters"][""]["adapters"]["a"]["parts"]["up/kernel"].update(rank=99),
            "the rank 99 is more than",
        ),
        (lambda c: c["adapters"][""]["adapters"]["a"]["parts"]["up/kernel"].update(shape=[3, 3]), "is for shape"),
        (lambda c: c["adapters"][""]["adapters"]["a"]["parts"]["up/kernel"].update(scaling=np.nan), "not finite"),
        (lambda c: c["adapters"][""]["adapters"]["a"]["parts"]["up/kernel"].update(kind="other"), "used in 'other'"),
        (
            lambda c: c["adapters"][""]["adapters"]["a"]["parts"]["up/kernel"].update(transposed=True),
            r"is for shape \(32, 16\)",
        ),
        (lambda c: c["stored"]["up/kernel"].update(format="nf4{block=1099511627776}"), "from 16 to 65536"),
        (lambda c: c["adapters"][""].update(active="b"), "does not fit the model: 'b'"),
        (lambda c: c.update(adapters=[]), "does not fit the model"),
    ],
)
def test_broken_files_are_told(tmp_path: Path, change: Any, message: str) -> None:
    model = network()
    model.quantize("int4{block=16}")
    model.add_adapter("a", r=2, targets="up")
    model.save(tmp_path / "m.graphc")
    with zipfile.ZipFile(tmp_path / "m.graphc") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    _write(tmp_path / "m.graphc", members)
    with pytest.raises(FormatError, match=message):
        load_model(tmp_path / "m.graphc")


def _write(path: Path, members: dict[str, bytes]) -> None:
    import hashlib

    metadata = json.loads(members.pop("metadata.json"))
    metadata["files"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"metadata.json": json.dumps(metadata).encode(), **members}.items():
            archive.writestr(name, data)
