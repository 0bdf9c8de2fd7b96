"""What the artifacts of the source targets do: control flow, updates, entries, sharing, sizes, without graphc."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from codegen_models import B, module_of, residual_network, training_step, transformer, with_drawn_weights

from graphc.codegen import target as find_target
from graphc.codegen.compiler import write_artifact
from graphc.frontends import Input, layers, lower
from graphc.frontends.model import Model
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import symbol
from graphc.ir.errors import FormatError, UnsupportedError
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.ops.control import call_function, cond, scan, while_loop
from graphc.ir.types import TensorType

TARGETS = ("numpy", "torch", "jax")


@pytest.fixture(params=TARGETS)
def target(request):
    return request.param


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def load(module, target, folder):
    write_artifact(module, target, folder)
    return find_target(target).load(folder).entries


def assert_agrees(module, target, folder, *calls):
    run = load(module, target, folder)[module.main.name]
    for arrays in calls:
        wanted = interpret(module, *arrays)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for got, want in zip(run(*arrays), wanted, strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# --- control flow -----------------------------------------------------------------------------------------------

X = ("x", "float32", (B, 3))


def branches(x, holds):
    return cond(holds, lambda: ops.exp(x) + 1.0, lambda: x * 2.0)


def switch(x, index):
    y = ops.sin(x)
    one, two = cond(index, lambda: (y + 1.0, x), lambda: (y * 2.0, ops.exp(x)), lambda: (x, y))
    return one + two


def repeated(x, count):
    return while_loop(lambda i, y: ops.lt(i, count), lambda i, y: (i + 1, y * 1.5 + x), [np.int32(0), x])


def swapped(x, limit):
    def small(a, b):
        return ops.lt(ops.reduce_sum(ops.abs(a), axes=(0, 1)), limit)

    return while_loop(small, lambda a, b: (b, a * 2.0 + b), [ops.exp(x), x])


def recurrent(x, rows, *, reverse=False):
    (state,), (stacked,) = scan(
        lambda c, s: ((ops.tanh(c[0] + s[0] * x),), (c[0] * s[0],)), [ops.exp(x)], [rows], reverse=reverse
    )
    return state, stacked, x


def counted(x):
    return scan(lambda c, s: ((c[0] * 1.1,), ()), [x], [], length=4)[0]


def nested(x, weight):
    def step(i, y):
        return i + 1, cond(ops.lt(i, 2), lambda: y @ weight, lambda: ops.relu(y) @ weight + 1.0)

    return while_loop(lambda i, y: ops.lt(i, 4), step, [np.int32(0), x])[1]


FLOW = {
    "cond": (branches, [X, ("p", "bool", ())], [(drawn(2, 3), np.array(True)), (drawn(4, 3), np.array(False))]),
    "switch": (switch, [X, ("i", "int32", ())], [(drawn(2, 3), np.int32(i)) for i in (-1, 0, 1, 2, 7)]),
    "while": (repeated, [X, ("n", "int32", ())], [(drawn(2, 3), np.int32(n)) for n in (0, 3)]),
    "swap": (swapped, [X, ("n", "float32", ())], [(drawn(2, 3), np.float32(100))]),
    "scan": (recurrent, [X, ("rows", "float32", (5, B, 3))], [(drawn(2, 3), drawn(5, 2, 3))]),
    "count": (counted, [X], [(drawn(2, 3),)]),
}


@pytest.mark.parametrize("name", FLOW)
def test_control_flow(name, target, tmp_path):
    body, inputs, calls = FLOW[name]
    assert_agrees(module_of(body, inputs), target, tmp_path / "a", *calls)


def test_a_scan_from_the_end(target, tmp_path):
    module = module_of(lambda x, rows: recurrent(x, rows, reverse=True), FLOW["scan"][1])
    assert_agrees(module, target, tmp_path / "a", *FLOW["scan"][2])


def test_regions_in_regions_read_weights(target, tmp_path):
    module = module_of(nested, [X], {"cell/weight": drawn(3, 3, seed=1)})
    assert_agrees(module, target, tmp_path / "a", (drawn(2, 3),))


# --- state, entries, sharing --------------------------------------------------------------------------------------


def test_a_training_step_updates_the_weight_for_all_entries(target, tmp_path):
    module = training_step()
    entries = load(module, target, tmp_path / "a")
    x, y = drawn(4, 3), drawn(4, 2, seed=1)
    kernel = module.weights["dense/kernel"]
    for _ in range(3):
        reference = module.clone()
        reference.weights.set("dense/kernel", kernel)
        loss, kernel_after, before = interpret(reference, x, y)
        got_loss, got_before = entries["main"](x, y)
        np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
        np.testing.assert_allclose(got_before, before, rtol=1e-5)
        np.testing.assert_allclose(entries["predict"](x)[0], x @ kernel_after, rtol=1e-4, atol=1e-5)
        kernel = kernel_after


def test_states_are_swapped_after_every_read(target, tmp_path):
    module = Module()
    function = module.add_function("main")
    x = function.add_parameter(TensorType.of("float32", (2,)), "x")
    values = []
    for i, name in enumerate("ab"):
        module.weights.add(name, drawn(2, seed=i))
        values.append(function.add_parameter(TensorType.of("float32", (2,)), name, "state", name))
    with Builder(function.block) as builder:
        a, b = values
        builder.finish([b, a, x + a, ops.reshape(a, shape=(2, 1))])
    function.results = [Result(None, function.parameters[1]), Result(None, function.parameters[2]), Result(), Result()]
    run = load(module, target, tmp_path / "a")["main"]
    a, b = module.weights["a"], module.weights["b"]
    for _ in range(3):
        y, view = run(np.zeros(2, np.float32))
        np.testing.assert_array_equal(y, a)
        np.testing.assert_array_equal(view[:, 0], a)
        a, b = b, a


def test_a_layer_called_twice_is_one_module():
    first, second = Input((6,), name="first"), Input((6,), name="second")
    encoder = layers.Dense(5, activation="relu", name="encoder")
    model = Model([first, second], layers.Dense(3, name="head")(encoder(first) + encoder(second)))
    text = source_of(lower(model), "torch")
    assert text.count("self.encoder = nn.Linear(6, 5)") == 1
    assert text.count("self.encoder(") == 2


def test_tied_weights_are_one_parameter(target, tmp_path):
    module = tied()
    assert_agrees(module, target, tmp_path / "a", (drawn(3, 4),))
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["tied"] == {"second/kernel": "first/kernel"}
    assert len(manifest["weights"]) == 1


def tied():
    module = Module()
    function = module.add_function("main")
    x = function.add_parameter(TensorType.of("float32", (B, 4)), "x")
    module.weights.add("first/kernel", drawn(4, 4))
    module.weights.tie("second/kernel", "first/kernel")
    with Builder(function.block) as builder:
        for layer in ("first", "second"):
            name = f"{layer}/kernel"
            kernel = function.add_parameter(TensorType.of("float32", (4, 4)), f"{layer}_kernel", "param", name)
            with builder.scope(layer):
                x = ops.linear(x, kernel)
        builder.finish([x])
    function.results = [Result()]
    return module


def test_tied_weights_in_torch_are_tied_in_the_class():
    text = source_of(tied(), "torch")
    assert "self.second.weight = self.first.weight" in text


# --- scopes that cannot be classes --------------------------------------------------------------------------------


def test_a_scope_that_is_not_convex_stands_in_its_parent(target, tmp_path):
    module = Module()
    function = module.add_function("main")
    x = function.add_parameter(TensorType.of("float32", (B, 4)), "x")
    kernels = []
    for name in ("block/a/kernel", "block/b/kernel", "other/c/kernel"):
        module.weights.add(name, drawn(4, 4, seed=len(kernels)))
        value = function.add_parameter(TensorType.of("float32", (4, 4)), name.replace("/", "_"), "param", name)
        kernels.append(value)
    with Builder(function.block) as builder:
        for scope, kernel in zip(("block/a", "other/c", "block/b"), (kernels[0], kernels[2], kernels[1]), strict=True):
            with builder.scope(scope):
                x = ops.tanh(ops.linear(x, kernel))
        builder.finish([x])
    function.results = [Result()]
    assert_agrees(module, target, tmp_path / "a", (drawn(3, 4),))
    text = (tmp_path / "a" / "model.py").read_text()
    assert "class Block" not in text and "def block" not in text


def test_calls_of_one_scope_that_differ_stand_in_the_parent(target, tmp_path):
    module = Module()
    function = module.add_function("main")
    x = function.add_parameter(TensorType.of("float32", (B, 4)), "x")
    module.weights.add("block/a/kernel", drawn(4, 4))
    kernel = function.add_parameter(TensorType.of("float32", (4, 4)), "kernel", "param", "block/a/kernel")
    with Builder(function.block) as builder:
        for call in (0, 1):
            with builder.scope("block", call):
                with builder.scope("a"):
                    x = ops.linear(x, kernel)
                x = ops.exp(x) if call else ops.tanh(x)
        builder.finish([x])
    function.results = [Result()]
    assert_agrees(module, target, tmp_path / "a", (drawn(3, 4),))


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [residual_network, transformer])
def test_symbolic_sizes_stay_symbolic(make, target, tmp_path):
    module = make(2)
    shapes = [(1, 8, 8, 3), (5, 8, 8, 3)] if make is residual_network else [(1, 3, 16), (2, 7, 16)]
    assert_agrees(module, target, tmp_path / "a", *((drawn(*shape),) for shape in shapes))


def test_a_guard_is_checked_at_entry(target, tmp_path):
    s = symbol("S")
    module = module_of(lambda x: ops.reshape(x, shape=(s // 2, 2)), [("x", "float32", (s,))])
    assert module.main.guards
    run = load(module, target, tmp_path / "a")["main"]
    assert run(drawn(6))[0].shape == (3, 2)
    with pytest.raises(ValueError, match=r"main needs .*S = 5"):
        run(drawn(5))


def test_sizes_that_are_data(tmp_path):
    n = symbol("N")

    def body(x, count):
        kept = ops.assume_dim(ops.exp(x), count, axis=0, size=n)
        return ops.reshape(kept, shape=(n * 3,)), ops.broadcast(ops.reduce_sum(kept, axes=(0,)), shape=(n, 3))

    module = module_of(body, [X, ("count", "int32", ())])
    for target in ("numpy", "torch"):
        assert_agrees(module, target, tmp_path / target, (drawn(5, 3), np.int32(2)))
    with pytest.raises(UnsupportedError, match="assume_dim"):
        write_artifact(module, "jax", tmp_path / "jax")


# --- files --------------------------------------------------------------------------------------------------------


def source_of(module, target):
    with tempfile.TemporaryDirectory() as folder:
        write_artifact(module, target, Path(folder) / "a")
        return (Path(folder) / "a" / "model.py").read_text()


RUN = """
import json, sys
sys.modules["graphc"] = None
import importlib.util
spec = importlib.util.spec_from_file_location("model", sys.argv[1] + "/model.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
model = module.load()
x = [[0.5] * 16] * 3
if sys.argv[2] == "torch":
    import torch
    y = model(torch.tensor([x, x])).detach()
else:
    import numpy as np
    y = model(np.array([x, x], np.float32))
assert not any(name.split(".")[0] == "graphc" and sys.modules[name] is not None for name in sys.modules)
print(json.dumps(y.tolist()))
"""


def test_an_artifact_runs_where_graphc_is_not(target, tmp_path):
    module = transformer(2)
    write_artifact(module, target, tmp_path / "a")
    command = [sys.executable, "-c", RUN, str(tmp_path / "a"), target]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = interpret(module, np.full((2, 3, 16), 0.5, np.float32))
    np.testing.assert_allclose(json.loads(done.stdout), wanted, atol=1e-5)


def test_the_manifest_leads_back_to_the_models_weights(target, tmp_path):
    from safetensors.numpy import load_file

    from graphc.codegen.artifact import read_manifest

    module = residual_network(2)
    write_artifact(module, target, tmp_path / "a")
    stored = load_file(str(tmp_path / "a" / "model.safetensors"))
    found = {}
    for name, recipe in read_manifest(tmp_path / "a").weights.items():
        found |= recipe.invert(stored[name])
    assert set(found) == set(module.weights)
    for name, array in found.items():
        np.testing.assert_array_equal(array, module.weights[name])


def test_a_tampered_file_is_refused(target, tmp_path):
    write_artifact(module_of(ops.exp, [X]), target, tmp_path / "a")
    with open(tmp_path / "a" / "model.py", "a") as file:
        file.write("\n")
    with pytest.raises(FormatError, match=r"model\.py"):
        find_target(target).load(tmp_path / "a")


def test_64_bit_types_are_kept(target, tmp_path):
    module = module_of(
        lambda x, i, w: (x * 2.0 + w, i * 3 + 1), [("x", "float64", (2,)), ("i", "int64", (2,))], {"w": np.ones(2) / 3}
    )
    arrays = np.array([1 / 3, 1e-300]), np.array([2**40, -5])
    run = load(module, target, tmp_path / "a")["main"]
    for got, want in zip(run(*arrays), interpret(module, *arrays), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    if target == "jax":
        import jax

        assert jax.numpy.asarray(1.0).dtype == "float32"  # the mode is scoped to the artifact's own call


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "uint8", "bool", "complex64"])
def test_weights_of_every_dtype_come_back(dtype, target, tmp_path):
    import ml_dtypes

    numpy = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    weight = np.array([[0, 1, 1], [1, 0, 1]]).astype(numpy)
    module = module_of(lambda x, w: ops.select(ops.eq(x, w), x, w), [("x", dtype, (2, 3))], {"layer/w": weight})
    (got,) = load(module, target, tmp_path / "a")["main"](np.ones((2, 3)).astype(numpy))
    assert got.dtype == numpy
    np.testing.assert_array_equal(got, weight)


# --- large graphs -------------------------------------------------------------------------------------------------


def chain(count):
    module = Module()
    function = module.add_function("main")
    x = function.add_parameter(TensorType.of("float32", (B, 8)), "x")
    with Builder(function.block) as builder:
        for _ in range(count // 4):
            x = ops.tanh(ops.sin(x * 0.5) + x)
        builder.finish([x])
    function.results = [Result()]
    return module


def test_ten_thousand_ops_without_scopes(target, tmp_path):
    module = chain(10_000)
    start = time.process_time()
    text = source_of(module, target)
    assert time.process_time() - start < 5
    assert max(map(len, text.splitlines())) <= 120
    if target != "jax":  # compiling it would take minutes
        assert_agrees(module, target, tmp_path / "a", (drawn(2, 8),))


def test_a_wide_fan_needs_no_quadratic_time():
    from graphc.codegen.source.writer import emit
    from graphc.codegen.torch.dialect import TorchDialect

    def fan(count):
        def body(x):
            values = [ops.sin(x) if i % 2 else ops.exp(x) for i in range(count // 2)]
            while len(values) > 1:
                pairs = zip(values[::2], values[1::2], strict=False)
                values = [a + b for a, b in pairs] + ([values[-1]] if len(values) % 2 else [])
            return values[0]

        return module_of(body, [X])

    def seconds(module):
        start = time.process_time()
        emit(module, TorchDialect())
        return time.process_time() - start

    small, large = fan(2_000), fan(16_000)
    assert min(seconds(large) for _ in range(2)) < 14 * min(seconds(small) for _ in range(3)) + 0.1


def test_weights_drawn_for_tests_are_the_same_every_time():
    one, two = transformer(1), with_drawn_weights(transformer(1))
    for name in one.weights:
        np.testing.assert_array_equal(one.weights[name], two.weights[name])


# --- functions ----------------------------------------------------------------------------------------------------


def test_a_function_that_is_called_is_a_function(target, tmp_path):
    module = Module()
    n = symbol("N")
    block = module.add_function("block", public=False)
    x = block.add_parameter(TensorType.of("float32", (n, 3)), "x")
    scale = block.add_parameter(TensorType.of("float32", (3,)), "scale")
    with Builder(block.block) as builder:
        builder.finish([ops.tanh(x * scale) + ops.broadcast(scale, shape=(n, 3)), ops.reduce_sum(x, axes=(0,))])
    block.results = [Result(), Result()]
    main = module.add_function("main")
    x = main.add_parameter(TensorType.of("float32", (B, 3)), "x")
    with Builder(main.block) as builder:
        scale = ops.exp(ops.reduce_max(x, axes=(0,)))
        for _ in range(2):
            x, scale = call_function(builder, block, (x, scale))
        builder.finish([x, scale])
    main.results = [Result(), Result()]
    assert_agrees(module, target, tmp_path / "a", (drawn(2, 3),))
    text = (tmp_path / "a" / "model.py").read_text()
    assert text.count("def block(x, scale)") == 1 and text.count("= block(x, ") == 2


def test_weights_may_be_read_by_whom_other_files_may(target, tmp_path):
    before = os.umask(0o027)
    try:
        write_artifact(lower(Model(x := Input((3,)), layers.Dense(2)(x))), target, tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(("model.py", "model.safetensors", "manifest.json"), 0o640)
