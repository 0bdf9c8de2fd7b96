"""The entries of a model that trains, recorded over one weight table: `forward`, `train_step` and `test_step`.

`Model.train_step` runs once, here; all it does with `graphc.ops`, gradients and variables becomes IR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.frontends.lowering import Lowering, lower_forward, model_inputs
from graphc.frontends.naming import Names, identifier
from graphc.frontends.structures import flatten, map_structure, pack, paths
from graphc.frontends.symbolic import BATCH, size_of
from graphc.frontends.tracing import Spec
from graphc.frontends.variable import Variable
from graphc.ir import ops
from graphc.ir.builder import Builder, in_graphc
from graphc.ir.dims import Dim, Size
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Value
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes.lora.fuse import fuse_frozen
from graphc.passes.lora.join import join_weights
from graphc.passes.registry import collector_paused
from graphc.runtime.training.data import packed

NARROWED = {"float64": "float32", "int64": "int32", "uint64": "int32"}
"""What arrays of these dtypes become on the way into a step: NumPy's defaults, which targets compute slowly or lack."""


@dataclass(frozen=True)
class Batch:
    """The types of a batch: structures of `TensorType`, None for a part that there is none of."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    sizes: Mapping[str, int] = field(default_factory=dict[str, int], compare=False)
    """What its symbols were in the arrays that the types are of; a memory budget is planned for that."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells batches of different types or structures apart."""
        parts = (self.x, self.y, self.sample_weight)
        return tuple((tuple(paths(part)), tuple(flatten(part))) for part in parts)


@dataclass
class Entry:
    """What the host has to know of a recorded step."""

    name: str
    batch: Batch
    logs: tuple[str, ...] = ()
    """The names of the first results, scalars."""
    host: tuple[Callable[[], Any] | None, ...] = ()
    """How the inputs after the leaves of the batch are computed; None for the key."""
    labels: tuple[Labels, ...] = ()
    observed: tuple[str, ...] = ()
    """What the last result, one bool for each, says is finite; empty where it was not asked."""


class LabelError(GraphcError):
    """A label that is no class, at the index `at` of a batch or of all the data."""

    def __init__(self, found: str, at: tuple[int, ...], where: str, wanted: str) -> None:
        super().__init__(f"{found} at {at[0] if len(at) == 1 else list(at)} of {where}; {wanted}")
        self.found, self.at_index, self.wanted = found, at, wanted

    def in_row(self, row: int, where: str) -> LabelError:
        """The error for the same label, which is in this row of the data that the batch was taken from."""
        return LabelError(self.found, (row, *self.at_index[1:]), where, self.wanted)


@dataclass(frozen=True)
class Labels:
    """An input that has classes: which, its name, the number of classes, and the number that stands for none."""

    index: int
    name: str
    classes: int
    ignored: int | None

    def check(self, array: Any, what: str = "the batch") -> None:
        """Raise `LabelError` that names the first label that is no class, and its place in `what`."""
        fractions = array.dtype.kind not in "iub"
        if array.size == 0 or (not fractions and array.min() >= 0 and array.max() < self.classes):
            return
        wrong = (array < 0) | (array >= self.classes)
        if fractions:
            wrong |= array != np.floor(array)  # NaN too
        if self.ignored is not None:
            wrong &= array != self.ignored
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            others = "" if self.ignored is None else f", and {self.ignored} for none"
            wanted = f"the loss takes the classes 0 to {self.classes - 1}{others}"
            raise LabelError(f"{self.name} has the label {array[at]}", at, what, wanted)


@dataclass
class TrainingModule:
    """A module with the entries `forward`, `train_step` and `test_step`, and what stands behind its weights."""

    module: Module
    variables: dict[str, Variable]
    graph: Any
    """The graph of layers of a functional model, as it was recorded."""
    entries: dict[str, Entry] = field(default_factory=dict)
    unreached: tuple[str, ...] = ()
    """The weights that the loss does not depend on."""
    trains: bool = True
    """Whether `train_step` changes a trainable weight, if there are any."""


@collector_paused()
def record_training(model: Any, train: Batch | None, test: Batch | None, check_finite: bool = False) -> TrainingModule:
    """Record the model's `forward`, and its `train_step` and `test_step` for batches of these types.

    Raises what the model's methods raise, with the layer or line where it happened.
    """
    forward = lower_forward(model) if _has_forward(model) else None
    beside = forward
    module, variables = (forward.module, forward.variables) if forward else (Module(), {})
    recorded = TrainingModule(module, variables, model._graph)
    for name, step, batch in (("train_step", model.train_step, train), ("test_step", model.test_step, test)):
        if batch is not None:
            observe = check_finite and name == "train_step"
            try:
                beside = _record(model, name, step, batch, beside, recorded, observe)
            except GraphcError as error:
                if name == "test_step":  # or what is said of validation data seems to be of those to train on
                    error.at("test_step, for evaluation")
                raise
            recorded.module, recorded.variables = beside.module, beside.variables
    for function in recorded.module.functions.values():
        fuse_frozen(recorded.module, function)
    model._after_recording(recorded.module, recorded.variables)
    join_weights(recorded.module)
    return recorded


def _has_forward(model: Any) -> bool:
    return model.is_functional or model._input_types is not None


def _record(
    model: Any,
    name: str,
    step: Callable[..., Any],
    batch: Batch,
    beside: Lowering | None,
    recorded: TrainingModule,
    observe: bool,
) -> Lowering:
    training = name == "train_step"
    lowering = Lowering(model, training, name, beside)
    lowering.observed = [] if observe else None
    if model._compiled is not None:
        lowering.gradients = model._compiled.gradients
    function = lowering.function
    data, names, called = _inputs(model, batch, function)
    lowering.declare_weights(names)
    lowering.batch_size = _batch_size(data)
    with lowering.active(), Builder(function.block) as builder:
        builder.trace_lines = not in_graphc(step.__func__.__code__.co_filename)  # type: ignore[attr-defined]
        rate = builder.value(model.optimizer.learning_rate) if training and model.optimizer is not None else None
        logs = _run(name, step, data)
        builder.trace_lines = False
        if not isinstance(logs, dict):
            raise GraphcError(f"{name} returns a dict of logs, such as compute_metrics gives, not {logs!r}")
        logs = _flat_logs(logs)
        outputs = {str(key): _scalar(name, str(key), builder.value(value)) for key, value in logs.items()}
        results = [identifier(key) for key in outputs]
        observed = lowering.observed or []
        if observed:
            flags = [ops.reshape(flag, shape=(1,)) for _, flag in observed]
            outputs["all_finite"] = ops.concat(*flags, axis=0)
            results.append("all_finite")
        lowering.finish(builder, results, list(outputs.values()))
    if rate is not None and not rate.uses:
        position = next(i for i, p in enumerate(function.parameters) if p.value is rate)
        lowering.host_inputs.pop(rate.name or "")
        Rewriter().remove_parameter(function, position)
    inputs = [p.value for p in function.inputs]
    recorded.entries[name] = Entry(
        name,
        batch,
        tuple(logs),
        tuple(lowering.host_inputs.get(p.name) for p in function.inputs[len(names) :]),
        tuple(
            Labels(inputs.index(v), called.get(v.name or "", v.name or "y"), n, none)
            for v, n, none in lowering.labels
            if v in inputs
        ),
        tuple(what for what, _ in observed),
    )
    if training:
        recorded.unreached = tuple(lowering.paths.names[id(variable)] for variable in lowering.unreached)
        trainable = {lowering.paths.names.get(id(variable)) for variable in model.trainable_variables}
        updated = {result.updates.weight for result in function.results if result.updates is not None}
        recorded.trains = not trainable or bool(trainable & updated)
    return lowering


def _run(name: str, step: Callable[..., Any], data: tuple[Any, Any, Any]) -> Any:
    given = packed(*data)
    try:
        return step(given)
    except ValueError as error:
        if "values to unpack" not in str(error):
            raise
        parts = [part for part, value in zip(("x", "y", "sample_weight"), data, strict=True) if value is not None]
        raise GraphcError(
            f"{name} is given {', '.join(parts)} here, as in Keras, and unpacks something else ({error}); x, y, "
            "sample_weight = graphc.utils.unpack_x_y_sample_weight(data) takes whatever there is"
        ) from error


def _inputs(model: Any, batch: Batch, function: Any) -> tuple[tuple[Any, Any, Any], list[str], dict[str, str]]:
    """The inputs of a step as values in the structures of the batch, their names, and what `fit` calls them."""
    taken = Names()
    called: dict[str, str] = {}
    given = _x_names(model, batch.x)
    parts: list[Any] = []
    for what, types in (("x", batch.x), ("target", batch.y), ("sample_weight", batch.sample_weight)):
        if types is None:
            parts.append(None)
            continue
        named = given if what == "x" else [identifier(f"{what}_{p}" if p else what) for p in paths(types)]
        flat = [
            None if type is None else function.add_parameter(type, taken.new(name))
            for type, name in zip(flatten(types), named, strict=True)
        ]
        argument = "y" if what == "target" else what
        for value, path in zip(flat, paths(types), strict=True):
            if value is not None:
                called[value.name] = f"{argument}[{path if path.isdigit() else repr(path)}]" if path else argument
        parts.append(pack(types, flat))
    x, y, sample_weight = parts
    return (x, y, sample_weight), list(taken), called


def _x_names(model: Any, types: Any) -> list[str]:
    if _has_forward(model):
        _, known, names = model_inputs(model)
        if len(known) == len(flatten(types)):
            return names
    return [identifier(f"x_{path}" if path else "x") for path in paths(types)]


def _batch_size(data: tuple[Any, Any, Any]) -> Any:
    first = next((leaf for leaf in flatten(data) if isinstance(leaf, Value) and leaf.shape), None)
    return None if first is None else first.shape[0]


def _flat_logs(logs: dict[Any, Any]) -> dict[Any, Any]:
    """The logs, with those of a metric that gives several in its place."""
    found: dict[Any, Any] = {}
    for key, value in logs.items():
        found.update(value if isinstance(value, dict) else {key: value})
    return found


def _scalar(step: str, key: str, value: Value | None) -> Value:
    if value is None or value.shape != ():
        raise ShapeError(
            f"{step} returns the log {key!r} of type {value.type if value is not None else None}; a log is a scalar"
        )
    return value


# --- types of batches ---------------------------------------------------------------------------------------------


def batch_types(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
    """The types of batches like this one, of arrays or `Spec`s: the first size is the symbol B.

    Inputs are as the model declares them. A size of targets or weights that equals an open one of the inputs is that
    one, unless the output has a fixed size there: sequences may come in any length.
    """
    sizes: dict[Size, Dim] = {}
    structure: Any = map_structure(lambda leaf: _type_of(leaf, (), sizes), x)
    if _has_forward(model):
        declared, types, _ = model_inputs(model)
        leaves = flatten(x)
        if len(leaves) == len(types):
            for type, leaf in zip(types, leaves, strict=True):
                for wanted, have in zip(type.shape[1:], np.shape(leaf)[1:], strict=False):
                    if isinstance(wanted, Dim) and wanted.is_symbol:
                        sizes.setdefault(have, wanted)
            structure = pack(declared, types)
    rest = [
        None
        if part is None
        else pack(part, [_type_of(*each, sizes) for each in zip(flatten(part), _beside(model, part), strict=True)])
        for part in (y, sample_weight)
    ]
    return Batch(structure, *rest, sizes=_sizes_of(flatten((structure, *rest)), flatten((x, y, sample_weight))))


def _sizes_of(types: Sequence[TensorType | None], leaves: Sequence[Any]) -> dict[str, int]:
    """What the symbols of the types are in the arrays; of a `Spec` nothing is known."""
    found: dict[str, int] = {}
    for type, leaf in zip(types, leaves, strict=True):
        if type is not None and not isinstance(leaf, Spec):
            sizes = zip(type.shape, np.shape(leaf), strict=False)
            found.update({size.name: have for size, have in sizes if isinstance(size, Dim) and size.is_symbol})
    return found


def _beside(model: Any, part: Any) -> list[tuple[Size, ...]]:
    """For each leaf of targets or weights the shape of the output that it is for; () where that is not known."""
    outputs = [tuple(tensor.tensor_type.shape) for tensor in model.outputs] if model.is_functional else []
    where = paths(part)
    if isinstance(part, Mapping):
        by_name = dict(zip(model.output_names, outputs, strict=True)) if outputs else {}
        return [by_name.get(path, ()) for path in where]
    return outputs if len(outputs) == len(where) else [()] * len(where)


def _type_of(leaf: Any, beside: tuple[Size, ...], sizes: dict[Size, Dim]) -> TensorType | None:
    if leaf is None:
        return None
    if isinstance(leaf, Spec):
        return TensorType.of(leaf.dtype, [BATCH if i == 0 else size_of(size) for i, size in enumerate(leaf.shape)])
    array = leaf if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else np.asarray(leaf)
    kind = dtype_of(array.dtype)
    fixed = {i for i, size in enumerate(beside) if isinstance(size, int)}
    shape: list[Any] = [size if i in fixed else sizes.get(size, size) for i, size in enumerate(array.shape)]
    shape[:1] = [BATCH for _ in shape[:1]]
    return TensorType.of(NARROWED.get(str(kind), kind), shape)


class Feed:
    """Makes the inputs of a step out of batches: their leaves in order, in the dtypes of the step."""

    def __init__(self, like: Batch) -> None:
        parts = enumerate((like.x, like.y, like.sample_weight))
        self._parts = [
            (index, [None if type is None else type.dtype.numpy for type in flatten(types)])
            for index, types in parts
            if types is not None
        ]

    def __call__(self, batch: Sequence[Any]) -> list[Any]:
        """Raises `GraphcError` for numbers that the narrower integers of a step do not hold."""
        found: list[Any] = []
        for index, kinds in self._parts:
            part = batch[index]
            for leaf, kind in zip([part] if type(part) is np.ndarray else flatten(part), kinds, strict=True):
                if kind is not None:
                    fits = type(leaf) is np.ndarray and leaf.dtype is kind
                    found.append(leaf if fits else _narrowed(np.asarray(leaf), kind))
        return found


def _narrowed(array: Any, wanted: np.dtype[Any]) -> Any:
    """The array in a narrower dtype of its kind, or one that holds more; any other is left for the step to refuse."""
    kind, target = array.dtype.kind, wanted.kind
    if array.dtype == wanted or kind not in "iuf" or target not in "iuf" or (kind == "f" and target != "f"):
        return array
    if target != "f" and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise GraphcError(f"a batch has the number {array.max()}, which {dtype_of(wanted)} does not hold")
    return array.astype(wanted)


__all__ = ["Batch", "Entry", "Feed", "TrainingModule", "batch_types", "record_training"]
