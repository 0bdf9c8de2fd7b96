"""Several adapters in one artifact: switched from call to call, by number or name, without loading anything."""

import numpy as np
import pytest
from artifacts import needs
from peft_models import llama

import graphc
from graphc import GraphcError
from graphc.runtime.lora.serving import adapters_module

TOKENS = np.random.default_rng(0).integers(0, 32, (2, 6)).astype(np.int32)
ADAPTERS = {
    "french": {"r": 4, "alpha": 8, "targets": "q_proj,v_proj,embed_tokens", "modules_to_save": "norm"},
    "german": {"r": 2, "targets": "q_proj,down_proj", "dora": True},
    "latin": {"r": 3, "targets": "lm_head,down_proj", "rslora": True},
}


@pytest.fixture(scope="module")
def model_and_outputs():
    graphc.utils.set_random_seed(0)
    model = llama()
    outputs = {"base": model.predict(TOKENS, verbose=0)}
    rng = np.random.default_rng(7)
    for name, arguments in ADAPTERS.items():
        model.add_adapter(name, **arguments)
        for variable in model.trainable_weights:
            variable.assign(variable.numpy() + rng.standard_normal(variable.shape).astype(np.float32) * 0.2)
        outputs[name] = model.predict(TOKENS, verbose=0)
    return model, outputs


@pytest.mark.parametrize("target", ["numpy", "torch", "onnx", "jax"])
def test_a_call_says_which_adapter(target: str, model_and_outputs, tmp_path) -> None:
    needs(target)
    model, outputs = model_and_outputs
    executable = model.compile_adapters(target=target)
    assert executable.choices == {"adapter": ["base", "french", "german", "latin"]}
    executable.save(tmp_path / "artifact")
    again = graphc.load_artifact(tmp_path / "artifact")
    for number, name in ((3, "latin"), (0, "base"), (1, "french"), (2, "german"), (1, "french")):
        for found in (again(TOKENS, adapter=name), again(TOKENS, np.int32(number)), executable(TOKENS, adapter=name)):
            np.testing.assert_allclose(found, outputs[name], rtol=1e-4, atol=2e-5, err_msg=name)
    with pytest.raises(GraphcError, match="there is no adapter 'frensh'; did you mean french"):
        again(TOKENS, adapter="frensh")
    for number in (4, -1):
        with pytest.raises(
            GraphcError, match=f"there is no adapter {number}; there are base, french, german, latin, 0"
        ):
            again(TOKENS, adapter=number)
    assert model.active_adapter == "latin"


def test_factors_are_read_and_written_by_their_names(model_and_outputs) -> None:
    model, outputs = model_and_outputs
    executable = model.compile_adapters(["german", "latin"])
    name = "layers_0/mlp/down_proj/lora_kernel_b_latin"
    before = executable.weights[name]
    executable.weights[name] = before * 0
    assert np.abs(executable(TOKENS, adapter="latin") - outputs["latin"]).max() > 1e-3
    np.testing.assert_allclose(executable(TOKENS, adapter="german"), outputs["german"], rtol=1e-4, atol=2e-5)
    executable.weights[name] = before
    np.testing.assert_allclose(executable(TOKENS, adapter="latin"), outputs["latin"], rtol=1e-4, atol=2e-5)


def test_code_does_not_grow_with_the_number_of_adapters(model_and_outputs) -> None:
    model, _ = model_and_outputs
    counts = []
    for names in (["german", "latin"], ["latin", "german"], ["german", "latin", "french"]):
        module, _ = adapters_module(model, names)
        counts.append([op.name for op in module.walk()].count("lora_linear"))
    assert counts == [5, 5, 7]  # one for each adapted kernel, however many adapters it has


def test_what_there_is_to_switch(model_and_outputs) -> None:
    model, _ = model_and_outputs
    with pytest.raises(GraphcError, match="has no adapter 'greek'"):
        model.compile_adapters(["greek"])
    with pytest.raises(GraphcError, match="each adapter is given once"):
        model.compile_adapters(["latin", "latin"])
    with pytest.raises(GraphcError, match="no adapter is named; there are french, german, latin"):
        model.compile_adapters([])
    with pytest.raises(GraphcError, match="'base' is a choice of every such executable"):
        model.compile_adapters(["base", "latin"])
    assert adapters_module(model, "latin")[1] == ["base", "latin"]
    with pytest.raises(GraphcError, match="does not say which adapter: give adapter= one of base, latin"):
        model.compile_adapters("latin", target="numpy")(TOKENS)
