"""JAX source of weights that are stored as integers."""

from __future__ import annotations

from graphc.codegen.source.dialect import Spelling
from graphc.codegen.source.quantization import dequantize

SPELLING: dict[str, Spelling] = {
    "dequantize": dequantize(lambda text, axes: f"{text}.transpose({', '.join(map(str, axes))})"),
}

HELPERS = {
    "int4_rows": '''
def int4_rows(values, scales, zero_points=None, block=32):
    """A matrix from integers of 4 bits, two a byte, in blocks of a row: less their zero point, times their scale."""
    whole = jnp.stack([values & 15, values >> 4], -1).reshape(len(values), -1).astype(jnp.float32)
    if zero_points is None:
        whole -= 8
    else:
        zero_points = jnp.stack([zero_points & 15, zero_points >> 4], -1).reshape(len(values), -1)
        whole -= jnp.repeat(zero_points[:, : scales.shape[1]], block, 1)[:, : whole.shape[1]]
    return whole * jnp.repeat(scales, block, 1)[:, : whole.shape[1]]
''',
    "q4_0_rows": '''
def q4_0_rows(values, scales):
    """A matrix from GGUF's Q4_0: half a block in the low four bits of its bytes, half in the high ones."""
    whole = jnp.concatenate([values & 15, values >> 4], -1).astype(jnp.float32) - 8
    whole *= scales[..., None]
    return whole.reshape(len(scales), -1)
''',
    "nf4_scales": '''
def nf4_scales(scales, largest, mean, block):
    """Scales that are places in bitsandbytes' 8-bit map, in blocks that have a scale, and less their mean.

    The map has seven decades below 1, each with twice as many values as the one below.
    """
    steps = 2.0 ** np.repeat(range(7), 2 ** np.arange(7))
    i = np.arange(1, 128) - steps + [[0], [1]]
    first, step = np.float64(np.float32(0.1)), (np.float32(0.9) / steps.astype(np.float32)).astype(np.float64)
    bounds = np.where(i <= (steps - 1) / 2, first + step * i, 1 - step * (steps - i)).astype(np.float32)
    means = (10.0 ** (np.log2(steps) - 6)).astype(np.float32) * (bounds.sum(0) / 2)
    table = np.concatenate([-means[::-1], np.float32([0]), means, np.float32([1])])
    found = jnp.array(table)[scales]
    return found * jnp.repeat(largest, block)[: len(scales)] + mean
''',
    "nf4_rows": '''
def nf4_rows(values, scales, rows, columns, block):
    """A matrix from 4-bit normal floats, two a byte: places in a table, in blocks that have a scale."""
    table = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
    table += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
    table += [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
    table += [0.7229568362236023, 1.0]
    places = jnp.stack([values >> 4, values & 15], -1).ravel()[: rows * columns]
    flat = jnp.array(table, jnp.float32)[places] * jnp.repeat(scales, block)[: rows * columns]
    return flat.reshape(rows, columns)
''',
}
