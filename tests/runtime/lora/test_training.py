"""Fine-tuning with adapters: equal losses on every target, a base unchanged to the bit, checkpoints that resume."""

from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import GraphcError, Input, Sequential, callbacks, layers, losses, optimizers

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
TARGETS = ["numpy", "onnx", "torch", "jax"]


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


class FirstLosses(callbacks.Callback):
    """The mean loss after each of the first 20 steps."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        if len(self.losses) < 20:
            self.losses.append(float(logs["loss"]))


def base_of(model) -> list:
    return [(v, v.numpy().copy()) for v in model.weights if v.frozen]


def fine_tuned(model, target: str, x, y, optimizer=None, **arguments) -> list[float]:
    """The first losses of a fit; checks what must hold of every one."""
    needs(target)
    base, first = base_of(model), FirstLosses()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or optimizers.AdamW(3e-3, weight_decay=0.01), loss, target=target)
    model.fit(x, y, verbose=0, callbacks=[first], **arguments)
    assert base
    for variable, before in base:
        np.testing.assert_array_equal(variable.numpy(), before)
    slots = {id(v.slot_of) for v in model.optimizer.variables if v.slot_of is not None}
    assert slots == {id(v) for v in model.trainable_weights}
    assert len(first.losses) == 20
    return first.losses


def agree(found: dict[str, list[float]]) -> None:
    wanted = found["numpy"]
    assert wanted[-1] < wanted[0]
    for name, each in found.items():
        np.testing.assert_allclose(each, wanted, rtol=1e-4, err_msg=name)


def rotated_digits(count: int):
    """Digits turned by a right angle, which the network was not trained on."""
    with np.load(EXAMPLES / "digits_test.npz") as data:
        return np.rot90(data["x_train"][:count], axes=(1, 2)).copy(), data["y_train"][:count]


def pretrained_digits():
    from digits_cnn import FOLDER, digits_cnn

    graphc.utils.set_random_seed(0)
    model = digits_cnn()
    model.load_weights(FOLDER / "digits_cnn.safetensors")
    return model


def test_the_digits_network_learns_rotated_digits_alike_on_every_target(examples: None) -> None:
    x, y = rotated_digits(640)
    found = {}
    for target in TARGETS:
        model = pretrained_digits()
        model.add_adapter(
            r=4, alpha=8, targets="stem,block_conv*,head_conv", dropout=0.1, modules_to_save="logits", dora=True
        )
        found[target] = fine_tuned(model, target, x, y, batch_size=32, epochs=1)
    agree(found)


def test_the_example_learns_sideways_digits_and_forgets_nothing(
    examples: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import digits_lora

    monkeypatch.setattr("sys.argv", ["digits_lora.py", "--target", "numpy", "--epochs", "4", "--save", str(tmp_path)])
    digits_lora.main()
    before, after, without = capsys.readouterr().out.splitlines()[1:4]
    assert before == "before: right on 447 of 450 upright and 47 of 450 sideways digits"
    assert int(after.split(": ")[1].split()[0]) > 300
    assert without == "without the adapter: 447 of 450 upright digits"
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert (tmp_path / "merged" / "merge_certificate.json").is_file()


def test_the_language_model_is_fine_tuned_alike_on_every_target(examples: None) -> None:
    from gpt import gpt

    text = np.frombuffer(Path(np.__file__).with_name("version.pyi").read_bytes() * 40, np.uint8).astype(np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(text, 17)[::7][:80]
    found = {}
    for target in TARGETS:
        graphc.utils.set_random_seed(0)
        model = gpt(layers=2, width=16, heads=2, context=16, dropout=0.1)
        model.add_adapter(
            r=4, alpha=8, targets="query,value,up,embedding", dropout=0.1, rank_pattern={"value": 2}, rslora=True
        )
        found[target] = fine_tuned(model, target, windows[:, :-1], windows[:, 1:], batch_size=4, epochs=1)
    agree(found)


def test_gradients_of_the_framework_are_the_same(examples: None) -> None:
    x, y = rotated_digits(640)
    found = {}
    for gradients in ("ir", "native"):
        model = pretrained_digits()
        model.add_adapter(r=2, targets="block_conv*,logits", dora=True)
        first = FirstLosses()
        loss = losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizers.Adam(3e-3), loss, target="torch", gradients=gradients)
        model.fit(x, y, verbose=0, batch_size=32, callbacks=[first])
        found[gradients] = first.losses
    np.testing.assert_allclose(found["native"], found["ir"], rtol=1e-4)


def dense_model():
    graphc.utils.set_random_seed(0)
    model = Sequential([Input((6,)), layers.Dense(16, activation="relu"), layers.BatchNormalization(), layers.Dense(3)])
    model.add_adapter(r=2, targets="dense,dense_1", dropout=0.2, bias="lora_only")
    return model


def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 6)).astype(np.float32)
    return x, (x @ rng.standard_normal((6, 3))).astype(np.float32)


class StopsAt(callbacks.Callback):
    def __init__(self, batches: int):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("target", ["numpy", "torch"])
def test_checkpoints_hold_the_adapter_only_and_resume_to_the_bit(target: str, tmp_path: Path) -> None:
    x, y = data()

    def fit(stop=None, backup=True):
        model = dense_model()
        model.compile(optimizers.Adam(1e-2), "mse", target=target)
        saver = callbacks.BackupAndRestore(tmp_path / "backup", save_freq=3, delete_checkpoint=False)
        extra = ([saver] if backup else []) + ([StopsAt(stop)] if stop else [])
        if stop:
            with pytest.raises(KeyboardInterrupt):
                model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=extra)
        else:
            model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=extra)
        return [v.numpy() for v in model.weights]

    undisturbed = fit(backup=False)
    fit(stop=11)
    from safetensors.numpy import load_file

    names = {name for name in load_file(tmp_path / "backup" / "latest.safetensors") if not name.startswith("metrics/")}
    assert "dense/kernel" not in names and "batch_normalization/gamma" not in names
    assert {"dense/lora_kernel_a", "dense_1/bias", "batch_normalization/moving_mean"} <= names
    for one, other in zip(fit(), undisturbed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_of_adapters_of_another_base_is_refused(tmp_path: Path) -> None:
    x, y = data()
    backup = callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    for change in (0.0, 1.0):
        model = dense_model()
        kernel = model.layers[0].kernel
        kernel.assign(kernel.numpy() + change)
        model.compile("sgd", "mse")
        if change:
            with pytest.raises(
                GraphcError, match=r"adapters of another base: the SHA-256 .* is [0-9a-f]{16}…, that of"
            ):
                model.fit(x, y, epochs=2, verbose=0, callbacks=[backup])
        else:
            model.fit(x, y, epochs=1, verbose=0, callbacks=[backup])


def test_an_adapter_file_is_trained_further(tmp_path: Path) -> None:
    x, y = data()
    model = dense_model()
    model.compile("adam", "mse")
    model.fit(x, y, epochs=2, verbose=0)
    model.save_adapter(tmp_path)
    wanted = model.predict(x, verbose=0)
    again = dense_model()
    again.delete_adapter("default")
    again.layers[1].set_weights(model.layers[1].get_weights())  # the moving averages are of the base
    again.load_adapter(tmp_path)
    np.testing.assert_allclose(again.predict(x, verbose=0), wanted, rtol=1e-6, atol=1e-6)
    again.compile(optimizers.Adam(2e-2), "mse")
    found = again.fit(x, y, epochs=6, verbose=0).history["loss"]
    assert found[-1] < found[0]


@pytest.mark.filterwarnings("error")
def test_fit_does_not_warn_of_the_frozen_base() -> None:
    model = dense_model()
    model.compile("sgd", "mse")
    model.fit(*data(), verbose=0)


def test_dropout_is_of_what_the_adapter_reads_in_training_only() -> None:
    model = dense_model()
    model.compile("sgd", "mse")
    x, y = data()
    module = model.training_module(x, y)
    drawn = {name: [op.name for op in module.functions[name].walk()].count("dropout") for name in module.entries}
    assert drawn["forward"] == drawn["test_step"] == 0 and drawn["train_step"] == 2
    for op in module.functions["train_step"].walk():
        if op.name == "lora_linear":
            assert op.dropped.op.name == "dropout" and op.dropped.op.operands[0] is op.x


def test_the_backward_part_saves_what_it_must() -> None:
    """No product of the size of a kernel is computed for a frozen base, and x @ A is not kept."""
    graphc.utils.set_random_seed(0)
    model = Sequential([Input((32,)), layers.Dense(24, use_bias=False), layers.Dense(16, use_bias=False)])
    model.add_adapter(r=2, targets="dense,dense_1")
    model.compile("sgd", "mse")
    x, y = np.zeros((4, 32), np.float32), np.zeros((4, 16), np.float32)
    module = graphc.run_passes(model.training_module(x, y), "canonicalize,cse")
    shapes = [tuple(v.shape) for op in module.functions["train_step"].walk() for v in op.results]
    assert (32, 24) not in shapes and (24, 16) not in shapes and (32, 2) in shapes
