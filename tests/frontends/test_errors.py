"""What is said to a user who made a mistake: what is wrong, the layer, the source line, and what would be right."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import DTypeError, GraphcError, Input, Model, Sequential, ShapeError, layers, ops


def fails(error: type[GraphcError], call: Callable[[], Any]) -> str:
    """The message of the error, which names a line of this file."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "test_errors.py:" in message
    return message


def test_wrong_size_for_a_built_layer() -> None:
    dense = layers.Dense(2, name="head")
    dense(Input((4,)))
    message = fails(ShapeError, lambda: dense(Input((5,))))
    assert "size 4 on axis -1; its shape is (None, 5)" in message and "layer 'head'" in message


def test_wrong_rank() -> None:
    message = fails(ShapeError, lambda: layers.Conv2D(3, 3, name="conv")(Input((4, 4))))
    assert "must have 4 axes; it has 3" in message and "layer 'conv'" in message
    assert "at least 2 axes" in fails(ShapeError, lambda: layers.Dense(3)(np.float32([1, 2])))


def test_an_open_size_that_weights_depend_on() -> None:
    message = fails(ShapeError, lambda: layers.Dense(3, name="head")(Input((4, None))))
    assert "the last axis of the input must have a known size, its shape is (None, 4, None)" in message


def test_shapes_that_do_not_broadcast() -> None:
    message = fails(ShapeError, lambda: layers.add([Input((4,)), Input((5,))]))
    assert "the inputs have shapes [B, 4] and [B, 5], which do not merge" in message
    message = fails(ShapeError, lambda: Input((4,)) + Input((5,)))
    assert "do not broadcast" in message


def test_the_line_is_that_of_the_call() -> None:
    dense = layers.Dense(3)
    with pytest.raises(ShapeError) as caught:
        dense(Input(()))
    line = test_the_line_is_that_of_the_call.__code__.co_firstlineno + 3
    assert f"test_errors.py:{line}" in str(caught.value)


def test_a_kernel_larger_than_the_input() -> None:
    message = fails(ShapeError, lambda: layers.Conv2D(3, 5, name="conv")(Input((4, 4, 1))))
    assert "layer 'conv'" in message


def test_groups_that_do_not_divide() -> None:
    message = fails(ShapeError, lambda: layers.Conv2D(4, 3, groups=2)(Input((4, 4, 3))))
    assert "3 channels of the input do not divide into groups = 2" in message


def test_wrong_dtypes() -> None:
    message = fails(DTypeError, lambda: layers.LayerNormalization(name="norm")(Input((4,), dtype="complex64")))
    assert "complex64" in message and "layer 'norm'" in message
    with pytest.raises(DTypeError, match="no such dtype: 'float33'"):
        layers.Dense(3, dtype="float33")
    with pytest.raises(DTypeError):
        graphc.ops.convert_to_tensor(["text"])


def test_disconnected_graphs() -> None:
    x, y = Input((3,), name="x"), Input((3,), name="y")
    out = layers.Add(name="sum")([x, y])
    message = _message(lambda: Model(x, out))
    assert "the graph is disconnected: the input 'y' (None, 3) is needed by layer 'sum'" in message
    assert "test_errors.py:" in message
    assert "symbolic tensors" in _message(lambda: Model(x, np.ones(3)))


def _message(call: Callable[[], Any]) -> str:
    with pytest.raises(GraphcError) as caught:
        call()
    return str(caught.value)


def test_names_given_twice() -> None:
    x = Input((3,))
    y = layers.Dense(3, name="same")(layers.Dense(3, name="same")(x))
    assert "the name 'same' is used for two layers" in _message(lambda: Model(x, y))
    assert "the name 'same' is used for two layers" in _message(
        lambda: Sequential([layers.Dense(3, name="same"), layers.Dense(3, name="same")])
    )


def test_weights_that_do_not_fit() -> None:
    x = Input((3,))
    model = Model(x, layers.Dense(2, name="head")(x), name="net")
    before = model.get_weights()
    assert "'net' has 2 weights, 1 array was given" in _message(lambda: model.set_weights([np.ones((3, 2))]))
    message = _message(lambda: model.set_weights([np.ones((3, 2)), np.ones(3)]))
    assert message == "array 1 has shape (3,); weight 'bias' of 'net' has shape (2,)"
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert "before it is built" in _message(lambda: layers.Dense(2).set_weights([np.ones((3, 2))]))


def test_inputs_that_do_not_fit_the_model() -> None:
    x = Input((3,), name="x")
    model = Model(x, layers.Dense(2)(x), name="net")
    assert "input 'x' must have the shape (None, 3), not (1, 4)" in _message(lambda: model(np.ones((1, 4))))
    assert "takes 1 input, 2 were given" in _message(lambda: model([np.ones((1, 3)), np.ones((1, 3))]))
    assert "misses the input 'x'" in _message(lambda: model({"z": np.ones((1, 3))}))


class Unprepared(layers.Layer):
    def __init__(self) -> None:
        self.dense = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


class UnpreparedModel(Model):
    def __init__(self) -> None:
        self.dense = layers.Dense(2)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: layers.Dense(0), "units is a positive integer, not 0"),
        (lambda: layers.Dense(3, activation="rleu"), "no activation is called 'rleu'; did you mean relu"),
        (lambda: layers.Dense(3, kernel_initializer="hee"), "no initializer is called 'hee'"),
        (lambda: layers.Dense(3, kernel_regularizer="l3"), "no regularizer is called 'l3'"),
        (lambda: layers.Dense(3, unit=2), "Dense has no argument 'unit'; did you mean units?"),
        (lambda: layers.Dense(3, activaton="relu"), "Dense has no argument 'activaton'; did you mean activation"),
        (lambda: layers.Conv2D(3, 3, stride=2), "Conv2D has no argument 'stride'; did you mean strides"),
        (lambda: layers.Dropout(rat=0.2), "Dropout has no argument 'rat'; did you mean rate"),
        (lambda: Model(Input((3,)), output=3), "Model has no argument 'output'; did you mean outputs"),
        (lambda: Sequential([], nam="net"), "Sequential has no argument 'nam'; did you mean name"),
        (lambda: Sequential(layers.Dense(3)), "takes a list of layers"),
        (lambda: Input(shap=(3,)), "Input() has no argument 'shap'; did you mean shape"),
        (lambda: Sequential([Unprepared()]), "Unprepared.__init__ must call super().__init__()"),
        (lambda: Unprepared()(np.ones((1, 3))), "Unprepared.__init__ must call super().__init__()"),
        (lambda: Unprepared().get_config(), "Unprepared.__init__ must call super().__init__()"),
        (lambda: UnpreparedModel().compile("sgd", "mse"), "UnpreparedModel.__init__ must call super().__init__()"),
        (lambda: UnpreparedModel().fit(np.ones(3)), "UnpreparedModel.__init__ must call super().__init__()"),
        (lambda: layers.Conv2D(3, 3, padding="some"), "padding is 'valid' or 'same', not 'some'"),
        (lambda: layers.Conv2D(3, 3, strides=2, dilation_rate=2), "cannot both be more than 1"),
        (lambda: layers.Conv2D(3, (1, 2, 3)), "kernel_size is a positive integer or 2 of them"),
        (lambda: layers.Dropout(2), "rate is a number from 0 to 1"),
        (lambda: layers.Reshape((-1, -1)), "only one size of target_shape can be -1"),
        (lambda: layers.Permute((0, 1)), "dims must hold each of 1 to 2 once"),
        (lambda: layers.Dense(3, name="a/b"), "a layer's name is a word without '/'"),
        (lambda: Input(), "either `shape`"),
        (lambda: Input((-1,)), "a size cannot be negative"),
        (lambda: Input(("no name",)), "the name of a size is an identifier"),
        (lambda: layers.Add()(Input((3,))), "is called on a list of tensors"),
        (lambda: Model(Input((3,))), "needs both inputs and outputs"),
        (lambda: bool(Input((3,))), "truth of the symbolic tensor"),
        (lambda: Input((3,)) in [Input((3,))], "use `any(t is tensor for t in tensors)`"),
        (lambda: Input((3,)) in [Input((4,))], "do not broadcast; to look for a tensor among others, use `any("),
        (lambda: np.asarray(Input((3,))), "has no array"),
        (lambda: np.sort(Input((3,))), "np.sort is not supported on traced values"),
        (lambda: ops.squeeze(np.ones((2, 3)), 0), "axis 0 of shape (2, 3) has size 2, not 1"),
        (lambda: ops.reshape(np.ones((2, 3)), (None, -1)), "only one size can be found"),
        (lambda: ops.split(np.ones((5, 2)), 2), "does not divide into 2 equal parts"),
        (lambda: graphc.lower(lambda x: x), "lower takes a model of the DSL, not function"),
        (lambda: graphc.trace(lambda x: None, graphc.Spec((2,))), "returned None"),
        (lambda: graphc.trace(lambda x: x, (2,)), "trace takes a Spec for each argument"),
        (lambda: graphc.trace(lambda x: 1 if x > 0 else 2, graphc.Spec(())), "truth of a traced value"),
    ],
)
def test_messages(call: Callable[[], Any], part: str) -> None:
    assert part in _message(call)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: graphc.trace(lambda x: x.numpy(), graphc.Spec(())), "a traced value has no numbers yet"),
        (lambda: graphc.trace(lambda x: x.backward(), graphc.Spec(())), "`graphc.gradients(loss, variables)`"),
        (lambda: graphc.ops.softmx, "did you mean softmax"),
    ],
)
def test_missing_attributes_say_what_there_is(call: Callable[[], Any], part: str) -> None:
    with pytest.raises(AttributeError) as error:
        call()
    assert part in str(error.value)


def test_numbers_of_symbolic_tensors_and_shapes_that_were_given() -> None:
    image = Input((8, 8, 1))
    assert "has no number while a model is built" in _message(lambda: float(image))
    model = Model(image, layers.Flatten()(image))
    assert "not (8, 8, 1)" in _message(lambda: model(np.ones((8, 8, 1))))
    assert "did you mean r?" in _message(lambda: model.add_adapter(rank=2))


def test_quantizers_list_what_is_public() -> None:
    assert "GPTQConfig" in dir(graphc.quantizers) and not {"np", "ops", "Any"} & {*dir(graphc.quantizers)}
