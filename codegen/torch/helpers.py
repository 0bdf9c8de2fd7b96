"""Functions pasted into emitted PyTorch source where it uses them: edges at which torch deviates."""

HELPERS = {
    "LoRALinear": '''
class LoRALinear(nn.Linear):
    """A frozen linear layer with a low-rank adapter: x @ W.T + bias + x @ A.T * scaling @ B.T."""

    def __init__(self, in_features, out_features, rank, scaling, bias=True, dtype=None):
        super().__init__(in_features, out_features, bias, dtype=dtype)
        self.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.empty(rank, in_features, dtype=dtype))
        self.lora_b = nn.Parameter(torch.empty(out_features, rank, dtype=dtype))
        self.scaling = scaling

    def forward(self, x):
        y = matrix_product(x, self.weight.T)
        if self.bias is not None:
            y += self.bias
        rows, small = y.view(-1, y.shape[-1]), matrix_product(x, self.lora_a.T).view(-1, self.lora_a.shape[0])
        rows.addmm_(small, self.lora_b.T, alpha=self.scaling)
        return y
''',
    "matrix_product": '''
def matrix_product(x, weight):
    """x @ weight, without a gradient by oneDNN if the processor has AVX-512, which MKL leaves unused on AMD's."""
    whole = weight.is_contiguous() or weight.T.is_contiguous()  # of a part of a matrix oneDNN's product is slow
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
    fast = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    if not (plain and fast and whole and len(weight)):
        return x @ weight
    return torch.ops.mkldnn._linear_pointwise(x, weight.T, None, "none", [], "")
''',
    "lora_mlp": '''
def lora_mlp(x, gate_up, down, *factors, scaling, activation=F.silu):
    """down(activation(gate(x)) * up(x)) with adapters in all three layers, and what gate and up gave, side by side."""
    wide = lora_linears(x, gate_up, *factors[:4], scaling=scaling[:2])
    gate, up = wide.chunk(2, dim=-1)
    return lora_linears(activation(gate).mul_(up), down, *factors[4:], scaling=scaling[2:]), wide
''',
    "lora_linears": '''
def lora_linears(x, weight, *factors, scaling):
    """x @ weight; to the columns of each layer its adapter, a and b among the factors, adds x @ a * scaling @ b."""
    y, a = matrix_product(x, weight), torch.cat(factors[::2], dim=1)
    rows, small = y.view(-1, y.shape[-1]), matrix_product(x, a).view(-1, a.shape[1])
    column = row = 0
    for b, factor in zip(factors[1::2], scaling, strict=True):
        rank, outputs = b.shape
        rows[:, column : column + outputs].addmm_(small[:, row : row + rank], b, alpha=factor)
        column, row = column + outputs, row + rank
    return y
''',
    "lora_small_gradient": '''
def lora_small_gradient(dy, *b, scaling):
    """The gradients of x @ a for all adapters: dy @ b.T * scaling, each for its columns of dy."""
    parts = dy.split([each.shape[1] for each in b], dim=-1)
    products = [matrix_product(part, each.T * factor) for part, each, factor in zip(parts, b, scaling, strict=True)]
    return torch.cat(products, dim=-1)
''',
    "lora_input_gradient": '''
def lora_input_gradient(dy, small, weight, *a):
    """dy @ weight.T, plus what came through the adapters: small @ a.T."""
    dx, a = matrix_product(dy, weight.T), torch.cat(a, dim=1)
    dx.view(-1, dx.shape[-1]).addmm_(small.reshape(-1, a.shape[1]), a.T)
    return dx
''',
    "lora_factor_gradients": '''
def lora_factor_gradients(dy, small, x, *factors, scaling):
    """The gradients of each a and b in turn: x.T @ small, and (x @ a * scaling).T @ dy."""
    x, dy, small = (each.reshape(-1, each.shape[-1]) for each in (x, dy, small))
    ranks = [a.shape[1] for a in factors[::2]]
    again = matrix_product(x, torch.cat(factors[::2], dim=1))
    parts = zip(
        matrix_product(small.T, x).T.split(ranks, dim=1),
        again.split(ranks, dim=1),
        dy.split([b.shape[1] for b in factors[1::2]], dim=1),
        scaling,
        strict=True,
    )
    return [d for da, s, d_part, factor in parts for d in (da, (s * factor).T @ d_part)]
''',
    "glu_gradient": '''
def glu_gradient(dy, x):
    """The gradient of silu(gate) * up by gate and up side by side."""
    gate, up = x.chunk(2, dim=-1)
    dx = torch.empty_like(x)
    d_gate, d_up = dx.chunk(2, dim=-1)
    torch.ops.aten.silu.out(gate, out=d_up).mul_(dy)
    torch.mul(dy, up, out=d_gate)
    torch.ops.aten.silu_backward(d_gate, gate, grad_input=d_gate)
    return dx
''',
    "lora_linear": '''
def lora_linear(x, weight, a, b, bias=None, dropped=None, scaling=1.0):
    """x @ weight + bias, and what an adapter adds: dropped (x where there is none) @ a * scaling @ b."""
    y, small = matrix_product(x, weight), matrix_product(x if dropped is None else dropped, a)
    if bias is not None:
        y += bias
    y.view(-1, y.shape[-1]).addmm_(small.view(-1, a.shape[1]), b, alpha=scaling)
    return y
''',
    "attention_gradient": '''
def attention_gradient(dy, *operands, **options):
    """The gradients of query, key and value, by PyTorch's own attention, which is run again."""
    with torch.enable_grad():
        operands = [x.detach().requires_grad_() for x in operands]
        query, key, value = (x.transpose(1, 2) for x in operands)
        y = F.scaled_dot_product_attention(query, key, value, **options).transpose(1, 2)
    return torch.autograd.grad(y, operands, dy)
''',
    "attention_with_logsumexp": '''
def attention_with_logsumexp(*operands, is_causal=False, scale=None):
    """Attention, and what PyTorch's own gradient of it needs besides; on a GPU it has several forms of that."""
    query, key, value = (x.transpose(1, 2) for x in operands)
    if query.device.type != "cpu":
        y = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scale)
        return y.transpose(1, 2), None
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if not is_causal or query.shape[2] != key.shape[2]:
        y, logsumexp = forward(query, key, value, is_causal=is_causal, scale=scale)
        return y.transpose(1, 2), logsumexp
    found = []  # blocks of queries, each with the keys up to its end: PyTorch goes through those that are not seen too
    for start, end in causal_blocks(query.shape[2]):
        unseen = query.new_full((end - start, end), -torch.inf).triu(start + 1)
        found.append(forward(query[:, :, start:end], key[:, :, :end], value[:, :, :end], attn_mask=unseen, scale=scale))
    return torch.cat([y.transpose(1, 2) for y, _ in found], dim=1), torch.cat([sums for _, sums in found], dim=2)
''',
    "causal_blocks": '''
def causal_blocks(places, size=64):
    """Where blocks of places start and end."""
    return [(start, min(start + size, places)) for start in range(0, places, size)]
''',
    "attention_gradient_with_logsumexp": '''
def attention_gradient_with_logsumexp(dy, y, logsumexp, *operands, is_causal=False, scale=None):
    """The gradients of query, key and value; without what the forward pass saved, attention is run again."""
    if logsumexp is None:
        with torch.enable_grad():
            operands = [x.detach().requires_grad_() for x in operands]
            query, key, value = (x.transpose(1, 2) for x in operands)
            y = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scale)
        return torch.autograd.grad(y.transpose(1, 2), operands, dy)
    dy, y, query, key, value = (x.transpose(1, 2) for x in (dy, y, *operands))
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    if not is_causal or query.shape[2] != key.shape[2]:
        found = backward(dy, query, key, value, y, logsumexp, 0.0, is_causal, scale=scale)
        return tuple(x.transpose(1, 2) for x in found)
    d_query, d_key, d_value = torch.empty_like(operands[0]), None, None
    for start, end in reversed(causal_blocks(query.shape[2])):
        rows = [x[:, :, start:end] for x in (y, logsumexp)]
        unseen = query.new_full((end - start, end), -torch.inf).triu(start + 1)
        given = (dy[:, :, start:end], query[:, :, start:end], key[:, :, :end], value[:, :, :end])
        found = backward(*given, *rows, 0.0, False, attn_mask=unseen, scale=scale)
        d_query[:, start:end] = found[0].transpose(1, 2)
        if d_key is None:  # the last block of queries sees all keys
            d_key, d_value = (x.transpose(1, 2) for x in found[1:])
        else:
            d_key[:, :end] += found[1].transpose(1, 2)
            d_value[:, :end] += found[2].transpose(1, 2)
        del found
    return d_query, d_key, d_value
''',
    "value_and_grad": '''
def value_and_grad(function, arguments, wrt):
    """The results of `function`, and the gradients of the first by the arguments of these numbers."""
    arguments = list(arguments)
    with torch.enable_grad():
        for i in wrt:
            arguments[i] = arguments[i].detach().requires_grad_()
        results = function(*arguments)
        results = results if isinstance(results, tuple) else (results,)
        inputs = [arguments[i] for i in wrt]
        gradients = torch.autograd.grad(results[0], inputs, allow_unused=True, materialize_grads=True)
    return *(result.detach() for result in results), *gradients
''',
    "fold_in": '''
def fold_in(key, number):
    """A new key for the number: a block of Threefry, in Python's integers where the number is one, which is faster."""
    if torch.is_tensor(number) or torch.compiler.is_compiling():
        return torch.stack(threefry(key, key.new_zeros(()), torch.as_tensor(number).to(torch.uint32)))
    first, second = key.tolist()
    keys = first, second, first ^ second ^ 0x1BD11BDA
    x, y = first, second + number & 0xFFFFFFFF
    for i in range(20):
        count = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        x = x + y & 0xFFFFFFFF
        y = (y << count | y >> 32 - count) & 0xFFFFFFFF ^ x
        if i % 4 == 3:
            n = i // 4 + 1
            x = x + keys[n % 3] & 0xFFFFFFFF
            y = y + keys[(n + 1) % 3] + n & 0xFFFFFFFF
    return torch.tensor([x, y], dtype=torch.uint32, device=key.device)
''',
    "split_key": '''
def split_key(key, count):
    """New keys [count, 2]."""
    numbers = torch.arange(count, dtype=torch.int32).view(torch.uint32)
    return torch.stack(threefry(key, key.new_zeros(()), numbers), -1)
''',
    "bernoulli": '''
def bernoulli(key, shape, threshold):
    """True where a random word, as a signed integer, is below the threshold. A block has words for two elements."""
    *lead, size = shape
    half = -(-size // 2)
    counters = torch.arange(math.prod(lead) * half, dtype=torch.int32).view(torch.uint32).view(*lead, half)
    words = threefry(key, counters.new_zeros(()), counters)
    return torch.cat([word.view(torch.int32) < threshold for word in words], -1)[..., :size]
''',
    "threefry": '''
def threefry(key, high, low):
    """Two words of random bits for each counter: Threefry-2x32 of 20 rounds, in int32, which wraps as uint32 does, and
    in parts that stay in the cache."""
    shape = torch.broadcast_shapes(high.shape, low.shape)
    first, second = key.view(torch.int32)
    keys = first, second, first ^ second ^ 0x1BD11BDA
    first = high.view(torch.int32).expand(shape).flatten() + keys[0]
    second = low.view(torch.int32).expand(shape).flatten() + keys[1]
    counts = (13, 15, 26, 6, 17, 29, 16, 24)
    # As tensors these are twice as fast as Python's numbers.
    shifts = torch.tensor([32 - count for count in counts], dtype=torch.int32, device=key.device).unbind()
    masks = torch.tensor([(1 << count) - 1 for count in counts], dtype=torch.int32, device=key.device).unbind()
    size = max(1, first.numel()) if torch.compiler.is_compiling() else 32768
    for x, y in zip(first.split(size), second.split(size), strict=True):
        turned = torch.empty_like(y)
        for i in range(20):
            x += y
            torch.bitwise_right_shift(y, shifts[i % 8], out=turned)
            turned &= masks[i % 8]
            torch.add(turned, y, alpha=1 << counts[i % 8], out=y)
            y ^= x
            if i % 4 == 3:
                n = i // 4 + 1
                x += keys[n % 3]
                y += keys[(n + 1) % 3] + n
    return first.view(torch.uint32).view(shape), second.view(torch.uint32).view(shape)
''',
    "sort": '''
def sort(dim, *xs):
    """The tensors in the order that makes the first ascend; equal elements keep theirs, NaN comes last."""
    first, order = xs[0].sort(dim=dim, stable=True)
    others = [x.view(torch.int32) if x.dtype == torch.uint32 else x for x in xs[1:]]
    others = [x.gather(dim, order) for x in others]
    return first, *(y.view(x.dtype) if x.dtype == torch.uint32 else y for x, y in zip(xs[1:], others, strict=True))
''',
    "visible": '''
def visible(places, others, causal=False, window=None):
    """Which of the places [T, 1] see which of the others [1, S]."""
    distance = torch.arange(places)[:, None] - torch.arange(others)
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return seen if window is None else seen & (distance.abs() < window)
''',
    "rope": '''
def rope(x, cos, sin):
    """The halves of the last axis of `x` [B, T, H, D], turned by angles of [T, D / 2] or [B, T, D / 2]."""
    cos, sin = torch.cat([cos, cos], dim=-1).unsqueeze(-2), sin.unsqueeze(-2)
    y = x * cos
    (first, second), (turned, other) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    turned.addcmul_(second, sin, value=-1)
    other.addcmul_(first, sin)
    return y
''',
    "sparse_cross_entropy": '''
def sparse_cross_entropy(logits, labels, ignore_index=None, label_smoothing=0.0):
    """-log softmax(logits) at the labels: 0 at `ignore_index`, NaN at what is no class."""
    labels = labels.long()
    classes = labels.clamp(0, logits.shape[-1] - 1)
    rows = logits.reshape(-1, logits.shape[-1])
    loss = F.cross_entropy(rows, classes.flatten(), reduction="none", label_smoothing=label_smoothing)
    loss = torch.where(labels == classes, loss.view(labels.shape), torch.nan)
    return loss if ignore_index is None else torch.where(labels == ignore_index, 0, loss)
''',
    "sparse_cross_entropy_gradient": '''
def sparse_cross_entropy_gradient(dy, logits, labels, ignore_index=None, label_smoothing=0.0):
    """The gradient of the logits of `sparse_cross_entropy` from that of the losses: softmax less target."""
    labels = labels.long()
    classes = labels.clamp(0, logits.shape[-1] - 1)
    gradient = F.softmax(logits, dim=-1)
    if label_smoothing:
        gradient -= label_smoothing * (1 / logits.shape[-1])
    gradient.scatter_add_(-1, classes.unsqueeze(-1), logits.new_full((*labels.shape, 1), label_smoothing - 1.0))
    gradient *= torch.where(labels == classes, dy, torch.nan).unsqueeze(-1)
    return gradient if ignore_index is None else gradient.masked_fill_((labels == ignore_index).unsqueeze(-1), 0)
''',
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
    return found.reshape((*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :]))
''',
    "take_or_zero": '''
def take_or_zero(x, indices, dim):
    """The slices of `x` at `indices`; zeros for those outside."""
    inside = (indices >= 0) & (indices < x.shape[dim])
    x = torch.cat((x, x.new_zeros(*x.shape[:dim], 1, *x.shape[dim + 1 :])), dim)
    indices = torch.where(inside, indices.long(), x.shape[dim] - 1)
    found = x.index_select(dim, indices.flatten())
    return found.reshape((*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :]))
''',
    "scatter_add": '''
def scatter_add(x, indices, updates, dim):
    """`x` with `updates` added to its slices at `indices`; those outside go to a slice that is cut off."""
    size = x.shape[dim]
    out = torch.cat((x, x.new_zeros((*x.shape[:dim], 1, *x.shape[dim + 1 :]))), dim)
    places = torch.where((indices >= 0) & (indices < size), indices.long(), size).flatten()
    rows = updates.reshape((*x.shape[:dim], places.numel(), *x.shape[dim + 1 :]))
    return out.index_add(dim, places, rows).narrow(dim, 0, size)
''',
    "scatter_set": '''
def scatter_set(x, indices, updates, dim):
    """`x` with `updates` in place of its slices at `indices`; those outside are dropped."""
    axes = range(indices.ndim)
    updates = updates.movedim([dim + i for i in axes], list(axes))
    inside = (indices >= 0) & (indices < x.shape[dim])
    out = x.movedim(dim, 0).clone()
    out = out.index_put((indices[inside].long(),), updates[inside])
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
    "batch_norm_gradient": '''
def batch_norm_gradient(dy, x, mean, variance, scale, epsilon):
    """The gradients of input, scale and offset of batch normalization by the batch's own mean and variance."""
    factor, mask = torch.rsqrt(variance + epsilon), (True, True, True)
    backward = torch.ops.aten.native_batch_norm_backward
    return backward(dy, x, scale, None, None, mean, factor, True, epsilon, mask)
''',
    "same_input_gradient": '''
def same_input_gradient(dy, kernel, shape, strides, dilation, groups):
    """`convolution_input_gradient` where padding gave ceil(size / stride) windows."""
    reached = [
        (n - 1) * stride + d * (k - 1) + 1
        for n, stride, d, k in zip(dy.shape[2:], strides, dilation, kernel.shape[2:], strict=True)
    ]
    padded = [max(pair) for pair in zip(shape[2:], reached, strict=True)]
    dx = convolution_input_gradient(dy, kernel, (*shape[:2], *padded), strides, 0, dilation, groups)
    for axis, (size, whole) in enumerate(zip(shape[2:], padded, strict=True), 2):
        dx = dx.narrow(axis, (whole - size) // 2, size)
    return dx
''',
    "convolution_input_gradient": '''
def convolution_input_gradient(dy, kernel, shape, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of a convolution's input, of this shape; torch.nn.grad's is slower at small images."""
    axes = dy.ndim - 2
    steps = [step if isinstance(step, tuple) else (step,) * axes for step in (stride, padding, dilation)]
    # In the order of axes of dy, unless that means to reorder a kernel that is larger.
    follows = axes == 2 and dy.stride(1) == 1 and kernel.numel() <= dy.numel()
    order = torch.channels_last if follows else torch.contiguous_format
    x = torch.empty(shape, dtype=dy.dtype, device=dy.device, memory_format=order)
    backward, mask = torch.ops.aten.convolution_backward, (True, False, False)
    return backward(dy, x, kernel, None, *steps, False, (0,) * axes, groups, mask)[0]
''',
    "convolution_kernel_gradient": '''
def convolution_kernel_gradient(dy, x, shape, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of a convolution's kernel, of this shape; torch.nn.grad's is slower at small images."""
    axes = x.ndim - 2
    if axes == 2 and groups == 1 and 0 < dy.numel() <= 32 * shape[0]:  # at so few places one product is faster
        windows = F.unfold(x, shape[2:], dilation, padding, stride).transpose(1, 2).flatten(0, 1)
        return (dy.flatten(2).transpose(1, 2).flatten(0, 1).T @ windows).view(shape)
    steps = [step if isinstance(step, tuple) else (step,) * axes for step in (stride, padding, dilation)]
    kernel, mask = x.new_empty(shape), (False, True, False)
    backward = torch.ops.aten.convolution_backward
    return backward(dy, x, kernel, None, *steps, False, (0,) * axes, groups, mask)[1]
''',
    "max_pool": '''
def max_pool(x, *args, **options):
    """`F.max_pool2d`, in the order of axes in which PyTorch's kernel is several times faster where windows overlap."""
    return F.max_pool2d(x.contiguous(memory_format=torch.channels_last), *args, **options).contiguous()
''',
    "largest": '''
def largest(x, *args, **options):
    """Where in each image the largest element of each window of a pooling is, the first of equals."""
    x = x.contiguous(memory_format=torch.channels_last)  # PyTorch's kernel is several times faster so
    return F.max_pool2d(x, *args, return_indices=True, **options)[1].contiguous()
''',
    "pooled_scatter": '''
def pooled_scatter(x, dy, *args, **options):
    """The gradient of a max pooling."""
    places = largest(x, *args, **options).flatten(2)
    return torch.zeros_like(x).flatten(2).scatter_add_(2, places, dy.flatten(2)).view_as(x)
''',
    "pooled_gather": '''
def pooled_gather(x, values, *args, **options):
    """The elements of `values` where a max pooling of `x` takes its own."""
    places = largest(x, *args, **options)
    return values.flatten(2).gather(2, places.flatten(2)).view_as(places)
''',
    "selected": '''
def selected(choose, x, window, strides, padding, dilation, identity):
    """The flat index in `x` of what `choose` takes of each window, -1 where all of it is padding."""
    places = torch.arange(x.numel(), device=x.device).view(x.shape)
    places = F.pad(places, [n for pair in reversed(padding) for n in pair], value=-1)
    for axis, (k, stride, d) in enumerate(zip(window, strides, dilation, strict=True)):
        places = places.unfold(axis, d * (k - 1) + 1, stride)[..., ::d]
    places = places.flatten(x.ndim)
    inside = places >= 0
    best = choose(torch.where(inside, x.flatten()[places.clamp(min=0)], identity), -1, keepdim=True)
    first = inside.to(torch.uint8).argmax(-1, keepdim=True)  # before padding that ties
    return places.gather(-1, torch.where(inside.gather(-1, best), best, first)).squeeze(-1)
''',
    "scatter_at": '''
def scatter_at(dy, places, shape):
    """The sums of the elements of `dy` at flat indices of `shape`; those at -1 are dropped."""
    out = dy.new_zeros(math.prod(shape) + 1)
    out.index_add_(0, torch.where(places < 0, out.numel() - 1, places).flatten(), dy.flatten())
    return out[:-1].view(shape)
''',
    "gather_at": '''
def gather_at(values, places):
    """The elements of `values` at flat indices, 0 at -1."""
    return torch.where(places < 0, 0, values.flatten()[places.clamp(min=0)])
''',
}
