"""Python functions, name scopes, models and custom layers give scopes."""

import numpy as np

import graphc
from graphc import Input, Layer, Model, layers
from graphc.ir.graph import Op


def operations(model: Model) -> list[Op]:
    """The ops of the lowered model, without constants and the return."""
    return [op for op in graphc.lower(model).main.block if op.name not in ("constant", "return")]


def scopes(model: Model) -> list[str]:
    return [str(op.location.scope) for op in operations(model)]


def conv_bn(x: object, filters: int) -> object:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def residual(x: object) -> object:
    y = layers.ReLU()(conv_bn(x, 4))
    y = conv_bn(y, 4)
    y = layers.Dropout(0.1, name="drop")(y)
    return layers.ReLU()(x + y)


def network(blocks: int) -> Model:
    image = Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same")(image)
    for _ in range(blocks):
        x = residual(x)
    return Model(image, layers.GlobalAveragePooling2D()(x))


def test_each_invocation_of_a_function_is_a_scope() -> None:
    found = scopes(network(12))
    block = [
        "conv_bn/conv2d", "conv_bn/batch_normalization", "re_lu",
        "conv_bn_1/conv2d", "conv_bn_1/batch_normalization", "", "re_lu_1",
    ]  # fmt: skip
    names = ["residual", *(f"residual_{i}" for i in range(1, 12))]
    expected = ["conv2d"]
    for name in names:
        expected += [f"{name}/{inner}".rstrip("/") for inner in block]
    assert found == [*expected, "global_average_pooling2d"]


def test_weights_of_equal_blocks_have_equal_inner_names() -> None:
    names = [name for name in graphc.lower(network(3)).weights if name.startswith("residual")]
    inner = [name.split("/", 1)[1] for name in names]
    assert len(inner) == 30 and inner[:10] == inner[10:20] == inner[20:]
    assert inner[0] == "conv_bn/conv2d/kernel"


def test_functions_around_the_whole_model_do_not_count() -> None:
    def outer() -> Model:
        def middle() -> Model:
            return network(1)

        return middle()

    assert scopes(outer())[0] == "conv2d"


def test_models_of_two_calls_are_alike() -> None:
    first, second = network(2), network(2)
    assert list(graphc.lower(first).weights) == list(graphc.lower(second).weights)
    assert scopes(first) == scopes(second)


def test_functions_that_call_only_ops_are_not_scopes() -> None:
    def swish(x: object) -> object:
        return x * graphc.ops.sigmoid(x)

    x = Input((3,))
    assert scopes(Model(x, layers.Dense(2)(swish(layers.Dense(3)(x))))) == ["dense", "", "", "dense_1"]


def test_name_scope() -> None:
    x = Input((3,))
    y = x
    for _ in range(2):
        with graphc.name_scope("stage"):
            y = layers.Dense(3)(y)
            with graphc.name_scope("inner"):
                y = layers.Dense(3)(y)
    model = Model(x, layers.Dense(3)(y))
    assert scopes(model) == ["stage/dense", "stage/inner/dense", "stage_1/dense", "stage_1/inner/dense", "dense"]
    assert model.get_layer("stage_1/inner/dense") is model.layers[4]


def test_a_given_name_may_repeat_in_different_functions() -> None:
    def branch(x: object) -> object:
        return layers.Dense(3, name="same")(x)

    x = Input((3,))
    assert list(graphc.lower(Model(x, layers.add([branch(x), branch(x)]))).weights)[::2] == [
        "branch/same/kernel",
        "branch_1/same/kernel",
    ]


def test_a_function_named_like_a_layer_beside_it_is_numbered() -> None:
    def head(x: object) -> object:
        return layers.Dense(3)(x)

    x = Input((3,))
    model = Model(x, layers.Dense(1, name="head")(head(x)))
    assert scopes(model) == ["head_1/dense", "head"]


class Block(Layer):
    def __init__(self, units: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.hidden = layers.Dense(units)
        self.tail = [layers.Dense(units, name="tail_a"), layers.Dense(units)]

    def call(self, x: object) -> object:
        x = self.hidden(x)
        for layer in self.tail:
            x = layer(x)
        return x * 2


def test_sublayers_of_custom_layers() -> None:
    x = Input((3,))
    model = Model(x, Block(3)(Block(3, name="mine")(x)))
    assert scopes(model) == [
        "mine/dense", "mine/tail_a", "mine/dense_1", "mine",
        "block/dense", "block/tail_a", "block/dense_1", "block",
    ]  # fmt: skip
    assert list(graphc.lower(model).weights)[:6:2] == ["mine/dense/kernel", "mine/tail_a/kernel", "mine/dense_1/kernel"]


def test_lines_are_those_of_the_calls() -> None:
    x = Input((3,))
    line = test_lines_are_those_of_the_calls.__code__.co_firstlineno
    model = Model(x, Block(3)(layers.Dense(3)(x)))
    ops = operations(model)
    assert ops[0].location.file.endswith("test_scopes.py")
    assert ops[0].location.line == line + 3
    inside = Block.call.__code__.co_firstlineno
    assert [op.location.line - inside for op in ops[1:]] == [1, 3, 3, 4]


def test_a_block_keeps_its_meaning() -> None:
    model = network(2)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(graphc.interpret(graphc.lower(model), x), model(x), rtol=1e-5, atol=1e-6)
