"""`graphc.quantizers`: quantizers and configurations under Keras 3's names.

A scale here is Keras's: values are multiplied by it. Formats (`graphc.ir.formats`) and the ops have scales that values
are divided by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from graphc.frontends import ops
from graphc.frontends.custom_gradient import custom_gradient
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, GraphcError
from graphc.ir.suggestions import nearest

EPSILON = 1e-7

Array = np.ndarray[Any, Any]

__all__ = [
    "AWQConfig",
    "AbsMaxQuantizer",
    "GPTQConfig",
    "Int4QuantizationConfig",
    "Int8QuantizationConfig",
    "QuantizationConfig",
    "Quantizer",
    "abs_max_quantize",
    "deserialize",
    "fake_quant_with_min_max_vars",
    "get",
    "pack_int4",
    "quantize_and_dequantize",
    "serialize",
    "unpack_int4",
]


def __dir__() -> list[str]:
    return __all__


class Quantizer:
    """What makes integers and a scale of a tensor: called on one, it returns both."""

    def __init__(self, output_dtype: str = "int8") -> None:
        self.output_dtype = output_dtype

    def __call__(self, x: Any) -> Any:
        return x

    def get_config(self) -> dict[str, Any]:
        raise GraphcError(f"{type(self).__name__} has no get_config: define one, so that it can be saved")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Quantizer:
        return cls(**config)


class AbsMaxQuantizer(Quantizer):
    """The largest magnitude along `axis` becomes the end of `value_range`."""

    def __init__(
        self,
        axis: int | Sequence[int] | None = None,
        value_range: tuple[int, int] = (-127, 127),
        epsilon: float = EPSILON,
        output_dtype: str = "int8",
    ) -> None:
        super().__init__(output_dtype)
        self.axis = (axis,) if isinstance(axis, int) else None if axis is None else tuple(axis)
        self.value_range = tuple(value_range)
        self.epsilon = epsilon
        low, high = integer_limits(output_dtype)
        if not low <= self.value_range[0] < self.value_range[1] <= high:
            raise GraphcError(f"the value_range of {output_dtype} lies in [{low}, {high}], not {self.value_range}")

    def __call__(self, x: Any, axis: int | Sequence[int] | None = None, to_numpy: bool = False) -> tuple[Any, Any]:
        axis = axis if axis is not None else self.axis if self.axis is not None else -1
        return abs_max_quantize(x, axis, self.value_range, self.output_dtype, self.epsilon, to_numpy)  # type: ignore[arg-type]

    def get_config(self) -> dict[str, Any]:
        config = {"value_range": self.value_range, "epsilon": self.epsilon, "output_dtype": self.output_dtype}
        return config if self.axis is None else {**config, "axis": self.axis}


def integer_limits(dtype: Any) -> tuple[int, int]:
    """The least and the greatest integer of a dtype. Raises `DTypeError` for one that is none of integers."""
    kind = dtype_of(dtype)
    if not kind.is_integer:
        raise DTypeError(f"a quantizer gives integers, not {kind}")
    return (0, 2**kind.bits - 1) if kind.kind == "u" else (-(2 ** (kind.bits - 1)), 2 ** (kind.bits - 1) - 1)


def abs_max_quantize(
    inputs: Any,
    axis: int | Sequence[int],
    value_range: tuple[int, int] = (-127, 127),
    dtype: str = "int8",
    epsilon: float = EPSILON,
    to_numpy: bool = False,
) -> tuple[Any, Any]:
    """Integers, and the scale by which `inputs` were multiplied: `value_range[1]` by the largest magnitude along `axis`
    (which stays, with size 1) plus `epsilon`."""
    x = np.asarray(inputs) if to_numpy else inputs
    largest = ops.max(ops.abs(x), axis=axis, keepdims=True)
    scale = ops.cast(value_range[1] / (largest + epsilon), x.dtype)
    return ops.cast(ops.clip(ops.round(x * scale), value_range[0], value_range[1]), dtype), scale


def quantize_and_dequantize(inputs: Any, scale: Any, quantized_dtype: Any, compute_dtype: Any) -> Any:
    """`inputs` / `scale`, clipped and rounded to a narrow float dtype, times `scale` again."""
    import ml_dtypes

    limit = float(ml_dtypes.finfo(dtype_of(quantized_dtype).numpy).max)
    factor = ops.cast(scale, compute_dtype)
    kept = ops.cast(ops.clip(inputs / factor, -limit, limit), quantized_dtype)
    return ops.cast(kept, compute_dtype) * factor


def fake_quant_with_min_max_vars(
    inputs: Any,
    min_vals: Any,
    max_vals: Any,
    num_bits: int = 8,
    narrow_range: bool = False,
    axis: int | None = None,
) -> Any:
    """`inputs` quantized to `num_bits` between `min_vals` and `max_vals` and dequantized; with `axis`, a range for each
    index along it. Ranges are moved a little so that 0 is a value; `narrow_range` leaves the least integer out.

    The gradient goes straight through inside the range, to `min_vals` below and to `max_vals` above it.
    """
    least, most = int(narrow_range), 2**num_bits - 1
    rank = len(inputs.shape)
    kept = None if axis is None else axis % rank

    @custom_gradient
    def quantized(x: Any, low: Any, high: Any) -> Any:
        shape = [1 if i != kept else -1 for i in range(rank)] if kept is not None else ()
        lower, upper = ops.reshape(low, shape), ops.reshape(high, shape)
        scale = (upper - lower) / (most - least)
        zero = ops.round(ops.clip(least - lower / scale, least, most))
        bottom, top = (least - zero) * scale, (most - zero) * scale
        inverse = (most - least) / (upper - lower)
        moved = (ops.clip(x, bottom, top) - bottom) * inverse - ops.floor(-bottom * inverse + 0.5)
        found = ops.cast(ops.floor(moved + 0.5) * scale, x.dtype)

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            axes = [i for i in range(rank) if i != kept]
            inside = ops.logical_and(x >= bottom, x <= top)
            parts = [ops.sum(ops.where(there, upstream, 0.0), axis=axes) for there in (x <= bottom, x >= top)]
            d_low, d_high = (ops.reshape(part, of.shape) for part, of in zip(parts, (low, high), strict=True))
            return ops.where(inside, upstream, 0.0), d_low, d_high

        return found, gradient

    return quantized(inputs, min_vals, max_vals)


def pack_int4(arr: Any, axis: int = 0, dtype: str = "int8") -> tuple[Array, tuple[int, ...], int]:
    """Integers from −8 to 7 in pairs along `axis`, the first of a pair in the low four bits: the packed array, its
    shape, and the size of the axis before. An odd size is filled up with a zero."""
    values = np.moveaxis(_bytes(arr, dtype), axis, 0)
    count = values.shape[0]
    bits = np.pad(values.view(np.uint8) & 15, [(0, count % 2), *[(0, 0)] * (values.ndim - 1)])
    packed = np.moveaxis(bits[::2] | (bits[1::2] << 4), 0, axis).view(np.dtype(dtype))
    return packed, packed.shape, count


def unpack_int4(packed: Any, orig_len: int, axis: int = 0, dtype: str = "int8") -> Array:
    """What was packed: `orig_len` integers along `axis`, from −8 to 7, or from 0 to 15 for uint8."""
    pairs = np.moveaxis(_bytes(packed, dtype), axis, 0).view(np.uint8)
    bits = np.stack([pairs & 15, pairs >> 4], 1).reshape(2 * len(pairs), *pairs.shape[1:])[:orig_len]
    values = bits if dtype == "uint8" else (bits ^ 8).view(np.int8) - np.int8(8)
    return np.moveaxis(values, 0, axis)


def _bytes(array: Any, dtype: str) -> Array:
    if dtype not in ("int8", "uint8"):
        raise DTypeError(f"packed integers are int8 or uint8, not {dtype!r}")
    found = np.asarray(array)
    if found.dtype != dtype:
        raise DTypeError(f"integers of four bits come in {dtype}, not in {found.dtype}")
    return np.ascontiguousarray(found)


# --- configurations -------------------------------------------------------------------------------------------------


class QuantizationConfig:
    """How `quantize` of a model makes integers: `mode` says of which kind."""

    mode: ClassVar[str] = ""

    def __init__(self, weight_quantizer: Any = None, activation_quantizer: Any = None) -> None:
        self.weight_quantizer = get(weight_quantizer)
        self.activation_quantizer = get(activation_quantizer)

    def get_config(self) -> dict[str, Any]:
        parts = {"weight_quantizer": self.weight_quantizer, "activation_quantizer": self.activation_quantizer}
        return {name: None if part is None else serialize(part) for name, part in parts.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


class Int8QuantizationConfig(QuantizationConfig):
    """Weights in int8 with a scale for each output; products read their input in int8 too, a scale for each row. With
    `activation_quantizer=None` they read floats."""

    mode = "int8"

    def __init__(self, weight_quantizer: Any = None, activation_quantizer: Any = "default") -> None:
        chosen = AbsMaxQuantizer() if isinstance(activation_quantizer, str) else activation_quantizer
        super().__init__(weight_quantizer, chosen)
        found = self.weight_quantizer
        if found is not None and (not isinstance(found, AbsMaxQuantizer) or found.output_dtype != "int8"):
            raise GraphcError("the weight_quantizer of int8 is an AbsMaxQuantizer with output_dtype='int8'")
        if found is not None and found.value_range not in ((-127, 127), (-63, 63)):
            raise GraphcError(f"weights in int8 go from -127 to 127, or from -63 to 63, not {found.value_range}")


class Int4QuantizationConfig(QuantizationConfig):
    """Weights of four bits in blocks of `block_size` inputs, each with a scale and a zero point; with None or -1, a
    scale for each output and no zero points. Inputs stay floats."""

    mode = "int4"

    def __init__(
        self, weight_quantizer: Any = None, activation_quantizer: Any = "default", block_size: int | None = 128
    ) -> None:
        given = None if isinstance(activation_quantizer, str) else activation_quantizer
        super().__init__(weight_quantizer, given)
        if block_size is not None and block_size != -1 and block_size <= 0:
            raise GraphcError(f"block_size is a positive number, or None or -1 for a scale an output, not {block_size}")
        self.block_size = block_size
        if self.activation_quantizer is not None:
            raise GraphcError("beside int4 inputs stay floats: leave activation_quantizer out")
        found = self.weight_quantizer
        if found is not None and not self._by_output:
            raise GraphcError(
                "int4 in blocks has no other quantizer: leave weight_quantizer out, or say block_size=None"
            )
        if found is not None and not (isinstance(found, AbsMaxQuantizer) and found.value_range == (-8, 7)):
            raise GraphcError("the weight_quantizer of int4 is an AbsMaxQuantizer with value_range=(-8, 7)")

    @property
    def _by_output(self) -> bool:
        return self.block_size is None or self.block_size == -1

    @property
    def format(self) -> str:
        """The format of weights."""
        return "int4{block=none,scales=f32}" if self._by_output else f"int4{{block={self.block_size},asymmetric}}"

    def get_config(self) -> dict[str, Any]:
        found = self.weight_quantizer
        return {"weight_quantizer": None if found is None else serialize(found), "block_size": self.block_size}


@dataclass(eq=False, repr=False)
class _CalibratedConfig(QuantizationConfig):
    """What GPTQ and AWQ are told: `dataset` has texts for `tokenizer`, arrays of tokens, or arrays of examples for a
    model that reads no tokens; `num_samples` windows of `sequence_length` are looked at."""

    dataset: Any
    tokenizer: Any = None
    _: KW_ONLY
    weight_bits: int = 4
    num_samples: int = 128
    sequence_length: int = 512
    group_size: int = 128
    quantization_layer_structure: Any = None
    """Keras's; layers go in the order in which the model calls them, whatever it says."""

    BITS: ClassVar[tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        super().__init__()
        if self.weight_bits not in self.BITS:
            bits = f"{', '.join(map(str, self.BITS[:-1]))} or {self.BITS[-1]}"
            raise GraphcError(f"{self.mode.upper()} here has weight_bits {bits}, not {self.weight_bits}")
        for name in ("num_samples", "sequence_length"):
            if getattr(self, name) <= 0:
                raise GraphcError(f"{name} is a positive number, not {getattr(self, name)}")
        if self.group_size < -1 or self.group_size == 0:
            raise GraphcError(f"group_size is a positive number, or -1 for one group a channel, not {self.group_size}")

    @property
    def asymmetric(self) -> bool:
        """Whether blocks have zero points."""
        return True

    @property
    def format(self) -> str:
        """The format of weights."""
        if self.weight_bits == 8:
            return "int8{asymmetric}" if self.asymmetric else "int8"
        block = self.group_size if self.group_size > 0 else "none"
        return f"{'u' if self.asymmetric else ''}int{self.weight_bits}{{block={block}}}"

    def get_config(self) -> dict[str, Any]:
        kept = (field.name for field in fields(self) if field.name not in ("dataset", "tokenizer"))
        return {"dataset": None, "tokenizer": None, **{name: getattr(self, name) for name in kept}}


@dataclass(eq=False, repr=False)
class GPTQConfig(_CalibratedConfig):
    """Weights of 3, 4 or 8 bits by GPTQ, under Keras's names. With 8 bits each output has one scale.

    `hessian_damping` is the part of the mean that is added to the Hessian's diagonal; `activation_order` rounds the
    inputs with the largest activations first. graphc's own: `search` narrows the ranges of blocks where that loses
    less, `sweeps` rounds all once more so many times.
    """

    _: KW_ONLY
    per_channel: bool = True
    hessian_damping: float = 0.01
    symmetric: bool = False
    activation_order: bool = False
    search: bool = True
    sweeps: int = 0

    mode = "gptq"
    BITS = (3, 4, 8)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hessian_damping <= 1:
            raise GraphcError(f"hessian_damping is from 0 to 1, not {self.hessian_damping}")
        if not self.per_channel:
            raise GraphcError("per_channel=False, one scale for a whole tensor, loses too much and is not offered")

    @property
    def asymmetric(self) -> bool:
        return not self.symmetric

    @property
    def options(self) -> dict[str, Any]:
        """What the algorithm is told."""
        told = {"search": self.search, "sweeps": self.sweeps}
        return {"damping": self.hessian_damping, "act_order": self.activation_order, **told}


@dataclass(eq=False, repr=False)
class AWQConfig(_CalibratedConfig):
    """Weights of 4 (here also 3) bits by AWQ, under Keras's names; `num_grid_points` scales of inputs are tried."""

    _: KW_ONLY
    num_grid_points: int = 20

    mode = "awq"
    BITS = (3, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_grid_points <= 0:
            raise GraphcError(f"num_grid_points is a positive number, not {self.num_grid_points}")

    @property
    def options(self) -> dict[str, Any]:
        """What the algorithm is told."""
        return {"points": self.num_grid_points}


# --- by name --------------------------------------------------------------------------------------------------------

CLASSES: dict[str, type[Any]] = {
    each.__name__: each
    for each in (Quantizer, AbsMaxQuantizer, Int8QuantizationConfig, Int4QuantizationConfig, GPTQConfig, AWQConfig)
}
_NAMES = {"abs_max_quantizer": AbsMaxQuantizer, "quantizer": Quantizer}


def serialize(initializer: Any) -> dict[str, Any]:
    """A quantizer or configuration as JSON takes it."""
    return {"class_name": type(initializer).__name__, "config": initializer.get_config()}


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """What was serialized. Raises `GraphcError` for a class that is not known."""
    known = CLASSES | (custom_objects or {})
    name = config.get("class_name")
    if name not in known:
        raise GraphcError(f"there is no quantizer {name!r}{nearest(str(name), known)}")
    return known[name].from_config(config.get("config") or {})


def get(identifier: Any, **kwargs: Any) -> Any:
    """A quantizer by its name, its serialized form, or as it is; None stays None."""
    if identifier is None or isinstance(identifier, (Quantizer, QuantizationConfig)):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        found = _NAMES.get(identifier, CLASSES.get(identifier))
        if found is None:
            raise GraphcError(f"there is no quantizer {identifier!r}{nearest(identifier, [*_NAMES, *CLASSES])}")
        return found(**kwargs)
    if callable(identifier):
        return identifier(**kwargs) if isinstance(identifier, type) else identifier
    raise GraphcError(f"a quantizer is an object, a name or a config, not {identifier!r}")
