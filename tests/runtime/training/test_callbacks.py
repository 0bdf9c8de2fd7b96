"""Callbacks: what is called when, and what each does."""

import csv
import io
import math
import re

import numpy as np
import pytest

import graphc
from graphc import Input, Sequential, callbacks, layers, metrics, optimizers
from graphc.runtime.training.callbacks import plotting, progress

RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(10, 3)).astype(np.float32)
Y = (X @ [[1.0], [-2.0], [0.5]] + 0.3).astype(np.float32)


def regression(rate=0.1, **options):
    graphc.utils.set_random_seed(3)
    model = Sequential([Input((3,)), layers.Dense(1)])
    model.compile(optimizers.SGD(rate), "mse", **options)
    return model


def fit(*given, epochs=3, model=None, **options):
    model = model or regression()
    return model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(given), **options)


class Fake:
    """A model without anything but weights and a rate, to drive callbacks by hand."""

    def __init__(self, rate=1.0):
        self.stop_training = False
        self.weights = [np.zeros(1)]
        self.optimizer = type("Optimizer", (), {"learning_rate": rate})()

    def get_weights(self):
        return [w.copy() for w in self.weights]

    def set_weights(self, weights):
        self.weights = weights


def drive(callback, *values, name="val_loss", model=None):
    """Show the callback these values as the ends of epochs; at which epoch it stopped, or None."""
    model = model or Fake()
    listed = callbacks.CallbackList([callback], model=model)
    listed.begin("train")
    stopped = None
    for epoch, value in enumerate(values):
        model.weights = [np.full(1, epoch)]
        listed.on_epoch_begin(epoch)
        listed.on_epoch_end(epoch, {name: value})
        if model.stop_training:
            stopped = epoch
            break
    listed.end("train")
    return stopped


# --- what is called -----------------------------------------------------------------------------------------------


def test_hooks_are_called_in_order():
    called = []

    class Noted(callbacks.Callback):
        pass

    for name in dir(callbacks.Callback):
        if name.startswith("on_") and name not in ("on_batch_begin", "on_batch_end"):
            setattr(Noted, name, lambda self, *args, name=name, **kwargs: called.append((name[3:], *args[:-1])))
    fit(Noted(), epochs=1, validation_data=(X[:5], Y[:5]))
    train = [(f"train_batch_{end}", i) for i in range(3) for end in ("begin", "end")]
    test = [(f"test_batch_{end}", i) for i in range(2) for end in ("begin", "end")]
    assert called == [
        ("train_begin",),
        ("epoch_begin", 0),
        *train,
        ("test_begin",),
        *test,
        ("test_end",),
        ("epoch_end", 0),
        ("train_end",),
    ]


def test_the_old_names_of_batch_hooks():
    batches = []

    class Old(callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            batches.append((batch, sorted(logs)))

    fit(Old(), epochs=1)
    assert batches == [(i, ["loss"]) for i in range(3)]


def test_params_and_the_history():
    seen = {}

    class Noted(callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.update(self.params)
            assert self.model.optimizer is not None

    history = fit(Noted(), epochs=5, initial_epoch=2)
    assert seen["epochs"] == 5 and seen["steps"] == 3 and seen["verbose"] == 0
    assert history.epoch == [2, 3, 4] and len(history.history["loss"]) == 3 and history.params["steps"] == 3
    assert history.model.history is history


def test_lambdas():
    found = []
    fit(
        callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: found.append((epoch, logs["loss"])),
            on_train_batch_end=lambda batch, logs: found.append(batch),
            on_train_end=lambda logs: found.append("end"),
        ),
        epochs=1,
    )
    assert found[:3] == [0, 1, 2] and found[3][0] == 0 and found[4] == "end"


def test_a_callback_may_stop_within_an_epoch():
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    model = regression()
    assert fit(Stop(), model=model).epoch == [0] and int(model.optimizer.iterations.numpy()) == 2
    assert len(fit(model=model).epoch) == 3


def test_misspelt_callbacks_get_a_suggestion():
    with pytest.raises(graphc.GraphcError, match="not 'EarlyStoping'; did you mean EarlyStopping"):
        fit("EarlyStoping")


@pytest.mark.parametrize("wrong", [print, object(), "early", callbacks.EarlyStopping])
def test_what_is_no_callback(wrong):
    with pytest.raises(graphc.GraphcError, match=r"a callback is an object of a subclass|is a class: give a callback"):
        fit(wrong)


# --- monitoring ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "stopped"),
    [
        ({}, [3, 2, 1, 1.5, 1], 3),
        ({"patience": 2}, [3, 2, 2.5, 2.5, 1], 3),
        ({"patience": 2}, [3, 2, 2.5, 1, 1.5, 0], None),
        ({"min_delta": 0.5}, [3, 2, 1.7, 1], 2),
        ({"mode": "max"}, [1, 2, 1], 2),
        ({"baseline": 1.0, "patience": 1}, [3, 2], None),
        ({"baseline": 1.0, "patience": 2}, [0.5, 0.6, 0.7], 2),
        ({"start_from_epoch": 2}, [1, 2, 3, 4], 3),
        ({}, [math.nan, math.nan], 1),
    ],
)
def test_early_stopping(options, values, stopped):
    assert drive(callbacks.EarlyStopping(**options), *values) == stopped


def test_accuracies_rise():
    model = Fake()
    model.metrics = [metrics.Accuracy(), metrics.TopKCategoricalAccuracy(), metrics.Mean(name="largest")]
    assert drive(callbacks.EarlyStopping("val_accuracy"), 0.5, 0.6, 0.6, name="val_accuracy", model=model) == 2
    name = "top_k_categorical_accuracy"
    model.stop_training = False
    assert drive(callbacks.EarlyStopping(name), 0.5, 0.4, name=name, model=model) == 1
    with pytest.raises(graphc.GraphcError, match="whether more or less of 'val_largest' is better is not known"):
        drive(callbacks.EarlyStopping("val_largest"), 0.5, name="val_largest", model=model)


def test_the_best_weights_come_back():
    model = Fake()
    drive(callbacks.EarlyStopping(patience=2, restore_best_weights=True), 3, 1, 2, 2, model=model)
    assert model.weights[0] == 1
    trained = regression(rate=5.0)  # diverges
    first = trained.get_weights()
    fit(callbacks.EarlyStopping("loss", restore_best_weights=True, patience=1), model=trained, epochs=4)
    assert np.isfinite(trained.get_weights()[0]).all() and not np.array_equal(first[0], trained.get_weights()[0])


def test_a_log_that_is_not_there_is_warned_of_once():
    with pytest.warns(
        UserWarning, match="EarlyStopping watches 'val_loss', which is not among the logs; did you mean loss"
    ) as caught:
        fit(callbacks.EarlyStopping())
    assert len(caught) == 1


def test_the_rate_is_reduced_on_a_plateau():
    model = Fake(1.0)
    rates = []
    noted = callbacks.LambdaCallback(on_epoch_end=lambda e, logs: rates.append(model.optimizer.learning_rate))
    reduce = callbacks.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.2)
    listed = callbacks.CallbackList([reduce, noted], model=model)
    listed.begin("train")
    for epoch, value in enumerate([1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]):
        listed.on_epoch_end(epoch, {"val_loss": value})
    assert rates == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2, 0.2]
    with pytest.raises(graphc.GraphcError, match="factor is a number below 1, not 1"):
        callbacks.ReduceLROnPlateau(factor=1)


def test_the_rate_may_be_set_at_any_time_without_compiling():
    model = regression(rate=0.0)
    before = model.get_weights()
    fit(model=model, epochs=1)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])
    programs = list(model._compiled.programs.values())
    history = fit(callbacks.LearningRateScheduler(lambda epoch, rate: rate + 0.1), model=model, epochs=2)
    assert history.history["learning_rate"] == pytest.approx([0.1, 0.2]) and history.history["loss"][1] < 3
    fit(callbacks.LearningRateScheduler(lambda epoch: 0.0), model=model, epochs=1)
    assert list(model._compiled.programs.values()) == programs

    class Zero(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.0
            weights.append(self.model.get_weights()[0])

    model.optimizer.learning_rate, weights = 0.1, []
    fit(Zero(), model=model, epochs=1)
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], before[0])


def test_schedules_that_are_none():
    with pytest.raises(graphc.GraphcError, match="takes a function of the epoch, not 3"):
        callbacks.LearningRateScheduler(3)
    with pytest.raises(graphc.GraphcError, match="gives a finite number for epoch 0, not 'low'"):
        fit(callbacks.LearningRateScheduler(lambda epoch: "low"))


def test_nan_ends_training(capsys):
    model = regression(rate=1e30)
    history = fit(callbacks.TerminateOnNaN(), model=model, epochs=50)
    assert len(history.epoch) < 50 and "Invalid loss, terminating training" in capsys.readouterr().out


def test_state_goes_from_one_callback_to_another():
    def pairs():
        yield callbacks.EarlyStopping(patience=2, restore_best_weights=True), [3, 1, 2], 3
        yield callbacks.ReduceLROnPlateau(patience=2), [3, 1, 2], None

    for (first, values, _), (second, _, _) in zip(pairs(), pairs(), strict=True):
        drive(first, *values)
        second.on_train_begin()
        second.set_state(first.get_state())
        assert {k: np.asarray(v).tolist() for k, v in second.get_state().items()} == {
            k: np.asarray(v).tolist() for k, v in first.get_state().items()
        }
    assert callbacks.Callback().get_state() is None
    with pytest.raises(graphc.GraphcError, match="LambdaCallback keeps no state, and was given a"):
        callbacks.LambdaCallback().set_state({"a": 1})


# --- files --------------------------------------------------------------------------------------------------------


def rows(path):
    return list(csv.reader(io.StringIO(path.read_text())))


def test_logs_as_rows(tmp_path):
    path = tmp_path / "log.csv"
    fit(callbacks.CSVLogger(path), epochs=2, validation_data=(X, Y), validation_freq=2)
    head, first, second = rows(path)
    assert head == ["epoch", "loss", "val_loss"] and first[2] == "NA" and float(second[2]) > 0
    fit(callbacks.CSVLogger(path, append=True), epochs=1, validation_data=(X, Y))
    assert len(rows(path)) == 4
    fit(callbacks.CSVLogger(path, separator=";"), epochs=1)
    assert path.read_text().startswith("epoch;loss\n0;")


def test_rows_of_a_run_that_is_resumed(tmp_path):
    path = tmp_path / "log.csv"
    logger = callbacks.CSVLogger(path)
    logger.on_train_begin()
    logger.on_epoch_end(0, {"loss": 1.0})
    state = logger.get_state()
    logger.on_epoch_end(1, {"loss": 2.0})  # after the checkpoint: to be done again
    again = callbacks.CSVLogger(path)
    again.on_train_begin()
    again.set_state(state)
    again.on_epoch_end(1, {"loss": 3.0})
    assert rows(path) == [["epoch", "loss"], ["0", "1.0"], ["1", "3.0"]]


def test_models_are_saved(tmp_path):
    fit(
        callbacks.ModelCheckpoint(tmp_path / "all" / "{epoch:02d}-{loss:.3f}.graphc"),
        callbacks.ModelCheckpoint(tmp_path / "w{epoch}-{batch}.safetensors", save_weights_only=True, save_freq=4),
        epochs=3,
    )
    names = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert [name[:3] for name in names] == ["01-", "02-", "03-"] and len(names[0]) == len("01-0.000.graphc")
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["w2-1.safetensors", "w3-2.safetensors"]
    model = graphc.saving.load_model(tmp_path / "all" / names[-1])
    assert model.predict(X).shape == (10, 1)


def test_only_the_best_is_saved(tmp_path):
    saved = []
    model = Fake()
    model.save = lambda path, overwrite: saved.append(path.name)
    drive(callbacks.ModelCheckpoint(tmp_path / "{epoch}.graphc", save_best_only=True), 3, 4, 2, 2, model=model)
    assert saved == ["1.graphc", "3.graphc"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: callbacks.ModelCheckpoint("m.keras"), "name ends in .graphc, not 'm.keras'"),
        (lambda: callbacks.ModelCheckpoint("m.h5", save_weights_only=True), "name ends in .safetensors"),
        (lambda: callbacks.ModelCheckpoint("m.graphc", save_freq=0), "save_freq is 'epoch' or a number"),
        (lambda: callbacks.EarlyStopping(mode="up"), "mode is 'auto', 'min' or 'max', not 'up'"),
        (lambda: fit(callbacks.ModelCheckpoint("{acc}.graphc")), "cannot be filled in .'acc'.; there are epoch, loss"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(graphc.GraphcError, match=message):
        make()


# --- progress and drawings ----------------------------------------------------------------------------------------


def test_a_line_for_each_epoch(capsys):
    regression().fit(X, Y, batch_size=4, epochs=2, validation_split=0.2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("Epoch 2/2 - 0s - ") and "/step - loss: " in lines[1] and " - val_loss: " in lines[1]


def test_nothing_is_shown_when_it_is_not_asked_for(capsys):
    model = regression()
    fit(model=model)
    model.evaluate(X, Y, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert progress.verbosity("auto") == 1
    logger = progress.ProgbarLogger()
    listed = callbacks.CallbackList([logger], model=Fake(), params={"epochs": 2, "steps": 3, "verbose": 1})
    listed.begin("train")
    listed.on_epoch_begin(0)
    updates = []
    monkeypatch.setattr(logger._bar, "update", lambda *args, **kwargs: updates.append(kwargs))
    for batch in range(1000):
        listed.batch_end("train", batch, {"loss": 0.5})
    assert len(updates) < 100
    listed.on_epoch_end(0, {"loss": 0.25})
    listed.end("train")
    shown = capsys.readouterr().out
    assert logger._bar is None and "Epoch 1/2\n" in shown and "1000/1000 - 0s - " in shown
    assert shown.endswith("/step - loss: 0.2500\n")


@pytest.mark.parametrize("width", [40, 80])
def test_a_bar_keeps_its_count_beside_many_logs(width, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    logger = progress.ProgbarLogger()
    listed = callbacks.CallbackList([logger], model=Fake(), params={"epochs": 2, "steps": 507, "verbose": 1})
    listed.begin("train")
    listed.on_epoch_begin(0)
    logger._seen = 123
    logger._update({"loss": 0.5, "accuracy": 0.25, "sparse_top_k_categorical_accuracy": 0.75})
    listed.on_epoch_end(0, {"loss": 0.25})
    shown = capsys.readouterr().out
    (line,) = {line for line in re.split(r"[\r\n]", shown) if "123/507" in line}
    assert "━" * 5 in line and re.search(r"\d+[mu]?s/step", line) and "loss" in line and "…" in line
    assert len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) <= width


@pytest.mark.parametrize("width", [40, 80])
def test_the_last_line_of_an_epoch_breaks_between_logs(width, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    model = Sequential([Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae", "mape", "root_mean_squared_error", "cosine_similarity"])
    history = model.fit(X, Y, batch_size=4, validation_data=(X, Y))
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out).rpartition("\r")[2].splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= width
    assert all(line.startswith("    ") for line in lines[1:])
    parts = " - ".join(line.strip() for line in lines).split(" - ")
    assert [part.split(":")[0] for part in parts[3:]] == list(history.history)


def test_the_line_of_an_epoch_is_one_where_programs_read_it(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    regression().fit(X, Y, epochs=2, validation_data=(X, Y))
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_that_a_target_compiles_is_said_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    model = regression()
    shown = []
    for run in (lambda: model.fit(X, Y), lambda: model.predict(X), lambda: model.evaluate(X, Y)):
        for _ in range(2):
            run()
            shown.append(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out))
    said = [text.count("compiling for numpy…") > 0 for text in shown]
    assert said == [True, False] * 3
    first = shown[0]
    # While the step is recorded there is no bar yet; while it runs its first time the bar says so.
    assert "0/" not in first[: first.index("compiling")] and re.search(r"0/1 .*compiling for numpy…", first)
    assert all("compiling" not in text.splitlines()[-1].rpartition("\r")[2] for text in shown)


def test_that_a_target_compiles_is_no_line_of_a_file(capsys):
    regression().fit(X, Y)
    assert "compiling" not in capsys.readouterr().out


def test_numbers_and_times():
    assert progress.number(0.5) == "0.5000" and progress.number(1e-5) == "1.0000e-05"
    assert [progress.step_time(t) for t in (2.0, 0.0123, 5e-6)] == ["2s", "12ms", "5us"]


def test_a_history_is_drawn(tmp_path, capsys, monkeypatch):
    history = fit(epochs=3, validation_data=(X, Y))
    history.history["loss"][1] = math.nan
    history.plot(tmp_path / "loss.svg")
    text = (tmp_path / "loss.svg").read_text()
    assert text.startswith("<svg") and text.count("<polyline") == 2 and text.count("<circle") == 5
    monkeypatch.setattr(plotting, "figure", lambda panels: None)
    history.plot()
    shown = capsys.readouterr().out
    assert "loss" in shown and "○" in shown and "epoch 3" in shown
    with pytest.raises(graphc.GraphcError, match="matplotlib, which is not installed"):
        history.plot(tmp_path / "loss.png")
    with pytest.raises(graphc.GraphcError, match="no epoch has ended"):
        callbacks.History().plot()


def test_panels_of_epochs_without_validation():
    (panel,) = plotting.panels([0, 1, 2], {"loss": [3.0, 2.0, 1.0], "val_loss": [2.0]})
    assert panel.points == {"training": [(1, 3.0), (2, 2.0), (3, 1.0)], "validation": [(3, 2.0)]}
    (flat,) = plotting.panels([0], {"rate": [0.5]})
    assert flat.range == (0, 1) and len(plotting.drawing(flat)) == plotting.ROWS + 2


def test_a_callback_may_stop_an_evaluation():
    class Stop(callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.model.stop_evaluating = True

    model = regression()
    few = model.evaluate(X, Y, batch_size=4, verbose=0, callbacks=[Stop()])
    assert few == pytest.approx(model.evaluate(X[:4], Y[:4], verbose=0), rel=1e-6)
