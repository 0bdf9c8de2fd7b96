"""Symbolic tensors: what `Input` returns and layers of a functional model are called on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.ir.dims import Dim, Size, symbol, symbols
from graphc.ir.dtypes import DType
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.frontends.nodes import Node

BATCH = symbol("B")
"""The first size of every input that gives none."""

_unnamed: set[Dim] = {BATCH}


def unnamed_size() -> Dim:
    """A symbol for a `None` in a shape, unlike any other."""
    size = symbol(f"N{len(_unnamed)}")
    while size in _unnamed:
        size = symbol(f"N{len(_unnamed)}_{size.name}")
    _unnamed.add(size)
    return size


def is_unnamed(size: Size) -> bool:
    """Whether the size depends on one that the user wrote as None."""
    return isinstance(size, Dim) and any(s in _unnamed for s in symbols(size))


def keras_shape(shape: tuple[Size, ...]) -> tuple[Any, ...]:
    """The shape as Keras shows it: None for sizes the user left open, symbols the user named as they are."""
    return tuple(None if is_unnamed(size) else size for size in shape)


def size_of(entry: Any, fresh: Callable[[], Dim] = unnamed_size) -> Size:
    """The size that an entry of a shape means: a number, a symbol's name, a dim, or None for a `fresh` one."""
    if entry is None:
        return fresh()
    if isinstance(entry, str):
        if not entry.isidentifier():
            raise ShapeError(f"the name of a size is an identifier, not {entry!r}")
        return symbol(entry)
    if isinstance(entry, Dim):
        return entry
    if isinstance(entry, bool) or not hasattr(entry, "__index__"):
        raise ShapeError(f"a size is a number, a name or None, not {entry!r}")
    if int(entry) < 0:
        raise ShapeError(f"a size cannot be negative: {entry}")
    return int(entry)


class Operators:
    """Python's operators and NumPy's protocols, by the functions of `graphc.ops`."""

    __slots__ = ()
    __array_priority__ = 1000

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from graphc.frontends.numpy_protocol import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from graphc.frontends.numpy_protocol import call_function

        return call_function(function, args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        return _ops().get_item(self, index)

    @property
    def T(self) -> Any:
        """The axes in reverse order."""
        return _ops().transpose(self)

    def reshape(self, *shape: Any) -> Any:
        """`ops.reshape`, with the sizes as arguments or as one sequence."""
        return _ops().reshape(self, shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)

    def astype(self, dtype: Any) -> Any:
        """`ops.cast`."""
        return _ops().cast(self, dtype)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return _ops().absolute(self)

    def __neg__(self) -> Any:
        return _ops().negative(self)

    def __invert__(self) -> Any:
        return _ops().bitwise_not(self)


def _ops() -> Any:
    from graphc.frontends import ops

    return ops


def _binary(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    def forward(self: Any, other: Any) -> Any:
        return getattr(_ops(), name)(self, other)

    def reflected(self: Any, other: Any) -> Any:
        return getattr(_ops(), name)(other, self)

    return forward, reflected


for _method, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "mod",
    "pow": "power",
    "matmul": "matmul",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
}.items():
    _forward, _reflected = _binary(_name)
    setattr(Operators, f"__{_method}__", _forward)
    setattr(Operators, f"__r{_method}__", _reflected)

for _method, _name in {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}.items():
    setattr(Operators, f"__{_method}__", _binary(_name)[0])


_BY_IDENTITY = "to look for a tensor among others, use `any(t is tensor for t in tensors)`: == compares elements"


class SymbolicTensor(Operators):
    """A tensor of a functional model that has a type and comes from a node, but no value.

    `shape` shows sizes as Keras does (None for open ones); `tensor_type` has them as dims.
    """

    __slots__ = ("name", "node", "output_index", "tensor_type")

    def __init__(self, tensor_type: TensorType, node: Node, output_index: int, name: str) -> None:
        self.tensor_type = tensor_type
        self.node = node
        self.output_index = output_index
        self.name = name

    def __copy__(self) -> SymbolicTensor:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SymbolicTensor:
        return self  # a copy of a model knows its own

    @property
    def shape(self) -> tuple[Any, ...]:
        return keras_shape(self.tensor_type.shape)

    @property
    def dtype(self) -> DType:
        return self.tensor_type.dtype

    @property
    def ndim(self) -> int:
        return self.tensor_type.ndim

    def __graphc_record__(self, definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from graphc.frontends.nodes import record

        return record(definition, args, kwargs)

    def __graphc_value__(self, builder: Any) -> Any:
        from graphc.frontends.recording import current_recording

        recording = current_recording()
        if recording is None:
            raise GraphcError(
                f"the symbolic tensor {self.name!r} of a functional model was used while tracing a function"
            )
        return recording.symbolic_value(self)

    def __eq__(self, other: object) -> Any:
        """Elementwise, like a traced value's; look tensors up by identity."""
        if other is None:
            return False
        try:
            return _ops().equal(self, other)
        except ShapeError as error:  # more often from `in` than from a comparison that was meant
            error.message += f"; {_BY_IDENTITY}"
            raise

    def __ne__(self, other: object) -> Any:
        return True if other is None else _ops().not_equal(self, other)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        compared = self.node.name in ("equal", "not_equal")
        raise GraphcError(
            f"the truth of the symbolic tensor {self.name!r} is not known while a model is built; "
            "use `graphc.ops.where` or `graphc.ops.cond`" + (f"; {_BY_IDENTITY}" if compared else "")
        )

    def __float__(self) -> float:
        raise GraphcError(
            f"the symbolic tensor {self.name!r} has no number while a model is built; use `graphc.ops` in place of "
            "`float` and `int`"
        )

    def __int__(self) -> int:
        return int(self.__float__())

    def __iter__(self) -> Any:
        size = self.tensor_type.shape[0] if self.tensor_type.shape else None
        if not isinstance(size, int):
            raise ShapeError(f"cannot iterate over {self!r}: its first size is not a number")
        return (self[i] for i in range(size))

    def __len__(self) -> int:
        size = self.tensor_type.shape[0] if self.tensor_type.shape else None
        if not isinstance(size, int):
            raise ShapeError(f"{self!r} has no length: its first size is not a number")
        return size

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise GraphcError(
            f"the symbolic tensor {self.name!r} has no array; call a NumPy function graphc knows, graphc.ops or a layer"
        )

    def __repr__(self) -> str:
        return f"<SymbolicTensor {self.name}, shape={self.shape}, dtype={self.dtype}>"


KerasTensor = SymbolicTensor
"""The name Keras has for it."""
