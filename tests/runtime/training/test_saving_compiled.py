"""`save` of a compiled model and `load_model`: training goes on as if it had not been interrupted."""

import json
import os
import zipfile

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Model, Sequential, layers, losses, metrics, ops, optimizers, saving

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.arange(40) % 4
RUN = {"batch_size": 16, "verbose": 0}


def network(optimizer, target="numpy", dtype=None, **options):
    graphc.utils.set_random_seed(1)
    made = [Input((3,)), layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dense(4)]
    made = made if dtype is None else [Input((3,)), *(layers.Dense(n, dtype=dtype) for n in (8, 4))]
    model = Sequential(made)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], target=target, **options)
    return model


def excluding():
    optimizer = optimizers.AdamW(0.01, weight_decay=0.3)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta"])
    return optimizer


OPTIMIZERS = {
    "adam": lambda: "adam",
    "schedule": lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 12), momentum=0.9, nesterov=True),
    "decay": excluding,
    "ema": lambda: optimizers.RMSprop(0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=4),
    "accumulation": lambda: optimizers.Adam(0.01, amsgrad=True, gradient_accumulation_steps=4, clipnorm=1.0),
    "loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.Lion(1e-3), 1024.0, dynamic_growth_steps=4),
    "adafactor": lambda: optimizers.Adafactor(0.05),
    "muon": lambda: optimizers.Muon(0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on(tmp_path, name):
    """Two epochs, a file, two epochs: the weights of four, bit for bit."""
    whole = network(OPTIMIZERS[name]())
    whole.fit(X, Y, epochs=4, shuffle=False, **RUN)
    first = network(OPTIMIZERS[name]())
    first.fit(X, Y, epochs=2, shuffle=False, **RUN)
    first.save(tmp_path / "m.graphc")
    second = saving.load_model(tmp_path / "m.graphc")
    assert second.optimizer.get_config() == first.optimizer.get_config()
    if name != "ema":  # which puts the averages in place of the weights at the end of every fit
        second.fit(X, Y, epochs=2, shuffle=False, **RUN)
        assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), second.get_weights(), strict=True))
    else:
        for model in (first, second):
            model.fit(X, Y, epochs=2, shuffle=False, **RUN)
        assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def test_a_shuffled_run_goes_on_from_the_seed(tmp_path):
    whole = network("adam")
    graphc.utils.set_random_seed(5)
    whole.fit(X, Y, epochs=4, **RUN)
    first = network("adam")
    graphc.utils.set_random_seed(5)
    first.fit(X, Y, epochs=2, **RUN)
    first.save(tmp_path / "m.graphc")
    second = saving.load_model(tmp_path / "m.graphc")
    graphc.utils.set_random_seed(5)
    second.fit(X, Y, epochs=4, initial_epoch=2, **RUN)
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), second.get_weights(), strict=True))


@pytest.mark.parametrize("target", ["torch", "jax", "onnx"])
def test_another_target_goes_on(tmp_path, target):
    needs(target)
    whole = network("adam")
    whole.fit(X, Y, epochs=4, shuffle=False, **RUN)
    first = network("adam", target)
    first.fit(X, Y, epochs=2, shuffle=False, **RUN)
    first.save(tmp_path / "m.graphc")
    second = saving.load_model(tmp_path / "m.graphc")
    assert second.get_compile_config()["target"] == target
    third = saving.load_model(tmp_path / "m.graphc")
    third.compile(third.optimizer, losses.SparseCategoricalCrossentropy(from_logits=True), target="numpy")
    for model in (second, third):
        model.fit(X, Y, epochs=2, shuffle=False, **RUN)
        for a, b in zip(whole.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_learning_rate_that_was_set_is_kept(tmp_path):
    model = network(optimizers.Adam(0.1))
    model.optimizer.learning_rate = 0.025
    model.save(tmp_path / "m.graphc")
    loaded = saving.load_model(tmp_path / "m.graphc")
    assert float(loaded.optimizer.learning_rate) == pytest.approx(0.025) and not loaded.optimizer.built


def test_the_scale_of_mixed_precision_is_kept(tmp_path):
    model = network("adam", dtype="mixed_float16")
    model.fit(X, Y, epochs=1, **RUN)
    model.optimizer.dynamic_scale.assign(np.float32(64))
    model.save(tmp_path / "m.graphc")
    loaded = saving.load_model(tmp_path / "m.graphc")
    assert isinstance(loaded.optimizer, optimizers.LossScaleOptimizer)
    assert isinstance(loaded.optimizer.inner_optimizer, optimizers.Adam)
    assert float(loaded.optimizer.dynamic_scale) == 64 and int(loaded.optimizer.iterations) == 3


def test_what_compile_was_given_comes_back(tmp_path):
    x = Input((3,), name="x")
    model = Model(x, {"a": layers.Dense(2, name="a")(x), "b": layers.Dense(1, name="b")(x)})
    model.compile(
        optimizers.SGD(0.5, momentum=0.9),
        {"a": losses.Huber(delta=2.0), "b": "mse"},
        loss_weights={"a": 0.5, "b": 2.0},
        metrics={"a": [metrics.MeanSquaredError(name="error"), "mae"]},
        weighted_metrics={"b": [losses.mean_absolute_error]},
        passes="canonicalize",
        memory_budget="1GB",
        check_finite=True,
    )
    y = {"a": X[:, :2], "b": X[:, :1]}
    model.save(tmp_path / "m.graphc")
    loaded = saving.load_model(tmp_path / "m.graphc")
    assert loaded.get_compile_config() == model.get_compile_config()
    assert loaded.evaluate(X, y, verbose=0, return_dict=True) == model.evaluate(X, y, verbose=0, return_dict=True)
    again = Model.from_config(model.get_config())
    again.compile_from_config(json.loads(json.dumps(model.get_compile_config())))
    assert again.get_compile_config() == model.get_compile_config()


def test_a_frozen_base_goes_on(tmp_path):
    def made():
        model = network("adam")
        model.layers[0].trainable = False
        model.fit(X, Y, epochs=2, shuffle=False, **RUN)
        return model

    model = made()
    model.save(tmp_path / "m.graphc")
    loaded = saving.load_model(tmp_path / "m.graphc")
    for each in (model, loaded):
        each.fit(X, Y, epochs=1, shuffle=False, **RUN)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))


def test_without_the_optimizer(tmp_path):
    model = network("adam")
    model.fit(X, Y, epochs=1, **RUN)
    model.save(tmp_path / "full.graphc")
    model.save(tmp_path / "bare.graphc", include_optimizer=False)
    assert not saving.load_model(tmp_path / "bare.graphc").compiled
    assert not saving.load_model(tmp_path / "full.graphc", compile=False).compiled
    assert os.path.getsize(tmp_path / "bare.graphc") < os.path.getsize(tmp_path / "full.graphc")
    np.testing.assert_array_equal(saving.load_model(tmp_path / "bare.graphc").predict(X), model.predict(X))


def own_loss(y_true, y_pred):
    return ops.mean(ops.square(y_pred), -1)


def test_functions_of_ones_own(tmp_path):
    path = tmp_path / "m.graphc"
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.compile("sgd", own_loss, metrics=[own_loss])
    model.save(path)
    with pytest.raises(
        graphc.FormatError, match=r"(?s)function 'own_loss' is not known; pass it in custom_objects.*comp"
    ):
        saving.load_model(path)
    loaded = saving.load_model(path, custom_objects={"own_loss": own_loss})
    y = np.zeros((40, 2))
    assert loaded.evaluate(X, y, verbose=0) == model.evaluate(X, y, verbose=0)
    assert not saving.load_model(path, compile=False).compiled


def test_a_registered_loss_comes_back(tmp_path):
    @saving.register_keras_serializable("tests")
    class Scaled(losses.Loss):
        def __init__(self, factor, **options):
            super().__init__(**options)
            self.factor = factor

        def call(self, y_true, y_pred):
            return self.factor * ops.mean(ops.square(y_true - y_pred), -1)

        def get_config(self):
            return super().get_config() | {"factor": self.factor}

    model = Sequential([Input((3,)), layers.Dense(2)])
    model.compile("sgd", Scaled(3.0))
    model.save(tmp_path / "m.graphc")
    y = np.zeros((40, 2))
    assert saving.load_model(tmp_path / "m.graphc").evaluate(X, y, verbose=0) == model.evaluate(X, y, verbose=0)


def test_a_lambda_is_warned_of(tmp_path):
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.compile("sgd", lambda y_true, y_pred: ops.mean(y_pred, -1))
    with pytest.warns(UserWarning, match=r"saved without how it is compiled: compile\(loss=…\): cannot save") as caught:
        model.save(tmp_path / "m.graphc")
    assert caught[0].filename == __file__
    assert not saving.load_model(tmp_path / "m.graphc").compiled


class OwnCompile(Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)

    def compile(self, optimizer, temperature):
        super().compile(optimizer, "mse")
        self.temperature = temperature


class OwnConfig(OwnCompile):
    def get_compile_config(self):
        return {"optimizer": self.optimizer, "temperature": self.temperature}

    def compile_from_config(self, config):
        self.compile(saving.deserialize_keras_object(config["optimizer"]), config["temperature"])


def test_a_compile_of_ones_own(tmp_path):
    model = OwnCompile()
    model.compile("adam", 3)
    model(X)
    model.save(tmp_path / "m.graphc")
    with pytest.warns(UserWarning, match="has a `compile` of its own") as caught:
        loaded = saving.load_model(tmp_path / "m.graphc", {"OwnCompile": OwnCompile})
    assert caught[0].filename == __file__ and not loaded.compiled
    model = OwnConfig()
    model.compile("adam", 3)
    model.fit(X, X[:, :2], **RUN)
    model.save(tmp_path / "m.graphc")
    loaded = saving.load_model(tmp_path / "m.graphc", {"OwnConfig": OwnConfig})
    assert loaded.temperature == 3 and int(loaded.optimizer.iterations) == 3


def test_weights_of_a_model_file(tmp_path):
    model = network("adam")
    model.fit(X, Y, epochs=1, **RUN)
    model.save(tmp_path / "m.graphc")
    other = network("sgd")
    other.load_weights(tmp_path / "m.graphc")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
    small = Sequential([Input((3,)), layers.Dense(2)])
    with pytest.raises(graphc.ShapeError, match=r"the weights in m\.graphc do not fit model"):
        small.load_weights(tmp_path / "m.graphc")


def test_scalar_weights_stay_scalars(tmp_path):
    class Scale(Model):
        def build(self, input_shape):
            self.factor = self.add_weight((), "ones", name="factor")

        def call(self, inputs):
            return inputs * self.factor

    model = Scale()
    model(X)
    model.save_weights(tmp_path / "w.safetensors")
    model.load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["compile"].update(config=3), "does not say how the model is compiled"),
        (lambda c: c["compile"]["config"].update(optimizer="adamm"), "no optimizer is called 'adamm'; did you mean"),
        (lambda c: c["compile"]["config"].update(colour="red"), "colour"),
        (lambda c: c["compile"]["optimizer"].update(trained=["other/kernel"]), "weights that the model does not have"),
        (lambda c: c["compile"]["config"].update(optimizer="sgd"), r"does not fit it: optimizer/dense/bias/momentum"),
    ],
)
def test_files_whose_configuration_is_wrong(tmp_path, change, message):
    model = Sequential([Input((3,)), layers.Dense(4)])
    model.compile("adam", "mse")
    model.fit(X, X[:, [0, 1, 2, 0]], **RUN)
    model.save(tmp_path / "m.graphc")
    with zipfile.ZipFile(tmp_path / "m.graphc") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    _write(tmp_path / "m.graphc", members)
    with pytest.raises(graphc.GraphcError, match=message):
        saving.load_model(tmp_path / "m.graphc")
    assert not saving.load_model(tmp_path / "m.graphc", compile=False).compiled


def _write(path, members):
    import hashlib

    metadata = json.loads(members["metadata.json"])
    for name, entry in metadata["files"].items():
        entry["size"], entry["sha256"] = len(members[name]), hashlib.sha256(members[name]).hexdigest()
    members["metadata.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, at: m.save(at / "m.keras"), r"whose name ends in \.graphc, not 'm\.keras'"),
        (lambda m, at: m.save_weights(at / "m.weights.h5"), r"whose name ends in \.safetensors, not 'm\.weights\.h5'"),
        (
            lambda m, at: saving.load_model(at / "other.keras"),
            r"reads \.graphc files.*'other\.keras' is none",
        ),
    ],
)
def test_names_of_other_formats_are_refused(tmp_path, call, message):
    (tmp_path / "other.keras").write_bytes(b"")
    with pytest.raises(graphc.GraphcError, match=message):
        call(network("sgd"), tmp_path)


def test_clones_and_models_from_json():
    class Twice(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    x = Input((3,))
    model = Model(x, Twice()(layers.Dense(2, name="head")(x)))
    model.compile("sgd", "mse")
    clone = graphc.models.clone_model(model)
    assert not clone.compiled and clone.get_layer("head") is not model.get_layer("head")
    assert not np.array_equal(clone.get_weights()[0], model.get_weights()[0])
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(X), model(X))
    made = graphc.models.model_from_json(network("sgd").to_json())
    assert [v.shape for v in made.weights] == [v.shape for v in network("sgd").weights]
    for text in ("{", "3", '{"class_name": "Dense", "config": {"units": 3}}'):
        with pytest.raises(graphc.FormatError):
            graphc.models.model_from_json(text)
