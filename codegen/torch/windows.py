"""Convolutions, pooling and norms of channels-first data in `torch.nn.functional`."""

from __future__ import annotations

from graphc.codegen.numpy.spelling import identity
from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.source.geometry import tuple_text, window_steps
from graphc.codegen.torch.dtypes import dtype_text
from graphc.ir.dims import Dim
from graphc.ir.graph import Op
from graphc.ir.sliding import covered, padding_pairs


def _spatial_pairs(op: Op) -> list[tuple[int, int]] | None:
    """The padding of a convolution or pool along each spatial axis of channels-first data, where it is known."""
    attributes = op.attribute_dict
    x = op.operands[0]
    assert x is not None
    strides, dilation = window_steps(op)
    window = attributes["window"] if "window" in attributes else op.operands[1].type.shape[: x.ndim - 2]  # type: ignore[union-attr]
    if attributes["padding"] == "same" and set(strides) == {1}:
        totals = [covered(k, d) - 1 for k, d in zip(window, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]  # type: ignore[operator]
    pairs = padding_pairs(x.type.shape[2:], window, strides, attributes["padding"], dilation)
    known = all(isinstance(size, int) for pair in pairs for size in pair)
    return list(pairs) if known else None  # type: ignore[arg-type]


def _shown(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else tuple_text(values)


def padded_input(op: Op, value: str = "") -> tuple[str, str]:
    """The template of a convolution's input, padded where its own padding cannot, and that padding."""
    pairs = _spatial_pairs(op)
    strides, dilation = window_steps(op)
    if pairs is None:
        x, kernel = op.operands[0], op.operands[1] if len(op.operands) > 1 else None
        assert x is not None
        window = op.attribute_dict.get("window") or (kernel.type.shape[: x.ndim - 2] if kernel is not None else ())
        if op.attribute_dict["padding"] == "same":
            tail = f", {value}" if value else ""
            texts = ", ".join(tuple_text(each) for each in (tuple(window), strides, dilation))  # type: ignore[arg-type]
            return f"pad_windows({{0}}, {texts}{tail})", "0"
        slots = [f"{{padding.{i}.{side}}}" for i in reversed(range(len(strides))) for side in (0, 1)]
        return f"F.pad({{0}}, ({', '.join(slots)}){f', value={value}' if value else ''})", "0"
    if all(low == high for low, high in pairs):
        return "{0}", _shown(tuple(low for low, _ in pairs))
    if op.attribute_dict["padding"] == "same" and set(strides) == {1} and op.name in ("conv", "convolution"):
        return "{0}", '"same"'
    flat = ", ".join(f"{low}, {high}" for low, high in reversed(pairs))
    return f"F.pad({{0}}, ({flat}){f', value={value}' if value else ''})", "0"


def conv(op: Op) -> Spelled | None:
    attributes = op.attribute_dict
    x, dtype = op.operands[0], op.results[0].dtype
    assert x is not None
    rank = x.ndim - 2
    if attributes["channels_last"] or rank not in (1, 2, 3) or not dtype.is_float:
        return None
    source, padding = padded_input(op)
    strides, dilation = window_steps(op)
    axes = ", ".join(map(str, (rank + 1, rank, *range(rank))))
    arguments = [source, f"{{1}}.permute({axes})"]
    if len(op.operands) > 2 and op.operands[2] is not None:
        arguments.append("{2}")
    if set(strides) != {1}:
        arguments.append(f"stride={_shown(strides)}")
    if padding != "0":
        arguments.append(f"padding={padding}")
    if set(dilation) != {1}:
        arguments.append(f"dilation={_shown(dilation)}")
    if attributes["groups"] != 1:
        arguments.append(f"groups={attributes['groups']}")
    return f"F.conv{rank}d({', '.join(arguments)})"


def pool(kind: str) -> Spelling:
    def spell(op: Op) -> Spelled | None:
        attributes = op.attribute_dict
        x, dtype = op.operands[0], op.results[0].dtype
        assert x is not None
        window = attributes["window"]
        rank = len(window)
        if attributes["channels_last"] or rank not in (1, 2, 3) or x.ndim != rank + 2 or not dtype.is_float:
            return None
        source, padding = padded_input(op, "-torch.inf")
        pairs = _spatial_pairs(op)
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
        arguments = [source, _shown(window)]
        if strides != window:
            arguments.append(_shown(strides) if len(arguments) == 2 else f"stride={_shown(strides)}")
        if padding != "0":
            arguments.append(f"padding={padding}")
        if set(dilation) != {1}:
            arguments.append(f"dilation={_shown(dilation)}")
        if kind == "avg" and padding != "0":
            arguments.append("count_include_pad=False")
        return f"F.{kind}_pool{rank}d({', '.join(arguments)})"

    return spell


def reduce_window(op: Op) -> Spelled:
    attributes, dtype = op.attribute_dict, op.results[0].dtype
    strides, dilation = window_steps(op)
    window = attributes["window"]
    reduce = {"max": "torch.amax", "min": "torch.amin", "sum": "torch.sum"}[attributes["kind"]]
    steps = f"{tuple_text(strides)}, {{padding}}, {tuple_text(dilation)}"
    if attributes["padding"] == "valid":
        steps = steps.replace("{padding}", str(((0, 0),) * len(window)))
    elif attributes["padding"] == "same":
        pairs = f"same_pairs({{0}}.shape, {{window}}, {tuple_text(strides)}, {tuple_text(dilation)})"
        steps = steps.replace("{padding}", pairs)
    least = identity(attributes["kind"], dtype).replace("np.", "torch.")
    text = f"reduce_windows({reduce}, {{0}}, {{window}}, {steps}, {least})"
    return f"{text}.to({dtype_text(dtype)})" if attributes["kind"] == "sum" and dtype.is_integer else text


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
