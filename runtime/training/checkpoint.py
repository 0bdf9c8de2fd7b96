"""What a checkpoint of a run of `fit` holds, and how a run goes on from one.

The arrays are the whole weight table of training under the source's names and in its layout: weights, optimizer
slots, loss scale, metrics. So a checkpoint of one target is one of every target. The state says where the run is: its
key, from which the order of the examples and all random numbers follow, the epoch and the step in it, the learning
rate, the history, and what callbacks remember.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from graphc import __version__
from graphc.frontends.variable import Variable
from graphc.frontends.warning import warn
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.graph import Function
from graphc.ir.printer import attributes_text
from graphc.ir.types import TensorType
from graphc.runtime.training.checkpoint_file import Checkpoint, open_checkpoint, write_checkpoint

LISTED = 6
"""So many differences are listed when a checkpoint does not fit."""

Array = np.ndarray[Any, Any]


@dataclass
class Position:
    """Where a run of `fit` is: `step` steps of epoch `epoch` are done, both counted from 0.

    `key`, two 32-bit words, orders the examples and is the source of all random numbers. `initial_epoch` is where the
    run began, `steps` how many an epoch has, where that is known. `logs` are those of the last step, scalars. `stop`
    says that a callback has ended the run.
    """

    key: list[int]
    epoch: int = 0
    step: int = 0
    initial_epoch: int = 0
    steps: int | None = None
    batch_size: int | None = None
    logs: Mapping[str, Any] = field(default_factory=dict)
    stop: bool = False


@dataclass
class Run:
    """What there is to save of a run, and to restore: its position, the variables of the weight table by name, the
    optimizer, the callbacks with what they remember, and `structure`, which tells models apart that have equal weights.
    """

    position: Position
    variables: Mapping[str, Variable]
    optimizer: Any = None
    callbacks: Sequence[Any] = ()
    structure: str | None = None
    base: str | None = None
    """The digest of the weights that are frozen since adapters are trained: they are not saved, and are the same when
    the run goes on."""


def structure_of(forward: Function) -> str:
    """A digest of what a model computes, whatever its layers and inputs are called."""
    digest = hashlib.sha256()
    for op in forward.walk():
        types = ", ".join(str(result.type) for result in op.results)
        digest.update(f"{op.name} {attributes_text(op.definition, op.attributes)} {types}\n".encode())
    return digest.hexdigest()


def save_run(path: Path, run: Run) -> None:
    """Write a checkpoint of a run; see `write_checkpoint` for what happens where it cannot be written."""
    rate = None if run.optimizer is None else run.optimizer.learning_rate
    state = {
        "graphc": __version__,
        "structure": run.structure,
        **({} if run.base is None else {"base": run.base}),
        "position": asdict(run.position) | {"logs": {name: float(value) for name, value in run.position.logs.items()}},
        "learning_rate": float(rate.numpy()) if isinstance(rate, Variable) else None,
        "callbacks": [
            {"name": _name(callback), "state": state}
            for callback in run.callbacks
            if (state := getattr(callback, "get_state", dict)())
        ],
    }
    types = {name: variable.tensor_type for name, variable in run.variables.items()}
    write_checkpoint(path, state, types, lambda name: run.variables[name].numpy())


def restore_run(path: Path, run: Run) -> None:
    """Let a run be where the checkpoint is. Nothing is changed unless all of it fits.

    Raises `FormatError` for a file that is broken or of a newer release, and `GraphcError` for a checkpoint of another
    model, optimizer or data.
    """
    with open_checkpoint(path) as checkpoint:
        _check_weights(checkpoint, {name: variable.tensor_type for name, variable in run.variables.items()})
        state = checkpoint.state
        same_release = state.get("graphc") == __version__
        if same_release and run.structure and state.get("structure") not in (None, run.structure):
            raise GraphcError(
                f"{str(path)!r} is a checkpoint of another model: it has the same weights, but computes something else"
            )
        if state.get("base") != run.base:
            shown = [str(digest)[:16] + "…" if digest else "none" for digest in (state.get("base"), run.base)]
            raise GraphcError(
                f"{str(path)!r} is a checkpoint of adapters of another base: the SHA-256 of its frozen weights is "
                f"{shown[0]}, that of the model's is {shown[1]}"
            )
        position = _position(checkpoint)
        _check_data(path, position, run.position)
        states = _callback_states(checkpoint)
        rate = state.get("learning_rate")
        for name, variable in run.variables.items():
            variable.assign(checkpoint.read(name))
    if run.optimizer is not None and isinstance(rate, float) and isinstance(run.optimizer.learning_rate, Variable):
        run.optimizer.learning_rate.assign(np.float32(rate))
    _restore_callbacks(path, run.callbacks, states)
    for each in fields(Position):
        setattr(run.position, each.name, getattr(position, each.name))


def _name(callback: Any) -> str:
    return type(callback).__name__


# --- whether a checkpoint fits ------------------------------------------------------------------------------------


def _check_weights(checkpoint: Checkpoint, wanted: Mapping[str, TensorType]) -> None:
    found = checkpoint.types
    names = {name for name in (*wanted, *found) if wanted.get(name) is not found.get(name)}
    if not names:
        return
    groups = {name.split("/")[0] if name.startswith(("optimizer/", "metrics/")) else "" for name in names}
    whose = {frozenset({"optimizer"}): "with another optimizer", frozenset({"metrics"}): "with other metrics"}
    what = whose.get(frozenset(groups), "of another model")
    lines = list(_differences(found, wanted, names))
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    raise GraphcError(f"{str(checkpoint.path)!r} is a checkpoint {what}: {'; '.join(lines[:LISTED] + more)}")


def _differences(
    found: Mapping[str, TensorType], wanted: Mapping[str, TensorType], names: Iterable[str]
) -> Iterable[str]:
    """A line for each weight that is on one side only, or differs; a name that is near one is set beside it."""
    spare = [name for name in found if name in names and name not in wanted]
    for name in (name for name in wanted if name in names):
        if name in found:
            yield f"{name} is {found[name]} there and {wanted[name]} here"
            continue
        near = get_close_matches(name, spare, n=1)
        spare = [each for each in spare if each not in near]
        instead = f"has {near[0]} ({found[near[0]]})" if near else "does not have it"
        yield f"the model has {name} ({wanted[name]}), it {instead}"
    for name in spare:
        yield f"it has {name} ({found[name]}), the model does not"


def _position(checkpoint: Checkpoint) -> Position:
    state = checkpoint.state.get("position")
    try:
        position = Position(**state)  # type: ignore[arg-type]
    except TypeError:
        raise FormatError(f"{str(checkpoint.path)!r} does not say where its run was") from None
    counts = [position.epoch, position.step, position.initial_epoch]
    counts += [size for size in (position.steps, position.batch_size) if size is not None]
    key = position.key if isinstance(position.key, list) else []
    if (
        len(key) != 2
        or not all(type(each) is int and 0 <= each < 2**63 for each in (*counts, *key))
        or max(key) >= 2**32
        or not isinstance(position.logs, dict)
        or not all(isinstance(value, float) for value in position.logs.values())
        or type(position.stop) is not bool
    ):
        raise FormatError(f"{str(checkpoint.path)!r} does not say where its run was: {state}")
    return position


def _check_data(path: Path, saved: Position, now: Position) -> None:
    """In the middle of an epoch the same data is needed; between epochs it may be another."""
    if saved.step and (saved.steps, saved.batch_size) != (now.steps, now.batch_size):
        raise GraphcError(
            f"{str(path)!r} was written after step {saved.step} of an epoch of {_steps(saved)}; the data given now "
            f"has {_steps(now)}"
        )


def _steps(position: Position) -> str:
    count = "unknown length" if position.steps is None else f"{position.steps} steps"
    return count if position.batch_size is None else f"{count} of {position.batch_size} examples"


def _callback_states(checkpoint: Checkpoint) -> list[tuple[str, dict[str, Any]]]:
    entries = checkpoint.state.get("callbacks")
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("name"), str) and isinstance(e.get("state"), dict) for e in entries
    ):
        raise FormatError(f"{str(checkpoint.path)!r} does not say what its callbacks remember")
    return [(entry["name"], entry["state"]) for entry in entries]


def _restore_callbacks(path: Path, callbacks: Sequence[Any], states: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Give each callback what the one of its class remembered; of several, the first gets the first's."""
    seen: Counter[str] = Counter()
    waiting: dict[tuple[str, int], Any] = {}
    for callback in callbacks:
        name = _name(callback)
        waiting[name, seen[name]] = callback
        seen[name] += 1
    seen.clear()
    for name, state in states:
        callback = waiting.get((name, seen[name]))
        seen[name] += 1
        if callback is not None:
            try:
                callback.set_state(state)
            except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
                raise FormatError(f"{str(path)!r} has a state that {name} does not take: {error!r}") from error
        else:
            warn(f"{str(path)!r} has the state of a {name}, and this run has no such callback")
