"""How each op is spelled in NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.source.geometry import (
    full_geometry,
    geometry,
    index_text,
    kernel_shape,
    may_be_empty,
    reshaped,
    tuple_text,
)
from graphc.codegen.source.norms import batch_norm, layer_norm, rms_norm
from graphc.codegen.source.quantization import numpy_dequantize
from graphc.codegen.source.rotation import rope
from graphc.ir.dtypes import DType, f8e4m3fn
from graphc.ir.graph import Op
from graphc.ir.ops.random import WORDS, bernoulli_limit


def dtype_text(dtype: DType) -> str:
    """`np.float32`, or the name in ml_dtypes of what NumPy lacks."""
    if dtype.is_bool:
        return "np.bool_"
    return f"np.{dtype}" if dtype.numpy.isbuiltin == 1 else f"ml_dtypes.{dtype}"


def is_half(dtype: DType) -> bool:
    """Whether NumPy computes it worse than through float32, or not at all."""
    return dtype.is_float and dtype.bits < 32


def through_float32(text: str) -> Spelling:
    """The template for float32 and float64; narrower floats are widened, and the result is rounded once."""

    def spell(op: Op) -> Spelled:
        dtype = op.operands[0].dtype if op.operands[0] is not None else op.results[0].dtype
        if not is_half(dtype):
            return text
        wide = text
        for i, value in enumerate(op.operands):
            if value is not None and is_half(value.dtype):
                wide = wide.replace(f"{{{i}}}", f"{{{i}}}.astype(np.float32)")
        result = op.results[0].dtype
        return f"({wide}).astype({dtype_text(result)})" if is_half(result) else wide

    return spell


def by_kind(floats: str, integers: str) -> Spelling:
    return lambda op: integers if op.results[0].dtype.is_integer else floats


def convert(op: Op) -> Spelled | None:
    value, to = op.operands[0], op.results[0].dtype
    assert value is not None
    if value.dtype.is_complex and not to.is_complex:
        return None
    if to.is_bool:
        return "{0} != 0"
    if value.dtype.is_float and to.is_integer:
        return f"to_integer({{0}}, {dtype_text(to)})"
    return f"{{0}}.astype({dtype_text(to)})"


def reduction(name: str) -> Spelling:
    def spell(op: Op) -> Spelled | None:
        value, attributes = op.operands[0], op.attribute_dict
        assert value is not None
        axes = "{axes.0}" if len(attributes["axes"]) == 1 else "{axes}"
        whole = len(attributes["axes"]) == value.ndim and not attributes["keepdims"]
        arguments = [] if whole else [f"axis={axes}"]
        if attributes["keepdims"]:
            arguments.append("keepdims=True")
        if not attributes["axes"]:
            return "{0}" if name != "var" else None
        dtype = value.dtype
        if name in ("sum", "prod") and (dtype.is_integer and dtype.bits < 64):
            arguments.append(f"dtype={dtype_text(dtype)}")
        if name in ("sum", "prod", "mean", "var") and is_half(dtype):
            return f"{{0}}.astype(np.float32).{name}({', '.join(arguments)}).astype({dtype_text(dtype)})"
        if name in ("max", "min"):
            if may_be_empty(value.type, attributes["axes"]):
                arguments.append(f"initial={identity(name, dtype)}")
            if dtype_text(dtype).startswith("ml_dtypes"):
                return f"{{0}}.astype(np.float32).{name}({', '.join(arguments)}).astype({dtype_text(dtype)})"
        return f"{{0}}.{name}({', '.join(arguments)})"

    return spell


def identity(kind: str, dtype: DType) -> str:
    """What a maximum, minimum or sum of nothing is."""
    if kind == "sum":
        return "0"
    if dtype.is_bool:
        return str(kind == "min")
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        return str(limits.min if kind == "max" else limits.max)
    if dtype is f8e4m3fn:  # it has no infinity
        return "-448.0" if kind == "max" else "448.0"
    return "-np.inf" if kind == "max" else "np.inf"


def arg_reduction(name: str) -> Spelling:
    def spell(op: Op) -> Spelled:
        value, keepdims = op.operands[0], op.attribute_dict["keepdims"]
        assert value is not None
        wide = ".astype(np.float32)" if is_half(value.dtype) else ""
        return f"{{0}}{wide}.{name}(axis={{axis}}{', keepdims=True' if keepdims else ''}).astype({{dtype}})"

    return spell


def transpose(op: Op) -> Spelled:
    permutation = op.attribute_dict["permutation"]
    return "{0}.T" if permutation == tuple(range(len(permutation)))[::-1] else "{0}.transpose({permutation})"


def iota(op: Op) -> Spelled:
    shape, axis = op.attribute_dict["shape"], op.attribute_dict["axis"]
    line = f"np.arange({{shape.{axis}}}, dtype={{dtype}})"
    if len(shape) == 1:
        return line
    after = len(shape) - axis - 1
    index = f"[:, {', '.join(['None'] * after)}]" if after else ""
    return f"np.broadcast_to({line}{index}, {{shape}})"


def pad(op: Op) -> Spelled:
    attributes, dtype = op.attribute_dict, op.results[0].dtype
    value = attributes["value"]
    shown = "{value}" if dtype.is_float or dtype.is_complex else str(int(value))
    if attributes["interior"] is not None:
        return f"pad_between({{0}}, {{padding}}, {{interior}}, {shown})"
    zero = value == 0 and not np.signbit(value)
    return f"np.pad({{0}}, {{padding}}{'' if zero else f', constant_values={shown}'})"


def split(op: Op) -> Spelled:
    sizes = op.attribute_dict["sizes"]
    if all(isinstance(size, int) for size in sizes):
        offsets = [str(sum(sizes[:i])) for i in range(1, len(sizes))]
        return f"np.split({{0}}, [{', '.join(offsets)}], {{axis}})"
    return "np.split({0}, np.cumsum({sizes})[:-1], {axis})"


def dot_general(op: Op) -> Spelled:
    x, y = op.operands
    assert x is not None and y is not None
    contract, batch = op.attribute_dict["contract"], op.attribute_dict["batch"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [""] * x.ndim, [""] * y.ndim
    for i, j in (*batch, *contract):
        left[i] = right[j] = next(letters)
    left = [label or next(letters) for label in left]
    right = [label or next(letters) for label in right]
    out = [left[i] for i, _ in batch]
    out += [label for i, label in enumerate(left) if i not in {i for i, _ in (*batch, *contract)}]
    out += [label for j, label in enumerate(right) if j not in {j for _, j in (*batch, *contract)}]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    if not batch and len(contract) == 1 and x.ndim == y.ndim == 2:
        template = f"{{0}}{'' if contract[0][0] == 1 else '.T'} @ {{1}}{'' if contract[0][1] == 0 else '.T'}"
    else:
        template = f'np.einsum("{equation}", {{0}}, {{1}}, optimize=True)'
    spelled = through_float32(template)
    return spelled(op) if callable(spelled) else spelled  # type: ignore[return-value]


def _convolved(op: Op, name: str, operands: list[str]) -> str:
    """A call of a helper that takes its operands channels last and wide; of an image the result is given back so."""
    attributes, dtype = op.attribute_dict, op.results[0].dtype
    text = f"{name}({', '.join([*operands, *geometry(op)])})"
    if not attributes["channels_last"] and name != "kernel_gradient":
        text = f"np.moveaxis({text}, -1, 1)"
    return f"{text}.astype({dtype_text(dtype)})" if is_half(dtype) else text


def _image(op: Op, slot: str) -> str:
    wide = ".astype(np.float32)" if is_half(op.results[0].dtype) else ""
    return f"{slot}{wide}" if op.attribute_dict["channels_last"] else f"np.moveaxis({slot}, 1, -1){wide}"


def _kernel(op: Op) -> str:
    wide = ".astype(np.float32)" if is_half(op.results[0].dtype) else ""
    if not op.attribute_dict["filters_first"]:
        return f"{{1}}{wide}"
    return f"{{1}}.transpose({tuple_text((*range(2, len(kernel_shape(op))), 1, 0))}){wide}"


def convolution(op: Op) -> Spelled:
    return _convolved(op, "convolution", [_image(op, "{0}"), _kernel(op)])


def input_gradient(op: Op) -> Spelled:
    last, ndim = op.attribute_dict["channels_last"], len(op.attribute_dict["shape"])
    order = range(ndim) if last else (0, *range(2, ndim), 1)
    shape = "{shape}" if last else f"({', '.join(f'{{shape.{axis}}}' for axis in order)})"
    return _convolved(op, "input_gradient", [_image(op, "{0}"), _kernel(op), shape])


def kernel_gradient(op: Op) -> Spelled:
    ndim = len(kernel_shape(op))
    operands = [_image(op, "{0}"), _image(op, "{1}")]
    if not op.attribute_dict["filters_first"]:
        return _convolved(op, "kernel_gradient", [*operands, "{shape}"])
    shape = f"({', '.join(f'{{shape.{axis}}}' for axis in (*range(2, ndim), 1, 0))})"
    text = _convolved(op, "kernel_gradient", [*operands, shape])
    return f"{text}.transpose({tuple_text((ndim - 1, ndim - 2, *range(ndim - 2)))})"


def conv(op: Op) -> Spelled | None:
    if not op.attribute_dict["channels_last"] or is_half(op.results[0].dtype):
        return None
    text = convolution(op)
    return f"{text} + {{2}}" if op.operands[2] is not None else text


def select(name: str) -> Spelling:
    """`select_and_scatter` and `select_and_gather`."""

    def spell(op: Op) -> Spelled:
        kind, dtype = op.attribute_dict["kind"], op.results[0].dtype
        strides, dilation = full_geometry(op)
        wide = ".astype(np.float32)" if is_half(dtype) else ""
        padding = op.attribute_dict["padding"]
        padding = f'"{padding}"' if isinstance(padding, str) else "{padding}"
        steps = f"{{window}}, {strides}, {padding}, {dilation}"
        text = f"select_and_{name}({{0}}{wide}, {{1}}{wide}, np.{kind}imum, {identity(kind, dtype)}, {steps})"
        return f"{text}.astype({dtype_text(dtype)})" if wide else text

    return spell


def reduce_window(op: Op) -> Spelled:
    kind, dtype = op.attribute_dict["kind"], op.results[0].dtype
    strides, dilation = full_geometry(op)
    wide = ".astype(np.float32)" if is_half(dtype) else ""
    steps = f"{{window}}, {strides}, {{padding}}, {dilation}, {identity(kind, dtype)}"
    text = f"reduce_windows(np.{kind}, {{0}}{wide}, {steps})"
    return f"{text}.astype({dtype_text(dtype)})" if wide else text


def linear(op: Op) -> Spelled | None:
    if is_half(op.results[0].dtype):
        return None
    return "{0} @ {1}" if op.operands[2] is None else "{0} @ {1} + {2}"


def gather(op: Op) -> Spelled:
    fill = op.attribute_dict["mode"] == "fill"
    return "take_or_zero({0}, {1}, {axis})" if fill else 'np.take({0}, {1}, axis={axis}, mode="clip")'


def scatter(op: Op) -> Spelled:
    return f"scatter_{op.attribute_dict['reduction']}({{0}}, {{1}}, {{2}}, {{axis}})"


def only_wide(text: str) -> Spelling:
    """For composites: float32 and float64 have it, other floats are decomposed."""
    return lambda op: None if is_half(op.results[0].dtype) else text


def bernoulli(op: Op) -> Spelled | None:
    shape, limit = op.attribute_dict["shape"], bernoulli_limit(op.attribute_dict["probability"])
    if not shape or limit in (0, WORDS):
        return None
    return "bernoulli({0}, {shape}, {threshold})", {"threshold": str(limit - WORDS // 2)}


def fold_in(op: Op) -> Spelled:
    data = op.operands[1]
    producer = data.op if data is not None else None
    if producer is not None and producer.name == "constant":
        return f"fold_in({{0}}, {producer.attributes[0]})"
    return "fold_in({0}, {1})"


def softmax(name: str) -> Spelling:
    """SciPy's, which takes no maximum of nothing."""

    def spell(op: Op) -> Spelled | None:
        x = op.operands[0]
        assert x is not None
        if is_half(x.dtype) or may_be_empty(x.type, (op.attribute_dict["axis"],)):
            return None
        return f"special.{name}({{0}}, axis={{axis}})"

    return spell


def sort(op: Op) -> Spelled:
    axis = op.attribute_dict["axis"]
    if len(op.operands) == 1:
        return f'np.sort({{0}}, axis={axis}, kind="stable")'
    return f"sort({axis}, {{*}})"


def sparse_cross_entropy(op: Op) -> Spelled | None:
    logits, attributes = op.operands[0], op.attribute_dict
    assert logits is not None
    if is_half(logits.dtype) or may_be_empty(logits.type, tuple(range(logits.ndim))):
        return None
    return f"sparse_cross_entropy({', '.join(['{0}', '{1}', *loss_options(attributes)])})"


def sparse_cross_entropy_gradient(op: Op) -> Spelled | None:
    logits = op.operands[1]
    assert logits is not None
    if is_half(logits.dtype) or may_be_empty(logits.type, tuple(range(logits.ndim))):
        return None
    return f"sparse_cross_entropy_gradient({', '.join(['{0}', '{1}', '{2}', *loss_options(op.attribute_dict)])})"


def loss_options(attributes: Mapping[str, Any]) -> list[str]:
    """The arguments of a cross-entropy that are not at their defaults."""
    return [
        f"{name}={{{name}}}"
        for name, default in (("ignore_index", None), ("label_smoothing", 0.0))
        if attributes[name] != default
    ]


def floor_division(op: Op) -> Spelled | None:
    """Of integers; the quotient of floats is decomposed, as the framework rounds it otherwise."""
    return "{0} // {1}" if op.results[0].dtype.is_integer else None


SPELLING: dict[str, Spelling] = {
    "neg": "-{0}",
    "sign": "np.sign({0})",
    "abs": "np.abs({0})",
    "exp": "np.exp({0})",
    "expm1": "np.expm1({0})",
    "log": "np.log({0})",
    "log1p": "np.log1p({0})",
    "sqrt": "np.sqrt({0})",
    "rsqrt": through_float32("1 / np.sqrt({0})"),
    "sigmoid": through_float32("special.expit({0})"),
    "sin": "np.sin({0})",
    "cos": "np.cos({0})",
    "tan": "np.tan({0})",
    "asin": "np.arcsin({0})",
    "acos": "np.arccos({0})",
    "atan": "np.arctan({0})",
    "sinh": "np.sinh({0})",
    "cosh": "np.cosh({0})",
    "tanh": "np.tanh({0})",
    "asinh": "np.arcsinh({0})",
    "acosh": "np.arccosh({0})",
    "atanh": "np.arctanh({0})",
    "erf": through_float32("special.erf({0})"),
    "erf_inv": through_float32("special.erfinv({0})"),
    "lgamma": through_float32("special.gammaln({0})"),
    "digamma": through_float32("special.digamma({0})"),
    "floor": "np.floor({0})",
    "ceil": "np.ceil({0})",
    "round_even": "np.rint({0})",
    "is_finite": "np.isfinite({0})",
    "is_nan": "np.isnan({0})",
    "not": "~{0}",
    "real": "{0}.real",
    "imag": "{0}.imag",
    "conj": "{0}.conj()",
    "complex": "make_complex({0}, {1})",
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": by_kind("{0} / {1}", "divide({0}, {1})"),
    "floor_div": floor_division,
    "rem": "np.fmod({0}, {1})",
    "pow": by_kind("{0} ** {1}", "power({0}, {1})"),
    "atan2": "np.arctan2({0}, {1})",
    "maximum": "np.maximum({0}, {1})",
    "minimum": "np.minimum({0}, {1})",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "xor": "{0} ^ {1}",
    "shift_left": "{0} << {1}",
    "shift_right": "{0} >> {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "select": "np.where({0}, {1}, {2})",
    "clip": lambda op: "np.clip({0}, {1}, {2})" if op.results[0].dtype.numpy.isbuiltin == 1 else None,
    "square": "np.square({0})",
    "convert": convert,
    "bitcast": "{0}.view({dtype})",
    "reduce_sum": reduction("sum"),
    "reduce_prod": reduction("prod"),
    "reduce_max": reduction("max"),
    "reduce_min": reduction("min"),
    "reduce_all": reduction("all"),
    "reduce_any": reduction("any"),
    "reduce_mean": reduction("mean"),
    "variance": reduction("var"),
    "argmax": arg_reduction("argmax"),
    "argmin": arg_reduction("argmin"),
    "cumulative_sum": through_float32("cumulative_sum({0}, {axis}, {reverse}, {exclusive})"),
    "reshape": lambda op: reshaped(op, "{0}.reshape({sizes})"),
    "transpose": transpose,
    "broadcast": "np.broadcast_to({0}, {shape})",
    "iota": iota,
    "reverse": "np.flip({0}, {axes})",
    "slice": lambda op: f"{{0}}[{index_text(op)}]",
    "pad": pad,
    "dynamic_slice": lambda op: f"{{0}}[window_at({starts_text(op, 1)}, {{sizes}}, {{0}}.shape)]",
    "dynamic_update_slice": lambda op: f"updated_at({{0}}, {{1}}, {starts_text(op, 2)})",
    "gather": gather,
    "scatter": scatter,
    "embedding": 'np.take({0}, {1}, axis=0, mode="clip")',
    "sort": sort,
    "random_bernoulli": bernoulli,
    "random_fold_in": fold_in,
    "random_split": "split_key({0}, {count})",
    "threefry": "threefry({0}, {1}, {2})",
    "rope": rope,
    "sparse_cross_entropy": sparse_cross_entropy,
    "sparse_cross_entropy_gradient": sparse_cross_entropy_gradient,
    "concat": "np.concatenate([{*}], axis={axis})",
    "split": split,
    "dot_general": dot_general,
    "matmul": through_float32("{0} @ {1}"),
    "linear": linear,
    "convolution": convolution,
    "conv": conv,
    "convolution_input_gradient": input_gradient,
    "convolution_kernel_gradient": kernel_gradient,
    "reduce_window": reduce_window,
    "select_and_scatter": select("scatter"),
    "select_and_gather": select("gather"),
    "relu": "np.maximum({0}, 0)",
    "silu": only_wide("{0} * special.expit({0})"),
    "softmax": softmax("softmax"),
    "log_softmax": softmax("log_softmax"),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "barrier": lambda op: "{0}" if len(op.operands) == 1 else "({*})",
    "name": "{0}",
    "stop_gradient": "{0}",
    "dim_size": "np.int64({size})",
    "assume_dim": lambda op: f"{{0}}[{':, ' * op.attribute_dict['axis']}:{{size}}]",
    "dequantize": numpy_dequantize,
}


def starts_text(op: Op, first: int) -> str:
    """The operands from `first` on as a tuple."""
    slots = [f"{{{i}}}" for i in range(first, len(op.operands))]
    return f"({', '.join(slots)}{',' if len(slots) == 1 else ''})"
