"""Quantized models as users have them: on every target, with data, by `Model.quantize`; and mistakes."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, Sequential, layers, quantizers
from graphc.codegen import targets
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.formats import parse_format
from graphc.runtime.quantization.processor import flags, wants_reduced_range

TARGETS = ["numpy", "torch", "onnx", "jax"]
FORMATS = [
    "int8",
    "int8{asymmetric}",
    "int4{block=16}",
    "uint4",
    "nf4",
    "int4{block=none}",
    "nf4{double=256}",
    "int3",
    "awq{bits=3}",
    "awq",
]


def network(seed: int = 0) -> Model:
    graphc.utils.set_random_seed(seed)
    image = Input((8, 8, 4), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="rectified")(x)
    y = layers.Conv2D(8, 3, padding="same", name="inner")(x)
    x = layers.MaxPooling2D(2, name="pool")(layers.ReLU(name="sum")(x + y))
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(x))
    return Model(image, layers.Dense(10, name="out")(x), name="network")


def perceptron() -> Sequential:
    graphc.utils.set_random_seed(0)
    model = Sequential([Input((32,)), layers.Dense(48, activation="relu", name="up"), layers.Dense(10, name="down")])
    model.build((None, 32))
    return model


def images(count: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 8, 8, 4)).astype(np.float32)


def rows(count: int = 16) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 32)).astype(np.float32)


# --- weights on targets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_every_format_on_every_target(target: str) -> None:
    needs(target)
    x = images(4)
    for text in FORMATS[1::2] if target == "jax" else FORMATS:  # which compiles each for a second or two
        module = graphc.quantize(network(), text)
        wanted = graphc.interpret(module, x)
        found = graphc.compile(module, target=target)(x)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=f"{text} on {target}")


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_read_and_written_in_the_source_s_layout(target: str, tmp_path: Path) -> None:
    needs(target)
    model = network()
    plain = graphc.lower(model).weights
    exe = graphc.compile(model, target=target, passes="canonicalize,quantize{format=int8},fold_weights")
    assert sorted(exe.weights) == sorted(plain)
    for name in ("conv/kernel", "out/kernel"):
        form = parse_format("int8")
        rounded = form.dequantize(*form.quantize(plain[name]), shape=plain[name].shape).astype(np.float32)
        np.testing.assert_array_equal(exe.weights[name], rounded)
        exe.weights[name] = rounded  # what was read is kept, to the byte
        np.testing.assert_array_equal(exe.weights[name], rounded)
        exe.weights[name] = plain[name] * 3
        np.testing.assert_allclose(exe.weights[name], plain[name] * 3, atol=3 * np.abs(plain[name]).max() / 254)
    with pytest.raises(ShapeError, match="out/kernel"):
        exe.weights["out/kernel"] = np.zeros((3, 3), np.float32)
    exe.save(tmp_path / "saved")
    again = graphc.load_artifact(tmp_path / "saved")
    np.testing.assert_array_equal(again.weights["out/kernel"], exe.weights["out/kernel"])
    np.testing.assert_array_equal(again(images(2)), exe(images(2)))


def test_an_artifact_stores_integers_and_says_of_what(tmp_path: Path) -> None:
    exe = graphc.compile(perceptron(), target="numpy", passes="quantize{format=int4{block=32}}")
    exe.save(tmp_path / "model")
    from safetensors.numpy import load_file

    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {name: str(array.dtype) for name, array in stored.items() if name.startswith("down")} == {
        "down/bias": "float32",
        "down/kernel_scales": "float16",
        "down/kernel_values": "uint8",
    }
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["weights"]["down/kernel_values"] == {
        "sources": ["down/kernel"],
        "steps": [{"quantize": {"format": "int4", "shape": [48, 10], "dtype": "float32", "part": 0}}],
    }


def test_emitted_torch_has_one_small_class() -> None:
    needs("torch")
    source = graphc.compile(graphc.quantize(perceptron(), "int4"), target="torch").source
    assert source.count("class QuantizedLinear(nn.Module)") == 1
    assert source.count("QuantizedLinear(\n") == 2
    assert "nn.Linear" not in source


def test_emitted_torch_has_one_class_of_convolutions() -> None:
    """Layers that differ in sizes, in strides and in what follows are lines, as those of floats are."""
    needs("torch")
    images = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype(np.float32)
    model = graphc.Sequential(
        [
            graphc.layers.Conv2D(8, 3, padding="same", activation="relu"),
            graphc.layers.Conv2D(8, (3, 2), strides=2, groups=2, use_bias=False),
            graphc.layers.Conv2D(6, 3, strides=2, padding="same"),
            graphc.layers.Conv2D(6, 2, padding="same", dilation_rate=2),
        ]
    )
    model(images)
    module = graphc.quantize(model, "int8")
    executable = graphc.compile(module, target="torch")
    assert executable.source.count("class QuantizedConv2d(nn.Module)") == 1
    assert executable.source.count("= QuantizedConv2d(") == 4
    assert executable.source.count("\nclass ") == 2
    reference = graphc.compile(module, target="numpy")
    np.testing.assert_allclose(executable(images), reference(images), rtol=1e-5, atol=1e-6)
    kernel = executable.weights["conv2d_1/kernel"]
    np.testing.assert_array_equal(kernel, reference.weights["conv2d_1/kernel"])


IN_PRODUCTS = [
    "int4",
    "int4{block=none}",
    "uint4{block=none}",
    "uint4{block=16}",
    "int8",
    "int8{asymmetric}",
    "uint8",
    "q4_0",
    "q8_0",
]


@pytest.mark.parametrize(
    ("form", "width"),
    [(form, width) for form in IN_PRODUCTS for width in (7, 160, 256) if width != 7 or form[0] != "q"],
)
def test_onnx_runtime_keeps_weights_of_products_as_integers(form: str, width: int, tmp_path: Path) -> None:
    """It makes no floats of them when it loads; a product of bytes is two of four bits."""
    needs("onnx")
    import onnx
    import onnxruntime

    graphc.utils.set_random_seed(0)
    model = Sequential([Input((width,)), layers.Dense(33, name="out")])
    model.build((None, width))
    module = graphc.quantize(model, form)
    exe = graphc.compile(module, target="onnx")
    x = np.random.default_rng(0).standard_normal((5, width)).astype(np.float32)
    np.testing.assert_allclose(exe(x), graphc.interpret(module, x), rtol=2e-6, atol=2e-6)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(exe.folder / "model.onnx"), options, ["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulNBits") == (2 if "8" in form else 1)
    assert set(kinds) <= {"MatMulNBits", "Add"}
    sizes = {onnx.TensorProto.UINT8: 1, onnx.TensorProto.FLOAT: 4}
    held = sum(int(np.prod(i.dims)) * sizes.get(i.data_type, 8) for i in graph.initializer)
    if width == 256:
        assert held < 256 * 33 * (1.5 if "8" in form else 0.9)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="memory is read from /proc")
def test_a_session_takes_the_memory_of_integers(tmp_path: Path) -> None:
    """4.2 million weights in int8 take 4.4 MB. They took 16 as floats, and 50 that folding had left behind."""
    needs("onnx")
    from graphc.codegen.onnx import session

    model = Sequential([Input((2048,)), layers.Dense(2048, name="out")])
    model.build((None, 2048))
    graphc.compile(graphc.quantize(model, "int8"), target="onnx").save(tmp_path / "model")
    x = np.zeros((1, 2048), np.float32)
    graphc.load_artifact(tmp_path / "model")(x)
    session._give_back()
    before = private_bytes()
    executable = graphc.load_artifact(tmp_path / "model")
    executable(x)
    assert private_bytes() - before < 2.5 * 2048 * 2048


def private_bytes() -> int:
    """The memory of this process that it shares with no other."""
    rows = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()]
    return 1024 * sum(int(row[1]) for row in rows if row[0] in ("Private_Clean:", "Private_Dirty:"))


def test_the_command_compiles_with_the_pass(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from graphc.tools.command import app

    script = tmp_path / "net.py"
    script.write_text(
        "from graphc import Input, Sequential, layers\n"
        "model = Sequential([Input((32,)), layers.Dense(4, name='out')])\n"
    )
    arguments = ["compile", str(script), "--target", "numpy", "-o", str(tmp_path / "out")]
    passes = "canonicalize,quantize{format=int4{block=32},targets=out}"
    done = CliRunner().invoke(app, [*arguments, "--passes", passes])
    assert not done.exit_code, done.output
    assert "int4_rows" in (tmp_path / "out" / "model.py").read_text()


# --- activations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_integer_activations_on_every_target(target: str, activations: Any) -> None:
    needs(target)
    data = images() if activations == "static" else None
    module = graphc.quantize(network(), "int8", activations=activations, data=data)
    x = images(8, seed=1)
    wanted = graphc.interpret(module, x)
    plain = graphc.interpret(graphc.lower(network()), x)
    assert 0 < np.abs(wanted - plain).max() < 0.1 * np.abs(plain).max()
    found = graphc.compile(module, target=target)(x)
    off = np.abs(found - wanted) / np.abs(plain).max()
    assert np.median(off) <= 1e-6
    assert off.max() <= 0.01  # a value between two integers may fall to either


def test_onnx_runtime_rounds_no_kernel_of_floats() -> None:
    """Beside dequantized activations its `WeightBiasQuantization` would: to 8 bits, with one scale for all outputs. So
    it did to kernels of integers where a transpose stood between the activations and the product, whose `dequantize`
    was written out; outputs were off by 1 %, which was taken for the rounding of its sums of integers."""
    needs("onnx")
    x = images(8, seed=1)
    module = graphc.quantize(network(), "int8", data=images(), exclude="hidden")
    np.testing.assert_allclose(
        graphc.compile(module, target="onnx")(x), graphc.interpret(module, x), rtol=1e-5, atol=1e-5
    )


def test_rows_are_scaled_by_themselves_on_onnx() -> None:
    """ONNX Runtime's fusion of both scales would take the first row's for all."""
    needs("onnx")
    x = rows() * np.logspace(-2, 2, 16, dtype=np.float32)[:, None]
    module = graphc.quantize(perceptron(), "int8", activations="dynamic")
    np.testing.assert_allclose(
        graphc.compile(module, target="onnx")(x), graphc.compile(module, target="numpy")(x), rtol=1e-4, atol=1e-4
    )
    one = graphc.compile(module, target="onnx")(x[3:4])
    np.testing.assert_allclose(graphc.compile(module, target="onnx")(x)[3:4], one, rtol=1e-6)


def test_onnx_runtime_fuses_into_integer_kernels(tmp_path: Path) -> None:
    needs("onnx")
    import onnx
    import onnxruntime

    exe = graphc.compile(graphc.quantize(network(), "int8", data=images()), target="onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(exe.folder / "model.onnx"), options, ["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert kinds.count("QLinearConv") == 2
    assert "Conv" not in kinds
    assert "QLinearAdd" in kinds
    assert "IsNaN" not in kinds
    assert "DequantizeLinear" not in kinds[: kinds.index("MatMulInteger") if "MatMulInteger" in kinds else None]


@pytest.mark.parametrize("options", [{"data": rows()}, {"activations": "dynamic"}])
@pytest.mark.parametrize(("target", "product"), [("torch", "torch._int_mm"), ("jax", "preferred_element_type")])
def test_integers_are_multiplied(target: str, product: str, options: dict[str, Any]) -> None:
    """Sums are exact, so that only the scales are rounded."""
    needs(target)
    module = graphc.quantize(perceptron(), "int8", **options)
    executable = graphc.compile(module, target=target)
    assert product in executable.source
    for x in (rows(3), 100 * rows(), rows()[:1]):  # the second saturates where ranges are given
        np.testing.assert_allclose(executable(x), graphc.interpret(module, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_quantize_of_nan_is_zero_before_the_product(target: str) -> None:
    needs(target)
    x = rows()
    module = graphc.quantize(perceptron(), "int8", data=x, targets="down")
    x[0, 0] = np.nan
    np.testing.assert_allclose(
        graphc.compile(module, target=target)(x), graphc.interpret(module, x), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"activations": "static"}, "give `data`"),
        ({"activations": "dynamic", "data": images(4)}, "leave `data`"),
        ({"activations": "some"}, "'static', 'dynamic'"),
        ({"format": "int4", "data": images(4)}, "weights are int8, not int4"),
        ({"data": images(4), "method": "minmaks"}, "did you mean minmax"),
        ({"data": images(4), "method": "percentile", "percentile": 40}, "above 50"),
        ({"targets": "outt"}, "did you mean out"),
        ({"format": None}, "a format is a text such as .*, not NoneType"),
        ({"format": {"out": 8}}, "a format is a text such as .*, not 8"),
        ({"format": "int4", "data": images(4)}, "give method='gptq' or 'awq'"),
        ({"data": 3}, "calibration data is arrays or batches of them, not int"),
        ({"data": "images.npz"}, "calibration data is arrays or batches of them, not str"),
        ({"data": images(4), "batch_size": 0}, "batch_size is a positive integer, not 0"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(GraphcError, match=problem):
        graphc.quantize(network(), **options)


def test_the_range_is_reduced_where_the_processor_wants_it(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fma avx2 avx512_vnni\n")
    assert "avx512_vnni" in flags(info)
    assert flags(tmp_path / "none") == frozenset()
    assert isinstance(wants_reduced_range(), bool)
    module = graphc.quantize(perceptron(), "int8", activations="dynamic", reduced=True)
    assert np.abs(module.weights["up/kernel_values"].astype(int)).max() == 63


# --- Model.quantize ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["int8", "int4", "nf4", "int4{block=32}"])
def test_a_model_is_quantized_in_place(mode: str) -> None:
    model, x = perceptron(), rows()
    plain = model.predict(x)
    model.quantize(mode)
    found = model.predict(x)
    assert 0 < np.abs(found - plain).max() < 0.5
    np.testing.assert_array_equal(graphc.compile(model)(x), found)
    assert [w.path.rpartition("/")[2] for w in model.trainable_variables] == ["bias", "bias"]
    with pytest.raises(GraphcError, match="is quantized already"):
        model.quantize("int8")
    stored = [name for name in graphc.lower(model).weights if name.endswith("kernel_values")]
    assert len(stored) == 2


def test_int8_is_near_keras() -> None:
    """Kernels as Keras 3.15 makes them, whose scale multiplies: round(127 · x / (largest + 1e-7))."""
    model, x = perceptron(), rows(4)
    kernel = model.layers[0].kernel.numpy()
    scale = 127 / (np.abs(kernel).max(0) + 1e-7)
    wanted = np.clip(np.round(kernel * scale), -127, 127)
    model.quantize("int8")
    values = graphc.lower(model).weights["up/kernel_values"]
    assert np.mean(values == wanted) > 0.999
    assert np.abs(values - wanted).max() <= 1
    assert model.predict(x).shape == (4, 10)


def test_what_is_quantized_goes_on_training_beside() -> None:
    model = perceptron()
    model.compile(optimizer="sgd", loss="mse")
    model.fit(rows(), np.zeros((16, 10), np.float32), verbose=0)
    model.quantize("int8")
    kernel = model.layers[0].kernel.numpy().copy()
    before = model.layers[1].bias.numpy().copy()
    model.fit(rows(), np.ones((16, 10), np.float32), verbose=0)
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), kernel)
    assert np.abs(model.layers[1].bias.numpy() - before).max() > 0


def test_filters_choose_layers() -> None:
    for filters in ("^up$", ["^up$"], lambda layer: layer.name == "up"):
        model = perceptron()
        model.quantize("int8", filters=filters)
        assert [n for n in graphc.lower(model).weights if n.endswith("values")] == ["up/kernel_values"]
    with pytest.raises(GraphcError, match=r"match no layer.*these can: up, down"):
        perceptron().quantize("int8", filters="sideways")
    with pytest.raises(GraphcError, match="the filter '\\(' is no regular expression"):
        perceptron().quantize("int8", filters=["up", "("])


def test_patterns_are_separated_by_commas() -> None:
    for given in ("up, down", ["up", "down"]):
        module = graphc.quantize(perceptron(), "int8", targets=given)
        assert [n for n in module.weights if n.endswith("values")] == ["up/kernel_values", "down/kernel_values"]


@pytest.mark.parametrize("config", [False, True])
def test_a_plan_in_place(config: bool, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32)
    model = perceptron()
    plan = graphc.quantization_plan(model, x, "1700B", formats=("int3", "int4", "int8"), loss="mse")
    assert plan.bytes <= 1700 and len(set(plan.formats.values())) == 2
    wanted = graphc.quantize(model, plan.formats, **({"method": "gptq", "data": x} if config else {}))
    found = graphc.compile(wanted)(x)
    model.quantize(plan.formats, config=quantizers.GPTQConfig(x) if config else None)
    np.testing.assert_allclose(model.predict(x, verbose=0), found, rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "model.graphc")
    np.testing.assert_allclose(
        graphc.saving.load_model(tmp_path / "model.graphc").predict(x, verbose=0), found, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(GraphcError, match="go with no filters"):
        model.quantize({"up/kernel": "int8"}, filters="up")
    with pytest.raises(GraphcError, match="quantized already"):
        model.quantize({"up/kernel": "int8"})
    with pytest.raises(GraphcError, match="did you mean up"):
        perceptron().quantize({"upp": "int8"})


def test_configurations() -> None:
    model = perceptron()
    model.quantize(config=quantizers.Int8QuantizationConfig(activation_quantizer=None))
    assert "integer_linear" not in {op.name for op in graphc.lower(model).walk()}
    model = perceptron()
    model.quantize(config=quantizers.Int4QuantizationConfig(block_size=16))
    assert graphc.lower(model).weights["up/kernel_scales"].shape == (48, 2)
    narrow = quantizers.AbsMaxQuantizer(axis=0, value_range=(-63, 63))
    model = perceptron()
    model.quantize(config=quantizers.Int8QuantizationConfig(weight_quantizer=narrow))
    assert np.abs(graphc.lower(model).weights["up/kernel_values"].astype(int)).max() == 63
    own = quantizers.AbsMaxQuantizer(axis=0, value_range=(-8, 7))
    for config in (
        quantizers.Int8QuantizationConfig(narrow),
        quantizers.Int4QuantizationConfig(block_size=64),
        quantizers.Int4QuantizationConfig(own, block_size=-1),
    ):
        again = quantizers.deserialize(quantizers.serialize(config))
        assert again.get_config() == config.get_config()
    with pytest.raises(GraphcError, match="not that of the config"):
        perceptron().quantize("int4", config=quantizers.Int8QuantizationConfig())
    with pytest.raises(GraphcError, match="did you mean int8"):
        perceptron().quantize("int9")
    with pytest.raises(GraphcError, match="did you mean int3"):
        perceptron().quantize("int33")
    with pytest.raises(GraphcError, match="takes a mode"):
        perceptron().quantize()
    with pytest.raises(GraphcError, match=r"takes a mode .*, not 8"):
        perceptron().quantize(8)


@pytest.mark.parametrize("target", TARGETS)
def test_int4_with_a_scale_for_each_output_as_in_keras(target: str) -> None:
    """Keras 3.15's outputs, with `block_size=None`; its scales have an epsilon, graphc's 16 bits."""
    needs(target)
    random = np.random.default_rng(0)
    kernel, x = (random.standard_normal(shape).astype(np.float32) for shape in ((5, 3), (2, 5)))
    for size in (None, -1):
        model = Sequential([Input((5,)), layers.Dense(3, use_bias=False, name="out")])
        model.build((None, 5))
        model.layers[-1].kernel.assign(kernel)
        model.quantize(config=quantizers.Int4QuantizationConfig(block_size=size))
        module = graphc.lower(model)
        assert {n: w.shape for n, w in module.weights.items()} == {
            "out/kernel_values": (3, 3),
            "out/kernel_scales": (3, 1),
        }
        wanted = [[-3.390996, -0.466502, -1.788769], [-3.451379, -1.834384, -0.257143]]
        np.testing.assert_allclose(graphc.compile(module, target=target)(x), wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"block_size": 0}, "a positive number"),
        ({"block_size": -5}, "a positive number"),
        ({"weight_quantizer": quantizers.AbsMaxQuantizer(axis=0, value_range=(-8, 7))}, "say block_size=None"),
        ({"weight_quantizer": quantizers.AbsMaxQuantizer(axis=0), "block_size": None}, "value_range"),
        ({"activation_quantizer": quantizers.AbsMaxQuantizer(axis=0), "block_size": -1}, "stay floats"),
    ],
)
def test_configurations_of_int4_that_do_not_fit(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(GraphcError, match=problem):
        quantizers.Int4QuantizationConfig(**options)


@pytest.mark.parametrize("config", [quantizers.GPTQConfig, quantizers.AWQConfig])
def test_one_group_for_each_output(config: Any) -> None:
    model = perceptron()
    model.quantize(config=config(rows(), group_size=-1, num_samples=16))
    assert graphc.lower(model).weights["down/kernel_scales"].shape == (10, 1)


# --- graphc.quantizers ------------------------------------------------------------------------------------------------


def test_quantizers_as_in_keras() -> None:
    """Numbers of Keras 3.15's docstrings."""
    array = np.array([[-3, 7], [2, -8], [1, 0]], np.int8)
    packed, shape, length = quantizers.pack_int4(array)
    assert (packed.tolist(), shape, length) == ([[45, -121], [1, 0]], (2, 2), 3)
    np.testing.assert_array_equal(quantizers.unpack_int4(packed, length), array)
    across, _, length = quantizers.pack_int4(array.T.copy(), axis=1)
    assert across.tolist() == [[45, 1], [-121, 0]]
    np.testing.assert_array_equal(quantizers.unpack_int4(across, length, axis=1), array.T)
    values, scale = quantizers.AbsMaxQuantizer(axis=0)(np.array([[1.0, -4.0], [0.5, 2.0]], np.float32))
    assert values.tolist() == [[127, -127], [63, 64]]  # 63.49999 and 63.5
    np.testing.assert_allclose(scale, [[127, 31.75]], rtol=1e-6)
    assert quantizers.get("abs_max_quantizer").get_config()["value_range"] == (-127, 127)
    with pytest.raises(GraphcError, match="did you mean"):
        quantizers.get("abs_max")
    with pytest.raises(GraphcError, match="come in int8"):
        quantizers.pack_int4(array.astype(np.int32))


def test_all_targets_that_are_tested_are_there() -> None:
    assert set(TARGETS) < set(targets())


def test_inputs_of_kernels_can_be_observed() -> None:
    """What GPTQ, AWQ and the like are made from."""
    from graphc.passes.quantization.targets import kernel_inputs
    from graphc.runtime.quantization.observing import observe

    model, x = perceptron(), rows(6)
    found = list(observe(graphc.lower(model), kernel_inputs, x, batch_size=4))
    assert [sorted(values) for values in found] == [["down/kernel", "up/kernel"]] * 2
    np.testing.assert_array_equal(np.concatenate([values["up/kernel"] for values in found]), x)
    hidden = np.maximum(x @ model.layers[0].kernel.numpy() + model.layers[0].bias.numpy(), 0)
    together = np.concatenate([values["down/kernel"] for values in found])
    np.testing.assert_allclose(together, hidden, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["numpy", "torch", "onnx", "jax"])
def test_int8_runs_where_the_batch_is_another(target: str) -> None:
    needs(target)
    exe = graphc.compile(graphc.quantize(perceptron(), "int8", activations="dynamic"), target=target)
    x = rows(7)
    np.testing.assert_allclose(exe(x)[2:3], exe(x[2:3]), rtol=1e-5, atol=1e-5)


def test_emitted_torch_can_be_exported() -> None:
    needs("torch")
    import torch

    x = rows(4)
    for module in (graphc.quantize(perceptron(), "int4"), graphc.quantize(perceptron(), "int8", activations="dynamic")):
        exe = graphc.compile(module, target="torch")
        spec = importlib.util.spec_from_file_location("emitted", exe.folder / "model.py")
        assert spec is not None and spec.loader is not None
        emitted = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(emitted)
        exported = torch.export.export(emitted.load(), (torch.from_numpy(x),))
        found = exported.module()(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(found, exe(x), rtol=1e-5, atol=1e-6)


def test_fake_quantization_as_in_keras() -> None:
    """Results and gradients of Keras 3.15."""
    x = np.array([[0.8, -1.4, -2.75], [-3, 2.5, 1.0], [1.6, 0.3, 2.9]], np.float32)
    low, high = np.array([-1, -2.5, 0], np.float32), np.array([1.5, 2, 2.7], np.float32)
    fake = quantizers.fake_quant_with_min_max_vars
    wanted = [[0.833333, -1.5, 0.0], [-1.0, 2.1, 1.08], [1.5, 0.3, 2.7]]
    np.testing.assert_allclose(fake(x, low, high, num_bits=4, axis=1), wanted, atol=1e-6)
    narrow = [[0.806299, -1.19685, -1.19685], [-1.19685, 2.00315, 0.995276], [1.6, 0.302362, 2.00315]]
    found = fake(x, np.float32(-1.2), np.float32(2), narrow_range=True)
    np.testing.assert_allclose(found, narrow, atol=1e-6)

    def weighted(x: Any, low: Any, high: Any) -> Any:
        weights = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
        return graphc.ops.sum(fake(x, low, high, num_bits=4, axis=1) * weights)

    module = graphc.trace(weighted, graphc.Spec((3, 3)), graphc.Spec((3,)), graphc.Spec((3,)))
    gradients = [[[1.0, 2.0, 0.0], [0.0, 0.0, 6.0], [0.0, 8.0, 0.0]], [4.0, 0.0, 3.0], [7.0, 5.0, 9.0]]
    for number, gradient in enumerate(gradients):
        found = graphc.compile(graphc.grad(module, wrt=number))(x, low, high)
        np.testing.assert_allclose(found, gradient, atol=1e-6)
