"""Every op, declared once, under its name (`and_`, `or_`, `not_` where the name is a word of Python). Importing this
package declares all ops.

Start at `elementwise` for primitives and at `activation` for composites. `structure` and `control` hold what the IR
itself needs (constant, call, return, cond, while, scan); `operators` puts Python's operators on `Value`. The modules
refer to each other in circles, so a rule reaches ops of other modules as `ops.name` when it runs.
"""

from graphc.ir.ops.activation import (
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    relu6,
    relu_gradient,
    silu,
    silu_gradient,
    softmax,
    softplus,
)
from graphc.ir.ops.arithmetic import (
    add,
    and_,
    atan2,
    clip,
    complex,
    div,
    eq,
    floor_div,
    ge,
    gt,
    le,
    lerp,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    ne,
    or_,
    pow,
    rem,
    select,
    shift_left,
    shift_right,
    square,
    sub,
    xor,
)
from graphc.ir.ops.attention import (
    attention,
    attention_gradient,
    attention_gradient_with_logsumexp,
    attention_weights,
    attention_with_logsumexp,
    rope,
    rope_tables,
    weighted_values,
)
from graphc.ir.ops.casting import bitcast, convert, integer_limits
from graphc.ir.ops.contraction import dot_general, einsum, linear, matmul
from graphc.ir.ops.control import call_function, cond, scan, while_loop
from graphc.ir.ops.convolution import conv, convolution, convolution_input_gradient, convolution_kernel_gradient
from graphc.ir.ops.cotangents import size_of, unbroadcast, zeros_like
from graphc.ir.ops.elementwise import (
    abs,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    ceil,
    conj,
    cos,
    cosh,
    digamma,
    erf,
    erf_inv,
    exp,
    expm1,
    floor,
    imag,
    is_finite,
    is_nan,
    lgamma,
    log,
    log1p,
    neg,
    not_,
    real,
    round_even,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    tan,
    tanh,
)
from graphc.ir.ops.functions import custom_gradient, native_gradient
from graphc.ir.ops.indexing import dynamic_slice, dynamic_update_slice, embedding, gather, one_hot, scatter
from graphc.ir.ops.lora import dora_norm, lora_conv, lora_embedding, lora_linear, lora_weight
from graphc.ir.ops.lora_blocks import (
    glu,
    glu_gradient,
    lora_factor_gradients,
    lora_input_gradient,
    lora_linears,
    lora_mlp,
    lora_small_gradient,
)
from graphc.ir.ops.losses import (
    binary_cross_entropy,
    cross_entropy,
    mean_squared_error,
    sparse_cross_entropy,
    sparse_cross_entropy_gradient,
)
from graphc.ir.ops.movement import (
    broadcast,
    concat,
    expand_dims,
    full,
    iota,
    pad,
    reshape,
    reverse,
    slice,
    split,
    squeeze,
    transpose,
)
from graphc.ir.ops.normalization import (
    batch_norm,
    batch_norm_gradient,
    batch_norm_training,
    group_norm,
    layer_norm,
    rms_norm,
)
from graphc.ir.ops.operators import Operators
from graphc.ir.ops.quantization import (
    dequantize,
    dynamic_quantize,
    fake_quantize,
    fake_quantize_weight,
    integer_linear,
    quantize,
    quantize_rows,
    quantized_conv,
    quantized_linear,
)
from graphc.ir.ops.random import (
    dropout,
    random_bernoulli,
    random_bits,
    random_fold_in,
    random_normal,
    random_permutation,
    random_split,
    random_uniform,
    threefry,
)
from graphc.ir.ops.reduction import (
    argmax,
    argmin,
    cumulative_sum,
    reduce_all,
    reduce_any,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_sum,
    variance,
)
from graphc.ir.ops.sorting import sort
from graphc.ir.ops.special import trigamma
from graphc.ir.ops.structure import (
    assume_dim,
    barrier,
    call,
    constant,
    dim_size,
    name,
    return_,
    stop_gradient,
    yield_,
)
from graphc.ir.ops.window import avg_pool, max_pool, reduce_window, select_and_gather, select_and_scatter
