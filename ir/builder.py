"""Where new ops go: a block, a place in it, and a location. The ambient builder is what calls record into."""

from __future__ import annotations

import inspect
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import Token
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from graphc.ir.dims import Dim
from graphc.ir.dtypes import DType, dtype
from graphc.ir.errors import DTypeError, GraphcError
from graphc.ir.graph import Block, Function, Op, Region, Value
from graphc.ir.location import ROOT, UNKNOWN, Location, Scope
from graphc.ir.opdef import OPS, Inferred, OpDef, ambient, recorded_guards
from graphc.ir.promotion import common_dtype, weak_dtype
from graphc.ir.suggestions import number_of

if TYPE_CHECKING:
    from types import TracebackType

INLINE_CONSTANT = 64
"""Arrays of up to this many elements are written into the `constant` op; larger ones go to the weight table."""

SCALARS = frozenset({bool, int, float, complex})

_scalars: dict[Any, Inferred] = {}
"""The attributes and types of scalar constants, which traced code makes many of."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# In the source tree the rooms stand beside tests and examples, whose lines are a user's.
_ROOMS = tuple(
    os.path.join(_PACKAGE, room) + os.sep for room in ("ir", "frontends", "passes", "codegen", "runtime", "tools")
)


@cache
def in_graphc(path: str) -> bool:
    """Whether the source file at `path` is graphc's own."""
    return path.startswith(_ROOMS)


class Builder:
    """Records ops at the end of `block`, or before the op `before`.

    Use it as a context manager to make it ambient: `with Builder(function.block) as b: y = ops.add(x, 1)`.
    `location` is given to what is recorded; with `trace_lines` the line of the caller outside graphc is added.
    `function` is where guards and constants go, for a block that is not in its function yet.
    """

    __slots__ = ("_shown_paths", "_tokens", "before", "block", "function", "location", "trace_lines")

    def __init__(
        self,
        block: Block,
        before: Op | None = None,
        location: Location = UNKNOWN,
        trace_lines: bool = False,
        function: Function | None = None,
    ) -> None:
        self.block = block
        self.before = before
        self.location = location
        self.trace_lines = trace_lines
        self.function: Function | None = function or block.function
        self._tokens: list[Token[Builder | None]] = []
        self._shown_paths: dict[str, str] = {}

    @staticmethod
    def current() -> Builder | None:
        """The ambient builder, if any."""
        return ambient.get()

    def __enter__(self) -> Builder:
        self._tokens.append(ambient.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ambient.reset(self._tokens.pop())

    @contextmanager
    def scope(self, name: str, call: int = 0) -> Generator[Scope]:
        """Record under a child of the current scope. `name` may be a path of several parts."""
        outer = self.location
        scope = outer.scope
        *parents, last = name.split("/")
        for part in parents:
            scope = scope.child(part)
        scope = scope.child(last, call)
        self.location = Location.of(scope, outer.file, outer.line)
        try:
            yield scope
        finally:
            self.location = outer

    # --- recording ------------------------------------------------------------------------------------------

    def insert(
        self,
        op_class: type[Op],
        operands: tuple[Value | None, ...],
        inferred: Inferred,
        regions: tuple[Region, ...] = (),
        location: Location | None = None,
    ) -> Op:
        """Record an op whose types are known; `OpDef.__call__` and `OpDef.build` are the way here."""
        if location is None:
            location = self.traced_location() if self.trace_lines else self.location
        op = op_class(operands, inferred.attributes, inferred.types, regions, location)
        if self.before is None:
            self.block.append(op)
        else:
            self.block.insert_before(self.before, op)
        if inferred.guards:
            self.add_guards(inferred.guards)
        return op

    def add_guards(self, guards: Sequence[Any]) -> None:
        """Leave guards on the function that is being built, or with the type rule that is being run."""
        if self.function is not None:
            for guard in guards:
                self.function.add_guard(guard)
        elif (outer := recorded_guards.get()) is not None:
            outer.extend(guards)

    def finish(self, values: Sequence[Value | None]) -> Op:
        """Close the block with a `return` (of a function) or a `yield` (of a region)."""
        name = "yield" if isinstance(self.block.owner, Region) else "return"
        return OPS[name].build(self, values)

    def traced_location(self) -> Location:
        """The current scope with the line of the nearest caller outside graphc."""
        frame: FrameType | None = inspect.currentframe()
        shown = self._shown_paths
        while frame is not None:
            path = frame.f_code.co_filename
            if path not in shown:
                shown[path] = "" if in_graphc(path) else short_path(path)
            if shown[path]:
                return Location.of(self.location.scope, shown[path], frame.f_lineno)
            frame = frame.f_back
        return self.location

    def place(self) -> str:
        """Where the code being traced stands, for error messages."""
        location = self.traced_location() if self.trace_lines else self.location
        parts = [f"layer {location.scope.path!r}"] if location.scope is not ROOT else []
        if location.file:
            parts.append(f"{location.file}:{location.line}")
        return ", ".join(parts)

    # --- what is not a Value --------------------------------------------------------------------------------

    def values(
        self, operands: Sequence[Any], kinds: Sequence[str] | None, user: OpDef[..., Any]
    ) -> tuple[Value | None, ...]:
        """Turn scalars, arrays and variables into values. Python scalars and sizes take the dtype of the others."""
        out: list[Any] = []
        scalars: list[int] = []
        for i, operand in enumerate(operands):
            if type(operand) in SCALARS or isinstance(operand, Dim):
                scalars.append(i)
            elif operand is not None and not isinstance(operand, Value):
                operand = self.value(operand)
            out.append(operand)
        if scalars:
            weak = range(len(out)) if kinds is None else [i for i, kind in enumerate(kinds) if kind == "Tensor"]
            others = tuple([out[i].type.dtype for i in weak if isinstance(out[i], Value)])
            for i in scalars:
                beside = others if i in weak else ()
                if isinstance(out[i], Dim):
                    out[i] = self.size(out[i], weak_dtype(1, beside))
                else:
                    out[i] = self.scalar(out[i], weak_dtype(out[i], beside))
        return tuple(out)

    def value(self, operand: Any) -> Value | None:
        """The value of a variable, an array, a Python scalar or a size; a `Value` or None is returned as it is."""
        if operand is None or isinstance(operand, Value):
            return operand
        convert = getattr(operand, "__graphc_value__", None)
        if convert is not None:
            return convert(self)
        if _is_scalar(operand):
            return self.scalar(operand, weak_dtype(operand, []))
        if isinstance(operand, Dim):
            return self.size(operand, weak_dtype(1, []))
        if isinstance(operand, (np.ndarray, np.generic, list, tuple)):
            array: Any = np.asarray(cast("Any", operand))
            if array.dtype == object:
                raise DTypeError(f"cannot make a tensor of {operand!r}")
            if isinstance(operand, (list, tuple)):
                array = array.astype(weak_dtype(array.flat[0].item(), []).numpy if array.size else np.float32)
            return self.constant(array)
        if hasattr(operand, "__graphc_record__"):
            raise GraphcError("a symbolic tensor of a functional model was used inside a layer or a traced function")
        raise DTypeError(f"cannot make a tensor of a {type(operand).__name__}")

    def scalar(self, value: bool | int | float | complex, dtype: DType) -> Value:
        """A constant of no axes."""
        constant = OPS["constant"]
        # Zeros differ in their signs, and so may the parts of complex numbers, but not as keys.
        key = (type(value), value, dtype) if value and type(value) is not complex else (repr(value), dtype)
        inferred = _scalars.get(key)
        if inferred is None:
            attributes = constant.make_attributes(value=_as_kind(value, dtype), dtype=dtype)
            inferred = _scalars[key] = constant.infer((), attributes)
        return self.insert(constant.op_class, (), inferred).results[0]

    def size(self, size: Dim, dtype: DType) -> Value:
        """A symbolic size as a scalar."""
        dim_size, convert = OPS["dim_size"], OPS["convert"]
        value = dim_size.build(self, (), dim_size.make_attributes(size=size)).results[0]
        return convert.build(self, (value,), convert.make_attributes(dtype=dtype)).results[0]

    def constant(self, array: np.ndarray[Any, Any]) -> Value:
        """A constant array: written into the op when small, else in the weight table of the module."""
        kind = dtype(array.dtype)
        if array.size <= INLINE_CONSTANT and (array.size or array.ndim == 1):
            constant = OPS["constant"]
            attributes = constant.make_attributes(value=array.tolist(), dtype=kind)
            return constant.build(self, (), attributes).results[0]
        function = self.function
        if function is None or function.module is None:
            raise GraphcError(
                f"a constant of {number_of(array.size, 'element')} needs a module to keep it in; "
                f"at most {INLINE_CONSTANT} elements are written into the op"
            )
        return function.module.constant_parameter(function, array)

    def promoted(self, operands: tuple[Any, ...], kinds: Sequence[str]) -> tuple[Any, ...]:
        """Insert casts so that all operands of kind `Tensor` have one dtype."""
        dtypes = [v.dtype for v, kind in zip(operands, kinds, strict=True) if v is not None and kind == "Tensor"]
        if all(d is dtypes[0] for d in dtypes):
            return operands
        common = common_dtype(dtypes)
        convert: Any = OPS["convert"]
        with self:
            return tuple(
                convert(v, dtype=common) if v is not None and kind == "Tensor" and v.dtype is not common else v
                for v, kind in zip(operands, kinds, strict=True)
            )


def short_path(path: str) -> str:
    """The path below the working directory, or the file's name alone: dumps must not depend on the machine."""
    here = os.getcwd() + os.sep
    return path[len(here) :] if path.startswith(here) else os.path.basename(path)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic)


def _as_kind(value: Any, dtype: DType) -> Any:
    if dtype.is_float:
        return float(value)
    if dtype.is_complex:
        return complex(value)
    if dtype.is_bool:
        return bool(value)
    if isinstance(value, float) and not value.is_integer():
        raise DTypeError(f"the scalar {value!r} is not a {dtype}")
    return int(value)
