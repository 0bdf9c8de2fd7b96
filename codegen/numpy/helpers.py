"""Functions pasted into emitted NumPy source where it uses them. They are not the reference's code, and fast."""

HELPERS = {
    "fold_in": '''
def fold_in(key, number):
    """A new key for the number."""
    return np.stack(threefry(key, np.uint32(0), np.asarray(number).astype(np.uint32)))
''',
    "split_key": '''
def split_key(key, count):
    """New keys [count, 2]."""
    return np.stack(threefry(key, np.uint32(0), np.arange(count, dtype=np.uint32)), -1)
''',
    "bernoulli": '''
def bernoulli(key, shape, threshold):
    """True where a random word, as a signed integer, is below the threshold. A block has words for two elements."""
    *lead, size = shape
    half = -(-size // 2)
    counters = np.arange(math.prod(lead) * half, dtype=np.uint32).reshape(*lead, half)
    words = threefry(key, np.uint32(0), counters)
    return np.concatenate([word.view(np.int32) < threshold for word in words], -1)[..., :size]
''',
    "threefry": '''
def threefry(key, high, low):
    """Two words of random bits for each counter: Threefry-2x32 of 20 rounds, in parts that stay in the cache."""
    high, low = np.broadcast_arrays(high, low)
    keys = key[:1], key[1:], key[:1] ^ key[1:] ^ np.uint32(0x1BD11BDA)
    first, second = high.ravel() + keys[0], low.ravel() + keys[1]
    for start in range(0, first.size, 32768):
        x, y = first[start : start + 32768], second[start : start + 32768]
        turned = np.empty_like(y)
        for i in range(20):
            count = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
            x += y
            np.right_shift(y, 32 - count, out=turned)
            y <<= count
            y |= turned
            y ^= x
            if i % 4 == 3:
                n = i // 4 + 1
                x += keys[n % 3]
                y += keys[(n + 1) % 3] + np.uint32(n)
    return first.reshape(low.shape), second.reshape(low.shape)
''',
    "sort": '''
def sort(axis, *xs):
    """The arrays in the order that makes the first ascend; equal elements keep theirs, NaN comes last."""
    order = np.argsort(xs[0], axis, kind="stable")
    return tuple(np.take_along_axis(x, order, axis) for x in xs)
''',
    "rope": '''
def rope(x, cos, sin):
    """The halves of the last axis of `x` [B, T, H, D], turned by angles of [T, D / 2] or [B, T, D / 2]."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.expand_dims(cos, -2), np.expand_dims(sin, -2)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
''',
    "sparse_cross_entropy": '''
def sparse_cross_entropy(logits, labels, ignore_index=None, label_smoothing=0.0):
    """-log softmax(logits) at the labels: 0 at `ignore_index`, NaN at what is no class."""
    outside = (labels < 0) | (labels >= logits.shape[-1])
    chances = special.log_softmax(logits, axis=-1)
    places = np.where(outside, 0, labels).astype(np.int64)[..., None]
    loss = -np.take_along_axis(chances, places, -1)[..., 0]
    if label_smoothing:
        loss = loss * (1 - label_smoothing) - chances.mean(-1) * label_smoothing
    loss = np.where(outside, np.nan, loss).astype(logits.dtype)
    return loss if ignore_index is None else np.where(labels == ignore_index, 0, loss)
''',
    "sparse_cross_entropy_gradient": '''
def sparse_cross_entropy_gradient(dy, logits, labels, ignore_index=None, label_smoothing=0.0):
    """The gradient of the logits of `sparse_cross_entropy` from that of the losses: softmax less target."""
    outside = (labels < 0) | (labels >= logits.shape[-1])
    classes = np.where(outside, 0, labels).astype(np.int64)[..., None]
    gradient = special.softmax(logits, axis=-1)
    if label_smoothing:
        gradient -= label_smoothing * (1 / logits.shape[-1])
    np.put_along_axis(gradient, classes, np.take_along_axis(gradient, classes, -1) - (1 - label_smoothing), -1)
    gradient *= np.where(outside, np.nan, dy).astype(logits.dtype)[..., None]
    return gradient if ignore_index is None else np.where((labels == ignore_index)[..., None], 0, gradient)
''',
    "batch_norm": '''
def batch_norm(x, mean, variance, scale=1, offset=0, epsilon=0.001):
    """`x` normalised by the given statistics along its last axis."""
    return (x - mean) / np.sqrt(variance + epsilon) * scale + offset
''',
    "layer_norm": '''
def layer_norm(x, scale=1, offset=0, axes=-1, epsilon=0.001):
    """`x` brought to mean 0 and variance 1 over its last axes."""
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon) * scale + offset
''',
    "rms_norm": '''
def rms_norm(x, scale=1, axes=-1, epsilon=1e-6):
    """`x` divided by its root mean square over its last axes."""
    return x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + epsilon) * scale
''',
    "divide": '''
def divide(x, y):
    """Quotients of integers, rounded towards zero."""
    quotient, rest = np.divmod(x, y)
    return quotient + ((rest != 0) & ((x < 0) != (y < 0)))
''',
    "power": '''
def power(x, y):
    """Powers of integers; those with a negative exponent are rounded towards zero."""
    ones = np.where(np.abs(x) == 1, np.where(y % 2 != 0, x, np.abs(x)), 0)
    return np.where(y >= 0, np.power(x, np.maximum(y, 0)), ones).astype(np.asarray(x).dtype)
''',
    "make_complex": '''
def make_complex(re, im):
    """Complex numbers of these parts, whatever is infinite."""
    out = np.empty(np.broadcast(re, im).shape, np.result_type(re, np.complex64))
    out.real, out.imag = re, im
    return out
''',
    "to_integer": '''
def to_integer(x, dtype):
    """Floats as integers: towards zero, saturated, NaN as 0."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    wide = np.trunc(x).astype(np.float64)
    inside = (wide >= float(low)) & (wide < float(high))
    outside = np.where(np.isnan(wide), 0, np.where(wide < 0, low, high)).astype(dtype)
    return np.where(inside, np.where(inside, wide, 0).astype(dtype), outside)
''',
    "cumulative_sum": '''
def cumulative_sum(x, axis, reverse=False, exclusive=False):
    """Sums of all elements up to each one, without it if `exclusive`; from the end if `reverse`."""
    x = np.moveaxis(x, axis, 0)[:: -1 if reverse else 1]
    if exclusive:
        x = np.concatenate((np.zeros_like(x[:1]), x[:-1]))
    return np.moveaxis(np.cumsum(x, 0, dtype=x.dtype)[:: -1 if reverse else 1], 0, axis)
''',
    "pad_between": '''
def pad_between(x, padding, interior, value):
    """`value` around the elements of `x`, and `interior` many between neighbours."""
    spans = [max(n + (n - 1) * gap, 0) for n, gap in zip(x.shape, interior, strict=True)]
    out = np.full([low + span + high for span, (low, high) in zip(spans, padding, strict=True)], value, x.dtype)
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
    out = x.copy()
    out[window_at(starts, update.shape, x.shape)] = update
    return out
''',
    "take_or_zero": '''
def take_or_zero(x, indices, axis):
    """The slices of `x` at `indices`; zeros for those outside."""
    inside = (indices >= 0) & (indices < x.shape[axis])
    if not x.shape[axis]:
        return np.zeros(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype)
    found = np.take(x, np.where(inside, indices, 0).astype(np.int64), axis)
    return np.where(inside.reshape(inside.shape + (1,) * (x.ndim - axis - 1)), found, np.zeros((), x.dtype))
''',
    "scatter_add": '''
def scatter_add(x, indices, updates, axis):
    """`x` with `updates` added to its slices at `indices`; those outside are dropped."""
    out, indices = np.moveaxis(x, axis, 0).copy(), np.asarray(indices)
    updates = np.moveaxis(updates, range(axis, axis + indices.ndim), range(indices.ndim))
    inside = (indices >= 0) & (indices < x.shape[axis])
    np.add.at(out, indices[inside].astype(np.int64), updates[inside])
    return np.moveaxis(out, 0, axis)
''',
    "scatter_set": '''
def scatter_set(x, indices, updates, axis):
    """`x` with `updates` in place of its slices at `indices`; those outside are dropped."""
    out, indices = np.moveaxis(x, axis, 0).copy(), np.asarray(indices)
    updates = np.moveaxis(updates, range(axis, axis + indices.ndim), range(indices.ndim))
    inside = (indices >= 0) & (indices < x.shape[axis])
    out[indices[inside].astype(np.int64)] = updates[inside]
    return np.moveaxis(out, 0, axis)
''',
    "padding_pairs": '''
def padding_pairs(sizes, window, strides, padding, dilation):
    """Padding as (before, after) for each axis: "same" gives ceil(size / stride) windows."""
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    if padding != "same":
        return list(padding)
    totals = [
        max((-(-size // stride) - 1) * stride + d * (k - 1) + 1 - size, 0)
        for size, k, stride, d in zip(sizes, window, strides, dilation, strict=True)
    ]
    return [(total // 2, total - total // 2) for total in totals]
''',
    "windows": '''
def windows(x, axes, window, strides, dilation):
    """A view of the windows of `x` along `axes`, whose elements lie along new last axes."""
    reach = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    index = [slice(None)] * view.ndim
    for i, axis in enumerate(axes):
        index[axis] = slice(None, None, strides[i])
        index[x.ndim + i] = slice(None, None, dilation[i])
    return view[tuple(index)]
''',
    "convolution": '''
def convolution(x, kernel, strides=None, padding="valid", dilation=None, groups=1):
    """Convolution of channels-last `x` with a kernel [*window, in / groups, out]."""
    rank = x.ndim - 2
    strides, dilation = strides or (1,) * rank, dilation or (1,) * rank
    axes = tuple(range(1, rank + 1))
    pairs = padding_pairs(x.shape[1:-1], kernel.shape[:rank], strides, padding, dilation)
    if any(map(any, pairs)):
        x = np.pad(x, [(0, 0), *pairs, (0, 0)])
    view = windows(x, axes, kernel.shape[:rank], strides, dilation)
    window_axes = tuple(range(rank + 2, 2 * rank + 2))
    if groups == 1:
        return np.tensordot(view, kernel, ((*window_axes, rank + 1), tuple(range(rank + 1))))
    parts = zip(np.split(view, groups, rank + 1), np.split(kernel, groups, -1), strict=True)
    contracted = ((*window_axes, rank + 1), tuple(range(rank + 1)))
    return np.concatenate([np.tensordot(part, filters, contracted) for part, filters in parts], -1)
''',
    "reduce_windows": '''
def reduce_windows(reduce, x, window, strides, padding, dilation, identity):
    """`reduce` (np.max, np.min, np.sum) of each window of `x`, padded with `identity`."""
    pairs = padding_pairs(x.shape, window, strides, padding, dilation)
    if any(map(any, pairs)):
        x = np.pad(x, pairs, constant_values=identity)
    view = windows(x, tuple(range(x.ndim)), window, strides, dilation)
    return reduce(view, axis=tuple(range(x.ndim, 2 * x.ndim)), initial=identity).astype(x.dtype)
''',
    "input_gradient": '''
def input_gradient(dy, kernel, shape, strides=None, padding="valid", dilation=None, groups=1):
    """The gradient of `convolution` by `x`, of this shape: a product, whose parts fall where the window saw `x`."""
    *window, depth, filters = kernel.shape
    steps = strides or (1,) * len(window), dilation or (1,) * len(window)
    pairs = padding_pairs(shape[1:-1], window, steps[0], padding, steps[1])
    dx = np.zeros(shape, dy.dtype)
    counts, rows = dy.shape[:-1], dy.reshape(-1, groups, filters // groups)
    kernel = kernel.reshape(*window, depth, groups, filters // groups)
    for place, seen, windows in window_places(shape[1:-1], counts[1:], window, steps[0], pairs, steps[1]):
        for g in range(groups):
            part = (rows[:, g] @ kernel[*place, :, g].T).reshape(*counts, depth)
            dx[:, *seen, g * depth : (g + 1) * depth] += part[:, *windows]
    return dx
''',
    "kernel_gradient": '''
def kernel_gradient(dy, x, shape, strides=None, padding="valid", dilation=None, groups=1):
    """The gradient of `convolution` by its kernel, of this shape: for each place of the window a product."""
    *window, depth, filters = shape
    steps = strides or (1,) * len(window), dilation or (1,) * len(window)
    pairs = padding_pairs(x.shape[1:-1], window, steps[0], padding, steps[1])
    kernel = np.zeros((*window, depth, groups, filters // groups), dy.dtype)
    dy = dy.reshape(*dy.shape[:-1], groups, filters // groups)
    for place, seen, windows in window_places(x.shape[1:-1], dy.shape[1:-2], window, steps[0], pairs, steps[1]):
        for g in range(groups):
            part = x[:, *seen, g * depth : (g + 1) * depth].reshape(-1, depth)
            kernel[*place, :, g] = part.T @ dy[:, *windows, g].reshape(-1, filters // groups)
    return kernel.reshape(shape)
''',
    "window_places": '''
def window_places(sizes, counts, window, strides, padding, dilation):
    """For each place of the window: the slices of what it sees beside the padding, and of the windows it does so in."""
    for place in itertools.product(*map(range, window)):
        seen, windows = [], []
        for p, size, count, stride, (low, _), d in zip(place, sizes, counts, strides, padding, dilation, strict=True):
            start = p * d - low
            first, end = max(-(start // stride), 0), min((size - 1 - start) // stride + 1, count)
            windows.append(slice(first, max(end, first)))
            begin = min(first * stride + start, size)
            seen.append(slice(begin, max((end - 1) * stride + start + 1, begin) if end > first else begin, stride))
        yield place, tuple(seen), tuple(windows)
''',
    "selections": '''
def selections(x, best, least, counts, window, strides, padding, dilation):
    """For each place of the window: what it sees of `x`, in which windows, and where it is the first that is best."""
    places = list(window_places(x.shape, counts, window, strides, padding, dilation))
    top, taken = np.full(counts, least, x.dtype), np.zeros(counts, bool)
    for _, seen, windows in places:
        best(top[windows], x[seen], out=top[windows])
    for _, seen, windows in places:
        found = x[seen]
        chosen = ((found == top[windows]) | (found != found)) & ~taken[windows]
        taken[windows] |= chosen
        yield seen, windows, chosen
''',
    "select_and_scatter": '''
def select_and_scatter(x, dy, best, least, window, strides, padding, dilation):
    """Each element of `dy` added to the place of its window where `x` is best, the first of equals."""
    dx = np.zeros(x.shape, dy.dtype)
    padding = padding_pairs(x.shape, window, strides, padding, dilation)
    for seen, windows, chosen in selections(x, best, least, dy.shape, window, strides, padding, dilation):
        np.add(dx[seen], dy[windows], out=dx[seen], where=chosen)
    return dx
''',
    "select_and_gather": '''
def select_and_gather(x, values, best, least, window, strides, padding, dilation):
    """For each window of `x` the element of `values` where `x` is best, the first of equals."""
    padding = padding_pairs(x.shape, window, strides, padding, dilation)
    counts = [
        (n + sum(pair) - d * (k - 1) - 1) // s + 1
        for n, k, s, pair, d in zip(x.shape, window, strides, padding, dilation, strict=True)
    ]
    y = np.zeros(counts, values.dtype)
    for seen, windows, chosen in selections(x, best, least, y.shape, window, strides, padding, dilation):
        np.copyto(y[windows], values[seen], where=chosen)
    return y
''',
}
