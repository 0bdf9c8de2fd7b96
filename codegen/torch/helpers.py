"""Functions pasted into emitted PyTorch source where it uses them: edges at which torch deviates."""

HELPERS = {
    "divide": '''
def divide(x, y):
    """Quotients of integers, rounded towards zero; torch's own end the process at the least integer by -1."""
    quotient = torch.div(x, y, rounding_mode="floor")
    return quotient + ((torch.remainder(x, y) != 0) & ((x < 0) != (y < 0)))
''',
    "power": '''
def power(x, y):
    """Powers of integers; those with a negative exponent are rounded towards zero."""
    ones = torch.where(x.abs() == 1, torch.where(y % 2 != 0, x, x.abs()), 0)
    return torch.where(y >= 0, x ** y.clamp(min=0), ones)
''',
    "sign": '''
def sign(x):
    """-1, 0 or 1; NaN for NaN."""
    return torch.where(x.isnan(), x, x.sign())
''',
    "to_integer": '''
def to_integer(x, dtype):
    """Floats as integers: towards zero, saturated, NaN as 0."""
    limits = torch.iinfo(dtype)
    wide = x.double().trunc()
    inside = (wide > float(limits.min)) & (wide < float(limits.max))
    found = torch.where(inside, wide, 0).to(dtype)
    found = torch.where(wide >= float(limits.max), limits.max, found)
    return torch.where(wide <= float(limits.min), limits.min, found)
''',
    "shift_left": '''
def shift_left(x, count):
    """`x << count`, 0 where that shifts everything out."""
    bits = torch.iinfo(x.dtype).bits
    inside = (count >= 0) & (count < bits)
    return torch.where(inside, x << torch.where(inside, count, 0), 0)
''',
    "shift_right": '''
def shift_right(x, count):
    """`x >> count`, what the sign fills in where that shifts everything out."""
    bits = torch.iinfo(x.dtype).bits
    return x >> torch.where((count >= 0) & (count < bits), count, bits - 1)
''',
    "logical_shift_right": '''
def logical_shift_right(x, count):
    """`x >> count` of unsigned integers, 0 where that shifts everything out."""
    inside = (count >= 0) & (count < torch.iinfo(x.dtype).bits)
    return torch.where(inside, x >> torch.where(inside, count, 0), 0)
''',
    "with_one": '''
def with_one(x, dim, value):
    """`x` with one more slice of `value` along each axis in `dim`, which may be empty."""
    for axis in dim:
        x = torch.cat((x, x.new_full([1 if i == axis else n for i, n in enumerate(x.shape)], value)), axis)
    return x
''',
    "cumulative_sum": '''
def cumulative_sum(x, dim, reverse=False, exclusive=False):
    """Sums of all elements up to each one, without it if `exclusive`; from the end if `reverse`."""
    x = x.flip(dim) if reverse else x
    if exclusive:
        x = torch.cat((torch.zeros_like(x.narrow(dim, 0, 1)), x.narrow(dim, 0, x.shape[dim] - 1)), dim)
    x = x.cumsum(dim, dtype=x.dtype)
    return x.flip(dim) if reverse else x
''',
    "pad_between": '''
def pad_between(x, padding, interior, value):
    """`value` around the elements of `x`, and `interior` many between neighbours."""
    spans = [max(n + (n - 1) * gap, 0) for n, gap in zip(x.shape, interior, strict=True)]
    shape = [low + span + high for span, (low, high) in zip(spans, padding, strict=True)]
    out = torch.full(shape, value, dtype=x.dtype, device=x.device)
    places = zip(spans, padding, interior, strict=True)
    out[tuple(slice(low, low + span, gap + 1) for span, (low, _), gap in places)] = x
    return out
''',
    "window_at": '''
def window_at(starts, sizes, shape):
    """The part of these sizes that begins at `starts`, moved to lie inside."""
    starts = [min(max(int(s), 0), n - size) for s, size, n in zip(starts, sizes, shape, strict=True)]
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
''',
    "updated_at": '''
def updated_at(x, update, starts):
    """`x` with `update` in the part that begins at `starts`, moved to lie inside."""
    out = x.clone()
    out[window_at(starts, update.shape, x.shape)] = update
    return out
''',
    "take": '''
def take(x, indices, dim):
    """The slices of `x` at `indices`, which are clamped to those there are."""
    indices = indices.long().clamp(0, x.shape[dim] - 1)
    found = x.index_select(dim, indices.flatten())
    return found.reshape(*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :])
''',
    "take_or_zero": '''
def take_or_zero(x, indices, dim):
    """The slices of `x` at `indices`; zeros for those outside."""
    inside = (indices >= 0) & (indices < x.shape[dim])
    x = torch.cat((x, x.new_zeros(*x.shape[:dim], 1, *x.shape[dim + 1 :])), dim)
    indices = torch.where(inside, indices.long(), x.shape[dim] - 1)
    found = x.index_select(dim, indices.flatten())
    return found.reshape(*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :])
''',
    "scatter": '''
def scatter(x, indices, updates, dim, add):
    """`x` with `updates` added to (or put in place of) its slices at `indices`; those outside are dropped."""
    axes = range(indices.ndim)
    updates = updates.movedim([dim + i for i in axes], list(axes))
    inside = (indices >= 0) & (indices < x.shape[dim])
    out = x.movedim(dim, 0).clone()
    out = out.index_put((indices[inside].long(),), updates[inside], accumulate=add)
    return out.movedim(0, dim)
''',
    "pad_windows": '''
def pad_windows(x, window, strides, dilation, value=0.0):
    """`x` padded so that there are ceil(size / stride) windows along each of its last axes."""
    padding = []
    for size, k, stride, d in zip(x.shape[2:], window, strides, dilation, strict=True):
        total = max((-(-size // stride) - 1) * stride + d * (k - 1) + 1 - size, 0)
        padding = [total // 2, total - total // 2, *padding]
    return F.pad(x, padding, value=value)
''',
    "reduce_windows": '''
def reduce_windows(reduce, x, window, strides, padding, dilation, identity):
    """`reduce` of each window of `x`, padded with `identity` by (before, after) for each axis."""
    out = torch.full(
        [n + sum(pair) for n, pair in zip(x.shape, padding, strict=True)], identity, dtype=x.dtype, device=x.device
    )
    out[tuple(slice(low, low + n) for n, (low, _) in zip(x.shape, padding, strict=True))] = x
    for axis, (k, stride, d) in enumerate(zip(window, strides, dilation, strict=True)):
        out = out.unfold(axis, d * (k - 1) + 1, stride)[..., ::d]
    return reduce(out.flatten(x.ndim), -1)
''',
    "same_pairs": '''
def same_pairs(sizes, window, strides, dilation):
    """Padding as (before, after) for each axis that gives ceil(size / stride) windows."""
    totals = [
        max((-(-size // stride) - 1) * stride + d * (k - 1) + 1 - size, 0)
        for size, k, stride, d in zip(sizes, window, strides, dilation, strict=True)
    ]
    return [(total // 2, total - total // 2) for total in totals]
''',
}
