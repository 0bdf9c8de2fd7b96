"""`graphc train`: the plain case of training, a model of a file on the arrays of an `.npz`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphc import codegen
from graphc.codegen.artifact import check_replaceable
from graphc.codegen.compiler import write_artifact
from graphc.frontends.lowering import lower
from graphc.frontends.programs import defined_in
from graphc.frontends.session import set_random_seed
from graphc.frontends.structures import flatten, pack
from graphc.frontends.whole_files import check_writable
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function, Value
from graphc.runtime import config, saving
from graphc.runtime.model import Model
from graphc.runtime.sources import DEFAULT_ENTRY
from graphc.runtime.training import losses, metrics
from graphc.runtime.training.callbacks import BackupAndRestore, Callback
from graphc.runtime.training.data.arrays import length
from graphc.runtime.training.fitting import ensure_built
from graphc.tools.arrays import read_arrays

Array = np.ndarray[Any, Any]
Data = tuple[Any, Any, Any]
"""`(x, y, sample_weight)` in the model's structures."""

MODEL_FILE = ".graphc"
TARGETS, WEIGHTS = "y", "sample_weight"
"""What arrays of a file are called beside the inputs."""


@dataclass
class Plan:
    """What `graphc train` was asked to do. What is None is the model's own, or chosen by it and the data."""

    source: str
    data: Path
    target: str | None = None
    entry: str | None = None
    epochs: int = 10
    batch_size: int = 32
    optimizer: str | None = None
    learning_rate: float | None = None
    loss: str | None = None
    metrics: str | None = None
    validation_split: float = 0.0
    validation: Path | None = None
    seed: int = 0
    checkpoint: Path | None = None
    resume: bool = False
    output: Path | None = None


@dataclass
class Trained:
    """What came of it: the logs of each epoch, and where the model was written."""

    target: str
    output: Path
    loss: str
    epochs: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"target": self.target, "output": str(self.output), "loss": self.loss, "epochs": self.epochs}


def train(plan: Plan, say: Callable[[str], None]) -> Trained:
    """Train as planned; `say` gets the table of epochs, line by line.

    Raises `GraphcError` for files, data and options that do not fit, before training where it can be told.
    """
    output = plan.output if plan.output is not None else Path(f"{Path(plan.source).stem}-trained.graphc")
    check_output(output)
    backup = backup_of(plan)
    set_random_seed(plan.seed)
    model = model_of(plan)
    data = data_of(plan.data, model)
    held_out = None if plan.validation is None else data_of(plan.validation, model)
    if held_out is not None and plan.validation_split:
        raise GraphcError("give either --validation or --validation-split")
    loss = prepare(model, data, plan)
    target = codegen.target(plan.target or model._compiled.settings["target"] or config.target()).name
    trained = Trained(target, output, loss)
    callbacks: list[Callback] = [EpochTable(say, trained.epochs)]
    if backup is not None:
        callbacks.append(backup)
    x, y, sample_weight = data
    set_random_seed(plan.seed)  # whatever the file drew
    model.fit(
        x,
        y,
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        verbose=0,
        callbacks=callbacks,
        validation_split=plan.validation_split,
        validation_data=held_out,
        sample_weight=sample_weight,
    )
    if output.suffix == MODEL_FILE:
        model.save(output)
    else:
        write_artifact(lower(model), target, output)
    return trained


def check_output(output: Path) -> None:
    """Raise `GraphcError` where what was trained could not be written, or is in no format there is."""
    if output.suffix == MODEL_FILE:
        check_writable(output)
        return
    if output.suffix and not output.suffix[1:].isdigit():  # a folder may be called run-0.5
        raise GraphcError(
            f"-o {output}: there is no format {output.suffix} to write; {output.with_suffix(MODEL_FILE)} is a file "
            f"with the model, and {output.with_suffix('')} the folder of an artifact for the target"
        )
    check_replaceable(output)
    above = next(folder for folder in output.absolute().parents if folder.exists())
    check_writable(above / output.name)


def backup_of(plan: Plan) -> BackupAndRestore | None:
    """What keeps checkpoints, if any are asked for.

    Raises `GraphcError` for a checkpoint that is there without `--resume`, and for one that is missing with it.
    """
    if plan.checkpoint is None:
        if plan.resume:
            raise GraphcError("--resume goes on from a checkpoint: name it by --checkpoint")
        return None
    backup = BackupAndRestore(plan.checkpoint, delete_checkpoint=False)
    there = [path for path in (backup.path, backup.previous_path) if path.exists()]
    if there and not plan.resume:
        raise GraphcError(f"{there[0]} is there already; go on from it by --resume, or remove it")
    if plan.resume and not there:
        raise GraphcError(f"--resume: there is no checkpoint {backup.path}; without --resume training starts anew")
    return backup


def model_of(plan: Plan) -> Any:
    """The model of a `.py` or `.graphc` file. Raises `GraphcError` for what cannot be trained."""
    path = Path(plan.source)
    if path.suffix == MODEL_FILE:
        if plan.entry is not None:
            raise GraphcError(f"an entry is named for a .py only, and {path} is not one")
        return saving.load_model(path)
    if path.suffix != ".py":
        raise GraphcError(f"train takes a .py that defines a model, or a .graphc file, not {plan.source!r}")
    if not path.is_file():
        raise GraphcError(f"there is no file {plan.source!r}")
    found = defined_in(path, plan.entry or DEFAULT_ENTRY)
    if not isinstance(found, Model):
        raise GraphcError(f"{plan.source} defines a module, which has no layers to train; train takes a model")
    return found


# --- data ---------------------------------------------------------------------------------------------------------


def data_of(path: Path, model: Any) -> Data:
    """The arrays of a file as data for the model.

    Inputs go by their names; a single one may be called `x`, and all may be `arr_0`, `arr_1` … in order, with the
    targets after them. Targets are `y`, or for several outputs named as these, or `y_` and the name. `sample_weight` is
    optional. Raises `GraphcError` that says what the file holds.
    """
    arrays = read_arrays(path)
    inputs, outputs = _names(model)
    count = len(inputs) + len(outputs)
    if not any(name in arrays for name in (*inputs, "x")) and all(f"arr_{i}" in arrays for i in range(count)):
        found = [arrays[f"arr_{i}"] for i in range(count)]
        x, y = found[: len(inputs)], found[len(inputs) :]
    else:
        single = {inputs[0]: ("x",)} if len(inputs) == 1 else {}
        x = [_chosen(path, arrays, "input", name, *single.get(name, ())) for name in inputs]
        if len(outputs) == 1:
            y = [_chosen(path, arrays, "targets", TARGETS, *outputs)]
        else:
            y = [_chosen(path, arrays, "targets", name, f"{TARGETS}_{name}") for name in outputs]
    weights = arrays.get(WEIGHTS)
    try:
        length(x, y, weights)
    except GraphcError as error:
        raise error.at(str(path)) from None
    return _structured(model, "input", x), _structured(model, "output", y), weights


def _names(model: Any) -> tuple[list[str], list[str]]:
    model.ensure_graph()
    if model.is_functional:
        return model.input_names, model.output_names
    return ["x"], [TARGETS]


def _chosen(path: Path, arrays: dict[str, Array], what: str, *names: str) -> Array:
    for name in names:
        if name in arrays:
            return arrays[name]
    wanted, there = (" or ".join(map(repr, names)), ", ".join(map(repr, arrays)) or "nothing")
    raise GraphcError(f"{path} misses the {what} {wanted}; it holds {there}")


def _structured(model: Any, what: str, flat: list[Array]) -> Any:
    return pack(getattr(model, what), flat) if model.is_functional else flat[0]


# --- loss and metrics ---------------------------------------------------------------------------------------------


def prepare(model: Any, data: Data, plan: Plan) -> str:
    """Compile the model as planned, or change what its file compiled; what the loss is, in words."""
    if model.compiled:
        given = [name for name in ("optimizer", "loss", "metrics") if getattr(plan, name) is not None]
        if given:
            file = plan.source.endswith(MODEL_FILE)
            instead = "; save it with include_optimizer=False to leave out how it was compiled" if file else ""
            raise GraphcError(
                f"{plan.source} compiles its model; --{given[0]} is for models that are not compiled in their file"
                + instead
            )
        if plan.target is not None:
            model._compiled.settings["target"] = codegen.target(plan.target).name
        loss: Any = "of the file"
    else:
        ensure_built(model, data[0])
        several = len(flatten(data[1])) > 1
        automatic = plan.loss in (None, "auto")
        if automatic and several:
            raise GraphcError("the model has several outputs: compile it in its file, with a loss for each")
        loss, found = chosen_loss(model, flatten(data[1])[0]) if automatic else (plan.loss, None)
        names = found if plan.metrics is None else [name.strip() for name in plan.metrics.split(",") if name.strip()]
        model.compile(plan.optimizer or "adam", loss, metrics=names, target=plan.target)
    if plan.learning_rate is not None:
        if model.optimizer is None:
            raise GraphcError("--learning-rate is that of an optimizer, and the model is compiled without one")
        model.optimizer.learning_rate = plan.learning_rate
    return loss if isinstance(loss, str) else loss.name


def chosen_loss(model: Any, y: Array) -> tuple[losses.Loss, list[Any] | None]:
    """The loss and metrics for an output and targets like these.

    Whole numbers without the output's last axis, or with one of size 1, are classes: cross-entropy of probabilities if
    the model ends with a softmax, else of logits. For an output of size 1 and targets of 0 and 1 it is the binary one,
    for rows of numbers of which a softmax makes probabilities the dense one. All else is the squared error.
    """
    forward = lower(model).functions["forward"]
    last = forward.block.terminator.operands[0]
    assert isinstance(last, Value)
    shape, ends_with = last.shape, _last_op(forward, last)
    size = shape[-1] if shape else None
    whole = y.dtype.kind in "iub"
    if size == 1 and (whole or ends_with == "sigmoid") and np.isin(y, (0, 1)).all():
        logits = ends_with != "sigmoid"
        accuracy = metrics.MeanMetricWrapper(metrics.binary_accuracy, "accuracy", threshold=0.0 if logits else 0.5)
        return losses.BinaryCrossentropy(from_logits=logits), [accuracy]
    if whole and size != 1 and (y.ndim == len(shape) - 1 or (y.ndim == len(shape) and y.shape[-1] == 1)):
        return losses.SparseCategoricalCrossentropy(from_logits=ends_with != "softmax"), ["accuracy"]
    if y.ndim == len(shape) and ends_with == "softmax":
        return losses.CategoricalCrossentropy(), ["accuracy"]
    return losses.get("MeanSquaredError"), None


def _last_op(forward: Function, value: Value) -> str:
    """The op that the output comes from, reshapes left out."""
    while value.op is not None and value.op.name in ("reshape", "convert", "transpose"):
        value = value.op.operands[0]  # type: ignore[assignment]
    return "" if value.op is None else value.op.name


# --- the table ----------------------------------------------------------------------------------------------------


class EpochTable(Callback):
    """Says the logs of each epoch as a row, and keeps them."""

    def __init__(self, say: Callable[[str], None], rows: list[dict[str, float]]) -> None:
        super().__init__()
        self._say, self._rows = say, rows
        self._columns: list[str] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.perf_counter() - self._began
        row = {"epoch": epoch + 1, **(logs or {}), "seconds": seconds}
        self._rows.append(row)
        if not self._columns:
            self._columns = list(row)
            self._say("  ".join(name.rjust(max(len(name), 8)) for name in self._columns))
        cells = [str(epoch + 1), *(f"{row[name]:.4f}" for name in self._columns[1:-1]), f"{seconds:.2f}"]
        widths = [max(len(name), 8) for name in self._columns]
        self._say("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))

    def get_state(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def set_state(self, state: Any) -> None:
        self._rows[:] = state["rows"]
