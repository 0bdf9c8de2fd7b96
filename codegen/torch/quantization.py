"""PyTorch source of weights that are stored as integers, and the layer of `torch.nn`'s kind that holds one."""

from __future__ import annotations

from graphc.codegen.source.dialect import Layer, Spelled, Spelling
from graphc.codegen.source.quantization import dequantize, is_product_of_bytes, rows_function, rows_text
from graphc.codegen.torch.dtypes import dtype_text
from graphc.codegen.torch.spelling import constant_of
from graphc.ir.dtypes import f32
from graphc.ir.formats import Int8, parse_format
from graphc.ir.graph import Op
from graphc.ir.ops.quantization import limits
from graphc.ir.recipes import Permute, Step


def quantized_linear(op: Op) -> Spelled | None:
    """The product, where no layer holds the arrays."""
    form, shape = parse_format(op.attribute_dict["format"]), op.attribute_dict["shape"]
    parts = [f"{{{i}}}" for i in range(2, len(op.operands))]
    if isinstance(form, Int8):
        parts[0] += ".T"
    weight = rows_text(form, parts, shape) if _has_outputs_as_rows(op) else None
    return None if weight is None else f"F.linear({{0}}, {weight}{'' if op.operands[1] is None else ', {1}'})"


def _has_outputs_as_rows(op: Op) -> bool:
    return parse_format(op.attribute_dict["format"]).channel_axis(2) == 1 and op.results[0].dtype is f32


def integer_linear(op: Op) -> Spelled | None:
    """The product by `torch._int_mm`, which takes int8 on both sides."""
    _, x_scale, _, _, zero_point, bias = op.operands
    if x_scale is None or not is_product_of_bytes(op):
        return None
    arguments = ["{0}", "{2}", "{3}", "row_scales={1}"] if x_scale.ndim else ["{0}", "{2}", "{1} * {3}"]
    if zero_point is not None:
        number = constant_of(zero_point)
        arguments.append("zero_point={4}" if number is None else f"zero_point={int(number)}")
    if bias is not None:
        arguments.append("bias={5}")
    return f"integer_linear({', '.join(arguments)})"


def quantize(op: Op) -> Spelled | None:
    """In operators, where scales lie along the last axis: what is clipped fits, so that its conversion needs no care
    but for NaN."""
    x, scale, zero_point = op.operands
    assert x is not None and scale is not None
    attributes = op.attribute_dict
    if scale.ndim and attributes["axis"] % x.ndim != x.ndim - 1:
        return None
    low, high = limits(attributes["dtype"], attributes["low"], attributes["high"])
    whole = "torch.round({0} / {1})"
    if zero_point is not None and constant_of(zero_point) != 0:
        whole = f"({whole} + {{2}})"
    return f"{whole}.clamp({low}, {high}).nan_to_num(0).to({dtype_text(attributes['dtype'])})"


SPELLING: dict[str, Spelling] = {
    "dequantize": dequantize(lambda text, axes: f"{text}.permute({', '.join(map(str, axes))})"),
    "quantized_linear": quantized_linear,
    "integer_linear": integer_linear,
    "quantize": quantize,
}

HELPERS = {
    "QuantizedLinear": '''
class QuantizedLinear(nn.Module):
    """A linear layer whose weight is kept as integers; `rows` makes floats [outputs, inputs] of them."""

    def __init__(self, rows, inputs, bias=None, **arrays):
        super().__init__()
        self.rows, self.inputs, self.bias = rows, inputs, bias
        for name, array in arrays.items():
            self.register_buffer(name, array)

    def forward(self, x):
        weight = self.rows(**dict(self.named_buffers()))[:, : self.inputs]
        return F.linear(x, weight.to(x.dtype), self.bias)
''',
    "QuantizedConv2d": '''
class QuantizedConv2d(nn.Module):
    """A convolution whose kernel is kept as integers of 8 bits, with a scale for each of the outputs."""

    def __init__(self, inputs, outputs, window, bias=True, groups=1, **options):
        super().__init__()
        window = window if isinstance(window, tuple) else (window, window)
        self.register_buffer("values", torch.empty(outputs, inputs // groups, *window, dtype=torch.int8))
        self.register_buffer("scales", torch.empty(outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.options = {"groups": groups, **options}

    def forward(self, x):
        return F.conv2d(x, self.values.float() * self.scales.reshape(-1, 1, 1, 1), self.bias, **self.options)
''',
    "integer_linear": '''
def integer_linear(x, weight, scales, row_scales=None, zero_point=None, bias=None):
    """`F.linear` of integers of 8 bits [..., inputs] by such a weight [inputs, outputs]: a product of integers, times
    the scale of the output, and of the row. Bytes less a zero point go in as int8."""
    rows = x.flatten(0, -2)
    if zero_point is not None:  # (x - z) W = x W - z W, so z is one more row; 128 less of both does not matter
        rows = (torch.cat([rows, rows.new_full((1, x.shape[-1]), zero_point)]) ^ 128).view(torch.int8)
    whole = torch._int_mm(rows, weight)
    if zero_point is not None:
        whole = whole[:-1] - whole[-1]
    y = whole.unflatten(0, x.shape[:-1]).float() * scales
    if row_scales is not None:
        y *= row_scales[..., None]
    return y if bias is None else y + bias
''',
    "int8_rows": '''
def int8_rows(values, scales, zero_points=None):
    """A matrix from integers of 8 bits: less the zero point of their row, times its scale."""
    whole = values.float() if zero_points is None else values.float() - zero_points[:, None]
    return whole * scales[:, None]
''',
    "nibbles": '''
def nibbles(values):
    """The halves of bytes [..., n], the low one first: int8[..., 2 * n]."""
    pairs = values.contiguous().to(torch.int16)  # two bytes at once: faster than halves side by side
    pairs |= pairs << 4
    return pairs.bitwise_and_(0x0F0F).view(torch.int8)
''',
    "int4_rows": '''
def int4_rows(values, scales, zero_points=None, block=32):
    """A matrix from integers of 4 bits, two a byte, in blocks of a row: less their zero point, times their scale."""
    whole = nibbles(values).float()
    count = whole.shape[1] // block
    parts = whole[:, : count * block].unflatten(1, (count, block)), whole[:, None, count * block :]
    for part, places in zip(parts, (slice(count), slice(count, None)), strict=True):
        if scales[:, places].shape[1]:  # the last block may be shorter than the others
            part -= 8 if zero_points is None else nibbles(zero_points)[:, : scales.shape[1], None][:, places]
            part *= scales[:, places, None].float()
    return whole
''',
    "q4_0_rows": '''
def q4_0_rows(values, scales):
    """A matrix from GGUF's Q4_0: half a block in the low four bits of its bytes, half in the high ones."""
    whole = torch.cat([values & 15, values >> 4], -1).float() - 8
    whole *= scales[..., None]
    return whole.reshape(len(scales), -1)
''',
    "q8_0_rows": '''
def q8_0_rows(values, scales):
    """A matrix from GGUF's Q8_0: integers of 8 bits in blocks that have a scale."""
    whole = values.float() * scales[..., None]
    return whole.reshape(len(scales), -1)
''',
    "nf4_table": '''
def nf4_table():
    """What bitsandbytes' 4-bit normal floats stand for: quantiles of the normal distribution, 0 and both ends."""
    table = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
    table += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
    table += [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
    return torch.tensor([*table, 0.7229568362236023, 1.0])
''',
    "NF4_TABLE": "NF4_TABLE = nf4_table()",
    "dynamic_map": '''
def dynamic_map():
    """bitsandbytes' 8-bit map: seven decades below 1, each with twice as many values as the one below."""
    j = torch.arange(1, 128)
    decade = j.double().log2().floor()
    steps = 2.0**decade
    i = torch.stack([j - steps, j - steps + 1])
    first, step = j.new_tensor(0.1, dtype=torch.float32), 0.9 / steps.float()
    bounds = torch.where(i <= (steps - 1) / 2, first + step.double() * i, 1 - step.double() * (steps - i)).float()
    means = (10.0 ** (decade - 6)).float() * (bounds.sum(0) / 2)
    return torch.cat([-means.flip(0), means.new_zeros(1), means, means.new_ones(1)])
''',
    "DYNAMIC_MAP": "DYNAMIC_MAP = dynamic_map()",
    "nf4_rows": '''
def nf4_rows(values, scales, rows, columns, block):
    """A matrix from 4-bit normal floats, two a byte: places in a table, in blocks that have a scale."""
    places = torch.stack([values >> 4, values & 15], -1).flatten().int()[: rows * columns]
    flat = NF4_TABLE.to(values.device)[places] * scales.repeat_interleave(block)[: rows * columns]
    return flat.reshape(rows, columns)
''',
    "nf4_double_rows": '''
def nf4_double_rows(values, scales, scales_of_scales, mean_scale, rows, columns, block, double):
    """As `nf4_rows`; scales are places in a map, in blocks that have a scale, and less their mean."""
    found = DYNAMIC_MAP.to(scales.device)[scales.int()] * scales_of_scales.repeat_interleave(double)[: len(scales)]
    return nf4_rows(values, found + mean_scale, rows, columns, block)
''',
}


def linear_layer(op: Op) -> Layer | None:
    """`QuantizedLinear`, which holds the arrays of the format under their names."""
    form, (inputs, outputs) = parse_format(op.attribute_dict["format"]), op.attribute_dict["shape"]
    found = rows_function(form, (inputs, outputs))
    if found is None or not _has_outputs_as_rows(op):
        return None
    rows, options = found
    weights: dict[str, tuple[int, tuple[Step, ...]]] = {}
    arguments = [f"partial({rows}, {options})" if options else rows, str(inputs)]
    if op.operands[1] is not None:
        weights["bias"] = (1, ())
        arguments.append(f"bias=nn.Parameter(torch.empty({outputs}))")
    for index, part in enumerate(form.parts((inputs, outputs)), 2):
        steps = (Permute((1, 0)),) if isinstance(form, Int8) and index == 2 else ()
        sizes = tuple(reversed(part.type.shape)) if steps else part.type.shape
        dtype = "" if part.type.dtype is f32 else f", dtype={dtype_text(part.type.dtype)}"
        arguments.append(f"{part.name}=torch.empty({', '.join(map(str, sizes)) or '()'}{dtype})")
        weights[part.name] = (index, steps)
    return Layer(f"QuantizedLinear({', '.join(arguments)})", weights)
