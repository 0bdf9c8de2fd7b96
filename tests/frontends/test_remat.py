"""`remat` and `RematScope`: which ops are marked as blocks to be computed again, and that nothing else changes."""

import numpy as np
import pytest

import graphc
from graphc import layers, ops
from graphc.ir.analysis.remat_blocks import remat_blocks, remat_border
from graphc.passes import run_passes


def names(module):
    return {number: [op.name for op in block] for number, block in remat_blocks(module.main.block).items()}


def borders(module):
    return [remat_border(op) for op in module.main.block if remat_border(op) is not None]


def block(x):
    return ops.sin(ops.exp(x) * 2)


def test_a_function_is_a_block():
    def plain(x):
        return ops.tanh(block(ops.cos(x)))

    def marked(x):
        return ops.tanh(graphc.remat(block)(ops.cos(x)))

    module = graphc.trace(marked, graphc.Spec(("B", 3)))
    module.verify()
    assert names(module) == {0: ["exp", "mul", "sin"]}
    assert borders(module) == [(0, "in"), (0, "out")]
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(graphc.interpret(module, x), plain(x))
    assert names(graphc.parse(str(module))) == names(run_passes(module, "canonicalize")) == names(module)


def test_nested_blocks_captures_and_several_results():
    def fn(x, y):
        def outer(a):
            inner = graphc.remat(block)(a)
            return {"sum": inner + y, "last": ops.cos(inner)}

        found = graphc.remat(outer)(x)
        return found["sum"], found["last"]

    module = graphc.trace(fn, graphc.Spec((3,)), graphc.Spec((3,)))
    module.verify()
    assert names(module) == {0: ["exp", "mul", "sin"], 1: ["exp", "mul", "sin", "add", "cos"]}
    assert borders(module).count((1, "in")) == 2


def test_blocks_of_one_number_in_copies_do_not_join():
    text = """
    func @f(%x: f32[2] input) -> f32[2] {
      %0 = name %x {tag = "remat/0/in"} : f32[2]
      %1 = sin %0 : f32[2]
      %2 = name %1 {tag = "remat/0/out"} : f32[2]
      %3 = exp %2 : f32[2]
      %4 = name %3 {tag = "remat/0/in"} : f32[2]
      %5 = cos %4 : f32[2]
      %6 = name %5 {tag = "remat/0/out"} : f32[2]
      return %6
    }"""
    assert names(graphc.parse(text)) == {0: ["sin", "cos"]}


def model(**scope):
    with graphc.RematScope(**scope):
        x = graphc.Input((4,))
        y = layers.Dense(8, activation="tanh", name="wide")(x)
        y = layers.Dense(2, name="narrow")(y)
    return graphc.Model(x, y)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, {0: ["linear", "tanh"], 1: ["linear"]}),
        ({"mode": "activations"}, {0: ["tanh"]}),
        ({"mode": "larger_than", "output_size_threshold": 4}, {0: ["linear", "tanh"]}),
        ({"mode": "list_of_layers", "layer_names": ["narrow"]}, {0: ["linear"]}),
        ({"mode": None}, {}),
    ],
)
def test_modes_of_the_scope(scope, expected):
    module = graphc.lower(model(**scope))
    module.verify()
    assert names(module) == expected
    assert names(graphc.lower(model(**scope), training=True)) == expected


def test_emitted_code_is_the_plain_model(tmp_path):
    marked = model()
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    for target in ("numpy", "torch"):
        exe = graphc.compile(marked, target)
        np.testing.assert_allclose(exe(x), graphc.interpret(graphc.lower(marked), x), rtol=1e-5)
        assert "remat" not in exe.source


def test_dropout_and_batch_norm_inside():
    @graphc.remat
    def body(x):
        return drop(norm(dense(x), training=True), training=True)

    dense, norm, drop = layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5)

    class Net(graphc.Model):
        def __init__(self):
            super().__init__()
            self.parts = [dense, norm, drop]

        def call(self, x):
            return body(x)

    net = Net()
    net(np.ones((2, 3), np.float32))
    module = graphc.lower(net, training=True)
    module.verify()
    assert [r.updates.name for r in module.main.results if r.updates] != []
    assert len(names(module)[0]) >= 3


def test_in_a_functional_model_and_on_arrays():
    x = graphc.Input((3,))
    module = graphc.lower(graphc.Model(x, graphc.remat(block)(x)))
    assert names(module) == {0: ["exp", "mul", "sin"]}
    np.testing.assert_array_equal(graphc.remat(block)(np.ones(2, np.float32)), block(np.ones(2, np.float32)))


def test_mistakes():
    with pytest.raises(graphc.GraphcError, match=r"the mode of RematScope is one of full, .* not 'some'"):
        graphc.RematScope("some")
