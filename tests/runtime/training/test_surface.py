"""What a beginner gets wrong around `compile`, `fit`, `evaluate` and `predict`, and what is said; warnings point into
the user's code."""

import warnings
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, callbacks, layers, losses, ops

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 4


def classifier(**options):
    model = Sequential([Input((3,), name="x"), layers.Dense(4, name="scores")], name="net")
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


def fit(x=X, y=Y, model=None, **options):
    return (model or classifier()).fit(x, y, **{"verbose": 0} | options)


def batches(count):
    for _ in range(count):
        yield X[:4], Y[:4]


def frozen(which):
    model = classifier()
    (model if which == "model" else model.layers[0]).trainable = False
    return model


MISTAKES = {
    "fit": (lambda: fit(epoch=3), r"fit\(\) has no argument 'epoch'; did you mean epochs"),
    "evaluate": (
        lambda: classifier().evaluate(X, Y, batchsize=3),
        r"evaluate\(\) .* 'batchsize'; did you mean batch",
    ),
    "predict": (lambda: classifier().predict(X, batch=3), r"predict\(\) .* 'batch'; did you mean batch_size"),
    "compile": (lambda: classifier(metric=["mae"]), r"compile\(\) has no argument 'metric'; did you mean metrics"),
    "target": (lambda: classifier(target="pytorch"), "no target 'pytorch'; did you mean torch"),
    "budget": (lambda: classifier(memory_budget="much"), "'much' is not a size"),
    "passes": (lambda: classifier(passes="canonicalise"), "no pass 'canonicalise'; did you mean canonicalize"),
    "frozen model": (
        lambda: fit(model=frozen("model")),
        "weights of model 'net' are frozen, .*model.trainable = ",
    ),
    "frozen layer": (
        lambda: fit(model=frozen("layer")),
        "for `trainable` is False of scores: .*Set `trainable = ",
    ),
    "no weights": (
        lambda: fit(model=compiled(Sequential([Input((3,)), layers.Flatten()])), y=X),
        "has no weights, so there is nothing to train",
    ),
    "name of x": (lambda: fit({"z": X}), "nothing for the input 'x' of model 'net'.* has 'z'"),
    "name, evaluated": (lambda: classifier().evaluate({"z": X}, Y, verbose=0), "nothing for the input 'x'"),
    "name, predicted": (lambda: classifier().predict({"z": X}, verbose=0), "nothing for the input 'x'"),
    "name, one batch": (lambda: classifier().train_on_batch({"z": X}, Y), "nothing for the input 'x'"),
    "name, generated": (
        lambda: fit(iter([({"z": X}, Y)]), None),
        "(?s)nothing for the input 'x'.*the generator gave",
    ),
    "shape": (
        lambda: fit(X[:, :2]),
        r"'x' of model 'net' takes arrays of the shape \(None, 3\); x has .*\(12, 2\)",
    ),
    "a pair": (
        lambda: fit((X, Y), None),
        "takes 1 input .* 2 were given; the targets are an argument of their own",
    ),
    "epochs": (lambda: fit(epochs=-1), "epochs is an integer of 0 or more, not -1"),
    "batch_size": (lambda: fit(batch_size=0), "batch_size is an integer of 1 or more, not 0"),
    "batch_size as text": (lambda: fit(batch_size="32"), "batch_size is an integer of 1 or more, not '32'"),
    "infinite batch_size": (lambda: fit(batch_size=float("inf")), "batch_size is an integer of 1 or more, not inf"),
    "steps_per_epoch": (lambda: fit(steps_per_epoch=0), "steps_per_epoch is an integer of 1 or more, not 0"),
    "steps": (lambda: classifier().evaluate(X, Y, steps=0), "steps is an integer of 1 or more, not 0"),
    "validation_steps": (
        lambda: fit(validation_data=(X, Y), validation_steps=0),
        "(?s)validation_steps is an integer of 1 or more.*in validation_data",
    ),
    "validation_batch_size": (
        lambda: fit(validation_data=(X, Y), validation_batch_size=0),
        "batch_size is an .* not 0",
    ),
    "validation_split": (lambda: fit(validation_split=1.5), "validation_split is a share between 0 and 1, not 1.5"),
    "validation_split as text": (lambda: fit(validation_split="0.1"), "validation_split is a share .*, not '0.1'"),
    "nothing": (lambda: fit(X[:0], Y[:0]), r"there are no examples: x is \(0, 3\)"),
    "objects": (lambda: fit(np.array([[1, "a", None]] * 12, object)), "x is an array of Python objects"),
    "text": (lambda: fit(np.array([["a", "b", "c"]] * 12)), "x has the dtype <U1, which is no number"),
    "text as classes": (lambda: fit(y=np.array(["cat"] * 12)), "y has the dtype <U3, which is no number"),
    "lists": (lambda: fit(X.tolist()), r"lists stand for several arrays; give numbers as np.asarray\(x\)"),
    "lengths": (lambda: fit(y=Y[:5]), "data differs in length: x has 12, y has 5"),
    "a generator read twice": (
        lambda: fit(validation_data=batches(3), epochs=2),
        "nothing to evaluate on: the generator of validation_data gives no batches any more. A generator is read once",
    ),
    "misspelt hook": (
        lambda: callbacks.LambdaCallback(on_epoch_ends=print),
        "LambdaCallback has no argument 'on_epoch_ends'; did you mean on_epoch_end",
    ),
    "callbacks": (
        lambda: callbacks.EarlyStopping(patienc=3),
        "EarlyStopping has no argument 'patienc'; did you mean p",
    ),
    "checkpoints": (
        lambda: callbacks.ModelCheckpoint("m.graphc", save_best=True),
        "ModelCheckpoint has no argument 'save_best'; did you mean save_best_only",
    ),
    "one example": (lambda: classifier().predict(X[0], verbose=0), r"x has the shape \(3,\); .* given as x\[None\]"),
    "no function": (lambda: callbacks.LambdaCallback(on_epoch_end=3), "on_epoch_end is a function, not 3"),
}


def compiled(model):
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.filterwarnings("ignore:the generator ran out")
def test_mistakes_are_explained(name):
    call, message = MISTAKES[name]
    with pytest.raises(graphc.GraphcError, match=message):
        call()


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ((X[:, :2], Y), r"(?s)takes arrays of the shape \(None, 3\).*in validation_data"),
        ((X, X), "(?s)wants targets of shape .*in test_step"),
        ((X, Y[:5]), "(?s)data differs in length.*in validation_data"),
        ((X, Y + 1), "label 4 at 3 of validation_data; the loss takes the classes 0 to 3"),
        (({"z": X}, Y), "(?s)nothing for the input 'x'.*in validation_data"),
        (iter([(X[:, :2], Y)]), r"(?s)takes arrays of the shape \(None, 3\).*in validation_data"),
        (iter([]), "(?s)gives no batches.*in validation_data"),
        (X, "(?s)there are no targets for the output 'scores'.*in test_step"),
    ],
)
def test_validation_data_that_do_not_fit_are_told_before_training(validation, message):
    begun = []
    watch = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    with pytest.raises(graphc.GraphcError, match=message):
        fit(validation_data=validation, callbacks=[watch])
    assert not begun


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda at: callbacks.CSVLogger(at / "gone" / "log.csv"), "CSVLogger: .*there is no folder .*gone"),
        (lambda at: callbacks.ModelCheckpoint(at / "file" / "m.graphc"), "ModelCheckpoint: .*file"),
        (lambda at: callbacks.ModelCheckpoint(at / "folder.graphc"), "ModelCheckpoint: .*is a folder"),
        (lambda at: callbacks.ModelCheckpoint("/gone-0/m.graphc"), "ModelCheckpoint: .* none is made right below '/'"),
        (lambda at: callbacks.BackupAndRestore("/gone-0/b"), "BackupAndRestore: .* none is made right below '/'"),
        (lambda at: callbacks.BackupAndRestore(at / "file" / "b"), "BackupAndRestore: the folder .* cannot be made"),
        (lambda at: callbacks.BackupAndRestore(at / "gone" / "b.safetensors"), "BackupAndRestore: there is no folder"),
    ],
)
def test_places_that_cannot_be_written_to_are_told_before_training(tmp_path, make, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.graphc").mkdir()
    begun = []
    watch = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    with pytest.raises(graphc.GraphcError, match=message):
        fit(callbacks=[make(tmp_path), watch])
    assert not begun and not Path("/gone-0").exists()


def test_folders_of_checkpoints_are_made_where_logs_are_in_their_names(tmp_path):
    fit(epochs=2, callbacks=[callbacks.ModelCheckpoint(tmp_path / "a" / "run-{epoch}" / "m-{loss:.1f}.graphc")])
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["run-1", "run-2"]


def test_a_drawing_in_a_missing_folder(tmp_path):
    history = fit()
    with pytest.raises(graphc.GraphcError, match=r"there is no folder .*gone"):
        history.plot(tmp_path / "gone" / "history.svg")


def test_inputs_go_by_name():
    """Whatever the order of a dict's keys: `b` stands first in the model, `a` in the alphabet."""
    b, a = Input((3,), name="b"), Input((3,), name="a")
    model = Model([b, a], ops.subtract(b, a))
    model.compile("sgd", "mse")
    zeros = np.zeros_like(X)
    for x in ({"a": X, "b": zeros}, [zeros, X], {"b": zeros, "a": X, "other": Y}):
        assert model.evaluate(x, -X, verbose=0) == 0
        assert model.test_on_batch(x, -X) == 0
        np.testing.assert_array_equal(model.predict(x, verbose=0), -X)
        assert model.evaluate(iter([(x, -X)]), verbose=0, steps=1) == 0
    with pytest.raises(graphc.GraphcError, match=r"nothing for the input 'b'.* has 'a', 'bb'; did you mean bb"):
        model.evaluate({"a": X, "bb": X}, X, verbose=0)


def test_a_last_axis_of_size_1_comes_and_goes():
    """As in Keras: numbers for an input of shape (1,), images without channels."""
    x = np.linspace(-1, 1, 8)
    line = Sequential([Input((1,)), layers.Dense(1)])
    line.compile("sgd", "mse")
    fit(x, 2 * x, line)
    assert line.predict(x, verbose=0).shape == (8, 1)
    assert np.isfinite(line.train_on_batch(x, 2 * x)) and np.isfinite(line.evaluate(x[:, None, None], 2 * x, verbose=0))
    images = Sequential([Input((4, 4, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)])
    images.compile("sgd", "mse")
    fit(np.zeros((8, 4, 4)), x, images)


@pytest.mark.parametrize(
    ("warned", "message"),
    [
        (lambda: fit(batches(5), None, epochs=2, steps_per_epoch=3), "the generator ran out: epoch 2 needs 3 batches"),
        (
            lambda: fit(validation_data=batches(3), validation_steps=5),
            "the generator of validation_data ran out: 5 batches were asked for",
        ),
        (lambda: callbacks_of_another_run(), "has the state of a CSVLogger"),
        (lambda: classifier().evaluate(X, Y, steps=9, verbose=0), "the data ran out: 9 batches were asked for"),
        (lambda: unreached(), "the loss does not depend on these weights"),
    ],
)
def test_warnings_point_into_the_users_code(warned, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=message) as caught:
        warned()
    assert [each.filename for each in caught] == [__file__]


def callbacks_of_another_run():
    backup = {"delete_checkpoint": False}
    fit(callbacks=[callbacks.CSVLogger("log.csv"), callbacks.BackupAndRestore("run.safetensors", **backup)])
    fit(callbacks=[callbacks.BackupAndRestore("run.safetensors")], epochs=2)


def unreached():
    x = Input((3,))
    model = Model(x, {"a": layers.Dense(2, name="a")(x), "b": layers.Dense(2, name="b")(x)})
    model.compile("sgd", {"a": "mse"})
    fit(X, {"a": X[:, :2]}, model)


def test_a_run_that_is_right_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit({"x": X}, validation_data=({"x": X}, Y), epochs=2, callbacks=[callbacks.CSVLogger(tmp_path / "log.csv")])


class Unpacking(Model):
    parts = 2

    def train_step(self, data):
        if self.parts == 1:
            x, y = data, None
        elif self.parts == 2:
            x, y = data
        else:
            x, y, _ = data
        y_pred = self(x, training=True)
        loss = ops.mean(ops.square(y_pred)) if y is None else self.compute_loss(y=y, y_pred=y_pred)
        self.optimizer.apply(graphc.gradients(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def test_a_step_is_given_what_keras_gives_it():
    """`x, y = data` is what every guide has."""
    x = Input((3,))
    model = Unpacking(x, layers.Dense(3)(x))
    model.compile("sgd", "mse")
    for parts, given in ((1, (X,)), (2, (X, X)), (3, (X, X, np.ones(12)))):
        Unpacking.parts = parts
        assert np.isfinite(model.train_on_batch(*given))
    model.compile("sgd", "mse")
    with pytest.raises(graphc.GraphcError, match=r"train_step is given x, y here.*unpack_x_y_sample_weight"):
        model.train_on_batch(X, X)
    assert graphc.utils.unpack_x_y_sample_weight((X, Y)) == (X, Y, None)
    assert graphc.utils.pack_x_y_sample_weight((X, X)) == ((X, X),)


def test_models_that_draw_when_they_predict():
    class Noise(layers.Layer):
        def call(self, inputs):
            return inputs + graphc.random.normal(ops.shape(inputs))

    x = Input((3,))
    model = Model(x, Noise()(x))
    graphc.utils.set_random_seed(0)
    first = model.predict(X, batch_size=5, verbose=0)
    again = model.predict(X, batch_size=5, verbose=0)
    assert first.shape == (12, 3) and len(np.unique(np.concatenate([first, again]) - np.tile(X, (2, 1)))) == 72
    graphc.utils.set_random_seed(0)
    np.testing.assert_array_equal(model.predict(X, batch_size=5, verbose=0), first)


def test_inputs_of_a_subclassed_model_go_by_name():
    class Both(Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, inputs):
            return self.dense(inputs["u"]) - 2 * self.dense(inputs["v"])

    model = Both()
    model.compile("sgd", "mse")
    fit({"v": X, "u": X}, X[:, 0], model)
    x = {"u": X, "v": 0 * X}
    np.testing.assert_array_equal(model.predict({**x, "t": X}, verbose=0), model.predict(x, verbose=0))
    for call in (model.predict, model.evaluate):
        with pytest.raises(graphc.GraphcError, match=r"nothing for the input 'v' of .* has 'u', 'w'"):
            call({"u": X, "w": X}, verbose=0)


def test_a_model_for_batches_of_one_size_predicts_in_these():
    x = Input(batch_shape=(4, 3))
    model = Model(x, layers.Dense(1)(x))
    assert model.predict(X, verbose=0).shape == (12, 1)
    np.testing.assert_array_equal(model.predict(X, verbose=0)[4:8], model.predict(X[4:8], verbose=0))
    with pytest.raises(graphc.ShapeError, match=r"must be \[4, 3\]"):
        model.predict(X[:6], verbose=0)
