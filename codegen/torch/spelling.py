"""How each op is spelled in PyTorch."""

from __future__ import annotations

import math
from typing import Any

from graphc.codegen.numpy.spelling import identity
from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.source.geometry import index_text, may_be_empty, reshaped, tuple_text
from graphc.codegen.torch.convolution import conv, input_gradient, is_copied, kernel_gradient, quantized_conv
from graphc.codegen.torch.dtypes import dtype_text
from graphc.codegen.torch.learning import LEARNING
from graphc.codegen.torch.windows import (
    batch_norm,
    batch_norm_gradient,
    group_norm,
    layer_norm,
    pool,
    reduce_window,
    rms_norm,
    select,
)
from graphc.ir.dtypes import f64
from graphc.ir.graph import Op, Value


def constant_of(value: Value | None) -> Any:
    """The number of a constant without axes, None for anything else."""
    producer = value.op if value is not None else None
    if producer is None or producer.name != "constant" or producer.results[0].type.shape:
        return None
    return producer.attributes[0]


def _is_number(value: Value | None) -> bool:
    number = constant_of(value)
    return number is not None and not (isinstance(number, float) and math.isnan(number))


# --- elementwise ------------------------------------------------------------------------------------------------

_CASTS = {"float32": "float", "float64": "double", "float16": "half", "bool": "bool", "int32": "int", "int64": "long"}


def convert(op: Op) -> Spelled | None:
    value, to = op.operands[0], op.results[0].dtype
    assert value is not None
    if value.dtype.is_complex and not to.is_complex:
        return None
    if value.dtype.is_float and to.is_integer:
        return f"to_integer({{0}}, {dtype_text(to)})"
    return f"{{0}}.{_CASTS[to]}()" if to in _CASTS else f"{{0}}.to({dtype_text(to)})"


def extremum(name: str, keyword: str) -> Spelling:
    def spell(op: Op) -> Spelled:
        first, second = (_is_number(value) for value in op.operands)
        if op.results[0].dtype.is_bool or first == second:
            return f"torch.{name}({{0}}, {{1}})"
        return f"{{0}}.clamp({keyword}={{1:s}})" if second else f"{{1}}.clamp({keyword}={{0:s}})"

    return spell


def clip(op: Op) -> Spelled | None:
    x, low, high = op.operands
    assert x is not None
    numbers = [_is_number(low), _is_number(high)]
    if x.dtype.is_bool or any(numbers) != all(numbers) or constant_of(x) is not None:
        return None
    return "{0}.clamp({1:s}, {2:s})" if all(numbers) else None


def sign(op: Op) -> Spelled:
    return "sign({0})" if op.results[0].dtype.is_float else "{0}.sign()"


def power(op: Op) -> Spelled:
    if not op.results[0].dtype.is_integer:
        return "{0} ** {1}"
    exponent = constant_of(op.operands[1])
    return "{0} ** {1}" if exponent is not None and exponent >= 0 else "power({0}, {1})"


def shift(name: str, sign: str) -> Spelling:
    def spell(op: Op) -> Spelled:
        dtype, count = op.results[0].dtype, constant_of(op.operands[1])
        if count is not None and 0 <= count < dtype.bits:
            return f"{{0}} {sign} {{1}}"
        return f"{'logical_' if name == 'shift_right' and dtype.kind == 'u' else ''}{name}({{0}}, {{1}})"

    return spell


def quotient(op: Op) -> Spelled:
    if not op.results[0].dtype.is_integer:
        return "{0} / {1}"
    divisor = constant_of(op.operands[1])
    return 'torch.div({0}, {1:s}, rounding_mode="trunc")' if divisor not in (None, -1) else "divide({0}, {1})"


def integers_only(text: str) -> Spelling:
    """A function of torch for integers; floats are decomposed, as torch rounds their quotient otherwise."""
    return lambda op: text if op.results[0].dtype.is_integer else None


def floats_only(text: str, *, double: bool = True) -> Spelling:
    """A function of torch for floats; `double=False` where float64 is not computed to its precision."""

    def spell(op: Op) -> Spelled | None:
        dtype = op.results[0].dtype
        return text if dtype.is_float and (double or dtype is not f64) else None

    return spell


# --- reductions -------------------------------------------------------------------------------------------------


def _axes(op: Op) -> str:
    return "{axes.0}" if len(op.attribute_dict["axes"]) == 1 else "{axes}"


def _over(op: Op, *more: str) -> str:
    """The arguments of a reduction: none for all axes."""
    axes, x = op.attribute_dict["axes"], op.operands[0]
    whole = x is not None and len(axes) == x.ndim and not op.attribute_dict["keepdims"]
    return ", ".join([*([] if whole else [f"dim={_axes(op)}{_keepdim(op)}"]), *more])


def _keepdim(op: Op) -> str:
    return ", keepdim=True" if op.attribute_dict["keepdims"] else ""


def total(op: Op) -> Spelled:
    dtype = op.results[0].dtype
    kept = [f"dtype={dtype_text(dtype)}"] if dtype.is_integer and dtype.bits < 64 else []
    return f"{{0}}.sum({_over(op, *kept)})" if op.attribute_dict["axes"] else "{0}"


def product(op: Op) -> Spelled:
    dtype = op.results[0].dtype
    kept = f", dtype={dtype_text(dtype)}" if dtype.is_integer and dtype.bits < 64 else ""
    axes = sorted(op.attribute_dict["axes"], reverse=True)
    return "{0}" + "".join(f".prod(dim={axis}{_keepdim(op)}{kept})" for axis in axes)


def _are_last(op: Op) -> bool:
    axes, x = op.attribute_dict["axes"], op.operands[0]
    assert x is not None
    return bool(axes) and sorted(axis % x.ndim for axis in axes) == list(range(x.ndim - len(axes), x.ndim))


def plain_reduction(name: str) -> Spelling:
    def spell(op: Op) -> Spelled | None:
        if name == "var" and not _are_last(op):
            return None  # of axes further to the front torch's own takes ten times as long as its definition
        extra = ["correction=0"] if name == "var" else []
        return f"{{0}}.{name}({_over(op, *extra)})" if op.attribute_dict["axes"] else "{0}"

    return spell


def greatest(kind: str) -> Spelling:
    def spell(op: Op) -> Spelled:
        value, axes = op.operands[0], op.attribute_dict["axes"]
        assert value is not None
        if not axes:
            return "{0}"
        if may_be_empty(value.type, axes):
            least = identity(kind, value.dtype).replace("np.", "torch.")
            return f"with_one({{0}}, {{axes}}, {least}).a{kind}(dim={_axes(op)}{_keepdim(op)})"
        return f"{{0}}.a{kind}(dim={_axes(op)}{_keepdim(op)})"

    return spell


def arg_reduction(name: str) -> Spelling:
    def spell(op: Op) -> Spelled:
        value, dtype = op.operands[0], op.attribute_dict["dtype"]
        assert value is not None
        x = "{0}.to(torch.uint8)" if value.dtype.is_bool else "{0}"
        cast = "" if dtype == "int64" else ".int()" if dtype == "int32" else f".to({dtype_text(dtype)})"
        return f"{x}.{name}(dim={{axis}}{_keepdim(op)}){cast}"

    return spell


# --- movement ---------------------------------------------------------------------------------------------------


def reshape(op: Op) -> Spelled:
    value, shape = op.operands[0], op.attribute_dict["shape"]
    assert value is not None
    kept = len(shape) - 1
    old = value.type.shape
    if shape and len(old) > len(shape) and old[:kept] == shape[:kept] and (kept or len(old) > 1):
        return f"{{0}}.flatten({kept})" if kept else "{0}.flatten()"
    return reshaped(op, "{0}.reshape({sizes})") if shape else "{0}.reshape(())"


def transpose(op: Op) -> Spelled:
    permutation = op.attribute_dict["permutation"]
    moved = [i for i, axis in enumerate(permutation) if i != axis]
    if not moved:
        return "{0}"
    if len(moved) == 2:
        return "{0}.T" if len(permutation) == 2 else f"{{0}}.transpose({moved[0]}, {moved[1]})"
    text = f"{{0}}.permute({', '.join(map(str, permutation))})"
    return f"{text}.contiguous()" if is_copied(op) else text


def iota(op: Op) -> Spelled:
    shape, axis = op.attribute_dict["shape"], op.attribute_dict["axis"]
    line = f"torch.arange({{shape.{axis}}}, dtype={{dtype}})"
    if len(shape) == 1:
        return line
    after = len(shape) - axis - 1
    index = f"[:, {', '.join(['None'] * after)}]" if after else ""
    return f"{line}{index}.expand({{shape}})"


def pad(op: Op) -> Spelled:
    attributes, dtype = op.attribute_dict, op.results[0].dtype
    value = attributes["value"]
    shown = "{value}" if dtype.is_float or dtype.is_complex else str(bool(value) if dtype.is_bool else int(value))
    if attributes["interior"] is not None or dtype.is_bool or dtype.is_complex:
        gaps = "{interior}" if attributes["interior"] is not None else tuple_text((0,) * len(attributes["padding"]))
        return f"pad_between({{0}}, {{padding}}, {gaps}, {shown})"
    zero = value == 0 and math.copysign(1, value) > 0
    last = next((i for i, pair in enumerate(attributes["padding"]) if pair != (0, 0)), len(attributes["padding"]) - 1)
    order = range(len(attributes["padding"]) - 1, last - 1, -1)
    if not attributes["padding"]:
        return "{0}"
    pairs = ", ".join(f"{{padding.{i}.0}}, {{padding.{i}.1}}" for i in order)
    return f"F.pad({{0}}, ({pairs}){'' if zero else f', value={shown}'})"


def gather(op: Op) -> Spelled:
    x, indices = op.operands
    assert x is not None and indices is not None
    if op.attribute_dict["mode"] == "fill":
        return "take_or_zero({0}, {1}, {axis})"
    return "take({0}, {1}, {axis})"


def scatter(op: Op) -> Spelled:
    return f"scatter_{op.attribute_dict['reduction']}({{0}}, {{1}}, {{2}}, {{axis}})"


def split(op: Op) -> Spelled:
    sizes = op.attribute_dict["sizes"]
    if len(set(sizes)) == 1:
        return "{0}.split({sizes.0}, dim={axis})"
    return "{0}.split({sizes}, dim={axis})"


def starts_text(op: Op, first: int) -> str:
    slots = [f"{{{i}}}" for i in range(first, len(op.operands))]
    return f"({', '.join(slots)}{',' if len(slots) == 1 else ''})"


def lerp(op: Op) -> Spelled | None:
    x, y = op.operands
    assert x is not None and y is not None
    return "torch.lerp({0}, {1}, {weight})" if x.dtype.bits >= 32 and x.type.shape == y.type.shape else None


# --- contractions -----------------------------------------------------------------------------------------------


def dot_general(op: Op) -> Spelled:
    x, y = op.operands
    assert x is not None and y is not None
    contract, batch = op.attribute_dict["contract"], op.attribute_dict["batch"]
    if not batch and len(contract) == 1 and x.ndim == y.ndim == 2 and contract[0] != (0, 0):
        return f"{{0}}{'' if contract[0][0] == 1 else '.T'} @ {{1}}{'' if contract[0][1] == 0 else '.T'}"
    if not batch and contract == ((x.ndim - 1, y.ndim - 1),) and y.ndim == 2:
        return "{0} @ {1}.T"
    if not batch and x.ndim == y.ndim > 1 and contract == tuple((i, i) for i in range(x.ndim - 1)):
        # The gradient of a layer's kernel, transposed in memory as the layer stores it.
        flat = f".flatten(0, {x.ndim - 2})" if x.ndim > 2 else ""
        return f"({{1}}{flat}.T @ {{0}}{flat}).T"
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [""] * x.ndim, [""] * y.ndim
    for i, j in (*batch, *contract):
        left[i] = right[j] = next(letters)
    left = [label or next(letters) for label in left]
    right = [label or next(letters) for label in right]
    out = [left[i] for i, _ in batch]
    out += [label for i, label in enumerate(left) if i not in {i for i, _ in (*batch, *contract)}]
    out += [label for j, label in enumerate(right) if j not in {j for _, j in (*batch, *contract)}]
    return f'torch.einsum("{"".join(left)},{"".join(right)}->{"".join(out)}", {{0}}, {{1}})'


def linear(op: Op) -> Spelled:
    return "{0} @ {1}" if op.operands[2] is None else "{0} @ {1} + {2}"


def lora_linear(op: Op) -> Spelled | None:
    bias, gain, dropped = op.operands[4:]
    if gain is not None:
        return None
    more = ("" if bias is None else ", {4}") + ("" if dropped is None else ", dropped={6}")
    return f"lora_linear({{0}}, {{1}}, {{2}}, {{3}}{more}, scaling={{scaling}})"


def lora_block(op: Op) -> Spelled | None:
    """By a helper of the op's name. In floats of 16 bits its products add to results in float32, and round once where
    the ops round twice; those of 8 bits have no products in torch."""
    attributes = op.attribute_dict
    options = ["scaling={scaling}"] if "scaling" in attributes else []
    if attributes.get("activation", "silu") != "silu" or op.results[0].dtype.bits < 16:
        return None
    operands = [f"{{{i}}}" for i in range(len(op.operands))]
    return f"{op.name}({', '.join([*operands, *options])})"


def gelu(op: Op) -> Spelled:
    return 'F.gelu({0}, approximate="tanh")' if op.attribute_dict["approximate"] else "F.gelu({0})"


SPELLING: dict[str, Spelling] = {
    "neg": "-{0}",
    "sign": sign,
    "abs": "{0}.abs()",
    **{
        name: f"torch.{name}({{0}})"
        for name in [
            "exp",
            "expm1",
            "log",
            "log1p",
            "sqrt",
            "rsqrt",
            "sigmoid",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "acosh",
            "atanh",
            "erf",
            "lgamma",
            "digamma",
            "floor",
            "ceil",
            "square",
        ]
    },
    "erf_inv": "torch.erfinv({0})",
    "round_even": "torch.round({0})",
    "is_finite": "torch.isfinite({0})",
    "is_nan": "torch.isnan({0})",
    "not": "~{0}",
    "real": "{0}.real",
    "imag": "{0}.imag",
    "conj": "{0}.conj().resolve_conj()",
    "complex": "torch.complex({0}, {1})",
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": quotient,
    "floor_div": integers_only('torch.div({0}, {1:s}, rounding_mode="floor")'),
    "mod": integers_only("torch.remainder({0}, {1:s})"),
    "rem": "torch.fmod({0}, {1:s})",
    "pow": power,
    "atan2": "torch.atan2({0}, {1})",
    "maximum": extremum("maximum", "min"),
    "minimum": extremum("minimum", "max"),
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "xor": "{0} ^ {1}",
    "shift_left": shift("shift_left", "<<"),
    "shift_right": shift("shift_right", ">>"),
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "select": "torch.where({0}, {1:s}, {2:s})",
    "clip": clip,
    "convert": convert,
    "bitcast": "{0}.view({dtype})",
    "reduce_sum": total,
    "reduce_prod": product,
    "reduce_max": greatest("max"),
    "reduce_min": greatest("min"),
    "reduce_all": plain_reduction("all"),
    "reduce_any": plain_reduction("any"),
    "reduce_mean": plain_reduction("mean"),
    "variance": plain_reduction("var"),
    "argmax": arg_reduction("argmax"),
    "argmin": arg_reduction("argmin"),
    "cumulative_sum": "cumulative_sum({0}, {axis}, {reverse}, {exclusive})",
    "reshape": reshape,
    "transpose": transpose,
    "broadcast": "{0}.expand({shape})",
    "iota": iota,
    "reverse": "{0}.flip({axes})",
    "slice": lambda op: f"{{0}}[{index_text(op)}]",
    "pad": pad,
    "dynamic_slice": lambda op: f"{{0}}[window_at({starts_text(op, 1)}, {{sizes}}, {{0}}.shape)]",
    "dynamic_update_slice": lambda op: f"updated_at({{0}}, {{1}}, {starts_text(op, 2)})",
    "gather": gather,
    "scatter": scatter,
    "concat": "torch.cat([{*}], dim={axis})",
    "split": split,
    "dot_general": dot_general,
    "matmul": "{0} @ {1}",
    "linear": linear,
    "lora_linear": lora_linear,
    **dict.fromkeys(
        ("lora_linears", "lora_mlp", "lora_small_gradient", "lora_input_gradient", "lora_factor_gradients"), lora_block
    ),
    "glu_gradient": lora_block,
    "convolution": conv,
    "conv": conv,
    "quantized_conv": quantized_conv,
    "convolution_input_gradient": input_gradient,
    "convolution_kernel_gradient": kernel_gradient,
    "reduce_window": reduce_window,
    "select_and_scatter": select("scatter"),
    "select_and_gather": select("gather"),
    "max_pool": pool("max"),
    "avg_pool": pool("avg"),
    "relu": "F.relu({0})",
    "relu6": floats_only("F.relu6({0})"),
    "leaky_relu": "F.leaky_relu({0}, {negative_slope})",
    "elu": lambda op: "F.elu({0})" if op.attribute_dict["alpha"] == 1 else "F.elu({0}, {alpha})",
    "silu": "F.silu({0})",
    "lerp": lerp,
    "silu_gradient": floats_only("torch.ops.aten.silu_backward({0}, {1})"),
    "gelu": gelu,
    "softplus": floats_only("F.softplus({0})", double=False),
    "softmax": "F.softmax({0}, dim={axis})",
    "log_softmax": "F.log_softmax({0}, dim={axis})",
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "batch_norm": batch_norm,
    "batch_norm_gradient": batch_norm_gradient,
    "relu_gradient": floats_only("torch.ops.aten.threshold_backward({0}, {1}, 0)"),
    **LEARNING,
    "barrier": lambda op: "{0}" if len(op.operands) == 1 else "({*})",
    "name": "{0}",
    "stop_gradient": "{0}.detach()",
    "dim_size": "torch.tensor({size})",
    "assume_dim": lambda op: f"{{0}}[{':, ' * op.attribute_dict['axis']}:{{size}}]",
}
