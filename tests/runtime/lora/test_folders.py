"""Adapter folders at their edges, without PEFT: what it says of the same is written here."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import graphc
from graphc import Input, Model, Sequential, layers

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def model_of_two_names() -> Model:
    """Layers "q", "enc/q" and "enc/k", with the same weights each time."""
    graphc.utils.set_random_seed(0)
    inside = Sequential([Input((4,)), layers.Dense(4, name="q"), layers.Dense(4, name="k")], name="enc")
    x = Input((4,))
    return Model(x, inside(layers.Dense(4, name="q")(x)))


def altered(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_pattern_from_the_start_is_for_that_module_only(tmp_path: Path) -> None:
    """PEFT gives q the factor 10 and the others 1 here: `^` stands for the start of the whole name."""
    model = model_of_two_names()
    model.add_adapter(r=2, alpha=2, targets="q,k")
    model.save_adapter(tmp_path)
    found = model_of_two_names().load_adapter(altered(tmp_path, alpha_pattern={"^q": 20}))
    assert {weight: adapter.scaling for weight, (_, adapter) in found.parts.items()} == {
        "q/kernel": 10,
        "enc/q/kernel": 1,
        "enc/k/kernel": 1,
    }


def test_ranks_of_layers_whose_names_end_alike_are_read_again(tmp_path: Path) -> None:
    model = model_of_two_names()
    model.add_adapter(r=2, targets="q,k", rank_pattern={"enc/*": 2, "q": 1}, alpha_pattern={"enc/*": 2, "q": 5})
    parts = {
        weight: (adapter.rank, adapter.scaling) for weight, (_, adapter) in model.adapters["default"].parts.items()
    }
    model.save_adapter(tmp_path)
    found = model_of_two_names().load_adapter(tmp_path)
    assert {weight: (adapter.rank, adapter.scaling) for weight, (_, adapter) in found.parts.items()} == parts
    assert parts["q/kernel"] != parts["enc/q/kernel"]


def test_names_of_adapted_layers_are_enough_to_read_again(tmp_path: Path) -> None:
    names = {"enc/q": "model.q_proj"}
    model = model_of_two_names()
    model.add_adapter(r=2, targets="enc/q", bias="lora_only", b_initializer="normal")
    model.save_adapter(tmp_path, names=names)
    again = model_of_two_names()
    again.load_adapter(tmp_path, names=names)
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    model = model_of_two_names()
    numbers = {"r": np.int64(2), "alpha": np.float32(3), "dropout": np.float32(0.5)}
    model.add_adapter(**numbers, targets="q", rank_pattern={"enc/q": np.int32(1)}, alpha_pattern={"q": np.float16(5)})
    model.save_adapter(tmp_path / "adapter")
    model.save(tmp_path / "model.graphc")
    again = graphc.saving.load_model(tmp_path / "model.graphc")
    for found in (again.adapters["default"], model_of_two_names().load_adapter(tmp_path / "adapter")):
        ranks = {weight: (adapter.rank, adapter.scaling) for weight, (_, adapter) in found.parts.items()}
        assert ranks == {"q/kernel": (2, 2.5), "enc/q/kernel": (1, 5)}


def test_flags_are_no_words(tmp_path: Path) -> None:
    model = model_of_two_names()
    model.add_adapter(r=2, targets="q")
    model.save_adapter(tmp_path)
    with pytest.raises(graphc.FormatError, match="use_rslora is true or false, not 'false'"):
        model_of_two_names().load_adapter(altered(tmp_path, use_rslora="false"))


def grouped() -> Model:
    graphc.utils.set_random_seed(0)
    image = Input((6, 6, 4))
    return Model(image, layers.Conv2D(8, 3, groups=2, name="conv")(image))


def test_convolutions_of_groups_are_said_to_be_none_of_pefts(tmp_path: Path) -> None:
    """PEFT's A is [r, inputs, …] there, and its B has the groups."""
    images = np.random.default_rng(0).standard_normal((2, 6, 6, 4)).astype(np.float32)
    model = grouped()
    model.add_adapter(r=2, targets="conv", b_initializer="normal")
    with pytest.warns(UserWarning, match=r"'conv/kernel' is the kernel of a convolution of 2 groups"):
        model.save_adapter(tmp_path)
    again = grouped()
    again.load_adapter(tmp_path)
    np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))
    path = tmp_path / "adapter_model.safetensors"
    key = "base_model.model.conv.lora_{}.weight"
    save_file({key.format("A"): np.ones((2, 4, 3, 3), "f4"), key.format("B"): np.ones((8, 1, 1, 1), "f4")}, path)
    with pytest.raises(graphc.UnsupportedError, match=r"2 groups: PEFT's A .* \[\[2, 2, 3, 3\], \[8, 2, 1, 1\]\]"):
        grouped().load_adapter(tmp_path)
    assert list(load_file(path)) == [key.format("A"), key.format("B")]
