"""How each op is spelled in JAX."""

from __future__ import annotations

import math

from graphc.codegen.jax.convolution import conv, convolution, input_gradient, kernel_gradient, reduce_window, select
from graphc.codegen.numpy.spelling import bernoulli, fold_in, identity, loss_options, starts_text, transpose
from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.source.geometry import index_text, may_be_empty, reshaped, tuple_text
from graphc.codegen.source.norms import batch_norm, layer_norm, rms_norm
from graphc.codegen.source.quantization import is_product_of_bytes, numpy_dequantize
from graphc.codegen.source.rotation import rope
from graphc.ir.dtypes import DType, u64
from graphc.ir.graph import Op, Value


def dtype_text(dtype: DType) -> str:
    return f"jnp.{dtype}" if not dtype.is_bool else "jnp.bool_"


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
        if not attributes["axes"]:
            return "{0}" if name != "var" else None
        whole = len(attributes["axes"]) == value.ndim and not attributes["keepdims"]
        arguments = [] if whole else ["axis={axes.0}" if len(attributes["axes"]) == 1 else "axis={axes}"]
        if attributes["keepdims"]:
            arguments.append("keepdims=True")
        dtype = value.dtype
        if name in ("sum", "prod") and dtype.is_integer and dtype.bits < 64:
            arguments.append(f"dtype={dtype_text(dtype)}")
        if name in ("max", "min") and may_be_empty(value.type, attributes["axes"]):
            least = identity(name, dtype).replace("np.", "jnp.")
            arguments.append(f"initial={f'np.{dtype}({least})' if dtype is u64 else least}")
        return f"{{0}}.{name}({', '.join(arguments)})"

    return spell


def arg_reduction(name: str) -> Spelling:
    def spell(op: Op) -> Spelled:
        keepdims = ", keepdims=True" if op.attribute_dict["keepdims"] else ""
        return f"{{0}}.{name}(axis={{axis}}{keepdims}).astype({{dtype}})"

    return spell


def iota(op: Op) -> Spelled:
    shape = op.attribute_dict["shape"]
    return (
        "jnp.arange({shape.0}, dtype={dtype})" if len(shape) == 1 else "lax.broadcasted_iota({dtype}, {shape}, {axis})"
    )


def pad(op: Op) -> Spelled:
    attributes, dtype = op.attribute_dict, op.results[0].dtype
    value = attributes["value"]
    shown = "{value}" if dtype.is_float or dtype.is_complex else str(bool(value) if dtype.is_bool else int(value))
    if attributes["interior"] is not None:
        triples = ", ".join(
            f"({{padding.{i}.0}}, {{padding.{i}.1}}, {gap})" for i, gap in enumerate(attributes["interior"])
        )
        return f"lax.pad({{0}}, jnp.array({shown}, {dtype_text(dtype)}), ({triples},))"
    zero = value == 0 and math.copysign(1, value) > 0
    return f"jnp.pad({{0}}, {{padding}}{'' if zero else f', constant_values={shown}'})"


def gather(op: Op) -> Spelled:
    if op.attribute_dict["mode"] == "fill":
        return "take_or_zero({0}, {1}, {axis})"
    return 'jnp.take({0}, {1}, axis={axis}, mode="clip")'


def scatter(op: Op) -> Spelled:
    before = ":, " * op.attribute_dict["axis"]
    method = op.attribute_dict["reduction"]
    if method == "add" and op.results[0].dtype.is_bool:
        method = "max"
    outside = "jnp.where({1} < 0, {0}.shape[{axis}], {1})"
    return f'{{0}}.at[{before}{outside}].{method}({{2}}, mode="drop")'


def dot_general(op: Op) -> Spelled:
    x, y = op.operands
    assert x is not None and y is not None
    contract, batch = op.attribute_dict["contract"], op.attribute_dict["batch"]
    if not batch and len(contract) == 1 and x.ndim == y.ndim == 2:
        return f"{{0}}{'' if contract[0][0] == 1 else '.T'} @ {{1}}{'' if contract[0][1] == 0 else '.T'}"
    sides = ", ".join(f"({_axes(pairs, 0)}, {_axes(pairs, 1)})" for pairs in (contract, batch))
    return f"lax.dot_general({{0}}, {{1}}, ({sides}))"


def _axes(pairs: tuple[tuple[int, int], ...], side: int) -> str:
    return tuple_text(tuple(pair[side] for pair in pairs))


def split(op: Op) -> Spelled:
    sizes = op.attribute_dict["sizes"]
    if all(isinstance(size, int) for size in sizes):
        offsets = [str(sum(sizes[:i])) for i in range(1, len(sizes))]
        return f"jnp.split({{0}}, [{', '.join(offsets)}], {{axis}})"
    return "jnp.split({0}, np.cumsum({sizes})[:-1], {axis})"


def quotient(op: Op) -> Spelled:
    if not op.results[0].dtype.is_integer:
        return "{0} / {1}"
    x, y = op.operands
    assert x is not None and y is not None
    if x.type.shape == y.type.shape:
        return "lax.div({0}, {1})"
    if _is_constant(y):  # a Python number would be an int32 there, whatever it is divided into
        return "lax.div({0}, jnp.full_like({0}, {1}))"
    if _is_constant(x):
        return "lax.div(jnp.full_like({1}, {0}), {1})"
    return "lax.div(*jnp.broadcast_arrays({0}, {1}))"


def remainder(op: Op) -> Spelled:
    x, y = op.operands
    assert x is not None and y is not None
    alike = x.type.shape == y.type.shape and not _is_constant(x) and not _is_constant(y)
    return "lax.rem({0}, {1})" if alike else "jnp.fmod({0}, {1})"


def _is_constant(value: Value) -> bool:
    """Whether the value is a number, which is written as Python's."""
    return value.op is not None and value.op.name == "constant" and not value.type.shape


def narrow(text: str, bits: int = 32) -> Spelling:
    """A function that JAX computes badly on floats below so many bits: these are widened, and it is rounded once."""

    def spell(op: Op) -> Spelled:
        dtype = op.results[0].dtype
        if not (dtype.is_float and dtype.bits < bits):
            return text
        wide = text
        for i in range(len(op.operands)):
            wide = wide.replace(f"{{{i}}}", f"{{{i}}}.astype(jnp.float32)")
        return f"({wide}).astype({dtype_text(dtype)})"

    return spell


def sort(op: Op) -> Spelled:
    axis = op.attribute_dict["axis"]
    return (
        f"jnp.sort({{0}}, axis={axis})" if len(op.operands) == 1 else f"lax.sort(({{*}}), dimension={axis}, num_keys=1)"
    )


def sparse_cross_entropy(op: Op) -> Spelled | None:
    logits, attributes = op.operands[0], op.attribute_dict
    assert logits is not None
    if logits.dtype.bits < 32 or may_be_empty(logits.type, tuple(range(logits.ndim))):
        return None
    return f"sparse_cross_entropy({', '.join(['{0}', '{1}', *loss_options(attributes)])})"


def sparse_cross_entropy_gradient(op: Op) -> Spelled | None:
    logits = op.operands[1]
    assert logits is not None
    if logits.dtype.bits < 32 or may_be_empty(logits.type, tuple(range(logits.ndim))):
        return None
    return f"sparse_cross_entropy_gradient({', '.join(['{0}', '{1}', '{2}', *loss_options(op.attribute_dict)])})"


def floor_division(op: Op) -> Spelled | None:
    """Of integers; the quotient of floats is decomposed, as the framework rounds it otherwise."""
    return "{0} // {1}" if op.results[0].dtype.is_integer else None


def integer_linear(op: Op) -> Spelled | None:
    """A product in int8, which XLA has on both sides only."""
    _, x_scale, _, _, zero_point, bias = op.operands
    if x_scale is None or not is_product_of_bytes(op):
        return None
    arguments = ["{0}", "{2}", "{1}[..., None] * {3}" if x_scale.ndim else "{1} * {3}"]
    if zero_point is not None:
        arguments.append("zero_point={4}")
    if bias is not None:
        arguments.append("bias={5}")
    return f"integer_linear({', '.join(arguments)})"


SPELLING: dict[str, Spelling] = {
    "neg": "-{0}",
    "sign": "jnp.sign({0})",
    "abs": "jnp.abs({0})",
    **{
        name: f"jnp.{name}({{0}})"
        for name in "exp expm1 log log1p sqrt sin cos tan sinh cosh tanh floor ceil square".split()  # noqa: SIM905
    },
    "rsqrt": "lax.rsqrt({0})",
    "sigmoid": "jax.nn.sigmoid({0})",
    "asin": "jnp.arcsin({0})",
    "acos": "jnp.arccos({0})",
    "atan": "jnp.arctan({0})",
    "asinh": "jnp.arcsinh({0})",
    "acosh": "jnp.arccosh({0})",
    "atanh": "jnp.arctanh({0})",
    "erf": "lax.erf({0})",
    "erf_inv": "lax.erf_inv({0})",
    "lgamma": "lax.lgamma({0})",
    "digamma": "lax.digamma({0})",
    "round_even": "jnp.round({0})",
    "is_finite": "jnp.isfinite({0})",
    "is_nan": "jnp.isnan({0})",
    "not": "~{0}",
    "real": "{0}.real",
    "imag": "{0}.imag",
    "conj": "{0}.conj()",
    "complex": "lax.complex(*jnp.broadcast_arrays({0}, {1}))",
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": quotient,
    "floor_div": floor_division,
    "rem": remainder,
    "pow": lambda op: "power({0}, {1})" if op.results[0].dtype.is_integer else "{0} ** {1}",
    "atan2": "jnp.arctan2({0}, {1})",
    "maximum": "jnp.maximum({0}, {1})",
    "minimum": "jnp.minimum({0}, {1})",
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
    "select": "jnp.where({0}, {1}, {2})",
    "clip": "jnp.clip({0}, {1}, {2})",
    "convert": convert,
    "bitcast": "lax.bitcast_convert_type({0}, {dtype})",
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
    "cumulative_sum": "cumulative_sum({0}, {axis}, {reverse}, {exclusive})",
    "reshape": lambda op: reshaped(op, "{0}.reshape({sizes})"),
    "transpose": transpose,
    "broadcast": "jnp.broadcast_to({0}, {shape})",
    "iota": iota,
    "reverse": "jnp.flip({0}, {axes})",
    "slice": lambda op: f"{{0}}[{index_text(op)}]",
    "pad": pad,
    "dynamic_slice": lambda op: (
        f"lax.dynamic_slice({{0}}, {starts_text(op, 1)}, {{sizes}}, allow_negative_indices=False)"
    ),
    "dynamic_update_slice": lambda op: (
        f"lax.dynamic_update_slice({{0}}, {{1}}, {starts_text(op, 2)}, allow_negative_indices=False)"
    ),
    "gather": gather,
    "scatter": scatter,
    "embedding": 'jnp.take({0}, {1}, axis=0, mode="clip")',
    "one_hot": "jax.nn.one_hot({0}, {size}, dtype={dtype}, axis={axis})",
    "sort": sort,
    "random_bernoulli": bernoulli,
    "random_fold_in": fold_in,
    "random_split": "split_key({0}, {count})",
    "threefry": "threefry({0}, {1}, {2})",
    "rope": rope,
    "sparse_cross_entropy": sparse_cross_entropy,
    "sparse_cross_entropy_gradient": sparse_cross_entropy_gradient,
    "concat": "jnp.concatenate([{*}], axis={axis})",
    "split": split,
    "dot_general": dot_general,
    "matmul": narrow("{0} @ {1}"),
    "linear": lambda op: "{0} @ {1}" if op.operands[2] is None else "{0} @ {1} + {2}",
    "convolution": convolution,
    "conv": conv,
    "convolution_input_gradient": input_gradient,
    "convolution_kernel_gradient": kernel_gradient,
    "reduce_window": reduce_window,
    "select_and_scatter": select("scatter"),
    "select_and_gather": select("gather"),
    "relu": "jax.nn.relu({0})",
    "relu6": lambda op: "jax.nn.relu6({0})" if op.results[0].dtype.is_float else None,
    "leaky_relu": "jax.nn.leaky_relu({0}, {negative_slope})",
    "elu": lambda op: "jax.nn.elu({0})" if op.attribute_dict["alpha"] == 1 else "jax.nn.elu({0}, {alpha})",
    "silu": narrow("jax.nn.silu({0})", 16),
    "softplus": "jax.nn.softplus({0})",
    "gelu": narrow("jax.nn.gelu({0}, approximate={approximate})", 16),
    "softmax": narrow("jax.nn.softmax({0}, axis={axis})", 16),
    "log_softmax": narrow("jax.nn.log_softmax({0}, axis={axis})", 16),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "barrier": lambda op: (
        "lax.optimization_barrier({0})" if len(op.operands) == 1 else "lax.optimization_barrier(({*}))"
    ),
    "name": "{0}",
    "stop_gradient": "lax.stop_gradient({0})",
    "dim_size": "jnp.array({size}, jnp.int64)",
    "dequantize": numpy_dequantize,
    "integer_linear": integer_linear,
}
