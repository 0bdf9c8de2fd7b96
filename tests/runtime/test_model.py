"""Models as users see them: `compile` and `predict`."""

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, layers
from graphc.runtime.model import Model as RuntimeModel


def examples(count, *shape):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


@pytest.fixture
def model():
    return Sequential([Input((4,), name="x"), layers.Dense(3, activation="relu")])


def by_hand(model, x):
    kernel, bias = model.get_weights()
    return np.maximum(x @ kernel + bias, 0)


@pytest.mark.parametrize("batch_size", [None, 1, 7, 100])
def test_predict_is_the_same_in_any_batches(model, batch_size):
    x = examples(70, 4)
    np.testing.assert_allclose(model.predict(x, batch_size=batch_size), by_hand(model, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("verbose", ["auto", 0, 1, 2])
def test_predict_is_called_as_in_keras(model, verbose, capsys):
    x = examples(3, 4)
    np.testing.assert_array_equal(model.predict(x, None, verbose, steps=None, callbacks=[]), model.predict(x))
    shown, nothing = capsys.readouterr()
    assert nothing == "" and bool(shown) == (verbose in (1, 2))
    assert not shown or shown.startswith("1/1 - 0s - ")


def test_predict_takes_what_gives_batches(model):
    x = examples(7, 4)
    expected = model.predict(x)
    batches = [x[:3], x[3:6], x[6:]]
    near = {"rtol": 1e-6, "atol": 5e-7}  # products of other sizes sum in another order: a few epsilons of their terms
    np.testing.assert_allclose(model.predict(iter(batches)), expected, **near)
    np.testing.assert_allclose(model.predict((part, np.zeros(len(part))) for part in batches), expected, **near)
    np.testing.assert_allclose(model.predict(iter(batches), steps=2), expected[:6], **near)
    np.testing.assert_allclose(model.predict(x, batch_size=2, steps=2), expected[:4], **near)
    with pytest.raises(graphc.GraphcError, match="the generator gives no batches"):
        model.predict(iter([]))


def test_predict_calls_its_callbacks(model):
    called = []

    class Noted(graphc.callbacks.Callback):
        def on_predict_begin(self, logs=None):
            called.append(self.params["steps"])

        def on_predict_batch_end(self, batch, logs=None):
            called.append(batch)

        def on_predict_end(self, logs=None):
            called.append(self.model.name)

    model.predict(examples(3, 4), batch_size=2, callbacks=[Noted()])
    assert called == [2, 0, 1, model.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verbose": "loud"}, "verbose is 'auto', 0, 1 or 2, not 'loud'"),
        ({"steps": 0}, "steps is an integer of 1 or more, not 0"),
        ({"callbacks": [print]}, "a callback is an object of a subclass of graphc.callbacks.Callback, not <built-in"),
    ],
)
def test_predict_refuses_what_it_would_not_heed(model, options, message):
    with pytest.raises(graphc.GraphcError, match=message):
        model.predict(examples(3, 4), **options)


def test_predict_sees_new_weights(model):
    x = examples(3, 4)
    model.predict(x)
    model.set_weights([array + 1 for array in model.get_weights()])
    np.testing.assert_allclose(model.predict(x), by_hand(model, x), rtol=1e-5, atol=1e-6)


def test_compile_chooses_the_target_and_is_done_once(model):
    model.compile(target="torch")
    first = model.executable()
    assert first.target == "torch" and model.executable() is first
    with pytest.raises(graphc.TargetError):
        model.compile(target="nowhere")
        model.predict(examples(2, 4))


def test_several_inputs_and_outputs():
    a, b = Input((4,), name="a"), Input((4,), name="b")
    both = layers.Add()([a, b])
    model = Model({"a": a, "b": b}, {"sum": both, "logits": layers.Dense(2)(both)})
    x = {"b": examples(5, 4), "a": examples(5, 4) + 1}
    found = model.predict(x, batch_size=2)
    assert set(found) == {"sum", "logits"} and found["logits"].shape == (5, 2)
    np.testing.assert_allclose(found["sum"], x["a"] + x["b"], rtol=1e-6)
    with pytest.raises(graphc.ShapeError, match="inputs differ in length: a has 5, b has 4"):
        model.predict(x | {"b": x["b"][:4]})
    with pytest.raises(graphc.GraphcError, match=r"takes 2 inputs \(a, b\), 1 was given"):
        model.predict(x["a"])


def test_a_model_of_its_own_is_built_by_what_it_predicts():
    class Twice(Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, x):
            return self.dense(self.dense(x))

    model = Twice()
    x = examples(3, 4)
    found = model.predict(x)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(found, (x @ kernel + bias) @ kernel + bias, rtol=1e-5, atol=1e-5)


def test_outputs_without_an_axis_of_examples_are_not_joined():
    x = Input((4,), name="x")
    model = Model(x, graphc.ops.sum(x))
    assert model.predict(examples(5, 4)).shape == ()
    with pytest.raises(graphc.ShapeError, match="pass all of them as one batch"):
        model.predict(examples(5, 4), batch_size=2)


def test_the_classes_fit_together(model, tmp_path):
    assert isinstance(model, Model) and Model is RuntimeModel
    model.save(tmp_path / "model.graphc")
    again = graphc.saving.load_model(tmp_path / "model.graphc")
    assert type(again) is Sequential
    np.testing.assert_array_equal(again.predict(examples(2, 4)), model.predict(examples(2, 4)))
    assert type(Sequential.from_config(model.get_config())) is Sequential


def test_predictions_in_a_narrower_dtype_leave_the_weights_as_they_are() -> None:
    model = graphc.Sequential([graphc.Input((6,)), graphc.layers.Dense(8, dtype="mixed_float16")])
    kernel = model.layers[0].kernel
    x, before = np.ones((2, 6), np.float32), kernel.numpy().copy()
    first = model.predict(x, verbose=0)
    np.testing.assert_array_equal(kernel.numpy(), before)
    kernel.assign(before * 2)
    np.testing.assert_array_equal(kernel.numpy(), before * 2)
    np.testing.assert_array_equal(model.predict(x, verbose=0), first * 2)
