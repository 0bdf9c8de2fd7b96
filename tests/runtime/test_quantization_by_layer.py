"""GPTQ and AWQ: the algorithms by themselves, on models, through `Model.quantize`; formats by a budget; mistakes."""

import itertools
from typing import Any

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, layers, quantizers
from graphc.ir import ops
from graphc.ir.errors import GraphcError, ShapeError, UnsupportedError
from graphc.ir.formats import parse_format
from graphc.ir.formats.shapes import as_rows
from graphc.passes.quantization.sizes import stored_sizes
from graphc.passes.quantization.targets import channel_axes
from graphc.runtime.quantization import planning
from graphc.runtime.quantization.awq import AWQOptions
from graphc.runtime.quantization.gptq import GPTQ, damped, gptq
from graphc.runtime.quantization.layerwise import by_layer, groups
from graphc.runtime.quantization.moments import measured, patches
from graphc.runtime.quantization.observing import batches
from graphc.runtime.quantization.planning import Probe, Sensitivity, chosen_plan, divergence
from graphc.runtime.quantization.rounding import Grid, nearest_values, output_error

TARGETS = ["numpy", "torch", "onnx", "jax"]
FORMATS = ["int4", "int4{block=none}", "int3{block=16}", "uint4{block=64}", "uint3", "int8", "int8{asymmetric}"]


def correlated(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Inputs of which some are large, and which depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width)) / np.sqrt(width) + np.eye(width)
    return rng.standard_normal((rows, width)) @ mixing * np.exp(rng.standard_normal(width))


def problem(width: int = 96, outputs: int = 24) -> tuple[np.ndarray, np.ndarray]:
    x = correlated(400, width)
    return np.random.default_rng(1).standard_normal((outputs, width)), x.T @ x


class Tied(layers.Embedding):
    """A table of which the outputs are made too."""

    def call(self, inputs, reverse=False):
        return ops.matmul(inputs, graphc.ops.transpose(self.embeddings)) if reverse else super().call(inputs)


def language_model() -> Model:
    """Look-up, a normalization and a gated MLP, a normalization and the table again."""
    graphc.utils.set_random_seed(0)
    tokens = Input((6,), dtype="int32", name="tokens")
    table = layers.Embedding(24, 32, embeddings_initializer="random_normal", name="table")
    x = table(tokens)
    y = layers.RMSNormalization(name="norm")(x * 20)
    gate = layers.Dense(48, activation="silu", use_bias=False, name="gate")(y)
    x = x + layers.Dense(32, use_bias=False, name="down")(gate * layers.Dense(48, use_bias=False, name="up")(y))
    x = layers.LayerNormalization(name="last_norm")(x)
    return Model(tokens, layers.Dense(24, name="out")(x), name="language")


def tokens(count: int = 64) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 24, (count, 6)).astype(np.int32)


def image_model() -> Model:
    graphc.utils.set_random_seed(0)
    image = Input((8, 8, 4), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(8, 3, groups=2, activation="relu", name="grouped")(x)
    return Model(image, layers.Dense(3, name="out")(layers.Flatten()(x)), name="images")


def images(count: int = 48) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 8, 8, 4)).astype(np.float32)


# --- the algorithm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", FORMATS)
def test_errors_in_outputs_shrink(text: str) -> None:
    w, second = problem()
    form = parse_format(text)
    grid = Grid.of(form, w.shape[1])
    shape = w.T.shape
    plain = form.dequantize(*form.quantize(w.T), shape=shape).T
    errors = [output_error(plain - w, second)]
    for found in (
        nearest_values(w, grid, np.diag(second)),
        gptq(w, second, grid, GPTQ(damping=1e-6)),
        gptq(w, second, grid, GPTQ(damping=1e-6, sweeps=3)),
    ):
        errors.append(output_error(found.values - w, second))
        back = form.dequantize(*found.arrays(form, shape), shape=shape).T
        np.testing.assert_allclose(back, found.values, rtol=1e-6, atol=0)  # int8's scales are float32
    assert errors[1] <= errors[0]
    assert errors[2] < min(0.8 * errors[0], 0.9 * errors[1])
    assert errors[3] <= errors[2]
    assert output_error(gptq(w, second, grid, GPTQ(act_order=True)).values - w, second) < 0.9 * errors[1]


def test_gptq_is_what_the_inverse_hessian_says() -> None:
    """Column by column, with the inverse of what is left computed anew each time: equation (2) of the paper."""
    w, second = problem(width=40, outputs=7)
    grid = Grid.of(parse_format("int4{block=64}"), 40)
    found = gptq(w, second, grid, GPTQ(lazy=16))
    h, left = damped(second, 0.01), w.copy()
    scale, zero = grid.fitted(w, np.diag(h))
    for i in range(40):
        inverse = np.linalg.inv(h[i:, i:])
        value = grid.rounded(left[:, i], scale, zero)
        left[:, i + 1 :] -= ((left[:, i] - value) / inverse[0, 0])[:, None] * inverse[0, 1:]
        left[:, i] = value
    np.testing.assert_allclose(found.values, left, atol=1e-9)


@pytest.mark.parametrize("act_order", [False, True])
def test_errors_are_passed_on_lazily(act_order: bool) -> None:
    w, second = problem()
    grid = Grid.of(parse_format("uint3{block=32}"), 96)
    wanted = gptq(w, second, grid, GPTQ(act_order=act_order, lazy=96)).values
    for lazy in (1, 20, 32, 128):
        found = gptq(w, second, grid, GPTQ(act_order=act_order, lazy=lazy)).values
        np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("second", [np.zeros((20, 20)), np.diag([1.0] + [0.0] * 19), np.ones((20, 20)) * 1e12])
def test_inputs_that_say_nothing(second: np.ndarray) -> None:
    w = np.random.default_rng(0).standard_normal((4, 20))
    found = gptq(w, second, Grid.of(parse_format("int4"), 20), GPTQ(sweeps=1))
    assert np.isfinite(found.values).all()
    assert np.abs(found.values).max() < 10


def test_only_some_formats_have_a_grid() -> None:
    for text in ("nf4", "q4_0", "int8{tensor}"):
        with pytest.raises(UnsupportedError, match="GPTQ and AWQ"):
            Grid.of(parse_format(text), 64)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": (2, 1), "padding": "same"},
        {"dilation": (2, 2), "padding": ((1, 0), (2, 1))},
        {"groups": 2},
        {"channels_last": False, "groups": 3, "padding": "same", "strides": (3, 2)},
    ],
)
def test_patches_are_what_convolutions_see(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    channels_last, count = options.get("channels_last", True), options.get("groups", 1)
    x = rng.standard_normal((2, 9, 8, 6) if channels_last else (2, 6, 9, 8))
    kernel = rng.standard_normal((3, 2, 6 // count, 12))
    module = graphc.trace(
        lambda x, kernel: ops.conv(x, kernel, **options),
        graphc.Spec(x.shape, "float64"),
        graphc.Spec(kernel.shape, "float64"),
    )
    attributes = next(op for op in module.main.block if op.name == "conv").attribute_dict
    found = patches(x, (3, 2), attributes)
    rows = np.stack(np.split(as_rows(kernel, 3), count))
    y = np.concatenate(list(found @ rows.transpose(0, 2, 1)), -1)
    wanted = np.asarray(graphc.interpret(module, x, kernel))
    wanted = wanted if channels_last else np.moveaxis(wanted, 1, -1)
    np.testing.assert_allclose(y, wanted.reshape(-1, 12), atol=1e-12)


# --- models -----------------------------------------------------------------------------------------------------------


def change(module: Any, model: Model, x: np.ndarray) -> float:
    return float(np.mean(np.square(graphc.compile(module)(x) - graphc.compile(model)(x))))


@pytest.mark.parametrize(("method", "share"), [("gptq", 0.8), ("awq", 1.0)])
@pytest.mark.parametrize("text", ["int4{block=16}", "uint3"])
def test_models_change_less_than_by_rounding(method: Any, share: float, text: str) -> None:
    for model, x in ((language_model(), tokens()), (image_model(), images())):
        plain = change(graphc.quantize(model, text), model, x)
        module = graphc.quantize(model, text, method=method, data=x, batch_size=20)
        assert change(module, model, x) < share * plain, (model.name, method, text)
        forms = {size.name: size.form for size in stored_sizes(module)}
        assert forms["out/kernel"].startswith((parse_format(text).name, "awq"))


@pytest.mark.parametrize("target", TARGETS)
def test_every_target(target: str) -> None:
    """Scales that were searched for may be negative, which kernels of four bits take too."""
    needs(target)
    model, x = language_model(), tokens()
    for text, method in (("int3", "gptq"), ("int4{block=32}", "gptq"), ("int3", "awq"), ("int4", "awq")):
        module = graphc.quantize(model, text, method=method, data=x)  # type: ignore[arg-type]
        assert method == "awq" or module.weights["down/kernel_scales"].min() < 0
        wanted = graphc.interpret(module, x[:8])
        found = graphc.compile(module, target=target)(x[:8])
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=f"{text} {method}")


def test_awq_folds_into_normalizations_and_keeps_other_factors() -> None:
    model, x = language_model(), tokens()
    module = graphc.quantize(model, "int3{block=16}", method="awq", data=x)
    forms = {size.name: size.form for size in stored_sizes(module)}
    assert forms["gate/kernel"] == forms["up/kernel"] == "int3{block=16}"
    assert np.any(module.weights["norm/scale"] != model.get_layer("norm").scale.numpy())
    assert forms["down/kernel"] == "awq{bits=3,block=16}"
    assert module.weights["down/kernel_factors"].dtype == np.float16


def test_layers_are_calibrated_on_what_quantized_ones_give() -> None:
    model, x = language_model(), tokens()
    module = graphc.lower(model)
    axes = channel_axes(module)
    forms = {name: parse_format("int3") for name in ("gate/kernel", "up/kernel", "down/kernel")}
    assert groups(module, {name: axes[name] for name in forms}) == [["gate/kernel", "up/kernel"], ["down/kernel"]]
    calls = batches(module.main, x)
    found = by_layer(module, forms, axes, calls, GPTQ())
    for name in ("gate/kernel", "up/kernel"):
        shape = module.weights[name].shape
        module.weights.set(name, forms[name].dequantize(*found.arrays[name], shape=shape))
    moments = measured(module, ["down/kernel"], axes, calls)["down/kernel"]
    w = module.weights["down/kernel"].T.astype(np.float64)
    wanted = gptq(w, moments.second[0], Grid.of(forms["down/kernel"], w.shape[1]), GPTQ())
    for one, other in zip(found.arrays["down/kernel"], wanted.arrays(forms["down/kernel"], (48, 32)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_table_that_outputs_are_made_of() -> None:
    graphc.utils.set_random_seed(0)
    inputs = Input((6,), dtype="int32")
    table = Tied(24, 32, embeddings_initializer="random_normal", name="table")
    model = Model(inputs, table(layers.RMSNormalization()(table(inputs)), reverse=True))
    module = graphc.lower(model)
    moments = measured(module, ["table/embeddings"], channel_axes(module), batches(module.main, tokens()))
    assert moments["table/embeddings"].count == 64 * 6
    plain = change(graphc.quantize(model, "int3"), model, tokens())
    assert change(graphc.quantize(model, "int3", method="gptq", data=tokens()), model, tokens()) < plain


# --- Model.quantize ---------------------------------------------------------------------------------------------------


def test_configurations_of_keras() -> None:
    texts = ["abcdefabcdef", "fedcba" * 10]

    def tokenizer(text: str) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    for config in (
        quantizers.GPTQConfig(texts, tokenizer, num_samples=8, sequence_length=6, group_size=16, weight_bits=3),
        quantizers.GPTQConfig(texts, tokenizer, num_samples=8, group_size=-1, symmetric=True, activation_order=True),
        quantizers.GPTQConfig(tokens(20), num_samples=8, weight_bits=8),
        quantizers.AWQConfig(texts, tokenizer, num_samples=8, group_size=32, num_grid_points=5),
    ):
        model = language_model()
        wanted = graphc.compile(model)(tokens())
        model.quantize(config.mode, config=config)
        found = graphc.compile(model)(tokens())
        assert 0 < np.mean(np.square(found - wanted)) < 0.2 * np.mean(np.square(wanted))
        np.testing.assert_allclose(model.predict(tokens(), verbose=0), found, atol=1e-5)
        with pytest.raises(GraphcError, match="quantized already"):
            model.quantize(config=config)
        again = quantizers.deserialize(quantizers.serialize(config))
        assert again.get_config() == config.get_config()
    forms = {size.name: size.form for size in stored_sizes(graphc.lower(model))}
    assert forms["gate/kernel"] == "uint4"
    assert forms["down/kernel"].startswith("awq{asymmetric") or forms["down/kernel"].startswith("awq{block")


def test_configurations_on_arrays() -> None:
    model = image_model()
    model.quantize(config=quantizers.GPTQConfig(images(), group_size=32, num_samples=20), filters="out|first")
    forms = {size.name: size.form for size in stored_sizes(graphc.lower(model))}
    assert forms["first/kernel"].startswith("uint4")
    assert forms["grouped/kernel"] == "float32"


def test_mistakes_in_configurations() -> None:
    for wrong, said in (
        ({"weight_bits": 2}, "3, 4 or 8"),
        ({"num_samples": 0}, "num_samples"),
        ({"hessian_damping": 2.0}, "hessian_damping"),
        ({"group_size": 0}, "group_size"),
        ({"per_channel": False}, "per_channel"),
    ):
        with pytest.raises(GraphcError, match=said):
            quantizers.GPTQConfig(tokens(), **wrong)
    with pytest.raises(GraphcError, match="3 or 4"):
        quantizers.AWQConfig(tokens(), weight_bits=8)
    model = language_model()
    for mode, name in (("gptq", "GPTQConfig"), ("awq", "AWQConfig")):
        with pytest.raises(GraphcError, match=name):
            model.quantize(mode)
    for dataset, said in (
        ([], "empty"),
        (None, "no dataset"),
        (["abc"], "give a tokenizer"),
        ([[1, 2]], "2 tokens"),
        ([[0.5] * 9], "integers"),
        ("abc", "an iterable of texts"),
    ):
        with pytest.raises(GraphcError, match=said):
            model.quantize(config=quantizers.GPTQConfig(dataset))
    with pytest.raises(GraphcError, match="not finite"):
        image_model().quantize(config=quantizers.GPTQConfig(images() * np.nan))


# --- formats by a budget ----------------------------------------------------------------------------------------------


def test_the_choice_is_the_best_there_is() -> None:
    rng = np.random.default_rng(0)
    found = [
        Sensitivity(f"w{i}", form, int(size * (1 + i)), float(rng.uniform(0, 1) / size))
        for i in range(5)
        for form, size in (("int3", 30), ("int4", 45), ("int8", 80))
    ]
    by_weight = [found[i : i + 3] for i in range(0, 15, 3)]
    choices = [(sum(s.bytes for s in c), sum(s.growth for s in c)) for c in itertools.product(*by_weight)]
    for budget in (450, 500, 640, 800, 1200):
        plan = chosen_plan(found, 15 * 80, budget)
        best = min(growth for size, growth in choices if size <= budget)
        np.testing.assert_allclose(plan.growth, best, rtol=1e-6)
        assert plan.bytes <= budget
    with pytest.raises(GraphcError, match=r"449 bytes .* cannot be kept.* at least 450 bytes \(3.00 bits\)"):
        chosen_plan(found, 15 * 80, 449)


def test_a_plan_keeps_its_budget_and_beats_one_format() -> None:
    model, x = language_model(), tokens()
    plain = graphc.quantize(model, "int4{block=16}")
    budget = sum(size.bytes for size in stored_sizes(plain) if size.form != "float32")
    plan = graphc.quantization_plan(
        model, x, budget, formats=("int3{block=16}", "int4{block=16}", "uint4{block=32}", "int8")
    )
    module = graphc.quantize(model, plan.formats, method="gptq", data=x)
    assert sum(size.bytes for size in stored_sizes(module) if size.name in plan.formats) == plan.bytes <= budget
    wanted = graphc.compile(model)(x)
    assert divergence(graphc.compile(module)(x), wanted) < divergence(graphc.compile(plain)(x), wanted)
    smaller = plan.within(4.3)
    assert smaller.bits <= 4.3 < plan.bits
    assert smaller.growth > plan.growth
    nearest = graphc.quantize(model, smaller.formats)
    assert {size.name: size.form.partition("{")[0] for size in stored_sizes(nearest) if size.form != "float32"} == {
        name: form.partition("{")[0] for name, form in smaller.formats.items()
    }


def test_one_format_of_each_weight_is_measured(monkeypatch: Any) -> None:
    """Others follow from the errors of outputs, and are near what measuring them gives."""
    model, x = language_model(), tokens()
    runs: list[int] = []
    growth = Probe.growth

    def counted(self: Probe, arrays: Any) -> float:
        runs.append(len(arrays))
        return growth(self, arrays)

    monkeypatch.setattr(Probe, "growth", counted)
    formats = ("int3", "int4{block=16}", "int4", "int8")
    plan = graphc.quantization_plan(model, x, 4.6, formats=formats)
    count = len(plan.formats)
    assert runs[:count] == [1] * count
    assert set(runs[count:]) == {count}
    assert len(runs) <= count + len(formats)
    module = graphc.lower(model)
    axes = channel_axes(module)
    probe = Probe(module, list(axes), axes, batches(module.main, x), divergence, GPTQ())
    ratios = []
    for each in plan.sensitivities:
        array, _ = probe.quantized(each.name, parse_format(each.format))
        wanted = probe.growth({each.name: array})
        if each.format != "int8":
            ratios.append(each.growth / wanted)
    assert 0.8 < np.median(ratios) < 1.25
    assert 0.3 < min(ratios) < max(ratios) < 3
    together = {n: probe.quantized(n, parse_format(form))[0] for n, form in plan.formats.items()}
    np.testing.assert_allclose(plan.growth, probe.growth(together), rtol=1e-9)


def test_a_single_format_is_taken_where_it_loses_less(monkeypatch: Any) -> None:
    """Growths that mislead the choice are found out when it is run as a whole."""

    def misled(probe: Probe, names: Any, forms: Any) -> Any:
        return tuple(
            Sensitivity(name, str(form), probe.bytes(name, form), 0.0 if form.name == "int3" else 1.0)
            for name in names
            for form in forms
        )

    monkeypatch.setattr(planning, "sensitivities", misled)
    plan = graphc.quantization_plan(language_model(), tokens(), 8.5, formats=("int3", "int4{block=16}"))
    assert set(plan.formats.values()) == {"int4{block=16}"}
    module = graphc.quantize(language_model(), plan.formats)
    assert plan.bytes == sum(size.bytes for size in stored_sizes(module) if size.name in plan.formats)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes() -> None:
    model, x = image_model(), images(4)
    for data, kind, said in (
        (x[:0], GraphcError, "empty"),
        ([], GraphcError, "empty"),
        (x * np.nan, GraphcError, "not finite"),
        (x[:, :4], ShapeError, "image"),
        (None, GraphcError, "give `data`"),
    ):
        with pytest.raises(kind, match=said):
            graphc.quantize(model, "int4", method="gptq", data=data)
        if data is not None:
            with pytest.raises(kind, match=said):
                graphc.quantization_plan(model, data, 4.5)
    for wrong, said in (
        ({"options": {"dampng": 1}}, "no option 'dampng'"),
        ({"options": {"damping": "0.1"}}, "damping of gptq is a number from 0.0 on, not '0.1'"),
        ({"options": {"damping": float("nan")}}, "damping of gptq is a number from 0.0 on, not nan"),
        ({"options": {"sweeps": -1}}, "sweeps of gptq is an integer from 0 on, not -1"),
        ({"options": {"act_order": 1}}, "act_order of gptq is True or False, not 1"),
        ({"options": {"points": 0}, "method": "awq"}, "points of awq is an integer from 1 on, not 0"),
        ({"format": "awq{bits=4,block=32}", "method": "awq"}, "method='awq' makes that of int3 and int4"),
        ({"targets": "frist"}, "matches nothing"),
        ({"format": "nf4"}, "GPTQ and AWQ find"),
        ({"activations": "dynamic"}, "leave activations"),
        ({"format": {"frist": "int4"}}, "matches nothing"),
        ({"format": {}}, "no weight"),
        ({"format": {"out": "int4"}, "exclude": "out"}, "leave targets and exclude out"),
    ):
        with pytest.raises(GraphcError, match=said):
            graphc.quantize(model, **{"format": "int4", "method": "gptq", "data": x, **wrong})
    done = graphc.quantize(model, "int4", targets="out")
    with pytest.raises(GraphcError, match="quantized already"):
        graphc.quantize(done, "int4", method="gptq", data=x, targets="out")
    with pytest.raises(GraphcError, match=r"cannot be kept.*at least"):
        graphc.quantization_plan(model, x, 2.0)
    with pytest.raises(GraphcError, match="no formats"):
        graphc.quantization_plan(model, x, 4.0, formats=())
    for budget in ("20 potatoes", float("nan"), -3, None, True):
        with pytest.raises(GraphcError, match=r"is not a size|a budget is a number of bits"):
            graphc.quantization_plan(model, x, budget)
    with pytest.raises(GraphcError, match="damping of gptq"):
        graphc.quantization_plan(model, x, 4.5, options={"damping": -1})
    with pytest.raises(GraphcError, match="'kl', 'mse'"):
        graphc.quantization_plan(model, x, 4.5, loss="ce")
    assert AWQOptions().points == 20
