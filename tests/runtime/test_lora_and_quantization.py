"""Every form of adapters and quantization on every target: a small language model and a network of convolutions compute
what the reference does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, layers

TARGETS = ["numpy", "onnx", "torch", "jax"]
TOKENS = np.random.default_rng(0).integers(0, 40, (6, 8)).astype("int32")
IMAGES = np.random.default_rng(0).standard_normal((6, 8, 8, 1)).astype("float32")


def language_model() -> Model:
    """Two blocks of attention and an MLP."""
    tokens = Input((8,), dtype="int32", name="tokens")
    x = layers.Embedding(40, 32, name="table")(tokens)
    for i in range(2):
        with graphc.name_scope(f"block_{i}"):
            y = layers.RMSNormalization(name="norm")(x)
            x = x + layers.MultiHeadAttention(4, 8, name="attention")(y, y, use_causal_mask=True)
            y = layers.Dense(64, activation="silu", name="up")(layers.LayerNormalization(name="norm_2")(x))
            x = x + layers.Dense(32, name="down")(y)
    return Model(tokens, layers.Dense(40, name="head")(x))


def digits() -> Model:
    """Convolutions with batch normalization, one of groups, and a classifier."""
    image = Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.Activation("relu")(layers.BatchNormalization(name="norm")(x))
    y = layers.Conv2D(16, 3, padding="same", groups=2, activation="relu", name="grouped")(x)
    x = layers.MaxPooling2D()(x + y)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, strides=2, activation="relu", name="deep")(x))
    return Model(image, layers.Dense(10, name="head")(x))


MODELS: dict[str, tuple[Callable[[], Model], Any]] = {"gpt": (language_model, TOKENS), "digits": (digits, IMAGES)}


def adapted(model: Model, x: Any, name: str = "default", targets: str = "all-linear", **options: Any) -> Model:
    """With factors that are not zeros, as after training."""
    adapter = model.add_adapter(name, r=3, alpha=6, targets=targets, **options)
    random = np.random.default_rng(len(model.adapters))
    for variable in adapter.variables:
        variable.assign(variable.numpy() + 0.1 * random.standard_normal(variable.shape))
    return model


def merged(model: Model, x: Any) -> Model:
    adapted(model, x).merge_adapter()
    return model


FORMS: dict[str, Callable[[Model, Any], Any]] = {
    "lora": lambda model, x: adapted(model, x, targets="*"),
    "dora": lambda model, x: adapted(model, x, dora=True),
    "rslora": lambda model, x: adapted(model, x, rslora=True),
    "several adapters": lambda model, x: adapted(adapted(model, x, "one"), x, "two", dora=True),
    "merged": merged,
    "int8 weights": lambda model, x: graphc.quantize(model, "int8"),
    "int8 static": lambda model, x: graphc.quantize(model, "int8", data=x),
    "int8 dynamic": lambda model, x: graphc.quantize(model, "int8", activations="dynamic"),
    "int4": lambda model, x: graphc.quantize(model, "int4{block=32}"),
    "uint4": lambda model, x: graphc.quantize(model, "uint4{block=16}"),
    "nf4": lambda model, x: graphc.quantize(model, "nf4{double=256}"),
    "q4_0": lambda model, x: graphc.quantize(model, "q4_0", targets="head"),
    "q8_0": lambda model, x: graphc.quantize(model, "q8_0", targets="head"),
}


def made(name: str, form: str) -> tuple[Any, Any]:
    graphc.utils.set_random_seed(0)
    make, x = MODELS[name]
    model = make()
    return FORMS[form](model, x), x


def rounds_activations(form: str) -> bool:
    return form in ("int8 static", "int8 dynamic")


def cases() -> list[Any]:
    """All of them; those that take JAX long to compile are slow, but for one of each kind."""
    found: list[Any] = []
    for name in MODELS:
        for form in FORMS:
            for target in TARGETS:
                slow = target == "jax" and (name, form) not in QUICK_IN_JAX
                found.append(pytest.param(name, form, target, marks=[pytest.mark.slow] if slow else []))
    return found


QUICK_IN_JAX = [("digits", "lora"), ("digits", "int8 static"), ("gpt", "nf4")]


@pytest.mark.parametrize(("name", "form", "target"), cases())
def test_targets_agree_with_the_reference(name: str, form: str, target: str) -> None:
    needs(target)
    source, x = made(name, form)
    if form == "several adapters":
        source.set_adapter("one")
        wanted = [np.asarray(graphc.interpret(graphc.lower(source), x))]
        executable = source.compile_adapters(target=target)
        found = [executable(x, adapter="one")]
        source.set_adapter("two")
        wanted.append(np.asarray(graphc.interpret(graphc.lower(source), x)))
        found.append(executable(x, adapter="two"))
    else:
        module = graphc.lower(source) if isinstance(source, Model) else source
        wanted, found = [np.asarray(graphc.interpret(module, x))], [graphc.compile(source, target=target)(x)]
    for got, want in zip(found, wanted, strict=True):
        off = np.abs(got - want)
        if rounds_activations(form):  # a value that lies between two integers may go to either: in one example, if any
            assert np.median(off) <= 1e-6 * np.abs(want).max()
            assert off.max() <= 0.01 * np.abs(want).max()
        else:
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_every_convolution_beside_integers_has_a_kernel_of_integers_on_onnx(tmp_path: Path) -> None:
    """That of the first too, between whose input as integers and it there is a reshape: of images of one channel."""
    needs("onnx")
    import onnx
    import onnxruntime

    executable = graphc.compile(made("digits", "int8 static")[0], target="onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(executable.folder / "model.onnx"), options, ["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    kinds = [node.op_type for node in graph.node]
    assert (kinds.count("QLinearConv"), kinds.count("Conv")) == (3, 0)
    scales = [node.input[4] for node in graph.node if node.op_type == "QLinearConv"]
    assert [i.dims[0] for name in scales for i in graph.initializer if i.name == name] == [16, 16, 32]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_qlora_trains_alike(name: str, target: str) -> None:
    """Three steps over a base in NF4, with the losses that numpy has."""
    needs(target)

    def losses(target: str) -> list[float]:
        graphc.utils.set_random_seed(0)
        make, x = MODELS[name]
        model = make()
        model.quantize("nf4")
        adapted(model, x)
        loss = graphc.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(graphc.optimizers.SGD(0.1), loss, target=target)
        y = TOKENS if name == "gpt" else np.arange(6)
        return [model.train_on_batch(x, y) for _ in range(3)]

    found = losses(target)
    np.testing.assert_allclose(found, losses("numpy"), rtol=2e-5)
    assert found[2] < found[0]


CLASSES = {
    "LoRALinear": ["lora", "rslora"],
    "QuantizedLinear": ["int8 weights", "int4", "uint4", "nf4 alone", "nf4", "q4_0", "q8_0"],
}


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, forms in CLASSES.items() for form in forms])
def test_emitted_torch_has_one_small_class(name: str, form: str) -> None:
    needs("torch")
    source = graphc.quantize(language_model(), "nf4") if form == "nf4 alone" else made("gpt", form)[0]
    text = graphc.compile(source, target="torch").source
    assert text.count(f"class {name}(") == 1
    body = text.split(f"class {name}(")[1].split("\nclass ")[0].split("\ndef ")[0]
    assert len(body.splitlines()) <= 20


@pytest.mark.parametrize("target", ["numpy", "torch", "jax"])
def test_emitted_source_of_double_quantization_is_no_table(target: str) -> None:
    """The map of scales is computed in eight lines, once, where 256 numbers stood for each layer."""
    needs(target)
    source = graphc.compile(made("gpt", "nf4")[0], target=target).source
    assert len(source.splitlines()) < 320
    assert source.count("\nDYNAMIC_MAP = dynamic_map()\n") == 1
    assert source.count("dynamic_map()") == 2


def test_kernels_of_heads_have_a_scale_for_each_output() -> None:
    """A kernel [inputs, heads, size] is read as a matrix: its channels are all outputs, not those of one head."""
    model = language_model()
    module = graphc.quantize(model, "int8")
    assert module.weights["block_0/attention/query/kernel_scales"].shape == (32,)
    executable = graphc.compile(module, target="torch")
    assert executable.weights["block_0/attention/query/kernel"].shape == (32, 4, 8)
    assert "self.query = QuantizedLinear(" in executable.source


def test_integers_under_adapters_are_products_of_integers_on_onnx() -> None:
    """And nothing is left over that the runtime would warn of."""
    needs("onnx")
    import onnx

    model = language_model()
    model.quantize("int4", filters=[".*(query|key|value|output|up|down|head)"])
    adapted(model, TOKENS)
    executable = graphc.compile(model, target="onnx")
    np.testing.assert_allclose(executable(TOKENS), graphc.interpret(graphc.lower(model), TOKENS), rtol=1e-4, atol=1e-5)
    graph = onnx.load(str(executable.folder / "model.onnx")).graph
    assert sum(node.op_type == "MatMulNBits" for node in graph.node) == 2 * 6 + 1
    assert {each.name for each in graph.initializer} <= {name for node in graph.node for name in node.input}
