"""`fit` and what belongs to it: forms of data, validation, weights, epochs and steps, mistakes."""

import numpy as np
import pytest

import graphc
from graphc import Input, Model, Sequential, layers, losses, metrics, optimizers
from graphc.runtime.training.data.order import fold_in, permutation

RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(22, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, 22).astype(np.int32)
TARGETS = ["numpy", "torch", "jax", "onnx"]


def classifier(seed=5, **options):
    graphc.utils.set_random_seed(seed)
    model = Sequential([Input((4,)), layers.Dense(6, activation="tanh"), layers.Dropout(0.3), layers.Dense(3)])
    settings = {"optimizer": optimizers.SGD(0.2, momentum=0.9), "metrics": ["accuracy"]} | options
    model.compile(loss=losses.SparseCategoricalCrossentropy(from_logits=True), **settings)
    return model


def fit(*data, model=None, **options):
    options = {"epochs": 3, "batch_size": 8, "verbose": 0} | options
    model = model or classifier()
    graphc.utils.set_random_seed(9)
    return model.fit(*data, **options)


def same_weights(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def repeated(passes=100):
    for _ in range(passes):
        yield from batches()


def batches():
    for start in range(0, 22, 8):
        yield X[start : start + 8], Y[start : start + 8]


class Batches(graphc.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[8 * index : 8 * index + 8], Y[8 * index : 8 * index + 8]


# --- the same run ------------------------------------------------------------------------------------------------


def test_a_run_follows_from_the_seed():
    models, histories = [classifier(), classifier(), classifier()], []
    for model, seed in zip(models, (9, 9, 10), strict=True):
        graphc.utils.set_random_seed(seed)
        histories.append(model.fit(X, Y, batch_size=8, epochs=3, verbose=0).history)
    assert histories[0] == histories[1] != histories[2] and same_weights(*models[:2])
    assert list(histories[0]) == ["loss", "accuracy"]


@pytest.mark.parametrize("target", TARGETS[1:])
def test_targets_train_alike(target):
    options = {"validation_data": (X[:9], Y[:9]), "class_weight": {0: 2.0, 1: 0.5}}
    expected = fit(X, Y, model=classifier(), **options).history
    found = fit(X, Y, model=classifier(target=target), **options).history
    assert list(found) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, err_msg=name)


def test_all_forms_of_data_train_alike():
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8
    )
    forms = {
        "arrays": ((X, Y), {"shuffle": False}),
        "float64 and int64": ((X.astype(np.float64), Y.astype(np.int64)), {"shuffle": False}),
        "torch": ((torch.from_numpy(X), torch.from_numpy(Y)), {"shuffle": False}),
        "data set": ((Batches(),), {"shuffle": False}),
        "threads": ((Batches(workers=2),), {"shuffle": False}),
        "generator": ((repeated(),), {"steps_per_epoch": 3}),
        "loader": ((loader,), {}),
    }
    models = {}
    for name, (data, options) in forms.items():
        models[name] = classifier()
        fit(*data, model=models[name], **options)
    assert [name for name, model in models.items() if not same_weights(model, models["arrays"])] == []


def test_the_examples_come_in_the_order_of_the_key():
    seen = []

    class Seeing(Model):
        def train_step(self, data):
            x = data
            return {"first": graphc.ops.cast(x[0, 0], "float32")}

    inputs = Input((1,))
    model = Seeing(inputs, layers.Dense(1)(inputs))
    model.compile()
    numbers = np.arange(10, dtype=np.float32)[:, None]
    noted = graphc.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["first"]))
    keys = []
    noted.set_run = lambda run: keys.append(run.position.key)
    model.fit(numbers, batch_size=4, epochs=2, verbose=0, callbacks=[noted])
    key = np.array(keys[0], np.uint32)
    assert seen == [n for e in (0, 1) for n in permutation(fold_in(key, 2 * e), 10)[::4]]


# --- weights of examples ------------------------------------------------------------------------------------------


def test_weights_of_classes_and_examples():
    weights = {0: 2.0, 1: 0.5}
    by_class, by_example = classifier(), classifier()
    fit(X, Y, model=by_class, class_weight=weights)
    fit(X, Y, model=by_example, sample_weight=np.array([weights.get(label, 1.0) for label in Y.tolist()]))
    assert same_weights(by_class, by_example)
    plain = classifier()
    fit(X, Y, model=plain)
    assert not same_weights(plain, by_class)
    generated = classifier()
    fit(repeated(), model=generated, steps_per_epoch=3, class_weight=weights)
    ordered = classifier()
    fit(X, Y, model=ordered, shuffle=False, class_weight=weights)
    assert same_weights(generated, ordered)


def test_the_last_batch_weighs_what_it_has():
    model = classifier(optimizer=optimizers.SGD(0.0))
    history = fit(X, Y, model=model, epochs=1, validation_data=(X, Y), validation_batch_size=5)
    chances = np.exp(model.predict(X))
    chances /= chances.sum(1, keepdims=True)
    assert history.history["val_loss"][0] == pytest.approx(-np.log(chances[np.arange(22), Y]).mean(), rel=1e-5)
    assert history.history["val_accuracy"][0] == pytest.approx((chances.argmax(1) == Y).mean())


# --- validation ---------------------------------------------------------------------------------------------------


def test_the_last_examples_validate():
    split, given = classifier(), classifier()
    first = fit(X, Y, model=split, validation_split=0.25).history
    second = fit(X[:16], Y[:16], model=given, validation_data=(X[16:], Y[16:])).history
    assert first == second and same_weights(split, given)


@pytest.mark.parametrize(("frequency", "count"), [(1, 4), (2, 2), (3, 1), ([1, 4], 2)])
def test_how_often_is_validated(frequency, count):
    history = fit(X, Y, epochs=4, validation_data=(X, Y), validation_freq=frequency).history
    assert len(history["val_loss"]) == count and len(history["loss"]) == 4


def test_forms_of_validation_data():
    expected = fit(X, Y, validation_data=(X, Y)).history["val_loss"]
    weighted = fit(X, Y, validation_data=(X, Y, np.ones(22))).history["val_loss"]
    assert weighted == pytest.approx(expected, rel=1e-5)
    assert fit(X, Y, validation_data=Batches()).history["val_loss"] == pytest.approx(expected, rel=1e-6)
    generated = fit(X, Y, validation_data=repeated(), validation_steps=3).history["val_loss"]
    assert generated == pytest.approx(expected, rel=1e-6)
    few = fit(X, Y, validation_data=(X, Y), validation_steps=1).history["val_loss"]
    assert few == pytest.approx(fit(X, Y, validation_data=(X[:8], Y[:8])).history["val_loss"], rel=1e-6)


def test_validation_changes_nothing():
    with_it, without = classifier(), classifier()
    fit(X, Y, model=with_it, validation_data=(X, Y))
    fit(X, Y, model=without)
    assert same_weights(with_it, without)


# --- epochs and steps ---------------------------------------------------------------------------------------------


def test_epochs_may_go_on():
    whole, parts = classifier(), classifier()
    fit(repeated(), model=whole, epochs=4, steps_per_epoch=3)
    fit(repeated(2), model=parts, epochs=2, steps_per_epoch=3)
    history = fit(repeated(2), model=parts, epochs=4, initial_epoch=2, steps_per_epoch=3)
    assert history.epoch == [2, 3]
    assert int(whole.optimizer.iterations.numpy()) == int(parts.optimizer.iterations.numpy()) == 12
    assert fit(X, Y, epochs=0).history == {}


def test_a_generator_that_is_too_short():
    model = classifier()
    with pytest.warns(UserWarning, match="the generator ran out: epoch 3 needs 3 batches, 1 came"):
        history = fit((b for n, b in enumerate(repeated()) if n < 7), model=model, epochs=5, steps_per_epoch=3)
    assert history.epoch == [0, 1, 2] and int(model.optimizer.iterations.numpy()) == 7
    with pytest.warns(UserWarning, match="the generator ran out: epoch 2 needs a batch, 0 came"):
        assert fit(batches(), epochs=2).epoch == [0]


def test_a_generator_that_raises():
    def broken():
        yield from batches()
        raise OSError("the disk is gone")

    with pytest.raises(graphc.GraphcError, match="raised OSError at epoch 2, step 2: the disk is gone") as caught:
        fit(broken(), steps_per_epoch=2)
    assert isinstance(caught.value.__cause__, OSError)


# --- evaluate and single batches ----------------------------------------------------------------------------------


def test_what_evaluate_returns():
    model = classifier(metrics=["accuracy", metrics.SparseTopKCategoricalAccuracy(k=2, name="top")])
    found = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert list(found) == ["loss", "accuracy", "top"]
    assert model.evaluate(X, Y, verbose=0) == list(found.values())
    assert model.evaluate(Batches(), verbose=0) == pytest.approx(list(found.values()), rel=1e-5)
    assert isinstance(classifier(metrics=None).evaluate(X, Y, verbose=0), float)
    some = model.evaluate(X, Y, batch_size=8, steps=2, verbose=0)
    assert some == pytest.approx(model.evaluate(X[:16], Y[:16], verbose=0), rel=1e-5)


def test_single_batches():
    model, fitted = classifier(), classifier()
    model.layers[1].rate = fitted.layers[1].rate = 0.0
    found = [model.train_on_batch(x, y, return_dict=True) for x, y in batches()]
    history = fit(X, Y, model=fitted, epochs=1, shuffle=False).history
    assert same_weights(model, fitted)
    for name, (value,) in history.items():  # each call starts metrics anew
        assert value == pytest.approx(np.average([logs[name] for logs in found], weights=[8, 8, 6]), rel=1e-5)
    assert model.test_on_batch(X, Y) == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)
    np.testing.assert_array_equal(model.predict_on_batch(X), model.predict(X, batch_size=22))
    assert len(model.train_on_batch(X, Y, class_weight={0: 2.0})) == 2


def test_a_model_that_is_built_by_its_first_batch():
    class Net(Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = layers.Dense(4, activation="relu"), layers.Dense(3)

        def call(self, inputs):
            return self.out(self.hidden(inputs["a"]) + inputs["b"])

    model = Net()
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    data = {"a": X, "b": X[:, :1]}
    history = model.fit(data, Y, epochs=2, verbose=0, validation_split=0.2)
    assert len(history.history["val_accuracy"]) == 2 and model.predict(data).shape == (22, 3)


def test_several_inputs_and_outputs():
    a, b = Input((4,), name="a"), Input((1,), name="b")
    hidden = layers.Dense(5, activation="relu")(layers.Concatenate()([a, b]))
    model = Model([a, b], [layers.Dense(3, name="kind")(hidden), layers.Dense(1, name="size")(hidden)])
    kind = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", [kind, "mse"], [1.0, 0.1], {"kind": ["accuracy"], "size": ["mae"]})
    history = model.fit([X, X[:, :1]], [Y, X[:, :1]], epochs=2, verbose=0).history
    assert list(history) == ["loss", "kind_loss", "size_loss", "kind_accuracy", "size_mae"]
    expected = np.array(history["kind_loss"]) + 0.1 * np.array(history["size_loss"])
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    by_name = model.evaluate({"a": X, "b": X[:, :1]}, {"kind": Y, "size": X[:, :1]}, verbose=0)
    assert by_name == model.evaluate([X, X[:, :1]], [Y, X[:, :1]], verbose=0)


# --- mistakes -----------------------------------------------------------------------------------------------------


def wrong(**changes):
    model = Sequential([Input((4,)), layers.Dense(3)])
    settings = {"loss": losses.SparseCategoricalCrossentropy(from_logits=True)} | changes
    model.compile(**settings)
    return model


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: Sequential([Input((4,)), layers.Dense(3)]).fit(X, Y), r"is not compiled: call compile\("),
        (lambda: wrong(optimizer="adan"), "no optimizer is called 'adan'; did you mean Adam"),
        (
            lambda: wrong(loss="mean_squared_eror"),
            "no loss is called 'mean_squared_eror'; did you mean mean_squared_error",
        ),
        (lambda: wrong(metrics=["acuracy"]), "no metric is called 'acuracy'; did you mean .*accuracy"),
        (lambda: wrong(loss_weights=["accuracy"]), "loss_weights are numbers, not 'accuracy'"),
        (lambda: wrong(target="tourch").fit(X, Y), "no target 'tourch'; did you mean torch"),
        (lambda: wrong(loss=None).fit(X, Y, verbose=0), "has no loss"),
        (lambda: wrong(optimizer=None).fit(X, Y), "has no optimizer"),
        (lambda: wrong().fit(X, Y[:5]), "data differs in length: x has 22, y has 5"),
        (lambda: wrong().fit(X), "no targets for the output|no y"),
        (lambda: wrong(metrics=["accuracy"]).fit(X), "no targets for the output|no y"),
        (lambda: wrong().fit(None), "x is None"),
        (lambda: wrong().fit(X[:0], Y[:0]), "there are no examples"),
        (lambda: wrong().fit(X, Y, epochs=-1), "epochs is an integer of 0 or more, not -1"),
        (lambda: wrong().fit(X, Y, batch_size=0), "batch_size is an integer of 1 or more"),
        (lambda: wrong().fit(X, Y, verbose="loud"), "verbose is 'auto', 0, 1 or 2, not 'loud'"),
        (lambda: wrong().fit(X, Y, validation_freq=0), "validation_freq is a number of epochs or a list"),
        (lambda: wrong().fit(X, Y, validation_data=(X, Y[:3])), "x has 22, y has 3\n  in validation_data"),
        (lambda: wrong().fit(batches(), validation_split=0.5), "validation_split"),
        (lambda: wrong().fit(X, Y, class_weight={0: 1.0}, sample_weight=np.ones(22)), "either class_weight or"),
        (lambda: wrong().fit(X[:, :3], Y, verbose=0), "3"),
        (lambda: wrong().fit(X, Y + 1, verbose=0), "the label 3 .*\n.*epoch 1, step 1"),
        (lambda: wrong(check_finite=True).fit(np.where(X > 2, np.nan, X), Y, verbose=0), "NaN or infinite at epoch 1"),
    ],
)
def test_mistakes_are_explained(run, message):
    with pytest.raises(graphc.GraphcError, match=message):
        run()


def test_weights_that_the_loss_does_not_reach_are_named_once():
    inputs = Input((4,))
    hidden = layers.Dense(3, name="used")(inputs)
    model = Model(inputs, [hidden, layers.Dense(2, name="aside")(inputs)])
    model.compile("sgd", [losses.SparseCategoricalCrossentropy(from_logits=True), None])
    with pytest.warns(UserWarning, match="aside/kernel, aside/bias") as caught:
        model.fit(X, [Y, None], epochs=1, verbose=0)
        model.fit(X, [Y, None], epochs=1, verbose=0)
    assert len(caught) == 1


@pytest.mark.parametrize("lengths", [(5, 7, 5, 3), (7, 5, 3, 5)])
def test_sequences_as_long_as_the_outputs_are_wide(lengths):
    """A first batch whose length is the number of outputs says nothing of the lengths of later targets."""
    x = Input((None, 4))
    pooled = layers.GlobalAveragePooling1D()(x)
    model = Model(x, {"whole": layers.Dense(5)(pooled), "each": layers.Dense(5)(x)})
    model.compile("sgd", {"whole": "mse", "each": losses.SparseCategoricalCrossentropy(from_logits=True)})

    def batches():
        for length in lengths:
            y = {"whole": np.zeros((2, 5), np.float32), "each": np.zeros((2, length), np.int32)}
            yield np.ones((2, length, 4), np.float32), y, {"whole": np.ones(2), "each": np.ones((2, length))}

    history = model.fit(batches(), epochs=1, steps_per_epoch=len(lengths), verbose=0)
    assert np.isfinite(history.history["loss"]).all() and len(model._compiled.programs) == 1
