"""Variables: the weights of layers, as named arrays that become parameters where a model is traced or lowered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.frontends import initializers
from graphc.frontends.recording import current_recording, not_recording
from graphc.frontends.symbolic import Operators
from graphc.ir.builder import Builder
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Value
from graphc.ir.opdef import ambient
from graphc.ir.ops.casting import convert
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.frontends.adapters import Adapter
    from graphc.frontends.rounding import VariableRounding
    from graphc.frontends.storage import Storage

Array = np.ndarray[Any, Any]


_autocast: ContextVar[DType | None] = ContextVar("graphc_autocast", default=None)


@contextmanager
def autocast_to(dtype: DType | None) -> Iterator[None]:
    """Let variables of floats be read in this dtype inside, but for those with `autocast=False`; None leaves them."""
    token = _autocast.set(dtype)
    try:
        yield
    finally:
        _autocast.reset(token)


_in_call: ContextVar[bool] = ContextVar("graphc_in_call", default=False)


@contextmanager
def reading_adapted() -> Iterator[None]:
    """Let variables be read with their adapters inside: a layer is being called on arrays."""
    token = _in_call.set(True)
    try:
        yield
    finally:
        _in_call.reset(token)


_changes = 0


_adapter_changes = 0


def adapter_changes() -> int:
    """A number that grows whenever a variable gets another adapter, or loses it."""
    return _adapter_changes


def changes() -> int:
    """A number that grows whenever some variable is assigned outside of a recording, or its value moves."""
    return _changes


_arrangement = 0


def arrangement() -> int:
    """A number that grows whenever some layer gets or loses a variable or a sublayer, or something is frozen or not."""
    return _arrangement


def rearranged() -> None:
    """Let `arrangement` grow."""
    global _arrangement
    _arrangement += 1


class Variable(Operators):
    """A named array of fixed shape and dtype. `initializer` is an initializer, its name, or the first value.

    `path` is the name below that of the layer it was added to, `dense/kernel`; of what an optimizer keeps for a weight
    it has the weight's in between: `optimizer/dense/kernel/momentum`.

    The initial value is computed when it is first asked for, so weights that are set before are never drawn.
    """

    def __init__(
        self,
        initializer: Any,
        shape: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str = "none",
        name: str | None = None,
    ) -> None:
        self.name = name or "variable"
        self._path = self.name
        self._frozen_for: set[str] = set()
        self.trainable = trainable
        self.autocast = autocast
        self.aggregation = aggregation
        self.slot_of: Variable | None = None
        """The variable for which this one is kept."""
        self.regularizer: Any = None
        self.constraint: Any = None
        self.adapters: dict[str, Adapter] = {}
        """Low-rank adapters by name; see `frontends/adapters.py`."""
        self._adapter: Adapter | None = None
        self.rounding: VariableRounding | None = None
        """How it is rounded where it is read as a kernel; see `frontends/rounding.py`."""
        self.storage: Storage | None = None
        """How it is stored where it is quantized; see `store`."""
        self._array: Array | None = None
        self._held: tuple[MutableMapping[str, Array], str] | None = None
        self._draw: Callable[[], Array] | None = None
        if callable(initializer) or isinstance(initializer, (str, dict)):
            if shape is None:
                raise ShapeError(f"the variable {self.name!r} needs a shape for its initializer")
            initializer = initializers.get(initializer)
            sizes = _sizes(shape, self.name)
            kind = dtype_of(dtype or "float32")
            self.tensor_type = TensorType.of(kind, sizes)
            draw = initializers.drawn_later(initializer, sizes, kind)
            self._draw = lambda: _fitting(draw(), self.tensor_type, f"the initial value of variable {self.name!r}")
        else:
            array = np.asarray(initializer)
            if dtype is None and array.dtype == np.float64 and not hasattr(initializer, "dtype"):
                dtype = "float32"
            array = array.astype(dtype_of(dtype or array.dtype).numpy)
            if shape is not None and _sizes(shape, self.name) != array.shape:
                raise ShapeError(f"the value of variable {self.name!r} has shape {array.shape}, not {tuple(shape)}")
            self.tensor_type = TensorType.of(dtype_of(array.dtype), array.shape)
            self._array = array

    @property
    def trainable(self) -> bool:
        """Whether training changes it, where the layer that owns it is trained."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = value
        self._frozen_for.clear()
        rearranged()

    @property
    def frozen(self) -> bool:
        """Whether it is not trained only because `freeze` said so: it is part of a base that stays as it is."""
        return bool(self._frozen_for)

    @property
    def value(self) -> Any:
        """The array, or while tracing the value that stands for it."""
        builder = Builder.current()
        return self.numpy() if builder is None else self.__graphc_value__(builder)

    def numpy(self) -> Array:
        """The array. It is not to be written to: use `assign`."""
        if self._held is not None:
            weights, name = self._held
            return weights[name]
        if self._array is None:
            assert self._draw is not None
            with outside_traces():
                self._array, self._draw = self._draw(), None
        return self._array

    def assign(self, value: Any) -> Any:
        """Set the value; while a model is lowered for training, the value from there on. Returns what was set."""
        builder, recording = Builder.current(), current_recording()
        if builder is not None and recording is not None:
            new = builder.value(value)
            if not isinstance(new, Value) or new.type is not self.tensor_type:
                raise ShapeError(
                    f"variable {self.name!r} is {self.tensor_type}, it cannot become {getattr(new, 'type', new)}"
                )
            recording.assign(self, new)
            return new
        array = _fitting(value, self.tensor_type, f"a value for variable {self.name!r}")
        if self.storage is not None:
            self.storage = self.storage.rounded(array)
            array = self.storage.values
        global _changes
        _changes += 1
        if self._held is not None:
            weights, name = self._held
            weights[name] = array
            return array
        self._array, self._draw = array.copy(), None
        return self._array

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that is active."""
        return self._adapter

    @adapter.setter
    def adapter(self, adapter: Adapter | None) -> None:
        global _adapter_changes
        _adapter_changes += 1
        self._adapter = adapter

    def freeze(self, reason: str = "adapter") -> None:
        """Train it no more, for an adapter is trained in its place, or for it is quantized."""
        if self._trainable or self._frozen_for:
            self._trainable = False
            self._frozen_for.add(reason)
            rearranged()

    def unfreeze(self, reason: str = "adapter") -> None:
        """Undo `freeze`. What was frozen for another reason too stays so."""
        if reason in self._frozen_for:
            self._frozen_for.discard(reason)
            self._trainable = not self._frozen_for
            rearranged()

    def store(self, storage: Storage | None) -> None:
        """Let the value be what integers stand for, and what is assigned from now on be rounded to them; with None it
        is floats again."""
        self.storage = None
        if storage is not None:
            self.assign(storage.values)
            self.storage = storage

    def hold(self, weights: MutableMapping[str, Array], name: str) -> None:
        """Let `weights[name]` be the value from now on, to read and to assign to: what a target holds of it."""
        global _changes
        _changes += 1
        self._held, self._array, self._draw = (weights, name), None, None

    def is_held_by(self, weights: MutableMapping[str, Array]) -> bool:
        """Whether the value is in `weights`."""
        return self._held is not None and self._held[0] is weights

    @property
    def path(self) -> str:
        return self.path_beside("" if self.slot_of is None else self.slot_of.path)

    @path.setter
    def path(self, path: str) -> None:
        self._path = path

    def path_beside(self, weight: str) -> str:
        """Its path where the weight it is kept for, if it is kept for one, has the path `weight`."""
        above, _, own = self._path.rpartition("/")
        return "/".join(part for part in (above, weight, own) if part)

    def __deepcopy__(self, memo: dict[int, Any]) -> Variable:
        """A variable of its own with the same value, which no target holds."""
        memo[id(self)] = copied = object.__new__(type(self))
        own = {"_held": None, "_draw": None, "_array": self.numpy().copy()}
        copied.__dict__.update({key: deepcopy(value, memo) for key, value in self.__dict__.items() if key not in own})
        copied.__dict__.update(own)
        return copied

    def __copy__(self) -> Variable:
        return deepcopy(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise GraphcError("a Variable is not pickled: save the weights of a model by model.save_weights(…)")

    def assign_add(self, value: Any) -> Any:
        """Add `value`."""
        return self.assign(self + value)

    def assign_sub(self, value: Any) -> Any:
        """Subtract `value`."""
        return self.assign(self - value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor_type.shape  # type: ignore[return-value]

    @property
    def dtype(self) -> DType:
        return self.tensor_type.dtype

    @property
    def ndim(self) -> int:
        return self.tensor_type.ndim

    def __graphc_value__(self, builder: Builder) -> Value:
        recording = current_recording()
        if recording is None:
            raise GraphcError(f"the variable {self.name!r} is read outside `graphc.lower` and `graphc.trace`")
        value = recording.variable_value(self)
        if self.adapter is not None or self.rounding is not None:
            recording.adapted.setdefault(id(self), self)
        wanted = self._wanted()
        return value if wanted is None else convert(value, dtype=wanted)

    def __graphc_array__(self) -> Array:
        wanted = self._wanted()
        array = self.numpy() if self.adapter is None or not _in_call.get() else self.adapter.merged(self.numpy())
        return array if wanted is None else array.astype(wanted.numpy)

    def _wanted(self) -> DType | None:
        """The dtype that the layer which reads the variable computes in, where that is another one."""
        wanted = _autocast.get()
        cast = wanted is not None and self.autocast and self.dtype.is_float and wanted is not self.dtype
        return wanted if cast else None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if Builder.current() is not None:
            raise GraphcError(f"the variable {self.name!r} has no array while tracing; use `graphc.ops` on it")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __repr__(self) -> str:
        return f"<Variable {self.name}, shape={self.shape}, dtype={self.dtype}>"


@contextmanager
def outside_traces() -> Iterator[None]:
    """Let ops on arrays evaluate at once, also while something is being traced: for building layers."""
    token = ambient.set(None)
    try:
        with not_recording():
            yield
    finally:
        ambient.reset(token)


def _sizes(shape: Any, name: str) -> tuple[int, ...]:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(isinstance(size, bool) or not hasattr(size, "__index__") or not _is_number(size) for size in sizes):
        raise ShapeError(f"the variable {name!r} needs a shape of numbers, not {sizes}")
    return tuple(int(size) for size in sizes)


def _is_number(size: Any) -> bool:
    return isinstance(size, (int, np.integer))


def _fitting(value: Any, wanted: TensorType, what: str) -> Array:
    array = np.asarray(value)
    if array.shape != wanted.shape:
        raise ShapeError(f"{what} has shape {array.shape}; it must be {tuple(wanted.shape)}")
    if dtype_of(array.dtype).is_complex and not wanted.dtype.is_complex:
        raise DTypeError(f"{what} is {array.dtype}; it must be {wanted.dtype}")
    return array.astype(wanted.dtype.numpy, copy=False)
