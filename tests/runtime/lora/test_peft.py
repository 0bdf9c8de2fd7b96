"""Adapter folders of PEFT, read and written: the outputs of both sides are equal. PEFT runs in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from artifacts import needs
from peft_models import MODELS, with_weights
from safetensors.numpy import load_file, save

import graphc
from graphc import GraphcError

WORKER = Path(__file__).with_name("peft_worker.py")
ATTENTION = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
ADAPTERS = {
    "plain": ("llama", ATTENTION),
    "everything": ("llama", {"r": 2, "lora_alpha": 3, "target_modules": "all-linear"}),
    "rslora": ("llama", {**ATTENTION, "use_rslora": True}),
    "dora": ("llama", {**ATTENTION, "use_dora": True}),
    "dora_embedding": ("llama", {"r": 2, "target_modules": ["embed_tokens", "lm_head"], "use_dora": True}),
    "patterns": (
        "llama",
        {
            **ATTENTION,
            "rank_pattern": {"v_proj": 2, r"model.layers.1.self_attn.q_proj": 3},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 5},
            "lora_dropout": 0.1,
        },
    ),
    "saved": ("llama", {**ATTENTION, "modules_to_save": ["lm_head", "norm"]}),
    "embedding": ("llama", {"r": 3, "lora_alpha": 6, "target_modules": ["embed_tokens", "k_proj"]}),
    "conv": ("cnn", {"r": 2, "lora_alpha": 4, "target_modules": ["conv", "dense"], "modules_to_save": ["head"]}),
    "conv_dora": ("cnn", {"r": 2, "target_modules": ["conv", "dense"], "use_dora": True}),
    "bias_all": ("cnn", {"r": 2, "target_modules": ["conv"], "bias": "all"}),
    "bias_some": ("cnn", {"r": 2, "target_modules": ["conv", "dense"], "bias": "lora_only"}),
}


TRAINED = ["everything", "rslora", "dora", "dora_embedding", "embedding", "saved", "conv", "conv_dora"]
"""Those that are trained further."""


def worker(what: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, str(WORKER), what, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what PEFT made."""
    folder = tmp_path_factory.mktemp("peft")
    (folder / "adapters.json").write_text(json.dumps(ADAPTERS))
    (folder / "trained.json").write_text(json.dumps(TRAINED))
    rng = np.random.default_rng(5)
    np.save(folder / "llama_batches.npy", rng.integers(0, 32, (20, 2, 9)) // 4)
    np.save(folder / "cnn_batches.npy", rng.standard_normal((20, 4, 2, 5, 5)).astype(np.float32))
    worker("make", folder)
    return folder


def base(name: str, folder: Path):
    return with_weights(name, load_file(folder / f"{name}.st"))


def predicted(name: str, model, folder: Path):
    return model.predict(np.load(folder / f"{name}_input.npy"), verbose=0)


def test_folders_of_peft_give_the_same_outputs(made: Path) -> None:
    for adapter, (name, _) in ADAPTERS.items():
        model = base(name, made)
        plain = predicted(name, model, made)
        np.testing.assert_allclose(plain, np.load(made / f"{name}_output.npy"), rtol=1e-4, atol=2e-5)
        model.load_adapter(made / "from_peft" / adapter, names=MODELS[name][1])
        wanted = np.load(made / "from_peft" / f"{adapter}.npy")
        assert np.abs(wanted - plain).max() > 1e-2, adapter  # the adapter does something
        np.testing.assert_allclose(predicted(name, model, made), wanted, rtol=1e-4, atol=2e-5, err_msg=adapter)


def test_folders_of_graphc_give_the_same_outputs_in_peft(made: Path) -> None:
    wanted = {}
    given = {
        "plain": ("llama", {"r": 4, "alpha": 8, "targets": "q_proj,v_proj"}),
        "patterns": (
            "llama",
            {"r": 4, "targets": "*_proj", "exclude": "down_proj", "rslora": True}
            | {"rank_pattern": {"layers_1/*/q_proj": 2, "k_proj": 3}, "alpha_pattern": {"*/up_proj": 7.5}},
        ),
        "dora": ("llama", {"r": 2, "alpha": 3, "targets": "embed_tokens,o_proj,lm_head", "dora": True}),
        "saved": ("llama", {"r": 2, "targets": "q_proj", "modules_to_save": ("lm_head", "layers_0/input_layernorm")}),
        "conv": ("cnn", {"r": 2, "alpha": 3, "targets": "conv,dense", "dora": True, "modules_to_save": "head"}),
        "bias_all": ("cnn", {"r": 2, "targets": "conv", "bias": "all"}),
        "bias_some": ("cnn", {"r": 2, "targets": "conv,dense", "bias": "lora_only"}),
    }
    rng = np.random.default_rng(2)
    for adapter, (name, arguments) in given.items():
        model = base(name, made)
        plain = predicted(name, model, made)
        model.add_adapter(**arguments)
        for variable in model.trainable_weights:
            variable.assign(variable.numpy() + rng.standard_normal(variable.shape).astype(np.float32) * 0.2)
        folder = made / "from_graphc" / name / adapter
        model.save_adapter(folder, names=MODELS[name][1])
        wanted[folder] = predicted(name, model, made)
        assert np.abs(wanted[folder] - plain).max() > 1e-2, adapter
        again = base(name, made)
        again.load_adapter(folder, names=MODELS[name][1])
        np.testing.assert_array_equal(predicted(name, again, made), wanted[folder])
    worker("read", made)
    for folder, outputs in wanted.items():
        np.testing.assert_allclose(np.load(folder / "output.npy"), outputs, rtol=1e-4, atol=2e-5, err_msg=folder.name)


@pytest.mark.parametrize("target", ["numpy", "torch"])
def test_training_has_the_losses_of_peft(target: str, made: Path) -> None:
    """Of 20 steps, from the same factors; in float32."""
    needs(target)
    for adapter in TRAINED if target == "torch" else TRAINED[1::2]:
        name = ADAPTERS[adapter][0]
        batches = np.load(made / f"{name}_batches.npy")
        model = base(name, made)
        model.load_adapter(made / "from_peft" / adapter, names=MODELS[name][1])
        if name == "llama":
            loss: object = graphc.losses.SparseCategoricalCrossentropy(from_logits=True)
            pairs = [(batch[:, :-1].astype(np.int32), batch[:, 1:].astype(np.int32)) for batch in batches]
        else:
            loss, pairs = "mse", [(batch, np.zeros((4, 3), np.float32)) for batch in batches]
        model.compile(graphc.optimizers.SGD(0.01, momentum=0.9), loss, target=target)
        found = [float(model.train_on_batch(x, y)) for x, y in pairs]
        wanted = np.load(made / f"{adapter}_losses.npy")
        assert wanted[-1] < wanted[0]
        np.testing.assert_allclose(found, wanted, rtol=2e-5, err_msg=adapter)


def test_merged_weights_are_a_hugging_face_folder(made: Path, tmp_path: Path) -> None:
    model = base("llama", made)
    model.load_adapter(made / "from_peft" / "dora", names=MODELS["llama"][1])
    config = {"model_type": "llama", "hidden_size": 16}
    certificate = model.save_merged(tmp_path, names=MODELS["llama"][1], config=config)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == load_file(made / "llama.st").keys()
    assert json.loads((tmp_path / "config.json").read_text()) == config
    assert json.loads((tmp_path / "merge_certificate.json").read_text()) == certificate.to_json()
    merged = with_weights("llama", tensors)
    wanted = np.load(made / "from_peft" / "dora.npy")
    np.testing.assert_allclose(predicted("llama", merged, made), wanted, rtol=1e-4, atol=2e-5)
    assert model.active_adapter == "default"


def test_folders_that_do_not_fit_are_refused(made: Path, tmp_path: Path) -> None:
    folder = made / "from_peft" / "plain"
    names = MODELS["llama"][1]
    model = base("llama", made)

    def altered(**changes):
        copy = tmp_path / "altered"
        copy.mkdir(exist_ok=True)
        config = json.loads((folder / "adapter_config.json").read_text()) | changes
        (copy / "adapter_config.json").write_text(json.dumps(config))
        (copy / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
        return copy

    for changes, words in [
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"init_lora_weights": "pissa"}, "changes the base weights"),
        ({"lora_bias": True}, "lora_bias = True is not supported"),
        ({"r": 5}, "is 5, its tensors have 4"),
        ({"r": "4"}, "r is a positive integer, not '4'"),
        ({"lora_alpha": "big"}, "lora_alpha is a number, not 'big'"),
        ({"lora_dropout": None}, "lora_dropout is a number, not None"),
        ({"rank_pattern": [1]}, "rank_pattern has a number for each pattern"),
        ({"alpha_pattern": {"(": 3}}, "of alpha_pattern is no regular expression"),
        ({"use_dora": True}, "lacks a tensor of"),
    ]:
        with pytest.raises(graphc.FormatError, match=words):
            model.load_adapter(altered(**changes), names=names)
    with pytest.raises(GraphcError, match=r"'model\.layers\.0\.self_attn\.q_proj', which the model does not have"):
        model.load_adapter(folder)
    for factor, words in ((np.nan, "not finite"), (None, "int32 numbers that are no floats")):
        copy = altered()
        tensors = load_file(copy / "adapter_model.safetensors")
        given = {key: value.astype(np.int32) if factor is None else value * factor for key, value in tensors.items()}
        (copy / "adapter_model.safetensors").write_bytes(save(given))
        with pytest.raises(graphc.FormatError, match=words):
            model.load_adapter(copy, names=names)
    (pickled := tmp_path / "pickled").mkdir()
    (pickled / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(graphc.FormatError, match="pickle"):
        model.load_adapter(pickled)
    with pytest.raises(graphc.FormatError, match="no adapter folder"):
        model.load_adapter(tmp_path)
    wider = MODELS["llama"][0](width=32)
    with pytest.raises(graphc.ShapeError, match=r"another base.*A \[4, 16\].*is \[32, 32\]"):
        wider.load_adapter(folder, names=names)
    assert model.adapters == {} and len(model.trainable_weights) == len(model.weights)


def test_an_adapter_knows_the_weights_it_was_made_for(made: Path, tmp_path: Path) -> None:
    names = MODELS["llama"][1]
    model = base("llama", made)
    model.add_adapter(r=2, targets="q_proj")
    model.save_adapter(tmp_path, names=names)
    other = MODELS["llama"][0]()
    with pytest.raises(GraphcError, match=r"another base: of weights with the SHA-256 [0-9a-f]{16}…, those of .* have"):
        other.load_adapter(tmp_path, names=names)
    other.load_adapter(tmp_path, names=names, check_base=False)
    base("llama", made).load_adapter(tmp_path, names=names)
