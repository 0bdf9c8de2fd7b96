"""Pooling and norms of channels-first data in `torch.nn.functional`."""

from __future__ import annotations

from graphc.codegen.numpy.spelling import identity
from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.source.geometry import tuple_text, window_steps
from graphc.codegen.torch.convolution import known_pairs, padded_input, shown
from graphc.codegen.torch.dtypes import dtype_text
from graphc.ir.dims import Dim
from graphc.ir.dtypes import DType
from graphc.ir.graph import Op


def pool(kind: str) -> Spelling:
    def spell(op: Op) -> Spelled | None:
        attributes = op.attribute_dict
        x, dtype = op.operands[0], op.results[0].dtype
        assert x is not None
        window = attributes["window"]
        rank = len(window)
        if attributes["channels_last"] or rank not in (1, 2, 3) or x.ndim != rank + 2 or not dtype.is_float:
            return None
        source, padding = padded_input(op, x.type.shape, window, value="-torch.inf")
        pairs = known_pairs(op, x.type.shape, window)
        strides, dilation = window_steps(op)
        own = pairs is not None and all(low == high for low, high in pairs)
        if kind == "avg" and not own:
            return None
        if own and pairs is not None and any(2 * low > k for (low, _), k in zip(pairs, window, strict=True)):
            if kind == "avg":
                return None
            source, padding = (
                f"F.pad({{0}}, ({', '.join(f'{p}, {q}' for p, q in reversed(pairs))}), value=-torch.inf)",
                "0",
            )
        arguments = [source, shown(window)]
        if strides != window:
            arguments.append(shown(strides) if len(arguments) == 2 else f"stride={shown(strides)}")
        if padding != "0":
            arguments.append(f"padding={padding}")
        if set(dilation) != {1}:
            arguments.append(f"dilation={shown(dilation)}")
        if kind == "avg" and padding != "0":
            arguments.append("count_include_pad=False")
        function = "max_pool" if is_reordered(op) else f"F.{kind}_pool{rank}d"
        return f"{function}({', '.join(arguments)})"

    return spell


def is_reordered(op: Op) -> bool:
    """Whether it is a max pooling of images by overlapping windows, of which PyTorch is slow with channels first."""
    if op.name != "max_pool" or len(op.attribute_dict["window"]) != 2:
        return False
    return any(step < size for step, size in zip(window_steps(op)[0], op.attribute_dict["window"], strict=True))


def _steps(op: Op) -> str:
    """Strides, padding and dilation of a window over all axes of the first operand."""
    attributes = op.attribute_dict
    strides, dilation = window_steps(op)
    padding = "{padding}"
    if attributes["padding"] == "valid":
        padding = str(((0, 0),) * len(strides))
    elif attributes["padding"] == "same":
        padding = f"same_pairs({{0}}.shape, {{window}}, {tuple_text(strides)}, {tuple_text(dilation)})"
    return f"{tuple_text(strides)}, {padding}, {tuple_text(dilation)}"


def reduce_window(op: Op) -> Spelled:
    kind, dtype = op.attribute_dict["kind"], op.results[0].dtype
    reduce = {"max": "torch.amax", "min": "torch.amin", "sum": "torch.sum"}[kind]
    text = f"reduce_windows({reduce}, {{0}}, {{window}}, {_steps(op)}, {_identity(kind, dtype)})"
    return f"{text}.to({dtype_text(dtype)})" if kind == "sum" and dtype.is_integer else text


def _identity(kind: str, dtype: DType) -> str:
    return identity(kind, dtype).replace("np.", "torch.")


def select(name: str) -> Spelling:
    """`select_and_scatter` and `select_and_gather`: those of a max pooling by PyTorch's own, others by flat indices."""

    def spell(op: Op) -> Spelled:
        pooling = _pooling(op)
        if pooling is not None:
            return f"pooled_{name}({{0}}, {{1}}, {', '.join(pooling)})"
        kind = op.attribute_dict["kind"]
        least = _identity(kind, op.results[0].dtype)
        found = f"selected(torch.arg{kind}, {{0}}, {{window}}, {_steps(op)}, {least})"
        return f"{name}_at({{1}}, {found}, {{0}}.shape)" if name == "scatter" else f"{name}_at({{1}}, {found})"

    return spell


def _pooling(op: Op) -> list[str] | None:
    """The arguments of `F.max_pool2d` for the same windows, where there are such: at each place the same choice."""
    attributes, x = op.attribute_dict, op.operands[0]
    assert x is not None
    strides, dilation = window_steps(op)
    window, padding = attributes["window"], attributes["padding"]
    if attributes["kind"] != "max" or x.ndim != 4 or not x.dtype.is_float:
        return None
    pairs = ((0, 0),) * 4 if padding == "valid" else padding
    if padding == "same" or any(low != high or not isinstance(low, int) for low, high in pairs):
        return None
    before = tuple(low for low, _ in pairs)
    outside = (*window[:2], *strides[:2], *(low + 1 for low in before[:2]))
    if set(outside) != {1} or any(2 * low > k for low, k in zip(before[2:], window[2:], strict=True)):
        return None
    steps = {"padding": (before[2:], 0), "dilation": (dilation[2:], 1)}
    named = [f"{name}={shown(values)}" for name, (values, usual) in steps.items() if set(values) != {usual}]
    return [shown(window[2:]), shown(strides[2:]), *named]


# --- norms ------------------------------------------------------------------------------------------------------


def _normalized(op: Op) -> str | None:
    x, axes = op.operands[0], op.attribute_dict["axes"]
    assert x is not None
    found = sorted(axis % x.ndim for axis in axes)
    if found != list(range(x.ndim - len(found), x.ndim)) or not found:
        return None
    sizes = x.type.shape[x.ndim - len(found) :]
    if any(isinstance(size, Dim) for size in sizes):
        return None
    return tuple_text(tuple(int(size) for size in sizes))  # type: ignore[arg-type]


def layer_norm(op: Op) -> Spelled | None:
    sizes = _normalized(op)
    if sizes is None:
        return None
    scale = "{1}" if op.operands[1] is not None else "None"
    offset = "{2}" if op.operands[2] is not None else "None"
    weights = "" if scale == offset == "None" else f", {scale}" + ("" if offset == "None" else f", {offset}")
    return f"F.layer_norm({{0}}, {sizes}{weights}, eps={{epsilon}})"


def rms_norm(op: Op) -> Spelled | None:
    sizes = _normalized(op)
    weight = ", {1}" if op.operands[1] is not None else ""
    return None if sizes is None else f"F.rms_norm({{0}}, {sizes}{weight}, eps={{epsilon}})"


def group_norm(op: Op) -> Spelled | None:
    x, scale, offset = op.operands
    assert x is not None
    if op.attribute_dict["axis"] % x.ndim != 1 or x.ndim < 2:
        return None
    weights = "".join(
        f", {name}={{{i}}}" for i, name, value in ((1, "weight", scale), (2, "bias", offset)) if value is not None
    )
    return f"F.group_norm({{0}}, {{groups}}{weights}, eps={{epsilon}})"


def batch_norm(op: Op) -> Spelled | None:
    x, _, _, scale, offset = op.operands
    assert x is not None
    if op.attribute_dict["axis"] % x.ndim != 1 or x.ndim < 2:
        return None
    weights = "".join(
        f", {name}={{{i}}}" for i, name, value in ((3, "weight", scale), (4, "bias", offset)) if value is not None
    )
    return f"F.batch_norm({{0}}, {{1}}, {{2}}{weights}, eps={{epsilon}})"


def batch_norm_gradient(op: Op) -> Spelled | None:
    x, scale, dtype = op.operands[1], op.operands[4], op.results[0].dtype
    assert x is not None
    if op.attribute_dict["axis"] % x.ndim != 1 or x.ndim < 2 or dtype.bits < 32:
        return None
    return f"batch_norm_gradient({{0}}, {{1}}, {{2}}, {{3}}, {'{4}' if scale is not None else 'None'}, {{epsilon}})"
