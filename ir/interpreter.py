"""The reference meaning: runs a module on NumPy arrays.

Each op is the real-number result rounded once to its dtype: floating operands are widened to float64, the op's
reference runs there (a composite's whole decomposition does), and the result is rounded. With `dtype="float64"`
nothing is rounded at all, which is what targets are measured against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from graphc.ir.binding import bind_symbols, prepare_inputs
from graphc.ir.control_reference import run_region_op
from graphc.ir.dims import Dim, Size, substitute
from graphc.ir.dtypes import DType, bf16, dtype, f8e4m3fn, f8e5m2
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.graph import Block, Function, Op, Value
from graphc.ir.module import Module
from graphc.ir.opdef import Composite, OpDef
from graphc.ir.promotion import common_dtype, weak_dtype
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]
Bindings = Mapping[Dim, Size]


def interpret(
    module: Module, *arrays: Any, dtype: str | None = None, entry: str | None = None, **named: Any
) -> Array | tuple[Array, ...]:
    """Run an entry (the main one by default) on inputs by position or name; weights come from the module.

    Returns one array, or a tuple when there are several results (new state among them). `dtype="float64"` evaluates
    in float64 throughout. Raises `ShapeError` or `DTypeError` for inputs that do not fit.
    """
    if dtype not in (None, "float64"):
        raise GraphcError(f"interpret evaluates in each op's own dtype or in float64, not in {dtype!r}")
    function = module.entry(entry)
    inputs = prepare_inputs(function, arrays, named)
    values = [inputs[p.name] if p.weight is None else module.weights[p.weight] for p in function.parameters]
    results = Interpreter(module, wide=dtype == "float64").run(function, values)
    return results[0] if len(results) == 1 else tuple(results)


class Interpreter:
    """Evaluates functions of `module` (None: nothing that calls another). `wide`: floats stay float64 throughout."""

    def __init__(self, module: Module | None = None, wide: bool = False) -> None:
        self.module = module
        self.wide = wide

    def run(self, function: Function, arrays: Sequence[Array]) -> list[Array]:
        """Results of `function` on one array for each parameter."""
        bindings = bind_symbols(function, [np.shape(array) for array in arrays])
        return self.run_block(
            function.block,
            [self.rounded(a, p.type.dtype) for a, p in zip(arrays, function.parameters, strict=True)],
            dict(bindings),
        )

    def run_block(self, block: Block, arrays: Sequence[Array], bindings: dict[Dim, Size]) -> list[Array]:
        """What the block's terminator hands out. Arrays are dropped after their last use."""
        environment: dict[Value, Array] = dict(zip(block.parameters, arrays, strict=True))
        pending = {value: value.use_count for value in block.parameters}
        for op in block:
            operands = [None if v is None else environment[v] for v in op.operands]
            if op.next is None:
                return cast(list[Array], operands)
            for value, array in zip(op.results, self.run_op(op, operands, bindings), strict=True):
                environment[value] = array
                pending[value] = value.use_count
            for value in op.operands:
                if value is not None:
                    pending[value] -= 1
                    if not pending[value]:
                        environment.pop(value, None)
        raise GraphcError("the block has no return or yield")

    def run_op(self, op: Op, operands: Sequence[Array | None], bindings: dict[Dim, Size]) -> list[Array]:
        """Results of one op, rounded to their dtypes unless `wide`."""
        if op.definition.introduces_symbols:
            bindings[op.attribute_dict["size"]] = int(cast(Array, operands[1]))
        attributes = {k: concrete(v, bindings) for k, v in op.attribute_dict.items()}
        if op.regions:
            results = run_region_op(self, op, cast(Sequence[Array], operands), attributes, bindings)
        elif op.definition.call_rule is not None:
            assert self.module is not None
            if op.name == "native_gradient":
                raise UnsupportedError(
                    "native_gradient has a meaning on torch and jax only; the pass own_gradients replaces it by the "
                    "IR's own gradient, which can be interpreted"
                )
            results = self.run(self.module.functions[op.attributes[0]], cast(Sequence[Array], operands))
        else:
            types = [None if v is None else v.type.dtype for v in op.operands]
            results = evaluate(op.definition, attributes, operands, types)
        return [self.rounded(a, value.type.dtype) for a, value in zip(results, op.results, strict=True)]

    def rounded(self, array: Any, to: DType) -> Array:
        if self.wide and (to.is_float or to.is_complex):
            return np.asarray(array, np.complex128 if to.is_complex else np.float64)
        return round_to(array, to)


def round_to(array: Any, to: DType) -> Array:
    """The array in dtype `to`; integers wrap."""
    array = np.asarray(array)
    with np.errstate(all="ignore"):
        if array.dtype == np.float64 and to in NARROW:
            array = _odd_float32(array)
        return array.astype(to.numpy, copy=False)


NARROW = frozenset({bf16, f8e4m3fn, f8e5m2})
"""Dtypes that ml_dtypes rounds float64 to through float32, which rounds twice."""


def _odd_float32(array: Array) -> Array:
    """The array in float32, inexact values rounded to an odd last bit: rounding those again is rounding once."""
    near = array.astype(np.float32)
    bits = np.atleast_1d(near).view(np.int32)
    inexact = (near != array) & ~np.isnan(array)
    bits -= np.asarray(np.abs(near) > np.abs(array), np.int32)
    bits |= np.asarray(inexact, np.int32)
    return bits.view(np.float32).reshape(array.shape)


def widened(array: Array) -> Array:
    """Floats as float64, complex as complex128, 4-bit integers as 8-bit ones; others as they are."""
    kind = dtype(array.dtype)
    if kind.is_float:
        return array.astype(np.float64, copy=False)
    if kind.is_complex:
        return array.astype(np.complex128, copy=False)
    if kind.bits == 4:
        return array.astype(np.int8 if kind.kind == "i" else np.uint8)
    return array


def evaluate(
    definition: OpDef[..., Any],
    attributes: Mapping[str, Any],
    operands: Sequence[Array | None],
    dtypes: Sequence[DType | None],
) -> list[Any]:
    """Results of an op without regions, unrounded, on arrays whose dtypes in the IR are `dtypes`."""
    if definition.widens:
        wide = [None if a is None else widened(np.asarray(a)) for a in operands]
    else:
        wide = [None if a is None or d is None else round_to(a, d) for a, d in zip(operands, dtypes, strict=True)]
    if definition.reference_rule is not None:
        with np.errstate(all="ignore"):
            found = definition.reference_rule(*wide, **attributes)
        return list(cast("tuple[Any, ...]", found)) if isinstance(found, tuple) else [found]
    if not isinstance(definition, Composite):
        raise UnsupportedError(f"the op {definition.name} has no reference")
    types = tuple(
        None if a is None or d is None else TensorType.of(d, a.shape) for a, d in zip(wide, dtypes, strict=True)
    )
    function = definition.decomposition(types, definition.make_attributes(**attributes))
    return Interpreter(None, wide=True).run(function, [a for a in wide if a is not None])


def concrete(value: Any, bindings: Bindings) -> Any:
    """An attribute with its symbols replaced by the sizes they are bound to."""
    if isinstance(value, Dim):
        found = substitute(value, bindings)
        if isinstance(found, Dim):
            raise GraphcError(f"the size {found} is not bound where it is used")
        return found
    if isinstance(value, tuple):
        return tuple(concrete(item, bindings) for item in cast(tuple[Any, ...], value))
    return value


def call_on_arrays(definition: OpDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calling an op outside any trace: evaluate at once, with promotion and rounding as the recorded op would."""
    operands, attributes = definition.bind(args, kwargs)
    kinds = [definition.kind_of(i) for i in range(len(operands))]
    arrays = _arrays(operands, kinds)
    types = tuple(None if a is None else TensorType.of(dtype(a.dtype), a.shape) for a in arrays)
    inferred = definition.infer(types, attributes)
    named = dict(zip(definition.attribute_names, inferred.attributes, strict=True))
    results = evaluate(definition, named, arrays, [None if t is None else t.dtype for t in types])
    rounded = tuple(round_to(a, t.dtype) for a, t in zip(results, inferred.types, strict=True))
    return rounded[0] if len(rounded) == 1 else rounded


def _arrays(operands: Sequence[Any], kinds: Sequence[str]) -> list[Array | None]:
    scalar = (bool, int, float, complex)
    arrays: list[Any] = [
        o if o is None or (isinstance(o, scalar) and not isinstance(o, np.generic)) else _array(o) for o in operands
    ]
    tensors: list[Array] = [
        a for a, k in zip(arrays, kinds, strict=True) if k == "Tensor" and isinstance(a, np.ndarray)
    ]
    common = [dtype(a.dtype) for a in tensors]
    for i, value in enumerate(arrays):
        if value is not None and not isinstance(value, np.ndarray):
            weak = weak_dtype(value, common if kinds[i] == "Tensor" else [])
            arrays[i] = np.asarray(value, weak.numpy)
    dtypes = [dtype(a.dtype) for a, k in zip(arrays, kinds, strict=True) if k == "Tensor" and a is not None]
    if dtypes:
        to = common_dtype(dtypes)
        arrays = [round_to(a, to) if k == "Tensor" and a is not None else a for a, k in zip(arrays, kinds, strict=True)]
    return arrays


def _array(operand: Any) -> Array:
    convert = getattr(operand, "__graphc_array__", None)
    array = np.asarray(convert() if convert is not None else operand)
    if isinstance(operand, (list, tuple)) and array.dtype != bool:
        array = array.astype(np.int32 if array.dtype.kind in "iu" else np.float32)
    return array


__all__ = ["Interpreter", "call_on_arrays", "evaluate", "interpret", "round_to"]
