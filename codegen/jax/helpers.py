"""Functions pasted into emitted JAX source where it uses them."""

HELPERS = {
    "value_and_grad": '''
def value_and_grad(function, arguments, wrt):
    """The results of `function`, and the gradients of the first by the arguments of these numbers."""

    def split(*arguments):
        results = function(*arguments)
        return (results[0], results[1:]) if isinstance(results, tuple) else (results, ())

    (first, others), gradients = jax.value_and_grad(split, wrt, has_aux=True)(*arguments)
    return first, *others, *gradients
''',
    "fold_in": '''
def fold_in(key, number):
    """A new key for the number."""
    return jnp.stack(threefry(key, jnp.uint32(0), jnp.asarray(number).astype(jnp.uint32)))
''',
    "split_key": '''
def split_key(key, count):
    """New keys [count, 2]."""
    return jnp.stack(threefry(key, jnp.uint32(0), jnp.arange(count, dtype=jnp.uint32)), -1)
''',
    "bernoulli": '''
def bernoulli(key, shape, threshold):
    """True where a random word, as a signed integer, is below the threshold. A block has words for two elements."""
    *lead, size = shape
    half = -(-size // 2)
    counters = jnp.arange(math.prod(lead) * half, dtype=jnp.uint32).reshape(*lead, half)
    words = threefry(key, jnp.uint32(0), counters)
    return jnp.concatenate([lax.bitcast_convert_type(word, jnp.int32) < threshold for word in words], -1)[..., :size]
''',
    "threefry": '''
def threefry(key, high, low):
    """Two words of random bits for each counter: Threefry-2x32 of 20 rounds."""
    return threefry2x32_p.bind(key[0], key[1], *jnp.broadcast_arrays(high, low))
''',
    "rope": '''
def rope(x, cos, sin):
    """The halves of the last axis of `x` [B, T, H, D], turned by angles of [T, D / 2] or [B, T, D / 2]."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = jnp.expand_dims(cos, -2), jnp.expand_dims(sin, -2)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
''',
    "sparse_cross_entropy": '''
def sparse_cross_entropy(logits, labels, ignore_index=None, label_smoothing=0.0):
    """-log softmax(logits) at the labels: 0 at `ignore_index`, NaN at what is no class."""
    outside = (labels < 0) | (labels >= logits.shape[-1])
    chances = jax.nn.log_softmax(logits, axis=-1)
    loss = -jnp.take_along_axis(chances, jnp.where(outside, 0, labels)[..., None], -1)[..., 0]
    if label_smoothing:
        loss = loss * (1 - label_smoothing) - chances.mean(-1) * label_smoothing
    loss = jnp.where(outside, jnp.nan, loss)
    return loss if ignore_index is None else jnp.where(labels == ignore_index, 0, loss)
''',
    "sparse_cross_entropy_gradient": '''
def sparse_cross_entropy_gradient(dy, logits, labels, ignore_index=None, label_smoothing=0.0):
    """The gradient of the logits of `sparse_cross_entropy` from that of the losses: softmax less target."""
    outside = (labels < 0) | (labels >= logits.shape[-1])
    gradient = jax.nn.softmax(logits, axis=-1)
    if label_smoothing:
        gradient = gradient - label_smoothing * (1 / logits.shape[-1])
    at_label = jnp.arange(logits.shape[-1], dtype=jnp.int32) == labels[..., None].astype(jnp.int32)
    gradient = jnp.where(at_label, gradient - (1 - label_smoothing), gradient)
    gradient = jnp.where(outside[..., None], jnp.nan, gradient * dy[..., None])
    return gradient if ignore_index is None else jnp.where((labels == ignore_index)[..., None], 0, gradient)
''',
    "batch_norm": '''
def batch_norm(x, mean, variance, scale=1, offset=0, epsilon=0.001):
    """`x` normalised by the given statistics along its last axis."""
    return (x - mean) * lax.rsqrt(variance + epsilon) * scale + offset
''',
    "layer_norm": '''
def layer_norm(x, scale=1, offset=0, axes=-1, epsilon=0.001):
    """`x` brought to mean 0 and variance 1 over its last axes."""
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(axis=axes, keepdims=True) + epsilon) * scale + offset
''',
    "rms_norm": '''
def rms_norm(x, scale=1, axes=-1, epsilon=1e-6):
    """`x` divided by its root mean square over its last axes."""
    return x / jnp.sqrt(jnp.square(x).mean(axis=axes, keepdims=True) + epsilon) * scale
''',
    "convolution": '''
def convolution(x, kernel, strides=None, padding="valid", dilation=None, groups=1):
    """Convolution of channels-last `x` with a kernel [*window, in / groups, out]."""
    space = "DHW"[5 - x.ndim :]
    return lax.conv_general_dilated(
        x,
        kernel,
        strides or (1,) * len(space),
        padding.upper() if isinstance(padding, str) else padding,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )
''',
    "convolution_channels_first": '''
def convolution_channels_first(x, kernel, strides=None, padding="valid", dilation=None, groups=1):
    """Convolution of channels-first `x` with a kernel [*window, in / groups, out]."""
    space = "DHW"[5 - x.ndim :]
    return lax.conv_general_dilated(
        x,
        kernel,
        strides or (1,) * len(space),
        padding.upper() if isinstance(padding, str) else padding,
        rhs_dilation=dilation,
        dimension_numbers=(f"NC{space}", f"{space}IO", f"NC{space}"),
        feature_group_count=groups,
    )
''',
    "power": '''
def power(x, y):
    """Powers of integers; those with a negative exponent are rounded towards zero."""
    ones = jnp.where(jnp.abs(x) == 1, jnp.where(y % 2 != 0, x, jnp.abs(x)), 0)
    return jnp.where(y >= 0, jnp.power(x, jnp.maximum(y, 0)), ones).astype(x.dtype)
''',
    "to_integer": '''
def to_integer(x, dtype):
    """Floats as integers: towards zero, saturated, NaN as 0."""
    limits = jnp.iinfo(dtype)
    found = jnp.trunc(x).astype(dtype)
    found = jnp.where(x >= float(limits.max), jnp.array(limits.max, dtype), found)
    found = jnp.where(x <= float(limits.min), jnp.array(limits.min, dtype), found)
    return jnp.where(jnp.isnan(x), 0, found).astype(dtype)
''',
    "cumulative_sum": '''
def cumulative_sum(x, axis, reverse=False, exclusive=False):
    """Sums of all elements up to each one, without it if `exclusive`; from the end if `reverse`."""
    x = jnp.moveaxis(x, axis, 0)[:: -1 if reverse else 1]
    if exclusive:
        x = jnp.concatenate((jnp.zeros_like(x[:1]), x[:-1]))
    return jnp.moveaxis(jnp.cumsum(x, 0, dtype=x.dtype)[:: -1 if reverse else 1], 0, axis)
''',
    "take_or_zero": '''
def take_or_zero(x, indices, axis):
    """The slices of `x` at `indices`; zeros for those outside."""
    if not x.shape[axis]:
        return jnp.zeros(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype)
    indices = jnp.where(indices < 0, x.shape[axis], indices)
    return jnp.take(x, indices, axis=axis, mode="fill", fill_value=0)
''',
    "convolution_of_small": '''
def convolution_of_small(x, kernel, strides=None, padding="valid", dilation=None, groups=1):
    """Convolution of channels-last `x` as one product: XLA's own is slow where there are few windows."""
    *window, depth, filters = kernel.shape
    steps = strides or (1,) * len(window), dilation or (1,) * len(window)
    pairs = padding_pairs(x.shape[1:-1], window, steps[0], padding, steps[1])
    counts = [
        (n + sum(pair) - d * (k - 1) - 1) // s + 1
        for n, k, s, pair, d in zip(x.shape[1:-1], window, steps[0], pairs, steps[1], strict=True)
    ]
    x = jnp.pad(x, [(0, 0), *pairs, (0, 0)])
    seen = [x[:, *slices] for slices in window_places(window, counts, *steps)]
    return jnp.concatenate(seen, -1) @ kernel.reshape(-1, filters)
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
    "window_places": '''
def window_places(window, counts, strides, dilation):
    """What each place of the window sees of a padded array, in row-major order."""
    for place in itertools.product(*map(range, window)):
        steps = zip(place, counts, strides, dilation, strict=True)
        yield tuple(slice(p * d, p * d + (n - 1) * s + 1 if n else p * d, s) for p, n, s, d in steps)
''',
    "input_gradient": '''
def input_gradient(convolve, dy, kernel, shape, **options):
    """The cotangent of `x`, of this shape, in `convolve(x, kernel)`."""
    x = jax.ShapeDtypeStruct(shape, dy.dtype)
    return jax.linear_transpose(lambda x: convolve(x, kernel, **options), x)(dy)[0]
''',
    "kernel_gradient": '''
def kernel_gradient(convolve, dy, x, shape, **options):
    """The cotangent of the kernel, of this shape, in `convolve(x, kernel)`."""
    kernel = jax.ShapeDtypeStruct(shape, dy.dtype)
    return jax.linear_transpose(lambda kernel: convolve(x, kernel, **options), kernel)(dy)[0]
''',
    "selections": '''
def selections(x, best, least, counts, window, strides, pairs, dilation):
    """For each place of the window: its slices of the padded array, and in which windows it is the first that is
    best. Padding never is."""
    places = list(window_places(window, counts, strides, dilation))
    padded = jnp.pad(x, pairs, constant_values=least)
    inside = jnp.pad(jnp.ones(x.shape, bool), pairs)
    top = functools.reduce(best, [padded[place] for place in places])
    first = jnp.full(counts, -1)
    for number, place in reversed(list(enumerate(places))):
        found = padded[place]
        first = jnp.where(((found == top) | (found != found)) & inside[place], number, first)
    for number, place in enumerate(places):
        yield place, first == number
''',
    "select_and_scatter": '''
def select_and_scatter(x, dy, best, least, window, strides, padding, dilation):
    """Each element of `dy` added to the place of its window where `x` is best, the first of equals."""
    pairs = padding_pairs(x.shape, window, strides, padding, dilation)
    sizes = [n + low + high for n, (low, high) in zip(x.shape, pairs, strict=True)]
    dx, zero = jnp.zeros(sizes, dy.dtype), jnp.zeros((), dy.dtype)
    for place, chosen in selections(x, best, least, dy.shape, window, strides, pairs, dilation):
        around = [
            (at.start, n - at.stop, at.step - 1) for n, at in zip(sizes, place, strict=True)
        ]
        dx = dx + lax.pad(jnp.where(chosen, dy, zero), zero, around)
    return dx[tuple(slice(low, low + n) for n, (low, _) in zip(x.shape, pairs, strict=True))]
''',
    "select_and_gather": '''
def select_and_gather(x, values, best, least, window, strides, padding, dilation):
    """For each window of `x` the element of `values` where `x` is best, the first of equals."""
    pairs = padding_pairs(x.shape, window, strides, padding, dilation)
    counts = [
        (n + sum(pair) - d * (k - 1) - 1) // s + 1
        for n, k, s, pair, d in zip(x.shape, window, strides, pairs, dilation, strict=True)
    ]
    values, y = jnp.pad(values, pairs), jnp.zeros(counts, values.dtype)
    for place, chosen in selections(x, best, least, y.shape, window, strides, pairs, dilation):
        y = jnp.where(chosen, values[place], y)
    return y
''',
    "integer_linear": '''
def integer_linear(x, weight, scales, zero_point=0, bias=None):
    """A product of integers of 8 bits [..., inputs] less their zero point by such a weight [inputs, outputs], times
    `scales`; x W - z W, with z as one more row, without which XLA is slow on a single one. Bytes go in as int8."""
    rows = lax.collapse(x, 0, x.ndim - 1)
    rows = jnp.concatenate([rows, jnp.full((1, x.shape[-1]), zero_point, x.dtype)])
    if x.dtype == jnp.uint8:
        rows = (rows ^ 128).astype(jnp.int8)  # 128 less of both does not matter
    whole = jnp.matmul(rows, weight, preferred_element_type=jnp.int32)
    whole = whole[:-1] - whole[-1]
    y = whole.reshape(*x.shape[:-1], weight.shape[1]).astype(jnp.float32) * scales
    return y if bias is None else y + bias
''',
}
