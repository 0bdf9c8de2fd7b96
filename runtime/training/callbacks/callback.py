"""The base of callbacks, and the list that calls them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from graphc.frontends.arguments import constructor_arguments, no_argument, takes_any
from graphc.ir.builder import in_graphc
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest

State = dict[str, Any]
"""What a callback has to remember: JSON values, and arrays."""

HOOKS = tuple(
    f"on_{mode}_{where}"
    for mode in ("train", "test", "predict")
    for where in ("begin", "end", "batch_begin", "batch_end")
)
OLD_HOOKS = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


class Callback:
    """What `fit`, `evaluate` and `predict` call while they run. Subclasses override hooks.

    `self.model` is the model, `self.params` a dict with `epochs`, `steps` and `verbose`. Setting
    `self.model.stop_training = True` ends training after the batch or epoch; setting
    `self.model.optimizer.learning_rate` takes effect at the next step.

    A callback that has a state which decides what it does later gives it by `get_state`, and takes it back by
    `set_state`, so that a run that is resumed goes on as if it had not been interrupted.
    """

    last = False
    """Whether it is called after all others."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        initializer = cls.__init__
        if kwargs and in_graphc(initializer.__code__.co_filename) and not takes_any(initializer):
            known = constructor_arguments(cls)
            unknown = [name for name in kwargs if name not in known]
            if unknown:
                raise no_argument(cls.__name__, unknown, known)
        return super().__new__(cls)

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model that is trained."""
        return self.__dict__.get("_model")

    def set_model(self, model: Any) -> None:
        self._model = model

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def set_run(self, run: Any) -> None:
        """Called by `fit` when all callbacks have begun, before the first epoch. `run` is what `checkpoint.save_run`
        saves, and `checkpoint.restore_run` puts where a checkpoint is: `fit` goes on from there."""

    def get_state(self) -> State | None:
        """What the callback has to remember, JSON values and arrays by name; None if there is nothing."""
        return None

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Remember what `get_state` gave. Raises `GraphcError` for another callback's state."""
        raise GraphcError(f"{type(self).__name__} keeps no state, and was given {', '.join(state)}")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...
    def on_batch_begin(self, batch: int, logs: Any = None) -> None: ...
    def on_batch_end(self, batch: int, logs: Any = None) -> None: ...

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None: ...
    def on_test_batch_end(self, batch: int, logs: Any = None) -> None: ...
    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None: ...
    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None: ...
    def on_train_begin(self, logs: Any = None) -> None: ...
    def on_train_end(self, logs: Any = None) -> None: ...
    def on_test_begin(self, logs: Any = None) -> None: ...
    def on_test_end(self, logs: Any = None) -> None: ...
    def on_predict_begin(self, logs: Any = None) -> None: ...
    def on_predict_end(self, logs: Any = None) -> None: ...


class CallbackList:
    """Callbacks, called in order. What nobody listens to after a batch costs nothing."""

    def __init__(
        self,
        callbacks: Callback | Iterable[Callback] | None = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        from graphc.runtime.training.callbacks.history import History
        from graphc.runtime.training.callbacks.progress import ProgbarLogger

        params = params.pop("params", {}) | params
        self.callbacks: list[Any] = _flat(callbacks)
        if add_progbar and not any(isinstance(each, ProgbarLogger) for each in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        self.history: Any = next((each for each in self.callbacks if isinstance(each, History)), None)
        if add_history and self.history is None:
            self.history = History()
            self.callbacks.append(self.history)
        self.callbacks.sort(key=lambda each: getattr(each, "last", False))
        self.set_model(model)
        self.set_params(params)
        self._listening = {hook: [getattr(c, hook) for c in self.callbacks if _overrides(c, hook)] for hook in HOOKS}

    def append(self, callback: Callback) -> None:
        self.callbacks.append(callback)
        for hook, listening in self._listening.items():
            if _overrides(callback, hook):
                listening.append(getattr(callback, hook))

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model: Any) -> None:
        self.model = model
        if model is not None:
            for callback in self.callbacks:
                callback.set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)

    def batch_begin(self, mode: str, batch: int) -> None:
        """Before a batch of `train`, `test` or `predict`."""
        for hook in self._listening[f"on_{mode}_batch_begin"]:
            hook(batch, None)

    def batch_end(self, mode: str, batch: int, logs: Mapping[str, Any]) -> None:
        """After a batch; its logs become numbers if someone listens."""
        hooks = self._listening[f"on_{mode}_batch_end"]
        if hooks:
            logs = as_numbers(logs)
            for hook in hooks:
                hook(batch, logs)

    def begin(self, mode: str) -> None:
        for hook in self._listening[f"on_{mode}_begin"]:
            hook(None)

    def end(self, mode: str, logs: Mapping[str, Any] | None = None) -> None:
        for hook in self._listening[f"on_{mode}_end"]:
            hook(logs)

    @contextmanager
    def compiling(self, target: str) -> Iterator[None]:
        """Let the progress say that a target compiles, which may take seconds."""
        with ExitStack() as shown:
            for callback in self.callbacks:
                if hasattr(callback, "show_compiling"):
                    shown.enter_context(callback.show_compiling(target))
            yield

    def close(self) -> None:
        """What is left on a terminal when a run ends early is tidied up."""
        for callback in self.callbacks:
            if hasattr(callback, "close"):
                callback.close()


def as_numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Logs as Python numbers."""
    return {name: float(value) for name, value in logs.items()}


def _flat(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    if not isinstance(callbacks, (list, tuple)):
        callbacks = [callbacks]
    found: list[Any] = []
    for callback in callbacks:
        if isinstance(callback, (list, tuple)):
            found.extend(_flat(callback))
        elif isinstance(callback, type) and issubclass(callback, Callback):
            raise GraphcError(f"{callback.__name__} is a class: give a callback, {callback.__name__}(…)")
        elif not hasattr(callback, "set_model") or not hasattr(callback, "on_epoch_end"):
            known = nearest(callback, _names()) if isinstance(callback, str) else ""
            raise GraphcError(
                f"a callback is an object of a subclass of graphc.callbacks.Callback, not {callback!r}{known}"
            )
        else:
            found.append(callback)
    return found


def _names() -> list[str]:
    """The names of graphc's callbacks."""
    from graphc.runtime.training import callbacks

    return [name for name, found in vars(callbacks).items() if isinstance(found, type) and name != "CallbackList"]


def _overrides(callback: Any, hook: str) -> bool:
    """Whether the callback does something at this hook."""
    names = [hook, OLD_HOOKS[hook]] if hook in OLD_HOOKS else [hook]
    own = vars(callback)
    return any(
        name in own or getattr(type(callback), name, None) is not getattr(Callback, name) for name in names
    ) and hasattr(callback, hook)
