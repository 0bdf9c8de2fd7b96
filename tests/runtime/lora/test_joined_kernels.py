"""Frozen kernels of integers that blocks read side by side are stored so, where their format allows it."""

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, layers, losses, ops, optimizers
from graphc.ir.formats import parse_format
from graphc.ir.recipes import Recipe
from graphc.runtime.training.batches import batch_types
from graphc.runtime.training.step import record_training

JOINED = ["int4", "int4{block=32}", "uint4{block=16}", "int3{block=32}", "nf4", "int8", "uint8", "q8_0", "q4_0"]
APART = ["nf4{double=256}", "int8{tensor}", "awq{block=32}"]
QKV = ["q_proj/kernel", "k_proj/kernel", "v_proj/kernel"]
GATE_UP = ["gate_proj/kernel", "up_proj/kernel"]
X = np.random.default_rng(0).standard_normal((3, 5, 64)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((3, 5, 64)).astype(np.float32)


def adapted() -> tuple[Model, dict[str, graphc.Variable]]:
    """A network with three layers of one input and a gated MLP, adapters in all of them; and its frozen kernels."""
    graphc.utils.set_random_seed(0)
    x = Input((None, 64), name="x")
    q, k, v = (layers.Dense(n, use_bias=False, name=f"{name}_proj")(x) for name, n in (("q", 96), ("k", 96), ("v", 64)))
    y = x + layers.Dense(64, use_bias=False, name="o_proj")(ops.tanh(q) * k) + v
    gate = layers.Dense(96, activation="silu", use_bias=False, name="gate_proj")(y)
    hidden = gate * layers.Dense(96, use_bias=False, name="up_proj")(y)
    model = Model(x, layers.Dense(64, use_bias=False, name="down_proj")(hidden), name="net")
    model.add_adapter("default", r=4, alpha=8, targets="*_proj")
    rng = np.random.default_rng(0)
    for variable in model.trainable_weights:
        variable.assign(0.2 * rng.standard_normal(variable.shape).astype(np.float32))
    variables = dict(zip(graphc.lower(model).weights, model.weights, strict=True))
    return model, {name: variables[name] for name in (*QKV, *GATE_UP)}


def quantized(form: str, target: str = "numpy") -> tuple[Model, dict[str, graphc.Variable]]:
    """The network with these kernels in a format, compiled."""
    model, kernels = adapted()
    filters = ["^(q|k|v|gate|up)_proj$"]
    if form == "int8":  # by itself it would have products read integers
        model.quantize(config=graphc.quantizers.Int8QuantizationConfig(activation_quantizer=None), filters=filters)
    else:
        model.quantize(form, filters=filters)
    model.compile(optimizers.SGD(0.1), losses.MeanSquaredError(), target=target)
    return model, kernels


def recorded(model: Model):
    return graphc.run_passes(record_training(model, batch_types(model, X, Y), None).module, "dce")


def dequantized(module, stem, entry):
    """What the one `dequantize` that reads arrays of this stem gives, in float32; None if there is no such weight."""
    function = module.functions[entry]
    read = {p.value: p.weight for p in function.parameters if p.weight is not None and p.weight.startswith(stem)}
    found = {op for op in function.block if op.name == "dequantize" and op.operands[0] in read}
    if not read:
        return None
    (op,) = found
    arrays = [module.weights[read[value]] for value in op.operands]
    return ops.dequantize(*arrays, **op.attribute_dict)


@pytest.mark.parametrize("form", JOINED)
def test_joined_kernels_stand_for_the_same_numbers(form):
    model, kernels = quantized(form)
    module = recorded(model)
    for entry in ("forward", "train_step"):
        for stem, names in (("qkv_proj/", QKV), ("gate_up_proj/", GATE_UP)):
            whole = np.concatenate([kernels[name].numpy() for name in names], 1)
            np.testing.assert_array_equal(dequantized(module, stem, entry), whole)
    assert not any(name.startswith(kernel) for name in module.weights for kernel in QKV + GATE_UP)
    module.verify()
    parts = {n: w.recipe for n, w in ((w.name, w) for w in module.weights.entries()) if "qkv_proj" in n}
    arrays = [module.weights[name] for name in parts]
    for name, array in Recipe.invert_together(list(parts.values()), arrays).items():
        np.testing.assert_array_equal(array, kernels[name].numpy())


@pytest.mark.parametrize("form", APART)
def test_kernels_that_would_share_a_scale_stay_apart(form):
    model, kernels = quantized(form)
    module = recorded(model)
    assert not any("qkv_proj" in name or "gate_up_proj" in name for name in module.weights)
    for name, variable in kernels.items():
        np.testing.assert_allclose(dequantized(module, name, "train_step"), variable.numpy(), rtol=1e-6)


def test_blocks_that_would_hold_elements_of_two_kernels_are_not_joined():
    assert parse_format("nf4{block=64}").joined_axes([(8, 8), (8, 3)], 1) == (0, 0)
    assert parse_format("nf4{block=64}").joined_axes([(8, 3), (8, 8)], 1) is None
    assert parse_format("int4{block=32}").joined_axes([(64, 8), (64, 8)], 0) is None
    assert parse_format("int8").joined_axes([(64, 8), (64, 8)], 0) is None
    assert parse_format("int8{axis=0}").joined_axes([(64, 8), (64, 8)], 0) == (0, 0)
    assert parse_format("uint8").joined_axes([(64, 8), (64, 8)], 1) == (1, 0, 0)


@pytest.mark.parametrize("form", ["uint4{block=16}", "nf4", "uint8", "q8_0"])
@pytest.mark.parametrize("target", ["numpy", "torch"])
def test_one_of_joined_kernels_is_written_and_the_others_keep_their_integers(form, target):
    """Rounding again would change them: the ends of an asymmetric block need not occur among what it stands for."""
    needs(target)
    model, kernels = quantized(form, target)
    model.train_on_batch(X, Y)
    weights = model.executable().weights
    before = weights.read()
    assert set(QKV + GATE_UP) <= set(before)
    for name in QKV + GATE_UP:
        np.testing.assert_array_equal(before[name], kernels[name].numpy())
    changed = np.random.default_rng(5).standard_normal(before[QKV[1]].shape).astype(np.float32)
    weights[QKV[1]] = changed
    after = weights.read()
    expected = (
        parse_format(form).dequantize(*parse_format(form).quantize(changed), shape=changed.shape).astype(np.float32)
    )
    np.testing.assert_array_equal(after.pop(QKV[1]), expected)
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    weights.update(before)
    for name, array in weights.read().items():
        if name != QKV[1]:
            np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("form", ["int4", "nf4", "nf4{double=256}", "int8", "q8_0"])
def test_losses_are_those_of_floats_that_were_rounded(form):
    """On torch, three steps, beside the same network whose kernels are the floats that the integers stand for."""
    needs("torch")
    curves = []
    for stored in (True, False):
        model, kernels = quantized(form, "torch")
        if not stored:
            model, plain = adapted()
            for name, variable in plain.items():
                variable.assign(kernels[name].numpy())
            model.compile(optimizers.SGD(0.1), losses.MeanSquaredError(), target="torch")
        curves.append([float(model.train_on_batch(X, Y)) for _ in range(3)])
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-6)
