"""What quantizing the digits network costs and gives: accuracy, size on disk, speed, beside ONNX Runtime's quantizer.

Accuracy is over the 450 test images; ranges come from training images. Speed is of ONNX Runtime on one thread, for all
test images at once, float32, graphc's int8 and ONNX Runtime's own int8 in turns.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.ir.module import Module
from graphc.passes.quantization.sizes import bits_a_weight, stored_sizes
from graphc.runtime.compilation import compile
from graphc.runtime.quantization.processor import wants_reduced_range
from graphc.runtime.quantization.quantizing import quantize
from graphc.runtime.sources import module_of

Array = np.ndarray[Any, Any]

FORMATS = ("int8", "int8{asymmetric}", "int4", "int4{block=64}", "uint4{block=64}", "nf4", "nf4{double=256}")
METHODS = ("minmax", "percentile", "entropy", "mse")
CALIBRATION = 256
"""Training images from which ranges come."""


@dataclass(frozen=True)
class Digits:
    """The network with its images."""

    model: Any
    x: Array
    y: Array
    x_train: Array

    def right(self, scores: Array) -> float:
        """The share of test images that are read right, in per cent."""
        return 100 * float(np.mean(np.argmax(scores, 1) == self.y))


def digits(examples: Path) -> Digits:
    """The trained network of `examples/digits_cnn.py`."""
    spec = importlib.util.spec_from_file_location("digits_cnn", examples / "digits_cnn.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits_cnn"] = module
    spec.loader.exec_module(module)
    with np.load(examples / "digits_test.npz") as data:
        return Digits(module.model, data["x"], data["y"], data["x_train"])


def report(examples: Path, target: str, rounds: int, write: Callable[[str], None]) -> None:
    """Write both tables as Markdown."""
    net = digits(examples)
    write(
        f"Accuracy on the target {target}; bits are of kernels, scales and zero points counted; bytes of all weights.\n"
    )
    write("| weights | activations | right, % | RMS of the logits' change | bits a weight | bytes of weights |")
    write("| --- | --- | --- | --- | --- | --- |")
    plain = np.asarray(compile(net.model, target=target)(net.x))
    for name, activations, module in variants(net):
        scores = np.asarray(compile(module, target=target)(net.x))
        sizes = stored_sizes(module)
        kernels = [size for size in sizes if not size.form.startswith("float")] or [s for s in sizes if s.elements > 32]
        change = float(np.sqrt(np.mean((scores - plain) ** 2)))
        total = sum(size.bytes for size in sizes)
        bits = f"{bits_a_weight(kernels):.2f}"
        write(f"| {name} | {activations} | {net.right(scores):.2f} | {change:.3f} | {bits} | {total:,} |")
    write("")
    for line in beside_onnxruntime(net, rounds):
        write(line)


def variants(net: Digits) -> Iterator[tuple[str, str, Module]]:
    """Names of weights and activations, and the module."""
    yield "float32", "float32", module_of(net.model)
    for text in FORMATS:
        yield text, "float32", quantize(net.model, text)
    yield "int8", "int8, by row", quantize(net.model, "int8", activations="dynamic")
    for method in METHODS:
        yield "int8", f"uint8, {method}", quantize(net.model, "int8", data=net.x_train[:CALIBRATION], method=method)


def beside_onnxruntime(net: Digits, rounds: int) -> Iterator[str]:
    """The lines that compare with `onnxruntime.quantization.quantize_static` on the same model and images."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _models(net, Path(folder))
        sessions = {name: _session(path) for name, path in paths.items()}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        scores = {name: session.run(None, {"image": net.x})[0] for name, session in sessions.items()}
        for turn in range(rounds + 3):
            order = list(sessions.items())
            for name, session in order[turn % 3 :] + order[: turn % 3]:
                start = time.perf_counter()
                session.run(None, {"image": net.x})
                if turn >= 3:
                    times[name].append(time.perf_counter() - start)
        yield f"ONNX Runtime, {len(net.x)} images at once, one thread, {rounds} rounds in turns."
        reduced = "no VNNI, so weights are of 7 bits" if wants_reduced_range() else "VNNI, so weights have all 8 bits"
        yield f"The processor has {reduced}.\n"
        yield "| model | right, % | RMS of the logits' change | ms, median | file, bytes |"
        yield "| --- | --- | --- | --- | --- |"
        for name, path in paths.items():
            change = float(np.sqrt(np.mean((scores[name] - scores["float32"]) ** 2)))
            median = 1e3 * float(np.median(times[name]))
            yield f"| {name} | {net.right(scores[name]):.2f} | {change:.3f} | {median:.2f} | {path.stat().st_size:,} |"
        ratio, low, high = speed_ratio(times["onnxruntime's int8"], times["graphc's int8"])
        yield f"\ngraphc's int8 is {ratio:.2f} times as fast as ONNX Runtime's (95 % interval {low:.2f} to {high:.2f})."


def speed_ratio(slow: list[float], fast: list[float], draws: int = 2000) -> tuple[float, float, float]:
    """The median of the rounds' ratios, with a bootstrap interval."""
    ratios = np.array(slow) / np.array(fast)
    rng = np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(0, len(ratios), (draws, len(ratios)))], 1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def _models(net: Digits, folder: Path) -> dict[str, Path]:
    images = net.x_train[:CALIBRATION]
    found = {
        "float32": folder / "float",
        "graphc's int8": folder / "ours",
        "onnxruntime's int8": folder / "theirs.onnx",
    }
    compile(net.model, target="onnx").save(found["float32"])
    compile(quantize(net.model, "int8", data=images), target="onnx").save(found["graphc's int8"])
    models = {name: path / "model.onnx" if path.is_dir() else path for name, path in found.items()}
    _quantized_by_onnxruntime(models["float32"], models["onnxruntime's int8"], images, folder)
    return models


def _quantized_by_onnxruntime(source: Path, result: Path, images: Array, folder: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"image": images[i : i + 64]} for i in range(0, len(images), 64)])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.batches, None)

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(source), str(prepared))
    quantize_static(
        str(prepared),
        str(result),
        Reader(),
        per_channel=True,
        reduce_range=wants_reduced_range(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
