"""Training with rounding: gradients, every target, what is stored afterwards; adapters over integers; mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, layers, losses, optimizers
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.formats import parse_format
from graphc.ir.formats.trained import reference, rounded, stored

TARGETS = ["numpy", "torch", "onnx", "jax"]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(target: str = "numpy", rate: float = 1e-2, **options: Any) -> Model:
    graphc.utils.set_random_seed(0)
    image = Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.Dense(20, activation="relu", name="hidden")(layers.Flatten()(x))
    model = Model(image, layers.Dense(4, name="out")(x), name="network")
    model.compile(
        optimizers.SGD(rate), losses.SparseCategoricalCrossentropy(from_logits=True), target=target, **options
    )
    return model


def examples(count: int = 32) -> tuple[np.ndarray, np.ndarray]:
    return drawn(count, 6, 6, 3), np.arange(count) % 4


# --- the op ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["int8", "uint8", "int8{tensor}", "int8{reduced}", "int4", "int4{axis=0,scales=f32}", "uint4", "int3", "uint3"],
)
@pytest.mark.parametrize("factor", [0.0, 1e-9, 1.0, 1e4])
def test_what_training_rounds_to_can_be_stored_to_the_bit(text: str, factor: float) -> None:
    form, x = parse_format(text), drawn(50, 21) * np.float32(factor)
    wanted = np.asarray(rounded(x, form))
    np.testing.assert_array_equal(reference(x, form), wanted)
    arrays = stored(x, form)
    np.testing.assert_array_equal(form.dequantize(*arrays, shape=x.shape).astype(np.float32), wanted)
    form.check([graphc.ir.types.TensorType.of(graphc.ir.dtypes.dtype(a.dtype), a.shape) for a in arrays], x.shape)


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "text", "bits"),
    [
        *((target, "int8", 8) for target in TARGETS),
        *((target, "int4", None) for target in TARGETS),
        ("numpy", "uint4{block=16}", 4),
        ("numpy", "int4{block=none}", 8),
    ],
)
def test_training_and_what_is_stored(target: str, text: str, bits: int | None) -> None:
    needs(target)
    model, (x, y) = network(target), examples()
    model.quantize_aware(text, activations=None if bits is None else x, activation_bits=bits or 8)
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    history = model.fit(x, y, batch_size=16, epochs=6, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert all(np.any(v.numpy() != before[v.path]) for v in model.trainable_variables)
    kernel = model.get_layer("hidden").kernel
    assert np.unique(kernel.numpy()).size > 0.9 * kernel.numpy().size  # floats still
    wanted, found = graphc.compile(model, target="numpy")(x), graphc.compile(model, target=target)(x)
    model.quantize("trained")
    stored_module = graphc.lower(model)
    np.testing.assert_array_equal(graphc.compile(stored_module, target="numpy")(x), wanted)
    after = graphc.compile(model, target=target)(x)
    np.testing.assert_allclose(after, found, rtol=1e-5, atol=1e-5 if bits is None else 0.05)
    assert {str(stored_module.weights[name].dtype) for name in stored_module.weights if "_values" in name} <= {
        "int8",
        "uint8",
    }
    assert not [v for v in model.trainable_variables if "kernel" in v.path]


@pytest.mark.parametrize("target", ["torch", "jax"])
def test_gradients_are_those_at_the_rounded_kernels(target: str) -> None:
    needs(target)
    x, y = examples()
    moved: list[dict[str, np.ndarray]] = []
    for aware in (True, False):
        model = network(target, rate=1.0)
        kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
        if aware:
            model.quantize_aware("int4")
        else:
            for kernel in kernels:
                kernel.assign(reference(kernel.numpy(), parse_format("int4")))
        before = {v.path: v.numpy().copy() for v in model.trainable_variables}
        model.train_on_batch(x, y)
        moved.append({v.path: v.numpy() - before[v.path] for v in model.trainable_variables})
    for name, wanted in moved[1].items():
        assert np.abs(wanted).max() > 0
        np.testing.assert_allclose(moved[0][name], wanted, atol=2e-6, err_msg=name)


def test_a_layer_called_twice_and_a_regularizer() -> None:
    graphc.utils.set_random_seed(0)
    x = Input((16,))
    shared = layers.Dense(16, name="shared", kernel_regularizer="l2")
    model = Model(x, layers.Dense(2, name="out")(shared(shared(x))))
    model.compile("adam", "mse")
    model.quantize_aware("int4", filters="shared")
    text = str(graphc.lower(model))
    assert text.count("fake_quantize_weight") == 2
    model.fit(drawn(16, 16), drawn(16, 2), verbose=0)
    wanted = graphc.compile(model)(drawn(16, 16))
    model.quantize("trained")
    np.testing.assert_array_equal(graphc.compile(model)(drawn(16, 16)), wanted)


def test_a_table_that_is_also_the_output_layer() -> None:
    graphc.utils.set_random_seed(0)

    class Tied(layers.Embedding):
        def call(self, inputs, reverse=False):
            return graphc.ops.matmul(inputs, graphc.ops.transpose(self.embeddings)) if reverse else super().call(inputs)

    tokens = Input((5,), dtype="int32")
    table = Tied(20, 16, name="table")
    model = Model(tokens, table(layers.Dense(16, name="dense")(table(tokens)), reverse=True))
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True))
    model.quantize_aware("int8")
    ids = np.arange(40, dtype=np.int32).reshape(8, 5) % 20
    model.fit(ids, ids, verbose=0)
    wanted = graphc.compile(model)(ids)
    model.quantize("trained")
    np.testing.assert_allclose(graphc.compile(model)(ids), wanted, rtol=1e-6, atol=1e-6)


# --- with adapters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "mode"), [*((target, "nf4") for target in TARGETS), ("numpy", "int4")])
def test_adapters_are_trained_over_integers(target: str, mode: str) -> None:
    needs(target)
    model, (x, y) = network(target, rate=0.1), examples()
    model.quantize(mode)
    base = {v.path: v.numpy().copy() for v in model.weights}
    model.add_adapter("task", r=2, targets="hidden,out")
    history = model.fit(x, y, batch_size=16, epochs=6, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for variable in model.weights:
        assert variable.path not in base or "lora" in variable.path or np.all(variable.numpy() == base[variable.path])
    module = graphc.lower(model)
    assert "uint8" in {str(module.weights[name].dtype) for name in module.weights}
    np.testing.assert_allclose(
        graphc.compile(model, target=target)(x), graphc.interpret(module, x), rtol=1e-4, atol=1e-4
    )


def test_adapters_beside_kernels_that_are_rounded() -> None:
    model, (x, y) = network(rate=0.1), examples()
    model.quantize_aware("int4")
    model.add_adapter("task", r=2, targets="hidden,out")
    text = str(graphc.lower(model))
    assert text.count("lora_linear") == 2
    assert text.count("fake_quantize_weight") == 3
    history = model.fit(x, y, batch_size=16, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    wanted = graphc.compile(model)(x)
    model.quantize("trained")
    np.testing.assert_array_equal(graphc.compile(model)(x), wanted)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes() -> None:
    model = network()
    with pytest.raises(GraphcError, match="quantize_aware comes before"):
        model.quantize("trained")
    with pytest.raises(GraphcError, match="not to nf4"):
        model.quantize_aware("nf4")
    with pytest.raises(GraphcError, match=r"match no layer.*conv, hidden, out"):
        model.quantize_aware("int4", filters="hiden")
    with pytest.raises(GraphcError, match="8 or 4 bits"):
        model.quantize_aware("int8", activations=examples()[0], activation_bits=3)
    with pytest.raises(GraphcError, match="empty"):
        model.quantize_aware("int8", activations=examples()[0][:0])
    with pytest.raises(GraphcError, match="not finite"):
        model.quantize_aware("int8", activations=examples()[0] * np.nan)
    model.quantize_aware("int8")
    with pytest.raises(GraphcError, match="rounding already"):
        model.quantize_aware("int8")
    with pytest.raises(GraphcError, match="rounding already"):
        model.quantize("int8")
    model.quantize("trained")
    with pytest.raises(GraphcError, match="'conv/kernel' is quantized already, as int8"):
        model.quantize_aware("int8")
    framework = network("torch", gradients="native")
    framework.quantize_aware("int8")
    with pytest.raises(UnsupportedError, match="gradients='ir'"):
        framework.fit(*examples(), verbose=0)


def of_policy(policy: str) -> Model:
    inputs = Input((8,))
    return Model(inputs, layers.Dense(4, dtype=policy, name="dense")(inputs))


def test_floats_that_are_not_rounded_are_told() -> None:
    """Activations of other floats than float32 stayed as they were, without a word."""
    data = np.ones((4, 8), np.float32)
    for policy, dtype in (("mixed_bfloat16", "bfloat16"), ("float64", "float64")):
        with pytest.raises(UnsupportedError, match=f"'dense/kernel' reads {dtype}, and activations are rounded in"):
            of_policy(policy).quantize_aware("int8", activations=data)
        of_policy(policy).quantize_aware("int8")
    narrow = of_policy("float16")
    narrow.quantize_aware("int8")
    with pytest.raises(UnsupportedError, match=r"'dense/kernel' is float16, .*'mixed_float16' keeps them in float32"):
        narrow.predict(data, verbose=0)


# --- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("text", "bits", "points"), [("int8", 8, 0.3), ("int4", None, 1.0), ("int4", 8, 1.0)])
def test_the_digits_network_loses_little(text: str, bits: int | None, points: float, monkeypatch: Any) -> None:
    needs("torch")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import importlib

    import digits_cnn

    model = importlib.reload(digits_cnn).model
    with np.load(EXAMPLES / "digits_test.npz") as data:
        x, y, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x", "y"))
    model.compile(
        optimizers.Adam(1e-3),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        target="torch",
    )
    plain = model.evaluate(x_test, y_test, verbose=0)[1]
    graphc.utils.set_random_seed(0)
    model.quantize_aware(text, activations=None if bits is None else x[:256])
    model.fit(x, y, epochs=3, batch_size=32, verbose=0)
    wanted = graphc.compile(model, target="numpy")(x_test)
    model.quantize("trained")
    found = graphc.compile(model, target="numpy")(x_test)
    np.testing.assert_array_equal(found, wanted)
    right = np.mean(found.argmax(1) == y_test)
    print(f"{text}, activations {bits or 'float'}: {100 * right:.2f} % right, float32 {100 * plain:.2f} %")
    assert right >= plain - points / 100
