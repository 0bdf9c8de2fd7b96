"""Saving and loading: what comes back is the same, and what was changed or cut off is refused."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import (
    FormatError,
    GraphcError,
    Input,
    Layer,
    Model,
    Sequential,
    ShapeError,
    UnsupportedError,
    layers,
    ops,
    saving,
)

X = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)


def block(x: Any) -> Any:
    return layers.add([x, layers.Dense(6, activation="relu")(x)])


def network() -> Model:
    x = Input((6,), name="x")
    shared = layers.Dense(6, name="shared")
    y = block(block(shared(layers.BatchNormalization()(x))))
    y = Sequential([layers.Dense(6), layers.LayerNormalization()], name="tower")(shared(y))
    batch, width = ops.shape(y)
    y = ops.reshape(y[:, ::-1] * 2 + 1, (batch, 2, width // 2))
    return Model(x, {"flat": layers.Flatten()(y), "tied": ops.matmul(x, ops.transpose(shared.kernel))})


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Model, Path]:
    model = network()
    model.set_weights([np.random.default_rng(i).normal(size=v.shape) for i, v in enumerate(model.weights)])
    model.save(tmp_path / "m.graphc")
    return model, tmp_path / "m.graphc"


def test_a_model_comes_back_whole(saved: tuple[Model, Path]) -> None:
    model, path = saved
    graphc.utils.clear_session()
    loaded = saving.load_model(path)
    assert type(loaded) is type(model)
    for got, want in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    for key, value in model(X).items():
        np.testing.assert_array_equal(loaded(X)[key], value)
    assert str(graphc.lower(loaded)) == str(graphc.lower(model))


def test_load_gives_the_module(saved: tuple[Model, Path]) -> None:
    model, path = saved
    module = graphc.load(path)
    module.verify()
    assert str(module) == str(graphc.lower(model))
    np.testing.assert_allclose(graphc.interpret(module, X)[0], model(X)["flat"], rtol=1e-5, atol=1e-5)


def test_saving_twice_gives_the_same_bytes(saved: tuple[Model, Path]) -> None:
    model, path = saved
    model.save(path.with_name("again.graphc"))
    assert path.read_bytes() == path.with_name("again.graphc").read_bytes()


def test_weights_tied_by_assignment_stay_tied(tmp_path: Path) -> None:
    x = Input((3,))
    first, second = layers.Dense(3), layers.Dense(3)
    out = second(first(x))
    second.kernel = first.kernel
    model = Model(x, out)
    model.save(tmp_path / "m.graphc")
    loaded = saving.load_model(tmp_path / "m.graphc")
    assert len(loaded.weights) == 3
    assert loaded.layers[1].kernel is loaded.layers[2].kernel
    assert graphc.load(tmp_path / "m.graphc").weights.info("dense_1/kernel").alias == "dense/kernel"


@saving.register_serializable("tests")
class Registered(Layer):
    def __init__(self, inner: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x) * 2


class Unregistered(Registered):
    pass


def test_layers_of_ones_own(tmp_path: Path) -> None:
    x = Input((6,))
    model = Model(x, Registered(layers.Dense(2))(x))
    model.save(tmp_path / "m.graphc")
    np.testing.assert_array_equal(saving.load_model(tmp_path / "m.graphc")(X), model(X))
    other = Model(x, Unregistered(layers.Dense(2))(x))
    other.save(tmp_path / "o.graphc")
    with pytest.raises(FormatError, match="the class 'Unregistered' is not known; pass it in custom_objects"):
        saving.load_model(tmp_path / "o.graphc")
    loaded = saving.load_model(tmp_path / "o.graphc", custom_objects={"Unregistered": Unregistered})
    np.testing.assert_array_equal(loaded(X), other(X))


def test_a_subclassed_model(tmp_path: Path) -> None:
    class Net(Model):
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.dense = layers.Dense(units)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Net(3)
    model(X)
    model.save(tmp_path / "m.graphc")
    loaded = saving.load_model(tmp_path / "m.graphc", custom_objects={"Net": Net})
    np.testing.assert_array_equal(loaded(X), model(X))
    for broken in (b'"input": [5]', b'"input": {"shape": 3, "dtype": "float32"}'):
        data = re.sub(
            rb'"input": \{.*?\}', broken, zipped((tmp_path / "m.graphc").read_bytes(), "config.json"), flags=re.S
        )
        repacked(tmp_path / "m.graphc", lambda parts, data=data: parts.update({"config.json": data}), seal=True)
        with pytest.raises(FormatError, match=r"config\.json does not say what the model is called on"):
            saving.load_model(tmp_path / "m.graphc", custom_objects={"Net": Net})
        model.save(tmp_path / "m.graphc")


def test_weights_alone(tmp_path: Path) -> None:
    model, other = network(), network()
    model.save_weights(tmp_path / "w.safetensors")
    other.load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(other(X)["flat"], model(X)["flat"])
    x = Input((6,))
    wrong = Model(x, layers.Dense(5, name="shared")(x))
    with pytest.raises(ShapeError, match=r"shared/kernel has shape \(6, 6\), the model's has \(6, 5\)") as caught:
        wrong.load_weights(tmp_path / "w.safetensors")
    unknown = re.findall(r"(\S+) is unknown", str(caught.value))
    assert len(unknown) > 1 and unknown == sorted(unknown)  # a file has its arrays in any order


def test_scopes_stay_short_when_a_model_is_made_inside_another() -> None:
    assert all(
        name.split("/")[0] in ("shared", "batch_normalization", "block", "block_1", "tower")
        for name in graphc.lower(network()).weights
    )


def test_bfloat16_weights(tmp_path: Path) -> None:
    model = Sequential([Input((6,), dtype="bfloat16"), layers.Dense(2, dtype="bfloat16")])
    model.save(tmp_path / "m.graphc")
    loaded = saving.load_model(tmp_path / "m.graphc")
    assert loaded.weights[0].dtype == "bfloat16"
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def repacked(path: Path, change: Callable[[dict[str, bytes]], None], seal: bool = False, compression: int = 0) -> None:
    """Write the parts of the file again after `change`; `seal` makes the list of hashes fit."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    if seal:
        metadata = json.loads(parts["metadata.json"])
        for name in metadata["files"]:
            metadata["files"][name] = {"size": len(parts[name]), "sha256": hashlib.sha256(parts[name]).hexdigest()}
        parts["metadata.json"] = json.dumps(metadata).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    path.write_bytes(buffer.getvalue())


def zipped(data: bytes, part: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(part)


def refused(path: Path) -> str:
    """The message with which the file is refused, by both ways of reading it."""
    with pytest.raises(GraphcError) as caught:
        saving.load_model(path)
    with pytest.raises(GraphcError):
        graphc.load(path)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(saved: tuple[Model, Path], keep: float) -> None:
    data = saved[1].read_bytes()
    saved[1].write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    assert "is not a valid .graphc file" in refused(saved[1])


@pytest.mark.parametrize("part", ["config.json", "model.gir", "weights.safetensors"])
def test_changed_parts_are_refused(saved: tuple[Model, Path], part: str) -> None:
    repacked(saved[1], lambda parts: parts.update({part: parts[part][:-1] + b"x"}))
    assert f"{part} is not what was saved" in refused(saved[1])


def test_flipped_bytes_are_never_read_as_something_else(saved: tuple[Model, Path]) -> None:
    data = bytearray(saved[1].read_bytes())
    for position in range(50, len(data), len(data) // 40):
        changed = data.copy()
        changed[position] ^= 0x5A
        saved[1].write_bytes(changed)
        try:
            saving.load_model(saved[1])
        except FormatError:
            continue
        # What is left are bytes that mean nothing, such as a date in the archive's directory.
        np.testing.assert_array_equal(saving.load_model(saved[1]).get_weights()[0], saved[0].get_weights()[0])


def test_other_parts_paths_and_compression_are_refused(saved: tuple[Model, Path]) -> None:
    original = saved[1].read_bytes()
    repacked(saved[1], lambda parts: parts.update({"../escape": b"x"}))
    assert "'../escape'" in refused(saved[1])
    saved[1].write_bytes(original)
    repacked(saved[1], lambda parts: parts.pop("model.gir"))
    assert "'model.gir'" in refused(saved[1])
    saved[1].write_bytes(original)
    repacked(saved[1], lambda parts: None, compression=zipfile.ZIP_DEFLATED)
    assert "a size that does not fit the file" in refused(saved[1])


def test_broken_parts_with_right_hashes_are_refused(saved: tuple[Model, Path]) -> None:
    original = saved[1].read_bytes()
    changes: list[tuple[str, bytes]] = [
        ("config.json", b"[]"),
        ("config.json", b'{"model": {"class_name": "os.system", "config": {}}}'),
        ("config.json", b'{"model": {"class_name": "Functional", "config": {"input_layers": [], "layers": [{}]}}}'),
        ("config.json", b'{"model": 3}'),
        (
            "config.json",
            b'{"model": ' + b'{"class_name": "Dense", "config": {"units": ' * 200 + b"1" + b"}}" * 200 + b"}",
        ),
        ("config.json", zipped(original, "config.json").replace(b'"aliases": {', b'"aliases": [1], "_": {')),
        ("weights.safetensors", b"\xff" * 40),
    ]
    for part, data in changes:
        repacked(saved[1], lambda parts, part=part, data=data: parts.update({part: data}), seal=True)
        with pytest.raises(FormatError):
            saving.load_model(saved[1])
        saved[1].write_bytes(original)


def test_files_are_written_whole(tmp_path: Path) -> None:
    x = Input((6,))
    model = Model(x, ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x))
    with pytest.raises(GraphcError, match=r"op 'cond', .*test_saving.py:\d+ holds a Python function"):
        model.save(tmp_path / "m.graphc")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(GraphcError, match=r"ends in \.graphc"):
        network().save(tmp_path / "m.h5")
    network().save(tmp_path / "m.graphc")
    with pytest.raises(GraphcError, match="exists already"):
        network().save(tmp_path / "m.graphc", overwrite=False)


def test_load_reads_python_and_text_and_names_what_it_does_not_read(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(
        "from graphc import Input, Model, layers\nx = Input((3,))\n"
        "def model():\n    return Model(x, layers.Dense(2)(x))\nother = model()\nnumber = 3\n"
    )
    module = graphc.load(source)
    assert [w.name for w in module.weights.entries()] == ["dense/kernel", "dense/bias"]
    with pytest.raises(GraphcError, match="defines no 'net'"):
        graphc.load(source, entry="net")
    with pytest.raises(GraphcError, match="must be a model"):
        graphc.load(source, entry="number")
    text = tmp_path / "net.gir"
    text.write_text(str(graphc.trace(lambda x: x + 1, graphc.Spec(("B", 2)))))
    assert graphc.load(text).main.name == "forward"
    (tmp_path / "net.onnx").write_bytes(b"")
    text.write_text(
        "graphc-ir 1\n\nfunc @f(%x: f32[A] input, %y: f32[C] input) -> f32[C] {\n"
        "  %0 = neg %x : f32[C]\n  return %0\n}\n"
    )
    with pytest.raises(graphc.VerifyError, match=r"its result is f32\[C\], its type rule gives f32\[A\]"):
        graphc.load(text)
    with pytest.raises(UnsupportedError, match=r"reads .graphc, .gir and .py; later .*ONNX"):
        graphc.load(tmp_path / "net.onnx")
    with pytest.raises(FormatError, match="there is no file"):
        graphc.load(tmp_path / "missing.graphc")
